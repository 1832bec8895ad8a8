"""What each operator says of intervals: supported where every choice of numbers inside them obeys it, contradicted where
none does, undetermined between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

from atlas_schema.claims.expression import ClaimError, Scope, Vector, number, vector
from atlas_schema.claims.interval import Interval, NoIntervalError, largest, least, show, written
from atlas_schema.documents.claim import (
    BeyondRecord,
    Comparison,
    Counting,
    Equals,
    Extreme,
    Monotone,
    Outermost,
    Ratio,
    Statement,
    Within,
)


class Outcome(Enum):
    """A truth value of Kleene's strong logic."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome and the numbers that gave it, for a person."""

    outcome: Outcome
    because: str


def wording(statement: Statement) -> str:
    """Return what is checked, in one line: the operator and its operands, as the document states them."""
    if isinstance(statement, BeyondRecord):
        return "nothing: beyond_record"
    operands = [f"{name} {_operand(value)}" for name, value in statement.model_dump().items() if name != "operator"]
    return f"{statement.operator}: {'; '.join(operands)}"


def _operand(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """Return Kleene's conjunction; supported where there is nothing."""
    found = set(outcomes)
    for worst in (Outcome.CONTRADICTED, Outcome.UNDETERMINED):
        if worst in found:
            return worst
    return Outcome.SUPPORTED


def some(outcomes: Iterable[Outcome]) -> Outcome:
    """Return Kleene's disjunction; contradicted where there is nothing."""
    found = set(outcomes)
    for best in (Outcome.SUPPORTED, Outcome.UNDETERMINED):
        if best in found:
            return best
    return Outcome.CONTRADICTED


def judge(statement: Statement, scope: Scope) -> Result:
    """Evaluate a statement. Raises `ClaimError` where it cannot be read or asks for what is not there."""
    try:
        return _judge(statement, scope)
    except NoIntervalError as error:
        return Result(Outcome.UNDETERMINED, str(error))


def _judge(statement: Statement, scope: Scope) -> Result:
    match statement:
        case Monotone():
            return _monotone(statement, vector(statement.series, scope))
        case Extreme() | Outermost():
            return _set_apart(statement, vector(statement.series, scope))
        case Ratio():
            ratio = number(statement.numerator, scope) / number(statement.denominator, scope)
            bound = number(statement.bound, scope)
            low, high = (bound, ratio) if statement.operator == "ratio_at_least" else (ratio, bound)
            return Result(_not_above(low, high), f"the ratio is {show(ratio)}, the bound {show(bound)}")
        case Comparison():
            left, right = number(statement.left, scope), number(statement.right, scope)
            large, small = (left, right) if statement.operator == "greater_than" else (right, left)
            return Result(_above(large, small), f"left is {show(left)}, right {show(right)}")
        case Within():
            return _within(statement, scope)
        case Equals():
            found, stated = number(statement.expression, scope), written(statement.stated, statement.reading)
            return Result(_inside(found, stated), f"the expression is {show(found)}; {statement.stated}, "
                          f"{statement.reading}, is {show(stated)}")  # fmt: skip
        case Counting():
            return _counting(statement, scope)
        case BeyondRecord():
            return Result(Outcome.UNDETERMINED, f"no value of the record bears on it; needed: {statement.needs}")


def _outcome(always: bool, never: bool) -> Outcome:
    return Outcome.SUPPORTED if always else Outcome.CONTRADICTED if never else Outcome.UNDETERMINED


def _above(a: Interval, b: Interval) -> Outcome:
    """a > b"""
    return _outcome(a.above(b), b.not_below(a))


def _not_above(a: Interval, b: Interval) -> Outcome:
    """a <= b"""
    return _outcome(b.not_below(a), a.above(b))


def _inside(found: Interval, stated: Interval) -> Outcome:
    return _outcome(found.inside(stated), found.above(stated) or stated.above(found))


def _monotone(statement: Monotone, values: Vector) -> Result:
    """Every neighbouring pair must be in order; one pair out of order, neighbours or not, decides against."""
    rising = statement.operator == "monotone_increasing"
    labels = list(values)
    outcomes: list[Outcome] = []
    against: list[str] = []
    top = labels[0]
    for before, label in pairwise(labels):
        outcomes.append(_ordered(values[before], values[label], rising, statement.strict))
        # The most extreme value so far: whatever contradicts anything before, contradicts it.
        top = _further(top, before, values, rising)
        if _ordered(values[top], values[label], rising, statement.strict) is Outcome.CONTRADICTED:
            outcomes.append(Outcome.CONTRADICTED)
            against.append(f"{label} {show(values[label])} after {top} {show(values[top])}")
    outcome = every(outcomes)
    if outcome is Outcome.CONTRADICTED:
        return Result(outcome, f"{'falls' if rising else 'rises'} at {'; '.join(against[:6])}")
    unsure = sum(o is Outcome.UNDETERMINED for o in outcomes)
    return Result(outcome, f"{unsure} of {len(labels) - 1} neighbouring pairs cannot be told apart"
                  if unsure else f"all {len(labels) - 1} neighbouring pairs are in order")  # fmt: skip


def _ordered(before: Interval, after: Interval, rising: bool, strict: bool) -> Outcome:
    low, high = (before, after) if rising else (after, before)
    return _above(high, low) if strict else _not_above(low, high)


def _further(a: str, b: str, values: Vector, rising: bool) -> str:
    """Return the label whose near end is further along; of equal ends, the one that excludes its end."""
    x, y = (values[a], values[b]) if rising else (-values[a], -values[b])
    return b if (y.lower, not y.with_lower) >= (x.lower, not x.with_lower) else a


def _set_apart(statement: Extreme | Outermost, values: Vector) -> Result:
    """The named values lie beyond all others: one of them for an extreme, all of them for the outermost."""
    missing = [label for label in statement.labels if label not in values]
    if missing:
        raise ClaimError("A statement names a label that its series does not have.", found=", ".join(missing[:10]),
                         expected=f"some of {', '.join(list(values)[:40])}", todo="record the value, or withdraw the claim")  # fmt: skip
    named = {label: values[label] for label in statement.labels}
    others = {label: part for label, part in values.items() if label not in named}
    if not others:
        return Result(Outcome.SUPPORTED, "the labels are the whole series")
    high = statement.operator in ("argmax_in", "largest_are")
    far, near = (largest, least) if high else (least, largest)
    inner = far(named.values()) if isinstance(statement, Extreme) else near(named.values())
    outer = far(others.values())
    which = "largest" if high else "smallest"
    rival = max(others, key=lambda label: others[label].upper if high else -others[label].lower)
    said = f"the {which} named is" if isinstance(statement, Extreme) else "the named reach to"
    return Result(_above(inner, outer) if high else _above(outer, inner),
                  f"{said} {show(inner)}, the {which} of the others {show(outer)} ({rival})")  # fmt: skip


def _within(statement: Within, scope: Scope) -> Result:
    value, low, high = (number(e, scope) for e in (statement.value, statement.lower, statement.upper))
    outcome = every((_not_above(low, value), _not_above(value, high), _not_above(low, high)))
    return Result(outcome, f"the value is {show(value)}, the bounds {show(low)} and {show(high)}")


def _counting(statement: Counting, scope: Scope) -> Result:
    values, bound = vector(statement.series, scope), number(statement.bound, scope)
    sides = [_above(v, bound) if statement.side == "above" else _above(bound, v) for v in values.values()]
    sure, possible = sides.count(Outcome.SUPPORTED), len(sides) - sides.count(Outcome.CONTRADICTED)
    outcome = (
        _outcome(sure >= statement.count, possible < statement.count)
        if statement.operator == "count_at_least"
        else _outcome(possible <= statement.count, sure > statement.count)
    )
    counted = f"{sure}" if sure == possible else f"{sure} to {possible}"
    return Result(outcome, f"{counted} of {len(sides)} values lie {statement.side} {show(bound)}")
