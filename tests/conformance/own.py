"""Cases that only the corpus has are registered here: what must be believed, pairs at a boundary, signatures over real files.

A function takes nothing and returns what `verified` gives, or takes a folder that holds the base world and changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atlas_schema.verify.outcome import Code


@dataclass(frozen=True)
class Own:
    """One case: why it is there, the rules that fire (no others), the exit code, what it needs, and how to make it."""

    sentence: str
    rules: frozenset[str]
    code: Code
    needs: frozenset[str]
    make: Callable[..., Any]


OWN: dict[str, Own] = {}


def case(
    sentence: str, code: Code = Code.VERIFIED, rules: str = "", needs: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a case of the corpus."""

    def register(make: Callable[..., Any]) -> Callable[..., Any]:
        if make.__name__ in OWN:
            raise ValueError(f"two cases are called {make.__name__}")
        OWN[make.__name__] = Own(
            sentence, frozenset(f"ATL-{r}" for r in rules.split()), code, frozenset(needs.split()), make
        )
        return make

    return register
