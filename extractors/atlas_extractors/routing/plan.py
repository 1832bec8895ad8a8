"""Which windows are run together. Batch composition moves last bits, so it is a pure function of the plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Batch:
    """Position of the batch in the plan, and the entries it holds as indices into the planned sequence."""

    index: int
    members: tuple[int, ...]


def plan_batches(entries: Sequence[Entry], shape: Callable[[Entry], Hashable], size: int) -> list[Batch]:
    """Batches of at most `size` entries of one shape (no padding), shapes in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault(shape(entry), []).append(index)
    chunks = [tuple(group[start : start + size]) for group in groups.values() for start in range(0, len(group), size)]
    return [Batch(index, members) for index, members in enumerate(chunks)]
