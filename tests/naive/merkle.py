"""Canonical bytes of evidence rows and RFC 6962 trees over them."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any

from .rows import Row

ColumnSpec = tuple[str, str, str | int, bool]
"""(name, type, shape, nullable); shape: "" scalar, "*" variable list, or the length of a fixed list."""


FORMATS = {"u8": "<B", "u16": "<H", "u32": "<I", "f32": "<f", "f64": "<d"}
VARIABLE = 0xFFFFFFFF


def resolve_shape(shape: str | int, dims: dict[str, int]) -> str | int:
    """A symbolic fixed shape such as "E*d" as a number; "" and "*" stay."""
    if isinstance(shape, int) or shape in ("", "*"):
        return shape
    return math.prod(dims[name] for name in shape.split("*"))


def value_bytes(kind: str, value: Any) -> bytes:
    """One value, little-endian; a truth value is one byte."""
    if kind == "bool":
        return b"\x01" if value else b"\x00"
    return struct.pack(FORMATS[kind], value)


def column_bytes(rows: Sequence[Row], column: ColumnSpec) -> bytes:
    """Header and content of one column."""
    name, kind, shape, nullable = column
    if shape == "*":
        width = VARIABLE
    elif shape == "":
        width = 1
    elif isinstance(shape, int):
        width = shape
    else:
        raise ValueError(f"column {name}: shape {shape!r} is not resolved")
    if kind == "str" and width != 1:
        raise ValueError(f"column {name}: lists of strings do not exist")
    out = [name.encode(), b"\0", kind.encode(), b"\0", struct.pack("<I", width)]
    values = [row[name] for row in rows]
    if nullable:
        for value in values:
            out.append(b"\x00" if value is None else b"\x01")
    elif any(value is None for value in values):
        raise ValueError(f"column {name}: a null where none may be")

    if kind == "str":
        texts = [b"" if value is None else value.encode() for value in values]
        for text in texts:
            out.append(struct.pack("<I", len(text)))
        out.extend(texts)
        return b"".join(out)

    if shape == "*":
        lists = [[] if value is None else list(value) for value in values]
        for members in lists:
            out.append(struct.pack("<I", len(members)))
        for members in lists:
            for member in members:
                out.append(value_bytes(kind, member))
        return b"".join(out)

    size = 1 if kind == "bool" else struct.calcsize(FORMATS[kind])
    for value in values:
        if value is None:
            out.append(b"\0" * (size * width))
        elif shape == "":
            out.append(value_bytes(kind, value))
        else:
            if len(value) != width:
                raise ValueError(f"column {name}: {len(value)} values where {width} belong")
            for member in value:
                out.append(value_bytes(kind, member))
    return b"".join(out)


def leaf_bytes(table: str, columns: Sequence[ColumnSpec], rows: Sequence[Row]) -> bytes:
    """Canonical bytes of one leaf's rows, which are taken in the order given."""
    head = b"atlas-evidence/1\0" + table.encode() + b"\0" + struct.pack("<I", len(rows))
    return head + b"".join(column_bytes(rows, column) for column in columns)


def leaf_hash(content: bytes) -> bytes:
    """SHA-256(0x00 || content)."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 root over leaf hashes; of nothing: SHA-256 of the empty string."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return node_hash(tree_root(hashes[:split]), tree_root(hashes[split:]))


def audit_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 6962 audit path of one leaf, from the leaf upwards."""
    if len(hashes) == 1:
        return []
    split = _split(len(hashes))
    if index < split:
        return [*audit_path(hashes[:split], index), tree_root(hashes[split:])]
    return [*audit_path(hashes[split:], index - split), tree_root(hashes[:split])]


def root_from_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf hash and its audit path lead to."""
    if count == 1:
        if path:
            raise ValueError("the audit path is too long")
        return leaf
    if not path:
        raise ValueError("the audit path is too short")
    split = _split(count)
    if index < split:
        return node_hash(root_from_path(leaf, index, split, path[:-1]), path[-1])
    return node_hash(path[-1], root_from_path(leaf, index - split, count - split, path[:-1]))


def _sortable(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def sorted_rows(rows: Sequence[Row], key: Sequence[str]) -> list[Row]:
    """Rows by their key: text by its UTF-8 bytes, numbers by value. A key that occurs twice is refused."""
    ordered = sorted(rows, key=lambda row: [_sortable(row[name]) for name in key])
    for before, after in itertools.pairwise(ordered):
        if all(before[name] == after[name] for name in key):
            raise ValueError(f"two rows with the key {[before[name] for name in key]}")
    return ordered


def table_leaves(
    table: str, columns: Sequence[ColumnSpec], key: Sequence[str], leaf: Sequence[str], rows: Sequence[Row]
) -> list[tuple[tuple[Any, ...], bytes]]:
    """(leaf key, leaf hash) of a table in sort order; an empty leaf key makes the whole table one leaf."""
    groups: list[tuple[tuple[Any, ...], list[Row]]] = []
    for row in sorted_rows(rows, key):
        name = tuple(row[column] for column in leaf)
        if not groups or groups[-1][0] != name:
            groups.append((name, []))
        groups[-1][1].append(row)
    return [(name, leaf_hash(leaf_bytes(table, columns, members))) for name, members in groups]


def table_root(
    table: str, columns: Sequence[ColumnSpec], key: Sequence[str], leaf: Sequence[str], rows: Sequence[Row]
) -> bytes:
    """Root of one table, rows in any order."""
    return tree_root([digest for _, digest in table_leaves(table, columns, key, leaf, rows)])
