"""Values of the core cannot be changed after they were made, and take no attribute that they do not declare."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator

import atlas_schema

COLLECT = {
    "ChannelResult", "EvidenceDigester", "Examined", "Gathered", "Ratio", "Record", "Report", "Scope",
}  # fmt: skip
"""What is filled step by step, and so is not frozen."""


def values() -> Iterator[type]:
    for found in pkgutil.walk_packages(atlas_schema.__path__, "atlas_schema."):
        module = importlib.import_module(found.name)
        for thing in vars(module).values():
            if isinstance(thing, type) and dataclasses.is_dataclass(thing) and thing.__module__ == found.name:
                yield thing


def test_values_are_frozen_and_slotted() -> None:
    open_ones = {v.__name__ for v in values() if not v.__dataclass_params__.frozen}  # type: ignore[attr-defined]
    loose = {v.__name__ for v in values() if "__slots__" not in vars(v)}
    assert (open_ones, loose) == (COLLECT, set())
