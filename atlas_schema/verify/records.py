"""Measurements and predictions: the same channels, asked of other documents.

A measurement: contract (its parts agree), binding and reproduction (the rows that its values cite), decision (its claims).
A prediction: contract only; a stated outcome is derived again from the measurements it cites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from atlas_schema.claims.library import built_in_predictions
from atlas_schema.claims.operators import wording
from atlas_schema.claims.record import (
    ClaimResult,
    Fault,
    judge_claims,
    licence_faults,
    record_faults,
    statement_faults,
)
from atlas_schema.claims.settle import declared_digest, outcome_faults, prediction_faults, record_digest
from atlas_schema.claims.vacuous import vacuous_claims
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Prediction
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.columns import Rows
from atlas_schema.verify.outcome import Channel, ChannelResult, ClaimLine, Problem, Report, Status
from atlas_schema.vocabulary import load_vocabulary

NO_ROWS = "the record cites no rows"
_RULES = {"contradicted": "ATL-D040", "unlicensed": "ATL-D042", "undetermined": "ATL-D041"}
"""Rules of claims that are not supported, the worst first."""
_ADVICE = {
    "contradicted": "withdraw the claim, or correct what was recorded",
    "undetermined": "read why; more digits, more data or another measurement may decide it",
    "unlicensed": "claim less, or measure more",
}


def verify_measurement(
    record: Measurement, open_rows: Callable[[], Rows] | None, report: Report, inadmissible: Callable[[EvidenceError], None]
) -> None:  # fmt: skip
    """Verify one measurement. ``inadmissible`` records evidence that could not be read."""
    report.facts |= {"measurement": record_digest(record)} | (
        {"evidence": record.evidence.root} if record.evidence else {}
    )
    report.establishes_not = tuple(_not_established(record))
    if Channel.CONTRACT not in report.required:
        return
    # 1. Contract: its parts agree with each other and with the vocabulary.
    contract = report.channel(Channel.CONTRACT)
    contract.check(len(record.series) + sum(len(s.values) for s in record.series) + len(record.claims))
    judged = judge_claims(record)
    _record(contract, (*record_faults(record, load_vocabulary()), *statement_faults(judged), *vacuous_claims(record)))
    if contract.status is Status.FAILED:
        return
    # 2. Binding and reproduction: the rows that its values cite.
    if record.evidence is None:
        for channel in {Channel.BINDING, Channel.REPRODUCTION} & set(report.required):
            report.channel(channel).inapplicable = NO_ROWS
    elif Channel.BINDING in report.required:
        try:
            rows = _bound(record, open_rows, report)
            if rows is not None and Channel.REPRODUCTION in report.required:
                _reproduce(record, rows, report.channel(Channel.REPRODUCTION))
        except EvidenceError as error:
            inadmissible(error)
        if report.status(Channel.BINDING) is not Status.PASSED or report.status(Channel.REPRODUCTION) is Status.FAILED:
            return
    # 3. Decision: every claim over the record's own values.
    if report.decides:
        _decide(record, [result for result in judged if isinstance(result, ClaimResult)], report)


def prediction_facts(prediction: Prediction) -> dict[str, str]:
    """Return what identifies a prediction, before and after it was settled."""
    return {
        "prediction": record_digest(prediction),
        "as declared": declared_digest(prediction),
        "status": prediction.outcome.status,
    }


def check_prediction(prediction: Prediction, given: Iterable[Measurement], result: ChannelResult) -> None:
    """Check that a prediction could be settled, and that a stated outcome is what its measurements give."""
    result.check(len(prediction.requires) + len(prediction.rule.given) + len(prediction.rule.clauses) + 2)
    vocabulary = load_vocabulary()
    shipped = built_in_predictions().get(prediction.id)
    faults = list(prediction_faults(prediction, vocabulary))
    if shipped is not None and declared_digest(shipped) != declared_digest(prediction):
        faults.append(Fault("ATL-C067", "Another prediction bears the id of a published one.", ("id",), declared_digest(prediction),
                            declared_digest(shipped), "atlas prediction show prints it; give a changed one another id"))  # fmt: skip
    _record(result, faults or outcome_faults(prediction, list(given), vocabulary))


def _record(result: ChannelResult, faults: Iterable[Fault]) -> None:
    for fault in faults:
        result.report(Problem(fault.rule, fault.what, document="receipt", path=fault.path, stated=fault.stated[:400],
                              recomputed=fault.expected[:400], todo=fault.todo, unproven=fault.unproven))  # fmt: skip


def _bound(record: Measurement, open_rows: Callable[[], Rows] | None, report: Report) -> Rows | None:
    from atlas_schema.evidence.digest import evidence_root
    from atlas_schema.evidence.measured import measured_root

    result = report.channel(Channel.BINDING)
    if open_rows is None or record.evidence is None:
        result.total += 1
        result.report(Problem("ATL-B001", "The evidence is absent.", where="folder evidence/ beside the record", unproven=True,
                              todo="give the folder of measurement_row.parquet with --evidence"))  # fmt: skip
        return None
    rows = open_rows()
    report.channel(Channel.ADMISSION).check()
    found, stated = measured_root(rows), record.evidence.tables[0]
    result.unit = "tables"
    result.check(2)
    for rule, field, what, a, b in (
        ("ATL-B002", "rows", "Table measurement_row has another number of rows.", str(stated.rows), str(found.rows)),
        ("ATL-B003", "root", "Table measurement_row has other content.", stated.root, found.root),
    ):
        if a != b:
            result.report(Problem(rule, what, document="receipt", path=("evidence", "tables", 0, field), stated=a, recomputed=b,
                                  todo="obtain the rows that the record was written for"))  # fmt: skip
    if record.evidence.root != evidence_root([found]):
        result.report(Problem("ATL-B004", "The evidence root is another one.", document="receipt", path=("evidence", "root"),
                              stated=record.evidence.root, recomputed=evidence_root([found])))  # fmt: skip
    return rows if result.status is Status.PASSED else None


def _reproduce(record: Measurement, rows: Rows, result: ChannelResult) -> None:
    from atlas_schema.claims.rows import row_faults, rows_of

    result.unit = "numbers"
    for fault in row_faults(record, rows_of(rows, record.id)):
        result.check()
        _record(result, () if fault is None else (fault,))


def _decide(record: Measurement, judged: list[ClaimResult], report: Report) -> None:
    result = report.channel(Channel.DECISION)
    result.unit = "claims"
    report.claims = tuple(
        ClaimLine(r.claim.id, r.claim.says, wording(r.claim.statement), r.claim.strength, r.word,
                  r.unlicensed if r.word == "unlicensed" else r.because)
        for r in judged
    )  # fmt: skip
    if not judged:
        result.skipped = "the record claims nothing; --profile offline checks its form"
    result.check(len(judged))
    ranked = [
        (i, j, line) for i, (j, line) in enumerate(zip(judged, report.claims, strict=True)) if line.outcome in _RULES
    ]
    for i, found, line in sorted(ranked, key=lambda entry: list(_RULES).index(entry[2].outcome)):
        what = f"A claim is {line.outcome}{' by its own record' if line.outcome == 'contradicted' else ''}: {line.id}."
        result.report(Problem(_RULES[line.outcome], what, document="receipt", path=("claims", i, "says"), stated=found.claim.says,
                              recomputed=line.because, todo=_ADVICE[line.outcome], unproven=line.outcome != "contradicted"))  # fmt: skip
    faults = list(licence_faults(record))
    _record(result, faults)
    counts = Counter(line.outcome for line in report.claims) + Counter(unlicensed=len(faults))
    worst = next((word for word in _RULES if counts[word]), "supported" if judged else None)
    report.verdict = "refuted" if worst == "contradicted" else worst


def _not_established(record: Measurement) -> Iterator[str]:
    values = [v for s in record.series for v in s.values]
    asserted = sum(v.rows is None for v in values)
    if asserted:
        yield f"where {asserted} of {len(values)} values come from (they cite no rows)"
    if any(v.uncertainty is not None and v.uncertainty.method == "stated" for v in values):
        yield "how stated uncertainties were computed"
    if record.claims:
        yield "that the words of a claim mean what was checked (a reader compares)"
    yield "that the instrument was run on this model under these conditions, and how often (the producer's word)"
    yield "anything about a post-trained model: this document is not a receipt"
