"""The footer of a Parquet file, looked at before pyarrow is asked about a column of it.

`RowGroupMetaData.column` of pyarrow throws in C++, where nothing catches it, on a footer that contradicts itself: the whole
process ends. So what it would throw at is looked for here first: encrypted columns, a row group with other columns than the
schema, statistics of sizes that do not fit the schema. Source: parquet.thrift of apache/parquet-format.
"""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from atlas_schema.evidence.pages import PageError
from atlas_schema.evidence.thrift import I64, LIST, STRUCT, Budget, ThriftError, read_struct

_TAIL = 8
"""Bytes after the footer: its length, and the magic."""
_VALUES, _PER_CHUNK = 4096, 256
"""Fields and elements of a footer, and of each column of each row group in it; writers need a fifth of that."""
_GROUPS, _COLUMNS, _META_DATA, _CRYPTO, _ENCRYPTED, _SIZES = 4, 1, 3, 8, 9, 16
_UNENCODED, _REPETITION, _DEFINITION = 1, 2, 3


def require_sound_footer(stream: BinaryIO, metadata: pq.FileMetaData) -> None:
    """Hold the footer to its own schema. Raises `PageError`. What it says of pages is not looked at."""
    size = os.fstat(stream.fileno()).st_size
    (length,) = struct.unpack("<I", os.pread(stream.fileno(), 4, max(0, size - _TAIL)))
    raw = os.pread(stream.fileno(), length, max(0, size - _TAIL - length))
    groups, columns = metadata.num_row_groups, metadata.num_columns
    try:
        footer, _ = read_struct(raw, lists=Budget(_VALUES + _PER_CHUNK * groups * columns))
    except ThriftError as error:
        raise PageError(f"the footer cannot be read: {error}") from error
    schema = metadata.schema
    levels = [schema.column(at) for at in range(columns)]
    stated = _structs(footer, _GROUPS, groups, "row groups")
    for group in stated:
        for chunk, column in zip(_structs(group, _COLUMNS, columns, "columns of a row group"), levels, strict=True):
            if _CRYPTO in chunk or _ENCRYPTED in chunk:
                raise PageError("a column is encrypted")
            kind, found = chunk.get(_META_DATA, (0, None))
            if kind != STRUCT:
                raise PageError("a column of a row group is not described")
            _require_sizes(found.get(_SIZES), column)


def _require_sizes(stated: tuple[int, Any] | None, column: Any) -> None:
    """Hold the statistics of sizes to the column's levels, as the decoder does."""
    if stated is None:
        return
    kind, sizes = stated
    if kind != STRUCT:
        raise PageError("statistics of sizes are not what they should be")
    for number, most in ((_REPETITION, column.max_repetition_level), (_DEFINITION, column.max_definition_level)):
        held, histogram = sizes.get(number, (LIST, []))
        if held != LIST or len(histogram) not in (0, most + 1):
            raise PageError("statistics of sizes do not fit the schema")
    if _UNENCODED in sizes and (sizes[_UNENCODED][0] != I64 or column.physical_type != "BYTE_ARRAY"):
        raise PageError("statistics of sizes do not fit the schema")


def _structs(
    fields: dict[int, tuple[int, Any]], number: int, count: int, what: str
) -> list[dict[int, tuple[int, Any]]]:
    kind, found = fields.get(number, (LIST, []))
    if kind != LIST or len(found) != count or not all(isinstance(entry, dict) for entry in found):
        raise PageError(f"the footer does not describe {count} {what}")
    return list(found)
