"""The expression language: what it computes, against plain fractions; what it refuses, and how it says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
from claims.strategies import intervals, points_in
from hypothesis import given
from hypothesis import strategies as st

from atlas_schema.claims.expression import (
    FUNCTIONS,
    ClaimError,
    Scope,
    evaluate,
    number,
    references,
    vector,
)
from atlas_schema.claims.interval import Interval, NoIntervalError, exactly, written
from atlas_schema.limits import LIMITS

LABELS = ("a", "b", "c")


@dataclass(frozen=True)
class Made:
    """An expression's text and its value over chosen numbers, computed beside it; None where it divides by zero."""

    text: str
    value: Fraction | None


@st.composite
def expressions(draw: st.DrawFn, chosen: dict[str, Fraction], depth: int = 3) -> Made:
    """Draw a scalar expression over series x, with its value."""
    kind = draw(
        st.sampled_from(["number", "value"] if depth == 0 else ["number", "value", "binary", "minus", "call", "group"])
    )
    if kind == "number":
        text = draw(st.sampled_from(["0", "1", "2", "0.5", "3.25"]))
        return Made(text, Fraction(text))
    if kind == "value":
        label = draw(st.sampled_from(LABELS))
        return Made(f"x[{label}]", chosen[label])
    if kind == "call":
        return draw(_calls(chosen))
    inner = draw(expressions(chosen, depth - 1))
    if kind == "minus":
        return Made(f"-({inner.text})", None if inner.value is None else -inner.value)
    if kind == "group":
        return Made(f"({inner.text})", inner.value)
    right, sign = draw(expressions(chosen, depth - 1)), draw(st.sampled_from("+-*/"))
    if inner.value is None or right.value is None or (sign == "/" and right.value == 0):
        return Made(f"({inner.text}) {sign} ({right.text})", None)
    a, b = inner.value, right.value
    value = {"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a / b
    return Made(f"({inner.text}) {sign} ({right.text})", value)


@st.composite
def _calls(draw: st.DrawFn, chosen: dict[str, Fraction]) -> Made:
    values = [chosen[label] for label in LABELS]
    centre = sum(values, Fraction(0)) / 3
    return draw(st.sampled_from([
        Made("max(x)", max(values)), Made("min(x)", min(values)), Made("sum(x)", sum(values, Fraction(0))),
        Made("mean(x)", centre), Made("variance(x)", sum(((v - centre) ** 2 for v in values), Fraction(0)) / 3), Made("count(x)", Fraction(3)),
        Made("abs(x[a])", abs(values[0])), Made("max(x[a], 1, x[b])", max(values[0], Fraction(1), values[1])),
        Made("max(steps(x))", max(values[1] - values[0], values[2] - values[1])),
        Made("sum(x * 2 - x)", sum(values, Fraction(0))), Made("min(abs(x[b,c]))", min(abs(values[1]), abs(values[2]))),
        Made("max(x[a,b] / (x[a,b] * 0 + 2))", max(values[0], values[1]) / 2),
    ]))  # fmt: skip


@given(st.data())
def test_the_value_at_any_choice_lies_in_the_interval(data: st.DataObject) -> None:
    series = {label: data.draw(intervals()) for label in LABELS}
    chosen = {label: data.draw(points_in(x)) for label, x in series.items()}
    made = data.draw(expressions(chosen))
    try:
        found = evaluate(made.text, Scope({"x": series}))
    except NoIntervalError:
        return
    assert isinstance(found, Interval)
    assert made.value is not None
    assert found.holds(made.value)


@given(st.data())
def test_of_exact_numbers_the_value_is_exact(data: st.DataObject) -> None:
    chosen = {label: Fraction(data.draw(st.integers(-12, 12)), 4) for label in LABELS}
    made = data.draw(expressions(chosen))
    scope = Scope({"x": {label: exactly(v) for label, v in chosen.items()}})
    if made.value is None:
        with pytest.raises(NoIntervalError):
            evaluate(made.text, scope)
    else:
        assert evaluate(made.text, scope) == exactly(made.value)


def scope() -> Scope:
    return Scope({"x": {"a": written("1.0", "rounded"), "b": written("2.0", "rounded")}, "y": {"a": exactly(1), "b": exactly(3)},
                  "role.x": {"4": exactly(7)}, "z": {"c": exactly(1)}})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 - 2 - 3", -4), ("2 * 3 + 4", 10), ("2 + 3 * 4", 14), ("8 / 2 / 2", 2), ("-2 * -3", 6), ("- 2 - 2", -4), ("2*(3+4)", 14),
     ("role.x[4]", 7), ("y[b]-y[a]", 2), ("max(y)", 3), ("max(y[a],y[b])", 3)],
)  # fmt: skip
def test_precedence_and_grouping(text: str, value: int) -> None:
    assert evaluate(text, scope()) == exactly(value)


def test_transcendental_functions() -> None:
    for text, expected in (
        ("exp(1)", math.e),
        ("log(y[b])", math.log(3)),
        ("sqrt(y[b])", math.sqrt(3)),
        ("exp(log(2))", 2.0),
    ):
        found = number(text, scope())
        assert float(found.lower) == pytest.approx(expected, rel=1e-15)
        assert 0 < found.upper - found.lower < Fraction(1, 10**50)


def test_correlation() -> None:
    u, v = (1, 2, 4, 7), (2, 1, 5, 6)
    series = {name: {str(i): exactly(x) for i, x in enumerate(part)} for name, part in (("u", u), ("v", v))}
    found = number("correlation(u, v)", Scope(series))
    mu, mv = sum(u) / 4, sum(v) / 4
    textbook = sum((a - mu) * (b - mv) for a, b in zip(u, v, strict=True)) / math.sqrt(
        sum((a - mu) ** 2 for a in u) * sum((b - mv) ** 2 for b in v)
    )
    assert float(found.upper) == pytest.approx(textbook, rel=1e-14)
    with pytest.raises(NoIntervalError):
        number("correlation(u, u * 0)", Scope(series))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"), ("1 +", "cannot be read"), ("(1", "closing"), ("1 2", "end of the expression"), ("x[a", "cannot be read"),
        ("Max(x)", "cannot be read"), ("x.y.z", "cannot be read"), ("1e5", "end of the expression"), ("2 ** 3", "number, a name"),
        ("w[a]", "series that is not there"), ("x[q]", "value that is not there"), ("x[]", "value that is not there"),
        ("x[a,a]", "label twice"), ("x + z", "same labels"), ("sin(x[a])", "function is unknown"), ("exp(x[a], 1)", "function is unknown"),
        ("max(x[a])", "function is unknown"), ("correlation(x, z)", "function is unknown"), ("steps(z)", "two values"),
        ("__import__", "cannot be read"), ("steps(y)[b]", "end of the expression"), ("x[a].b", "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_is_not_there_is_said(text: str, says: str) -> None:
    with pytest.raises(ClaimError) as caught:
        evaluate(text, scope())
    assert says in f"{caught.value}"
    assert caught.value.found or caught.value.expected


def test_numbers_and_series_are_told_apart() -> None:
    with pytest.raises(ClaimError, match="one number belongs"):
        number("x", scope())
    with pytest.raises(ClaimError, match="series belongs"):
        vector("x[a]", scope())


def test_work_is_bounded() -> None:
    with pytest.raises(ClaimError, match="nested too deeply"):
        evaluate("(" * 40 + "1" + ")" * 40, scope())
    with pytest.raises(ClaimError, match="nested too deeply"):
        evaluate("-" * 400 + "1", scope())
    long = Scope({"x": {str(i): exactly(i) for i in range(10_000)}})
    for left in range(LIMITS.claim_operations // 50_000, 0, -1):
        assert long.left >= 50_000 * left
        evaluate("x + x + x", long)
    with pytest.raises(NoIntervalError, match=f"{LIMITS.claim_operations:,}"):
        evaluate("x + x + x", long)
    squares = Scope({"x": {"a": written("1.23456789012345678", "rounded")}})
    with pytest.raises(NoIntervalError, match="too long"):
        evaluate("*".join(["exp(x[a])"] * 700), squares)


def test_what_was_looked_at_is_known() -> None:
    seen = scope()
    evaluate("x[a] + max(y) + role.x[4]", seen)
    assert seen.used == {("x", "a"), ("y", "a"), ("y", "b"), ("role.x", "4")}
    assert references("r.x[a] + max(q.y) / abs(-p.z[1,2])") == (("r.x", ("a",)), ("q.y", ()), ("p.z", ("1", "2")))


@pytest.mark.parametrize("text", ["1 +", "nonsense(x)", "x]"])
def test_reading_alone_refuses_what_cannot_be_read(text: str) -> None:
    with pytest.raises(ClaimError):
        references(text)


@given(st.text("x[a],()+-*/.19 maxsteplogy", max_size=40))
def test_any_text_gives_a_value_or_an_error_for_people(text: str) -> None:
    try:
        found = evaluate(text, scope())
    except (ClaimError, NoIntervalError):
        return
    assert all(one.lower <= one.upper for one in ([found] if isinstance(found, Interval) else found.values()))


def test_functions_are_closed() -> None:
    assert FUNCTIONS == (
        "abs",
        "correlation",
        "count",
        "exp",
        "log",
        "max",
        "mean",
        "min",
        "sqrt",
        "steps",
        "sum",
        "variance",
    )
