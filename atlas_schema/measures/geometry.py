"""Geometry of one routed layer: angles, orderings, packed Gram matrices, tangent norms. Arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]


def row_norms(a: F64) -> F64:
    """Return the Euclidean norm of every row ``[T]``, without the temporaries of a general norm."""
    out: F64 = np.sqrt(np.einsum("td,td->t", a, a))
    return out


def angle(a: F64, b: F64) -> F64:
    """Return the angle between paired rows of ``a`` and ``b`` ``[T, d]``, in units of pi: 0 same, 0.5 orthogonal, 1 opposite.

    The half-angle form keeps full precision for tiny angles, where ``arccos`` loses half the digits.
    """
    u, v = a / row_norms(a)[:, None], b / row_norms(b)[:, None]
    out: F64 = 2.0 * np.arctan2(row_norms(u - v), row_norms(u + v)) / np.pi
    return out


def ranking(scores: npt.NDArray[np.floating]) -> Ints:
    """Return expert ids ``[T, E]`` by descending score; ties go to the lower id."""
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable").astype(np.int64)


def softmax(logits: F64) -> F64:
    """Return softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out: F64 = shifted / shifted.sum(axis=-1, keepdims=True)
    return out


def member_masks(members: npt.NDArray[np.integer[Any]], experts: int) -> Masks:
    """Return the sets ``[T, k]`` of ids below ``experts`` as bits ``[T, ceil(E / 64)]``."""
    ids = members.astype(np.int64)
    bit = np.uint64(1) << (ids % 64).astype(np.uint64)
    words = [
        np.bitwise_or.reduce(np.where(ids // 64 == w, bit, np.uint64(0)), axis=1) for w in range(-(-experts // 64))
    ]
    return np.stack(words, axis=1)


def unpack_gram(packed: F64, size: int) -> F64:
    """Return symmetric matrices ``[T, size, size]`` from packed upper triangles ``[T, size * (size + 1) / 2]``."""
    full = np.zeros((len(packed), size, size))
    upper = np.triu_indices(size)
    full[:, upper[0], upper[1]] = packed
    full[:, upper[1], upper[0]] = packed
    return full


def quadratic_norm(gram: F64, coefficients: F64) -> F64:
    """Return ``||sum_i c_i x_i||`` for coefficients ``[T, m]`` and Gram matrices ``[T, m, m]`` of the vectors ``x``.

    Each row is summed by itself, in an order that does not depend on how many rows there are (`einsum` picks one that does).
    """
    squared = ((gram * coefficients[:, None, :]).sum(axis=2) * coefficients).sum(axis=1)
    out: F64 = np.sqrt(np.maximum(squared, 0.0))
    return out


def tangent_squared(uu: F64, uz: F64, zz: F64, d: int) -> F64:
    """Return ``||u - z <u,z>/d||²`` from ``||u||²``, ``<u,z>`` and ``||z||²`` (RMS normalisation)."""
    return uu - uz**2 * (2.0 / d - zz / d**2)
