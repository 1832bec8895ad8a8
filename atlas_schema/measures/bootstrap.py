"""The studentised stratified bootstrap over clusters, specified so that another implementation reproduces it.

All cells of a family share the same resamples. Each resample needs five moments per cell and stratum, so all resamples
together are one matrix product per stratum. `docs/measures.md`, section 6, states every step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.canonical import raw_digest
from atlas_schema.measures.exact import row_sums, split, weighted_sums
from atlas_schema.measures.geometry import F64

Counts = npt.NDArray[np.unsignedinteger]

BLOCK = 2**19
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
class _Moments:
    """Halves of what resamples add up, of residuals ``x`` and denominators ``y`` about their strata's means.

    ``squares`` ``[6 c, n]``: ``xx``, ``xy``, ``yy`` times the ``n_h / (n_h - 1)`` of their stratum. ``sums``: per stratum its
    clusters, that factor over ``n_h``, and ``x``, ``y`` ``[4 c, n_h]``. ``total`` ``[c]`` is the sum of denominators.
    """

    squares: F64
    sums: tuple[tuple[slice, float, F64], ...]
    total: F64


def studentised(numerator: F64, denominator: F64, draws: Draws) -> Studentised:
    """Bootstrap the ratios of column sums of ``numerator`` and ``denominator`` ``[n, c]``. Column sums must be positive."""
    with np.errstate(all="ignore"):
        inside = np.concatenate(draws.strata.members)
        n, d = numerator[inside].T, denominator[inside].T
        total = row_sums(d)
        theta = row_sums(n) / total
        moments, variance = _moments(n - theta[:, None] * d, d, draws.strata)
        cells, resamples = n.shape[0], draws.resamples
        t, empty = np.empty((cells, resamples)), np.zeros((cells, resamples), dtype=np.bool_)
        rows = max(64, BLOCK // (len(inside) + 20 * cells))
        for start, counts in draws.blocks(rows):
            here = slice(start, start + len(counts))
            t[:, here], empty[:, here] = _deviations(counts.astype(np.float64).T, moments)
    some = bool(empty.any())
    low, high = (np.where(empty, -np.inf, t), np.where(empty, np.inf, t)) if some else (t, t)
    return Studentised(theta, np.sqrt(variance) / total, low, high)


def _moments(residual: F64, denominator: F64, strata: Strata) -> tuple[_Moments, F64]:
    """Return the moments, and the variance of the sum of residuals ``[c]``.

    Centred, because the sums of squares about a resample's mean are then differences of numbers of their own size.
    """
    sums, squares, start = [], [], 0
    for members in strata.members:
        size = len(members)
        here = slice(start, start + size)
        start += size
        factor = size / (size - 1.0) if size > 1 else 0.0
        x, y = (v[:, here] - row_sums(v[:, here])[:, None] / size for v in (residual, denominator))
        sums.append((here, factor / size, split(np.concatenate([x, y]), size)))
        squares.append(np.concatenate([x * x, x * y, y * y]) * factor)
    together = np.concatenate(squares, axis=1)
    return _Moments(split(together, start), tuple(sums), row_sums(denominator)), row_sums(together[: len(residual)])


def _deviations(weights: F64, moments: _Moments) -> tuple[F64, npt.NDArray[np.bool_]]:
    """Return ``T*`` ``[c, b]`` of a block of resamples ``[n, b]``, and where a resample has no denominator.

    With ``aa``, ``ab``, ``bb`` the sums over strata of ``n/(n-1)`` times the sums of squares and products of residuals and
    denominators about their means in the resample, ``(se* sum D*)^2 = aa - 2 shift ab + shift^2 bb``.
    """
    aa, ab, bb = np.split(weighted_sums(moments.squares, weights), 3)
    top = np.zeros_like(aa)
    bottom = top + moments.total[:, None]
    for clusters, share, halves in moments.sums:
        x, y = np.split(weighted_sums(halves, weights[clusters]), 2)
        top += x
        bottom += y
        scaled = x * share
        aa -= scaled * x
        ab -= scaled * y
        y *= y
        y *= share
        bb -= y
    shift = top / bottom
    ab *= 2.0 * shift
    bb *= shift * shift
    variance = aa - ab + bb
    # What cancellation leaves of an exact zero is not a width.
    nothing = ~(variance > NO_WIDTH * (aa + np.abs(ab) + bb))
    t = top / np.sqrt(variance)
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


def _tails(t: F64, ranks: Sequence[int]) -> tuple[list[F64], list[F64]]:
    """Return the m-th smallest and the m-th largest values along the last axis, for ``ranks`` in falling order."""
    low = high = t
    smallest, largest = [], []
    for m in ranks:
        # A smaller rank lies inside the tail that the larger one has set apart.
        low = np.partition(low, m - 1, axis=-1)[..., :m]
        last = high.shape[-1] - m
        high = np.partition(high, last, axis=-1)[..., last:]
        smallest.append(low[..., m - 1])
        largest.append(high[..., 0])
    return smallest, largest


def _quantiles(low: F64, high: F64, alphas: Sequence[float]) -> list[tuple[F64, F64, F64, F64]]:
    """Return per level the tails of ``[c, ..., B]`` per cell, ``q_low`` and ``q_high``, and over cells, ``q_max`` and ``q_min``."""
    ranks = [rank(alpha, low.shape[-1]) for alpha in alphas]
    q_low, q_high = _tails(low, ranks)
    if high is not low:
        q_high = _tails(high, ranks)[1]
    highest, deepest = _tails(high.max(axis=0), ranks)[1], _tails(low.min(axis=0), ranks)[0]
    return [(a, b, c, -d) for a, b, c, d in zip(q_low, q_high, highest, deepest, strict=True)]


def bounds(s: Studentised, alphas: Sequence[float], batches: int) -> list[Bounds]:
    """Turn studentised resamples into pointwise and simultaneous bounds with Monte-Carlo errors, per one-sided level.

    Levels fall. Errors are infinite where there are fewer resamples than batches, or where a batch has no finite bound.
    """
    cells, resamples = s.t_low.shape
    size = resamples // batches
    errors = [[np.full(cells, np.inf)] * 3] * len(alphas)
    if size:
        low = s.t_low[:, : size * batches].reshape(cells, batches, size)
        high = low if s.t_high is s.t_low else s.t_high[:, : size * batches].reshape(cells, batches, size)
        errors = [[_batch_error(q, s.se) for q in level[:3]] for level in _quantiles(low, high, alphas)]
    with np.errstate(invalid="ignore"):
        return [
            Bounds(s.theta, s.se, s.theta - q_high * s.se, s.theta - q_low * s.se, s.theta - q_max * s.se,
                   s.theta + q_min * s.se, *error)
            for (q_low, q_high, q_max, q_min), error in zip(_quantiles(s.t_low, s.t_high, alphas), errors, strict=True)
        ]  # fmt: skip


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
