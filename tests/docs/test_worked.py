"""The worked examples of docs/vocabulary.md and docs/protocol.md are what happens: commands run, output compared line by line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli.terminal import at_terminal

from atlas_schema.protocol.sequence import MAY
from atlas_schema.transcription.raw import RawOutput, RawRun
from atlas_schema.vocabulary import Status, load_vocabulary

DOCS = Path(__file__).parents[2] / "docs"
PROMPT = re.compile(r"^([A-Z][A-Za-z .]*(?: \[y/N\])?): (.*)$")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def fenced(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), flags=re.MULTILINE | re.DOTALL)


def steps(blocks: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with the lines it should print."""
    for block in blocks:
        for part in block.split("$ ")[1:]:
            command, *shown = part.splitlines()
            yield command, shown


def plain(text: str) -> str:
    """Return text with times and digests made alike."""
    return re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "…Z", text)).strip()


def run(folder: Path, command: str, answers: list[str]) -> str:
    """Run a command at a pseudo-terminal that does not echo, and return what it printed."""
    return at_terminal(folder, answers, *shlex.split(command)[1:], echo=False).out


def compare(folder: Path, command: str, shown: list[str]) -> None:
    asked = [m for line in shown if (m := PROMPT.match(line))]
    interactive = command.startswith(("atlas judge", "atlas log read"))
    answers = [m.group(2) for m in asked] if interactive else []
    found = run(folder, command, answers)
    if not interactive:
        assert plain(found) == plain("\n".join(shown)), command
        return
    # Without an echo, what was typed and the line ends after it are missing.
    expected = "".join(f"{m.group(1)}: " if (m := PROMPT.match(line)) else f"{line}\n" for line in shown)
    assert plain(found) == plain(expected), command


def test_the_protocols_example_is_what_happens(tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("what is planned")
    (tmp_path / "prompts.txt").write_text("What is the capital?\n")
    first, *later = list(steps(fenced("protocol.md", "console")))
    for command, shown in [first, *later[:2]]:
        compare(tmp_path, command, shown)
    write_raw(tmp_path)
    for command, shown in later[2:]:
        compare(tmp_path, command, shown)
    mentioned = re.search(r"`(atlas log verify [^`]+)` the log is tier A", page("protocol.md"))
    assert mentioned
    assert "CONSISTENT" in run(tmp_path, mentioned.group(1), [])
    assert "tier A" in run(tmp_path, "atlas log show", [])


def write_raw(folder: Path) -> None:
    """Write the raw output of the page, with times of now: it must come after the log's first steps."""
    (block,) = fenced("protocol.md", "jsonl")
    first, *rest = block.splitlines()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    header = {**json.loads(first), "started": now, "ended": now}
    (folder / "raw.jsonl").write_text("\n".join([json.dumps(header), *rest]) + "\n")


def test_the_vocabularys_example_is_what_happens(tmp_path: Path) -> None:
    shown = list(steps(fenced("vocabulary.md", "console")))
    assert shown
    for command, printed in shown:
        compare(tmp_path, command, printed)


def test_the_vocabularys_python_runs() -> None:
    (block,) = fenced("vocabulary.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", block + "print(term.id, convention.id)"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "navigator.viscosity/1 navigator.viscosity.flat_is_icky/1\n"


def rows(name: str, head: str) -> list[list[str]]:
    """Return the rows of the table with this head."""
    table = page(name).split(f"\n{head}\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table]


def test_layers_statuses_and_conflicts_are_those_of_the_data() -> None:
    vocabulary = load_vocabulary()
    stated = {row[0].strip("`"): int(row[1]) for row in rows("vocabulary.md", "| layer | terms | what it holds |")}
    assert stated == {name: sum(t.layer == name for t in vocabulary.terms.values()) for name in vocabulary.layers}
    assert [row[0].strip("`") for row in rows("vocabulary.md", "| status | means |")] == list(Status)
    assert {row[0] for row in rows("vocabulary.md", "| word | what disagrees |")} == {
        c.word for c in vocabulary.conflicts
    }


def test_checks_are_those_of_the_code() -> None:
    source = (DOCS.parent / "atlas_schema" / "vocabulary" / "check.py").read_text(encoding="utf-8")
    stated = {
        name for row in rows("vocabulary.md", "| check | holds where |") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert stated == set(re.findall(r'Fault\(\s*"(\w+)"', source))


def test_steps_and_raw_fields_are_those_of_the_code() -> None:
    assert [row[0].strip("`") for row in rows("protocol.md", "| step | what happened | written by |")] == [
        "declare", "stimulus", "read0", "extract", "transcribe", "read1", "issue", "verify", "judge"
    ]  # fmt: skip
    assert set(MAY) == {row[0].strip("`") for row in rows("protocol.md", "| step | what happened | written by |")}
    for head, model in (("| field of the run | content |", RawRun), ("| field of an output | content |", RawOutput)):
        stated = {name for row in rows("protocol.md", head) for name in re.findall(r"`(\w+)`", row[0])}
        assert stated == set(model.model_fields)


def test_series_are_those_that_are_computed(tmp_path: Path) -> None:
    from atlas_schema.transcription.draft import draft
    from atlas_schema.transcription.raw import parse_raw

    write_raw(tmp_path)
    grouped = (tmp_path / "raw.jsonl").read_bytes().replace(b'"group": null', b'"group": "geography"')
    made = {s.name: s.term for s in draft(parse_raw(grouped, "raw.jsonl"), "raw.jsonl").series}
    stated = {
        name: row[2].strip("`")
        for row in rows("protocol.md", "| series | formula | term |")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert made == stated


@pytest.mark.parametrize("tier", ["A", "B", "C", "none"])
def test_every_tier_is_described(tier: str) -> None:
    assert tier in [row[0] for row in rows("protocol.md", "| tier | where |")]
