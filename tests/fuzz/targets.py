"""What is fuzzed: functions from bytes to nothing that raise where something is wrong. `run.py` feeds them.

A refusal by `AtlasError` is right; any other exception, and any belief that should not be, is a finding.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from evidence.forged_parquet import task, write
from evidence.test_bundle import tiny
from naive.merkle import tree_root
from verify.forging import as_json, encoded, honest, study, verified

from atlas_schema.canonical import canonical_json
from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.errors import DocumentError, EvidenceError
from atlas_schema.evidence.digest import merkle_root
from atlas_schema.evidence.pages import Chunk, PageError, walk
from atlas_schema.evidence.preflight import open_table, preflight
from atlas_schema.evidence.tables import TABLES
from atlas_schema.evidence.thrift import ThriftError, read_struct
from atlas_schema.limits import LIMITS
from atlas_schema.verify.outcome import Code, exit_code
from atlas_schema.verify.reading import positions, read_json


def reader(data: bytes) -> None:
    """The strict reader: what it accepts, the standard reader reads alike, and every member has its place."""
    try:
        value = read_json(data)
    except DocumentError:
        return
    if value != json.loads(data):
        raise AssertionError("two readers see two documents")
    names = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    paths = [(name,) for name in names]
    if len(positions(data, paths)) != len(paths):
        raise AssertionError("a member has no place")


def parquet(data: bytes) -> None:
    """The preflight of a file whose bytes were changed; what passes is decoded."""
    content = bytearray(_whole())
    for i in range(0, len(data) - 2, 3):
        content[int.from_bytes(data[i : i + 2], "little") % len(content)] = data[i + 2]
    descriptor = os.memfd_create("table")
    with os.fdopen(descriptor, "w+b") as stream:
        stream.write(content)
        stream.flush()
        shown = Path("task.parquet")
        try:
            file = open_table(stream, shown, LIMITS)
            preflight(shown, TABLES["task"], file, stream, tiny().dims, LIMITS)
        except EvidenceError:
            return
        try:
            for group in range(file.metadata.num_row_groups):
                file.read_row_group(group, use_threads=False)
        except (OSError, ValueError):
            return


def pages(data: bytes) -> None:
    """Page headers and Thrift structures of any bytes."""
    with suppress(ThriftError):
        read_struct(data)
    descriptor = os.memfd_create("pages")
    try:
        os.write(descriptor, data)
        walk(descriptor, Chunk(0, len(data), data[0] if data else 0), 100)
    except PageError:
        return
    finally:
        os.close(descriptor)


def merkle(data: bytes) -> None:
    """The Merkle root against the independent one; another leaf is another root."""
    leaves = [data[i : i + 32].ljust(32, b"\0") for i in range(0, len(data), 32)]
    root = merkle_root(leaves)
    if root != tree_root(leaves):
        raise AssertionError("two implementations disagree")
    if leaves:
        at = data[0] % len(leaves)
        other = [*leaves[:at], bytes([leaves[at][0] ^ 1]) + leaves[at][1:], *leaves[at + 1 :]]
        if merkle_root(other) == root:
            raise AssertionError("another leaf has the same root")


def receipt(data: bytes) -> None:
    """Change anything of a valid receipt: it must not verify, but where it says the same or only free text differs."""
    raw = bytearray(_receipt())
    if len(data) < 4:
        return
    at, cut = int.from_bytes(data[:3], "little") % len(raw), data[3] % 8
    raw[at : at + cut] = data[4:36]
    if exit_code(verified(study(), bytes(raw))) is not Code.VERIFIED:
        return
    if _bound(json.loads(raw)) != _bound(json.loads(_receipt())):
        raise AssertionError(f"a changed receipt verifies: {bytes(raw[at - 40 : at + 80])!r}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "reader": reader, "parquet": parquet, "pages": pages, "merkle": merkle, "receipt": receipt,
}  # fmt: skip


@cache
def _receipt() -> bytes:
    return encoded(as_json(honest()))


@cache
def _whole() -> bytes:
    return write(task(3), groups=2)


def _bound(value: Any) -> bytes:
    """Return the canonical form of a receipt without its published free text."""
    made = copy.deepcopy(value)
    for text in FREE_TEXT:
        *parents, last = text.strip("/").split("/")
        inner = made
        for part in parents:
            inner = inner[int(part) if isinstance(inner, list) else part]
        inner.pop(last, None)
    return canonical_json(made)
