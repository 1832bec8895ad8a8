"""Structures in Thrift's compact protocol, read without trusting them. Source: thrift-compact-protocol.md of Apache Thrift.

Stricter than the protocol: a field id stands at most once and is a 16-bit number, integers fit their type, and nothing
nests deeper than the limits say. Two readers can then not see two structures in the same bytes. Fields that nobody here asks
for are passed over, as Parquet demands of every reader: whatever their id, 32767 of its extensions among them. That one
is written as -16384 too, by those who follow the example of its page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atlas_schema.limits import LIMITS

I32, I64, BINARY, LIST, SET, MAP, STRUCT = 5, 6, 8, 9, 10, 11, 12
_TRUE, _FALSE, _I8, _I16, _DOUBLE = 1, 2, 3, 4, 7
_BITS = {_I16: 16, I32: 32, I64: 64}
_DEPTH = LIMITS.structure_depth
_IDS = 2**15


class ThriftError(ValueError):
    """Bytes that are not a structure of this protocol, or not one that every reader reads alike."""


class TruncatedError(ThriftError):
    """The bytes end inside the structure."""


class Budget:
    """How many more fields and elements may be read where lists are: a byte can promise any number of them."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def take(self, count: int) -> None:
        """Raise `ThriftError` where there are more."""
        self.left -= count
        if self.left < 0:
            raise ThriftError(f"it holds more than {self.most} fields and elements, of which none needs so many")


def read_struct(
    raw: bytes,
    at: int = 0,
    depth: int = 0,
    lists: Budget | None = None,
    each: Callable[[int, int, int], int] | None = None,
) -> tuple[dict[int, tuple[int, Any]], int]:
    """Return ``{id: (type, value)}`` of the structure at an offset, and the offset behind it. Raises `ThriftError`.

    Of a text the value is its length. Lists are read where a budget is given. With ``each`` values are left to it: it is
    called with id, type and offset of every field, and returns where the field ends.
    """
    if depth > _DEPTH:
        raise ThriftError("nested too deeply")
    fields: dict[int, tuple[int, Any]] = {}
    last, size = 0, len(raw)
    while at < size:
        head = raw[at]
        at += 1
        if head == 0:
            return fields, at
        kind, step = head & 15, head >> 4
        if step:
            last += step
        else:
            last, at = _zigzag(raw, at, 16)
        if not -_IDS <= last < _IDS or last in fields:
            raise ThriftError(f"field {last} stands twice or out of place")
        if lists is not None:
            lists.take(1)
        value: Any
        if each is not None:
            value, at = None, each(last, kind, at)
        elif kind in _BITS and at < size and (byte := raw[at]) < 128:  # most fields: a footer has millions
            value, at = (byte >> 1) ^ -(byte & 1), at + 1
        elif kind == STRUCT:
            value, at = read_struct(raw, at, depth + 1, lists)
        else:
            value, at = _value(raw, at, kind, depth, lists)
        fields[last] = (kind, value)
    raise TruncatedError("the bytes end inside a structure")


def _value(raw: bytes, at: int, kind: int, depth: int, lists: Budget | None) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _I8:
        return _byte(raw, at)
    if kind in _BITS:
        return _zigzag(raw, at, _BITS[kind])
    if kind == _DOUBLE:
        return None, _ahead(raw, at, 8)
    if kind == BINARY:
        size, at = _varint(raw, at, 32)
        return size, _ahead(raw, at, size)
    if kind == STRUCT:
        return read_struct(raw, at, depth + 1, lists)
    if kind == LIST and lists is not None:
        return _list(raw, at, depth, lists)
    raise ThriftError(f"type {kind} has no place here")  # no header of a page holds lists, sets or maps


def each_field(raw: bytes, at: int, read: Callable[[int, int, int], int]) -> int:
    """Call ``read(id, type, offset)`` for every field of the structure at an offset; it returns where the field ends.

    No value is kept, whatever a structure holds. Returns the offset behind the structure. Raises `ThriftError`.
    """
    return read_struct(raw, at, each=read)[1]


def list_head(raw: bytes, at: int) -> tuple[int, int, int]:
    """Return type and number of the elements of the list at an offset, and where the first begins. Raises `ThriftError`."""
    head, at = _byte(raw, at)
    kind, size = head & 15, head >> 4
    if size == 15:
        size, at = _varint(raw, at, 32)
    return kind, size, at


def read_value(raw: bytes, at: int, kind: int, depth: int, lists: Budget) -> tuple[Any, int]:
    """Return the value of a type at an offset, and the offset behind it. Raises `ThriftError`."""
    return _value(raw, at, kind, depth, lists)


def _list(raw: bytes, at: int, depth: int, lists: Budget) -> tuple[list[Any], int]:
    kind, size, at = list_head(raw, at)
    lists.take(size)
    values: list[Any] = []
    value: Any
    for _ in range(size):
        if kind == STRUCT:
            value, at = read_struct(raw, at, depth + 1, lists)
        else:
            value, at = _byte(raw, at) if kind in (_TRUE, _FALSE) else _value(raw, at, kind, depth, lists)
        values.append(value)
    return values, at


def _byte(raw: bytes, at: int) -> tuple[int, int]:
    if at >= len(raw):
        raise TruncatedError("the bytes end inside a structure")
    return raw[at], at + 1


def _ahead(raw: bytes, at: int, size: int) -> int:
    if at + size > len(raw):
        raise TruncatedError("the bytes end inside a structure")
    return at + size


def _varint(raw: bytes, at: int, bits: int) -> tuple[int, int]:
    if at < len(raw) and raw[at] < 128:
        return raw[at], at + 1
    value = shift = 0
    while True:
        byte, at = _byte(raw, at)
        value |= (byte & 127) << shift
        if value >> bits:
            raise ThriftError("an integer is larger than its type")
        if byte < 128:
            return value, at
        shift += 7
        if shift > bits:
            raise ThriftError("an integer is longer than its type")


def _zigzag(raw: bytes, at: int, bits: int) -> tuple[int, int]:
    value, at = _varint(raw, at, bits)
    return (value >> 1) ^ -(value & 1), at
