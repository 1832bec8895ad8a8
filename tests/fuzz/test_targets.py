"""The targets themselves: each runs on a few inputs, and each notices what it is there to notice."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz import confined, records, vouched, whole
from fuzz.run import functions
from fuzz.spoil import decoded, document, spots, stretch
from fuzz.targets import TARGETS, merkle, pages, pointers, raw_output, reader
from signing.material import statement

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.source import table_root
from atlas_schema.evidence.tables import STUDY_TABLES
from atlas_schema.verify.outcome import Code

SLOW = {"database"}
"""Targets that start a process for every input."""


@pytest.fixture(autouse=True, scope="module")
def _end() -> Iterator[None]:
    """What a target remembers changes the verifier for the process it runs in, which here is that of other tests."""
    yield
    whole.forget()


def inputs(count: int, seed: int = 0) -> list[bytes]:
    rng = random.Random(seed)
    return [b"", *(rng.randbytes(rng.choice((1, 4, 6, 12, 40))) for _ in range(count))]


def feed(target: Callable[[bytes], None], given: list[bytes]) -> None:
    for data in given:
        target(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_target_is_found_wanting_by_a_few_inputs(name: str) -> None:
    feed(TARGETS[name].run, inputs(1 if name in SLOW else 8))


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_says_what_it_holds_and_who_guides(name: str) -> None:
    assert TARGETS[name].holds.endswith(".")
    assert TARGETS[name].seeds() == TARGETS[name].seeds()
    for module in TARGETS[name].guides:
        assert functions(importlib.import_module(f"atlas_schema.{module}"))


# --- how inputs are changed ---------------------------------------------------------------------------------------


def test_most_changed_documents_are_documents() -> None:
    """Otherwise a target only ever asks the JSON reader."""
    raw, read = records._document("receipt"), 0
    made = [document(raw, data) for data in inputs(400) if len(data) >= 4]
    for changed in made:
        try:
            json.loads(changed or b"")
            read += changed != raw
        except ValueError:
            continue
    assert read > len(made) / 2


def test_bytes_below_base64_are_reached() -> None:
    bundle = vouched.sound_bundle()
    made = {decoded(bundle, data) for data in inputs(100) if len(data) >= 8}
    assert len(made - {None, bundle}) > 20
    assert (stretch(b"abc", b""), spots(b"abc", b"")) == (None, None)


def test_the_sums_of_a_database_are_those_that_it_keeps() -> None:
    raw = confined._file()
    for start, size in confined.parts(len(raw)):
        assert int.from_bytes(raw[start : start + 8], "little") == confined.checksum(raw[start + 8 : start + size])
    assert sum(size for _, size in confined.parts(len(raw))) == len(raw)


def test_a_changed_block_with_a_good_sum_gets_further_than_one_without() -> None:
    raw = confined._file()
    at = raw.index(b"USMALLINT") if b"USMALLINT" in raw else raw.index(b"run_id")
    filled = confined._filled(raw).tolist().index(at).to_bytes(3, "little")
    without = confined.opened(confined.spoilt_database(raw, filled + b"\0" + b"rux") or b"")
    good = confined.opened(confined.spoilt_database(raw, filled + b"\1" + b"rux") or b"")
    assert isinstance(without, EvidenceError)
    assert "checksum" in without.found.lower()
    assert isinstance(good, EvidenceError)
    assert "checksum" not in good.found.lower()
    assert good.rule in ("ATL-A024", "ATL-A025")


# --- what the targets notice --------------------------------------------------------------------------------------

Patches = list[tuple[str, Any]]


def _raising(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault")


BROKEN: dict[str, tuple[Callable[[bytes], None], Patches]] = {
    "a reader that takes anything": (reader, [("fuzz.targets.read_json", lambda data: {})]),
    "pointers without escapes": (pointers, [("fuzz.targets.pointer", lambda path: "".join(f"/{p}" for p in path))]),
    "a root of the first leaf": (merkle, [("fuzz.targets.merkle_root", lambda leaves: b"".join(leaves[:1]))]),
    "pages that fault": (pages, [("fuzz.targets.walk", _raising)]),
    "raw output that faults": (raw_output, [("fuzz.targets.parse_raw", _raising)]),
    "a log that is believed": (whole.run_log, [("fuzz.whole._beside", lambda **_: Code.VERIFIED)]),
    "a plan that is believed": (whole.preregistration, [("fuzz.whole._beside", lambda **_: Code.VERIFIED)]),
    "a contract that is believed": (whole.contract, [("fuzz.whole._beside", lambda **_: Code.VERIFIED)]),
    "a bundle of any payload": (
        vouched.sigstore_bundle, [("fuzz.vouched.check_sigstore", lambda *_: ())],
    ),
    "a root of any payload": (vouched.trusted_root, [("fuzz.vouched.verify_bundle", lambda *_: ("kind", b""))]),
    "a bundle that faults": (
        vouched.sigstore_bundle, [("atlas_schema.verify.authenticity.verify_bundle", _raising)],
    ),
    "signatures by anyone": (vouched.envelope, [("fuzz.vouched.check_signatures", lambda *_: _raising())]),
    "a statement of nothing": (
        vouched.signed_statement, [("fuzz.vouched.statement_of", lambda _: statement(evidence=()))],
    ),
    "keys that fault": (vouched.public_key, [("fuzz.vouched.read_public", _raising)]),
    "private keys that fault": (vouched.private_key, [("fuzz.vouched.read_private", _raising)]),
    "a schema that accepts all": (records.documents, [("fuzz.records.schema_errors", lambda *_: [])]),
    "a schema that refuses all": (records.documents, [("fuzz.records.schema_errors", lambda *_: [1])]),
    "reports that speak to a terminal": (records.documents, [("atlas_schema.reports.text.printable", lambda text: text + "\x1b")]),
    "rows that have one root": (records.measured_rows, [("fuzz.records._said", lambda rows: object())]),
    "cases laid out beside their folder": (
        records.corpus, [("fuzz.records.lay_out", lambda case, laid: (laid.parent / "corpus" / "x").write_text("x"))],
    ),
    "answers that all agree": (records.verifier_answer, [("fuzz.records.of_report", lambda *_: [])]),
    "answers of the worker that are numbers": (
        confined.worker_answer, [("atlas_schema.verify.sandbox._answer", lambda _: {"what": 1})],
    ),
    "a worker that never opens the file": (
        confined.database, [("atlas_schema.evidence.worker.main", lambda: 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_target_notices_what_it_is_there_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, patches = BROKEN[name]
    target(b"")  # made while all is well
    for where, made in patches:
        monkeypatch.setattr(where, made)
    with pytest.raises(Exception, match=r".") as found:
        feed(target, inputs(60))
    assert not isinstance(found.value, EvidenceError)


def test_a_receipt_that_is_believed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    believed = whole._given().honest
    monkeypatch.setattr("attacks.remembered.Study.outcome", lambda *_: believed)
    with pytest.raises((AssertionError, ValueError)):
        feed(whole.receipt, inputs(60))


def test_rows_under_anothers_root_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.evidence(b"\0\0\0\0\0\0")
    rows = whole._rows(whole._table("task")[0])
    whole._table("task")
    other = rows.set_column(2, "score", rows.column("score").cast("float32").combine_chunks()[::-1])
    assert not other.equals(rows)
    honest = whole._table("task")[1]
    monkeypatch.setattr(whole, "table_root", lambda *_: honest)
    monkeypatch.setattr(whole, "_rows", lambda raw: rows if raw == whole._table("task")[0] else other)
    with pytest.raises(AssertionError, match="same root"):
        feed(whole.evidence, [bytes([STUDY_TABLES.index("task")]) + data for data in inputs(200)])


def test_what_is_remembered_of_files_is_forgotten_where_they_change(tmp_path: Path) -> None:
    """A file that was looked at once is looked at again as soon as one of its bytes is another."""
    folder = whole._folder()
    before, _ = whole._table("task")
    (folder / "task.parquet").write_bytes(before[:4] + bytes([before[4] ^ 255]) + before[5:])
    try:
        with pytest.raises(EvidenceError):
            table_root(ParquetBundle(folder), "task")
    finally:
        (folder / "task.parquet").write_bytes(before)
    assert table_root(ParquetBundle(folder), "task") == whole._table("task")[1]
