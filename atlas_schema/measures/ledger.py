"""Cluster totals of ratios: token values come in block by block, and no cutting into blocks changes a bit of the totals."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.clusters import Clusters
from atlas_schema.measures.drift import TokenValues
from atlas_schema.measures.geometry import F64, Ints

Key = tuple[str, int | None, str]
"""Run, layer (None for outputs), and the name of what is summed."""


@dataclass(slots=True)
class Ratio:
    """Cluster sums ``[n]`` of numerator and denominator, and how many tokens count and how many do not."""

    numerator: F64
    denominator: F64
    tokens: int = 0
    missing: int = 0

    @property
    def value(self) -> float | None:
        """``sum N / sum D``; None where nothing is in the denominator, or where the quotient is no number."""
        total = float(self.denominator.sum())
        with np.errstate(all="ignore"):
            value = float(self.numerator.sum()) / total if total > 0 else np.nan
        return value if np.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number that is no ratio over clusters, what it is taken over, and why there is none."""

    value: float | None
    count: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows belong: window of each row ``[T]``, numbered in order of window id, and the cluster of each window."""

    window: Ints
    cluster_of_window: Ints

    @property
    def cluster(self) -> Ints:
        """The cluster of each row ``[T]``."""
        return self.cluster_of_window[self.window]

    @classmethod
    def of(cls, rows: Rows, clusters: Clusters) -> Places:
        """Number the windows of rows. Raises `KeyError` for a window that the study does not have."""
        column = rows.columns["window_id"]
        known = np.array([clusters.of_window[w] for w in column.texts], dtype=np.int64)
        codes = np.zeros(0, dtype=np.int64) if column.codes is None else column.codes
        return cls(codes, known)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Totals under construction.

    Rows of a window are added first, in order of position; then windows are added into their clusters, in order of window id.
    Blocks hold whole windows, so where they are cut changes nothing.
    """

    clusters: int
    ratios: dict[Key, Ratio] = field(default_factory=dict)

    def add(self, key: Key, values: TokenValues, places: Places) -> None:
        """Add token values ``[T]``; tokens that are not present count as missing only."""
        if key not in self.ratios:
            self.ratios[key] = Ratio(np.zeros(self.clusters), np.zeros(self.clusters))
        ratio, here = self.ratios[key], values.present
        whole = bool(here.all())
        for total, part in ((ratio.numerator, values.numerator), (ratio.denominator, values.denominator)):
            kept = part if whole else np.where(here, part, 0.0)
            of_window = np.bincount(places.window, weights=kept, minlength=len(places.cluster_of_window))
            np.add.at(total, places.cluster_of_window, of_window)
        counted = int(here.sum())
        ratio.tokens += counted
        ratio.missing += len(here) - counted


def everywhere(values: F64, present: npt.NDArray[np.bool_] | None = None) -> TokenValues:
    """Return token values whose ratio is a mean: a denominator of one where present (everywhere by default)."""
    return TokenValues(
        values, np.ones(len(values)), np.ones(len(values), dtype=np.bool_) if present is None else present
    )
