"""Intervals on a coarse grid, so that ends meet often, and numbers inside them."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from atlas_schema.claims.interval import Interval, exactly

GRID = 4
"""Steps of the grid between whole numbers."""
EPSILON = Fraction(1, 1000)
"""Far less than the grid: distances by which open ends are approached."""


@st.composite
def intervals(draw: st.DrawFn, low: int = -3, high: int = 3) -> Interval:
    """Draw an interval; a quarter of them are single numbers."""
    a, b = sorted(Fraction(draw(st.integers(low * GRID, high * GRID)), GRID) for _ in range(2))
    if a == b:
        return exactly(a)
    return Interval(a, b, draw(st.booleans()), draw(st.booleans()))


@st.composite
def points_in(draw: st.DrawFn, x: Interval) -> Fraction:
    """Draw a number of the interval."""
    return draw(st.sampled_from(seldom(x)))


def seldom(x: Interval, near: int = 4) -> list[Fraction]:
    """Return numbers of the interval that decide most questions: the ends, some just inside them, and the middle."""
    close = [end + sign * k * EPSILON for end, sign in ((x.lower, 1), (x.upper, -1)) for k in range(near)]
    return sorted({p for p in [*close, (x.lower + x.upper) / 2] if x.holds(p)})


@st.composite
def widened(draw: st.DrawFn, x: Interval) -> Interval:
    """Draw an interval that holds another."""
    below, above = (Fraction(draw(st.integers(0, 2 * GRID)), GRID) for _ in range(2))
    return Interval(x.lower - below, x.upper + above, x.with_lower or draw(st.booleans()) or below > 0,
                    x.with_upper or draw(st.booleans()) or above > 0)  # fmt: skip
