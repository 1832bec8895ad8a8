"""List every property, with the number of examples that it is tried on: read from the tests, put into `docs/contracts.md`.

python -m properties.table --write docs/contracts.md
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import write_section

TESTS = Path(__file__).parents[1]
NAME = "tests/properties/table.py"
PROFILES = {"quick": 40, "thorough": 150}
"""Examples of a property that sets no number of its own; `conftest` registers the profiles, and a test compares them."""
EVERY = "every case"


@dataclass(frozen=True, slots=True)
class Property:
    """One property: the file and the test, what it says, and its numbers of examples in both profiles."""

    file: str
    test: str
    subject: str
    says: str
    quick: str
    thorough: str


def _called(node: ast.expr, *names: str) -> ast.Call | None:
    if not isinstance(node, ast.Call):
        return None
    name = (
        node.func.id
        if isinstance(node.func, ast.Name)
        else node.func.attr
        if isinstance(node.func, ast.Attribute)
        else ""
    )
    return node if name in names else None


def properties() -> Iterator[Property]:
    """Yield the properties that say in a sentence what they hold, in order of files and lines."""
    for path in sorted((TESTS / "properties").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            for call in filter(None, (_called(d, "holds", "machine") for d in node.decorator_list)):
                told = [ast.literal_eval(part) for part in call.args]
                numbers = [f"{n:,}" for n in told[2:4]] or [EVERY, EVERY]
                marked = any("thorough" in ast.unparse(d) for d in node.decorator_list)
                part = next((ast.literal_eval(k.value) for k in call.keywords if k.arg == "part"), "")
                quick = "—" if marked else part or numbers[0]
                if isinstance(node, ast.ClassDef):
                    quick, numbers[1] = f"{quick} × {2 * told[4] // 3} steps", f"{numbers[1]} × {told[4]} steps"
                yield Property(path.name, node.name, told[0], told[1], quick, numbers[1])


def _number(node: ast.FunctionDef, profile: str) -> int:
    """Return how many examples a Hypothesis test is tried on, from its own settings or the profile's."""
    base = PROFILES[profile]
    for decorator in node.decorator_list:
        if ast.unparse(decorator) == "FEWER":
            return max(1, base // 5)
        call = _called(decorator, "examples")
        if call is not None:
            numbers: list[int] = [ast.literal_eval(part) for part in call.args]
            return numbers[list(PROFILES).index(profile)]
        call = _called(decorator, "settings")
        for given in call.keywords if call is not None else ():
            if given.arg == "max_examples":
                stated = ast.unparse(given.value).replace("settings().max_examples", str(base))
                return int(eval(stated, {"__builtins__": {}, "max": max}))
    return base


def elsewhere() -> Iterator[Property]:
    """Yield the Hypothesis tests that stand beside what they are about; their names say what they hold."""
    for path in sorted(TESTS.rglob("test_*.py")):
        if path.parent.name == "properties":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(_called(d, "given") for d in node.decorator_list):
                words = node.name.removeprefix("test_").replace("_", " ")
                numbers = [f"{_number(node, profile):,}" for profile in PROFILES]
                yield Property(str(path.relative_to(TESTS)), node.name, path.parent.name, words, *numbers)


def table() -> str:
    """Return the page's section."""
    lines = ["| of | it holds that | test, under `tests/properties/` | quick | thorough |", "|---|---|---|---|---|"]
    lines += [f"| {p.subject} | {p.says} | `{p.file}::{p.test}` | {p.quick} | {p.thorough} |" for p in properties()]
    beside = list(elsewhere())
    lines += ["", f"{len(beside)} more stand beside the tests of what they are about; their names say what holds:", "",
              "| under `tests/` | properties | quick | thorough |", "|---|---|---|---|"]  # fmt: skip
    for file in dict.fromkeys(p.file for p in beside):
        of = [p for p in beside if p.file == file]
        counts = [
            ", ".join(sorted({getattr(p, name) for p in of}, key=lambda n: int(n.replace(",", ""))))
            for name in PROFILES
        ]
        lines.append(f"| `{file}` | {'; '.join(p.says for p in of)} | {counts[0]} | {counts[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page to put the table into")
    given = parser.parse_args()
    if given.write:
        write_section(given.write, NAME, table())
    else:
        print(table())


if __name__ == "__main__":
    main()
