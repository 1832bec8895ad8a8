"""What is fuzzed: functions from bytes to nothing that raise where something is wrong. `run.py` feeds them.

A refusal by `AtlasError` is right; any other exception, and any belief that should not be, is a finding.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from evidence.forged_parquet import task, write
from evidence.test_bundle import tiny
from fuzz import confined, records, vouched, whole
from fuzz.spoil import document, spots
from naive.merkle import tree_root

from atlas_schema.claims.expression import ClaimError, Scope, evaluate
from atlas_schema.claims.interval import NoIntervalError, exactly
from atlas_schema.errors import AtlasError, DocumentError, EvidenceError
from atlas_schema.evidence.digest import merkle_root
from atlas_schema.evidence.pages import Chunk, PageError, walk
from atlas_schema.evidence.preflight import open_table, preflight
from atlas_schema.evidence.tables import TABLES
from atlas_schema.evidence.thrift import ThriftError, read_struct
from atlas_schema.limits import LIMITS
from atlas_schema.transcription.raw import parse_raw
from atlas_schema.verify.reading import pointer, position, positions, read_json


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
    content = spots(_whole(), data) or _whole()
    descriptor = os.memfd_create("table")
    with os.fdopen(descriptor, "w+b") as stream:
        stream.write(content)
        stream.flush()
        shown = Path("task.parquet")
        try:
            file = open_table(stream, shown, TABLES["task"], LIMITS)
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


def raw_output(data: bytes) -> None:
    """The reader of raw output, on any bytes and on a sound file with bytes changed."""
    for raw in (data, document(RAW_OUTPUT, data)):
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


@cache
def _whole() -> bytes:
    return write(task(3), groups=2)


RAW_OUTPUT = b"\n".join(json.dumps(line).encode() for line in (
    {"record": "run", "kind": "atlas-raw/1"}, {"record": "output", "id": "a", "group": None, "input": "x", "input_tokens": 2,
     "output": "y", "output_tokens": 1, "logprobs": [-0.5, -1.5]},
))  # fmt: skip


EXPRESSION = b"max(a) - 2 * mean(a) + b[x] / 2"


@dataclass(frozen=True, slots=True)
class Target:
    """One function that is fuzzed, and the modules whose branches guide the fuzzer: those that read what it changes."""

    run: Callable[[bytes], None]
    guides: tuple[str, ...]
    sound: Callable[[], bytes] | None = None
    """A sound input, where the target takes any bytes: the fuzzer begins with it."""

    @property
    def holds(self) -> str:
        """What the target holds, in one sentence."""
        return " ".join((self.run.__doc__ or "").split())

    def seeds(self) -> list[bytes]:
        """Return what the fuzzer begins with: bytes long enough to say something, and what is sound."""
        rng = random.Random(self.run.__name__)
        drawn = [rng.randbytes(size) for size in (6, 8, 12, 20, 40) for _ in range(2)]
        return [*drawn, self.sound()] if self.sound else drawn


_READING, _PARQUET = ("verify.reading",), ("evidence.preflight", "evidence.footer", "evidence.pages", "evidence.thrift")
_CHECKS = ("verify.verifier", "verify.documents", "verify.consistency", "verify.authenticity")
TARGETS: dict[str, Target] = {
    "reader": Target(reader, _READING, lambda: RAW_OUTPUT.splitlines()[1]),
    "pointers": Target(pointers, _READING),
    "documents": Target(
        records.documents, (*_CHECKS, "verify.records", "claims.record", "claims.expression", "claims.settle")
    ),
    "receipt": Target(whole.receipt, _CHECKS),
    "run_log": Target(whole.run_log, _CHECKS),
    "preregistration": Target(whole.preregistration, _CHECKS),
    "contract": Target(whole.contract, _CHECKS),
    "parquet": Target(parquet, _PARQUET),
    "pages": Target(pages, _PARQUET),
    "evidence": Target(whole.evidence, _PARQUET),
    "measured_rows": Target(records.measured_rows, _PARQUET),
    "database": Target(confined.database, ("verify.sandbox",)),
    "worker_answer": Target(confined.worker_answer, ("verify.sandbox", *_READING), lambda: confined.ANSWER),
    "merkle": Target(merkle, ("evidence.digest",)),
    "envelope": Target(vouched.envelope, ("signing.envelope", "signing.curve", *_READING), vouched.sound_envelope),
    "signed_statement": Target(vouched.signed_statement, ("signing.statement", *_READING), vouched.sound_statement),
    "public_key": Target(vouched.public_key, ("signing.keys", "signing.curve"), vouched.sound_public_key),
    "private_key": Target(vouched.private_key, ("signing.keys",), vouched.sound_private_key),
    "sigstore_bundle": Target(
        vouched.sigstore_bundle, ("verify.authenticity", "signing.statement", *_READING), vouched.sound_bundle
    ),
    "trusted_root": Target(vouched.trusted_root, ("signing.sigstore_bundle",), vouched.sound_root),
    "raw_output": Target(raw_output, ("transcription.raw",), lambda: RAW_OUTPUT),
    "expression": Target(expression, ("claims.expression", "claims.interval"), lambda: EXPRESSION),
    "corpus": Target(records.corpus, ("conformance.corpus", *_READING), records.sound_case),
    "verifier_answer": Target(records.verifier_answer, ("conformance.judge", *_READING), records.sound_answer),
}
