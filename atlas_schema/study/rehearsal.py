"""Running a study's real decisions on clusters drawn anew from a pilot: what a plan promises is counted, not only computed.

Pure but for its random numbers, which a seed fixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.decide import agree, decide, success_state
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Resampler, Statistic, family, score_interval
from atlas_schema.study.planner import SEED, Column, Domains, resampler_for

Outcomes = npt.NDArray[np.bool_]
Floors = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class Cells:
    """Columns ``[n, c]`` of one run."""

    numerator: F64
    denominator: F64
    statistics: tuple[Statistic, ...]

    def at(self, clusters: npt.NDArray[np.int64]) -> Cells:
        return replace(self, numerator=self.numerator[clusters], denominator=self.denominator[clusters])


@dataclass(frozen=True, slots=True)
class Group:
    """Cells of an arm that are bootstrapped together, their thresholds, and the same cells of the null arms (the floor).

    ``apart``: every domain is a stratum of its own and column ``c`` belongs to the ``c``-th domain, as for damage.
    """

    arm: Cells
    thresholds: tuple[float, ...]
    nulls: tuple[Cells, ...] = ()
    apart: bool = False

    def columns(self) -> Iterator[tuple[Column, list[Column]]]:
        """Yield each column, and the same cell of every null arm."""
        for c, threshold in enumerate(self.thresholds):
            arm, *nulls = (
                Column(cells.numerator[:, c], cells.denominator[:, c], cells.statistics[c], threshold, margin)
                for cells, margin in ((self.arm, True), *((n, False) for n in self.nulls))
            )
            yield arm, nulls


def rehearse(
    group: Group, domains: Domains, sizes: Mapping[str, int], rule: Bootstrap, studies: int, *,
    floors: Floors | None = None, seed: int = 0,
) -> Outcomes:  # fmt: skip
    """Return ``[studies, c]``: whether each column came out below, or identical, in each study of ``sizes`` clusters per domain.

    Clusters are drawn with replacement within their domain. Equal seeds and sizes draw the same clusters for every group, so
    ``floors`` of the null arms can be shared by arms; without them they are computed from the group's own.
    """
    resamplers = _resamplers(sizes, rule, group.apart)
    found = np.zeros((studies, len(group.thresholds)), dtype=np.bool_)
    known = rehearse_floors(group.nulls, domains, sizes, rule, studies, seed=seed) if floors is None else floors
    for i in range(studies):
        arm = group.arm.at(redraw(domains, sizes, np.random.default_rng([seed, i])))
        arm = _refusing(arm, sizes, rule) if group.apart else arm
        both = [family(arm.numerator, arm.denominator, arm.statistics, r, 1) for r in resamplers]
        for c, threshold in enumerate(group.thresholds):
            floor = known[i][c] if known[i] else -np.inf
            decision = agree(*(decide(e[c], threshold, rule, floor) for e in both))
            found[i, c] = decision.state in ("below", "identical")
    return found


def rehearse_floors(
    nulls: Sequence[Cells], domains: Domains, sizes: Mapping[str, int], rule: Bootstrap, studies: int, *, seed: int = 0
) -> Floors:
    """Return per study the largest upper bound over null arms of each column, None where one has none; empty without null arms."""
    if not nulls:
        return [[] for _ in range(studies)]
    resampler, floors = _resamplers(sizes, rule, False)[0], []
    for i in range(studies):
        at = redraw(domains, sizes, np.random.default_rng([seed, i]))
        drawn = [null.at(at) for null in nulls]
        found = [[e.upper for e in family(n.numerator, n.denominator, n.statistics, resampler, 1)] for n in drawn]
        floors.append([max(known) if len(known := [u for u in cell if u is not None]) == len(cell) else None
                       for cell in zip(*found, strict=True)])  # fmt: skip
    return floors


def _resamplers(sizes: Mapping[str, int], rule: Bootstrap, apart: bool) -> list[Resampler]:
    planned = tuple(d for d in sorted(sizes) for _ in range(sizes[d]))
    return [resampler_for(planned, rule, which, apart) for which in (0, 1)]


def rehearse_scores(
    scores: F64, needed: float, items: int, rule: Bootstrap, studies: int, seed: int = 0
) -> Outcomes:  # fmt: skip
    """Return ``[studies]``: whether the score was reached in each study of so many items, drawn anew from the pilot's."""
    resamplers = [Resampler(bytes([which]) + SEED, Strata((np.arange(items),)), rule) for which in (0, 1)]
    found = np.zeros(studies, dtype=np.bool_)
    for i in range(studies):
        drawn = np.random.default_rng([seed, i]).choice(scores, items)
        states = [success_state(score_interval(drawn, r, "", 1), needed, rule)[0] for r in resamplers]
        found[i] = states == ["reached", "reached"]
    return found


def redraw(domains: Domains, sizes: Mapping[str, int], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return positions of pilot clusters drawn anew, so many of each domain, in order of domain."""
    labels = np.array(domains)
    return np.concatenate([rng.choice(np.flatnonzero(labels == d), sizes[d]) for d in sorted(sizes)])


def _refusing(cells: Cells, sizes: Mapping[str, int], rule: Bootstrap) -> Cells:
    """Return damage cells that refuse domains with too few clusters, as a study does."""
    few = [sizes[d] < rule.min_clusters for d in sorted(sizes)]
    kept = zip(cells.statistics, few, strict=True)
    return replace(cells, statistics=tuple(replace(s, refused="too few clusters" if f else "") for s, f in kept))
