"""Targets for documents by themselves, and for what `atlas conformance` reads of others."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from documents.examples import KINDS, example
from fuzz.spoil import document, spots, stretch

from atlas_schema.canonical import canonical_json
from atlas_schema.conformance.corpus import Expected, lay_out, read_corpus
from atlas_schema.conformance.judge import of_report
from atlas_schema.documents.schema import schema_errors
from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.digest import TableRoot
from atlas_schema.evidence.measured import FILE, measured_root, read_measured, write_measured
from atlas_schema.reports import json as json_report
from atlas_schema.reports import text as text_report
from atlas_schema.verify.documents import parse
from atlas_schema.verify.outcome import Channel, Code, Report, exit_code
from atlas_schema.verify.verifier import Options, Submission, verify

OFFLINE, REVIEW = Options(profile="offline"), Options(require="supported")


def documents(data: bytes) -> None:
    """Any kind of document changed: schema and model agree, it is read whole, and its report drives no terminal."""
    raw = document(_document(KINDS[data[0] % len(KINDS)]), data[1:]) if data else data
    if raw is None:
        return
    scratch = Report("document")
    parsed = parse("receipt", raw, None, scratch)
    if parsed is None and not scratch.channel(Channel.ADMISSION).problems:
        value = json.loads(raw)
        if isinstance(value, dict) and value.get("kind") in KINDS and not schema_errors(value, value["kind"]):
            raise AssertionError(f"the schema accepts what the model refuses: {raw!r}")
    if parsed is not None:
        if schema_errors(parsed.value, parsed.value["kind"]):
            raise AssertionError(f"the model accepts what the schema refuses: {raw!r}")
        if canonical_json(parsed.model.model_dump(mode="json")) != canonical_json(parsed.value):
            raise AssertionError(f"a document is read as another: {raw!r}")
    given = Submission("document.json", raw, measurements=(_document("measurement"),))
    for options in (OFFLINE, REVIEW):
        report = verify(given, options)
        may = report.kind == "measurement" if options is REVIEW else report.kind != "receipt"
        if exit_code(report) is Code.VERIFIED and not may:
            raise AssertionError(f"{report.kind} without evidence is believed: {raw!r}")
        _require_plain(report)


def measured_rows(data: bytes) -> None:
    """Change bytes of the rows that a measurement cites: refused, or other rows with another root, or the same rows."""
    honest, root, said = _measured()
    raw = (stretch if data[:1] < b"\x80" else spots)(honest, data[1:])
    if raw is None:
        return
    (_folder() / "rows" / FILE).write_bytes(raw)
    with suppress(EvidenceError):
        rows = read_measured(_folder() / "rows")
        if (measured_root(rows) == root) != (_said(rows) == said):
            raise AssertionError("a root does not tell rows apart")


def corpus(data: bytes) -> None:
    """A case's expected.json of any bytes, and a sound one changed: refused, or laid out inside of its folder and nowhere else."""
    corpus, laid = _corpus()
    before = _listed(corpus.parent, laid)
    for raw in (data, document(sound_case(), data)):
        (corpus / "case" / "expected.json").write_bytes(raw or b"")
        shutil.rmtree(laid, ignore_errors=True)
        laid.mkdir()
        with suppress(UsageError):
            (case,), _ = read_corpus(corpus)
            lay_out(case, laid)
        if _listed(corpus.parent, laid) != before:
            raise AssertionError(f"a case is laid out elsewhere: {raw!r}")
        for entry in laid.rglob("*"):
            if entry.is_symlink() and not entry.resolve().is_relative_to(laid.resolve()):
                raise AssertionError(f"a link points elsewhere: {raw!r}")


def verifier_answer(data: bytes) -> None:
    """What somebody's verifier prints, any bytes: as expected only where every answer is the expected one."""
    expected = Expected.model_validate_json(json.dumps(CASE))
    for raw in (data, document(sound_answer(), data)):
        if not of_report(expected, raw or b""):
            found = json.loads(raw or b"")
            if found["exit_code"] != CASE["exit_code"] or found["verdict"] != CASE["verdict"]:
                raise AssertionError(f"another answer passes: {raw!r}")
            if {c["channel"]: c["status"] for c in found["channels"]} != CASE["channels"]:
                raise AssertionError(f"other channels pass: {raw!r}")


CASE: dict[str, Any] = {
    "kind": "conformance_case", "schema_version": "1.0", "base": "base", "removed": ["run_log.json"],
    "links": {"evidence/task.parquet": "receipt.json"}, "needs": ["links"], "arguments": ["receipt.json"],
    "exit_code": 3, "verdict": None, "channels": {c.value: "not_checked" for c in Channel} | {"admission": "failed"},
    "rules": ["ATL-A001"],
}  # fmt: skip


def _require_plain(report: Report) -> None:
    """Raise where a report holds what drives a terminal or a build service."""
    for shown in (text_report.render(report), json_report.render(report)):
        if not shown.replace("\n", "").isprintable() or "##" in shown:
            raise AssertionError(f"a report is more than words: {shown!r}")
    json.loads(shown)


@cache
def _document(kind: str) -> bytes:
    return json.dumps(example(kind), indent=1).encode()


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp())


@cache
def _measured() -> tuple[bytes, TableRoot, str]:
    rows = [
        {"measurement_id": "m", "series": series, "index": i, "window_id": "w" if i % 2 else None, "layer": i, "head": None,
         "value": i / 7} for series in "ab" for i in range(4)
    ]  # fmt: skip
    root = write_measured(rows, _folder() / "rows")
    return (_folder() / "rows" / FILE).read_bytes(), root, _said(read_measured(_folder() / "rows"))


def _said(rows: Rows) -> str:
    """Return every value of the rows that is there."""
    return repr([(name, rows[name][rows.valid(name)].tolist(), rows.valid(name).tolist()) for name in rows.columns])


@cache
def _corpus() -> tuple[Path, Path]:
    """A corpus of one case over one base world, and the folder that it is laid into."""
    made = _folder() / "world" / "corpus"
    (made / "case" / "files" / "sub").mkdir(parents=True)
    (made / "case" / "files" / "sub" / "more.json").write_text("{}")
    (made / "case" / "expected.json").write_text("{}")
    (made / "base" / "evidence").mkdir(parents=True)
    for name in ("receipt.json", "run_log.json"):
        (made / "base" / name).write_text("{}")
    laid = made.parent / "laid"
    laid.mkdir()
    return made, laid


def _listed(folder: Path, without: Path) -> list[str]:
    return sorted(str(entry) for entry in folder.rglob("*") if not entry.is_relative_to(without))


@cache
def sound_case() -> bytes:
    """The expected.json of a case with every kind of instruction."""
    return json.dumps(CASE).encode()


@cache
def sound_answer() -> bytes:
    """What this verifier answers to something that is no JSON."""
    report = verify(Submission("receipt.json", b"{"), OFFLINE)
    return json_report.render(report).encode()
