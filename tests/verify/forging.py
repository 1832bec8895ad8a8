"""Submissions for the verifier's tests: honest ones, and forged ones whose parts cite each other correctly.

A forger controls receipt, evidence, pre-registration and log together. `reissued` therefore writes new roots, a new log
and new citations over changed rows, so that only what the rows themselves say can give the forgery away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from simulator import PRESERVED, REWRITTEN, THRESHOLDS, Settings, SimulatedArm, StudySimulator

from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.evidence.digest import TableRoot, evidence_root
from atlas_schema.evidence.source import EvidenceSource, table_roots
from atlas_schema.files import document_text
from atlas_schema.protocol.log import next_step, step_hash
from atlas_schema.study.describe import extraction_of, subjects_of
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.outcome import Report
from atlas_schema.verify.verifier import Options, Submission, verify

Json = dict[str, Any]
FROZEN = SimulatedArm("frozen", "frozen", True, 0.0)
"""An arm with the base's own weights: the cheapest arm whose verdict is 'preserved'."""
OTHER_PLAN: Json = {"notes": "the same windows, under another plan"}
"""Changes to a pre-registration that make it another one and nothing else."""


def tiny(**changes: Any) -> Settings:
    """Settings of the smallest world in which verdicts can still be reached."""
    defaults: dict[str, Any] = {
        "clusters": (("code", 11), ("legal", 11)), "items": 50, "double_windows": 1, "protected": (1,),
        "window_tokens": (5, 7),
        "arms": (FROZEN, replace(PRESERVED, name="close"), REWRITTEN),
        "thresholds": {**THRESHOLDS, "drift.boundary/1": {"ratio_of_sums": 0.4}},
        "bootstrap": {"resamples": 200, "min_clusters": 10, "rare_event_clusters": 3},
    }  # fmt: skip
    return Settings(**{**defaults, **changes})


@cache
def study() -> StudySimulator:
    """The study that most tests mutate; arms 'frozen', 'close' and 'rewritten'."""
    return StudySimulator.make(tiny())


@cache
def honest(arm: str = "frozen") -> Receipt:
    """The receipt that its technician would issue."""
    return study().receipt(arm)


def as_json(document: Any) -> Json:
    """Return a document as a JSON object that may be changed."""
    loaded: Json = json.loads(document_text(document))
    return loaded


def encoded(value: Any) -> bytes:
    """Return the bytes of a document, however wrong its content."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


_ENCODED: dict[int, tuple[object, bytes]] = {}


def _encoded_once(document: object) -> bytes:
    """Return the bytes of a document that no test changes: documents are frozen, and most submissions share them."""
    if id(document) not in _ENCODED:
        _ENCODED[id(document)] = (document, encoded(as_json(document)))  # kept, so that its number stays its own
    return _ENCODED[id(document)][1]


def submission(s: StudySimulator, receipt: Receipt | Json | bytes, **changes: Any) -> Submission:
    """Return what a reviewer would be given: the study's documents and rows with one receipt."""
    raw = receipt if isinstance(receipt, bytes) else encoded(receipt if isinstance(receipt, dict) else as_json(receipt))
    parts: dict[str, Any] = {
        "preregistration": _encoded_once(s.preregistration), "run_log": _encoded_once(s.run_log),
        "contract": _encoded_once(s.contract), "open_evidence": s.source, **changes,
    }  # fmt: skip
    return Submission("receipt.json", raw, **parts)


def verified(
    s: StudySimulator, receipt: Receipt | Json | bytes, options: Options | None = None, **changes: Any
) -> Report:
    """Verify a receipt over a study; ``changes`` replace parts of the submission."""
    return verify(submission(s, receipt, **changes), options or Options())


def reissued(s: StudySimulator, arm: str = "frozen", *, receipt: Receipt | None = None) -> tuple[StudySimulator, Json]:
    """Return the study with a log of its present rows, and a receipt that cites everything as it is now.

    Findings stay those of the honest receipt: a forger wants just these.
    """
    s = s.relogged()
    return s, cited(s, receipt or honest(arm), table_roots(s.source()))


def cited(s: StudySimulator, receipt: Receipt, roots: Sequence[TableRoot]) -> Json:
    """Return a receipt that cites a study's documents and rows as they are now; its findings stay."""
    forged = as_json(receipt)
    forged["evidence"] = {
        "root": evidence_root(roots),
        "tables": [{"name": r.name, "rows": r.rows, "root": r.root} for r in roots],
    }
    forged["contract"] = {"id": s.contract.id, "digest": digest_of(s.contract)}
    forged["preregistration"] = {"digest": digest_of(s.preregistration)}
    forged["run_log"] = {"head": s.run_log.steps[-1].hash, "steps": len(s.run_log.steps)}
    forged["subjects"] = [x.model_dump(mode="json") for x in subjects_of(s.source())]
    forged["extraction"] = extraction_of(s.source(), {r.name: r.rows for r in roots}).model_dump(mode="json")
    return forged


def mapped(s: StudySimulator, table: str, change: Callable[[Json], Mapping[str, Any] | None]) -> StudySimulator:
    """Return the study with rows of a table changed by a function; a row for which it returns None stays as it is."""
    return s.with_rows(table, [{**row, **(change(row) or {})} for row in s.rows(table)])


def only(run: str, change: Callable[[Json], Mapping[str, Any] | None]) -> Callable[[Json], Mapping[str, Any] | None]:
    """Return a change of the rows of one run alone, for `mapped`."""
    return lambda row: change(row) if row.get("run_id") == run else None


def rechained(log: RunLog, change: Callable[[list[Json]], list[Json]]) -> RunLog:
    """Return a log with changed steps whose hashes are computed anew, as a forger would."""
    steps = change([as_json(step) for step in log.steps])
    done: list[Any] = []
    for index, fields in enumerate(steps):
        fields |= {"index": index, "previous": done[-1].hash if done else None}
        step = type(log.steps[0]).model_validate_json(json.dumps(fields))
        done.append(step.model_copy(update={"hash": step_hash(step)}))
    return RunLog(kind="run_log", schema_version="1.0", steps=tuple(done))


def continued(log: RunLog, *steps: Json) -> RunLog:
    """Return a log with more steps, chained as the tools do."""
    made = log.steps
    for step in steps:
        made = (*made, next_step(made, **{"time": made[-1].time, "tool": "tests", **step}))
    return RunLog(kind="run_log", schema_version="1.0", steps=made)


def counting(source: EvidenceSource, opened: list[str]) -> Callable[[], EvidenceSource]:
    """Return an opener that records that evidence was asked for."""

    def opener() -> EvidenceSource:
        opened.append("opened")
        return source

    return opener
