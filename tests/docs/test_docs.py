"""The documentation says what the code does: tables, ids, options, exit codes, commands, digests, links."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import typer
import typer.main
from docs.definitions import ids_in
from naive import bootstrap as naive
from pydantic import BaseModel
from simulator import PRESERVED, StudySimulator, small
from typer.testing import CliRunner
from verify.forging import honest

from atlas_schema.canonical import digest_document, raw_digest
from atlas_schema.cli import atlas, verify
from atlas_schema.documents.schema import MODELS
from atlas_schema.evidence.columns import from_arrow
from atlas_schema.evidence.digest import leaf_hashes
from atlas_schema.evidence.pages import ENCODINGS
from atlas_schema.evidence.tables import TABLES, Dims
from atlas_schema.evidence.unpack import CODE
from atlas_schema.limits import LIMITS, listed
from atlas_schema.measures import definitions
from atlas_schema.measures.bootstrap import (
    Draws,
    Strata,
    bounds,
    first_seed,
    resample_counts,
    second_seed,
    studentised,
)
from atlas_schema.measures.tensors import tensor_digest
from atlas_schema.study.describe import OBJECTS
from atlas_schema.study.probe import item_digest, positions_for, token_digest
from atlas_schema.verify.outcome import PROFILES, Channel, Code
from atlas_schema.verify.rules import RULES
from atlas_schema.verify.verifier import Options

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])
NAMED = [pytest.param(page, id=page.name) for page in PAGES]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """Return a heading's section, up to the next heading of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    parts = re.split(rf"^{re.escape(heading)}$", text(page), flags=re.MULTILINE)
    assert len(parts) == 2, f"{page} has {len(parts) - 1} headings {heading!r}"
    return re.split(rf"^#{{1,{level}}} ", parts[1], flags=re.MULTILINE)[0]


def cells(line: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def rows(markdown: str) -> list[list[str]]:
    """Return the rows of the first Markdown table, without head and rule."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [cells(line) for line in lines[2:]]


# --- format.md ----------------------------------------------------------------------------------------------------


def test_every_table_is_described_and_no_other() -> None:
    described = re.findall(r"^### table (\w+)$", text("docs/format.md"), flags=re.MULTILINE)
    assert described == list(TABLES)


@pytest.mark.parametrize("name", list(TABLES))
def test_columns_are_those_declared(name: str) -> None:
    spec, described = TABLES[name], section("docs/format.md", f"### table {name}")
    stated = [(row[0].strip("`"), row[1], row[2]) for row in rows(described)]
    shape = {"": "—"}
    assert stated == [
        (c.name, c.type + ("?" if c.nullable else ""), shape.get(c.shape, f"[{c.shape}]")) for c in spec.columns
    ]
    assert all(len(row) == 5 and row[4] for row in rows(described)), "every column has a unit cell and a meaning"


@pytest.mark.parametrize("name", list(TABLES))
def test_key_and_leaf_are_those_declared(name: str) -> None:
    spec, line = TABLES[name], section("docs/format.md", f"### table {name}").strip().splitlines()[0]
    key, _, leaf = line.partition("eaf: ")
    if line.startswith("Key and leaf: "):
        assert tuple(re.findall(r"`(\w+)`", line)) == spec.key == spec.leaf
        return
    assert tuple(re.findall(r"`(\w+)`", key)) == spec.key
    counted = {"the whole table": 0, "the first two": 2, "the first three": 3}
    words = leaf.split(".")[0]
    assert spec.leaf == (tuple(re.findall(r"`(\w+)`", words)) or spec.key[: counted.get(words, -1)])


def fields(model: type[BaseModel]) -> Iterator[str]:
    """Yield the names of a model's fields and of the models inside it."""
    for name, field in model.model_fields.items():
        yield name
        yield from _inside(field.annotation)


def _inside(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield from fields(annotation)
        return
    for part in get_args(annotation):
        yield from _inside(part)


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_field_of_a_document_is_described(kind: str) -> None:
    heading = {
        "contract": "Contract",
        "preregistration": "Pre-registration",
        "receipt": "Receipt",
        "run_log": "Run log",
        "measurement": "Measurement",
        "prediction": "Prediction",
        "read": "Read",
    }
    described = section("docs/format.md", f"### {heading[kind]}")
    tables = {row[0] for row in rows(described)}
    top = {name for name in MODELS[kind].model_fields if not any(f"`{name}`" in cell for cell in tables)}
    assert not top, "top-level fields without a row"
    named = set(re.findall(r"`(\w+)`", described))
    counted = {"run", "layer", "window", "routing", "state", "update", "update_vector", "output", "task", "overlap"}
    assert not set(fields(MODELS[kind])) - named - counted


def test_limits_are_those_enforced() -> None:
    described = section("docs/format.md", "## Documents") + section("docs/format.md", "## Bundle")
    assert LIMITS.document_bytes == 16 * 2**20
    assert "16 MiB" in described
    for number in (
        LIMITS.depth,
        LIMITS.string_bytes,
        LIMITS.number_characters,
        LIMITS.values,
        LIMITS.members,
        LIMITS.dimension,
    ):
        assert f"{number:,}" in described
    for number in (LIMITS.row_groups, LIMITS.group_rows, LIMITS.router_values, LIMITS.list_values):
        assert f"{number:,}" in described
    assert (LIMITS.table_rows, LIMITS.row_group_bytes, LIMITS.text_bytes) == (2 * 10**9, 2**30, 2**20)
    assert LIMITS.table_bytes == 64 * 2**30
    assert all(words in described for words in ("2·10^9 rows", "64 GiB", "1 GiB", "1 MiB"))
    assert [name for name in ENCODINGS.values() if f"`{name}`" not in described] == []


def test_the_table_of_bounds_is_that_of_the_code() -> None:
    stated = [
        (row[0].strip("`"), row[1], row[2], row[3]) for row in rows(section("docs/verification.md", "## Hostile input"))
    ]
    assert stated == [(name, f"{value:,}", unit, meaning) for name, value, unit, meaning in listed()]


def test_what_is_refused_of_a_database_is_listed() -> None:
    described = section("docs/verification.md", "## Hostile input")
    assert [kind for kind in CODE if kind not in described] == []


def test_vectors_are_reproduced() -> None:
    stated = section("docs/format.md", "## Test vectors")
    ten = token_digest(range(10))
    positions = positions_for(ten, 10, 4, 1)
    seed = hashlib.sha256(b"atlas-positions/1\0" + raw_digest(ten)).digest()
    first = np.random.Philox(key=np.frombuffer(seed[:16], dtype="<u8").astype(np.uint64), counter=0).random_raw()
    found = [
        token_digest([1, 2, 3]), item_digest([1, 2], [3]), ten, ", ".join(map(str, positions)), str(first),
        tensor_digest(np.array([[1, 2], [3, 4]], dtype=np.float32)), digest_document({"b": 1.0, "a": 0.1}),
    ]  # fmt: skip
    assert [value for value in found if value not in stated] == []


def test_the_spelled_out_leaf_is_the_hashed_one() -> None:
    stated = section("docs/format.md", "## Test vectors")
    spelled = bytes.fromhex("".join(re.findall(r"^[0-9a-f]+$", stated, flags=re.MULTILINE)))
    dims = Dims(d=2, E=2, k=1, P=1)
    schema = TABLES["task"].arrow_schema(dims)
    table = pa.table([["base", "base"], ["i1", "i2"], pa.array([1.0, 0.0], pa.float32())], schema=schema)
    expected = leaf_hashes(from_arrow(TABLES["task"], dims, table), dims)[0]
    assert hashlib.sha256(spelled).digest() == expected
    assert expected.hex() in stated


def test_the_bootstrap_vector_is_reproduced() -> None:
    stated = " ".join(section("docs/measures.md", "### Seeds and draws").split())
    first = first_seed("sha256:" + "00" * 32, "sha256:" + "11" * 32)
    counts = resample_counts(first, Strata((np.arange(3), np.arange(3, 5))), 2)
    drawn = [
        " and ".join(f"({', '.join(str(int(c)) for c in row)})" for row in stratum) + " times" for stratum in counts
    ]
    assert [value for value in (first.hex(), second_seed(first).hex(), *drawn) if value not in stated] == []


def test_the_full_bootstrap_vector_follows_from_the_text_alone() -> None:
    """Computed by the naive implementation, which forms every resample, and by the shipped one."""
    described = section("docs/measures.md", "### Studentised bounds").split("**Test vector.**")[1]
    inputs, outputs = (rows(part) for part in described.split("gives, before"))
    given = {
        cell: naive.CellInput([(r[1], r[0], float(r[2 * cell]), float(r[2 * cell + 1])) for r in inputs])
        for cell in (1, 2)
    }
    n, d = (np.array([[float(r[at + 2 * c]) for c in (0, 1)] for r in inputs]) for at in (2, 3))
    strata = Strata(tuple(np.flatnonzero([r[1] == name for r in inputs]) for name in ("code", "legal")))
    digests = bytes(32), bytes([0x11]) * 32
    found, shipped = [], []
    for name, seed in zip(("first", "second"), naive.bootstrap_seeds(*digests), strict=True):
        for cell, i in naive.simultaneous_intervals(given, seed, 200, 0.05, merge_below=5).items():
            error = max(i.mc_lower, i.mc_upper, i.mc_simultaneous_lower)
            values = (i.theta, i.se, i.lower, i.upper, i.simultaneous_lower, i.simultaneous_upper, error)
            found.append([name, str(cell), *(f"{v:.9g}" for v in values if v is not None)])
        b = bounds(studentised(n, d, Draws(seed, strata, 200)), [0.05], 20)[0]
        errors = np.max([b.error_lower, b.error_upper, b.error_simultaneous], axis=0)
        for c in (0, 1):
            columns = (b.theta, b.se, b.lower, b.upper, b.simultaneous_lower, b.simultaneous_upper, errors)
            shipped.append([name, str(c + 1), *(f"{v[c]:.9g}" for v in columns)])
    assert found == outputs
    assert shipped == outputs


# --- measures.md, rules.md, verification.md -------------------------------------------------------------------------


def test_every_definition_is_described() -> None:
    for definition in definitions.DEFINITIONS.values():
        row = next(r for r in rows(section("docs/measures.md", "## 3. Drift channels")) if r[0] == f"`{definition.id}`")
        assert row[1] == ("native" if definition.native else "same-state")
        assert row[4] == ("both" if len(definition.forms) == 2 else f"`{definition.forms[0]}`")
    listed = [r for r in rows(section("docs/measures.md", "## 8. All definitions")) if r[0].startswith("`")]
    assert listed == [[f"`{e.id}`", e.title, e.unit, e.source, e.assurance] for e in definitions.REGISTRY.values()]
    explained = text("docs/measures.md").partition("## 8. All definitions")[0]
    assert [i for i in definitions.REGISTRY if f"`{i}`" not in explained] == []


def listed_definitions() -> set[str]:
    table = rows(section("docs/measures.md", "## 8. All definitions"))
    return {r[0].strip("`") for r in table if r[0].startswith("`")}


def test_every_definition_occurs_in_a_receipt() -> None:
    assert ids_in(honest().model_dump(mode="json")["findings"]) == listed_definitions()


@pytest.mark.parametrize("study", ["study", "study-few", "study-deepseek"])
def test_every_definition_occurs_in_the_shipped_receipts(study: str) -> None:
    found = sorted((ROOT / "fixtures" / study).glob("receipt-*.json"))
    assert found
    for path in found:
        findings = json.loads(path.read_text(encoding="utf-8"))["findings"]
        paired = (
            set() if len(findings["arms"]) > 1 else {"success.matched/1"}
        )  # one arm has no other to be matched with
        assert ids_in(findings) == listed_definitions() - paired, path.name


def test_every_object_is_described_and_extracted() -> None:
    listed = [
        r[0]
        for r in rows(section("docs/measures.md", "## 1. Objects and invariants"))
        if r[0].startswith("`") and len(r) == 5
    ]
    assert sorted(listed) == sorted(f"`{name}`" for name, _, _ in OBJECTS)
    columns = {f"{table}.{c.name}" for table, spec in TABLES.items() for c in spec.columns}
    assert [c for _, _, named in OBJECTS for c in named.split() if c not in columns] == []
    assert [o.id for o in honest().extraction.objects] == [name for name, _, _ in OBJECTS]


def test_sections_of_measures_are_numbered() -> None:
    found = re.findall(r"^## (\d)\. ", text("docs/measures.md"), flags=re.MULTILINE)
    assert found == [str(n) for n in range(1, 9)]


def test_rules_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_rules", DOCS / "generate_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert text("docs/rules.md") == module.render(), "run: python docs/generate_rules.py"
    assert [rule for rule in RULES if f"`{rule}`" not in text("docs/rules.md")] == []


@pytest.mark.parametrize(("page", "heading"), [("README.md", "## Exit codes of `atlas-verify`"),
                                               ("docs/verification.md", "## Exit codes")])  # fmt: skip
def test_exit_codes_are_those_of_the_code(page: str, heading: str) -> None:
    stated = {int(row[0]): row[1].strip("`") for row in rows(section(page, heading))}
    assert stated == {int(code): code.name for code in Code}


def test_channels_and_profiles_are_described() -> None:
    channels = rows(section("docs/verification.md", "## Channels"))
    names = [row[0].strip("`") for row in channels if len(row) == 3]
    assert names == [channel.value for channel in Channel]
    assert [p for p in PROFILES if f"| `{p}` |" not in section("docs/verification.md", "## Channels")] == []
    assert f"`{Options().profile}` (default)" in section("docs/verification.md", "## Options")
    assert f"`{Options().require}` (default)" in section("docs/verification.md", "## Options")


# --- commands and links ---------------------------------------------------------------------------------------------


@cache
def commands() -> dict[str, Any]:
    """Return every command by its words, such as ``atlas prereg new``."""
    from atlas_extractors.cli import register

    extension = typer.Typer(add_completion=False)
    register(extension)
    found: dict[str, Any] = {
        "atlas-verify": typer.main.get_command(verify.app), "atlas extract": typer.main.get_command(extension)
    }  # fmt: skip

    def walk(words: str, command: Any) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(f"{words} {name}", inner)
        if not hasattr(command, "commands"):
            found[words] = command

    walk("atlas", typer.main.get_command(atlas.app))
    return found


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("-")} | {"--help"}


def test_every_option_of_atlas_verify_is_described() -> None:
    stated = {row[0].strip("`") for row in rows(section("docs/verification.md", "## Options"))}
    assert stated == options(commands()["atlas-verify"])


@pytest.mark.parametrize(
    ("words", "heading"),
    [
        ("atlas prereg plan", "### 0. Plan the size"),
        ("atlas prereg new", "### 1. Pre-register"),
        ("atlas extract", "### 2. Extract"),
    ],
)
def test_every_option_of_a_step_is_described(words: str, heading: str) -> None:
    described = section("docs/technician.md", heading)
    missing = [
        parameter.opts for parameter in commands()[words].params
        if not any(re.search(rf"`{option}[ `=]", described) for option in parameter.opts)
    ]  # fmt: skip
    assert missing in ([], [["--help"]])


def shown(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command line in the page's shell blocks."""
    for block in re.findall(
        r"^```(?:sh|console)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    ):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ")
            if re.match(r"(?:\S*/)?atlas(?:-verify)? ", line):
                yield shlex.split(line, comments=True)


def test_the_shown_plan_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pilot is simulated. Digests are not compared: they depend on the last bits of the simulation."""
    settings = small(seed=3, clusters=(("code", 30), ("legal", 30)), arms=(PRESERVED,), protected=(1,), items=80)
    StudySimulator.make(settings).write(tmp_path / "pilot")
    block = re.findall(r"^```console\n(.*?)^```", section("docs/technician.md", "### 0. Plan the size"), re.M | re.S)[0]
    command, _, shown_text = block.partition("\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(atlas.app, shlex.split(command)[2:])
    digests = re.compile(r"sha256:[0-9a-f]{64}")
    assert result.exit_code == 0, result.output
    assert digests.sub("sha256:...", result.stdout) == digests.sub("sha256:...", shown_text)


def split(words: list[str]) -> tuple[str, list[str]]:
    """Return the longest command that the words begin with, and the rest."""
    for length in (3, 2, 1):
        name = " ".join(words[:length])
        if name in commands():
            return name, words[length:]
    raise AssertionError(f"no such command: {' '.join(words)}")


@pytest.mark.parametrize("page", NAMED)
def test_shown_commands_exist_with_their_options(page: Path) -> None:
    for words in shown(page):
        name, rest = split(words)
        command = commands()[name]
        given = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert given <= options(command), f"{page.name}: {name} has no {given - options(command)}"
        required = [p.opts for p in command.params if p.required and p.opts and p.opts[0].startswith("-")]
        assert [opts for opts in required if not given & set(opts)] == [], (
            f"{page.name}: {name} lacks a required option"
        )


@pytest.mark.parametrize("page", NAMED)
def test_mentioned_commands_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for mention in re.findall(r"`(atlas(?:-verify)? [^`]+)`", prose):
        name, rest = split(shlex.split(mention))
        unknown = {word.partition("=")[0] for word in rest if word.startswith("-")} - options(commands()[name])
        assert not unknown, f"{page.name}: {mention}"


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    plain = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return frozenset(slug(heading) for heading in re.findall(r"^#{1,6} (.+)$", plain, flags=re.MULTILINE))


@pytest.mark.parametrize("page", NAMED)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", NAMED)
def test_json_examples_parse(page: Path) -> None:
    for block in re.findall(r"^```json\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        assert json.loads(block), block


def test_the_readme_shows_what_the_demo_prints() -> None:
    block = next(b for b in re.findall(r"```text\n(.*?)```", text("README.md"), flags=re.DOTALL) if "VERIFIED (0)" in b)
    printed = CliRunner().invoke(verify.app, ["--demo"]).output.splitlines()
    assert [line for line in block.splitlines() if line and line not in printed] == []
