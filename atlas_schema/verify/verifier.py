"""The verifier: documents and evidence in, a report out. No terminal, no exit, no network.

Steps, in order; each block below carries its number.

1. admission: every document is strict JSON within the limits.
2. schema: every document has the shape of its kind.
3. contract: what the documents say of each other.
4. admission of the evidence, then binding: the exact rows.
5. contract: the rows are the planned ones.
6. reproduction: the physics of every row, then every finding.
7. decision: the recomputed verdict against the claim and what the reviewer requires.

A step that cannot run leaves its channel `not_checked`; nothing is believed because it was not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from atlas_schema.documents.base import Document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import ArmFindings, Findings, Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.verify import consistency
from atlas_schema.verify.documents import Parsed, parse
from atlas_schema.verify.outcome import PROFILES, Channel, Problem, Report, Status
from atlas_schema.verify.reading import positions


@dataclass(frozen=True, slots=True)
class Submission:
    """What the reviewer was given. ``open_evidence`` raises `EvidenceError`; None means that there is no evidence."""

    name: str
    raw: bytes
    preregistration: bytes | None = None
    run_log: bytes | None = None
    contract: bytes | None = None
    open_evidence: Callable[[], EvidenceSource] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the reviewer asks for. ``seed`` replaces the second bootstrap seed; ``pin`` is a pre-registration digest."""

    profile: str = "review"
    require: str = "preserved"
    pin: str | None = None
    seed: bytes | None = None


ESTABLISHES_NOT = (
    "that the models give these rows (replay is not part of this version)",
    "who issued the receipt (no signature was checked)",
)


def verify(submission: Submission, options: Options) -> Report:
    """Verify one document. Pure apart from reading evidence; raises nothing that the document could cause."""
    required = PROFILES[options.profile]
    if options.pin is not None and Channel.BINDING not in required:
        required = (*required, Channel.BINDING)  # a pin that nobody compares must not look compared
    report = Report(submission.name, profile=options.profile, required=required, require=options.require)
    report.establishes_not = ESTABLISHES_NOT
    # 1, 2. Admission and schema of the submitted document.
    parsed = parse("receipt", submission.raw, None, report)
    if parsed is not None:
        report.kind = str(parsed.value["kind"])
        if isinstance(parsed.model, Receipt):
            _verify_receipt(submission, options, parsed, parsed.model, report)
        else:
            _verify_other(parsed, options, report)
    for absent in (Channel.AUTHENTICITY, Channel.REPLAY):
        if absent in report.required:
            report.channel(absent).skipped = "not part of this version"
    report.skip_rest("an earlier channel did not pass")
    beside = {
        "preregistration": submission.preregistration,
        "run_log": submission.run_log,
        "contract": submission.contract,
    }
    _locate(report, {**beside, report.kind: submission.raw, "receipt": submission.raw})
    return report


def _verify_other(parsed: Parsed, options: Options, report: Report) -> None:
    """A contract, pre-registration or run log by itself: its shape and its agreement with itself.

    Under a profile that asks for a verdict it stays unproven: whoever asks about a receipt must not be answered with 0
    because somebody put another kind of document in its place.
    """
    report.establishes_not = ("anything about a model: this document is not a receipt",)
    if report.decides:
        for channel in set(report.required) - {Channel.ADMISSION, Channel.SCHEMA, Channel.CONTRACT}:
            report.channel(channel).skipped = f"a {report.kind} supports no verdict; --profile offline checks its form"
    else:
        report.required = tuple(c for c in report.required if c is not Channel.BINDING)
    result = report.channel(Channel.CONTRACT)
    if options.pin is not None:
        report.required = (*report.required, Channel.BINDING)
        _check_pin(options.pin, parsed.model, report)
    if isinstance(parsed.model, Contract):
        consistency.check_contract(parsed.model, result)
    elif isinstance(parsed.model, Preregistration):
        contract = built_in_contracts().get(parsed.model.contract.id)
        if contract is None:
            result.total += 1
            result.report(Problem("ATL-C001", "The cited contract is not built in.", document="receipt", path=("contract", "id"),
                                  stated=parsed.model.contract.id, unproven=True))  # fmt: skip
        else:
            consistency.check_preregistration(parsed.model, contract, result)
    elif isinstance(parsed.model, RunLog):
        consistency.check_log(parsed.model, result)


def _verify_receipt(submission: Submission, options: Options, parsed: Parsed, receipt: Receipt, report: Report) -> None:
    report.claim, report.arm = receipt.claim.verdict, receipt.claim.arm
    # 1, 2. Admission and schema of the documents beside it.
    documents = _supporting(submission, receipt, report)
    if documents is None:
        return
    plan, log, contract = documents
    report.facts = {"receipt": consistency.digest_of(receipt), "contract": f"{contract.id} {consistency.digest_of(contract)}",
                    "pre-registration": consistency.digest_of(plan), "evidence": receipt.evidence.root}  # fmt: skip
    # 3. Contract: what the documents say of each other.
    if Channel.CONTRACT in report.required:
        result = report.channel(Channel.CONTRACT)
        consistency.check_contract(contract, result)
        consistency.check_log(log, result)
        consistency.check_preregistration(plan, contract, result)
        consistency.check_receipt(receipt, plan, contract, log, result)
        for run in consistency.repeated_extractions(log):
            report.establishes_not += (f"why {run} was extracted more than once, with different models or settings",)
    if Channel.BINDING not in report.required:
        return
    # 4. Admission of the evidence, then binding.
    evidence = _bound_evidence(submission, options, receipt, plan, report)
    if evidence is None or report.status(Channel.CONTRACT) is Status.FAILED:
        return
    try:
        # 5. Contract: the rows are the planned ones.
        consistency.check_rows(evidence, plan, contract, report.channel(Channel.CONTRACT))
        if report.status(Channel.CONTRACT) is Status.PASSED and Channel.REPRODUCTION in report.required:
            # 6. Reproduction.
            findings = _reproduce(options, receipt, plan, contract, evidence, report)
            # 7. Decision.
            if findings is not None:
                _decide(options, receipt, plan, contract, evidence, findings, report)
    except EvidenceError as error:
        _inadmissible(error, report)


def _supporting(
    submission: Submission, receipt: Receipt, report: Report
) -> tuple[Preregistration, RunLog, Contract] | None:
    """Parse the documents that a receipt cites. Absent ones leave the contract channel unproven."""
    if report.profile == "schema":
        return None
    contract: Contract | None = built_in_contracts().get(receipt.contract.id)
    if submission.contract is not None:
        given = parse("contract", submission.contract, "contract", report)
        contract = given.model if given is not None and isinstance(given.model, Contract) else None
        if contract is not None:
            consistency.check_familiar(contract, built_in_contracts(), report.channel(Channel.CONTRACT))
            if contract.id not in built_in_contracts():
                report.establishes_not += ("anything by a published contract (this one came from --contract)",)
    found: dict[str, Parsed | None] = {}
    for kind, raw in (("preregistration", submission.preregistration), ("run_log", submission.run_log)):
        found[kind] = None if raw is None else parse(kind, raw, kind, report)
        if raw is None:
            _missing(report, kind)
    if contract is None and submission.contract is None:
        result = report.channel(Channel.CONTRACT)
        result.total += 1
        result.report(Problem("ATL-C001", "The cited contract is not built in.", document="receipt", path=("contract", "id"),
                              stated=receipt.contract.id, recomputed=", ".join(built_in_contracts()), unproven=True,
                              todo="give the contract's file with --contract"))  # fmt: skip
    plan, log = found["preregistration"], found["run_log"]
    if plan is None or log is None or contract is None:
        return None
    if not isinstance(plan.model, Preregistration) or not isinstance(log.model, RunLog):
        return None
    return plan.model, log.model, contract


def _missing(report: Report, kind: str) -> None:
    result = report.channel(Channel.CONTRACT)
    result.total += 1
    option = " or --preregistration" if kind == "preregistration" else ""
    result.report(Problem("ATL-C002" if kind == "preregistration" else "ATL-C005", f"The {kind} is absent.",
                          where=f"{kind}.json beside the receipt", unproven=True,
                          todo=f"put {kind}.json beside the receipt{option}"))  # fmt: skip


def _bound_evidence(
    submission: Submission, options: Options, receipt: Receipt, plan: Preregistration, report: Report
) -> EvidenceSource | None:
    from atlas_schema.verify.binding import check_binding

    result = report.channel(Channel.BINDING)
    if options.pin is not None:
        _check_pin(options.pin, plan, report)
    else:
        report.establishes_not += ("when the thresholds were fixed (no --pin: their date is the producer's word)",)
    if submission.open_evidence is None:
        result.total += 1
        result.report(Problem("ATL-B001", "The evidence is absent.", where="folder evidence/ beside the receipt", unproven=True,
                              todo="give the folder of Parquet files with --evidence"))  # fmt: skip
        return None
    try:
        evidence = submission.open_evidence()
        check_binding(receipt, evidence, result)
    except EvidenceError as error:
        _inadmissible(error, report)
        return None
    report.channel(Channel.ADMISSION).check(len(receipt.evidence.tables))
    return evidence if result.status is Status.PASSED else None


def _check_pin(pin: str, document: Document, report: Report) -> None:
    result = report.channel(Channel.BINDING)
    result.check()
    if not isinstance(document, Preregistration) or pin != consistency.digest_of(document):
        result.report(Problem("ATL-B005", "This is not the pre-registration that you pinned.", document="preregistration",
                              stated=consistency.digest_of(document), recomputed=pin))  # fmt: skip


def _inadmissible(error: EvidenceError, report: Report) -> None:
    """Record evidence that could not be read. A bundle with missing or extra files is a matter of binding."""
    from atlas_schema.verify.rules import RULES

    channel = RULES[error.rule].channel
    report.channel(channel).check()
    report.channel(channel).report(Problem(error.rule, error.what, where=error.where, stated=error.found, recomputed=error.expected,
                                           todo=error.todo))  # fmt: skip


def _reproduce(
    options: Options,
    receipt: Receipt,
    plan: Preregistration,
    contract: Contract,
    evidence: EvidenceSource,
    report: Report,
) -> Findings | None:
    """Run steps 6a (rows) and 6b (findings); rows that break the physics support no findings."""
    from atlas_schema.measures.summarise import summarise
    from atlas_schema.verify import reproduction

    result = report.channel(Channel.REPRODUCTION)
    reproduction.check_runs(receipt, evidence, plan, contract, result)
    reproduction.check_physics(evidence, plan, contract, result)
    if result.problems:
        return None
    findings = summarise(evidence, contract, plan, receipt.evidence.root)
    reproduction.check_findings(receipt, findings, contract, result)
    return findings


def _decide(
    options: Options, receipt: Receipt, plan: Preregistration, contract: Contract, evidence: EvidenceSource,
    findings: Findings, report: Report,
) -> None:  # fmt: skip
    result = report.channel(Channel.DECISION)
    result.check()
    by_arm = {a.arm: a for a in findings.arms}
    report.verdict = by_arm[receipt.claim.arm].verdict
    report.reasons = _reasons(by_arm[receipt.claim.arm])
    if report.verdict != receipt.claim.verdict:
        result.report(Problem("ATL-D001", "The rows do not support the claim.", document="receipt", path=("claim", "verdict"),
                              stated=receipt.claim.verdict, recomputed=report.verdict,
                              todo="read the recomputed predicates; quote those, not the claim"))  # fmt: skip
    if options.seed is not None:
        from atlas_schema.measures.summarise import summarise

        result.check()
        again = {a.arm: a for a in summarise(evidence, contract, plan, receipt.evidence.root, options.seed).arms}
        if again[receipt.claim.arm].verdict != report.verdict:
            result.report(Problem("ATL-D002", "The verdict changes with your seed.", stated=report.verdict,
                                  recomputed=again[receipt.claim.arm].verdict, unproven=True))  # fmt: skip


def _reasons(arm: ArmFindings) -> tuple[str, ...]:
    """Return what speaks against 'preserved', from the recomputed findings."""
    cells = [
        f"layer {c.layer} {c.definition} {c.form}: {c.state}, {c.reason}"
        for c in arm.cells
        if c.state in ("above", "undetermined")
    ]
    domains = [f"domain {d.domain}: {d.state}, {d.reason}" for d in arm.damage if d.state in ("above", "undetermined")]
    score = arm.success
    task = [] if score.state == "reached" else [f"task score {score.value:.3f}: {score.state}, {score.reason}"]
    return (*cells, *domains, *task)


def _locate(report: Report, raws: dict[str, bytes | None]) -> None:
    """Add line and column to problems that name a field of a document, with one pass over each document."""
    broken = {p.document for p in report.channel(Channel.ADMISSION).problems if p.rule == "ATL-A001"}
    for name, raw in raws.items():
        if raw is None or name in broken:
            continue
        named = [
            (result, at, problem.path)
            for result in report.channels.values()
            for at, problem in enumerate(result.problems)
            if problem.document == name and problem.position is None and problem.path
        ]
        if not named:
            continue
        found = positions(raw, {path for _, _, path in named})
        for result, at, path in named:
            result.problems[at] = replace(result.problems[at], position=found.get(path))
