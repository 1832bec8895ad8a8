"""How long the bootstrap takes, and how long `scipy.stats.bootstrap` takes for the same statistic.

    python benchmarks/bootstrap.py [--json]

One family: 10,000 resamples of 512 clusters in 5 strata, 64 cells. Ours is timed as verification runs it: drawing the
resamples, studentised deviations, and then pointwise and simultaneous bounds with their Monte-Carlo errors at two levels.

scipy resamples one stratum only and one cell after another, and knows no simultaneous bounds. It is given the same
studentised ratio as a vectorised statistic over paired samples, and percentiles of it are all it computes. It is timed on a
few cells, and the time is multiplied: once with its default batch (all resamples at once), once with a batch of 200, which
suits the cache of this kind of machine. BCa of the plain ratio, its default method, is timed too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import stats

from atlas_schema.measures.bootstrap import Draws, Strata, bounds, studentised

F64 = npt.NDArray[np.float64]
RESAMPLES, CLUSTERS, CELLS, STRATA, ALPHA, BATCHES, ARMS = 10_000, 512, 64, 5, 0.025, 20, 5
SCIPY_CELLS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds for all cells, best of the repeats; extra peak memory in MiB; and the ratios."""

    ours: float
    drawing: float
    deviations: float
    limits: float
    scipy_default: float
    scipy_batched: float
    scipy_bca: float
    extra_mib: float

    @property
    def ratio(self) -> float:
        """How many times faster than scipy as it comes, same statistic."""
        return self.scipy_default / self.ours

    @property
    def ratio_batched(self) -> float:
        """How many times faster than scipy with a batch chosen for it, same statistic."""
        return self.scipy_batched / self.ours


def sums() -> tuple[F64, F64]:
    """Return skewed numerators and denominators ``[n, c]``."""
    rng = np.random.default_rng(1)
    denominator = rng.integers(1, 9, (CLUSTERS, CELLS)).astype(np.float64)
    return denominator * rng.lognormal(-2.0, 1.0, (CLUSTERS, CELLS)), denominator


def ours(numerator: F64, denominator: F64) -> tuple[float, float, float]:
    """Return the seconds that drawing, deviations and bounds take."""
    where = Strata(tuple(np.array_split(np.arange(CLUSTERS), STRATA)))
    begun = time.perf_counter()
    draws = Draws(hashlib.sha256(b"benchmark").digest(), where, RESAMPLES)
    for _ in draws.blocks(512):
        pass
    drawn = time.perf_counter()
    found = studentised(numerator, denominator, draws)
    resampled = time.perf_counter()
    bounds(found, (ALPHA, ALPHA / ARMS), BATCHES)
    return drawn - begun, resampled - drawn, time.perf_counter() - resampled


def scipys(numerator: F64, denominator: F64, method: str, batch: int | None) -> float:
    """Return the seconds that scipy takes for one cell."""
    theta = numerator.sum() / denominator.sum()

    def ratio(n: F64, d: F64, axis: int = -1) -> Any:
        return n.sum(axis=axis) / d.sum(axis=axis)

    def deviation(n: F64, d: F64, axis: int = -1) -> Any:
        total = d.sum(axis=axis)
        again = n.sum(axis=axis) / total
        residual = n - np.expand_dims(again, axis) * d
        se = np.sqrt(n.shape[axis] / (n.shape[axis] - 1) * (residual * residual).sum(axis=axis)) / total
        return (again - theta) / se

    statistic, bootstrap = ratio if method == "BCa" else deviation, cast(Any, stats.bootstrap)
    begun = time.perf_counter()
    bootstrap((numerator, denominator), statistic, n_resamples=RESAMPLES, paired=True,
                    vectorized=True, axis=-1, method=method, batch=batch, confidence_level=0.95,
                    rng=np.random.default_rng(1))  # fmt: skip
    return time.perf_counter() - begun


def measure(repeats: int = 5) -> Result:
    """Time both. Ours first, so that the peak of memory is not scipy's."""
    numerator, denominator = sums()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    drawing, deviations, limits = min((ours(numerator, denominator) for _ in range(repeats)), key=sum)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    def every(method: str, batch: int | None) -> float:
        def once(cell: int) -> float:
            return scipys(numerator[:, cell], denominator[:, cell], method, batch)

        return CELLS * min(_each(once))

    return Result(drawing + deviations + limits, drawing, deviations, limits, every("percentile", None),
                  every("percentile", 200), every("BCa", 200), extra)  # fmt: skip


def _each(once: Callable[[int], float]) -> list[float]:
    return [once(cell) for cell in range(SCIPY_CELLS)]


def row(result: Result) -> str:
    """Return the Markdown row for the table of benchmarks: what, aim, found."""
    return (
        f"| bootstrap, {RESAMPLES:,} resamples × {CLUSTERS} clusters × {CELLS} cells | < 1 s, ≥ 50× `scipy.stats.bootstrap` "
        f"| {result.ours:.2f} s; {result.ratio:.0f}× scipy as it comes, {result.ratio_batched:.0f}× scipy with a batch of 200 |"
    )


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable")
    result = measure()
    if parser.parse_args().json:
        print(json.dumps({**asdict(result), "ratio": result.ratio, "ratio_batched": result.ratio_batched}))
        return
    print(f"ours: {result.ours:.3f} s (drawing {result.drawing:.3f}, deviations {result.deviations:.3f}, bounds {result.limits:.3f}), "
          f"{result.extra_mib:.0f} MiB beyond the input")  # fmt: skip
    print(f"scipy, same statistic, percentiles, as it comes: {result.scipy_default:.1f} s ({result.ratio:.0f}×)")
    print(
        f"scipy, same statistic, percentiles, batch 200:   {result.scipy_batched:.1f} s ({result.ratio_batched:.0f}×)"
    )
    print(
        f"scipy, plain ratio, BCa, batch 200:              {result.scipy_bca:.1f} s ({result.scipy_bca / result.ours:.0f}×)"
    )
    product = 2 * RESAMPLES * CLUSTERS * 10 * CELLS
    print(f"the product alone: {product / 1e9:.2f}e9 operations, {product / result.deviations / 1e9:.0f}e9 a second")
    print(row(result))


if __name__ == "__main__":
    main()
