"""Studentised bootstrap over clusters in strata, with the rules for exact zeros and rare events.

All resamples are formed explicitly and their statistics recomputed from the drawn clusters: no moments, no
matrices.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy

ClusterEntry = tuple[str, str, float, float]
"""(stratum, cluster_id, numerator, denominator)."""

Rule = Literal[
    "bootstrap",
    "identical",
    "contradiction",
    "rare_bounded",
    "rare_unbounded",
    "zero_denominator",
    "zero_width",
]

Success = Literal["reached", "missed", "undetermined"]

Key = TypeVar("Key", bound=Hashable)

RARE = 10
RESOLUTION = 1e-6  # a cluster mean at or below this is no event
MERGE_BELOW = 5
BATCHES = 20
MC_MULTIPLE = 4.0


@dataclass(frozen=True, slots=True)
class Interval:
    """One cell's statistic and bounds. A bound is None where the rule that applied gives none.

    `mc_*` are the Monte-Carlo standard errors of the bounds of the same name (inf where a batch bound is
    infinite).
    """

    theta: float | None
    se: float | None
    numerator: float
    denominator: float
    clusters: int
    nonzero_clusters: int
    rule: Rule
    lower: float | None = None
    upper: float | None = None
    simultaneous_lower: float | None = None
    simultaneous_upper: float | None = None
    mc_lower: float = 0.0
    mc_upper: float = 0.0
    mc_simultaneous_lower: float = 0.0
    mc_simultaneous_upper: float = 0.0


@dataclass(frozen=True, slots=True)
class CellInput:
    """What a family needs to know about one cell.

    bounded: the statistic lies in [0, 1] (all bounds are clipped there). nonnegative: drift (lowers are
    clipped at 0). identical: the tensors feeding the cell are bitwise equal by digest. zero_impossible: a
    zero cell would contradict tensors that differ. The last two come from the caller.
    """

    clusters: Sequence[ClusterEntry]
    bounded: bool = False
    nonnegative: bool = True
    identical: bool = False
    zero_impossible: bool = False


# --- seeds and draws ----------------------------------------------------------------------------------------


def bootstrap_seeds(evidence_root: bytes, preregistration_digest: bytes) -> tuple[bytes, bytes]:
    """The derived seed and the second seed, from two raw 32-byte digests."""
    if len(evidence_root) != 32 or len(preregistration_digest) != 32:
        raise ValueError("both digests are 32 raw bytes")
    first = hashlib.sha256(b"atlas-bootstrap/1\0" + evidence_root + preregistration_digest).digest()
    second = hashlib.sha256(b"atlas-second-seed/1\0" + first).digest()
    return first, second


def raw_words(seed: bytes, count: int) -> list[int]:
    """The first `count` raw 64-bit outputs of Philox4x64-10 keyed by the seed's first 16 bytes."""
    key = numpy.array(struct.unpack("<QQ", seed[:16]), dtype=numpy.uint64)
    generator = numpy.random.Philox(key=key, counter=0)
    return [int(word) for word in generator.random_raw(count)]


def draw_indices(seed: bytes, resamples: int, sizes: Sequence[int]) -> list[list[list[int]]]:
    """Indices `[stratum][resample][draw]`: stratum after stratum, each a row-major block."""
    words = raw_words(seed, resamples * sum(sizes))
    place = 0
    drawn = []
    for size in sizes:
        block = []
        for _ in range(resamples):
            block.append([math.floor((word >> 11) * 2.0**-53 * size) for word in words[place : place + size]])
            place += size
        drawn.append(block)
    return drawn


def merge_strata(sizes: Mapping[str, int], minimum: int = MERGE_BELOW) -> dict[str, str]:
    """Original to merged stratum: the smallest joins the next smallest until all reach the minimum."""
    groups: list[tuple[int, tuple[str, ...]]] = [(size, (name,)) for name, size in sizes.items()]
    while len(groups) > 1:
        groups.sort(key=lambda group: (group[0], "+".join(group[1])))
        if groups[0][0] >= minimum:
            break
        joined = (groups[0][0] + groups[1][0], tuple(sorted(groups[0][1] + groups[1][1])))
        groups = [joined, *groups[2:]]
    return {name: "+".join(names) for _, names in groups for name in names}


# --- statistics ---------------------------------------------------------------------------------------------


def ratio_and_se(strata: Sequence[Sequence[tuple[float, float]]]) -> tuple[float | None, float]:
    """theta = sum N / sum D and its linearised standard error; theta is None where sum D is 0.

    A stratum of one cluster, and one whose residuals are all equal, contribute exactly 0 to the variance.
    """
    denominator = math.fsum(d for stratum in strata for _, d in stratum)
    if denominator == 0.0:
        return None, 0.0
    theta = math.fsum(n for stratum in strata for n, _ in stratum) / denominator
    variance = []
    for stratum in strata:
        count = len(stratum)
        residuals = [n - theta * d for n, d in stratum]
        if count < 2 or min(residuals) == max(residuals):
            continue
        mean = math.fsum(residuals) / count
        squares = math.fsum((residual - mean) ** 2 for residual in residuals)
        variance.append(count / (count - 1) * squares)
    return theta, math.sqrt(math.fsum(variance)) / denominator


def studentised(theta: float, again: float | None, se_again: float) -> tuple[float, float]:
    """(T* for upper bounds, T* for lower bounds) of one resample; they differ where its denominator is 0."""
    if again is None:
        return -math.inf, math.inf
    if se_again == 0.0:
        if again == theta:
            return 0.0, 0.0
        infinite = math.copysign(math.inf, again - theta)
        return infinite, infinite
    value = (again - theta) / se_again
    return value, value


def rank(resamples: int, alpha: float) -> int:
    """How far from the end a tail's order statistic lies: floor(alpha (B + 1)), and never less than 1."""
    return max(1, math.floor(alpha * (resamples + 1)))


def smallest(values: Sequence[float], place: int) -> float:
    """The place-th smallest value, counted from 1."""
    return sorted(values)[place - 1]


def largest(values: Sequence[float], place: int) -> float:
    """The place-th largest value, counted from 1."""
    return sorted(values, reverse=True)[place - 1]


def batch_slices(resamples: int, batches: int = BATCHES) -> list[slice]:
    """Consecutive equal batches; a remainder at the end belongs to none."""
    size = resamples // batches
    if size == 0:
        raise ValueError(f"{resamples} resamples do not fill {batches} batches")
    return [slice(batch * size, (batch + 1) * size) for batch in range(batches)]


def standard_error_of(values: Sequence[float]) -> float:
    """sd (ddof 1) / sqrt(count) of batch bounds; inf where one of them is infinite."""
    if not all(math.isfinite(value) for value in values):
        return math.inf
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(spread) / math.sqrt(len(values))


# --- rare events --------------------------------------------------------------------------------------------


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes), summed from exact binomial coefficients."""
    terms = []
    for count in range(successes + 1):
        terms.append(math.comb(trials, count) * probability**count * (1.0 - probability) ** (trials - count))
    return math.fsum(terms)


def clopper_pearson_upper(successes: int, trials: int, alpha: float) -> float:
    """The p at which P(X <= successes) = alpha (one-sided), bisected to the last float."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no count")
    if successes == trials:
        return 1.0
    low = 0.0
    high = 1.0
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high):
            return high
        if binomial_cdf(successes, trials, middle) > alpha:
            low = middle
        else:
            high = middle


def rare_upper(denominators: Sequence[float], events: int, alpha: float, resolution: float = 0.0) -> float:
    """Clopper-Pearson upper bound x n x largest share of a cluster in the denominator, plus the resolution, at most 1."""
    count = len(denominators)
    share = max(denominators) / math.fsum(denominators)
    return min(1.0, clopper_pearson_upper(events, count, alpha) * count * share + resolution)


def rule_for(cell: CellInput, theta: float | None, se: float) -> Rule:
    """Which rule gives the bounds of a cell with this statistic and standard error."""
    nonzero = sum(1 for entry in cell.clusters if entry[2] != 0.0)
    if theta is None:
        return "zero_denominator"
    if nonzero == 0 and cell.identical:
        return "identical"
    if nonzero == 0 and cell.zero_impossible:
        return "contradiction"
    if nonzero < RARE:
        return "rare_bounded" if cell.bounded else "rare_unbounded"
    if se == 0.0:
        return "zero_width"
    return "bootstrap"


# --- intervals ----------------------------------------------------------------------------------------------


def _clip(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def simultaneous_intervals(
    cells: Mapping[Key, CellInput],
    seed: bytes,
    resamples: int,
    alpha: float,
    *,
    merge_below: int = MERGE_BELOW,
) -> dict[Key, Interval]:
    """Pointwise and simultaneous bounds of one family of cells, from the same resamples.

    Strata are merged and drawn over the union of the cells' clusters; a cluster that a cell does not list is
    (0, 0) there. Only cells under the rule `bootstrap` enter the maxima. Monte-Carlo errors are those of the
    unclipped bounds.
    """
    stratum_of: dict[str, str] = {}
    for cell in cells.values():
        names = [entry[1] for entry in cell.clusters]
        if len(names) != len(set(names)):
            raise ValueError("a cell lists one cluster twice")
        for stratum, cluster, _, _ in cell.clusters:
            if stratum_of.setdefault(cluster, stratum) != stratum:
                raise ValueError(f"cluster {cluster} lies in two strata")
    sizes: dict[str, int] = {}
    for stratum in stratum_of.values():
        sizes[stratum] = sizes.get(stratum, 0) + 1
    merged = merge_strata(sizes, merge_below)
    members: dict[str, list[str]] = {}
    for cluster in sorted(stratum_of):
        members.setdefault(merged[stratum_of[cluster]], []).append(cluster)
    order = sorted(members)

    # A cell's strata as lists of (N, D), in drawing order.
    laid_out: dict[Key, list[list[tuple[float, float]]]] = {}
    rules: dict[Key, Rule] = {}
    points: dict[Key, tuple[float, float]] = {}
    for key, cell in cells.items():
        values = {cluster: (numerator, denominator) for _, cluster, numerator, denominator in cell.clusters}
        laid_out[key] = [[values.get(cluster, (0.0, 0.0)) for cluster in members[name]] for name in order]
        theta, se = ratio_and_se(laid_out[key])
        rules[key] = rule_for(cell, theta, se)
        if theta is not None:
            points[key] = (theta, se)

    bootstrapped = [key for key in cells if rules[key] == "bootstrap"]
    for_upper: dict[Key, list[float]] = {key: [] for key in bootstrapped}
    for_lower: dict[Key, list[float]] = {key: [] for key in bootstrapped}
    if bootstrapped:
        drawn = draw_indices(seed, resamples, [len(members[name]) for name in order])
        for number in range(resamples):
            for key in bootstrapped:
                again = [
                    [stratum[index] for index in drawn[place][number]] for place, stratum in enumerate(laid_out[key])
                ]
                theta_again, se_again = ratio_and_se(again)
                upper_t, lower_t = studentised(points[key][0], theta_again, se_again)
                for_upper[key].append(upper_t)
                for_lower[key].append(lower_t)
    highest = [max(for_lower[key][number] for key in bootstrapped) for number in range(resamples) if bootstrapped]
    deepest = [max(-for_upper[key][number] for key in bootstrapped) for number in range(resamples) if bootstrapped]

    results: dict[Key, Interval] = {}
    for key, cell in cells.items():
        numerator = math.fsum(entry[2] for entry in cell.clusters)
        denominator = math.fsum(entry[3] for entry in cell.clusters)
        nonzero = sum(1 for entry in cell.clusters if entry[2] != 0.0)
        rule = rules[key]
        point = points.get(key)
        theta_value = None if point is None else point[0]
        se_value = None if point is None else point[1]
        plain = Interval(theta_value, se_value, numerator, denominator, len(cell.clusters), nonzero, rule)
        if point is None:
            results[key] = plain
        elif rule == "bootstrap":
            results[key] = _bootstrap_interval(
                plain, cell, point, (for_lower[key], for_upper[key], highest, deepest), resamples, alpha
            )
        elif rule == "identical":
            results[key] = replace(plain, lower=0.0, upper=0.0, simultaneous_lower=0.0, simultaneous_upper=0.0)
        elif rule == "rare_bounded":
            events = sum(1 for entry in cell.clusters if entry[2] > RESOLUTION * entry[3])
            noise = RESOLUTION if events < nonzero else 0.0
            upper = rare_upper([entry[3] for entry in cell.clusters], events, alpha, noise)
            # No simultaneous upper bound is defined here; 0 bounds a non-negative statistic from below.
            results[key] = replace(plain, lower=0.0, upper=upper, simultaneous_lower=0.0)
        else:
            results[key] = plain
    return results


def _bootstrap_interval(
    plain: Interval,
    cell: CellInput,
    point: tuple[float, float],
    series: tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]],
    resamples: int,
    alpha: float,
) -> Interval:
    theta, se = point
    if math.floor(alpha * (resamples + 1)) < 1:
        raise ValueError(f"{resamples} resamples have no tail of {alpha}")

    def bounds(part: slice) -> tuple[float, float, float, float]:
        lower_t, upper_t, highest, deepest = (values[part] for values in series)
        place = rank(len(lower_t), alpha)
        return (
            theta - largest(lower_t, place) * se,
            theta - smallest(upper_t, place) * se,
            theta - largest(highest, place) * se,
            theta + largest(deepest, place) * se,
        )

    lower, upper, simultaneous_lower, simultaneous_upper = bounds(slice(0, resamples))
    batches = [bounds(part) for part in batch_slices(resamples)]
    errors = [standard_error_of([batch[which] for batch in batches]) for which in range(4)]
    high = 1.0 if cell.bounded else math.inf
    low = 0.0 if cell.bounded else -math.inf
    low_of_lowers = 0.0 if cell.bounded or cell.nonnegative else -math.inf
    return Interval(
        theta,
        se,
        plain.numerator,
        plain.denominator,
        plain.clusters,
        plain.nonzero_clusters,
        "bootstrap",
        _clip(lower, low_of_lowers, high),
        _clip(upper, low, high),
        _clip(simultaneous_lower, low_of_lowers, high),
        _clip(simultaneous_upper, low, high),
        errors[0],
        errors[1],
        errors[2],
        errors[3],
    )


def point_and_interval(
    clusters: Sequence[ClusterEntry],
    seed: bytes,
    resamples: int,
    alpha: float,
    *,
    bounded: bool = False,
    nonnegative: bool = True,
    identical: bool = False,
    zero_impossible: bool = False,
    merge_below: int = MERGE_BELOW,
) -> Interval:
    """The bounds of one cell that is a family of its own."""
    cell = CellInput(clusters, bounded, nonnegative, identical, zero_impossible)
    return simultaneous_intervals({"cell": cell}, seed, resamples, alpha, merge_below=merge_below)["cell"]


def entries(sums: Mapping[str, tuple[float, float]], strata: Mapping[str, str]) -> list[ClusterEntry]:
    """Cluster sums and a cluster-to-stratum map as the list a family takes."""
    return [(strata[cluster], cluster, numerator, denominator) for cluster, (numerator, denominator) in sums.items()]


# --- task success -------------------------------------------------------------------------------------------


def success_interval(
    scores: Mapping[str, float] | Iterable[tuple[str, float]], seed: bytes, resamples: int, alpha: float
) -> Interval:
    """Mean score with pointwise bounds: every item a cluster of its own, D = 1, one stratum, by item id.

    The rare-event rules do not apply. Without any spread there is no width and hence no bound.
    """
    items = sorted(dict(scores).items())
    values = [(score, 1.0) for _, score in items]
    theta, se = ratio_and_se([values])
    nonzero = sum(1 for score, _ in values if score != 0.0)
    total = math.fsum(score for score, _ in values)
    if theta is None:
        return Interval(None, None, total, 0.0, 0, 0, "zero_denominator")
    plain = Interval(theta, se, total, float(len(values)), len(values), nonzero, "zero_width")
    if se == 0.0:
        return plain
    for_upper = []
    for_lower = []
    for indices in draw_indices(seed, resamples, [len(values)])[0]:
        theta_again, se_again = ratio_and_se([[values[index] for index in indices]])
        upper_t, lower_t = studentised(theta, theta_again, se_again)
        for_upper.append(upper_t)
        for_lower.append(lower_t)
    deepest = [-value for value in for_upper]
    return _bootstrap_interval(
        plain,
        CellInput([], bounded=True),
        (theta, se),
        (for_lower, for_upper, for_lower, deepest),
        resamples,
        alpha,
    )


def success_state(interval: Interval, target: float, tolerance: float) -> Success:
    """`reached` iff lower >= target - tolerance, `missed` iff upper < that.

    A bound within four Monte-Carlo standard errors of what it is compared with decides nothing.
    """
    if interval.lower is None or interval.upper is None:
        return "undetermined"
    needed = target - tolerance
    if interval.lower >= needed and abs(interval.lower - needed) > MC_MULTIPLE * interval.mc_lower:
        return "reached"
    if interval.upper < needed and abs(interval.upper - needed) > MC_MULTIPLE * interval.mc_upper:
        return "missed"
    return "undetermined"
