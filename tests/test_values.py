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


def test_each_gated_channel_is_native_or_needs_a_pair_as_its_formula_says() -> None:
    """Coordinate drift compares states as each model computed them; only the jump is taken across a boundary."""
    from atlas_schema.measures.definitions import DEFINITIONS

    flags = {name: (d.native, d.needs_pair, d.forms, d.bounded) for name, d in DEFINITIONS.items()}
    both, sums, mean = ("ratio_of_sums", "mean_bounded"), ("ratio_of_sums",), ("mean_bounded",)
    assert flags == {
        "drift.coordinate/1": (True, False, sums, sums), "drift.boundary/1": (False, False, sums, sums),
        "drift.transition/1": (False, True, both, mean), "drift.chart_content/1": (False, False, both, mean),
        "guard.block/1": (False, False, sums, ()),
    }  # fmt: skip
    assert DEFINITIONS["drift.coordinate/1"].tensors == ("upstream",)
    assert set(DEFINITIONS["guard.block/1"].tensors) - set(DEFINITIONS["drift.chart_content/1"].tensors) == {"shared"}
    assert "experts." not in DEFINITIONS["drift.boundary/1"].tensors
