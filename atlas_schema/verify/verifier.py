"""The verifier: documents and evidence in, a report out. No terminal, no exit, no network.

Steps, in order; each block below carries its number.

1. admission: every document is strict JSON within the limits.
2. schema: every document has the shape of its kind.
3. contract: what the documents say of each other.
   authenticity, where the reviewer gave a key: who signed these very documents and files.
4. admission of the evidence, then binding: the exact rows.
5. contract: the rows are the planned ones.
6. reproduction: the physics of every row, then every finding.
7. decision: the recomputed verdict against the claim and what the reviewer requires.

A step that cannot run leaves its channel `not_checked`; nothing is believed because it was not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from atlas_schema.documents.base import Document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Prediction
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.read import Read
from atlas_schema.documents.receipt import ArmFindings, Findings, Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.protocol.fidelity import fidelity
from atlas_schema.protocol.judgement import subject_digest
from atlas_schema.signing.keys import PublicKey
from atlas_schema.signing.sigstore_bundle import SigstoreTrust
from atlas_schema.signing.statement import File, Statement
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.study.plan import planned_runs
from atlas_schema.verify import authenticity, consistency, protocol
from atlas_schema.verify.authenticity import Signed
from atlas_schema.verify.documents import Parsed, parse
from atlas_schema.verify.outcome import PROFILES, REQUIREMENTS, UNASKED, Channel, Problem, Report, Status
from atlas_schema.verify.reading import positions
from atlas_schema.verify.records import check_prediction, prediction_facts, verify_measurement
from atlas_schema.verify.scope import scope

if TYPE_CHECKING:
    from atlas_schema.measures.collect import Sums
    from atlas_schema.verify.examine import Examined


@dataclass(frozen=True, slots=True)
class Submission:
    """What the reviewer was given. ``open_evidence`` raises `EvidenceError`; None means that there is no evidence.

    ``open_rows`` opens the same folder as rows of a measurement; ``measurements`` are those that settle a prediction.
    ``signature`` and ``bundle`` are a DSSE envelope and a Sigstore bundle; ``manifest`` hashes every file of the evidence,
    ``files`` lists them unread.
    """

    name: str
    raw: bytes
    preregistration: bytes | None = None
    run_log: bytes | None = None
    contract: bytes | None = None
    open_evidence: Callable[[], EvidenceSource] | None = None
    open_rows: Callable[[], Rows] | None = None
    measurements: tuple[bytes, ...] = ()
    signature: Signed | None = None
    bundle: Signed | None = None
    manifest: Callable[[], tuple[File, ...]] | None = None
    files: Callable[[], tuple[File, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the reviewer asks for. ``seed`` replaces the second bootstrap seed; ``pin`` is a pre-registration digest.

    At least ``threshold`` of the distinct ``keys`` must have signed; ``sigstore`` asks for a bundle by an identity.
    """

    profile: str = "review"
    require: str = UNASKED
    pin: str | None = None
    seed: bytes | None = None
    keys: tuple[PublicKey, ...] = ()
    threshold: int = 1
    sigstore: SigstoreTrust | None = None

    @property
    def signed(self) -> bool:
        """Whether the reviewer asks who vouches."""
        return bool(self.keys) or self.sigstore is not None


UNSIGNED = "who issued the receipt (no signature was checked)"
DOUBTED = "who issued the receipt (its signature did not pass)"
ESTABLISHES_NOT = ("that the models give these rows (replay is not part of this version)", UNSIGNED)
SIGNED = "that who signed told the truth: a signature says who vouches, and for which bytes"


def verify(submission: Submission, options: Options) -> Report:
    """Verify one document. Pure apart from reading evidence; raises nothing that the document could cause."""
    required = PROFILES[options.profile]
    if options.pin is not None and Channel.BINDING not in required:
        required = (*required, Channel.BINDING)  # a pin that nobody compares must not look compared
    if options.signed and Channel.AUTHENTICITY not in required:
        required = (*required, Channel.AUTHENTICITY)
    report = Report(submission.name, profile=options.profile, required=required, require=options.require)
    report.establishes_not = ESTABLISHES_NOT
    # 1, 2. Admission and schema of the submitted document.
    parsed = parse("receipt", submission.raw, None, report)
    if parsed is not None:
        report.kind = str(parsed.value["kind"])
        refused = _unmeetable(options, report)
        if refused:
            return replace(report, channels={}, establishes_not=(), usage=refused)
        if isinstance(parsed.model, Receipt):
            _verify_receipt(submission, options, parsed, parsed.model, report)
        elif isinstance(parsed.model, Measurement):
            _verify_measurement(submission, options, parsed.model, report)
        else:
            _verify_other(submission, parsed, options, report)
    if Channel.REPLAY in report.required:
        report.channel(Channel.REPLAY).skipped = "not part of this version"
    if Channel.AUTHENTICITY in report.required and not options.signed:
        report.channel(Channel.AUTHENTICITY).skipped = "no key was given (--key)"
    if options.signed:
        now = SIGNED if report.status(Channel.AUTHENTICITY) is Status.PASSED else DOUBTED
        report.establishes_not = tuple(now if x == UNSIGNED else x for x in report.establishes_not)
    report.skip_rest("an earlier channel did not pass")
    beside = {
        "preregistration": submission.preregistration,
        "run_log": submission.run_log,
        "contract": submission.contract,
    }
    _locate(report, {**beside, report.kind: submission.raw, "receipt": submission.raw})
    return report


def _unmeetable(options: Options, report: Report) -> str:
    """Say what of the call a document of this kind can never meet; empty where there is nothing.

    Who requires nothing asks about a receipt. Another document in its place is answered by its own verdict, or by none.
    """
    kind, known = report.kind, REQUIREMENTS.get(report.kind, ())
    if kind == "measurement" and options.seed is not None:
        return str(UsageError("A measurement has no bootstrap, so that --seed decides nothing of it.", where=report.document,
                              todo="leave out --seed"))  # fmt: skip
    if not report.decides or options.require in (UNASKED, *known):
        return ""
    takes = f"takes --require {' or '.join(known)}" if known else "has no verdict: --profile offline checks its form"
    return str(UsageError(f"No {kind} can be '{options.require}', so that what you require could never be met.", where=report.document,
                          expected=", ".join(known) or "a document that has a verdict", found=f"--require {options.require}",
                          todo=f"check that this is the document you mean; a {kind} {takes}"))  # fmt: skip


def _verify_measurement(submission: Submission, options: Options, record: Measurement, report: Report) -> None:
    if options.signed:
        report.channel(Channel.AUTHENTICITY).skipped = "only receipts are signed"
    if options.pin is not None:
        _check_pin(options.pin, record, report)
    if Channel.CONTRACT in report.required:
        _verify_words(submission, record, report)
    verify_measurement(record, submission.open_rows, report, lambda error: _inadmissible(error, report))


def _verify_other(submission: Submission, parsed: Parsed, options: Options, report: Report) -> None:
    """A contract, pre-registration, run log, Read or prediction by itself: its shape and its agreement with itself.

    Under a profile that asks for a verdict it stays unproven: whoever asks about a receipt must not be answered with 0
    because somebody put another kind of document in its place.
    """
    report.establishes_not = ("anything about a model: this document is not a receipt",)
    if report.decides:
        for channel in set(report.required) - {Channel.ADMISSION, Channel.SCHEMA, Channel.CONTRACT}:
            report.channel(channel).skipped = f"a {report.kind} supports no verdict; --profile offline checks its form"
    else:
        report.required = tuple(c for c in report.required if c is not Channel.BINDING)
    if options.signed:
        report.channel(Channel.AUTHENTICITY).skipped = "only receipts are signed"
    if options.pin is not None:
        report.required = (*report.required, Channel.BINDING)
        _check_pin(options.pin, parsed.model, report)
    if Channel.CONTRACT in report.required:
        _check_other(submission, parsed, report)


def _check_other(submission: Submission, parsed: Parsed, report: Report) -> None:
    """Check what a document that is no receipt says of itself, and of what it cites."""
    result = report.channel(Channel.CONTRACT)
    if isinstance(parsed.model, Contract):
        consistency.check_contract(parsed.model, result)
    elif isinstance(parsed.model, Preregistration):
        contract = _contract(submission, parsed.model.contract.id, report)
        if contract is not None:
            consistency.check_preregistration(parsed.model, contract, result)
    elif isinstance(parsed.model, RunLog):
        consistency.check_log(parsed.model, result)
        protocol.check_protocol(parsed.model, result)
        report.facts |= {"head": parsed.model.steps[-1].hash, "fidelity": fidelity(parsed.model).words}
    elif isinstance(parsed.model, Prediction):
        given = [parse("measurement", raw, "measurement", report) for raw in submission.measurements]
        check_prediction(parsed.model, [p.model for p in given if p and isinstance(p.model, Measurement)], result)
        report.facts |= prediction_facts(parsed.model)
    else:
        _verify_words(submission, parsed.model, report)


def _verify_words(submission: Submission, document: Document, report: Report) -> None:
    """What persons wrote into a document that is no receipt: judgements and Reads, against the log beside it."""
    result = report.channel(Channel.CONTRACT)
    given = None if submission.run_log is None else parse("run_log", submission.run_log, "run_log", report)
    log = given.model if given is not None and isinstance(given.model, RunLog) else None
    if log is not None:
        consistency.check_log(log, result)
        protocol.check_protocol(log, result)
        report.facts["fidelity"] = _fidelity_of(document, log)
    if isinstance(document, Read):
        protocol.check_read(document, log, result)
    protocol.check_judgements(document, log, result)


def _fidelity_of(document: Document, log: RunLog) -> str:
    """The tier of the log, where the log speaks of this document: a log of something else lends it nothing."""
    subject = subject_digest(document)
    if any(a.digest == subject for step in log.steps for a in step.outputs):
        return fidelity(log, None if isinstance(document, Read) else subject).words
    return "no tier: the log beside it has no step that made this document"


def _verify_receipt(submission: Submission, options: Options, parsed: Parsed, receipt: Receipt, report: Report) -> None:
    report.claim, report.arm = receipt.claim.verdict, receipt.claim.arm
    # 1, 2. Admission and schema of the documents beside it.
    documents = _supporting(submission, receipt, report)
    files = None
    if options.signed:
        files = _vouched(submission, options, None if documents is None else documents[2], report)
    if documents is None:
        return
    plan, log, contract = documents
    report.facts |= scope(receipt, plan)
    report.facts |= {"receipt": consistency.digest_of(receipt), "contract": f"{contract.id} {consistency.digest_of(contract)}",
                     "pre-registration": consistency.digest_of(plan), "evidence": receipt.evidence.root,
                     "fidelity": fidelity(log, subject_digest(receipt)).words}  # fmt: skip
    # 3. Contract: what the documents say of each other.
    if Channel.CONTRACT in report.required:
        result = report.channel(Channel.CONTRACT)
        consistency.check_contract(contract, result)
        consistency.check_log(log, result)
        protocol.check_protocol(log, result)
        protocol.check_judgements(receipt, log, result)
        consistency.check_preregistration(plan, contract, result)
        consistency.check_receipt(receipt, plan, contract, log, result)
        for run in consistency.repeated_extractions(log, planned_runs(plan, contract)):
            report.establishes_not += (f"why {run} was extracted more than once, with different models or settings",)
    if Channel.BINDING not in report.required:
        return
    # 4 to 6. Admission of the evidence, then one pass over its rows.
    examined = _examined(submission, options, plan, contract, files, report)
    if examined is None:
        return
    # 4. Binding: are these the rows? Nothing that was found in others is told.
    from atlas_schema.verify.binding import check_binding

    result = report.channel(Channel.BINDING)
    check_binding(receipt, examined.roots, result)
    report.channel(Channel.ADMISSION).check(len(receipt.evidence.tables))
    if result.status is not Status.PASSED or report.status(Channel.CONTRACT) is Status.FAILED:
        return
    # 5. Contract: the rows are the planned ones.
    report.channel(Channel.CONTRACT).absorb(examined.contract)
    if examined.error is not None:
        _inadmissible(examined.error, report)
    elif report.status(Channel.CONTRACT) is Status.PASSED and Channel.REPRODUCTION in report.required:
        # 6. Reproduction. 7. Decision.
        made = _reproduce(receipt, plan, contract, examined, report)
        if made is not None:
            _decide(options, receipt, plan, contract, *made, report)


def _supporting(
    submission: Submission, receipt: Receipt, report: Report
) -> tuple[Preregistration, RunLog, Contract] | None:
    """Parse the documents that a receipt cites. Absent ones leave the contract channel unproven."""
    if report.profile == "schema":
        return None
    contract = _contract(submission, receipt.contract.id, report)
    found: dict[str, Parsed | None] = {}
    for kind, raw in (("preregistration", submission.preregistration), ("run_log", submission.run_log)):
        found[kind] = None if raw is None else parse(kind, raw, kind, report)
        if raw is None:
            _missing(report, kind)
    plan, log = found["preregistration"], found["run_log"]
    if contract is None and plan is not None and isinstance(plan.model, Preregistration):
        consistency.check_citations(receipt, plan.model, report.channel(Channel.CONTRACT))
    if plan is None or log is None or contract is None:
        return None
    if not isinstance(plan.model, Preregistration) or not isinstance(log.model, RunLog):
        return None
    return plan.model, log.model, contract


def _contract(submission: Submission, cited: str, report: Report) -> Contract | None:
    """Return the contract that the reviewer gave, or else the built-in one of the cited id; record what is wrong with either."""
    result = report.channel(Channel.CONTRACT)
    if submission.contract is None:
        if cited not in built_in_contracts():
            result.total += 1
            result.report(Problem("ATL-C001", "The cited contract is not built in.", document="receipt", path=("contract", "id"),
                                  stated=cited, recomputed=", ".join(built_in_contracts()), unproven=True,
                                  todo="give the contract's file with --contract"))  # fmt: skip
        return built_in_contracts().get(cited)
    given = parse("contract", submission.contract, "contract", report)
    if given is None or not isinstance(given.model, Contract):
        return None
    consistency.check_familiar(given.model, built_in_contracts(), result)
    if given.model.id not in built_in_contracts():
        report.establishes_not += ("anything by a published contract (this one came from --contract)",)
    return given.model


def _missing(report: Report, kind: str) -> None:
    result = report.channel(Channel.CONTRACT)
    result.total += 1
    option = " or --preregistration" if kind == "preregistration" else ""
    result.report(Problem("ATL-C002" if kind == "preregistration" else "ATL-C005", f"The {kind} is absent.",
                          where=f"{kind}.json beside the receipt", unproven=True,
                          todo=f"put {kind}.json beside the receipt{option}"))  # fmt: skip


def statement_over(submission: Submission) -> Statement | None:
    """Return what a signer of a submission vouches for, None where a part of it is absent. Checks nothing else of it."""
    scratch = Report(submission.name)
    parsed = parse("receipt", submission.raw, "receipt", scratch)
    if parsed is None or not isinstance(parsed.model, Receipt) or submission.manifest is None:
        return None
    supporting = _supporting(submission, parsed.model, scratch)
    if supporting is None:
        return None
    digests = {role: digest for role, digest in _digests(submission, supporting[2]).items() if digest is not None}
    return Statement(digests, submission.manifest())


def _digests(submission: Submission, contract: Contract | None) -> dict[str, str | None]:
    """Return the SHA-256 of every document by role, None for an absent one."""
    raws = {"receipt": submission.raw, "preregistration": submission.preregistration, "run_log": submission.run_log}
    found = {role: None if raw is None else hashlib.sha256(raw).hexdigest() for role, raw in raws.items()}
    return {**found, "contract": None if contract is None else consistency.digest_of(contract).removeprefix("sha256:")}


def _vouched(
    submission: Submission, options: Options, contract: Contract | None, report: Report
) -> tuple[File, ...] | None:
    """Check who signed. Returns the files of the evidence that they vouch for, None where authenticity did not pass."""
    result = report.channel(Channel.AUTHENTICITY)
    documents = _digests(submission, contract)
    files: set[File] = set()  # two statements that name other bytes for one file are both held against it
    signers: list[str] = []
    if options.keys:
        found = authenticity.check_keys(submission.signature, options.keys, options.threshold, documents, result)
        files |= set(found[0] if found else ())
        signers += found[1] if found else ()
    if options.sigstore is not None:
        files |= set(authenticity.check_sigstore(submission.bundle, options.sigstore, documents, result) or ())
        signers.append(f"{options.sigstore.identity} ({options.sigstore.issuer})")
    if result.status is not Status.PASSED or not files:
        return None
    report.facts["signed by"] = ", ".join(signers)
    return tuple(sorted(files))


def _examined(
    submission: Submission, options: Options, plan: Preregistration, contract: Contract, files: tuple[File, ...] | None,
    report: Report,
) -> Examined | None:  # fmt: skip
    """Open the evidence and read it once. Returns None where there is none, or it is not admissible."""
    from atlas_schema.verify.binding import check_files
    from atlas_schema.verify.examine import examine  # reading a document alone needs neither rows nor measures

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
    reproduce = Channel.REPRODUCTION in report.required and report.status(Channel.CONTRACT) is not Status.FAILED
    try:
        if files is not None:
            check_files(files, _found(submission, files), result)
        return examine(submission.open_evidence(), plan, contract, reproduce=reproduce)
    except EvidenceError as error:
        _inadmissible(error, report)
        return None


def _found(submission: Submission, signed: tuple[File, ...]) -> tuple[File, ...] | None:
    """Return the files of the evidence, hashed where their names and sizes are the signed ones: others can be of any size."""
    here = None if submission.files is None else submission.files()
    if here is not None and {(f.name, f.size) for f in here} != {(f.name, f.size) for f in signed}:
        return here
    return None if submission.manifest is None else submission.manifest()


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
    receipt: Receipt, plan: Preregistration, contract: Contract, examined: Examined, report: Report
) -> tuple[Sums, Findings] | None:
    """Run steps 6a (rows) and 6b (findings); rows that break the physics support no findings."""
    from atlas_schema.measures.summarise import conclude
    from atlas_schema.verify import reproduction

    result = report.channel(Channel.REPRODUCTION)
    try:
        reproduction.check_runs(receipt, examined.evidence, plan, contract, result)
    except EvidenceError as error:
        _inadmissible(error, report)
        return None
    result.absorb(examined.physics)
    if result.problems or examined.sums is None:
        return None
    findings = conclude(examined.sums, contract, plan, receipt.evidence.root)
    reproduction.check_findings(receipt, findings, contract, result)
    return examined.sums, findings


def _decide(
    options: Options, receipt: Receipt, plan: Preregistration, contract: Contract, sums: Sums, findings: Findings, report: Report
) -> None:  # fmt: skip
    result = report.channel(Channel.DECISION)
    result.check()
    by_arm = {a.arm: a for a in findings.arms}
    report.verdict = by_arm[receipt.claim.arm].verdict
    report.reasons, report.remarks = _reasons(by_arm[receipt.claim.arm]), _remarks(by_arm[receipt.claim.arm])
    if sums.runs[f"arm:{receipt.claim.arm}"].weights == sums.runs["base"].weights:
        report.remarks += ("this arm's weights are the base's: nothing was trained, or nothing of it is here",)
    if report.verdict != receipt.claim.verdict:
        result.report(Problem("ATL-D001", "The rows do not support the claim.", document="receipt", path=("claim", "verdict"),
                              stated=receipt.claim.verdict, recomputed=report.verdict,
                              todo="read the recomputed predicates; quote those, not the claim"))  # fmt: skip
    if options.seed is not None:
        from atlas_schema.measures.summarise import conclude

        result.check()
        again = {a.arm: a for a in conclude(sums, contract, plan, receipt.evidence.root, options.seed).arms}
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


def _remarks(arm: ArmFindings) -> tuple[str, ...]:
    """Return what stands beside the verdict and decided nothing of it, from the recomputed findings."""
    three = arm.three_states
    states = (
        f"boundary sensitivity {three.boundary_sensitivity}, co-active compatibility {three.coactive_compatibility}, "
        f"output damage {three.output_damage}"
    )
    margin = () if arm.margin_use.citable else (f"margins may not be cited: {arm.margin_use.reason}",)
    return (states.replace("not_applicable", "not applicable"), *margin)


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
