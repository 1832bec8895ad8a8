"""Settling a prediction: which measurements may stand for its roles, and what its rule gives on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from atlas_schema.canonical import digest_document
from atlas_schema.claims.expression import ClaimError, Scope, references
from atlas_schema.claims.operators import Outcome, Result, every, judge, some
from atlas_schema.claims.record import (
    Fault,
    judge_claims,
    licence_faults,
    record_faults,
    sample_of,
    scope_of,
    statement_fault,
    statement_faults,
    twice,
)
from atlas_schema.claims.vacuous import expressions, vacuous_claims, vacuous_clause
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Clause, NotRun, Prediction, Requirement, Settled, SettledBy
from atlas_schema.errors import AtlasError
from atlas_schema.vocabulary import Vocabulary


class SettlementError(AtlasError):
    """Measurements that this prediction may not be settled by."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the rule gives: one result per clause, in order, those it presupposes first, and the roles' measurements."""

    outcome: Outcome
    given: tuple[tuple[str, Result], ...]
    clauses: tuple[tuple[str, Result], ...]
    roles: Mapping[str, Measurement]

    def document(self) -> Settled:
        """Return the outcome as a prediction states it."""
        cited = tuple(SettledBy(role=r, id=m.id, digest=record_digest(m)) for r, m in sorted(self.roles.items()))
        return Settled(status=self.outcome.value, measurements=cited)


def record_digest(document: Measurement | Prediction) -> str:
    """Return the digest by which a document is cited."""
    return digest_document(document.model_dump(mode="json"))


def declared_digest(prediction: Prediction) -> str:
    """Return the digest that a prediction had before it was settled: what can be published in advance."""
    return record_digest(prediction.model_copy(update={"outcome": NotRun(status="not_run")}))


def settle(prediction: Prediction, measurements: Sequence[Measurement], vocabulary: Vocabulary,
           roles: Mapping[str, Measurement] | None = None) -> Settlement:  # fmt: skip
    """Assign measurements to roles and evaluate the rule. ``roles`` fixes the assignment where it would be ambiguous.

    Raises `SettlementError` naming role, measurement and what does not fit. Does not verify the rows behind the
    measurements: `atlas-verify` does.
    """
    fault = next(prediction_faults(prediction, vocabulary), None)
    if fault is not None:
        raise SettlementError("The prediction itself is not sound.", where="/".join(["", *map(str, fault.path)]),
                              found=f"{fault.what} {fault.stated}",
                              expected=fault.expected, todo=fault.todo)  # fmt: skip
    assigned = dict(roles or {})
    assigned |= _assigned(prediction, [m for m in measurements if m not in assigned.values()], assigned)
    for requirement in prediction.requires:
        _require_fit(requirement, assigned[requirement.role], vocabulary)
    _require_same(prediction, assigned)
    scope = Scope({})
    for requirement in prediction.requires:
        over = "uncertainty" if requirement.licence == "statistical" else "numbers"
        scope.series = {**scope.series, **scope_of(assigned[requirement.role], over, requirement.role).series}  # type: ignore[arg-type]
    given = _judged(prediction.rule.given, scope)
    results = _judged(prediction.rule.clauses, scope)
    _require_samples(prediction, assigned, scope)
    join = every if prediction.rule.combine == "all" else some
    met = every(r.outcome for _, r in given) is Outcome.SUPPORTED
    outcome = join(r.outcome for _, r in results) if met else Outcome.UNDETERMINED
    return Settlement(outcome, given, results, assigned)


def _judged(clauses: Sequence[Clause], scope: Scope) -> tuple[tuple[str, Result], ...]:
    results = []
    for clause in clauses:
        try:
            results.append((clause.id, judge(clause.statement, scope)))
        except ClaimError as error:
            raise SettlementError("A measurement lacks what the rule asks for.", where=f"clause {clause.id}: {error.what}", found=error.found,
                                  expected=error.expected, todo="give a measurement that records it") from error  # fmt: skip
    return tuple(results)


# --- which measurements -------------------------------------------------------------------------------------------


def misfits(requirement: Requirement, record: Measurement) -> list[str]:
    """Return in which respects a measurement is not what a role requires; none means that it may stand for it."""
    stated = {c.name: c.value for c in record.conditions}
    pairs = [("instrument", requirement.instrument, record.instrument.id)]
    pairs += [("model", requirement.model, record.model.name)] if requirement.model is not None else []
    pairs += [(f"condition {c.name}", c.value, stated.get(c.name, "not stated")) for c in requirement.conditions]
    return [f"{what} is {found!r}, not {wanted!r}" for what, wanted, found in pairs if wanted != found]


def _assigned(
    prediction: Prediction, measurements: Sequence[Measurement], fixed: Mapping[str, Measurement]
) -> dict[str, Measurement]:
    open_roles = [r for r in prediction.requires if r.role not in fixed]
    unknown = sorted(set(fixed) - {r.role for r in prediction.requires})
    if unknown:
        raise SettlementError("The prediction has no such role.", found=", ".join(unknown),
                              expected=", ".join(r.role for r in prediction.requires))  # fmt: skip
    for record in measurements:
        if not any(not misfits(r, record) for r in open_roles):
            raise SettlementError("A measurement fits no open role of this prediction.", where=record.id,
                                  found="; ".join(f"for {r.role}: {', '.join(misfits(r, record))}" for r in open_roles)
                                  or "every role is taken",
                                  todo="a prediction is settled by the instrument, model and conditions it names only")  # fmt: skip
    made = {}
    for requirement in open_roles:
        fitting = [m for m in measurements if not misfits(requirement, m)]
        if len(fitting) != 1:
            what = "No measurement was given for a role." if not fitting else "Several measurements fit one role."
            raise SettlementError(what, where=f"role {requirement.role}", found=", ".join(m.id for m in fitting) or "none",
                                  expected=_wanted(requirement), todo=f"--with {requirement.role}=FILE")  # fmt: skip
        made[requirement.role] = fitting[0]
    return made


def _wanted(requirement: Requirement) -> str:
    conditions = "".join(f", {c.name} {c.value!r}" for c in requirement.conditions)
    return f"instrument {requirement.instrument!r}, model {requirement.model or 'any'!r}{conditions}"


def _require_fit(requirement: Requirement, record: Measurement, vocabulary: Vocabulary) -> None:
    wrong = misfits(requirement, record)
    if requirement.licence == "statistical" and record.licence != "statistical":
        wrong.append(f"licence is {record.licence!r}, not 'statistical'")
    if record.replication.runs < requirement.min_runs:
        wrong.append(f"runs are {record.replication.runs}, fewer than {requirement.min_runs}")
    faults = [*record_faults(record, vocabulary), *statement_faults(judge_claims(record)), *vacuous_claims(record),
              *licence_faults(record)]  # fmt: skip
    wrong += [f"{f.rule} at {'/'.join(['', *map(str, f.path)])}: {f.what}" for f in faults[:1]]
    if wrong:
        raise SettlementError("A measurement may not stand for this role.", where=f"{record.id} as {requirement.role}", found="; ".join(wrong),
                              todo="settle by a measurement that is what the prediction requires")  # fmt: skip


def _require_same(prediction: Prediction, roles: Mapping[str, Measurement]) -> None:
    for name in prediction.same_conditions:
        stated = {role: next((c.value for c in m.conditions if c.name == name), None) for role, m in roles.items()}
        if None in stated.values() or len(set(stated.values())) > 1:
            raise SettlementError("The measurements were not taken under one condition.", where=f"condition {name}",
                                  found="; ".join(f"{role}: {value or 'not stated'}" for role, value in sorted(stated.items())),
                                  expected="the same words in all", todo="measure again under one condition")  # fmt: skip
    if prediction.different_models:
        one = twice(m.model.weights_digest or m.model.name for m in roles.values()) or twice(
            m.model.name for m in roles.values()
        )
        if one:
            raise SettlementError("Two roles were filled from one model.", found=one, expected="different models",
                                  todo="the prediction compares models; give one measurement of each")  # fmt: skip


def _require_samples(prediction: Prediction, roles: Mapping[str, Measurement], scope: Scope) -> None:
    """Every value that the rule looked at must have at least the observations that its role requires."""
    for requirement in prediction.requires:
        record = roles[requirement.role]
        values = ((f"{requirement.role}.{s.name}", s, v) for s in record.series for v in s.values)
        for name, series, value in values:
            n, at = sample_of(value, series), value.at
            if (name, at) not in scope.used or (n is not None and n >= requirement.min_sample):
                continue
            raise SettlementError("A value comes from too few observations.", where=f"{name}[{at}] of {record.id}",
                                  found="not stated" if n is None else str(n), expected=f"{requirement.min_sample} or more",
                                  todo="measure more, or state the sample size")  # fmt: skip


# --- a prediction by itself ---------------------------------------------------------------------------------------


def prediction_faults(prediction: Prediction, vocabulary: Vocabulary) -> Iterator[Fault]:
    """Yield where a prediction contradicts itself or could not be settled (C060, C062, C063, C065, C161)."""
    for path, names in ((("requires",), [r.role for r in prediction.requires]),
                        (("rule",), [c.id for c in (*prediction.rule.given, *prediction.rule.clauses)])):  # fmt: skip
        if twice(names):
            yield Fault(
                "ATL-C060", "One name stands for two things.", path, twice(names), "each name once", "rename one"
            )
    for i, term in enumerate(prediction.terms):
        if vocabulary.get(term) is None:
            yield Fault("ATL-C062", "The vocabulary has no such term.", ("terms", i), term, "a term that atlas vocab list shows",
                        "correct the id")  # fmt: skip
    yield from _rule_faults(prediction)


def _rule_faults(prediction: Prediction) -> Iterator[Fault]:
    roles = {r.role for r in prediction.requires}
    seen: set[str] = set()
    rule = prediction.rule
    places = [(("rule", part, i, "statement"), clause) for part, clauses in (("given", rule.given), ("clauses", rule.clauses))
              for i, clause in enumerate(clauses)]  # fmt: skip
    for place, clause in places:
        if clause.statement.operator == "beyond_record":
            yield Fault("ATL-C065", "A clause that nothing can decide is no rule.", place, "beyond_record",
                        "a statement over values", "say what is to be measured, and what it must be")  # fmt: skip
        yield from vacuous_clause(clause.statement, place)
        for field, text in expressions(clause.statement):
            path = (*place, field)
            try:
                named = references(text)
            except ClaimError as error:
                yield statement_fault(error, path)
                continue
            seen |= {name.partition(".")[0] for name, _ in named}
            for name, _ in named:
                if "." not in name or name.partition(".")[0] not in roles:
                    yield Fault("ATL-C065", "An expression names no role of this prediction.", path, name,
                                f"one of {', '.join(sorted(roles))}, then a dot and a series",
                                "write role.series[label]")  # fmt: skip
    for i, requirement in enumerate(prediction.requires):
        if requirement.role not in seen:
            yield Fault("ATL-C065", "A measurement is required that the rule never looks at.", ("requires", i), requirement.role,
                        "a role that an expression names", "drop the role, or use it")  # fmt: skip


def outcome_faults(prediction: Prediction, given: Sequence[Measurement], vocabulary: Vocabulary) -> Iterator[Fault]:
    """Yield where a stated outcome is not what its cited measurements give (C066); nothing for `not_run`."""
    outcome = prediction.outcome
    if not isinstance(outcome, Settled):
        return
    by_digest = {record_digest(m): m for m in given}
    absent = [c for c in outcome.measurements if c.digest not in by_digest]
    if absent:
        yield Fault("ATL-C066", "A measurement that settles this prediction was not given.", ("outcome", "measurements"),
                    ", ".join(f"{c.id} {c.digest}" for c in absent), "the cited file",
                    "give it with --measurement FILE", unproven=True)  # fmt: skip
        return
    roles = {c.role: by_digest[c.digest] for c in outcome.measurements}
    if len(roles) != len(outcome.measurements):
        yield Fault("ATL-C066", "A role is filled twice.", ("outcome", "measurements"), ", ".join(c.role for c in outcome.measurements),
                    "each role once", "settle again with atlas prediction settle")  # fmt: skip
        return
    try:
        found = settle(prediction, (), vocabulary, roles)
    except SettlementError as error:
        yield Fault("ATL-C066", f"The cited measurements may not settle it: {error.what}", ("outcome", "measurements"),
                    f"{error.where}: {error.found}", error.expected, error.todo)  # fmt: skip
        return
    if found.document() != outcome.model_copy(
        update={"measurements": tuple(sorted(outcome.measurements, key=lambda c: c.role))}
    ):
        yield Fault("ATL-C066", "The stated outcome is not what the rule gives.", ("outcome", "status"), outcome.status, found.outcome.value,
                    "settle again with atlas prediction settle")  # fmt: skip
