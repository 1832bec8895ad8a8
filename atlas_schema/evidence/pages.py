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
_LEAST_PLAIN = 4
"""Bytes of the smallest entry of a dictionary: a 32-bit number, or a text's length."""
_FIRST_READ, _HEADER_BYTES = 512, LIMITS.page_header_bytes
"""How much of a header is read at first, which is nearly always enough, and at most."""


class PageError(ValueError):
    """Pages that contradict each other or the footer, or that are of a kind that is not read."""


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
            raise PageError(f"more than {most} pages in one file")
        size, held = _required(header, 2), _required(body, 1)
        encoding = _required(body, 4 if kind == DATA_V2 else 2)
        if size < 0 or held < 0:
            raise PageError("a page has a negative size or count")
        if encoding not in ENCODINGS:
            raise PageError(f"a page has encoding {encoding}, which is not read")
        if kind == DICTIONARY:
            if count != 1 or not 0 <= held * _LEAST_PLAIN <= size:
                raise PageError("a dictionary does not stand first, or has more entries than its bytes can hold")
            dictionary = size
        else:
            values, data = values + held, data + size
    if values != chunk.values:
        raise PageError(f"pages hold {values} values, the footer says {chunk.values}")
    return Pages(count, data, dictionary)


def _headers(
    descriptor: int, chunk: Chunk
) -> Iterator[tuple[int, dict[int, tuple[int, Any]], dict[int, tuple[int, Any]]]]:
    at, end = chunk.start, chunk.start + chunk.length
    while at < end:
        header, size = _header(descriptor, at, end)
        kind, packed = _required(header, 1), _required(header, 3)
        if kind not in _BODY:
            raise PageError(f"a page is of kind {kind}, which is not read")
        if packed < 0 or at + size + packed > end:
            raise PageError("a page reaches beyond its column")
        body = header.get(_BODY[kind])
        if (
            body is None
            or body[0] != STRUCT
            or any(other in header for other in _BODY.values() if other != _BODY[kind])
        ):
            raise PageError("a page header is not of its kind")
        yield kind, header, body[1]
        at += size + packed


def _header(descriptor: int, at: int, end: int) -> tuple[dict[int, tuple[int, Any]], int]:
    for most in (_FIRST_READ, _HEADER_BYTES):
        try:
            return read_struct(os.pread(descriptor, min(most, end - at), at))
        except TruncatedError as error:
            if most == _HEADER_BYTES:
                raise PageError("a page header ends before it is complete") from error
        except ThriftError as error:
            raise PageError(f"a page header cannot be read: {error}") from error
    raise PageError(f"a page header is longer than {_HEADER_BYTES} bytes")


def _required(fields: dict[int, tuple[int, Any]], number: int) -> int:
    kind, value = fields.get(number, (0, 0))
    if kind != I32:
        raise PageError(f"field {number} of a page header is missing")
    return int(value)
