"""Stored update vectors against Gram matrices and states (R023), and the base's between runs (R130)."""

from __future__ import annotations

import numpy as np

from atlas_schema.documents.contract import Tolerances
from atlas_schema.errors import RowsError
from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.drift import matching_rows, row_name
from atlas_schema.measures.geometry import F64, Ints, unpack_gram
from atlas_schema.verify.physics.violations import Violation, first_false, first_wrong

CHUNK_BYTES = 8 * 2**20
"""Widened vectors that are held at a time."""


def check_vectors(vectors: Rows, update: Rows, z: F64, tolerances: Tolerances, *, equal: bool) -> list[Violation]:
    """Check ``v0`` and ``v1`` ``[n, d]`` of each row; ``z`` ``[T, d]`` are the states of ``update``.

    Vectors are stored in float32, so an inner product is known to ``A u`` of the norms. ``equal``: both models have the same
    tensors. Raises `RowsError` for lists of the wrong length. Says nothing of a rotation that keeps all inner products.
    """
    at = matching_rows(update, vectors)
    if (at < 0).any():
        missing = int(np.flatnonzero(at < 0)[0])
        return [Violation("ATL-R023", "a vector has no row in table update", row_name(vectors, missing), "", "")]
    d, lengths = z.shape[1], np.diff(update.offsets("experts"))[at]
    for name in ("v0", "v1"):
        wrong = np.flatnonzero(np.diff(vectors.offsets(name)) != lengths * d)
        if len(wrong):
            row = int(wrong[0])
            raise RowsError(f"A list in update_vector.{name} has the wrong length.", where=row_name(vectors, row),
                            expected=str(int(lengths[row]) * d), found=str(int(np.diff(vectors.offsets(name))[row])))  # fmt: skip
    found: list[Violation] = []
    for n in np.unique(lengths):
        rows = np.flatnonzero(lengths == n)
        step = max(1, CHUNK_BYTES // (32 * int(n) * d))
        for start in range(0, len(rows), step):
            found += _check(vectors, rows[start : start + step], update, at, z, int(n), tolerances, equal)
    return found


def base_vectors(vectors: Rows, update: Rows, top: Ints) -> F64:
    """Return the base's stored vectors ``[n, m, d]`` of the experts ``top`` ``[T, m]`` of each row's update, all listed there."""
    at, lengths = matching_rows(update, vectors), np.diff(vectors.offsets("v0"))
    listed = np.diff(update.offsets("experts"))[at]
    d = int(lengths[0] // listed[0]) if vectors.n else 0
    out = np.zeros((vectors.n, top.shape[1], d))
    for n in np.unique(listed):
        rows = np.flatnonzero(listed == n)
        experts = update["experts"][update.offsets("experts")[:-1][at[rows]][:, None] + np.arange(n)]
        slot = (experts[:, None, :] == top[at[rows]][:, :, None]).argmax(axis=2)
        v0 = vectors.take(rows)["v0"].reshape(len(rows), int(n), d)
        out[rows] = v0[np.arange(len(rows))[:, None], slot]
    return out


def _check(
    vectors: Rows, rows: np.ndarray, update: Rows, at: np.ndarray, z: F64, n: int, tolerances: Tolerances, equal: bool
) -> list[Violation]:
    d, part, own = z.shape[1], vectors.take(rows), at[rows]
    v0, v1 = (part[name].reshape(len(rows), n, d).astype(np.float64) for name in ("v0", "v1"))
    found: list[Violation] = []
    if equal:
        found += first_false(
            "ATL-R023",
            "v0 and v1 differ although every tensor is equal",
            part,
            (v0 == v1).all(axis=(1, 2)),
            v1[:, 0, 0],
        )
    starts = update.offsets("gram")[:-1][own]
    gram = unpack_gram(update["gram"][starts[:, None] + np.arange(n * (2 * n + 1))].astype(np.float64), 2 * n)
    unit = tolerances.accumulation * tolerances.float32_unit
    size0, size1 = np.linalg.norm(v0, axis=2), np.linalg.norm(v1, axis=2)
    both = np.concatenate([v0, v1 - v0], axis=1)
    size = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0))
    error = unit * np.concatenate([size0, size0 + size1], axis=1)
    allowed = (
        error[:, :, None] * size[:, None, :]
        + size[:, :, None] * error[:, None, :]
        + error[:, :, None] * error[:, None, :]
    )
    found += first_wrong("ATL-R023", "inner products of the vectors are not those of the Gram matrix", part,
                         both @ both.transpose(0, 2, 1), gram, allowed + 1e-300)  # fmt: skip
    states = z[own]
    squared = np.einsum("td,td->t", states, states)[:, None]
    slots = update.offsets("experts")[:-1][own][:, None] + np.arange(n)
    for side, v, length in (("0", v0, size0), ("1", v1, size1)):
        along = update[f"uz{side}"][slots]
        allowed = unit * length * np.sqrt(squared) + tolerances.float64_relative * np.abs(along) + 1e-300
        found += first_wrong("ATL-R023", f"v{side} is not tangent as its update's part along the state says", part,
                             (v @ states[:, :, None])[:, :, 0], along * (1.0 - squared / d), allowed)  # fmt: skip
    return found
