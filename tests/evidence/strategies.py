"""Strategies for arbitrary rows of every evidence table, and small helpers around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from naive import merkle
from simulator import MemorySource

from atlas_schema.evidence.source import table_root
from atlas_schema.evidence.tables import TABLES, ColumnSpec, Dims

Row = dict[str, Any]

DIMS = Dims(d=3, E=4, k=2, P=2)

FEWER = settings(max_examples=max(1, settings().max_examples // 5))
"""For tests that run once per table."""

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "str": _TEXT,
    "u8": st.integers(0, 2**8 - 1),
    "u16": st.integers(0, 2**16 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "f32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "f64": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
}
_KEYS: dict[str, st.SearchStrategy[Any]] = {
    **_SCALARS,
    "u16": st.integers(0, 3),
    "str": st.sampled_from(["a", "b", "é", "😀", "~"]),
}


def value_of(column: ColumnSpec, dims: Dims = DIMS) -> st.SearchStrategy[Any]:
    """Return a strategy of values of one column."""
    scalar = _SCALARS[column.type]
    made = scalar
    if column.shape == "*":
        made = st.lists(scalar, max_size=4)
    elif column.shape:
        made = st.lists(scalar, min_size=dims.of(column.shape), max_size=dims.of(column.shape))
    return st.none() | made if column.nullable else made


def rows_of(name: str, *, min_size: int = 0, max_size: int = 6) -> st.SearchStrategy[list[Row]]:
    """Return a strategy of rows of one table with unique keys; key values repeat often: leaves have several rows."""
    spec = TABLES[name]
    row = st.fixed_dictionaries({c.name: _KEYS[c.type] if c.name in spec.key else value_of(c) for c in spec.columns})
    return st.lists(row, min_size=min_size, max_size=max_size, unique_by=lambda r: tuple(r[key] for key in spec.key))


def arrow(name: str, rows: Sequence[Mapping[str, Any]], dims: Dims = DIMS) -> pa.Table:
    """Return rows as an Arrow table of the declared schema."""
    schema = TABLES[name].arrow_schema(dims)
    return pa.table([pa.array([row[f.name] for row in rows], f.type) for f in schema], schema=schema)


def root(name: str, table: pa.Table, dims: Dims = DIMS) -> str:
    """Return the package's root of one table."""
    return table_root(MemorySource({name: table}, dims), name).root


def naive_columns(name: str, dims: Dims = DIMS) -> list[merkle.ColumnSpec]:
    sizes = {"d": dims.d, "E": dims.E, "k": dims.k, "P": dims.P}
    return [(c.name, c.type, merkle.resolve_shape(c.shape, sizes), c.nullable) for c in TABLES[name].columns]


def naive_root(name: str, rows: Sequence[Mapping[str, Any]], dims: Dims = DIMS) -> str:
    """Return the oracle's root of one table."""
    spec = TABLES[name]
    return "sha256:" + merkle.table_root(name, naive_columns(name, dims), spec.key, spec.leaf, rows).hex()
