"""Values recomputed from cited rows, against plain arithmetic; what is cited wrongly is found."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from typing import Any

import pytest
from claims.worlds import Json, typed
from documents.records import measurement
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from atlas_schema.claims.rows import Row, row_faults, statistic, student
from atlas_schema.documents.measurement import CitedRows, Measurement

VALUES = st.lists(st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 6)), min_size=2, max_size=9)


def citing(value: str, kind: str = "mean", n: int | None = 3, **change: Any) -> Measurement:
    """Return a record whose first perplexity cites rows."""

    def cite(m: Json) -> None:
        m["claims"] = []
        rows = {"series": "losses", "layer": None, "head": None, "statistic": kind, **change.get("rows", {})}
        first = m["series"][1]["values"][0]
        first.update(value=value, n=n, rows=rows, uncertainty=change.get("uncertainty"))
        m["series"][1]["reading"] = change.get("reading", "rounded")
        root = "sha256:" + "0" * 64
        m["evidence"] = {"root": root, "tables": [{"name": "measurement_row", "rows": 3, "root": root}]}

    return typed(measurement(cite))


def rules(record: Measurement, values: list[float], **row: Any) -> list[str]:
    rows = {"losses": [Row("losses", row.get("layer"), row.get("head"), v) for v in values]}
    return [fault.rule for fault in row_faults(record, rows) if fault is not None]


NAIVE: dict[str, Any] = {
    "mean": statistics.fmean, "sum": math.fsum, "minimum": min, "maximum": max, "median": statistics.median, "count": len,
    "exp_mean": lambda v: math.exp(statistics.fmean(v)),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAIVE)
@given(values=VALUES)
def test_statistics_are_those_of_plain_arithmetic(kind: str, values: list[float]) -> None:
    cited = CitedRows(series="losses", layer=None, head=None, statistic=kind)  # type: ignore[arg-type]
    found = statistic([Fraction(v) for v in values], cited)
    assert float(found.lower) == pytest.approx(NAIVE[kind](values), rel=1e-12, abs=1e-12)
    assert found.upper - found.lower <= Fraction(1, 10**50)


@given(values=VALUES, level=st.sampled_from([0.8, 0.95, 0.99]))
def test_the_student_interval_is_scipys(values: list[float], level: float) -> None:
    low, high = student([Fraction(v) for v in values], level)
    if len(set(values)) == 1:
        assert low == high
        return
    expected = stats.t.interval(level, len(values) - 1, loc=statistics.fmean(values), scale=stats.sem(values))
    for end, wanted in ((low, expected[0]), (high, expected[1])):
        assert float(end.lower) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@given(values=VALUES, digits=st.integers(0, 4))
def test_an_honest_mean_agrees_and_one_digit_more_or_less_does_not(values: list[float], digits: int) -> None:
    mean = sum(map(Fraction, values)) / len(values)
    text = f"{float(mean):.{digits}f}"
    text = text.removeprefix("-") if Fraction(text) == 0 else text
    assert rules(citing(text, n=len(values)), values) == []
    moved = Fraction(text) + 2 * Fraction(1, 10**digits)
    assert rules(citing(f"{float(moved):.{digits}f}".replace("-0.0", "0.0"), n=len(values)), values) == ["ATL-R060"]


def test_halves_may_be_rounded_either_way_but_not_cut() -> None:
    for text in ("0.12", "0.13"):
        assert rules(citing(text), [0.125] * 3) == []
    assert rules(citing("0.12", reading="truncated"), [0.125] * 3) == []
    assert rules(citing("0.13", reading="truncated"), [0.125] * 3) == ["ATL-R060"]
    assert rules(citing("0.125", reading="exact"), [0.125] * 3) == []


def test_rows_are_selected_by_layer_and_head() -> None:
    assert rules(citing("2", rows={"layer": 4}), [2.0] * 3, layer=4) == []
    assert rules(citing("2", rows={"layer": 4}), [2.0] * 3, layer=5) == ["ATL-R060"]
    assert rules(citing("2", rows={"head": 1}), [2.0] * 3) == ["ATL-R060"]
    assert rules(citing("2", rows={"series": "others"}), [2.0] * 3) == ["ATL-R060"]


def test_one_value_is_one_row() -> None:
    assert rules(citing("2", "value", 1), [2.0]) == []
    assert rules(citing("2", "value"), [2.0] * 3) == ["ATL-R060"]


@pytest.mark.parametrize("n", [None, 2, 4])
def test_the_sample_size_is_the_number_of_rows(n: int | None) -> None:
    assert rules(citing("2", n=n), [2.0] * 3) == ["ATL-R061"]


def test_a_student_interval_is_recomputed() -> None:
    values = [1.0, 2.0, 3.0]
    low, high = student([Fraction(v) for v in values], 0.95)
    honest = {
        "lower": f"{float(low.lower):.3f}",
        "upper": f"{float(high.lower):.3f}",
        "level": 0.95,
        "method": "student_t",
    }
    assert rules(citing("2.000", uncertainty=honest), values) == []
    assert rules(citing("2.000", uncertainty={**honest, "upper": "2.500"}), values) == ["ATL-R062"]
    assert rules(citing("2.000", uncertainty={**honest, "level": 0.5}), values) == ["ATL-R062", "ATL-R062"]
    assert rules(citing("2.000", n=1, uncertainty=honest), [2.0]) == ["ATL-R062"]


def test_a_statistic_without_an_interval_agrees_with_nothing() -> None:
    assert rules(citing("1", "exp_mean"), [5000.0] * 3) == ["ATL-R060"]
