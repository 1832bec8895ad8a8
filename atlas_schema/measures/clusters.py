"""The clusters of a study and the strata they are resampled in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.geometry import F64


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of a study, ordered by (domain, cluster id), and where each window belongs.

    ``names`` and ``domains`` are ``[n]``; ``of_window`` maps a window id to its cluster's position.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    of_window: dict[str, int]

    @property
    def halves(self) -> npt.NDArray[np.int64]:
        """The half ``[n]`` of each cluster in cross-fitting: the parity of the last hexadecimal digit of its digest."""
        return np.array([int(name[-1], 16) & 1 for name in self.names], dtype=np.int64)


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


def top_percent_share(weights: F64) -> float | None:
    """Return the share of the denominators ``[T]`` of counted tokens that the top 1 % carry (at least one token)."""
    ordered = np.sort(weights)
    if len(ordered) == 0 or not ordered.sum() > 0:
        return None
    top = max(1, int(np.ceil(0.01 * len(ordered))))
    return min(1.0, float(ordered[-top:].sum() / ordered.sum()))
