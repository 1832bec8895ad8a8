"""`signing.md` is executed as it is printed; the tables of `threat-model.md` are compared with the cases that make the attacks."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attacks import forged_plans
from attacks.forgeries import FORGERIES, lines_of
from docs.test_docs import cells, commands, options, section, text
from verify.test_authenticity import CASES as SIGNED
from verify.test_rules import CASES

from atlas_schema.demo import demo_folder
from atlas_schema.limits import LIMITS
from atlas_schema.signing.envelope import PAYLOAD_TYPE
from atlas_schema.signing.statement import PREDICATE_TYPE, ROLES
from atlas_schema.verify.outcome import Channel
from atlas_schema.verify.rules import RULES

MODULES = {"atlas": "atlas_schema.cli.atlas", "atlas-verify": "atlas_schema.cli.verify"}
assert forged_plans.PIN  # its import registers the forgeries
CONSOLE = re.compile(r"^```console\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def steps(block: str) -> list[tuple[str, list[str]]]:
    """Split a console block into commands and the lines printed under each."""
    parts = [part.splitlines() for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(part[0], part[1:]) for part in parts]


def pattern(lines: list[str]) -> str:
    """Return what the printed lines stand for: a line ``…`` for any lines, ``…`` in a line for any characters."""
    made = ["(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in lines]
    return "".join(made)


def test_the_example_comes_out_as_printed(tmp_path: Path) -> None:
    folder = shutil.copytree(demo_folder(), tmp_path / "study")
    codes = []
    for block in CONSOLE.findall(text("docs/signing.md")):
        for command, printed in steps(block):
            name, *rest = shlex.split(command)
            done = subprocess.run([sys.executable, "-m", MODULES[name], *rest], cwd=folder, capture_output=True, text=True,
                                  timeout=120, check=False)  # fmt: skip
            assert re.fullmatch(pattern(printed), done.stdout), f"{command}\n{done.stdout}{done.stderr}"
            codes.append(done.returncode)
    assert codes == [0, 0, 0, 0, 0, 0, 4]


def test_what_is_printed_is_not_matched_by_anything() -> None:
    assert re.fullmatch(pattern(["a …", "…", "z"]), "a 1\nb\nc\nz\n")
    for other in ("a 1\nb\n", "b\nz\n", "a 1\nz\nb\n"):
        assert not re.fullmatch(pattern(["a …", "…", "z"]), other)


def table(markdown: str, width: int) -> list[list[str]]:
    found = [cells(line) for line in markdown.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return [row for row in found if len(row) == width]


def test_subjects_types_and_bounds_are_those_of_the_code() -> None:
    described = section("docs/signing.md", "## What is signed")
    assert [row[0].strip("`") for row in table(described, 2)[1 : 1 + len(ROLES)]] == list(ROLES)
    assert f"`{PREDICATE_TYPE}`" in described
    assert f"`{PAYLOAD_TYPE}`" in described
    assert f"more than {LIMITS.signatures}\n  signatures" in section("docs/signing.md", "## What is refused")


@pytest.mark.parametrize(("words", "heading"), [("atlas sign", "## What is signed"), ("atlas keygen", "## Keys")])
def test_every_option_of_a_signer_is_described(words: str, heading: str) -> None:
    described = section("docs/signing.md", heading)
    assert [o for o in options(commands()[words]) - {"--help"} if f"`{o}`" not in described] == []


ATTACKS = [
    row
    for heading in (
        "## Attacks on the documents",
        "## Attacks on the rows",
        "## Evidence and receipt forged together",
        "## Attacks on a signature",
    )
    for row in table(section("docs/threat-model.md", heading), 5)[1:]
]
PARTIES = [row[0] for row in table(section("docs/threat-model.md", "## Parties"), 3)[1:]]


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row[4].strip("`"))
def test_an_attack_is_caught_where_the_threat_model_says(row: list[str]) -> None:
    """That each case and forgery fires these rules and no others is held by the tests of the cases and forgeries themselves."""
    _, party, channel, rules, name = row
    named = {f"ATL-{rule}" for rule in rules.split()}
    made = {n: case.rules for n, case in CASES.items()} | {n: case.rules for n, case in SIGNED.items()}
    made |= {n: frozenset(f"ATL-{rule}" for rule in known.rules) for n, known in FORGERIES.items()}
    assert named == made[name.strip("`")]
    assert {RULES[rule].channel for rule in named} == {Channel(name) for name in channel.split(", ")}
    assert party in PARTIES


def test_the_threat_model_shows_attacks_on_every_channel_that_is_checked() -> None:
    assert {name for row in ATTACKS for name in row[2].split(", ")} == {c.value for c in Channel} - {"replay"}
    assert len({row[4] for row in ATTACKS}) == len(ATTACKS)


UNCAUGHT = table(section("docs/threat-model.md", "## What nothing catches"), 5)[1:]


def test_what_nothing_catches_says_by_whom_at_what_cost_and_who_would() -> None:
    assert len(UNCAUGHT) >= 10
    assert [row for row in UNCAUGHT if not all(row)] == []
    assert [row[1] for row in UNCAUGHT if row[1] not in (*PARTIES, "anybody with access")] == []


def test_every_forgery_stands_in_the_threat_model_once() -> None:
    """Those that are caught in their table, those that are believed among what nothing catches, with the lines that they took."""
    caught = [row[4].strip("`") for row in ATTACKS if row[4].strip("`") in FORGERIES]
    believed = {row[4].strip("`"): row for row in UNCAUGHT if row[4].startswith("`")}
    assert sorted(caught) == sorted(name for name, known in FORGERIES.items() if not known.believed)
    assert sorted(believed) == sorted(name for name, known in FORGERIES.items() if known.believed)
    for name, row in believed.items():
        assert row[1] == FORGERIES[name].by
        assert row[2].startswith(f"{lines_of(FORGERIES[name].make)} lines"), name
