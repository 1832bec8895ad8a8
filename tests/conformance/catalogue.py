"""Every case that the corpus is made of, from wherever it is defined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from conformance import accepted, boundaries, coherent, vouched
from conformance.own import OWN
from verify.cases import CASES
from verify.record_defects import CASES as RECORDS
from verify.test_authenticity import CASES as SIGNED

from atlas_schema.verify.outcome import Code

REGISTERED = (accepted, boundaries, coherent, vouched)
"""Importing them registers their cases."""
ROOT = Path(__file__).parents[2]
for _module in sorted((ROOT / "tests" / "verify").glob("*_defects.py")):
    import_module(f"verify.{_module.stem}")


@dataclass(frozen=True)
class Entry:
    """One case: its name in the corpus, what it shows, what must come of it, how it is made, and where that is written."""

    name: str
    sentence: str
    rules: frozenset[str]
    code: Code
    needs: frozenset[str]
    make: Callable[..., Any]
    origin: str
    function: str


def _entry(
    name: str, sentence: str, rules: frozenset[str], code: Code, make: Callable[..., Any], needs: frozenset[str]
) -> Entry:
    origin = Path(make.__code__.co_filename).relative_to(ROOT).as_posix()
    return Entry(name, sentence, rules, code, needs, make, origin, make.__name__)


def _defined(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function itself, where a case wraps one that takes no folder."""
    inner = [c.cell_contents for c in make.__closure__ or () if callable(c.cell_contents)]
    return inner[0] if make.__name__ == "<lambda>" and len(inner) == 1 else make


def catalogue() -> dict[str, Entry]:
    """Return every case by name, in order of name. A name that two suites use has ``signed_`` before it in the second."""
    none: frozenset[str] = frozenset()
    found = [
        _entry(name, c.defect, c.rules, c.code, _defined(c.make), none)
        for name, c in CASES.items()
        if name not in RECORDS
    ]
    found += [_entry(name, text, frozenset(f"ATL-{r}" for r in rules.split()), code, make, none)
              for name, (rules, text, code, make) in RECORDS.items()]  # fmt: skip
    taken = {e.name for e in found}
    found += [
        _entry(f"signed_{name}" if name in taken else name, c.attack, c.rules, c.code, c.make, none)
        for name, c in SIGNED.items()
    ]
    found += [_entry(name, c.sentence, c.rules, c.code, c.make, c.needs) for name, c in OWN.items()]
    names = [e.name for e in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two cases are called {next(n for n in names if names.count(n) > 1)}")
    return {e.name: e for e in sorted(found, key=lambda e: e.name)}
