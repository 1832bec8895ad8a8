"""The studentised stratified bootstrap over clusters, specified so that another implementation reproduces it.

All cells of a family share the same resamples. Each resample needs five moments per cell and stratum, so all resamples
together are one matrix product per stratum. `docs/measures.md`, section 6, states every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.canonical import raw_digest
from atlas_schema.measures.geometry import F64

Counts = npt.NDArray[np.float64]


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


def resample_counts(seed: bytes, strata: Strata, resamples: int) -> list[Counts]:
    """Return per stratum how often each cluster is drawn, ``[B, n_h]``.

    Philox4x64-10 keyed by the first 16 bytes of the seed, counter 0; index = floor(top 53 bits / 2^53 * n_h); strata in
    order, within a stratum a row-major block ``[B, n_h]``.
    """
    key = np.frombuffer(seed[:16], dtype="<u8").astype(np.uint64)
    generator = np.random.Philox(key=key, counter=0)
    counts = []
    for members in strata.members:
        size = len(members)
        raw = generator.random_raw(resamples * size)
        drawn = ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53 * size).astype(np.int64)
        flat = drawn + np.repeat(np.arange(resamples) * size, size)
        counts.append(np.bincount(flat, minlength=resamples * size).reshape(resamples, size).astype(np.float64))
    return counts


@dataclass(frozen=True, slots=True)
class Studentised:
    """Estimates ``theta`` ``[c]``, standard errors ``se`` ``[c]`` and studentised deviations ``t`` ``[B, c]``.

    ``t_low`` and ``t_high`` differ only where a resample has no denominator: it then counts against the bound.
    """

    theta: F64
    se: F64
    t_low: F64
    t_high: F64


def studentised(numerator: F64, denominator: F64, strata: Strata, counts: Sequence[Counts]) -> Studentised:
    """Bootstrap the ratios of column sums of ``numerator`` and ``denominator`` ``[n, c]``. Column sums must be positive."""
    cells = numerator.shape[1]
    theta = numerator.sum(axis=0) / denominator.sum(axis=0)
    # Residuals about the estimate instead of raw numerators: the same algebra without cancellation.
    residual = numerator - theta * denominator
    moments = np.concatenate([residual, denominator, residual**2, residual * denominator, denominator**2], axis=1)
    resamples = len(counts[0])
    sums = [np.zeros((1, 2, cells)), np.zeros((resamples, 2, cells))]
    per_stratum: list[list[tuple[float, F64]]] = [[], []]
    for members, drawn in zip(strata.members, counts, strict=True):
        size = float(len(members))
        for which, weights in enumerate((np.ones((1, len(members))), drawn)):
            m = (weights @ moments[members]).reshape(len(weights), 5, cells)
            sums[which] += m[:, :2]
            per_stratum[which].append((size, m))
    point = np.zeros((1, cells))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = sums[1][:, 0] / sums[1][:, 1]
        se = _standard_error(per_stratum[0], sums[0][:, 1], point)[0]
        se_star = _standard_error(per_stratum[1], sums[1][:, 1], shift)
        t = shift / se_star
        t = np.where(se_star > 0, t, np.where(shift == 0, 0.0, np.sign(shift) * np.inf))
    empty = ~(sums[1][:, 1] > 0)
    return Studentised(theta, se, np.where(empty, -np.inf, t), np.where(empty, np.inf, t))


def _standard_error(strata: list[tuple[float, F64]], total: F64, shift: F64) -> F64:
    """Return ``se`` ``[B, c]`` from the five moments per stratum, with residuals about ``theta + shift``."""
    variance = np.zeros_like(total)
    for size, m in strata:
        if size < 2:
            continue
        mean = (m[:, 0] - shift * m[:, 1]) / size
        squares = m[:, 2] - 2.0 * shift * m[:, 3] + shift**2 * m[:, 4]
        variance += size / (size - 1.0) * np.maximum(squares - size * mean**2, 0.0)
    out: F64 = np.sqrt(variance) / total
    return out


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


def _smallest(t: F64, m: int) -> F64:
    out: F64 = np.partition(t, m - 1, axis=0)[m - 1]
    return out


def _quantiles(s: Studentised, rows: slice, alpha: float) -> tuple[F64, F64, float, float]:
    """Return lower and upper tail quantiles per cell and the upper tails of ``max T`` and ``max -T`` over cells."""
    low, high = s.t_low[rows], s.t_high[rows]
    m = rank(alpha, len(low))
    return (_smallest(low, m), -_smallest(-high, m),
            float(-_smallest(-high.max(axis=1), m)), float(-_smallest(low.min(axis=1), m)))  # fmt: skip


def bounds(s: Studentised, alpha: float, batches: int) -> Bounds:
    """Turn studentised resamples into pointwise and simultaneous bounds at one-sided level ``alpha``, with Monte-Carlo errors."""
    q_low, q_high, q_max, q_min = _quantiles(s, slice(None), alpha)
    size = len(s.t_low) // batches
    parts = [_quantiles(s, slice(i * size, (i + 1) * size), alpha) for i in range(batches)]

    def error(values: list[F64]) -> F64:
        stack = np.stack(values) * s.se
        with np.errstate(invalid="ignore"):
            spread = stack.std(axis=0, ddof=1) / np.sqrt(batches)
        return np.where(np.isfinite(stack).all(axis=0), spread, np.inf)

    with np.errstate(invalid="ignore"):
        return Bounds(
            s.theta, s.se, s.theta - q_high * s.se, s.theta - q_low * s.se, s.theta - q_max * s.se, s.theta + q_min * s.se,
            error([p[0] for p in parts]), error([p[1] for p in parts]),
            error([np.full_like(s.se, p[2]) for p in parts]),
        )  # fmt: skip


def clopper_pearson_upper(events: int, trials: int, alpha: float) -> float:
    """Return the exact one-sided upper confidence bound of a proportion."""
    from scipy.special import betaincinv

    return 1.0 if events >= trials else float(betaincinv(events + 1, trials - events, 1.0 - alpha))
