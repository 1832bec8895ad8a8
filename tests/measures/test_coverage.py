"""A quick run of the coverage simulations, and that the page shows the cases that the script has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import coverage
from benchmarks.page import section

ROOT = Path(__file__).parents[2]
STUDIES, RESAMPLES = 400, 400


# Limits of the shares of misses in percent, about four binomial errors around what the page states.
LIMITS = [
    ("lognormal, σ = 0.5", 100, (0.3, 7.0), (0.2, 6.0)),
    ("lognormal, σ = 1", 50, (2.0, 12.0), (0.0, 5.0)),
    ("lognormal, σ = 0.7, very unequal sizes", 100, (1.5, 11.0), (0.0, 6.0)),
    ("five unlike strata, σ = 0.7", 100, (0.8, 9.0), (0.0, 6.0)),
    ("changes of loss, Student t(4)", 50, (0.2, 7.0), (0.2, 6.5)),
    ("events in 5 % of clusters", 100, (0.0, 0.5), (0.2, 6.0)),
    ("events in 10 %, sizes 1 to 5", 260, (0.1, 5.5), (0.1, 6.5)),
    ("events of size 1 in 5 %, noise of 1e-7 elsewhere", 50, (3.0, 14.5), (0.0, 4.0)),
]


@pytest.mark.parametrize(("name", "clusters", "upper", "lower"), LIMITS)
def test_bounds_miss_about_as_often_as_the_page_says(
    name: str, clusters: int, upper: tuple[float, float], lower: tuple[float, float]
) -> None:
    case = next(c for c in coverage.CASES if c.name == name)
    row = coverage.observe(case, clusters, STUDIES, RESAMPLES)
    assert upper[0] <= 100 * row.upper <= upper[1]
    assert lower[0] <= 100 * row.lower <= lower[1]
    assert row.nothing == 0


def test_simultaneous_bounds_of_a_family_miss_no_more_than_stated() -> None:
    case = next(c for c in coverage.CASES if c.cells > 1)
    row = coverage.observe(case, 50, 300, RESAMPLES)
    assert row.simultaneous is not None
    assert row.simultaneous <= 0.06


@pytest.mark.parametrize(("share", "items"), [(0.85, 100), (0.99, 500)])
def test_bounds_of_scores_hold(share: float, items: int) -> None:
    row = coverage.observe_score(share, items, STUDIES, RESAMPLES)
    assert row.upper <= 0.06
    assert row.lower <= 0.06
    assert row.upper + row.lower > 0


def test_the_page_has_the_rows_of_the_script() -> None:
    table = section(ROOT / "docs" / "coverage.md", coverage.SECTION)
    stated = [re.split(r" *\| *", line)[1:3] for line in table.splitlines() if line.startswith("|")][2:]
    expected = [[c.name, str(n)] for c in coverage.CASES for n in c.sizes]
    expected += [[f"score, {share:.0%} of items solved", str(items)] for share, items in coverage.SCORES]
    assert stated == expected
