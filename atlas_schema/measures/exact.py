"""Sums that no order, thread, vector width or BLAS can change.

A product of small whole counts with rows of floats is exact when each row is cut into two parts of few bits: then
every partial sum is a whole multiple of one power of two, below 2^53 of them, and float64 holds it without rounding.
"""

from __future__ import annotations

import math

import numpy as np

from atlas_schema.measures.geometry import F64


def row_sums(values: F64) -> F64:
    """Return the correctly rounded sum of each row of ``[k, n]``. A row that is not finite has the sum NaN."""
    return np.array([math.fsum(row) if np.isfinite(row).all() else np.nan for row in values], dtype=np.float64)


def split(values: F64, total: int) -> F64:
    """Return ``[2k, n]``: the high parts of the rows of ``[k, n]``, then their low parts.

    Every row is rounded to ``2 * bits`` bits below its largest value, ``bits = 53 - bit_length(total)``, so that any
    whole weights of sum ``total`` at most give exact products with both halves. What is dropped is below 2^-70 of the
    row's largest value for any ``total`` below 2^18.
    """
    bits = 53 - total.bit_length()
    exponent = np.frexp(np.abs(values).max(axis=1, keepdims=True, initial=0.0))[1]
    high = np.ldexp(np.rint(np.ldexp(values, bits - exponent)), exponent - bits)
    low = np.ldexp(np.rint(np.ldexp(values - high, 2 * bits - exponent)), exponent - 2 * bits)
    return np.concatenate([high, low])


def weighted_sums(halves: F64, weights: F64) -> F64:
    """Return ``values [k, n] @ weights [n, b]`` from the halves of ``split``: two exact products, one rounding."""
    both = halves @ weights
    rows = len(halves) // 2
    out: F64 = np.add(both[:rows], both[rows:], out=both[:rows])
    return out
