"""Exact intervals: a number as written stands for every number that would have been written so.

Ends are rational and either belong to the interval or do not. ``+ - * /`` are exact; ``exp``, ``log`` and ``sqrt`` are
rounded outward at 60 digits. Operands count as independent, so a result may be wider than need be, never narrower.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

from atlas_schema.documents.claim import Reading
from atlas_schema.limits import LIMITS

DIGITS = 60

_DOWN = decimal.Context(prec=DIGITS, rounding=decimal.ROUND_FLOOR, Emax=999_999, Emin=-999_999)
_UP = decimal.Context(prec=DIGITS, rounding=decimal.ROUND_CEILING, Emax=999_999, Emin=-999_999)


class NoIntervalError(ValueError):
    """The operands may lie where the operation has no finite value; whatever asked is undetermined."""


@dataclass(frozen=True, slots=True)
class Interval:
    """All numbers from ``lower`` to ``upper``; ``with_lower`` and ``with_upper`` say whether the ends are among them."""

    lower: Fraction
    upper: Fraction
    with_lower: bool = True
    with_upper: bool = True

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.lower + other.lower, self.upper + other.upper, self.with_lower and other.with_lower,
                        self.with_upper and other.with_upper)  # fmt: skip

    def __neg__(self) -> Interval:
        return Interval(-self.upper, -self.lower, self.with_upper, self.with_lower)

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        return _hull(
            (a * b, (in_a and in_b) or (a == 0 and in_a) or (b == 0 and in_b))
            for a, in_a in self.ends for b, in_b in other.ends
        )  # fmt: skip

    def __truediv__(self, other: Interval) -> Interval:
        if other.lower < 0 < other.upper or (other.lower == 0 or other.upper == 0):
            raise NoIntervalError(f"divides by {show(other)}, which holds or touches 0")
        return self * Interval(1 / other.upper, 1 / other.lower, other.with_upper, other.with_lower)

    @property
    def ends(self) -> tuple[tuple[Fraction, bool], tuple[Fraction, bool]]:
        return (self.lower, self.with_lower), (self.upper, self.with_upper)

    def above(self, other: Interval) -> bool:
        """Whether every number here is greater than every number there."""
        return self.lower > other.upper or (self.lower == other.upper and not (self.with_lower and other.with_upper))

    def not_below(self, other: Interval) -> bool:
        """Whether every number here is at least every number there."""
        return self.lower >= other.upper

    def inside(self, other: Interval) -> bool:
        """Whether every number here is one of those there."""
        return (other.lower < self.lower or (other.lower == self.lower and other.with_lower >= self.with_lower)) and (
            self.upper < other.upper or (other.upper == self.upper and other.with_upper >= self.with_upper)
        )

    def holds(self, number: Fraction) -> bool:
        """Whether a number lies here."""
        return (self.lower < number or (self.lower == number and self.with_lower)) and (
            number < self.upper or (number == self.upper and self.with_upper)
        )


def exactly(number: Fraction | int) -> Interval:
    """Return the interval of one number."""
    return Interval(Fraction(number), Fraction(number))


def written(text: str, reading: Reading) -> Interval:
    """Return every number that would be written as ``text``.

    Rounded, 13.7 is [13.65, 13.75), with halves away from zero; truncated, it is [13.7, 13.8), towards zero.
    """
    number = decimal.Decimal(text)
    stated = Fraction(number)
    unit = Fraction(10) ** int(number.as_tuple().exponent)
    if reading == "exact":
        return exactly(stated)
    below, above = (unit / 2, unit / 2) if reading == "rounded" else (Fraction(0), unit)
    if stated == 0:  # both signs are written so
        return Interval(-above, above, False, False)
    if stated > 0:
        return Interval(stated - below, stated + above, True, False)
    return Interval(stated - above, stated + below, False, True)


def least(parts: Iterable[Interval]) -> Interval:
    """Return the interval of the minimum of independent numbers."""
    return -largest(-part for part in parts)


def largest(parts: Iterable[Interval]) -> Interval:
    """Return the interval of the maximum of independent numbers."""

    def larger(a: Interval, b: Interval) -> Interval:
        # An end belongs to the maximum's interval iff, at its lower end, every part that ends there includes it.
        low, high = max(a.lower, b.lower), max(a.upper, b.upper)
        with_low = all(p.with_lower for p in (a, b) if p.lower == low)
        with_high = any(p.with_upper for p in (a, b) if p.upper == high)
        return Interval(low, high, with_low, with_high)

    return reduce(larger, parts)


def absolute(x: Interval) -> Interval:
    """Return the interval of the absolute value."""
    if x.lower >= 0:
        return x
    if x.upper <= 0:
        return -x
    top = max(-x.lower, x.upper)
    return Interval(Fraction(0), top, True, any(inside for end, inside in x.ends if abs(end) == top))


def square(x: Interval) -> Interval:
    """Return the interval of the square: one number with itself, not two."""
    size = absolute(x)
    return Interval(size.lower**2, size.upper**2, size.with_lower, size.with_upper)


def exponential(x: Interval) -> Interval:
    """Return an interval that holds ``exp`` of every number here."""
    if x.upper > LIMITS.exponent:
        raise NoIntervalError(f"exp of {show(x)} is too large")
    if x.lower < -LIMITS.exponent:
        return Interval(Fraction(0), exponential(exactly(max(x.upper, Fraction(-LIMITS.exponent)))).upper)
    return _outward(x, lambda context, number: context.exp(number))


def logarithm(x: Interval) -> Interval:
    """Return an interval that holds the natural logarithm of every number here."""
    if x.lower <= 0:
        raise NoIntervalError(f"log of {show(x)}, which holds or touches 0")
    return _outward(x, lambda context, number: context.ln(number))


def root(x: Interval) -> Interval:
    """Return an interval that holds the square root of every number here."""
    if x.lower < 0:
        raise NoIntervalError(f"sqrt of {show(x)}, which holds negative numbers")
    return _outward(x, lambda context, number: context.sqrt(number))


def bounded(x: Interval) -> Interval:
    """Return the interval, or raise `NoIntervalError` where its ends have grown too long to compute with."""
    if max(part.bit_length() for end, _ in x.ends for part in (end.numerator, end.denominator)) > LIMITS.number_bits:
        raise NoIntervalError("numbers grow too long")
    return x


def show(x: Interval) -> str:
    """Return an interval for a person: exact where short, else rounded outward to 9 digits."""
    if x.lower == x.upper:
        return _decimal(x.lower, _DOWN)
    left, right = "[" if x.with_lower else "(", "]" if x.with_upper else ")"
    return f"{left}{_decimal(x.lower, _DOWN)}, {_decimal(x.upper, _UP)}{right}"


def _decimal(number: Fraction, context: decimal.Context) -> str:
    exact = _quotient(number, _DOWN)
    if Fraction(exact) == number and len(exact.as_tuple().digits) <= 12 and -9 < exact.adjusted() < 15:
        return f"{exact.normalize(_DOWN):f}"
    short = decimal.Context(prec=9, rounding=context.rounding)
    return f"{_quotient(number, short):g}"


def _hull(corners: Iterable[tuple[Fraction, bool]]) -> Interval:
    found = list(corners)
    low, high = min(end for end, _ in found), max(end for end, _ in found)
    return Interval(low, high, any(i for end, i in found if end == low), any(i for end, i in found if end == high))


def _outward(x: Interval, function: Callable[[decimal.Context, decimal.Decimal], decimal.Decimal]) -> Interval:
    """Apply an increasing function. Its argument is rounded outward, then its result by one unit of the last digit.

    `decimal` gives the nearest number for ``exp``, ``ln`` and ``sqrt`` whatever the context's rounding. A result of 0
    (``log 1``, ``sqrt 0``) is exact; its neighbours would have a million digits.
    """
    low, high = function(_DOWN, _quotient(x.lower, _DOWN)), function(_UP, _quotient(x.upper, _UP))
    return Interval(
        Fraction(low if low.is_zero() else _DOWN.next_minus(low)),
        Fraction(high if high.is_zero() else _UP.next_plus(high)),
    )


def _quotient(number: Fraction, context: decimal.Context) -> decimal.Decimal:
    return context.divide(decimal.Decimal(number.numerator), decimal.Decimal(number.denominator))
