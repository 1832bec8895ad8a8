"""Intervals hold what they must, and nothing more where arithmetic is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from claims.strategies import intervals, points_in, seldom
from hypothesis import assume, given
from hypothesis import strategies as st
from naive.claims import by_decimal, write_down

from atlas_schema.claims import interval as iv
from atlas_schema.claims.interval import Interval, NoIntervalError, exactly, show, written

Binary = Callable[[Interval, Interval], Interval]
OPERATIONS: tuple[tuple[Binary, Callable[[Fraction, Fraction], Fraction]], ...] = (
    (Interval.__add__, lambda a, b: a + b), (Interval.__sub__, lambda a, b: a - b), (Interval.__mul__, lambda a, b: a * b),
    (Interval.__truediv__, lambda a, b: a / b), (lambda a, b: iv.largest((a, b)), max), (lambda a, b: iv.least((a, b)), min),
)  # fmt: skip


def test_digits_mean_what_the_record_says() -> None:
    assert written("13.7", "rounded") == Interval(Fraction("13.65"), Fraction("13.75"), True, False)
    assert written("13.7", "truncated") == Interval(Fraction("13.7"), Fraction("13.8"), True, False)
    assert written("13.70", "rounded") == Interval(Fraction("13.695"), Fraction("13.705"), True, False)
    assert written("-13.7", "truncated") == Interval(Fraction("-13.8"), Fraction("-13.7"), False, True)
    assert written("0.0", "truncated") == Interval(Fraction("-0.1"), Fraction("0.1"), False, False)
    assert written("1.5e-3", "rounded") == Interval(Fraction("0.00145"), Fraction("0.00155"), True, False)
    assert written("5", "exact") == exactly(5)


@given(st.fractions(-20, 20, max_denominator=10_000), st.integers(0, 3), st.sampled_from(["rounded", "truncated"]))
def test_a_number_lies_in_what_is_written_of_it_and_in_no_other(number: Fraction, digits: int, reading: str) -> None:
    text = write_down(number, digits, reading)
    assert written(text, reading).holds(number)  # type: ignore[arg-type]
    for other in (Fraction(text) + Fraction(1, 10**digits), Fraction(text) - Fraction(1, 10**digits)):
        neighbour = write_down(other, digits, "rounded")
        assert not written(neighbour, reading).holds(number) or Fraction(neighbour) == Fraction(text)  # type: ignore[arg-type]


@given(st.decimals(-20, 20, places=4), st.integers(0, 3), st.sampled_from(["rounded", "truncated"]))
def test_the_naive_writing_is_that_of_the_standard_library(number: Decimal, digits: int, reading: str) -> None:
    assert Decimal(write_down(Fraction(number), digits, reading)) == by_decimal(number, digits, reading)


@given(intervals(), intervals(), st.sampled_from(OPERATIONS), st.data())
def test_arithmetic_holds_every_result(
    a: Interval, b: Interval, pair: tuple[Binary, Callable[[Fraction, Fraction], Fraction]], data: st.DataObject
) -> None:
    operation, naive = pair
    try:
        found = operation(a, b)
    except NoIntervalError:
        assert operation is Interval.__truediv__
        assert b.lower <= 0 <= b.upper
        return
    x, y = data.draw(points_in(a)), data.draw(points_in(b))
    assert found.holds(naive(x, y))


@given(intervals(), intervals(), st.sampled_from(OPERATIONS))
def test_arithmetic_is_as_narrow_as_can_be(
    a: Interval, b: Interval, pair: tuple[Binary, Callable[[Fraction, Fraction], Fraction]]
) -> None:
    """The ends are limits of results; an end belongs to the result iff some pair of included numbers gives it."""
    operation, naive = pair
    assume(operation is not Interval.__truediv__ or not b.lower <= 0 <= b.upper)
    found = operation(a, b)
    ends = [(naive(x, y), i and j) for x, i in a.ends for y, j in b.ends]
    assert found.lower == min(value for value, _ in ends)
    assert found.upper == max(value for value, _ in ends)
    for end, included in found.ends:
        reached = any(included for value, included in ends if value == end)
        # A factor of zero, or the other operand of a maximum, may give the end away from the corners.
        inner = [naive(x, y) for x in points(a) for y in points(b)]
        assert included == (reached or end in inner)


def points(x: Interval) -> list[Fraction]:
    """Return numbers inside: the included ends and three between."""
    inner = [x.lower + (x.upper - x.lower) * Fraction(k, 4) for k in (1, 2, 3)]
    return [p for p in [x.lower, x.upper, *inner] if x.holds(p)]


@given(intervals(), st.data())
def test_one_place_functions_hold_every_result(x: Interval, data: st.DataObject) -> None:
    p = data.draw(points_in(x))
    assert iv.absolute(x).holds(abs(p))
    assert iv.square(x).holds(p * p)
    assert (-x).holds(-p)
    near = iv.exponential(x)
    assert float(near.lower) <= math.exp(p) * (1 + 1e-14)
    assert math.exp(p) <= float(near.upper) * (1 + 1e-14)
    if x.lower > 0:
        # exp and log undo each other: the interval of one holds what the other came from.
        back = iv.logarithm(iv.exponential(exactly(p)))
        assert back.lower <= p <= back.upper
        root = iv.root(exactly(p))
        assert root.lower**2 <= p <= root.upper**2


def test_where_there_is_no_interval() -> None:
    touching, negative = Interval(Fraction(0), Fraction(1)), Interval(Fraction(-1), Fraction(1))
    calls: list[Callable[[], Interval]] = [
        lambda: exactly(1) / touching, lambda: exactly(1) / negative, lambda: iv.logarithm(touching),
        lambda: iv.root(negative), lambda: iv.exponential(exactly(1001)), lambda: iv.bounded(exactly(2**70_000)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NoIntervalError):
            call()


def test_a_maximum_excludes_an_end_that_one_operand_excludes() -> None:
    """Both begin at 1 and only one includes it: the larger of two such numbers is always above 1."""
    closed, opened = Interval(Fraction(1), Fraction(2)), Interval(Fraction(1), Fraction(2), False)
    assert iv.largest((closed, opened)) == iv.largest((opened, closed)) == opened
    assert iv.least((-closed, -opened)) == -opened


def test_functions_at_the_edge() -> None:
    assert iv.logarithm(exactly(1)) == exactly(0)
    assert iv.root(exactly(0)) == exactly(0)
    tiny = iv.exponential(exactly(-2000))
    assert tiny.lower == 0 < tiny.upper < Fraction(1, 10**400)


@given(intervals(), intervals())
def test_order_is_that_of_all_numbers(a: Interval, b: Interval) -> None:
    pairs = [(x, y) for x in seldom(a) for y in seldom(b)]
    if a.above(b):
        assert all(x > y for x, y in pairs)
    if a.not_below(b):
        assert all(x >= y for x, y in pairs)
    assert a.inside(b) == all(b.holds(x) for x in seldom(a))


@given(intervals())
def test_what_is_shown_holds_the_interval(x: Interval) -> None:
    text = show(x)
    if x.lower == x.upper:
        return
    low, high = text[1:-1].split(", ")
    assert Fraction(low) <= x.lower
    assert Fraction(high) >= x.upper
    assert (text[0] == "[", text[-1] == "]") == (x.with_lower, x.with_upper)
