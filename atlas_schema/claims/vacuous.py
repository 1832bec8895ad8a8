"""Statements that hold whatever the values are: ``0 < 1``, a series of one value that rises, labels that are the whole series.

A statement is evaluated again with every value replaced by all numbers that a record can hold. What is decided even then
says nothing of any record. Interval arithmetic errs towards undetermined, so nothing that could come out otherwise is
called vacuous; that some statements are vacuous and not found (``x - x = 0``) is what that costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from atlas_schema.claims.expression import ClaimError, Scope, Vector, references
from atlas_schema.claims.interval import Interval
from atlas_schema.claims.operators import Outcome, judge
from atlas_schema.claims.record import Fault, Path
from atlas_schema.documents.claim import BeyondRecord, Statement
from atlas_schema.documents.measurement import Measurement

_LARGEST = Fraction(10) ** 130
ANYTHING = Interval(-_LARGEST, _LARGEST)
"""More than every number that a document can state."""
OPERANDS = ("series", "numerator", "denominator", "bound", "left", "right", "value", "lower", "upper", "expression")
"""Fields of statements that are expressions."""


def expressions(statement: Statement) -> Iterator[tuple[str, str]]:
    """Yield the fields of a statement that are expressions."""
    for field in OPERANDS:
        text = getattr(statement, field, None)
        if text is not None:
            yield field, text


def vacuous_claims(record: Measurement) -> Iterator[Fault]:
    """Yield the claims that the record's own values could not contradict (C161). Claims that cannot be read are passed over."""
    scope = Scope({s.name: {v.at: ANYTHING for v in s.values} for s in record.series})
    for i, claim in enumerate(record.claims):
        if _decided(claim.statement, scope) is Outcome.SUPPORTED:
            yield _fault("A claim holds whatever the values are.", ("claims", i, "statement"))


def vacuous_clause(statement: Statement, path: Path) -> Iterator[Fault]:
    """Yield a fault where a clause of a prediction is decided before anything is measured (C161).

    A series that is named as a whole has labels that nobody knows yet; a clause over one is vacuous only where it names nothing.
    """
    try:
        named = [reference for _, text in expressions(statement) for reference in references(text)]
    except ClaimError:
        return
    if any(not labels for _, labels in named) or isinstance(statement, BeyondRecord):
        return
    series: dict[str, Vector] = {}
    for name, labels in named:
        series[name] = {**series.get(name, {}), **dict.fromkeys(labels, ANYTHING)}
    if _decided(statement, Scope(series)) is not Outcome.UNDETERMINED:
        yield _fault("A clause is decided whatever is measured.", path)


def _decided(statement: Statement, scope: Scope) -> Outcome:
    try:
        return judge(statement, scope).outcome
    except ClaimError:
        return Outcome.UNDETERMINED


def _fault(what: str, path: Path) -> Fault:
    return Fault("ATL-C161", what, path, "true or false of any numbers", "a statement that some values would contradict",
                 "say what the values must be, or use beyond_record for what they do not bear on")  # fmt: skip
