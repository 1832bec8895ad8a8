"""One measurement by itself: whether its parts agree, what its claims come to, and what its data license."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from atlas_schema.claims.expression import ClaimError, Scope
from atlas_schema.claims.interval import Interval, show, written
from atlas_schema.claims.operators import Outcome, judge
from atlas_schema.documents.claim import Claim
from atlas_schema.documents.measurement import Measurement, Series, Value
from atlas_schema.vocabulary import Vocabulary, VocabularyError

Path = tuple[str | int, ...]
LEAST_SAMPLE = 2
"""Observations below which no interval can come from the data: one has no spread."""
ROWS_TABLE = "measurement_row"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document: the rule it breaks, the field, and what to do. ``unproven``: too weak, not false."""

    rule: str
    what: str
    path: Path
    stated: str = ""
    expected: str = ""
    todo: str = ""
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What a claim comes to. ``unlicensed`` says why it claims more than its data may; contradiction counts before it."""

    claim: Claim
    outcome: Outcome
    because: str
    unlicensed: str = ""

    @property
    def word(self) -> Literal["supported", "contradicted", "undetermined", "unlicensed"]:
        if self.outcome is not Outcome.CONTRADICTED and self.unlicensed:
            return "unlicensed"
        return self.outcome.value


def interval_of(value: Value, series: Series, over: Literal["numbers", "uncertainty"]) -> Interval:
    """Return what a value may be: by its digits, or by its stated uncertainty where it has one."""
    if over == "numbers" or value.uncertainty is None:
        return _written(value.value, series)
    return Interval(_written(value.uncertainty.lower, series).lower, _written(value.uncertainty.upper, series).upper)


def scope_of(record: Measurement, over: Literal["numbers", "uncertainty"] = "numbers", role: str = "") -> Scope:
    """Return the record's series as an expression sees them, under ``series`` or ``role.series``."""
    prefix = f"{role}." if role else ""
    return Scope({prefix + s.name: {v.at: interval_of(v, s, over) for v in s.values} for s in record.series})


def sample_of(value: Value, series: Series) -> int | None:
    """Return how many observations stand behind a value, or None where the record does not say."""
    return series.sample.size if value.n is None else value.n


# --- claims -------------------------------------------------------------------------------------------------------


def judge_claims(record: Measurement) -> tuple[ClaimResult | ClaimError, ...]:
    """Evaluate every claim; a claim that cannot be read, or asks for what is not there, gives its error."""
    by_numbers = scope_of(record)
    by_uncertainty = scope_of(record, "uncertainty")
    values = {(s.name, v.at): (v, s) for s in record.series for v in s.values}
    found: list[ClaimResult | ClaimError] = []
    for claim in record.claims:
        scope = by_uncertainty if claim.strength == "statistical" else by_numbers
        scope.used = set()
        try:
            result = judge(claim.statement, scope)
        except ClaimError as error:
            found.append(error)
            continue
        why = unlicensed(record, claim, scope.used, values)
        found.append(ClaimResult(claim, result.outcome, result.because, why))
    return tuple(found)


def unlicensed(
    record: Measurement,
    claim: Claim,
    used: Iterable[tuple[str, str]],
    values: Mapping[tuple[str, str], tuple[Value, Series]],
) -> str:
    """Return why a claim is stronger than the record's data license, or nothing.

    ``used`` are the values that it looked at, ``values`` all of them, by series and label.
    """
    if claim.strength == "replicated":
        if record.replication.status != "replicated":
            return f"the claim says replicated, the record {record.replication.status}"
        return _too_few_runs(record)
    if claim.strength == "directional":
        return ""
    if record.licence != "statistical":
        return f"the claim is statistical, the record's licence {record.licence}"
    for name, at in sorted(used):
        weak = _too_weak(*values[name, at])
        if weak:
            return f"{name}[{at}]: {weak}"
    return ""


def licence_faults(record: Measurement) -> Iterator[Fault]:
    """Yield where licence or replication say more than sample sizes and runs do (D043, D044)."""
    few = _too_few_runs(record)
    if record.replication.status == "replicated" and few:
        yield Fault("ATL-D044", "The record calls itself replicated, and is not.", ("replication", "runs"), str(record.replication.runs),
                    "2 or more", "state 'unreplicated', or count the independent runs", unproven=True)  # fmt: skip
    if record.licence != "statistical":
        return
    for i, series in enumerate(record.series):
        for j, value in enumerate(series.values):
            weak = _too_weak(value, series)
            if weak:
                yield Fault("ATL-D043", f"The licence is statistical, but a value is not: {weak}.", ("series", i, "values", j),
                            f"{series.name}[{value.at}]", f"{LEAST_SAMPLE} observations or more and an uncertainty",
                            "state 'directional_only', or measure more", unproven=True)  # fmt: skip


def _too_few_runs(record: Measurement) -> str:
    return "" if record.replication.runs >= 2 else f"{record.replication.runs} run is no replication"


def _too_weak(value: Value, series: Series) -> str:
    n = sample_of(value, series)
    if n is None:
        return "its sample size is not stated"
    if n < LEAST_SAMPLE:
        return f"it comes from {n} observation"
    return "it states no uncertainty" if value.uncertainty is None else ""


# --- consistency --------------------------------------------------------------------------------------------------


def record_faults(record: Measurement, vocabulary: Vocabulary) -> Iterator[Fault]:
    """Yield where parts of a record contradict each other, but for its claims (C060 to C062, C064)."""
    yield from _repeated(record)
    for i, series in enumerate(record.series):
        yield from _term_faults(series, ("series", i), vocabulary)
        for j, value in enumerate(series.values):
            yield from _interval_faults(value, series, ("series", i, "values", j))
    yield from _evidence_faults(record)


def statement_faults(judged: Iterable[ClaimResult | ClaimError]) -> Iterator[Fault]:
    """Yield claims that cannot be read or ask for what the record lacks (C063)."""
    for i, result in enumerate(judged):
        if isinstance(result, ClaimError):
            yield statement_fault(result, ("claims", i, "statement"))


def statement_fault(error: ClaimError, path: Path) -> Fault:
    """Return the fault that an expression's error is, at the statement it stands in."""
    where = f" ({error.where})" if error.where else ""
    return Fault("ATL-C063", error.what, path, f"{error.found}{where}", error.expected, error.todo)


def twice(names: Iterable[str]) -> str:
    """Return a name that stands more than once, or nothing."""
    return next((name for name, count in Counter(names).items() if count > 1), "")


def _repeated(record: Measurement) -> Iterator[Fault]:
    lists: list[tuple[Path, list[str]]] = [
        (("series",), [s.name for s in record.series]), (("claims",), [c.id for c in record.claims]),
        (("conditions",), [c.name for c in record.conditions]), (("judgements",), [q.field for q in record.judgements]),
    ]  # fmt: skip
    lists += [(("series", i, "values"), [v.at for v in s.values]) for i, s in enumerate(record.series)]
    for path, names in lists:
        name = twice(names)
        if name:
            yield Fault("ATL-C060", "One name stands for two things.", path, name, "each name once",
                        "rename one: nobody can know which is meant")  # fmt: skip


def _term_faults(series: Series, path: Path, vocabulary: Vocabulary) -> Iterator[Fault]:
    if series.term is None:
        for field in ("convention", "relation"):
            if getattr(series, field) is not None:
                yield Fault("ATL-C062", f"A {field} stands without a term.", (*path, field), str(getattr(series, field)), "null",
                            "name the term that it belongs to")  # fmt: skip
        return
    try:
        _, convention = vocabulary.cite(series.term, series.convention)
    except VocabularyError as error:
        of_term = vocabulary.get(series.term) is None
        yield Fault("ATL-C062", error.what, (*path, "term" if of_term else "convention"), error.found or str(series.convention),
                    error.expected, error.todo)  # fmt: skip
        return
    wanted = "proxy" if convention is not None and convention.kind == "proxy" else None
    if series.relation is None or (wanted and series.relation != wanted):
        yield Fault("ATL-C062", "The relation to the term is not that of the convention.", (*path, "relation"), str(series.relation),
                    wanted or "direct or proxy", "a proxy is measured in place of what the term means; say so")  # fmt: skip


def _interval_faults(value: Value, series: Series, path: Path) -> Iterator[Fault]:
    if value.uncertainty is None:
        return
    number, low, high = (_written(t, series) for t in (value.value, value.uncertainty.lower, value.uncertainty.upper))
    stated = f"{value.uncertainty.lower} to {value.uncertainty.upper}"
    if low.above(high):
        yield Fault("ATL-C061", "An interval's lower end is above its upper end.", (*path, "uncertainty"), stated, "lower, then upper",
                    "exchange them, or correct the one that is wrong")  # fmt: skip
    elif low.above(number) or number.above(high):
        yield Fault("ATL-C061", "An interval does not hold its own value.", (*path, "uncertainty"), stated,
                    f"an interval that holds {value.value}, read as {show(number)}", "one of the two was copied wrongly")  # fmt: skip
    if value.uncertainty.method == "student_t" and (value.rows is None or value.rows.statistic != "mean"):
        yield Fault("ATL-C064", "A Student interval needs rows whose mean the value is.", (*path, "uncertainty", "method"), "student_t",
                    "stated, where no mean of cited rows is meant", "cite the rows, or state the interval's method as 'stated'")  # fmt: skip


def _evidence_faults(record: Measurement) -> Iterator[Fault]:
    citing = [(i, j) for i, s in enumerate(record.series) for j, v in enumerate(s.values) if v.rows is not None]
    if record.evidence is None:
        for i, j in citing[:1]:
            yield Fault("ATL-C064", f"{len(citing)} values cite rows, but the record names no evidence.", ("series", i, "values", j, "rows"),
                        "rows", "null, or evidence with root and tables", "bind the rows, or cite none")  # fmt: skip
        return
    names = [t.name for t in record.evidence.tables]
    if names != [ROWS_TABLE]:
        yield Fault("ATL-C064", "A measurement's evidence is the table of its rows.", ("evidence", "tables"), ", ".join(names), ROWS_TABLE,
                    "name that table only")  # fmt: skip
    if not citing:
        yield Fault("ATL-C064", "There is evidence, but no value cites its rows.", ("evidence",), record.evidence.root, "null",
                    "cite the rows behind the values, or drop the evidence: bound rows would make the values look recomputed")  # fmt: skip


def _written(text: str, series: Series) -> Interval:
    return written(text, series.reading)
