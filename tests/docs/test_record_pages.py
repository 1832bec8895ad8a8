"""The worked examples of measurements.md and predictions.md, executed: documents, commands, and every line shown."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from atlas_schema.claims.expression import FUNCTIONS
from atlas_schema.claims.interval import show, written
from atlas_schema.claims.library import built_in_predictions
from atlas_schema.cli import atlas, verify
from atlas_schema.limits import LIMITS

DOCS = Path(__file__).parents[2] / "docs"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "measurements"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        {"atlas": atlas.main, "atlas-verify": verify.main}[words[0]]()
    said = capsys.readouterr()
    return said.out + said.err


def matches(shown: str, said: str) -> bool:
    """Whether output is as shown. A line of one ellipsis stands for any lines, an ellipsis in a line for any characters."""
    pattern = "".join(
        "(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", "[^\n]*") + "\n" for line in shown.splitlines()
    )
    return re.fullmatch(pattern, said) is not None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("measurement", "prediction"):
        (document,) = blocks(page(f"{kind}s.md"), "json")
        (tmp_path / f"{kind}.json").write_text(document, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["measurements.md", "predictions.md"])
def test_commands_print_what_is_shown(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0
    for block in blocks(page(name), "console"):
        for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = call.partition("\n")
            said = run(line, monkeypatch, capsys)
            assert matches(shown, said), said
            count += 1
    assert count == {"measurements.md": 1, "predictions.md": 3}[name]


def test_shown_intervals_are_those_of_the_numbers() -> None:
    lines = [
        line for line in page("measurements.md").splitlines() if re.match(r"\| `(rounded|truncated|exact)` \|", line)
    ]
    assert len(lines) == 3
    for line in lines:
        reading, *stated = [cell.strip().strip("`").replace("−", "-") for cell in line.strip("|").split("|")]
        assert stated == [show(written(text, reading)) for text in ("13.7", "-13.7", "0.0")]  # type: ignore[arg-type]


def test_every_function_is_described_and_the_bound_is_the_enforced_one() -> None:
    described = page("measurements.md").split("## Expressions")[1].split("## Outcomes")[0]
    named = {word for cell in re.findall(r"^\| `([a-z ]+)` \|", described, flags=re.MULTILINE) for word in cell.split()}
    assert named == set(FUNCTIONS)
    assert f"{LIMITS.claim_operations:,} operations" in described


def test_every_shipped_prediction_is_listed() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", page("predictions.md"), flags=re.MULTILINE)
    assert listed == [(p.id, p.source) for p in built_in_predictions().values()]


@pytest.mark.parametrize("record", sorted(FIXTURES.glob("*.json")), ids=lambda p: p.stem)
def test_the_fixtures_page_says_what_verification_says(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(f"atlas-verify {record}", monkeypatch, capsys)
    found = re.findall(
        r"^  (supported|contradicted|undetermined|unlicensed) +([a-z0-9-]+): (.+)$", said, flags=re.MULTILINE
    )
    text = (FIXTURES / "README.md").read_text(encoding="utf-8")
    described = text.split(f"## {record.name}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| ([a-z]+) \|", described, flags=re.MULTILINE)
    assert [(outcome, name, says) for name, says, outcome in rows] == found
    assert said.partition("  ")[0] in described
