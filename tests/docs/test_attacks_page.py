"""What README says of attacks is what the page of attacks says, and every section there was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.page import section

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "attacks.md"
SECTIONS = re.findall(r"<!-- made by (\S+) -->", PAGE.read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Return text in lower case without marks of emphasis and line breaks."""
    return re.sub(r"\s+", " ", text.replace("*", "").replace("`", "")).lower()


def rows() -> list[tuple[str, str]]:
    """Return the figure and the command of every row in README."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## How it was attacked")[1].split("\n## ")[0]
    return re.findall(r"^\| [^|]+ \| ([^|]+) \| `make (\w+)` \|$", table, flags=re.MULTILINE)


def made_by(command: str) -> str:
    """Return the section that a target of the Makefile writes."""
    recipe = re.split(rf"^{command}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1].split(
        "\n\n"
    )[0]
    found = [
        name
        for name in SECTIONS
        if name in recipe or name.removeprefix("tests/").removesuffix(".py").replace("/", ".") in recipe
    ]
    assert len(found) == 1, command
    return section(PAGE, found[0])


def test_every_section_has_a_row_in_the_readme() -> None:
    assert len(rows()) == len(SECTIONS) == 7


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_was_measured(name: str) -> None:
    assert re.search(r"\d", section(PAGE, name)), f"nothing was written by {name}"


@pytest.mark.parametrize(("figure", "command"), rows())
def test_the_readme_states_what_was_printed(figure: str, command: str) -> None:
    told = plain(made_by(command))
    for part in figure.split(";"):
        assert plain(part).strip() in told, command
