"""Rows of an evidence table as plain dictionaries."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from os import PathLike
from typing import Any

Row = Mapping[str, Any]
"""One row: column name to value. Lists are Python lists, nulls are None, floats are Python floats."""


def read_rows(path: str | PathLike[str]) -> list[Row]:
    """All rows of one Parquet file, in file order. Checks nothing about columns or values."""
    parquet: Any = importlib.import_module("pyarrow.parquet")
    rows: list[Row] = parquet.read_table(path).to_pylist()
    return rows
