"""The studentised stratified bootstrap over clusters, specified so that another implementation reproduces it.

All cells of a family share the same resamples. Each resample needs five moments per cell and stratum, so all resamples
together are one matrix product per stratum. `docs/measures.md`, section 6, states every step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.canonical import raw_digest
from atlas_schema.measures.exact import column_sums, split, weighted_sums
from atlas_schema.measures.geometry import F64

Counts = npt.NDArray[np.unsignedinteger]

BLOCK = 2**18
"""Floats that a block of resamples may take: what fits in a core's own cache."""

DRAWN_TOGETHER = 512
"""Resamples that are drawn in one piece."""

NO_WIDTH = 1e-12
"""A variance at or below this share of the terms that make it up is zero."""


def first_seed(evidence_root: str, preregistration_digest: str) -> bytes:
    """Return the 32-byte seed that evidence and pre-registration fix between them."""
    return hashlib.sha256(
        b"atlas-bootstrap/1\0" + raw_digest(evidence_root) + raw_digest(preregistration_digest)
    ).digest()


def second_seed(first: bytes) -> bytes:
    """Return the seed under which every decision must hold again."""
    return hashlib.sha256(b"atlas-second-seed/1\0" + first).digest()


@dataclass(frozen=True, slots=True)
class Strata:
    """Cluster positions of each stratum, in the order of drawing. Positions index the rows of the cluster matrices."""

    members: tuple[npt.NDArray[np.int64], ...]

    @property
    def clusters(self) -> int:
        return sum(len(m) for m in self.members)


def draw(seed: bytes, strata: Strata, resamples: int, rows: int) -> Iterator[Counts]:
    """Yield blocks of at most ``rows`` resamples: how often each cluster is drawn, ``[b, n]``, clusters in strata order.

    Philox4x64-10 keyed by the first 16 bytes of the seed, counter 0; index = floor(top 53 bits / 2^53 * n_h); strata in
    order, within a stratum a row-major block ``[B, n_h]``. The cutting into blocks changes no number.
    """
    key = np.frombuffer(seed[:16], dtype="<u8").astype(np.uint64)
    streams, before = [], 0
    for members in strata.members:
        # One counter step is four outputs, so every stratum's own stretch of the one sequence can be entered directly.
        stream = np.random.Philox(key=key, counter=before // 4)
        stream.random_raw(before % 4)
        streams.append(stream)
        before += resamples * len(members)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        parts = []
        for stream, members in zip(streams, strata.members, strict=True):
            n = len(members)
            raw = stream.random_raw(size * n) >> np.uint64(11)
            index = (raw.astype(np.float64) * (2.0**-53 * n)).astype(np.int64)
            index += np.repeat(np.arange(size) * n, n)
            parts.append(np.bincount(index, minlength=size * n).reshape(size, n))
        yield np.concatenate(parts, axis=1).astype(np.min_scalar_type(max(int(p.max(initial=0)) for p in parts)))


def resample_counts(seed: bytes, strata: Strata, resamples: int) -> list[Counts]:
    """Return per stratum how often each cluster is drawn, ``[B, n_h]``."""
    everything = next(draw(seed, strata, resamples, resamples))
    return np.split(everything, np.cumsum([len(m) for m in strata.members])[:-1], axis=1)


class Draws:
    """The resamples of one seed and stratification, shared by every family that uses them.

    Kept as small integers once drawn, or drawn anew for each family where keeping them would take more than ``KEPT`` bytes.
    """

    KEPT = 32 * 2**20

    def __init__(self, seed: bytes, strata: Strata, resamples: int) -> None:
        self.seed, self.strata, self.resamples = seed, strata, resamples
        self._kept: list[Counts] | None = None

    def blocks(self, rows: int) -> Iterator[tuple[int, Counts]]:
        """Yield the number of the first resample and the counts of each block of at most ``rows`` resamples."""
        if self.resamples * self.strata.clusters > self.KEPT:
            blocks = draw(self.seed, self.strata, self.resamples, rows)
            yield from ((i * rows, block) for i, block in enumerate(blocks))
            return
        if self._kept is None:
            self._kept = list(draw(self.seed, self.strata, self.resamples, DRAWN_TOGETHER))
        for i, kept in enumerate(self._kept):
            for at in range(0, len(kept), rows):
                yield i * DRAWN_TOGETHER + at, kept[at : at + rows]


@dataclass(frozen=True, slots=True)
class Studentised:
    """Estimates ``theta`` ``[c]``, standard errors ``se`` ``[c]`` and studentised deviations ``t`` ``[c, B]``.

    ``t_low`` and ``t_high`` differ only where a resample has no denominator: it then counts against the bound.
    """

    theta: F64
    se: F64
    t_low: F64
    t_high: F64


@dataclass(frozen=True, slots=True)
class _Stratum:
    """Where a stratum's clusters stand, and the halves of their five moments ``[n_h, 10 c]``."""

    clusters: slice
    size: int
    halves: F64


def studentised(numerator: F64, denominator: F64, draws: Draws) -> Studentised:
    """Bootstrap the ratios of column sums of ``numerator`` and ``denominator`` ``[n, c]``. Column sums must be positive."""
    with np.errstate(all="ignore"):
        inside = np.concatenate(draws.strata.members)
        n, d = numerator[inside], denominator[inside]
        total = column_sums(d)
        theta = column_sums(n) / total
        strata, variance = _moments(n - theta * d, d, draws.strata)
        cells, resamples = n.shape[1], draws.resamples
        t, empty = np.empty((cells, resamples)), np.zeros((cells, resamples), dtype=np.bool_)
        rows = max(64, BLOCK // (len(inside) + 20 * cells))
        for start, counts in draws.blocks(rows):
            block = _deviations(counts.astype(np.float64), strata, total)
            here = slice(start, start + len(counts))
            t[:, here], empty[:, here] = block[0].T, block[1].T
    some = bool(empty.any())
    low, high = (np.where(empty, -np.inf, t), np.where(empty, np.inf, t)) if some else (t, t)
    return Studentised(theta, np.sqrt(variance) / total, low, high)


def _moments(residual: F64, denominator: F64, strata: Strata) -> tuple[list[_Stratum], F64]:
    """Return the moments of residuals and denominators about their strata's means, and the variance of ``sum e`` ``[c]``.

    Centred, because the sums of squares about a resample's mean are then differences of numbers of their own size.
    """
    made, start, variance = [], 0, np.zeros(residual.shape[1])
    for members in strata.members:
        size = len(members)
        here = slice(start, start + size)
        x, y = (v[here] - column_sums(v[here]) / size for v in (residual, denominator))
        made.append(_Stratum(here, size, split(np.concatenate([x, y, x * x, x * y, y * y], axis=1), size)))
        if size > 1:
            variance += size / (size - 1.0) * column_sums(x * x)
        start += size
    return made, variance


def _deviations(weights: F64, strata: list[_Stratum], total: F64) -> tuple[F64, npt.NDArray[np.bool_]]:
    """Return ``T*`` ``[b, c]`` of a block of resamples, and where a resample has no denominator.

    With ``a``, ``b``, ``c`` the resample's sums over strata of ``n/(n-1)`` times sums of squares and products about the mean,
    ``(se* sum D*)^2 = a - 2 shift b + shift^2 c``.
    """
    shape = (len(weights), len(total))
    top, bottom, a, b, c = np.zeros(shape), np.zeros(shape) + total, np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for s in strata:
        x, y, xx, xy, yy = np.split(weighted_sums(weights[:, s.clusters], s.halves), 5, axis=1)
        top += x
        bottom += y
        if s.size > 1:
            factor = s.size / (s.size - 1.0)
            for into, square, one, other in ((a, xx, x, x), (b, xy, x, y), (c, yy, y, y)):
                square -= one * other / s.size
                square *= factor
                into += square
    shift = top / bottom
    cross = 2.0 * shift * b
    c *= shift * shift
    variance = a - cross + c
    # What cancellation leaves of an exact zero is not a width.
    nothing = ~(variance > NO_WIDTH * (a + np.abs(cross) + c))
    t = top / np.sqrt(variance, where=~nothing, out=np.ones(shape))
    if nothing.any():
        t = np.where(nothing, np.where(shift == 0, 0.0, np.sign(shift) * np.inf), t)
    return t, ~(bottom > 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds ``[c]`` of one family. Monte-Carlo errors belong to ``upper``, ``lower`` and ``simultaneous_lower``."""

    theta: F64
    se: F64
    lower: F64
    upper: F64
    simultaneous_lower: F64
    simultaneous_upper: F64
    error_upper: F64
    error_lower: F64
    error_simultaneous: F64


def rank(alpha: float, resamples: int) -> int:
    """Return which order statistic, counted from the end, stands for the tail ``alpha``: ``floor(alpha (B + 1))``, at least 1."""
    return max(1, int(np.floor(alpha * (resamples + 1) + 1e-9)))


def _tails(t: F64, m: int) -> tuple[F64, F64]:
    """Return the m-th smallest and the m-th largest value along the last axis."""
    last = t.shape[-1] - m
    ordered = np.partition(t, sorted({m - 1, last}), axis=-1)
    return ordered[..., m - 1], ordered[..., last]


def _quantiles(low: F64, high: F64, alpha: float) -> tuple[F64, F64, F64, F64]:
    """Return the tails of ``[c, ..., B]`` per cell, ``q_low`` and ``q_high``, and over cells, ``q_max`` and ``q_min``."""
    m = rank(alpha, low.shape[-1])
    q_low, q_high = _tails(low, m)
    if high is not low:
        q_high = _tails(high, m)[1]
    return q_low, q_high, _tails(high.max(axis=0), m)[1], -_tails(low.min(axis=0), m)[0]


def bounds(s: Studentised, alpha: float, batches: int) -> Bounds:
    """Turn studentised resamples into pointwise and simultaneous bounds at one-sided level ``alpha``, with Monte-Carlo errors.

    Errors are infinite where there are fewer resamples than batches, or where a batch has no finite bound.
    """
    cells, resamples = s.t_low.shape
    size = resamples // batches
    q_low, q_high, q_max, q_min = _quantiles(s.t_low, s.t_high, alpha)
    errors = [np.full(cells, np.inf)] * 3
    if size:
        low = s.t_low[:, : size * batches].reshape(cells, batches, size)
        high = low if s.t_high is s.t_low else s.t_high[:, : size * batches].reshape(cells, batches, size)
        errors = [_batch_error(q, s.se) for q in _quantiles(low, high, alpha)[:3]]
    with np.errstate(invalid="ignore"):
        return Bounds(
            s.theta, s.se, s.theta - q_high * s.se, s.theta - q_low * s.se, s.theta - q_max * s.se, s.theta + q_min * s.se,
            *errors,
        )  # fmt: skip


def _batch_error(quantiles: F64, se: F64) -> F64:
    """Return the Monte-Carlo error of ``quantile * se`` ``[c]`` from batch quantiles ``[c, batches]`` or ``[batches]``."""
    with np.errstate(invalid="ignore"):
        found = np.broadcast_to(quantiles, (len(se), quantiles.shape[-1])) * se[:, None]
        spread = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
    return np.where(np.isfinite(found).all(axis=1), spread, np.inf)


def clopper_pearson_upper(events: int, trials: int, alpha: float) -> float:
    """Return the exact one-sided upper confidence bound of a proportion: the ``p`` at which ``P(X <= events) = alpha``.

    Bisected to neighbouring floats. ``P`` falls as ``p`` grows; it is summed downwards from its term at ``events``.
    """
    if events >= trials:
        return 1.0
    ways, rest = math.log(math.comb(trials, events)), trials - events
    low, high = 0.0, 1.0
    while low < (middle := 0.5 * (low + high)) < high:
        odds, ratio = (1.0 - middle) / middle, 1.0
        for k in range(1, events + 1):
            ratio = 1.0 + k / (trials - k + 1) * odds * ratio
        tail = ratio * math.exp(ways + events * math.log(middle) + rest * math.log1p(-middle))
        low, high = (middle, high) if tail > alpha else (low, middle)
    return high
