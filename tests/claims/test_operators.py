"""Every operator against a naive evaluation: all choices of numbers within the intervals, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, get_args

import pytest
from claims.strategies import EPSILON, GRID, intervals, seldom, widened
from hypothesis import given
from hypothesis import strategies as st
from naive.claims import holds
from pydantic import TypeAdapter

from atlas_schema.claims.expression import ClaimError, Scope
from atlas_schema.claims.interval import Interval, exactly, written
from atlas_schema.claims.operators import Outcome, every, judge, some
from atlas_schema.documents.claim import Statement

ADAPTER: TypeAdapter[Any] = TypeAdapter(Statement)
MODELS = get_args(get_args(Statement)[0])
OPERATORS = sorted(name for model in MODELS for name in get_args(model.model_fields["operator"].annotation))
COUNTED = [o for o in OPERATORS if o not in ("equals_expression", "beyond_record")]
"""Operators that the naive evaluation knows."""


@dataclass(frozen=True)
class Case:
    """A statement over series ``x``, and the same for the naive evaluation."""

    statement: Any
    naive: dict[str, Any]


def plain(number: Fraction) -> str:
    """Return an expression for a number of the grid."""
    return f"{number.numerator}/{number.denominator}" if number >= 0 else f"-{-number.numerator}/{number.denominator}"


@st.composite
def cases(draw: st.DrawFn, operator: str, labels: tuple[str, ...]) -> Case:
    """Draw the arguments of an operator."""
    grid = st.integers(-3 * GRID, 3 * GRID).map(lambda k: Fraction(k, GRID))
    bound, other = sorted((draw(grid), draw(grid)))
    some_labels = tuple(draw(st.lists(st.sampled_from(labels), min_size=1, unique=True)))
    strict, side, count = (
        draw(st.booleans()),
        draw(st.sampled_from(["above", "below"])),
        draw(st.integers(1, len(labels))),
    )
    fields: dict[str, dict[str, Any]] = {
        "monotone": {"series": "x", "strict": strict}, "argm": {"series": "x", "labels": some_labels},
        "largest": {"series": "x", "labels": some_labels}, "smallest": {"series": "x", "labels": some_labels},
        "ratio": {"numerator": "x[a]", "denominator": "x[b]", "bound": plain(bound)},
        "greater": {"left": "x[a]", "right": "x[b]"}, "less": {"left": "x[a]", "right": "x[b]"},
        "within": {"value": "x[a]", "lower": plain(bound), "upper": plain(other)},
        "count": {"series": "x", "side": side, "bound": plain(bound), "count": count},
    }  # fmt: skip
    chosen = next(f for start, f in fields.items() if operator.startswith(start))
    naive = {"labels": some_labels, "strict": strict, "bound": bound, "other": other, "side": side, "count": count}
    return Case(ADAPTER.validate_python({"operator": operator, **chosen}), naive)


def truths(operator: str, case: Case, series: dict[str, Interval]) -> set[bool]:
    """Return what comes out over all choices."""
    # Truth changes only where a number passes an end or a bound. Steps on both sides of each, so that strict chains fit.
    edges = {end for x in series.values() for end, _ in x.ends} | {case.naive["bound"], case.naive["other"]}
    near = range(-2, 3) if case.naive["strict"] and operator.startswith("monotone") else range(-1, 2)
    candidates = sorted({edge + k * EPSILON for edge in edges for k in near})
    choices = [[p for p in candidates if x.holds(p)] for x in series.values()]
    return {holds(operator, dict(zip(series, chosen, strict=True)), **case.naive) for chosen in product(*choices)}


MEANT = {Outcome.SUPPORTED: {True}, Outcome.CONTRADICTED: {False}, Outcome.UNDETERMINED: {True, False}}


@st.composite
def worlds(draw: st.DrawFn, operator: str) -> tuple[Case, dict[str, Interval]]:
    labels = ("a", "b", "c")[: draw(st.integers(2, 3))]
    low = 1 if operator.startswith("ratio") else -3
    return draw(cases(operator, labels)), {label: draw(intervals(low=low)) for label in labels}


@pytest.mark.parametrize("operator", COUNTED)
@given(data=st.data())
def test_outcome_is_that_of_all_choices(operator: str, data: st.DataObject) -> None:
    """Supported: every choice obeys. Contradicted: none does. Undetermined: some do and some do not, no laziness."""
    case, series = data.draw(worlds(operator))
    found = judge(case.statement, Scope({"x": series})).outcome
    assert truths(operator, case, series) == MEANT[found], (case, series)


@pytest.mark.parametrize("operator", COUNTED)
@given(data=st.data())
def test_less_precise_numbers_never_decide_more(operator: str, data: st.DataObject) -> None:
    case, series = data.draw(worlds(operator))
    wider = {label: data.draw(widened(x)) for label, x in series.items()}
    before, after = (judge(case.statement, Scope({"x": s})).outcome for s in (series, wider))
    assert after in (before, Outcome.UNDETERMINED)


@pytest.mark.parametrize("reading", ["rounded", "truncated", "exact"])
@given(found=intervals(), stated=st.decimals(-3, 3, places=1).map(str))
def test_equality_is_that_of_all_choices(reading: str, found: Interval, stated: str) -> None:
    statement = ADAPTER.validate_python(
        {"operator": "equals_expression", "stated": stated.removeprefix("-") if Fraction(stated) == 0 else stated,
         "reading": reading, "expression": "x[a]"}
    )  # fmt: skip
    meant = written(statement.stated, reading)  # type: ignore[arg-type]
    numbers = {p for p in [*seldom(found), *seldom(meant), meant.lower, meant.upper, meant.lower - EPSILON,
                           meant.upper + EPSILON] if found.holds(p)}  # fmt: skip
    assert {meant.holds(p) for p in numbers} == MEANT[judge(statement, Scope({"x": {"a": found}})).outcome]


def test_what_lies_beyond_the_record_is_never_decided() -> None:
    statement = ADAPTER.validate_python({"operator": "beyond_record", "needs": "another model"})
    result = judge(statement, Scope({}))
    assert result.outcome is Outcome.UNDETERMINED
    assert "another model" in result.because


def test_division_by_what_may_be_zero_is_undetermined() -> None:
    statement = ADAPTER.validate_python(
        {"operator": "ratio_at_least", "numerator": "x[a]", "denominator": "x[b]", "bound": "1"}
    )
    for denominator in (exactly(0), Interval(Fraction(-1), Fraction(1)), Interval(Fraction(0), Fraction(1), False)):
        result = judge(statement, Scope({"x": {"a": exactly(1), "b": denominator}}))
        assert result.outcome is Outcome.UNDETERMINED
        assert "0" in result.because


@pytest.mark.parametrize("operator", ["argmax_in", "argmin_in", "largest_are", "smallest_are"])
def test_a_label_that_is_not_there_is_an_error(operator: str) -> None:
    statement = ADAPTER.validate_python({"operator": operator, "series": "x", "labels": ("z",)})
    with pytest.raises(ClaimError, match="label"):
        judge(statement, Scope({"x": {"a": exactly(1)}}))


@pytest.mark.parametrize(("operator", "sign"), [("monotone_increasing", 1), ("monotone_decreasing", -1)])
def test_order_is_contradicted_across_a_value_that_decides_nothing(operator: str, sign: int) -> None:
    """No neighbouring pair is out of order for certain; the first and the last are."""
    statement = ADAPTER.validate_python({"operator": operator, "series": "x", "strict": False})
    wide = Interval(Fraction(-5), Fraction(5))
    series = {"a": exactly(sign * 2), "b": wide, "c": exactly(sign)}
    assert judge(statement, Scope({"x": series})).outcome is Outcome.CONTRADICTED


def test_reasons_name_the_numbers() -> None:
    statement = ADAPTER.validate_python({"operator": "monotone_increasing", "series": "x", "strict": False})
    result = judge(statement, Scope({"x": {"3": written("0.747", "rounded"), "4": written("0.675", "rounded")}}))
    assert result.because == "falls at 4 [0.6745, 0.6755) after 3 [0.7465, 0.7475)"


@given(st.lists(st.sampled_from(Outcome), max_size=4))
def test_joins_are_those_of_all_completions(parts: list[Outcome]) -> None:
    """Kleene's connectives: what holds whatever the undetermined parts turn out to be."""
    free = {Outcome.SUPPORTED: [True], Outcome.CONTRADICTED: [False], Outcome.UNDETERMINED: [True, False]}
    completions = list(product(*(free[p] for p in parts)))
    assert {all(c) for c in completions} == MEANT[every(parts)]
    assert {any(c) for c in completions} == MEANT[some(parts)]
