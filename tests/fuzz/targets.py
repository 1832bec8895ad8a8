"""What is fuzzed: functions from bytes to nothing that raise where something is wrong. `run.py` feeds them.

A refusal by `AtlasError` is right; any other exception, and any belief that should not be, is a finding.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from attacks.remembered import Study, outcome_of, remembered
from evidence.forged_parquet import task, write
from evidence.test_bundle import tiny
from naive.merkle import tree_root
from signing.material import envelope as made_envelope
from signing.material import key, written
from verify.forging import honest, study, submission

from atlas_schema.canonical import canonical_json
from atlas_schema.claims.expression import ClaimError, Scope, evaluate
from atlas_schema.claims.interval import NoIntervalError, exactly
from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.errors import AtlasError, DocumentError, EvidenceError, UsageError
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.digest import TableRoot, merkle_root
from atlas_schema.evidence.pages import Chunk, PageError, walk
from atlas_schema.evidence.preflight import open_table, preflight
from atlas_schema.evidence.source import table_root
from atlas_schema.evidence.tables import TABLES
from atlas_schema.evidence.thrift import ThriftError, read_struct
from atlas_schema.limits import LIMITS
from atlas_schema.signing.envelope import check_signatures, envelope_of
from atlas_schema.signing.keys import public_pem, read_public
from atlas_schema.transcription.raw import parse_raw
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.reading import pointer, position, positions, read_json
from atlas_schema.verify.verifier import verify


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
    raw = _spoilt(_given().submission.raw, data)
    if raw is not None and _given().outcome(raw).code is Code.VERIFIED:
        _require_same(raw, _given().submission.raw, free=FREE_TEXT)


def run_log(data: bytes) -> None:
    """Change anything of the log beside a valid receipt: it must not verify, but where it says the same."""
    before = _given().submission.run_log or b""
    raw = _spoilt(before, data)
    if raw is not None and _beside(run_log=raw) is Code.VERIFIED:
        _require_same(raw, before, steps=json.loads(_given().submission.raw)["run_log"]["steps"])


def preregistration(data: bytes) -> None:
    """Change anything of the plan beside a valid receipt: it must not verify, but where it says the same."""
    before = _given().submission.preregistration or b""
    raw = _spoilt(before, data)
    if raw is not None and _beside(preregistration=raw) is Code.VERIFIED:
        _require_same(raw, before)


def evidence(data: bytes) -> None:
    """Change bytes of one table's file: its rows are refused, or have another root, or are the same rows."""
    honest_bytes, root = _table()
    raw = _spoilt(honest_bytes, data)
    if raw is None:
        return
    folder = _folder()
    (folder / "task.parquet").write_bytes(raw)
    try:
        found = table_root(ParquetBundle(folder), "task")
    except EvidenceError:
        return
    if found == root and not pq.read_table(pa.BufferReader(raw)).equals(pq.read_table(pa.BufferReader(honest_bytes))):
        raise AssertionError("other rows have the same root")


def envelope(data: bytes) -> None:
    """A signature file of any bytes, and a sound one with bytes changed: only the pinned key's own signature counts."""
    honest_bytes = written(made_envelope(1))
    for raw in (data, _spoilt(honest_bytes, data)):
        with suppress(DocumentError):
            found = envelope_of(read_json(raw or b""))
            signers = check_signatures(found, [key(1).public]).signers
            if signers and found.payload != made_envelope(1).payload:
                raise AssertionError("another payload is signed")


def public_key(data: bytes) -> None:
    """A key file of any bytes, and a sound one with bytes changed: what is read is written and read alike."""
    for raw in (data, _spoilt(public_pem(key(1).public), data)):
        with suppress(UsageError):
            found = read_public(raw or b"", "key")
            if read_public(public_pem(found), "key") != found:
                raise AssertionError("a key is read in two ways")


def raw_output(data: bytes) -> None:
    """The reader of raw output, on any bytes and on a sound file with bytes changed."""
    for raw in (data, _spoilt(RAW_OUTPUT, data)):
        with suppress(AtlasError):
            parse_raw(raw or b"", "raw.jsonl")


def expression(data: bytes) -> None:
    """Expressions of any text: a value, or a refusal that says why."""
    series = {"a": {"x": exactly(Fraction(1, 3)), "y": exactly(Fraction(2))}, "b": {"x": exactly(Fraction(0))}}
    with suppress(ClaimError, NoIntervalError):
        evaluate(data.decode("latin-1")[:500], Scope(series))


def pointers(data: bytes) -> None:
    """Paths with any names: two paths are never one pointer, and each leads back to its value."""
    names = [part.decode("latin-1") for part in data.split(b"\0")][:8]
    nested: Any = "leaf"
    for name in reversed(names):
        nested = {name: nested}
    raw = json.dumps(nested).encode()
    path = tuple(names)
    if tuple(p.replace("~1", "/").replace("~0", "~") for p in pointer(path).split("/")[1:]) != path:
        raise AssertionError("a pointer leads elsewhere")
    if position(raw, path) is None:
        raise AssertionError("a value has no place")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "reader": reader, "pointers": pointers, "parquet": parquet, "pages": pages, "merkle": merkle, "receipt": receipt,
    "run_log": run_log, "preregistration": preregistration, "evidence": evidence, "envelope": envelope,
    "public_key": public_key, "raw_output": raw_output, "expression": expression,
}  # fmt: skip
RAW_OUTPUT = b"\n".join(json.dumps(line).encode() for line in (
    {"record": "run", "kind": "atlas-raw/1"}, {"record": "output", "id": "a", "group": None, "input": "x", "input_tokens": 2,
     "output": "y", "output_tokens": 1, "logprobs": [-0.5, -1.5]},
))  # fmt: skip


def _spoilt(raw: bytes, data: bytes) -> bytes | None:
    """Return bytes with a stretch replaced, both given by ``data``; None where it says nothing."""
    if len(data) < 4:
        return None
    made = bytearray(raw)
    at, cut = int.from_bytes(data[:3], "little") % len(made), data[3] % 8
    made[at : at + cut] = data[4:36]
    return bytes(made)


def _require_same(raw: bytes, before: bytes, *, free: tuple[str, ...] = (), steps: int | None = None) -> None:
    """Raise where a document that was believed says something else; a log may end after the receipt's head."""
    found, honest_value = json.loads(raw), json.loads(before)
    if steps is not None:
        honest_value["steps"] = honest_value["steps"][: max(steps, len(found["steps"]))]
    if _bound(found, free) != _bound(honest_value, free):
        raise AssertionError(f"a changed document is believed: {raw!r}")


@cache
def _given() -> Study:
    """The honest submission, in the process of one target, with what no change enters remembered."""
    stack = ExitStack()
    stack.enter_context(remembered())
    _KEPT.append(stack)
    return Study(submission(study(), honest()), "preserved")


_KEPT: list[ExitStack] = []


def _beside(**changes: bytes) -> Code:
    return outcome_of(verify(replace(_given().submission, **changes), _given().options)).code  # type: ignore[arg-type]


@cache
def _folder() -> Path:
    return Path(
        shutil.copytree(tiny().write(Path(tempfile.mkdtemp()) / "study") / "evidence", Path(tempfile.mkdtemp()) / "e")
    )


@cache
def _table() -> tuple[bytes, TableRoot]:
    return (_folder() / "task.parquet").read_bytes(), table_root(ParquetBundle(_folder()), "task")


@cache
def _whole() -> bytes:
    return write(task(3), groups=2)


def _bound(value: Any, free: tuple[str, ...]) -> bytes:
    """Return the canonical form of a document without its published free text."""
    made = copy.deepcopy(value)
    for text in free:
        *parents, last = text.strip("/").split("/")
        inner = made
        for part in parents:
            inner = inner[int(part) if isinstance(inner, list) else part]
        inner.pop(last, None)
    return canonical_json(made)
