"""One family of ratio statistics in, one bound per statistic out: the rules for zeros, rare events and seeds.

A family is bootstrapped together. What the bootstrap cannot carry (exact zeros, rare events, no spread) is decided here,
by the rules of `docs/measures.md`, section 6, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.bootstrap import (
    Bounds,
    Draws,
    Strata,
    bounds,
    clopper_pearson_upper,
    studentised,
)
from atlas_schema.measures.geometry import F64

Method = Literal["bootstrap", "identical", "rare_events", "none"]


@dataclass(frozen=True, slots=True)
class Statistic:
    """What the rules need to know of one column of the family beside its sums.

    ``identical``: the tensors that feed it are bitwise equal. ``bounded``: per-token values lie in [0, 1].
    ``nonnegative``: it cannot be below zero. ``refused``: a reason why no bound may be given, or "".
    """

    identical: bool
    bounded: bool
    nonnegative: bool
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """Estimate and bounds of one statistic; ``None`` where no bound can be given. ``strict_*`` hold at ``alpha / arms``.

    ``error`` is the Monte-Carlo error of the bounds, ``strict_error`` that of the strict ones.
    """

    value: float | None
    method: Method
    reason: str
    clusters: int
    nonzero: int
    lower: float | None = None
    upper: float | None = None
    simultaneous_lower: float | None = None
    simultaneous_upper: float | None = None
    error: float | None = None
    strict_lower: float | None = None
    strict_upper: float | None = None
    strict_error: float | None = None


class Resampler:
    """Resamples of one seed and stratification, drawn once and shared by all families that use them."""

    def __init__(self, seed: bytes, strata: Strata, rule: Bootstrap) -> None:
        self.strata, self.rule = strata, rule
        self.draws = Draws(seed, strata, rule.resamples)


def family(
    numerator: F64, denominator: F64, statistics: Sequence[Statistic], resampler: Resampler, arms: int
) -> list[Interval]:
    """Return the intervals of all columns of ``[n, c]`` matrices; columns with spread share one max-T family."""
    rule, inside = resampler.rule, np.concatenate([*resampler.strata.members, np.array([], dtype=np.int64)])
    first = [
        _without_bootstrap(numerator[inside, c], denominator[inside, c], s, rule, arms)
        for c, s in enumerate(statistics)
    ]
    spread = [c for c, interval in enumerate(first) if interval.method == "bootstrap"]
    if not spread:
        return first
    s = studentised(numerator[:, spread], denominator[:, spread], resampler.draws)
    usual, strict = bounds(s, (rule.alpha, rule.alpha / arms), rule.batches)
    for at, c in enumerate(spread):
        first[c] = _bootstrapped(first[c], statistics[c], usual, strict, at)
    return first


def _without_bootstrap(n: F64, d: F64, s: Statistic, rule: Bootstrap, arms: int) -> Interval:
    """Apply the rules that need no resampling; method ``bootstrap`` means that none of them settles it."""
    clusters, nonzero = int((d > 0).sum()), int((n != 0).sum())
    total = float(d.sum())
    value = float(n.sum()) / total if total > 0 else None
    plain = Interval(value, "none", "", clusters, nonzero)
    if s.refused:
        return replace(plain, reason=s.refused)
    if value is None:
        return replace(plain, reason="the denominator is zero")
    if not np.isfinite(value):
        return replace(plain, value=None, reason="the sums are no finite numbers")
    if s.identical and nonzero == 0:
        return replace(plain, method="identical", reason="zero, and the tensors that feed it are bitwise equal", lower=0.0,
                       upper=0.0, simultaneous_lower=0.0, simultaneous_upper=0.0, strict_lower=0.0, strict_upper=0.0)  # fmt: skip
    if clusters < rule.min_clusters:
        return replace(plain, reason=f"{clusters} clusters; the contract needs {rule.min_clusters}")
    if nonzero < rule.rare_event_clusters:
        if not s.bounded:
            return replace(plain, reason=f"only {nonzero} clusters are not zero, and the values have no upper limit")
        return _rare(plain, n, d, rule, arms)
    theta_residual = n - value * d
    if not float(np.abs(theta_residual).max()) > 1e-12 * float(np.abs(n).max()):
        return replace(plain, reason="the clusters show no spread, so no width can be estimated")
    return replace(plain, method="bootstrap", reason="studentised bootstrap over clusters")


def _rare(plain: Interval, n: F64, d: F64, rule: Bootstrap, arms: int) -> Interval:
    """Bound a rare event exactly: Clopper-Pearson on the share of affected clusters, at the weight of the largest one.

    A cluster whose mean is at or below the resolution (rounding noise) is no event: together such clusters can add at
    most the resolution itself to the mean.
    """
    events = int((n > rule.rare_event_resolution * d).sum())
    noise = rule.rare_event_resolution if events < plain.nonzero else 0.0
    weight = plain.clusters * float(d.max()) / float(d.sum())
    upper, strict = (
        min(1.0, clopper_pearson_upper(events, plain.clusters, a) * weight + noise)
        for a in (rule.alpha, rule.alpha / arms)
    )
    return replace(plain, method="rare_events", reason=f"{events} clusters above resolution: exact binomial bound",
                   lower=0.0, upper=upper, strict_lower=0.0, strict_upper=strict)  # fmt: skip


def _bootstrapped(plain: Interval, s: Statistic, usual: Bounds, strict: Bounds, at: int) -> Interval:
    def kept(values: F64) -> float | None:
        value = float(values[at])
        if not np.isfinite(value):
            return None
        value = max(0.0, value) if s.nonnegative else value
        return min(1.0, value) if s.bounded else value

    errors = (usual.error_upper, usual.error_lower, usual.error_simultaneous)
    return replace(plain, lower=kept(usual.lower), upper=kept(usual.upper),
                   simultaneous_lower=kept(usual.simultaneous_lower), simultaneous_upper=kept(usual.simultaneous_upper),
                   error=_largest(errors, at), strict_lower=kept(strict.lower), strict_upper=kept(strict.upper),
                   strict_error=_largest((strict.error_upper, strict.error_lower), at))  # fmt: skip


def _largest(errors: Sequence[F64], at: int) -> float | None:
    found = [float(e[at]) for e in errors]
    return max(found) if np.isfinite(found).all() else None


def mirrored(interval: Interval) -> Interval:
    """Return the interval of ``1 - value``: where almost every item succeeds, the failures are bounded instead."""

    def flip(value: float | None) -> float | None:
        return None if value is None else 1.0 - value

    return replace(
        interval, value=flip(interval.value), reason=interval.reason.replace("above resolution", "below one"),
        lower=flip(interval.upper), upper=flip(interval.lower), simultaneous_lower=None, simultaneous_upper=None,
        strict_lower=flip(interval.strict_upper), strict_upper=flip(interval.strict_lower),
    )  # fmt: skip


def score_interval(score: F64, resampler: Resampler, refused: str, arms: int) -> Interval:
    """Bound a mean of scores ``[n]`` in [0, 1]; where almost every item succeeds, bound the failures instead."""
    failing = int((score < 1).sum()) < resampler.rule.rare_event_clusters <= int((score > 0).sum())
    values = 1.0 - score if failing else score
    ones = np.ones((len(score), 1))
    found = family(values[:, None], ones, [Statistic(False, True, True, refused)], resampler, arms)[0]
    return mirrored(found) if failing else found
