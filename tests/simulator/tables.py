"""Columns as NumPy or plain values in, an Arrow table of the declared schema out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas_schema.evidence.tables import ARROW, TABLES, ColumnSpec, Dims
from simulator.arithmetic import Array


@dataclass(frozen=True, slots=True)
class Masked:
    """Values with a validity per row."""

    values: Array
    valid: npt.NDArray[np.bool_]


Value = Any
"""What `table` takes per column: an array, `Masked`, a list of lists or of strings, a scalar to repeat, or None."""


def table(name: str, dims: Dims, n: int, columns: Mapping[str, Value]) -> pa.Table:
    """Build an evidence table of ``n`` rows of the declared schema."""
    spec = TABLES[name]
    if set(columns) != {c.name for c in spec.columns}:
        raise ValueError(f"{name}: {sorted(set(columns) ^ {c.name for c in spec.columns})}")
    return pa.table([_arrow(c, dims, columns[c.name], n) for c in spec.columns], schema=spec.arrow_schema(dims))


def _arrow(column: ColumnSpec, dims: Dims, value: Value, n: int) -> pa.Array:
    kind = column.arrow_type(dims)
    if value is None:
        return pa.nulls(n, kind)
    if isinstance(value, str | int | float):
        return pa.array([value] * n, kind)
    if column.type == "str" or column.shape == "*":
        return pa.array(list(value), kind)
    values, valid = (value.values, value.valid) if isinstance(value, Masked) else (np.asarray(value), None)
    dtype = ARROW[column.type].to_pandas_dtype()
    values = np.ascontiguousarray(values, dtype=dtype)
    mask = None if valid is None or valid.all() else ~valid
    if column.shape == "":
        return pa.array(values, kind, mask=mask)
    flat = pa.array(values.reshape(-1), ARROW[column.type])
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=None if mask is None else pa.array(mask))
