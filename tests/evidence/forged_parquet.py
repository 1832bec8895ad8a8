"""A Parquet writer that lies where it is told to: table `task`, every header field open to forgery.

Pages are dictionary-encoded runs, so that a page of a dozen bytes stands for any number of rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

Field = tuple[str, Any]
_TYPES = {"bool": 1, "i32": 5, "i64": 6, "binary": 8, "list": 9, "struct": 12}
ZSTD, RAW = 6, 0


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint(2 * value if value >= 0 else -2 * value - 1)


def thrift(fields: dict[int, Field]) -> bytes:
    """Encode a structure in Thrift's compact protocol."""
    out, last = b"", 0
    for number, (kind, value) in sorted(fields.items()):
        near = 0 < number - last < 16
        out += bytes([(number - last) << 4 | _TYPES[kind]]) if near else bytes([_TYPES[kind]]) + zigzag(number)
        out += _value(kind, value)
        last = number
    return out + b"\0"


def _value(kind: str, value: Any) -> bytes:
    if kind in ("i32", "i64"):
        return zigzag(value)
    if kind == "binary":
        return varint(len(value)) + bytes(value)
    if kind == "struct":
        return thrift(value)
    if kind == "bool":
        return b""
    inner, items = value
    size = (
        bytes([len(items) << 4 | _TYPES[inner]])
        if len(items) < 15
        else bytes([0xF0 | _TYPES[inner]]) + varint(len(items))
    )
    return size + b"".join(_value(inner, item) for item in items)


@dataclass
class Column:
    """One column: ``rows`` times the same value. What is not None or empty overrides the honest header."""

    name: str
    plain: bytes
    physical: int
    text: bool
    rows: int
    codec: int = RAW
    page_values: int | None = None
    page_size: int | None = None
    dictionary_entries: int | None = None
    data_encoding: int = 8
    page_kind: int = 0
    footer: dict[int, Field] = field(default_factory=dict)
    chunk: dict[int, Field] = field(default_factory=dict)
    header: dict[int, Field] = field(default_factory=dict)

    def pages(self) -> tuple[bytes, bytes]:
        run = bytes([1]) + varint(self.rows << 1) + b"\0"
        packed = [
            pa.Codec("zstd").compress(part, asbytes=True) if self.codec == ZSTD else part for part in (self.plain, run)
        ]
        entries = 1 if self.dictionary_entries is None else self.dictionary_entries
        dictionary = thrift({1: ("i32", 2), 2: ("i32", len(self.plain)), 3: ("i32", len(packed[0])),
                             7: ("struct", {1: ("i32", entries), 2: ("i32", 0)}), **self.header})  # fmt: skip
        held = self.rows if self.page_values is None else self.page_values
        body = {1: ("i32", held), 2: ("i32", self.data_encoding), 3: ("i32", 3), 4: ("i32", 3)}
        size = len(run) if self.page_size is None else self.page_size
        data = thrift(
            {
                1: ("i32", self.page_kind),
                2: ("i32", size),
                3: ("i32", len(packed[1])),
                5: ("struct", body),
                **self.header,
            }
        )
        return dictionary + packed[0], data + packed[1]


def task(rows: int, text: bytes = b"base", **overrides: Any) -> list[Column]:
    """The columns of table `task` with one value each; ``overrides`` go to column ``item_id``."""

    def plain(value: bytes) -> bytes:
        return struct.pack("<I", len(value)) + value

    return [Column("run_id", plain(b"base"), 6, True, rows), Column("item_id", plain(text), 6, True, rows, **overrides),
            Column("score", struct.pack("<f", 1.0), 4, False, rows)]  # fmt: skip


def write(columns: Sequence[Column], *, groups: int = 1, share: bool = False, group_rows: int | None = None,
          footer: dict[int, Field] | None = None) -> bytes:  # fmt: skip
    """Return the bytes of a file. ``share`` lets every row group cite the pages of the first."""
    out, listed = b"PAR1", []
    cited: list[tuple[int, int, int]] = []
    rows = columns[0].rows if group_rows is None else group_rows
    for group in range(groups):
        if group == 0 or not share:
            cited = []
            for column in columns:
                dictionary, data = column.pages()
                cited.append((len(out), len(out) + len(dictionary), len(dictionary) + len(data)))
                out += dictionary + data
        listed.append({1: ("list", ("struct", [_chunk(c, *at) for c, at in zip(columns, cited, strict=True)])),
                       2: ("i64", 100), 3: ("i64", rows)})  # fmt: skip
    elements = [{4: ("binary", b"schema"), 5: ("i32", len(columns))}]
    for c in columns:
        element: dict[int, Field] = {1: ("i32", c.physical), 3: ("i32", 0), 4: ("binary", c.name.encode())}
        elements.append({**element, 6: ("i32", 0)} if c.text else element)
    stated = {1: ("i32", 1), 2: ("list", ("struct", elements)), 3: ("i64", rows * groups),
              4: ("list", ("struct", listed)), **(footer or {})}  # fmt: skip
    end = thrift(stated)
    return out + end + struct.pack("<I", len(end)) + b"PAR1"


def _chunk(column: Column, dictionary_at: int, data_at: int, size: int) -> dict[int, Field]:
    stated = {1: ("i32", column.physical), 2: ("list", ("i32", [0, 8])), 3: ("list", ("binary", [column.name.encode()])),
              4: ("i32", column.codec), 5: ("i64", column.rows), 6: ("i64", size), 7: ("i64", size), 9: ("i64", data_at),
              11: ("i64", dictionary_at), **column.footer}  # fmt: skip
    return {2: ("i64", dictionary_at), 3: ("struct", stated), **column.chunk}
