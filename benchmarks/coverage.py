"""How often the bounds miss a truth that is known, case by case. Writes the table of `docs/coverage.md`.

    python -m benchmarks.coverage [--studies N] [--write FILE]

Every case draws many studies from a population of known ratio, gives each to the same `family` that receipts use, with the
parameters of the built-in contract, and counts how often a bound lies on the wrong side of the truth.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.intervals import Interval, Resampler, Statistic, family, score_interval
from atlas_schema.study.contracts import load_contract
from benchmarks.page import write_section

F64 = npt.NDArray[np.float64]
Rng = np.random.Generator
Draw = Callable[[Rng, int], tuple[F64, F64]]
"""Numerators and denominators of ``[clusters]``."""

CONTRACT = load_contract("chart-preserving.v1")
TOGETHER = 250
RESAMPLES = 2000
DRIFT, SHARE, SIGNED = Statistic(False, False, True), Statistic(False, True, True), Statistic(False, False, False)


@dataclass(frozen=True, slots=True)
class Case:
    """A population: its name, the true ratio, numbers of clusters to try, and what to know of its values."""

    name: str
    truth: float
    sizes: tuple[int, ...]
    draw: Draw
    statistic: Statistic = DRIFT
    strata: int = 1
    cells: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """Shares of studies in which a bound missed the truth, or was not given at all."""

    case: str
    clusters: int
    studies: int
    upper: float
    lower: float
    simultaneous: float | None
    nothing: float

    @property
    def admitted(self) -> bool:
        """Whether the contract lets so few clusters decide anything."""
        return self.clusters >= CONTRACT.bootstrap.min_clusters


def lognormal(spread: float) -> Draw:
    """Ratios with mean 0.1 and lognormal tails; clusters of 2 to 8 tokens, independent of them."""

    def draw(rng: Rng, n: int) -> tuple[F64, F64]:
        weight = rng.integers(2, 9, n).astype(np.float64)
        return weight * 0.1 * rng.lognormal(-(spread**2) / 2, spread, n), weight

    return draw


def unequal(rng: Rng, n: int) -> tuple[F64, F64]:
    """Lognormal ratios in clusters whose sizes are themselves lognormal, the largest some twenty times the median."""
    weight = np.ceil(20.0 * rng.lognormal(0.0, 1.0, n))
    return weight * 0.1 * rng.lognormal(-0.245, 0.7, n), weight


def stratified(rng: Rng, n: int) -> tuple[F64, F64]:
    """Five equal strata whose ratios are 0.02, 0.06, 0.1, 0.14, 0.18."""
    of = np.repeat(np.arange(5), math.ceil(n / 5))[:n]
    weight = rng.integers(2, 7, n).astype(np.float64)
    return weight * (0.02 + 0.04 * of) * rng.lognormal(-0.245, 0.7, n), weight


def events(share: float, noise: float = 0.0, heavy: bool = False, size: float = 0.5) -> Draw:
    """Clusters of which a share has the mean ``size`` and the rest noise of at most ``noise``; ``heavy``: 1 to 5 tokens."""

    def draw(rng: Rng, n: int) -> tuple[F64, F64]:
        weight = rng.integers(1, 6, n).astype(np.float64) if heavy else np.ones(n)
        return weight * np.where(rng.random(n) < share, size, noise * rng.random(n)), weight

    return draw


def changes(rng: Rng, n: int) -> tuple[F64, F64]:
    """Signed changes of loss with heavy tails (Student, 4 degrees of freedom), about 0.02."""
    return 24.0 * (0.02 + 0.05 * rng.standard_t(4, n)), np.full(n, 24.0)


ALL, USUAL = (10, 25, 50, 100, 260), (50, 100, 260)
CASES = (
    Case("lognormal, σ = 0.5", 0.1, ALL, lognormal(0.5)),
    Case("lognormal, σ = 1", 0.1, ALL, lognormal(1.0)),
    Case("lognormal, σ = 1.5", 0.1, ALL, lognormal(1.5)),
    Case("lognormal, σ = 0.7, very unequal sizes", 0.1, ALL, unequal),
    Case("five unlike strata, σ = 0.7", 0.1, (25, 50, 100, 260), stratified, strata=5),
    Case("seven independent cells, σ = 1", 0.1, USUAL, lognormal(1.0), cells=7),
    Case("changes of loss, Student t(4)", 0.02, ALL, changes, SIGNED),
    Case("events in 1 % of clusters", 0.005, USUAL, events(0.01), SHARE),
    Case("events in 5 % of clusters", 0.025, USUAL, events(0.05), SHARE),
    Case("events in 10 % of clusters", 0.05, USUAL, events(0.1), SHARE),
    Case("events in 5 %, sizes 1 to 5", 0.025, USUAL, events(0.05, heavy=True), SHARE),
    Case("events in 10 %, sizes 1 to 5", 0.05, USUAL, events(0.1, heavy=True), SHARE),
    Case("events in 1 %, noise of 1e-7 elsewhere", 0.005 + 0.99 * 5e-8, USUAL, events(0.01, 1e-7), SHARE),
    Case("events in 5 %, noise of 1e-7 elsewhere", 0.025 + 0.95 * 5e-8, USUAL, events(0.05, 1e-7), SHARE),
    Case(
        "events of size 1 in 5 %, noise of 1e-7 elsewhere",
        0.05 + 0.95 * 5e-8,
        USUAL,
        events(0.05, 1e-7, size=1.0),
        SHARE,
    ),
    Case("events in 1 %, 0 to 0.01 elsewhere", 0.005 + 0.99 * 0.005, USUAL, events(0.01, 0.01), SHARE),
)
SCORES = ((0.5, 100), (0.85, 100), (0.95, 100), (0.99, 100), (0.85, 500), (0.99, 500))


def rule(resamples: int) -> Bootstrap:
    """Return the contract's bootstrap, letting few clusters decide, so that it can be seen why it does not."""
    return CONTRACT.bootstrap.model_copy(update={"min_clusters": 2, "resamples": resamples})


def observe(case: Case, clusters: int, studies: int, resamples: int = RESAMPLES) -> Row:
    """Count misses of one case. Equal arguments give equal rows."""
    used = rule(resamples)
    name = f"{case.name} {clusters}".encode()
    rng = np.random.default_rng(list(hashlib.sha256(name).digest()))
    strata = Strata(tuple(np.array_split(np.arange(clusters), case.strata)))
    resampler = Resampler(hashlib.sha256(b"coverage " + name).digest(), strata, used)
    missed, done = np.zeros(4), 0
    while done < studies:
        # Studies stand side by side as columns: a cell's own bounds do not depend on its family.
        together = min(TOGETHER, studies - done) if case.cells == 1 else 1
        drawn = [case.draw(rng, clusters) for _ in range(together * case.cells)]
        found = family(np.stack([n for n, _ in drawn], axis=1), np.stack([d for _, d in drawn], axis=1),
                       [case.statistic] * len(drawn), resampler, 1)  # fmt: skip
        missed += _missed(found, case.truth)
        if case.cells > 1:
            missed[2] += any(i.simultaneous_lower is not None and i.simultaneous_lower > case.truth for i in found)
        done += together
    upper, lower, together_share, nothing = missed / (studies * np.array([case.cells, case.cells, 1, case.cells]))
    simultaneous = float(together_share) if case.cells > 1 else None
    return Row(case.name, clusters, studies, float(upper), float(lower), simultaneous, float(nothing))


def observe_score(share: float, items: int, studies: int, resamples: int = RESAMPLES) -> Row:
    """Count misses of the bounds of a score: items solved independently with probability ``share``."""
    rng = np.random.default_rng([items, int(1000 * share)])
    resampler = Resampler(hashlib.sha256(b"scores").digest(), Strata((np.arange(items),)), rule(resamples))
    missed, known = np.zeros(4), dict[int, Interval]()
    for _ in range(studies):
        solved = int(rng.binomial(items, share))
        # Bounds depend on which items failed only through the resamples; one order stands for all.
        if solved not in known:
            known[solved] = score_interval((np.arange(items) < solved).astype(np.float64), resampler, "", 1)
        missed += _missed([known[solved]], share)
    upper, lower, _, nothing = missed / studies
    return Row(f"score, {share:.0%} of items solved", items, studies, float(upper), float(lower), None, float(nothing))


def _missed(found: list[Interval], truth: float) -> F64:
    upper = sum(i.upper is not None and i.upper < truth for i in found)
    lower = sum(i.lower is not None and i.lower > truth for i in found)
    return np.array([upper, lower, 0, sum(i.method == "none" for i in found)], dtype=np.float64)


def rows(studies: int) -> Iterator[Row]:
    """Yield every row of the table."""
    for case in CASES:
        for clusters in case.sizes:
            yield observe(case, clusters, studies if case.cells == 1 else studies // 4)
    for share, items in SCORES:
        yield observe_score(share, items, studies)


def cell(row: Row, missed: float | None, clusters: int = 1) -> str:
    """Return a share in percent with its binomial standard error."""
    if missed is None:
        return "—"
    return f"{100 * missed:.1f} ± {100 * math.sqrt(max(missed * (1 - missed), 1e-9) / (row.studies * clusters)):.1f}"


def table(found: list[Row]) -> str:
    """Return the Markdown table."""
    lines = ["| population | clusters | admitted | upper bound too low, % | lower bound too high, % | some of the family's simultaneous "
             "lower bounds too high, % | no bound, % |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {r.case} | {r.clusters} | {'yes' if r.admitted else 'no'} | {cell(r, r.upper)} | {cell(r, r.lower)} "
        f"| {cell(r, r.simultaneous)} | {100 * r.nothing:.1f} |"
        for r in found
    ]
    return "\n".join(lines)


SECTION = "benchmarks/coverage.py"


def main() -> None:
    """Print the table, or put it between the marks of a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000, help="studies per row")
    parser.add_argument("--write", type=Path, help="page with the marks between which the table stands")
    given = parser.parse_args()
    found = []
    for row in rows(given.studies):
        print(f"{row.case}, {row.clusters}: {cell(row, row.upper)}, {cell(row, row.lower)}", file=sys.stderr)
        found.append(row)
    if given.write is None:
        print(table(found))
        return
    write_section(given.write, SECTION, table(found))


if __name__ == "__main__":
    main()
