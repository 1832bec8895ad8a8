"""Numerators and denominators of the drift channels, per sampled token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.documents.contract import Form
from atlas_schema.errors import RowsError
from atlas_schema.evidence.columns import Rows
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.geometry import F64, Ints, angle, quadratic_norm, unpack_gram

CellKey = tuple[str, Form]


@dataclass(frozen=True, slots=True)
class TokenValues:
    """Numerator and denominator ``[T]`` of one channel; ``present`` is false where the token has no competitor."""

    numerator: F64
    denominator: F64
    present: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Group:
    """Update rows whose list of experts has the same length ``n``, as dense arrays.

    ``rows`` ``[G]`` are positions in the partition; ``experts``, ``rho0``, ``rho1``, ``uz*``, ``uu*`` are ``[G, n]``;
    ``gram`` ``[G, 2n, 2n]`` covers the base updates and then the changes.
    """

    rows: Ints
    experts: Ints
    rho0: F64
    rho1: F64
    uz0: F64
    uu0: F64
    uz1: F64
    uu1: F64
    gram: F64


def update_groups(update: Rows) -> list[Group]:
    """Split update rows by the number of experts they evaluate. Raises `RowsError` for inconsistent list lengths."""
    lengths = np.diff(update.offsets("experts"))
    for name in ("rho0", "rho1", "uz0", "uu0", "uz1", "uu1", "gram"):
        expected = lengths * (2 * lengths + 1) if name == "gram" else lengths
        wrong = np.flatnonzero(np.diff(update.offsets(name)) != expected)
        if len(wrong):
            at = int(wrong[0])
            raise RowsError(f"A list in update.{name} has the wrong length.", where=row_name(update, at),
                                expected=str(int(expected[at])), found=str(int(np.diff(update.offsets(name))[at])))  # fmt: skip
    return [_group(update, np.flatnonzero(lengths == n), int(n)) for n in np.unique(lengths)]


def _group(update: Rows, rows: Ints, n: int) -> Group:
    def dense(name: str, width: int) -> F64:
        starts = update.offsets(name)[:-1][rows]
        values: F64 = update[name][starts[:, None] + np.arange(width)].astype(np.float64)
        return values

    lists = {name: dense(name, n) for name in ("rho0", "rho1", "uz0", "uu0", "uz1", "uu1")}
    gram = unpack_gram(dense("gram", n * (2 * n + 1)), 2 * n)
    return Group(rows=rows, experts=dense("experts", n).astype(np.int64), gram=gram, **lists)


def coordinate(base_state: Rows, arm_state: Rows) -> TokenValues:
    """Return the native coordinate drift of paired state rows."""
    require_same_keys(base_state, arm_state)
    value = angle(base_state["z"].astype(np.float64), arm_state["z"].astype(np.float64))
    return TokenValues(value, np.ones(base_state.n), np.ones(base_state.n, dtype=np.bool_))


def same_state(update: Rows, k: int, groups: Sequence[Group] | None = None) -> dict[str, TokenValues]:
    """Return boundary, transition, chart-content and guard values of one arm's update rows.

    ``groups`` are those of `update_groups`, where they were made already.
    """
    everyone = np.ones(update.n, dtype=np.bool_)
    shared = np.bitwise_count(update["in0"] & update["in1"]).astype(np.float64)
    has_pair = update.valid("pair_in")
    jump, jump_base = np.zeros(update.n), np.zeros(update.n)
    content, content_base = np.zeros(update.n), np.zeros(update.n)
    for group in update_groups(update) if groups is None else groups:
        n = group.experts.shape[1]
        norms = np.sqrt(np.maximum(np.diagonal(group.gram, axis1=1, axis2=2), 0.0))
        content[group.rows] = (group.rho1 * norms[:, n:]).sum(axis=1)
        content_base[group.rows] = (group.rho0 * norms[:, :n]).sum(axis=1)
        change, base = _jumps(update, group)
        jump[group.rows], jump_base[group.rows] = change, base
    return {
        ids.BOUNDARY: TokenValues(1.0 - shared / k, np.ones(update.n), everyone),
        ids.TRANSITION: TokenValues(np.where(has_pair, jump, 0.0), np.where(has_pair, jump_base, 0.0), has_pair),
        ids.CONTENT: TokenValues(content, content_base, everyone),
        ids.GUARD: TokenValues(update["dy_norm"], update["y0_norm"], everyone),
    }


def _jumps(update: Rows, group: Group) -> tuple[F64, F64]:
    """Return ``||J1 - J0||`` and ``||J0||`` ``[G]`` for the base's same-state pair; zeros where there is no pair."""
    n = group.experts.shape[1]
    leaves = (group.experts == update["pair_out"][group.rows][:, None]).astype(np.float64)
    enters = (group.experts == update["pair_in"][group.rows][:, None]).astype(np.float64)
    enters *= update.valid("pair_in")[group.rows][:, None]
    direction = enters - leaves
    weight0 = update["rho0_b"][group.rows].astype(np.float64)[:, None]
    weight1 = update["rho1_b_forced"][group.rows].astype(np.float64)[:, None]
    # J1 - J0 = (w1 - w0) (v0_in - v0_out) + w1 (delta_in - delta_out): differences are formed before squaring.
    change = np.concatenate([(weight1 - weight0) * direction, weight1 * direction], axis=1)
    return quadratic_norm(group.gram, change), quadratic_norm(group.gram[:, :n, :n], weight0 * direction)


def in_form(values: TokenValues, form: Form) -> TokenValues:
    """Return token values for a form: as they are, or ``N/(N+D)`` over one per token."""
    if form == ids.SUMS:
        return values
    total = values.numerator + values.denominator
    bounded = np.divide(values.numerator, total, out=np.zeros_like(total), where=total > 0)
    return TokenValues(bounded, values.present.astype(np.float64), values.present)


def require_same_keys(a: Rows, b: Rows) -> None:
    """Raise `RowsError` unless two partitions have the same windows and positions, row by row."""
    if a.n != b.n or (a["window_id"] != b["window_id"]).any() or (a["position"] != b["position"]).any():
        raise RowsError(f"Rows of table {a.spec.name} cannot be paired.", where=f"{_run(a)} and {_run(b)}",
                            expected="the same windows and positions", found=f"{a.n} and {b.n} rows that differ")  # fmt: skip


def matching_rows(rows: Rows, keys: Rows) -> Ints:
    """Return for each row of ``keys`` the index of the row with the same window and position, or -1."""
    numbers = {text: i for i, text in enumerate(rows.columns["window_id"].texts)}

    def combined(side: Rows) -> Ints:
        column = side.columns["window_id"]
        windows = np.array([numbers.get(text, -1) for text in column.texts], dtype=np.int64)
        codes = np.zeros(0, dtype=np.int64) if column.codes is None else column.codes
        return windows[codes] * 2**17 + side["position"].astype(np.int64)

    have, want = combined(rows), combined(keys)  # rows are sorted by key, and so is what stands for it
    if not len(have):
        return np.full(len(want), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(have, want), len(have) - 1)
    return np.where(have[at] == want, at, -1).astype(np.int64)


def _run(rows: Rows) -> str:
    return str(rows["run_id"][0]) if rows.n else "an empty partition"


def row_name(rows: Rows, at: int) -> str:
    """Name one row by its key, for messages."""
    return f"table {rows.spec.name}, " + ", ".join(f"{name}={rows[name][at]}" for name in rows.spec.key)
