"""Walks the page headers of a Parquet file: what a reader will allocate, known before it decodes anything.

The footer states sizes and counts; the headers of the pages are what a decoder believes. Here they must agree. Source:
parquet.thrift of apache/parquet-format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atlas_schema.evidence.thrift import I32, STRUCT, ThriftError, TruncatedError, read_struct
from atlas_schema.limits import LIMITS

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
_BODY = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 5: "DELTA_BINARY_PACKED", 6: "DELTA_LENGTH_BYTE_ARRAY",
             8: "RLE_DICTIONARY", 9: "BYTE_STREAM_SPLIT"}  # fmt: skip
"""Encodings that are read. DELTA_BYTE_ARRAY is not: each text repeats a prefix of the last, so few bytes become many."""
UNREAD = {4: "BIT_PACKED", 7: "DELTA_BYTE_ARRAY"}
"""Names of encodings that are not."""
_LEAST_PLAIN = 4
"""Bytes of the smallest entry of a dictionary: a 32-bit number, or a text's length."""
_FIRST_READ, _HEADER_BYTES = 512, LIMITS.page_header_bytes
"""How much of a header is read at first, which is nearly always enough, and at most."""


class PageError(ValueError):
    """Pages that contradict each other or the footer, or that are of a kind that is not read.

    The message is what was found. ``where`` is the row group and the column, known to whoever asked for them.
    """

    def __init__(self, found: str, *, expected: str = "", todo: str = "", where: str = "") -> None:
        self.expected, self.todo, self.where = expected, todo, where
        super().__init__(found)


def at_column(error: ThriftError | PageError, group: int, column: str) -> PageError:
    """Return the error with its place."""
    told = error if isinstance(error, PageError) else PageError(f"its description cannot be read: {error}")
    told.where = told.where or f"row group {group}, column {column}"
    return told


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one row group, as the footer states it: byte range and number of values."""

    start: int
    length: int
    values: int


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages of a chunk hold: their number, bytes once decompressed, and those of the dictionary among them."""

    count: int
    data_bytes: int
    dictionary_bytes: int


def walk(descriptor: int, chunk: Chunk, most: int, before: int = 0) -> Pages:
    """Read every page header of a chunk. Raises `PageError` where they do not add up to the footer's.

    ``most`` pages may stand in the file, and ``before`` of them stood in other chunks.
    """
    values = data = dictionary = count = 0
    for kind, header, body in _headers(descriptor, chunk):
        count += 1
        if before + count > most:
            raise PageError(f"more than {most} pages in one file", expected=f"at most {most}",
                            todo="write it with larger pages: 'atlas evidence export' does")  # fmt: skip
        size, held = _required(header, 2), _required(body, 1)
        encoding = _required(body, 4 if kind == DATA_V2 else 2)
        if size < 0 or held < 0:
            raise PageError(f"a page of {size} bytes and {held} values", expected="no negative numbers")
        if encoding not in ENCODINGS:
            raise PageError(f"a page has encoding {UNREAD.get(encoding, encoding)}, which is not read",
                            expected=f"one of {', '.join(ENCODINGS.values())}",
                            todo="write the same rows in one of these encodings: 'atlas evidence export' does")  # fmt: skip
        if kind == DICTIONARY:
            if count != 1 or not 0 <= held * _LEAST_PLAIN <= size:
                raise PageError(f"page {count} is a dictionary of {held} entries in {size} bytes",
                                expected=f"a dictionary as the first page, each entry of {_LEAST_PLAIN} bytes or more")  # fmt: skip
            dictionary = size
        else:
            values, data = values + held, data + size
    if values != chunk.values:
        raise PageError(f"its pages hold {values} values", expected=f"{chunk.values} values, as the footer says")
    return Pages(count, data, dictionary)


def _headers(
    descriptor: int, chunk: Chunk
) -> Iterator[tuple[int, dict[int, tuple[int, Any]], dict[int, tuple[int, Any]]]]:
    at, end = chunk.start, chunk.start + chunk.length
    while at < end:
        header, size = _header(descriptor, at, end)
        kind, packed = _required(header, 1), _required(header, 3)
        if kind not in _BODY:
            raise PageError(f"a page is of kind {kind}, which is not read", expected="data pages and one dictionary page",
                            todo="write the same rows without index pages: 'atlas evidence export' does")  # fmt: skip
        if packed < 0 or at + size + packed > end:
            raise PageError(
                f"a page of {packed} bytes at {at + size} reaches beyond its column",
                expected=f"an end at {end} or before",
            )
        body = header.get(_BODY[kind])
        if (
            body is None
            or body[0] != STRUCT
            or any(other in header for other in _BODY.values() if other != _BODY[kind])
        ):
            raise PageError(
                "a page header is not of its kind", expected=f"what describes a page of kind {kind}, and nothing else"
            )
        yield kind, header, body[1]
        at += size + packed


def _header(descriptor: int, at: int, end: int) -> tuple[dict[int, tuple[int, Any]], int]:
    for most in (_FIRST_READ, _HEADER_BYTES):
        try:
            return read_struct(os.pread(descriptor, min(most, end - at), at))
        except TruncatedError as error:
            if most == _HEADER_BYTES:
                raise PageError("a page header ends before it is complete", expected=f"at most {_HEADER_BYTES} bytes",
                                todo="write the same rows without statistics in the headers of pages") from error  # fmt: skip
        except ThriftError as error:
            raise PageError(f"a page header cannot be read: {error}") from error
    raise PageError(f"a page header is longer than {_HEADER_BYTES} bytes")


def _required(fields: dict[int, tuple[int, Any]], number: int) -> int:
    kind, value = fields.get(number, (0, 0))
    if kind != I32:
        raise PageError(f"field {number} of a page header is missing")
    return int(value)
