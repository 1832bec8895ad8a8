"""A shipped study as a world that can be changed and issued anew, and what the verifier says of it.

Three attackers, each stronger than the one before, over the same changed rows:

- ``courier``: rows are changed, documents are not;
- ``forger``: roots, log and citations are issued anew over the changed rows; findings stay those he wants to be believed;
- ``producer``: findings are computed anew too, so that everything agrees with everything: only physics and plan can object.

A world is a `StudySimulator` that holds a shipped study's rows and documents in place of simulated ones, so that everything
the tests of single rules use to forge works on real evidence as well.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from attacks.remembered import remembered
from attacks.replanned import under
from pydantic import ValidationError
from simulator import Settings, StudySimulator, make_log
from verify.forging import Json, as_json, cited, encoded

from atlas_schema.demo import demo_folder
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.bundle import ParquetBundle, table_writer
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.files import read_document
from atlas_schema.measures import summarise as measures
from atlas_schema.measures.summarise import rounded
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.verify import examine as examining
from atlas_schema.verify.examine import Examined
from atlas_schema.verify.outcome import Channel, Code, Report, exit_code
from atlas_schema.verify.verifier import Options, Submission, verify

FIXTURES = Path(__file__).parents[2] / "fixtures"
FOLDERS = {
    "demo": demo_folder(),
    "few": FIXTURES / "study-few",
    "deepseek": FIXTURES / "study-deepseek",
    "study": FIXTURES / "study",
}


class Strength(Enum):
    """Who changed the rows, and what he could write anew."""

    COURIER = "courier"
    FORGER = "forger"
    PRODUCER = "producer"


@dataclass(frozen=True)
class Shipped:
    """A shipped study: where it lies, its rows and documents, and the receipts that it was shipped with."""

    folder: Path
    study: StudySimulator
    receipts: dict[str, Receipt]

    def receipt(self, arm: str) -> Receipt:
        return self.receipts[arm]


@cache
def shipped(name: str) -> Shipped:
    """Load a shipped study; rows stand in the order of its files."""
    folder = FOLDERS[name]
    bundle = ParquetBundle(folder / "evidence")
    tables = {
        t: pq.read_table(folder / "evidence" / f"{t}.parquet").cast(TABLES[t].arrow_schema(bundle.dims))
        for t in STUDY_TABLES
    }
    plan = read_document(folder / "preregistration.json", Preregistration, "pre-registration")
    log = read_document(folder / "run_log.json", RunLog, "run log")
    d = bundle.dims
    study = StudySimulator(Settings(d=d.d, experts=d.E, top_k=d.k, positions=d.P), tables, built_in_contracts()[plan.contract.id], plan,
                           log, {})  # fmt: skip
    receipts = {
        path.stem.removeprefix("receipt-"): read_document(path, Receipt, "receipt")
        for path in sorted(folder.glob("receipt-*.json"))
    }
    return Shipped(folder, study, {arm: receipt for arm, receipt in receipts.items() if arm != "forged"})


@cache
def quick(name: str, arm: str, resamples: int) -> Shipped:
    """The same study under the same contract with fewer resamples, and one receipt by it: much of a verification is resampling."""
    original = shipped(name)
    document = json.loads(original.study.contract.model_dump_json())
    document |= {
        "id": f"{original.study.contract.id}-quick",
        "bootstrap": {**document["bootstrap"], "resamples": resamples},
    }
    study = under(original.study, Contract.model_validate_json(json.dumps(document)))
    made = looked_at(study, original.folder / "evidence")
    if isinstance(made, EvidenceError):
        raise made
    study, receipt = issued(study, made, original.receipt(arm), study.tables["run"], keep=False)
    return Shipped(original.folder, study, {arm: Receipt.model_validate_json(json.dumps(receipt))})


# --- rows ---------------------------------------------------------------------------------------------------------


def keyed(table: pa.Table, key: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield ``[start, stop)`` of every run of rows with equal values of a key's columns."""
    if not key:
        yield 0, table.num_rows
        return
    codes = [table.column(name).combine_chunks().dictionary_encode().indices.to_numpy() for name in key]
    edge = np.zeros(table.num_rows, dtype=np.bool_)
    for code in codes:
        edge[1:] |= code[1:] != code[:-1]
    yield from pairwise([0, *np.flatnonzero(edge).tolist(), table.num_rows])


def write_table(folder: Path, name: str, table: pa.Table, study: StudySimulator) -> None:
    """Write one table as the project does; where the rows do not fit the declared schema, as they are."""
    declared = TABLES[name].arrow_schema(study.dims)
    if table.schema != declared:
        pq.write_table(table, folder / f"{name}.parquet")
        return
    with table_writer(folder, name, study.dims) as writer:
        for start, stop in keyed(table, TABLES[name].partition):
            writer.write_table(table.slice(start, stop - start), row_group_size=2**30)


@contextmanager
def bundle_of(study: StudySimulator, original: Shipped) -> Iterator[Path]:
    """Write the bundle of a changed study; tables that are the shipped ones are the shipped files."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "evidence"
        folder.mkdir()
        for name in STUDY_TABLES:
            if study.tables[name] is original.study.tables[name]:
                source = original.folder / "evidence" / f"{name}.parquet"
                (folder / f"{name}.parquet").write_bytes(source.read_bytes())
            else:
                write_table(folder, name, study.tables[name], study)
        yield folder


# --- documents ----------------------------------------------------------------------------------------------------


def documents(study: StudySimulator) -> dict[str, bytes]:
    """Return what lies beside a receipt, and the contract where it is not a built-in one."""
    found = {"preregistration": encoded(as_json(study.preregistration)), "run_log": encoded(as_json(study.run_log))}
    return (
        found if study.contract.id in built_in_contracts() else {**found, "contract": encoded(as_json(study.contract))}
    )


def issued(
    study: StudySimulator, made: Examined, receipt: Receipt, subjects: pa.Table, *, keep: bool
) -> tuple[StudySimulator, Json]:
    """Return the study with a log of its present rows, and a receipt over them.

    ``subjects`` is the table `run` to repeat where the present one cannot be. ``keep``: findings are those of ``receipt``;
    else they are the recomputed ones, and the claim is the recomputed verdict.
    """
    root = evidence_root(made.roots)
    study = replace(study, run_log=make_log(study.preregistration, root, study.preregistration.created))
    try:
        forged = cited(study, receipt, made.roots)
    except ValidationError:  # table `run` holds what no receipt can repeat: then the old one is repeated
        forged = cited(replace(study, tables={**study.tables, "run": subjects}), receipt, made.roots)
    if not keep and made.sums is not None:
        found = measures.conclude(made.sums, study.contract, study.preregistration, root)
        forged["findings"] = as_json(rounded(found, study.contract))
        forged["claim"]["verdict"] = next(a.verdict for a in found.arms if a.arm == forged["claim"]["arm"])
    return study, forged


# --- what the verifier says ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one attack: exit code, rules that fired, channels that objected, and the recomputed verdict."""

    code: Code
    rules: tuple[str, ...]
    channels: tuple[str, ...]
    verdict: str
    claim: str
    findings: int = 0

    @classmethod
    def of(cls, report: Report) -> Outcome:
        found = [p for result in report.channels.values() for p in result.problems]
        objected = [c.value for c in Channel if c in report.channels and report.channels[c].problems]
        paths = {p.path for p in found if p.rule == "ATL-R013"}
        return cls(exit_code(report), tuple(sorted({p.rule.removeprefix("ATL-") for p in found})), tuple(objected),
                   report.verdict or "", report.claim or "", len(paths))  # fmt: skip

    @property
    def believed(self) -> bool:
        """Whether no channel objected to anything, whatever the verdict is."""
        return not self.rules and self.code in (Code.VERIFIED, Code.NOT_PRESERVED, Code.UNPROVEN)

    @property
    def where(self) -> str:
        """The channel that caught it, the first in the order of the report; empty where nothing did."""
        return self.channels[0] if self.channels else ""


def looked_at(study: StudySimulator, folder: Path) -> Examined | EvidenceError:
    """Make the verifier's one pass over a written bundle, or return why there is none."""
    try:
        return examining.examine(ParquetBundle(folder), study.preregistration, study.contract, reproduce=True)
    except EvidenceError as error:
        return error


def opened(rows: Path | Examined | EvidenceError) -> EvidenceSource:
    """Open a bundle, or take the one that was opened for the pass over its rows."""
    if isinstance(rows, EvidenceError):
        raise rows
    return rows.evidence if isinstance(rows, Examined) else ParquetBundle(rows)


def outcome(
    receipt: Json | Receipt | bytes,
    study: StudySimulator,
    folder: Path | Examined | EvidenceError,
    options: Options,
    **changes: Any,
) -> Outcome:
    """Verify a receipt, or whatever is handed over in its place, over a bundle."""
    raw = receipt if isinstance(receipt, bytes) else encoded(receipt if isinstance(receipt, dict) else as_json(receipt))
    parts: dict[str, Any] = {**documents(study), "open_evidence": lambda: opened(folder), **changes}
    return Outcome.of(verify(Submission("receipt.json", raw, **parts), options))


def attacked(study: StudySimulator, original: Shipped, arm: str, options: Options) -> dict[Strength, Outcome]:
    """Return what comes of changed rows at each strength.

    The rows are read once for all three: what is `remembered` is what `verify` would compute again from the same rows.
    """
    receipt, found = original.receipt(arm), {}
    with bundle_of(study, original) as folder, remembered():
        made = looked_at(study, folder)
        found[Strength.COURIER] = outcome(receipt, original.study, made, options)
        if isinstance(made, EvidenceError):  # nobody can digest such rows
            return dict.fromkeys(Strength, found[Strength.COURIER])
        for strength in (Strength.FORGER, Strength.PRODUCER):
            again, forged = issued(study, made, receipt, original.study.tables["run"], keep=strength is Strength.FORGER)
            found[strength] = outcome(forged, again, made, options)
            if made.sums is None:  # no findings follow from rows that break a rule
                found[Strength.PRODUCER] = found[strength]
                break
    return found


def honest(original: Shipped, arm: str, options: Options) -> Outcome:
    """Return what the verifier says of the receipt before anything is changed."""
    return outcome(original.receipt(arm), original.study, original.folder / "evidence", options)


def report_bytes(report: Report) -> bytes:
    """Return a report as a machine reads it, for comparing whole reports."""
    from atlas_schema.reports.json import render

    return render(report).encode()


def processor_seconds() -> float:
    """Return what this process has used of processors."""
    used = os.times()
    return used.user + used.system
