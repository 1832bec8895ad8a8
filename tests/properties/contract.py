"""What must hold, said in one sentence above each test, with the number of examples that it is tried on.

``make test`` runs the quick numbers under a fixed seed, ``make test-thorough`` the thorough ones; `table` lists both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import Phase, settings

THOROUGH = os.environ.get("ATLAS_HYPOTHESIS_PROFILE", "quick") == "thorough"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contract:
    """A property: what it is of, what it says, and how many examples it is tried on; None where every case is."""

    subject: str
    says: str
    quick: int | None
    thorough: int | None


CONTRACTS: dict[str, Contract] = {}
"""By `module::test`, filled as the test modules are imported."""


def examples(quick: int, thorough: int, **more: Any) -> settings:
    """Return Hypothesis settings for the profile in force."""
    return settings(max_examples=thorough if THOROUGH else quick, **more)


WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""For properties whose every example takes long: a failure is told as it was found."""


def holds(
    subject: str,
    says: str,
    quick: int | None = None,
    thorough: int | None = None,
    *,
    costly: bool = False,
    part: str = "",
) -> Callable[[T], T]:
    """Record what a test shows. With numbers it takes a Hypothesis test and sets how often it is tried.

    A test without numbers tries every case; ``part`` says which of them in the quick profile, where not all. ``costly``
    examples are not shrunk.
    """
    if (quick is None) != (thorough is None) or (part and quick is not None):
        raise ValueError("a property needs both numbers of examples, or none")

    def record(test: T) -> T:
        named: Any = test
        CONTRACTS[f"{named.__module__.replace('.', '/')}.py::{named.__name__}"] = Contract(
            subject, says, quick, thorough
        )
        if quick is None or thorough is None:
            return test
        more = {"phases": WITHOUT_SHRINKING} if costly else {}
        tried: T = examples(quick, thorough, **more)(named)
        return tried

    return record


def machine(subject: str, says: str, quick: int, thorough: int, steps: int) -> Callable[[T], T]:
    """Record what a state machine shows, and set how many runs it makes, of how many steps at most (two thirds in quick)."""

    def record(test: T) -> T:
        named: Any = test
        CONTRACTS[f"{named.__module__.replace('.', '/')}.py::{named.__name__}"] = Contract(
            subject, says, quick, thorough
        )
        named.TestCase.settings = examples(quick, thorough, stateful_step_count=steps if THOROUGH else 2 * steps // 3)
        return test

    return record
