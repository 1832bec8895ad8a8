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
from atlas_schema.evidence.columns import Column, Rows, key_codes
from atlas_schema.evidence.tables import ColumnSpec, Dims

LEAF_TAG = b"atlas-evidence/1\0"
VARIABLE = 0xFFFFFFFF


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


def leaf_hashes(rows: Rows, dims: Dims) -> list[bytes]:
    """Return ``SHA-256(0x00 || canonical bytes)`` of every leaf of rows sorted by key."""
    start_of_leaf = b"\x00" + LEAF_TAG + rows.spec.name.encode() + b"\0"
    encoders = [_encoder(spec, rows.columns[spec.name], dims) for spec in rows.spec.columns]
    hashes = []
    for start, stop in leaf_slices(rows):
        hasher = hashlib.sha256(start_of_leaf + struct.pack("<I", stop - start))
        for encode in encoders:
            hasher.update(encode(start, stop))
        hashes.append(hasher.digest())
    return hashes


def _encoder(spec: ColumnSpec, column: Column, dims: Dims) -> Callable[[int, int], bytes]:
    """Return the function that encodes rows ``[start, stop)`` of one column: header, validity, then values."""
    width = VARIABLE if spec.shape == "*" else dims.of(spec.shape)
    head = spec.name.encode() + b"\0" + spec.type.encode() + b"\0" + struct.pack("<I", width)
    values, valid, offsets = column.values, column.valid, column.offsets

    def validity(start: int, stop: int) -> bytes:
        return b"" if valid is None else valid[start:stop].tobytes()

    known = [text.encode() for text in column.texts]

    def texts(start: int, stop: int) -> bytes:
        codes: list[int] = [] if column.codes is None else column.codes[start:stop].tolist()
        if codes.count(codes[0]) == len(codes):  # run, window and such: one text per leaf
            one = known[codes[0]]
            return head + validity(start, stop) + struct.pack("<I", len(one)) * len(codes) + one * len(codes)
        encoded = [known[code] for code in codes]
        return head + validity(start, stop) + struct.pack(f"<{len(encoded)}I", *map(len, encoded)) + b"".join(encoded)

    def lists(start: int, stop: int) -> bytes:
        limits = np.asarray(offsets)[start : stop + 1]
        lengths = np.diff(limits).astype("<u4").tobytes()
        return head + validity(start, stop) + lengths + values[limits[0] : limits[-1]].tobytes()

    def plain(start: int, stop: int) -> bytes:
        return head + validity(start, stop) + values[start:stop].tobytes()

    return texts if spec.type == "str" else plain if offsets is None else lists


@dataclass(slots=True)
class TableDigester:
    """Accumulates the leaves of one table, partition by partition in key order."""

    name: str
    dims: Dims
    rows: int = 0
    leaves: list[bytes] = field(default_factory=list)

    def add(self, rows: Rows) -> None:
        """Add the next partition. A table whose leaf is wider than a partition must come in one piece."""
        self.rows += rows.n
        self.leaves.extend(leaf_hashes(rows, self.dims))

    def root(self) -> TableRoot:
        return TableRoot(self.name, self.rows, "sha256:" + merkle_root(self.leaves).hex())


def evidence_root(roots: Iterable[TableRoot]) -> str:
    """Return the digest over all tables, with names and row counts, in order of name."""
    tables = [{"name": r.name, "rows": r.rows, "root": r.root} for r in sorted(roots, key=lambda r: r.name)]
    return digest_document({"evidence": "atlas-evidence/1", "tables": tables})
