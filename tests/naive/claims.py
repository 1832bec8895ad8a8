"""What operators mean, said of plain numbers, and what digits mean, by writing numbers down. No intervals here."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import pairwise

Numbers = Mapping[str, Fraction]


def holds(operator: str, series: Numbers, *, labels: tuple[str, ...] = (), strict: bool = False, bound: Fraction = Fraction(0),
          other: Fraction = Fraction(0), side: str = "above", count: int = 1) -> bool:  # fmt: skip
    """Return whether a statement is true of the numbers. Scalars are the first value of the series."""
    values = list(series.values())
    first = values[0]
    named = [series[label] for label in labels]
    others = [v for label, v in series.items() if label not in labels]
    beyond = [v for v in values if (v > bound if side == "above" else v < bound)]
    meanings = {
        "monotone_increasing": lambda: all(a < b if strict else a <= b for a, b in pairwise(values)),
        "monotone_decreasing": lambda: all(a > b if strict else a >= b for a, b in pairwise(values)),
        "argmax_in": lambda: {k for k, v in series.items() if v == max(values)} <= set(labels),
        "argmin_in": lambda: {k for k, v in series.items() if v == min(values)} <= set(labels),
        "largest_are": lambda: all(a > b for a in named for b in others),
        "smallest_are": lambda: all(a < b for a in named for b in others),
        "ratio_at_least": lambda: first / values[1] >= bound,
        "ratio_at_most": lambda: first / values[1] <= bound,
        "greater_than": lambda: first > values[1],
        "less_than": lambda: first < values[1],
        "within": lambda: bound <= first <= other,
        "count_at_least": lambda: len(beyond) >= count,
        "count_at_most": lambda: len(beyond) <= count,
    }
    return meanings[operator]()


def write_down(number: Fraction, digits: int, reading: str) -> str:
    """Return a number with so many digits after the point, rounded (halves away from zero) or cut off."""
    scaled = number * 10**digits
    whole, rest = divmod(abs(scaled), 1)
    if reading == "rounded" and rest >= Fraction(1, 2):
        whole += 1
    text = str(int(whole)).rjust(digits + 1, "0")
    text = f"{text[:-digits]}.{text[-digits:]}" if digits else text
    return f"-{text}" if number < 0 and int(whole) else text


def by_decimal(number: Decimal, digits: int, reading: str) -> Decimal:
    """The same by the standard library."""
    return number.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP if reading == "rounded" else ROUND_DOWN)
