"""The same rows as other writers leave them: each takes a table and writes a Parquet file of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Writer = Callable[[pa.Table, Path], None]
WIDER: dict[pa.DataType, pa.DataType] = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}
"""What a writer without unsigned integers takes."""


def with_arrow(table: pa.Table, path: Path, **options: Any) -> None:
    """Write as pyarrow does."""
    pq.write_table(table, path, **options)


def retyped(change: Callable[[pa.DataType], pa.DataType], **options: Any) -> Writer:
    """Write with other Arrow types of the same values, also inside of lists."""

    def lists(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            return pa.list_(change(kind.value_type))
        return change(kind)

    def write(table: pa.Table, path: Path) -> None:
        schema = pa.schema([f.with_type(lists(f.type)).with_nullable(True) for f in table.schema])
        pq.write_table(table.cast(schema), path, **options)

    return write


def large(kind: pa.DataType) -> pa.DataType:
    """Return the type with eight bytes for an offset."""
    return pa.large_string() if pa.types.is_string(kind) else kind


def loose(table: pa.Table) -> pa.Table:
    """Return the rows with lists of any length in place of lists of fixed size."""
    kinds = [pa.list_(k.value_type) if pa.types.is_fixed_size_list(k) else k for k in table.schema.types]
    return table.cast(pa.schema([f.with_type(k).with_nullable(True) for f, k in zip(table.schema, kinds, strict=True)]))


def large_lists(table: pa.Table, path: Path) -> None:
    """Write lists and texts as the libraries do that are made for data of any size."""
    table = loose(table)
    kinds = [pa.large_list(k.value_type) if pa.types.is_list(k) else large(k) for k in table.schema.types]
    pq.write_table(table.cast(pa.schema([f.with_type(k) for f, k in zip(table.schema, kinds, strict=True)])), path)


def viewed(kind: pa.DataType) -> pa.DataType:
    """Return the type of texts that lie elsewhere."""
    return pa.string_view() if pa.types.is_string(kind) else kind


def coded(kind: pa.DataType) -> pa.DataType:
    """Return the type of categories."""
    return pa.dictionary(pa.int32(), kind) if pa.types.is_string(kind) else kind


def by_duckdb(table: pa.Table, path: Path, options: str = "") -> None:
    """Write by ``COPY``, lists as lists: of an ARRAY that is null DuckDB leaves levels that contradict its values."""
    with duckdb.connect() as connection:
        connection.register("rows_here", loose(table))
        connection.execute(f"COPY rows_here TO '{path}' (FORMAT parquet{options})")


def by_polars(table: pa.Table, path: Path, how: str = "write") -> None:
    """Write by polars, where it is installed."""
    polars = pytest.importorskip("polars")
    frame = polars.from_arrow(table)
    if how == "write":
        frame.write_parquet(path, row_group_size=5000)
    elif how == "categories":
        texts = [name for name, kind in frame.schema.items() if kind == polars.String]
        frame.with_columns(polars.col(texts).cast(polars.Categorical)).write_parquet(path)
    else:
        frame.lazy().sink_parquet(path)


WRITERS: dict[str, Writer] = {
    "polars": by_polars,
    "polars, streaming": partial(by_polars, how="sink"),
    "polars, categories": partial(by_polars, how="categories"),
    "duckdb": by_duckdb,
    "duckdb, version 2": partial(by_duckdb, options=", PARQUET_VERSION v2, COMPRESSION zstd"),
    "no Arrow schema": partial(with_arrow, store_schema=False),
    "version 1.0": partial(with_arrow, version="1.0", store_schema=False),
    "large types": retyped(large),
    "large lists": large_lists,
    "text views": retyped(viewed),
    "categories": retyped(coded),
    "no unsigned integers": retyped(lambda kind: WIDER.get(kind, kind), store_schema=False, compression="gzip"),
    "legacy lists": partial(with_arrow, store_schema=False, use_compliant_nested_type=False, data_page_version="2.0"),
}
"""Writers and settings whose files are read like those of `atlas evidence export`."""
