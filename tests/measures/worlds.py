"""Simulated studies of every kind of router, and their findings, made once per process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from naive.reported import Rows as Naive
from simulator import COLLAPSED, IDENTICAL, PRESERVED, REWRITTEN, MemorySource, Settings, StudySimulator, grouped, small

from atlas_schema.documents.receipt import Findings
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import Partition
from atlas_schema.measures.summarise import summarise

ARMS = (replace(PRESERVED, success=0.8), replace(REWRITTEN, success=0.65), replace(IDENTICAL, success=0.78), COLLAPSED)

CHOSEN: Mapping[str, Any] = {
    "clusters": (("a", 14), ("b", 11), ("c", 3)), "double_windows": 2, "items": 60, "target": 0.7, "tolerance": 0.1,
    "bootstrap": {"resamples": 300, "min_clusters": 10}, "arms": ARMS,
}  # fmt: skip
"""A stratum to merge (c into b), a domain too small for damage (c), arms of four kinds."""

WORLDS: Mapping[str, Settings] = {
    "softmax": small(**CHOSEN, positions=3, overlap_pairs=12),
    "groups": grouped(**CHOSEN, positions=3, overlap_pairs=20),
    "best group": grouped(
        **CHOSEN, group_mode="max", score_space="softmax+bias", weight_rule="softmax_topk", shared=False
    ),
    "low rank": small(
        **CHOSEN, inner=3, gain_convention="1+w", router_bias=0.3, weight_rule="softmax_topk", weight_scale=1.5
    ),
    "no gain": small(**CHOSEN, gain_convention="none", weight_rule="sigmoid_topk_renormalised", top_k=1),
    "every expert": small(**{**CHOSEN, "arms": ARMS[:3]}, experts=3, top_k=3, overlap_pairs=3),
}


@cache
def study(world: str) -> StudySimulator:
    return StudySimulator.make(WORLDS[world]).with_contract({"numbers": {"significant_digits": 15}})


@cache
def findings(world: str) -> Findings:
    return found_in(study(world))


def found_in(made: StudySimulator) -> Findings:
    return summarise(made.source(), made.contract, made.preregistration, made.evidence_root())


@cache
def naive(world: str) -> Naive:
    made = study(world)
    s, rule = made.settings, made.contract.bootstrap
    tables = {name: made.rows(name) for name in made.tables}
    return Naive(tables, s.top_k, s.experts, s.d, rule.min_clusters_per_stratum)


class CutSource(MemorySource):
    """A study whose blocks are cut after the given windows, however few rows that leaves."""

    def __init__(self, made: StudySimulator, last: Sequence[str]) -> None:
        super().__init__(made.tables, made.dims)
        self._last = sorted(last)

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        parts = [self.read(table, partition) for table, partition in wanted]
        edges = [None, *self._last, None]
        for low, high in pairwise(edges):
            chosen = []
            for rows in parts:
                windows = rows["window_id"]
                keep = [(low is None or w > low) and (high is None or w <= high) for w in windows]
                chosen.append(rows.take(np.flatnonzero(np.array(keep, dtype=np.bool_))))
            yield tuple(chosen)
