"""How large a study must be, from a pilot, by formula. `rehearsal` then runs the real decisions at that size.

Pure: cluster sums in, sizes out. The question is always the same: if the truth is what the pilot found, how many clusters
(or items) make the decision "below its threshold" come out with the wanted probability?
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.clusters import Clusters, merged_strata, strata_of
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Resampler, Statistic, family

NORMAL = NormalDist()
SEED = b"atlas-planner/1\0" + bytes(16)
"""Key of the planner's own resamples; a study's are fixed by its evidence, which does not exist yet."""

Domains = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of a pilot per cluster ``[n]``, what the interval rules know of it, and where it must end.

    ``margin`` is False for a null arm, whose upper bound is compared with the threshold as it is.
    """

    numerator: F64
    denominator: F64
    statistic: Statistic
    threshold: float
    margin: bool = True


@dataclass(frozen=True, slots=True)
class Need:
    """The number of clusters, or items, that suffices; None where none does. ``why`` says by which rule, or why not."""

    size: int | None
    why: str


def resampler_for(domains: Domains, rule: Bootstrap, which: int, apart: bool = False) -> Resampler:
    """Return resamples for clusters of these domains, as a study would draw them; ``apart`` for damage, never merged."""
    clusters = Clusters(tuple(f"{i:07d}" for i in range(len(domains))), domains, {})
    if apart:
        groups = {d: [d] for d in sorted(set(domains)) if domains.count(d) >= rule.min_clusters}
    else:
        groups = merged_strata(clusters, rule.min_clusters_per_stratum)
    return Resampler(bytes([which]) + SEED, strata_of(clusters, groups), rule)


def need(column: Column, domains: Domains, rule: Bootstrap, power: float, least: int, most: int) -> Need:
    """Return the smallest size from ``least`` to ``most`` (in steps of 2 %) at which the column is decided below.

    Formula: estimate and standard error vary together as normal deviates, with the variance, skewness and kurtosis of the
    pilot's residuals; width and Monte-Carlo error are those of the pilot's own bound, its asymmetry fading with the root of
    the size; where fewer clusters than the contract's limit would be affected, the exact binomial rule. Assumes that further
    clusters are like the pilot's, in the pilot's proportions.
    """
    statistic, total = column.statistic, float(column.denominator.sum())
    value = float(column.numerator.sum()) / total if total > 0 else math.nan
    nonzero = int((column.numerator != 0).sum())
    if statistic.refused:
        return Need(None, f"{statistic.refused}: more clusters do not change that")
    if not math.isfinite(value):
        return Need(None, "the pilot measured nothing here")
    if statistic.identical and nonzero == 0:
        return Need(least, "bitwise equal tensors: no size is too small")
    if value >= column.threshold:
        return Need(None, f"the pilot's value {value:.3g} is not below {column.threshold:.3g}")
    if nonzero == 0 and not statistic.bounded:
        return Need(
            None, "no cluster changed in the pilot, and values without upper limit need changed clusters for a bound"
        )
    chance = _Chance.of(column, domains, rule)
    if nonzero >= rule.rare_event_clusters and not chance.se > 0:
        return Need(None, "the clusters show no spread, so no width can be estimated")
    for size in _sizes(least, most):
        if chance.below(size) >= power:
            few = chance.few(size) > 0.5
            return Need(size, "exact bound for rare events" if few else "studentised bootstrap")
    best = chance.below(most)
    return Need(None, f"more than {most}: even then it is decided in {best:.0%} of studies")


def _sizes(least: int, most: int) -> Iterator[int]:
    size = least
    while size <= most:
        yield size
        size += max(1, size // 50)


@dataclass(frozen=True, slots=True)
class _Chance:
    """What the probability of a decision depends on.

    ``se`` is that of a single cluster. A bound's deviation has the variance of the estimate's times
    ``1 + together / sqrt(size) + apart / size``, since skewed data that give a high estimate give a large error too.
    ``heaviest`` is the largest weight of a cluster over the mean weight.
    """

    rule: Bootstrap
    distance: float
    se: float
    width: float
    skew: float
    together: float
    apart: float
    bounded: bool
    affected: float
    events: float
    heaviest: float
    threshold: float

    @classmethod
    def of(cls, column: Column, domains: Domains, rule: Bootstrap) -> _Chance:
        n, d = column.numerator, column.denominator
        size, value = len(n), float(n.sum() / d.sum())
        residual = n - value * d
        groups = merged_strata(Clusters(tuple(map(str, range(size))), domains, {}), rule.min_clusters_per_stratum)
        variance = 0.0
        for names in groups.values():
            inside = residual[np.isin(domains, names)]
            if len(inside) > 1:
                variance += len(inside) / (len(inside) - 1) * float(((inside - inside.mean()) ** 2).sum())
        se = math.sqrt(variance) / float(d.sum())
        normal = NORMAL.inv_cdf(1.0 - rule.alpha)
        # Error of an order statistic of one batch of normal deviates, over the root of the number of batches.
        error = math.sqrt(rule.alpha * (1.0 - rule.alpha) / rule.resamples) / NORMAL.pdf(normal)
        skew = 0.0
        found = family(n[:, None], d[:, None], [column.statistic], resampler_for(domains, rule, 0), 1)[0]
        if found.method == "bootstrap" and found.upper is not None and found.error is not None and se > 0:
            skew, error = (found.upper - value) / se - normal, found.error / se
        margin = rule.monte_carlo_errors * error if column.margin else 0.0
        width = normal + margin
        scaled = residual / (residual.std() or 1.0)
        third, fourth = float((scaled**3).mean()), float((scaled**4).mean())
        nonzero, events = int((n != 0).sum()), int((n > rule.rare_event_resolution * d).sum())
        return cls(rule, column.threshold - value, se * math.sqrt(size), width, skew * math.sqrt(size),
                   width * third, width**2 * max(fourth - 1.0, 0.0) / 4.0,
                   column.statistic.bounded, nonzero / size, events / nonzero if nonzero else 0.0,
                   size * float(d.max() / d.sum()), column.threshold)  # fmt: skip

    def few(self, size: int) -> float:
        """Return the probability that so few clusters are affected that the rule for rare events holds."""
        return math.fsum(_binomial(m, size, self.affected) for m in range(self.rule.rare_event_clusters))

    def below(self, size: int) -> float:
        """Return the probability that a study of this size decides below."""
        chance, few = 0.0, 0.0
        for m in range(self.rule.rare_event_clusters):
            probability = _binomial(m, size, self.affected)
            few += probability
            if self.bounded and probability > 1e-12:
                exact = (_binomial(e, m, self.events) for e in range(m + 1) if self._exact(e, size, e < m))
                chance += probability * math.fsum(exact)
        if self.se > 0 and few < 1:
            root = math.sqrt(size)
            deviation = math.sqrt(max(1.0 + self.together / root + self.apart / size, 0.1))
            room = self.distance * root / self.se - self.width - self.skew / root
            chance += (1.0 - few) * NORMAL.cdf(room / deviation)
        return chance

    def _exact(self, events: int, size: int, noisy: bool) -> bool:
        """Return whether the exact bound of ``events`` of ``size`` clusters is below the threshold."""
        share = (self.threshold - (self.rule.rare_event_resolution if noisy else 0.0)) / self.heaviest
        if share >= 1:
            return True
        if share <= 0:
            return False
        return math.fsum(_binomial(e, size, share) for e in range(events + 1)) < self.rule.alpha


def _binomial(k: int, n: int, p: float) -> float:
    if k > n or not 0 < p < 1:
        return float(k == (0 if p <= 0 else n))
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
