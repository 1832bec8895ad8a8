"""Content digests: canonical bytes per leaf, Merkle trees as in RFC 6962, one root per table and one over all tables.

The digest is of the content. Insertion order, compression, row groups, export and import do not change it.
`docs/format.md` specifies the bytes so that another implementation reproduces them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from atlas_schema.canonical import digest_document
from atlas_schema.evidence.columns import Array, Column, Rows, key_codes
from atlas_schema.evidence.tables import ColumnSpec, Dims

Partition = tuple[str | int, ...]
"""Values of `TableSpec.partition`: ``(run_id, layer)``, ``(run_id,)`` or ``()``."""

LEAF_TAG = b"atlas-evidence/1\0"
VARIABLE = 0xFFFFFFFF
LARGE = 4096
"""Bytes from which a piece of a leaf is hashed by itself. From 2048 on, hashing lets other threads run."""


@dataclass(frozen=True, slots=True)
class TableRoot:
    """Name, number of rows and Merkle root (``sha256:…``) of one table."""

    name: str
    rows: int
    root: str


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the RFC 6962 tree hash over leaf hashes (already ``SHA-256(0x00 || leaf)``); SHA-256 of nothing if empty."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    # RFC 6962 splits at the largest power of two below n. Pairing neighbours level by level, with an odd last node
    # carried up unchanged, gives the same tree without recursion.
    level = list(leaves)
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def leaf_slices(rows: Rows) -> Iterator[tuple[int, int]]:
    """Yield ``[start, stop)`` of each leaf of sorted rows."""
    if rows.n == 0:
        return
    change = np.zeros(rows.n, dtype=np.bool_)
    for name, code in zip(rows.spec.key, key_codes(rows), strict=True):
        if name in rows.spec.leaf:
            change[1:] |= code[1:] != code[:-1]
    starts = [0, *np.flatnonzero(change).tolist(), rows.n]
    yield from pairwise(starts)


Encoder = Callable[[int, int, int], Sequence[bytes | memoryview]]
"""From the number of a leaf and its rows ``[start, stop)`` to what is hashed for one or more columns."""


def leaf_hashes(rows: Rows, dims: Dims) -> list[bytes]:
    """Return ``SHA-256(0x00 || canonical bytes)`` of every leaf of rows sorted by key."""
    start_of_leaf = b"\x00" + LEAF_TAG + rows.spec.name.encode() + b"\0"
    slices = list(leaf_slices(rows))
    encoders = _encoders(rows, dims, slices)
    hashes = []
    for leaf, (start, stop) in enumerate(slices):
        parts: list[bytes | memoryview] = [start_of_leaf, struct.pack("<I", stop - start)]
        hasher = hashlib.sha256()
        for encode in encoders:
            *small, last = encode(leaf, start, stop)
            parts += small
            if len(last) < LARGE:
                parts.append(last)
                continue
            # Large values are hashed where they lie; joining what is small saves calls.
            hasher.update(b"".join(parts))
            hasher.update(last)
            parts = []
        hasher.update(b"".join(parts))
        hashes.append(hasher.digest())
    return hashes


def _encoders(rows: Rows, dims: Dims, slices: list[tuple[int, int]]) -> list[Encoder]:
    """Return what encodes each column, or, where all leaves are alike, each run of small columns of fixed size."""
    count = len(slices)
    alike = count > 1 and rows.n % count == 0 and all(b - a == rows.n // count for a, b in slices)
    made: list[Encoder] = []
    run: list[Array] = []
    for spec in rows.spec.columns:
        block = _block(rows, spec, dims, count) if alike else None
        if block is not None:
            run.append(block)
            continue
        made += [_stacked(run)] if run else []
        run = []
        made.append(_encoder(rows, spec, dims))
    return made + ([_stacked(run)] if run else [])


def _block(rows: Rows, spec: ColumnSpec, dims: Dims, leaves: int) -> Array | None:
    """Return the encoding of a small column for all leaves at once ``[leaves, bytes]``; None where it has no fixed size."""
    column, each = rows.columns[spec.name], rows.n // leaves
    texts = [text.encode() for text in column.texts]
    if spec.shape == "*" or (
        spec.type == "str" and (spec.name not in rows.spec.leaf or len({len(t) for t in texts}) != 1)
    ):
        return None
    parts = [np.broadcast_to(np.frombuffer(_head(spec, dims), dtype=np.uint8), (leaves, len(_head(spec, dims))))]
    if column.valid is not None:
        parts.append(column.valid.view(np.uint8).reshape(leaves, each))
    if column.codes is not None:
        size = struct.pack("<I", len(texts[0]))
        every = np.frombuffer(b"".join(size * each + text * each for text in texts), dtype=np.uint8)
        parts.append(every.reshape(len(texts), -1)[column.codes[::each]])
    else:
        width = column.values.itemsize * (dims.of(spec.shape) if spec.shape else 1)
        if width * each >= LARGE:
            return None
        parts.append(np.ascontiguousarray(column.values).reshape(-1).view(np.uint8).reshape(leaves, each * width))
    return np.concatenate(parts, axis=1)


def _stacked(blocks: list[Array]) -> Encoder:
    whole = np.concatenate(blocks, axis=1)
    width, data = whole.shape[1], _bytes(whole)
    return lambda leaf, _start, _stop: (data[leaf * width : (leaf + 1) * width],)


def _head(spec: ColumnSpec, dims: Dims) -> bytes:
    width = VARIABLE if spec.shape == "*" else dims.of(spec.shape)
    return spec.name.encode() + b"\0" + spec.type.encode() + b"\0" + struct.pack("<I", width)


def _encoder(rows: Rows, spec: ColumnSpec, dims: Dims) -> Encoder:
    """Return the function that encodes rows ``[start, stop)`` of one column: header, validity, then values."""
    column = rows.columns[spec.name]
    head = _head(spec, dims)
    if spec.type == "str":
        return _texts(column, head, one=spec.name in rows.spec.leaf)
    values, valid = _bytes(column.values), None if column.valid is None else _bytes(column.valid)
    size = column.values.itemsize
    if column.offsets is not None:
        at, lengths = (column.offsets * size).tolist(), _bytes(np.diff(column.offsets).astype("<u4"))

        def lists(_: int, start: int, stop: int) -> Sequence[bytes | memoryview]:
            shape = lengths[4 * start : 4 * stop]
            known = () if valid is None else (valid[start:stop],)
            return head, *known, shape, values[at[start] : at[stop]]

        return lists
    each = size * (dims.of(spec.shape) if spec.shape else 1)

    def plain(_: int, start: int, stop: int) -> Sequence[bytes | memoryview]:
        part = values[start * each : stop * each]
        return (head, part) if valid is None else (head, valid[start:stop], part)

    return plain


def _bytes(values: Array) -> memoryview:
    """Return the bytes of an array in its own order, without a copy where it is contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _texts(column: Column, head: bytes, *, one: bool) -> Encoder:
    """Encode strings; a column of the leaf's own key holds ``one`` text per leaf."""
    known = [text.encode() for text in column.texts]
    sizes = [struct.pack("<I", len(text)) for text in known]
    codes = [] if column.codes is None else column.codes.tolist()
    valid = None if column.valid is None else _bytes(column.valid)

    def texts(_: int, start: int, stop: int) -> Sequence[bytes | memoryview]:
        parts: tuple[bytes | memoryview, ...] = (head,) if valid is None else (head, valid[start:stop])
        if one:
            code, count = codes[start], stop - start
            return *parts, sizes[code] * count, known[code] * count
        wanted = codes[start:stop]
        return *parts, b"".join([sizes[c] for c in wanted]), b"".join([known[c] for c in wanted])

    return texts


@dataclass(slots=True)
class EvidenceDigester:
    """Accumulates leaves of any tables. Rows of one partition come in key order, no leaf in two pieces; partitions in any."""

    dims: Dims
    _rows: dict[tuple[str, Partition], int] = field(default_factory=dict)
    _leaves: dict[tuple[str, Partition], bytearray] = field(default_factory=dict)

    def add(self, table: str, partition: Partition, rows: Rows) -> None:
        """Hash the next rows of a partition."""
        self._rows[table, partition] = self._rows.get((table, partition), 0) + rows.n
        self._leaves.setdefault((table, partition), bytearray()).extend(b"".join(leaf_hashes(rows, self.dims)))

    def forget(self, table: str, partition: Partition) -> None:
        """Drop what was hashed of a partition, whose rows then come anew."""
        self._leaves.pop((table, partition), None)
        self._rows.pop((table, partition), None)

    def root(self, table: str) -> TableRoot:
        """Return the root of a table over its partitions in key order."""
        keys = sorted(key for name, key in self._leaves if name == table)
        joined = b"".join(self._leaves[table, key] for key in keys)
        leaves = [joined[at : at + 32] for at in range(0, len(joined), 32)]
        return TableRoot(table, sum(self._rows[table, key] for key in keys), "sha256:" + merkle_root(leaves).hex())


def evidence_root(roots: Iterable[TableRoot]) -> str:
    """Return the digest over all tables, with names and row counts, in order of name."""
    tables = [{"name": r.name, "rows": r.rows, "root": r.root} for r in sorted(roots, key=lambda r: r.name)]
    return digest_document({"evidence": "atlas-evidence/1", "tables": tables})
