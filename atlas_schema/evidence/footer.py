"""The footer of a Parquet file, looked at before pyarrow is asked about a column of it.

`RowGroupMetaData.column` of pyarrow throws in C++, where nothing catches it, on a footer that contradicts itself: the whole
process ends. So what it would throw at is looked for here first: encrypted columns, a row group with other columns than the
schema, statistics of sizes that do not fit the schema. Source: parquet.thrift of apache/parquet-format.

Arrow keeps a schema of its own in the footer, and would read columns by it. Nobody gets to see that one: two writers of the
same rows keep different ones, and it could say what Parquet's schema does not.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_schema.evidence.pages import PageError, at_column
from atlas_schema.evidence.thrift import (
    I64,
    LIST,
    STRUCT,
    Budget,
    ThriftError,
    each_field,
    list_head,
    read_struct,
    read_value,
)
from atlas_schema.limits import Limits

_MAGIC, _TAIL = b"PAR1", 8
"""How a file begins and ends; bytes after the footer: its length, and the magic."""
_ARROW = b"ARROW:schema"
_GROUPS, _COLUMNS, _META_DATA, _CRYPTO, _ENCRYPTED, _SIZES = 4, 1, 3, 8, 9, 16
_PLAIN = "write the same rows without statistics of sizes: 'atlas evidence export' does"
_UNENCODED, _REPETITION, _DEFINITION = 1, 2, 3


def footer_size(stream: BinaryIO) -> int | None:
    """Return how many bytes the footer is said to take, or None where the file does not end as one of Parquet."""
    size = os.fstat(stream.fileno()).st_size
    tail = os.pread(stream.fileno(), _TAIL, max(0, size - _TAIL))
    stated = struct.unpack("<I", tail[:4])[0] if len(tail) == _TAIL and tail[4:] == _MAGIC else None
    return None if stated is None or stated + _TAIL + len(_MAGIC) > size else stated


def bare_footer(stream: BinaryIO, length: int) -> bytes:
    """Return the footer without the name under which Arrow keeps a schema of its own; equally long, all else in its place.

    Should those bytes stand elsewhere, in a name or a statistic, they are blotted out there too, for every reader alike.
    """
    raw = os.pread(stream.fileno(), length, os.fstat(stream.fileno()).st_size - _TAIL - length)
    return raw.replace(_ARROW, b"-" * len(_ARROW))


def read_metadata(raw: bytes) -> pq.FileMetaData:
    """Parse the bytes of a footer. Raises what pyarrow does."""
    return pq.read_metadata(pa.BufferReader(_MAGIC + raw + struct.pack("<I", len(raw)) + _MAGIC))


def require_sound_footer(raw: bytes, metadata: pq.FileMetaData, limits: Limits) -> None:
    """Hold the bytes of a footer to its own schema. Raises `PageError`. What it says of pages is not looked at."""
    groups, columns = metadata.num_row_groups, metadata.num_columns
    schema = metadata.schema
    levels = [schema.column(at) for at in range(columns)]
    budget = Budget(limits.footer_values + limits.group_values * groups)
    try:
        _walk(raw, groups, levels, budget, limits.column_values)
    except ThriftError as error:
        raise PageError(f"the footer cannot be read: {error}") from error


def _walk(raw: bytes, groups: int, levels: Sequence[Any], budget: Budget, most: int) -> None:
    """Look at every column of every row group, and keep none: a footer of megabytes is gigabytes of objects."""

    group = 0

    def chunks(at: int, kind: int) -> int:
        at = _counted(raw, at, kind, len(levels), "columns of a row group")
        for column in levels:
            try:
                chunk, at = read_struct(raw, at, 2, Budget(most))
                _require_chunk(chunk, column)
            except (ThriftError, PageError) as error:
                raise at_column(error, group, column.path) from error
        return at

    def row_groups(at: int, kind: int) -> int:
        nonlocal group
        at = _counted(raw, at, kind, groups, "row groups")
        for number in range(groups):
            group = number
            at = walked(at, _COLUMNS, chunks, len(levels), "columns of a row group", depth=1)
        return at

    def walked(start: int, wanted: int, inside: Callable[[int, int], int], count: int, what: str, depth: int) -> int:
        found = False

        def read(number: int, kind: int, at: int) -> int:
            nonlocal found
            budget.take(1)
            if number == wanted:
                found = True
                return inside(at, kind)
            return read_value(raw, at, kind, depth, budget)[1]

        end = each_field(raw, start, read)
        if count and not found:
            raise PageError(f"the footer does not describe {count} {what}")
        return end

    walked(0, _GROUPS, row_groups, groups, "row groups", depth=0)


def _counted(raw: bytes, at: int, kind: int, count: int, what: str) -> int:
    """Return where the first element of a list of so many structures begins."""
    inner, size, at = list_head(raw, at) if kind == LIST else (0, -1, at)
    if size != count or (count and inner != STRUCT):
        raise PageError(f"the footer does not describe {count} {what}")
    return at


def _require_chunk(chunk: dict[int, tuple[int, Any]], column: Any) -> None:
    if _CRYPTO in chunk or _ENCRYPTED in chunk:
        raise PageError(
            "the column is encrypted",
            expected="a column that anyone can read",
            todo="write the same rows without encryption",
        )
    kind, found = chunk.get(_META_DATA, (0, None))
    if kind != STRUCT:
        raise PageError("the footer does not describe the column")
    _require_sizes(found.get(_SIZES), column)


def _require_sizes(stated: tuple[int, Any] | None, column: Any) -> None:
    """Hold the statistics of sizes to the column's levels, as the decoder does."""
    if stated is None:
        return
    kind, sizes = stated
    if kind != STRUCT:
        raise PageError("statistics of sizes are not what they should be", todo=_PLAIN)
    for number, most in ((_REPETITION, column.max_repetition_level), (_DEFINITION, column.max_definition_level)):
        held, histogram = sizes.get(number, (LIST, []))
        if held != LIST or len(histogram) not in (0, most + 1):
            raise PageError(f"statistics of sizes count {len(histogram) if held == LIST else 'no'} levels",
                            expected=f"none, or {most + 1}", todo=_PLAIN)  # fmt: skip
    if _UNENCODED in sizes and (sizes[_UNENCODED][0] != I64 or column.physical_type != "BYTE_ARRAY"):
        raise PageError(
            "statistics of sizes state the bytes of texts", expected=f"none of {column.physical_type}", todo=_PLAIN
        )
