"""What is reported of overlap maps, from table `overlap`. Condition numbers and drifts are the extractor's: asserted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.drift import TokenValues
from atlas_schema.measures.geometry import F64, Ints
from atlas_schema.measures.ledger import Scalar

MIN_TOKENS = 5
"""Tokens that a pair of experts needs for its transition drift to be ranked."""
MIN_PAIRS = 5
"""Pairs that a rank correlation needs."""


class PairDrift:
    """Transition drift of one arm by ordered pair (leaving, entering), under construction, for the pairs of one layer."""

    def __init__(self, overlap: Rows, experts: int) -> None:
        self.experts = experts
        self.pairs: Ints = overlap["expert_a"].astype(np.int64) * experts + overlap["expert_b"].astype(np.int64)
        self.numerator, self.denominator = np.zeros(len(self.pairs)), np.zeros(len(self.pairs))
        self.tokens = np.zeros(len(self.pairs), dtype=np.int64)

    def add(self, update: Rows, transition: TokenValues) -> None:
        """Add update rows in their order, which makes the sums independent of blocks."""
        if not len(self.pairs):
            return
        pair = update["pair_out"].astype(np.int64) * self.experts + update["pair_in"].astype(np.int64)
        at = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        here = transition.present & (self.pairs[at] == pair)
        np.add.at(self.numerator, at[here], transition.numerator[here])
        np.add.at(self.denominator, at[here], transition.denominator[here])
        np.add.at(self.tokens, at[here], 1)


def overlap_scalars(overlap: Rows, d: int) -> dict[str, Scalar]:
    """Return drift, residual and condition of one run's maps in one layer."""
    visits = overlap["visits"].astype(np.float64)
    seen = visits > 0
    count = int(seen.sum())
    if not count:
        return dict.fromkeys((ids.OVERLAP_DRIFT, ids.OVERLAP_RESIDUAL, ids.OVERLAP_CONDITION),
                             Scalar(None, 0, "no pair of experts was visited"))  # fmt: skip
    moved, size = float(overlap["drift_num"][seen].sum()), float(overlap["drift_den"][seen].sum())
    residual = float((visits * overlap["residual"])[seen].sum()) / float(visits.sum())
    full = bool((overlap["rank"][seen] == d).all() and overlap.valid("cond")[seen].all())
    return {
        ids.OVERLAP_DRIFT: Scalar(moved / size if size > 0 else None, count, "" if size > 0 else "the maps are zero"),
        ids.OVERLAP_RESIDUAL: Scalar(residual, count),
        ids.OVERLAP_CONDITION: Scalar(float(np.median(overlap["cond"][seen])), count) if full
        else Scalar(None, count, f"an input projection has a rank below {d}: the map has no condition number"),
    }  # fmt: skip


def rank_correlation(base: Rows, drift: PairDrift) -> Scalar:
    """Return Spearman's correlation, over pairs, of the base's condition numbers with the arm's transition drift."""
    usable = (drift.tokens >= MIN_TOKENS) & (drift.denominator > 0) & base.valid("cond")
    count = int(usable.sum())
    if count < MIN_PAIRS:
        return Scalar(
            None, count, f"{count} pairs with {MIN_TOKENS} tokens and a condition number; {MIN_PAIRS} are needed"
        )
    value = spearman(base["cond"][usable], drift.numerator[usable] / drift.denominator[usable])
    return Scalar(value, count, "" if value is not None else "all pairs are equal: there are no ranks")


def spearman(a: F64, b: F64) -> float | None:
    """Return the correlation of ranks, ties at their mean; None where one side has no spread."""
    x, y = (_ranks(v) - (len(v) + 1) / 2.0 for v in (a, b))
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size > 0 else None


def _ranks(values: npt.NDArray[np.float64]) -> F64:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    out: F64 = ((2 * last - counts + 1) / 2.0)[place]
    return out
