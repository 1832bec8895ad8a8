"""Issuing a receipt: evidence and documents in, a receipt and the log's next step out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atlas_schema.documents.base import DigestOnly, DocumentReference
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Claim, Evidence, LogHead, Readings, Receipt, TableSummary
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import UsageError
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import EvidenceSource, table_roots
from atlas_schema.files import document_text, write_atomically
from atlas_schema.measures.summarise import rounded, summarise
from atlas_schema.protocol.log import append_step, next_step, require_unaltered
from atlas_schema.study.contracts import contract_digest
from atlas_schema.study.describe import extraction_of, subjects_of
from atlas_schema.study.preregister import digest_of


def build_receipt(
    evidence: EvidenceSource, plan: Preregistration, contract: Contract, log: RunLog, arm: str
) -> Receipt:
    """Return the receipt for one arm. Raises `UsageError` for an arm that was not planned or evidence that is incomplete."""
    if arm not in [a.name for a in plan.arms]:
        raise UsageError("This arm is not in the pre-registration.", found=arm,
                         expected=", ".join(a.name for a in plan.arms),
                         todo="a result that was not planned cannot be issued; pre-register it and extract it anew")  # fmt: skip
    roots = table_roots(evidence)
    _require_complete(plan, {r.name: r.rows for r in roots})
    root = evidence_root(roots)
    findings = rounded(summarise(evidence, contract, plan, root), contract)
    verdict = next(a.verdict for a in findings.arms if a.arm == arm)
    return Receipt(
        kind="receipt", schema_version="1.0", claim=Claim(arm=arm, verdict=verdict),
        contract=DocumentReference(id=contract.id, digest=contract_digest(contract)),
        preregistration=DigestOnly(digest=digest_of(plan)),
        run_log=LogHead(head=log.steps[-1].hash, steps=len(log.steps)), subjects=tuple(subjects_of(evidence)),
        extraction=extraction_of(evidence, {r.name: r.rows for r in roots}),
        evidence=Evidence(root=root, tables=tuple(TableSummary(name=r.name, rows=r.rows, root=r.root) for r in roots)),
        findings=findings, judgement=Readings(reading=None), notes="",
    )  # fmt: skip


def issue(
    evidence: EvidenceSource,
    plan: Preregistration,
    contract: Contract,
    log_path: Path,
    log: RunLog,
    arm: str,
    target: Path,
    accept: Callable[[Receipt, RunLog], None] | None = None,
) -> Receipt:
    """Write the receipt, then record it in the run log. Refuses, before computing, a target that exists or an altered log.

    ``accept`` is called before anything is written, with the receipt and the log as it will then be; what it raises leaves
    both as they were. Without it nothing says whether verification would accept the receipt.
    """
    if target.exists():
        raise UsageError("This file already exists; a receipt never overwrites anything.", where=str(target),
                         todo="name a new file with --output")  # fmt: skip
    require_unaltered(log_path, log)
    receipt = build_receipt(evidence, plan, contract, log, arm)
    inputs = {"preregistration": receipt.preregistration.digest, "evidence": receipt.evidence.root}
    outputs = {f"receipt-{arm}": digest_of(receipt)}
    if accept is not None:
        added = next_step(log.steps, step="issue", actor="automation", inputs=inputs, outputs=outputs)
        accept(receipt, RunLog(kind="run_log", schema_version="1.0", steps=(*log.steps, added)))
    write_atomically(target, document_text(receipt))
    append_step(log_path, step="issue", actor="automation", inputs=inputs, outputs=outputs)
    return receipt


def _require_complete(plan: Preregistration, rows: dict[str, int]) -> None:
    expected = plan.expected_rows.model_dump()
    short = {name: (rows[name], count) for name, count in expected.items() if rows[name] != count}
    if short:
        table, (found, wanted) = next(iter(short.items()))
        raise UsageError("The evidence is not complete.", where=", ".join(f"table {name}" for name in short),
                         expected=f"{wanted} rows in {table}", found=str(found),
                         todo="run 'atlas extract' again with the same arguments: it resumes where it stopped")  # fmt: skip
