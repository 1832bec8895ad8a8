"""Values recomputed from the rows they cite. Rows are binary64, so sums and means are exact fractions here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from scipy import stats

from atlas_schema.claims.interval import Interval, NoIntervalError, exactly, exponential, show, written
from atlas_schema.claims.record import Fault, Path
from atlas_schema.documents.measurement import CitedRows, Measurement, Series, Value
from atlas_schema.evidence.columns import Rows

RELATIVE = Fraction(1, 10**9)
"""Relative width allowed to a quantile of Student's distribution, which is computed in binary64."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of table `measurement_row`, without its record's id."""

    series: str
    layer: int | None
    head: int | None
    value: float


def rows_of(rows: Rows, measurement_id: str) -> dict[str, list[Row]]:
    """Return the rows of one record, by series, in order of index."""
    layers, heads = rows.valid("layer"), rows.valid("head")
    found: dict[str, list[Row]] = {}
    for i in range(rows.n):
        if rows["measurement_id"][i] != measurement_id:
            continue
        row = Row(str(rows["series"][i]), int(rows["layer"][i]) if layers[i] else None,
                  int(rows["head"][i]) if heads[i] else None, float(rows["value"][i]))  # fmt: skip
        found.setdefault(row.series, []).append(row)
    return found


def cited(rows: Mapping[str, Sequence[Row]], citation: CitedRows) -> list[Fraction]:
    """Return the values of the cited rows."""
    return [
        Fraction(row.value)
        for row in rows.get(citation.series, ())
        if citation.layer in (None, row.layer) and citation.head in (None, row.head)
    ]


def statistic(values: Sequence[Fraction], citation: CitedRows) -> Interval:
    """Return the cited statistic of at least one value; exact but for ``exp_mean``, which is rounded outward."""
    total = sum(values, Fraction(0))
    match citation.statistic:
        case "value":
            return exactly(values[0])
        case "mean":
            return exactly(total / len(values))
        case "exp_mean":
            return exponential(exactly(total / len(values)))
        case "sum":
            return exactly(total)
        case "minimum":
            return exactly(min(values))
        case "maximum":
            return exactly(max(values))
        case "median":
            return exactly(median(values))
        case "count":
            return exactly(len(values))


def row_faults(record: Measurement, rows: Mapping[str, Sequence[Row]]) -> Iterator[Fault | None]:
    """Recompute every value that cites rows (R060 to R062). Yields one item per check: a fault, or None where it agrees."""
    for i, series in enumerate(record.series):
        for j, value in enumerate(series.values):
            if value.rows is not None:
                yield from _value_faults(value, value.rows, series, cited(rows, value.rows), ("series", i, "values", j))


def _value_faults(
    value: Value, citation: CitedRows, series: Series, values: list[Fraction], path: Path
) -> Iterator[Fault | None]:
    if not values or (citation.statistic == "value" and len(values) != 1):
        yield Fault("ATL-R060", "The cited rows are not there, or not as many as their statistic needs.", (*path, "rows"),
                    f"{citation.statistic} of {citation.series}", f"{len(values)} rows",
                    "cite the series under which the rows are kept")  # fmt: skip
        return
    yield _compared("ATL-R060", "A value is not what its rows give.", statistic_or_none(values, citation), value.value, series,
                    (*path, "value"))  # fmt: skip
    if value.n != len(values):
        yield Fault("ATL-R061", "The sample size is not the number of cited rows.", (*path, "n"), str(value.n), str(len(values)),
                    "state the number of rows behind the value")  # fmt: skip
    else:
        yield None
    if value.uncertainty is not None and value.uncertainty.method == "student_t":
        if len(values) < 2:
            yield Fault("ATL-R062", "One row gives no Student interval.", (*path, "uncertainty"), "student_t", "two rows or more",
                        "measure more, or state no interval")  # fmt: skip
            return
        for end, found in zip(("lower", "upper"), student(values, value.uncertainty.level), strict=True):
            yield _compared("ATL-R062", "An interval is not what its rows give.", found, getattr(value.uncertainty, end), series,
                            (*path, "uncertainty", end))  # fmt: skip


def statistic_or_none(values: Sequence[Fraction], citation: CitedRows) -> Interval | None:
    """Return the statistic, or None where it is too large to be a number."""
    try:
        return statistic(values, citation)
    except NoIntervalError:
        return None


def student(values: Sequence[Fraction], level: float) -> tuple[Interval, Interval]:
    """Return intervals that hold the ends of the two-sided Student interval for the mean at a level. Two values or more."""
    n = len(values)
    centre = sum(values, Fraction(0)) / n
    spread = math.sqrt(sum((v - centre) ** 2 for v in values) / (n - 1) / n)
    half = Fraction(float(stats.t.ppf((1 + level) / 2, n - 1))) * Fraction(spread)
    slack = half * RELATIVE
    return (
        Interval(centre - half - slack, centre - half + slack),
        Interval(centre + half - slack, centre + half + slack),
    )


def _compared(rule: str, what: str, found: Interval | None, stated: str, series: Series, path: Path) -> Fault | None:
    meant = written(stated, series.reading)
    # Halves may have been rounded to even: the excluded end of a rounded number is admitted here.
    meant = Interval(meant.lower, meant.upper) if series.reading == "rounded" else meant
    if found is not None and not (found.above(meant) or meant.above(found)):
        return None
    return Fault(rule, what, path, f"{stated}, {series.reading}: {show(meant)}", "too large" if found is None else show(found),
                 "the number was changed after it was computed, or computed from other rows")  # fmt: skip
