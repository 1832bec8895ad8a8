"""From token values to per-cluster sufficient statistics: Polars frames that can be merged, and the strata of resampling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.drift import TokenValues
from atlas_schema.measures.geometry import F64


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of a study, ordered by (domain, cluster id), and where each window belongs.

    ``names`` and ``domains`` are ``[n]``; ``of_window`` maps a window id to its cluster's position.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    of_window: dict[str, int]

    def positions(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the cluster position of each row's window."""
        column = rows.columns["window_id"]
        known = np.array([self.of_window[w] for w in column.texts], dtype=np.int64)
        return known[column.codes] if column.codes is not None else known


def clusters_of(window: Rows) -> Clusters:
    """Collect the clusters of table `window`. A cluster's domain is that of its first window by id."""
    domain: dict[str, str] = {}
    for cluster, name in zip(window["cluster_id"], window["domain"], strict=True):
        domain.setdefault(cluster, name)
    order = sorted(domain, key=lambda cluster: (domain[cluster], cluster))
    position = {cluster: i for i, cluster in enumerate(order)}
    of_window = {w: position[c] for w, c in zip(window["window_id"], window["cluster_id"], strict=True)}
    return Clusters(tuple(order), tuple(domain[c] for c in order), of_window)


def merged_strata(clusters: Clusters, at_least: int) -> dict[str, list[str]]:
    """Return stratum name -> domains. Small strata are merged: always the smallest into the next smallest, ties by name."""
    sizes = {d: clusters.domains.count(d) for d in set(clusters.domains)}
    strata = {d: [d] for d in sizes}
    while len(strata) > 1:
        by_size = sorted(strata, key=lambda s: (sum(sizes[d] for d in strata[s]), s))
        if sum(sizes[d] for d in strata[by_size[0]]) >= at_least:
            break
        joined = sorted(strata.pop(by_size[0]) + strata.pop(by_size[1]))
        strata["+".join(joined)] = joined
    return dict(sorted(strata.items()))


def strata_of(clusters: Clusters, groups: dict[str, list[str]]) -> Strata:
    """Return the positions of each stratum's clusters, sorted by cluster id within a stratum."""
    members = []
    for domains in groups.values():
        inside = [i for i, d in enumerate(clusters.domains) if d in domains]
        members.append(np.array(sorted(inside, key=lambda i: clusters.names[i]), dtype=np.int64))
    return Strata(tuple(members))


SCHEMA = {
    "column": pl.String, "cluster": pl.Int64, "numerator": pl.Float64, "denominator": pl.Float64,
    "tokens": pl.Int64, "missing": pl.Int64,
}  # fmt: skip


def sum_by_cluster(column: str, values: TokenValues, positions: npt.NDArray[np.int64], clusters: int) -> pl.DataFrame:
    """Return one row per cluster with ``sum N``, ``sum D``, counted and missing tokens.

    Sums run in row order, so they do not depend on threads or chunks. Frames of disjoint windows merge by addition.
    """

    def total(weights: F64) -> F64:
        out: F64 = np.bincount(positions, weights=weights, minlength=clusters).astype(np.float64)
        return out

    return pl.DataFrame(
        {
            "column": [column] * clusters, "cluster": np.arange(clusters),
            "numerator": total(np.where(values.present, values.numerator, 0.0)),
            "denominator": total(np.where(values.present, values.denominator, 0.0)),
            "tokens": np.bincount(positions[values.present], minlength=clusters),
            "missing": np.bincount(positions[~values.present], minlength=clusters),
        },
        schema=SCHEMA,
    )  # fmt: skip


def merge(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Add the sufficient statistics of frames made from disjoint windows."""
    stacked = pl.concat(list(frames))
    return stacked.group_by("column", "cluster", maintain_order=True).agg(pl.exclude("column", "cluster").sum())


def matrices(frame: pl.DataFrame, columns: Sequence[str], clusters: int) -> tuple[F64, F64]:
    """Return numerators and denominators ``[n, c]`` in the order of ``columns``."""
    numerator, denominator = np.zeros((clusters, len(columns))), np.zeros((clusters, len(columns)))
    for at, column in enumerate(columns):
        part = frame.filter(pl.col("column") == column)
        numerator[part["cluster"].to_numpy(), at] = part["numerator"].to_numpy()
        denominator[part["cluster"].to_numpy(), at] = part["denominator"].to_numpy()
    return numerator, denominator


def top_percent_share(values: TokenValues) -> float | None:
    """Return the share of the denominator carried by the top 1 % of counted tokens (at least one)."""
    weights = np.sort(values.denominator[values.present])
    if len(weights) == 0 or not weights.sum() > 0:
        return None
    top = max(1, int(np.ceil(0.01 * len(weights))))
    return min(1.0, float(weights[-top:].sum() / weights.sum()))
