"""Sums that no order, thread, vector width or BLAS can change.

A product of small whole counts with columns of floats is exact when each column is cut into two parts of few bits: then
every partial sum is a whole multiple of one power of two, below 2^53 of them, and float64 holds it without rounding.
"""

from __future__ import annotations

import math

import numpy as np

from atlas_schema.measures.geometry import F64


def column_sums(values: F64) -> F64:
    """Return the correctly rounded sum of each column of ``[n, c]``. A column that is not finite has the sum NaN."""
    return np.array([math.fsum(c) if np.isfinite(c).all() else np.nan for c in values.T], dtype=np.float64)


def split(values: F64, total: int) -> F64:
    """Return ``[n, 2k]``: high parts, then low parts, of the columns of ``[n, k]``.

    Every column is rounded to ``2 * bits`` bits below its largest value, ``bits = 53 - bit_length(total)``, so that any
    whole weights of sum ``total`` at most give exact products with both halves. What is dropped is below 2^-70 of the
    column's largest value for any ``total`` below 2^18.
    """
    bits = 53 - total.bit_length()
    exponent = np.frexp(np.abs(values).max(axis=0, initial=0.0))[1]
    high = np.ldexp(np.rint(np.ldexp(values, bits - exponent)), exponent - bits)
    low = np.ldexp(np.rint(np.ldexp(values - high, 2 * bits - exponent)), exponent - 2 * bits)
    return np.concatenate([high, low], axis=1)


def weighted_sums(weights: F64, halves: F64) -> F64:
    """Return ``weights [b, n] @ values [n, k]`` from the halves of ``split``: two exact products, one rounding."""
    both = weights @ halves
    columns = halves.shape[1] // 2
    out: F64 = np.add(both[:, :columns], both[:, columns:])
    return out
