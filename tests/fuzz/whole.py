"""Targets that verify a whole submission of which one part was changed: "change anything, it must not verify".

What no change enters is computed once, for real, and remembered: the verdict on the other documents and the pass over the rows
(`attacks.remembered`), and the preflight of the files that were not touched.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks.remembered import Study, outcome_of, remembered
from evidence.test_bundle import tiny
from fuzz.spoil import document, spots, stretch
from verify.forging import honest, study, submission

from atlas_schema.canonical import canonical_json
from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence import bundle
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.digest import TableRoot
from atlas_schema.evidence.footer import require_sound_footer
from atlas_schema.evidence.preflight import preflight
from atlas_schema.evidence.source import table_root
from atlas_schema.evidence.tables import STUDY_TABLES, Dims, TableSpec
from atlas_schema.limits import Limits
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.verifier import verify

_KEPT: list[ExitStack] = []


def receipt(data: bytes) -> None:
    """Change anything of a valid receipt: it must not verify, but where it says the same or only free text differs."""
    raw = document(_given().submission.raw, data)
    if raw is not None and _given().outcome(raw).code is Code.VERIFIED:
        _require_same(raw, _given().submission.raw, free=FREE_TEXT)


def run_log(data: bytes) -> None:
    """Change anything of the log beside a valid receipt: it must not verify, but where it says the same."""
    before = _given().submission.run_log or b""
    raw = document(before, data)
    if raw is not None and _beside(run_log=raw) is Code.VERIFIED:
        _require_same(raw, before, steps=json.loads(_given().submission.raw)["run_log"]["steps"])


def preregistration(data: bytes) -> None:
    """Change anything of the plan beside a valid receipt: it must not verify, but where it says the same."""
    before = _given().submission.preregistration or b""
    raw = document(before, data)
    if raw is not None and _beside(preregistration=raw) is Code.VERIFIED:
        _require_same(raw, before)


def contract(data: bytes) -> None:
    """Change anything of the contract that the reviewer gives: it must not verify, but where it says the same."""
    before = _given().submission.contract or b""
    raw = document(before, data)
    if raw is not None and _beside(contract=raw) is Code.VERIFIED:
        _require_same(raw, before)


def evidence(data: bytes) -> None:
    """Change bytes of one table's file: its rows are refused, or have another root, or are the same rows."""
    name = STUDY_TABLES[data[0] % len(STUDY_TABLES)] if data else "task"
    honest_bytes, root = _table(name)
    raw = (stretch if data[1:2] < b"\x80" else spots)(honest_bytes, data[2:])
    if raw is None:
        return
    path = _folder() / f"{name}.parquet"
    path.write_bytes(raw)
    try:
        found = table_root(ParquetBundle(_folder()), name)
    except EvidenceError:
        return
    finally:
        path.write_bytes(honest_bytes)
    if found == root and _rows(raw).to_pydict() != _rows(honest_bytes).to_pydict():
        raise AssertionError("other rows have the same root")


def forget() -> None:
    """End what is remembered in this process."""
    while _KEPT:
        _KEPT.pop().close()
    _given.cache_clear()
    _folder.cache_clear()
    _table.cache_clear()


def _require_same(raw: bytes, before: bytes, *, free: tuple[str, ...] = (), steps: int | None = None) -> None:
    """Raise where a document that was believed says something else; a log may end after the receipt's head."""
    found, honest_value = json.loads(raw), json.loads(before)
    if steps is not None:
        honest_value["steps"] = honest_value["steps"][: max(steps, len(found["steps"]))]
    if _bound(found, free) != _bound(honest_value, free):
        raise AssertionError(f"a changed document is believed: {raw!r}")


def _bound(value: Any, free: tuple[str, ...]) -> bytes:
    """Return the canonical form of a document without its published free text."""
    made = copy.deepcopy(value) if free else value
    for text in free:
        *parents, last = text.strip("/").split("/")
        inner = made
        for part in parents:
            inner = inner[int(part) if isinstance(inner, list) else part]
        inner.pop(last, None)
    return canonical_json(made)


@cache
def _given() -> Study:
    """The honest submission, in the process of one target, with what no change enters remembered."""
    stack = ExitStack()
    stack.enter_context(remembered())
    _KEPT.append(stack)
    return Study(submission(study(), honest()), "preserved")


def _beside(**changes: bytes) -> Code:
    return outcome_of(verify(replace(_given().submission, **changes), _given().options)).code  # type: ignore[arg-type]


def _rows(raw: bytes) -> pa.Table:
    """Return what a file holds, whatever the schema that Arrow keeps in it for itself."""
    return pq.read_table(pa.BufferReader(raw.replace(b"ARROW:schema", b"its own keys")))


@cache
def _folder() -> Path:
    """A bundle whose files may be changed; the preflight of one that is as it was is not made again."""
    folder = tiny().write(Path(tempfile.mkdtemp()) / "study") / "evidence"
    made = Path(shutil.copytree(folder, Path(tempfile.mkdtemp()) / "e"))
    checked, known = preflight, {path.name: path.read_bytes() for path in made.iterdir()}
    seen: set[tuple[str, Dims]] = set()

    def once(shown: Path, spec: TableSpec, file: Any, stream: BinaryIO, dims: Dims, limits: Limits) -> None:
        before = known.get(shown.name, b"")
        same = shown.parent == made and os.pread(stream.fileno(), len(before) + 1, 0) == before
        if not same or (shown.name, dims) not in seen:
            checked(shown, spec, file, stream, dims, limits)
        if same:
            seen.add((shown.name, dims))

    sound: set[bytes] = set()

    def sound_once(raw: bytes, metadata: Any, limits: Limits) -> None:
        if raw not in sound:
            require_sound_footer(raw, metadata, limits)
            sound.add(raw)

    stack, patch = ExitStack(), pytest.MonkeyPatch()
    stack.callback(patch.undo)
    patch.setattr(bundle, "preflight", once)
    patch.setattr("atlas_schema.evidence.preflight.require_sound_footer", sound_once)
    _KEPT.append(stack)
    return made


@cache
def _table(name: str) -> tuple[bytes, TableRoot]:
    return (_folder() / f"{name}.parquet").read_bytes(), table_root(ParquetBundle(_folder()), name)
