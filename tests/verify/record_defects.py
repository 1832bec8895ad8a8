"""Defects of measurements and predictions, one rule each; `test_rules` runs them among the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa
from documents.records import Json, measurement, prediction

from atlas_schema.claims.settle import record_digest
from atlas_schema.documents.measurement import Measurement
from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.measured import DIMS, TABLE, measured_root
from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.verifier import Options, Submission, verify

Change = Callable[[Json], Any]
SUPPORTED = Options(require="supported")
CASES: dict[str, tuple[str, str, Code, Callable[[], Report]]] = {}
"""Rules, what is wrong, exit code, and how to make it, by name."""


def defect(rules: str, sentence: str, code: Code) -> Callable[[Callable[[], Report]], Callable[[], Report]]:
    """Register a case."""

    def register(make: Callable[[], Report]) -> Callable[[], Report]:
        CASES[make.__name__] = (rules, sentence, code, make)
        return make

    return register


def told(value: Json, options: Options = SUPPORTED, **given: Any) -> Report:
    return verify(Submission("record.json", json.dumps(value, indent=1).encode(), **given), options)


def changed(change: Change) -> Report:
    return told(measurement(change))


def foreseen(change: Change, *given: Json) -> Report:
    offline = Options(profile="offline")
    return told(prediction(change), offline, measurements=tuple(json.dumps(m).encode() for m in given))


# --- measurements with rows ---------------------------------------------------------------------------------------

LOSSES = [12.0, 13.5, 15.7]


def rows_of(values: list[float]) -> list[Json]:
    """Return rows of the series ``losses`` of the test's record."""
    nowhere = {"window_id": None, "layer": None, "head": None}
    return [{"measurement_id": "tiny-coupling", "series": "losses", "index": i, **nowhere, "value": v}
            for i, v in enumerate(values)]  # fmt: skip


@cache
def measured(extra: float | None = None) -> Rows:
    """Return the rows behind the first perplexity."""
    values = LOSSES if extra is None else [*LOSSES, extra]
    rows = rows_of(values)
    return from_arrow(TABLE, DIMS, pa.Table.from_pylist(rows, schema=TABLE.arrow_schema(DIMS)))


def bound(change: Change = lambda m: None, rows: Rows | None = None) -> Json:
    """Return a record whose first perplexity is the mean of rows that it binds."""
    root = measured_root(rows or measured())

    def cite(m: Json) -> None:
        cited = {"series": "losses", "layer": None, "head": None, "statistic": "mean"}
        interval = {"lower": "9.1", "upper": "18.3", "level": 0.95, "method": "student_t"}
        m["series"][1]["values"][0].update(value="13.7", n=3, rows=cited, uncertainty=interval)
        m["evidence"] = {
            "root": evidence_root([root]),
            "tables": [{"name": root.name, "rows": root.rows, "root": root.root}],
        }
        change(m)

    return measurement(cite)


def with_rows(change: Change = lambda m: None, rows: Rows | None = None) -> Report:
    return told(bound(change), open_rows=lambda: rows or measured())


@defect("B001", "The rows that a record cites are absent.", Code.UNPROVEN)
def rows_absent() -> Report:
    return told(bound())


@defect("B002 B003 B004", "A row was added behind a record's back.", Code.TAMPERED)
def row_added() -> Report:
    return with_rows(rows=measured(14.0))


@defect("R060", "A mean was made smaller than its rows give.", Code.DIVERGED)
def mean_edited() -> Report:
    return with_rows(lambda m: m["series"][1]["values"][0].update(value="13.1"))


@defect("R060", "A value cites a series that the rows do not hold.", Code.DIVERGED)
def rows_of_no_series() -> Report:
    return with_rows(lambda m: m["series"][1]["values"][0]["rows"].update(series="gains"))


@defect("R061", "A value claims more observations than it has rows.", Code.DIVERGED)
def sample_inflated() -> Report:
    return with_rows(lambda m: m["series"][1]["values"][0].update(n=300))


@defect("R062", "A Student interval is narrower than its rows give.", Code.DIVERGED)
def interval_narrowed() -> Report:
    return with_rows(lambda m: m["series"][1]["values"][0]["uncertainty"].update(lower="13.0"))


# --- measurements by themselves -----------------------------------------------------------------------------------


@defect("C060", "Two values stand under one label.", Code.INADMISSIBLE)
def label_twice() -> Report:
    return changed(lambda m: m["series"][1]["values"][1].update(at="code") or m["claims"].pop())


@defect("C060", "Two claims bear one name.", Code.INADMISSIBLE)
def claim_named_twice() -> Report:
    return changed(lambda m: m["claims"][1].update(id="peak"))


@defect("C061", "An interval does not hold the value that it is about.", Code.INADMISSIBLE)
def interval_beside_value() -> Report:
    return changed(lambda m: m["series"][1]["values"][0]["uncertainty"].update(lower="14.2"))


@defect("C061", "An interval ends before it begins.", Code.INADMISSIBLE)
def interval_reversed() -> Report:
    return changed(lambda m: m["series"][1]["values"][0]["uncertainty"].update(lower="15.5", upper="12.0"))


@defect("C062", "A series measures a term that no vocabulary has.", Code.INADMISSIBLE)
def unknown_term() -> Report:
    return changed(lambda m: m["series"][0].update(term="navigator.charisma/1"))


@defect("C062", "A term with several readings is named without one.", Code.INADMISSIBLE)
def no_convention() -> Report:
    return changed(lambda m: m["series"][0].update(convention=None))


@defect("C062", "A convention of another term is named.", Code.INADMISSIBLE)
def foreign_convention() -> Report:
    return changed(lambda m: m["series"][0].update(convention="navigator.viscosity.flat_is_icky/1"))


@defect("C062", "A proxy is passed off as the thing itself.", Code.INADMISSIBLE)
def proxy_called_direct() -> Report:
    return changed(lambda m: m["series"][0].update(relation="direct"))


@defect("C062", "A convention stands without its term.", Code.INADMISSIBLE)
def convention_alone() -> Report:
    return changed(lambda m: m["series"][0].update(term=None, relation=None))


@defect("C063", "A claim is about a layer that was not recorded.", Code.INADMISSIBLE)
def claim_of_absent_value() -> Report:
    return changed(lambda m: m["claims"][0]["statement"].update(labels=["7"]))


@defect("C063", "A claim's expression asks for a value that is not there.", Code.INADMISSIBLE)
def expression_of_absent_value() -> Report:
    return changed(lambda m: m["claims"][1]["statement"].update(expression="perplexity[legal] / perplexity[code]"))


@defect("C063", "A claim's expression is no expression.", Code.INADMISSIBLE)
def unreadable_expression() -> Report:
    return changed(lambda m: m["claims"][1]["statement"].update(expression="perplexity[poetry] / ("))


@defect("C161", "A claim that says much is put as a statement of two numbers.", Code.INADMISSIBLE)
def claim_of_no_value() -> Report:
    empty = {"operator": "less_than", "left": "0", "right": "1"}
    return changed(lambda m: m["claims"][0].update(says="The model understands what it reads.", statement=empty))


@defect("C161", "A claim names every label of its series as the largest.", Code.INADMISSIBLE)
def everything_is_the_largest() -> Report:
    def every_label(m: Json) -> None:
        series = m["claims"][0]["statement"]["series"]
        labels = [v["at"] for s in m["series"] if s["name"] == series for v in s["values"]]
        m["claims"][0]["statement"].update(operator="argmax_in", labels=labels)

    return changed(every_label)


@defect("C161", "A series of one value is said to rise.", Code.INADMISSIBLE)
def one_value_rises() -> Report:
    alone = {"operator": "monotone_increasing", "series": "steps(perplexity)", "strict": True}
    return changed(lambda m: m["claims"][1].update(says="It rises without exception.", statement=alone))


@defect("C161", "More values than there are may lie above a bound.", Code.INADMISSIBLE)
def as_many_as_you_like() -> Report:
    counted = {"operator": "count_at_most", "series": "coupling", "side": "above", "bound": "0", "count": 1_000}
    return changed(lambda m: m["claims"][0].update(statement=counted))


@defect("C064", "A value cites rows that the record does not bind.", Code.INADMISSIBLE)
def rows_not_bound() -> Report:
    return with_rows(lambda m: m.update(evidence=None))


@defect("C064", "Rows are bound that no value cites.", Code.INADMISSIBLE)
def rows_for_show() -> Report:
    value = {"rows": None, "uncertainty": None}
    return with_rows(lambda m: m["series"][1]["values"][0].update(value))


@defect("C064", "A Student interval stands beside a value without rows.", Code.INADMISSIBLE)
def student_without_rows() -> Report:
    return changed(lambda m: m["series"][1]["values"][0]["uncertainty"].update(method="student_t"))


@defect("C064", "A record binds a table of a study.", Code.INADMISSIBLE)
def table_of_a_study() -> Report:
    return with_rows(lambda m: m["evidence"]["tables"][0].update(name="task"))


@defect("D040", "A record claims a peak where its own numbers have none.", Code.NOT_PRESERVED)
def refuted_by_itself() -> Report:
    return changed(lambda m: m["claims"][0]["statement"].update(labels=["2"]))


@defect("D040 D041", "A refuted claim hides behind one that nothing decides.", Code.NOT_PRESERVED)
def refuted_beside_undecided() -> Report:
    def hide(m: Json) -> None:
        m["claims"][0]["statement"]["labels"] = ["2"]
        m["claims"][1]["statement"] = {"operator": "beyond_record", "needs": "more"}

    return changed(hide)


@defect("D041", "A claim needs more digits than were recorded.", Code.UNPROVEN)
def too_few_digits() -> Report:
    return changed(lambda m: m["series"][0]["values"][1].update(value="0.6"))


@defect("D042", "A statistical claim is made from one observation.", Code.UNPROVEN)
def statistics_of_one() -> Report:
    return changed(lambda m: m["claims"][0].update(strength="statistical"))


@defect("D042", "A claim calls itself replicated, the record does not.", Code.UNPROVEN)
def replicated_in_words() -> Report:
    return changed(lambda m: m["claims"][0].update(strength="replicated"))


@defect("D043", "A record licenses statistics for values from one observation.", Code.UNPROVEN)
def licence_of_one() -> Report:
    return changed(lambda m: m.update(licence="statistical"))


@defect("D044", "A record calls itself replicated after one run.", Code.UNPROVEN)
def replicated_once() -> Report:
    return changed(lambda m: m["replication"].update(status="replicated"))


# --- predictions --------------------------------------------------------------------------------------------------


@defect("C060", "Two roles of a prediction bear one name.", Code.INADMISSIBLE)
def role_twice() -> Report:
    return foreseen(lambda p: p["requires"].append(p["requires"][0]))


@defect("C062", "A prediction is about a term that no vocabulary has.", Code.INADMISSIBLE)
def prediction_of_unknown_term() -> Report:
    return foreseen(lambda p: p.update(terms=["navigator.charisma/1"]))


@defect("C063", "A prediction's rule cannot be read.", Code.INADMISSIBLE)
def unreadable_rule() -> Report:
    return foreseen(lambda p: p["rule"]["clauses"][0]["statement"].update(series="sort(tiny.coupling)"))


@defect("C065", "A prediction's rule looks at a measurement that it does not require.", Code.INADMISSIBLE)
def rule_of_another_role() -> Report:
    return foreseen(lambda p: p["rule"]["clauses"][0]["statement"].update(series="large.coupling"))


@defect("C065", "A prediction requires a measurement that its rule never looks at.", Code.INADMISSIBLE)
def role_unused() -> Report:
    return foreseen(lambda p: p["requires"].append({**p["requires"][0], "role": "spare"}))


@defect("C065", "A prediction's rule is one that nothing can decide.", Code.INADMISSIBLE)
def rule_beyond_deciding() -> Report:
    undecidable = {"id": "never", "says": "time will tell", "statement": {"operator": "beyond_record", "needs": "time"}}
    return foreseen(lambda p: p["rule"]["clauses"].append(undecidable))


@defect("C161", "One of a prediction's alternatives is true of any numbers.", Code.INADMISSIBLE)
def clause_that_always_holds() -> Report:
    always = {
        "id": "always",
        "says": "what we foresaw",
        "statement": {"operator": "less_than", "left": "0", "right": "1"},
    }
    return foreseen(lambda p: p["rule"].update(combine="any", clauses=[*p["rule"]["clauses"], always]))


def settled(status: str, record: Json, *given: Json, change: Change = lambda p: None) -> Report:
    digest = record_digest(Measurement.model_validate_json(json.dumps(record)))
    cited = {"status": status, "measurements": [{"role": "tiny", "id": record["id"], "digest": digest}]}
    return foreseen(lambda p: (p.update(outcome=cited), change(p)), *given)


@defect("C066", "An outcome was typed in.", Code.INADMISSIBLE)
def outcome_typed_in() -> Report:
    return settled("contradicted", measurement(), measurement())


@defect("C066", "An outcome cites a measurement by the wrong instrument.", Code.INADMISSIBLE)
def settled_by_another_instrument() -> Report:
    other = measurement(lambda m: m["instrument"].update(id="guesswork"))
    return settled("supported", other, other)


@defect("C066", "An outcome cites a measurement under a name that is not its own.", Code.INADMISSIBLE)
def settled_under_another_name() -> Report:
    return settled(
        "supported", measurement(), measurement(), change=lambda p: p["outcome"]["measurements"][0].update(id="x")
    )


@defect("C066", "The measurement that settled a prediction is absent.", Code.UNPROVEN)
def settling_measurement_absent() -> Report:
    return settled("supported", measurement())


@defect("C067", "A prediction bears the id of a published one and says something else.", Code.INADMISSIBLE)
def borrowed_prediction() -> Report:
    return foreseen(lambda p: p.update(id="probe-tracks-hessian"))
