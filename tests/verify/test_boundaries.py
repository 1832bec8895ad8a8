"""What is allowed up to a bound is allowed at the bound, and refused one step beyond it: rules between documents, in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from documents.records import measurement, prediction
from verify.forging import Json, as_json, encoded, honest, rechained, study, verified
from verify.record_defects import bound, told

from atlas_schema.claims.library import built_in_predictions
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Prediction
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import DocumentError, EvidenceError
from atlas_schema.evidence.columns import Rows
from atlas_schema.limits import LIMITS
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.study.plan import planned_rows
from atlas_schema.verify import consistency
from atlas_schema.verify.documents import parse
from atlas_schema.verify.outcome import PROFILES, Channel, ChannelResult, Code, Problem, Report, Status, exit_code
from atlas_schema.verify.protocol import check_protocol
from atlas_schema.verify.reading import _require_bounds, _where, read_json
from atlas_schema.verify.records import _not_established, check_prediction, verify_measurement
from atlas_schema.verify.reproduction import _identity_faults, check_findings, check_runs, differences, leaves
from atlas_schema.verify.rows import _check_table, _window_faults, check_tables
from atlas_schema.verify.verifier import Options

Change = Callable[[Json], Any]


def fired(check: Callable[[ChannelResult], None]) -> list[str]:
    """Return the rules that a check reports, with the field each names."""
    result = ChannelResult(Channel.CONTRACT)
    check(result)
    assert result.checked == result.total > 0
    return [f"{p.rule.removeprefix('ATL-')} {'/'.join(map(str, p.path))}".strip() for p in result.problems]


def contract(change: Change | None = None) -> Contract:
    made = as_json(study().contract)
    if change is not None:
        change(made)
    return Contract.model_validate(made, strict=False)


def plan(change: Change, judged_by: Contract) -> Preregistration:
    """Return the plan changed, citing its contract and with the rows that follow."""
    made = as_json(study().preregistration)
    change(made)
    made["contract"] = {"id": judged_by.id, "digest": consistency.digest_of(judged_by)}
    read = Preregistration.model_validate(made, strict=False)
    return read.model_copy(update={"expected_rows": planned_rows(read, judged_by)})


def planned(change: Change, of_contract: Change | None = None) -> list[str]:
    judged_by = contract(of_contract)
    return fired(lambda result: consistency.check_preregistration(plan(change, judged_by), judged_by, result))


def test_the_study_itself_breaks_none() -> None:
    assert planned(lambda _: None) == []
    assert fired(lambda result: consistency.check_contract(contract(), result)) == []


def merge(into: Json, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        into[key] = {**into[key], **value} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"damage_tolerance_nats": 0.25}, []),
        ({"damage_tolerance_nats": 0.2500001}, ["C008 damage_tolerance_nats"]),
        ({"task": {"tolerance": 0.125}}, []),
        ({"task": {"tolerance": 0.1250001}}, ["C008 task/tolerance"]),
    ],
)
def test_a_tolerance_may_be_as_wide_as_the_contract_admits(changes: Json, rules: list[str]) -> None:
    def limits(made: Json) -> None:
        merge(made, {"damage": {"max_tolerance_nats": 0.25}, "success": {"max_tolerance": 0.125}})

    assert planned(lambda made: merge(made, changes), limits) == rules


@pytest.mark.parametrize(("least", "rules"), [(1, []), (2, []), (3, ["C008 positions_per_window"])])
def test_as_many_positions_as_the_contract_asks_for_are_enough(least: int, rules: list[str]) -> None:
    assert study().preregistration.positions_per_window == 2
    assert planned(lambda _: None, lambda made: made.update(min_positions_per_window=least)) == rules


def test_the_shortest_window_holds_its_positions_and_no_more() -> None:
    shortest = min(w.n_tokens for w in study().preregistration.windows)
    per_window = study().preregistration.positions_per_window
    for first, rules in ((shortest - per_window, []), (shortest - per_window + 1, ["C008 windows"])):
        assert planned(partial(merge, changes={"first_allowed_position": first})) == rules


@pytest.mark.parametrize(("beyond", "rules"), [(0, []), (1, ["C008 windows/3/predicted_bytes"])])
def test_a_window_predicts_at_most_the_bytes_it_has(beyond: int, rules: list[str]) -> None:
    def predicted(made: Json) -> None:
        made["windows"][3]["predicted_bytes"] = made["windows"][3]["n_bytes"] + beyond

    assert planned(predicted) == rules


@pytest.mark.parametrize(("batches", "rules"), [(199, []), (200, []), (201, ["C001 bootstrap/batches"])])
def test_there_may_be_a_batch_for_every_resample(batches: int, rules: list[str]) -> None:
    assert study().contract.bootstrap.resamples == 200
    made = contract(lambda c: merge(c, {"bootstrap": {"batches": batches}}))
    assert fired(lambda result: consistency.check_contract(made, result)) == rules


@pytest.mark.parametrize("field", ["windows", "protected_layers", "arms"])
def test_entries_stand_once_and_in_order_but_arms_in_any(field: str) -> None:
    def swapped(made: Json) -> None:
        if field == "protected_layers":
            made[field] = [1, 0]
        else:
            made[field][0], made[field][1] = made[field][1], made[field][0]

    assert planned(swapped) == ([] if field == "arms" else [f"C008 {field}"])

    def twice(made: Json) -> None:
        made[field] = [*made[field], made[field][-1]]

    assert f"C008 {field}" in planned(twice)


@pytest.mark.parametrize("which", ["window", "item"])
def test_one_text_under_two_names_is_found_in_windows_and_in_items(which: str) -> None:
    def one_text(made: Json) -> None:
        if which == "window":
            made["windows"][1]["token_digest"] = made["windows"][0]["token_digest"]
        else:
            made["task"]["items"][1]["digest"] = made["task"]["items"][0]["digest"]

    assert planned(one_text) == [f"C008 {'windows' if which == 'window' else 'task/items'}"]


def test_only_a_cluster_in_two_domains_is_one_document_in_two() -> None:
    def moved(made: Json) -> None:
        clusters = [w["cluster_id"] for w in made["windows"]]
        again = next(i for i, c in enumerate(clusters) if c in clusters[:i])
        made["windows"][again]["domain"] = "another"

    assert [f.rpartition("/")[2] for f in planned(moved)] == ["domain"]


@pytest.mark.parametrize("name", ["window", "state", "routing", "update", "task", "output", "layer", "run"])
def test_every_count_of_rows_follows_from_the_plan(name: str) -> None:
    for by in (-1, 1):
        made = plan(lambda _: None, contract())
        rows = made.expected_rows.model_copy(update={name: getattr(made.expected_rows, name) + by})
        wrong = made.model_copy(update={"expected_rows": rows})
        check = partial(consistency.check_preregistration, wrong, contract())
        assert fired(check) == [f"C008 expected_rows/{name}"]


def test_a_plan_is_asked_three_things_and_a_receipt_three_of_itself_and_three_of_its_place() -> None:
    """Its contract, its own parts, its pilot; contract, plan and runs; head, declaration, evidence."""
    s, result = study(), ChannelResult(Channel.CONTRACT)
    consistency.check_preregistration(s.preregistration, s.contract, result)
    assert (result.checked, result.total) == (3, 3)
    consistency.check_receipt(honest(), s.preregistration, s.contract, s.run_log, result)
    assert (result.checked, result.total) == (9, 9)
    of_runs = ChannelResult(Channel.REPRODUCTION)  # table run against receipt, plan and contract
    check_runs(honest(), s.source(), s.preregistration, s.contract, of_runs)
    assert (of_runs.checked, of_runs.total, of_runs.problems) == (3, 3, [])


def gating(change: Change) -> list[str]:
    return fired(partial(consistency.check_contract, contract(change)))


def test_a_contract_gates_what_is_known_in_a_form_that_it_has_and_once() -> None:
    """A boundary is a share of sums alone; a nuisance that stands twice would count as two."""

    def other_form(c: Json) -> None:
        boundary = next(x for x in c["channels"] if x["definition"] == "drift.boundary/1")
        boundary["thresholds"][0]["form"] = "mean_bounded"

    def cell_twice(c: Json) -> None:
        c["channels"][0]["thresholds"] = [c["channels"][0]["thresholds"][0]] * 2

    def nuisance_twice(c: Json) -> None:
        c["nuisances"] = [*c["nuisances"], c["nuisances"][-1]]

    assert [gating(c) for c in (other_form, cell_twice, nuisance_twice)] == [["C001"]] * 3


@pytest.mark.parametrize(("part", "name", "value"), [
    ("tolerances", "float32_unit", 1e-5), ("tolerances", "accumulation", 1000.0), ("tolerances", "float64_relative", 1e-5),
    ("tolerances", "reconstruction", 0.02), ("numbers", "relative_tolerance", 1e-5),
])  # fmt: skip
def test_what_no_arithmetic_loses_is_no_rounding(part: str, name: str, value: float) -> None:
    assert gating(partial(merge, changes={part: {name: value}})) == [f"C162 {part}/{name}"]


def test_the_id_of_a_built_in_contract_with_other_content_is_borrowed_whichever_sorts_first() -> None:
    built_in = built_in_contracts()
    for known in built_in.values():
        assert fired(partial(consistency.check_familiar, known, built_in)) == []
        for resamples in range(100, 108):
            rule = known.bootstrap.model_copy(update={"resamples": resamples})
            borrowed = known.model_copy(update={"bootstrap": rule})
            assert fired(partial(consistency.check_familiar, borrowed, built_in)) == ["C001 id"]
            of_another = borrowed.model_copy(update={"id": "somebodys.v1"})
            assert fired(partial(consistency.check_familiar, of_another, built_in)) == []


def test_a_plan_that_cites_a_contract_by_another_name_cites_another() -> None:
    made = plan(lambda _: None, contract())
    cites = made.contract.model_copy(update={"id": "somebodys.v1"})
    other = made.model_copy(update={"contract": cites})
    assert fired(lambda r: consistency.check_preregistration(other, contract(), r)) == ["C003 contract"]
    for name in ("a.v1", "zzz.v1"):
        by_name = honest().model_copy(update={"contract": cites.model_copy(update={"id": name})})
        check = partial(consistency.check_receipt, by_name, study().preregistration, study().contract, study().run_log)
        assert fired(check) == ["C001 contract"]
    for receipt, rules in ((honest(), ["C003 contract"]), (honest().model_copy(update={"contract": cites}), [])):
        assert fired(partial(consistency.check_citations, receipt, other)) == rules


def history(change: Callable[[list[Json]], None], steps: int | None = None) -> list[str]:
    """Check the receipt over a log with changed steps, chained anew, citing its head."""

    def changed(steps: list[Json]) -> list[Json]:
        change(steps)
        return steps

    log: RunLog = rechained(study().run_log, changed)
    made = as_json(honest())
    count = len(log.steps) if steps is None else steps
    made["run_log"] = {"head": log.steps[min(count, len(log.steps)) - 1].hash, "steps": count}
    document = Receipt.model_validate(made, strict=False)
    return fired(
        lambda result: consistency.check_receipt(document, study().preregistration, study().contract, log, result)
    )


def test_a_plan_may_be_created_declared_and_followed_in_one_second_but_not_later() -> None:
    created = study().preregistration.created

    def at_once(steps: list[Json]) -> None:
        for step in steps:
            step["time"] = created

    def declared_before(steps: list[Json]) -> None:
        steps[0]["time"] = "2000-01-01T00:00:00Z"

    assert history(lambda _: None) == []
    assert history(at_once) == []
    assert history(declared_before) == ["C006 steps/0"]

    def extracted_before(steps: list[Json]) -> None:
        steps[1]["time"] = "2000-01-01T00:00:00Z"

    assert history(extracted_before) == ["C006 steps/1"]


def test_a_receipt_stands_at_the_step_that_it_cites_and_at_no_other() -> None:
    last = len(study().run_log.steps)
    assert history(lambda _: None, steps=last) == []
    assert history(lambda _: None, steps=last + 1) == ["C005 run_log"]
    assert history(lambda _: None, steps=1) == ["C007 steps"]  # before the extraction


def test_a_step_has_what_is_asked_of_inputs_and_of_outputs_together() -> None:
    extract = next(s for s in study().run_log.steps if s.step == "extract")
    there, given = extract.outputs[0].digest, extract.inputs[0].digest
    other = "sha256:" + "ab" * 32
    for inputs, outputs, holds in (
        (given, there, True), ("", there, True), (given, "", True), (given, other, False), (other, there, False), (there, given, False),
    ):  # fmt: skip
        assert consistency._has(extract, inputs=inputs, outputs=outputs) is holds
    for absent in (LOW, HIGH):
        assert not consistency._has(extract, inputs=absent)
        assert not consistency._has(extract, outputs=absent)


def test_a_run_extracted_again_is_named_only_where_what_was_extracted_differs() -> None:
    def again(change: Change) -> tuple[str, ...]:
        def more(steps: list[Json]) -> list[Json]:
            extract = next(s for s in steps if s["step"] == "extract")
            extract["outputs"].append({"name": "run one", "digest": "sha256:" + "01" * 32})
            copy = {**extract, "outputs": [dict(a) for a in extract["outputs"]]}
            change(copy)
            return [*steps, copy]

        return consistency.repeated_extractions(rechained(study().run_log, more), ("run one", "another"))

    assert again(lambda _: None) == ()
    assert again(lambda s: s["outputs"][-1].update(digest="sha256:" + "02" * 32)) == ("run one",)

    def other_step(step: Json) -> None:
        step["step"] = "issue"
        step["outputs"][-1]["digest"] = "sha256:" + "02" * 32

    assert again(other_step) == ()

    def evidence_alone(step: Json) -> None:
        step["outputs"] = [{"name": "evidence", "digest": "sha256:" + "02" * 32}]

    assert again(evidence_alone) == ()


@pytest.mark.parametrize(("shares", "rules"), [(0, []), (1, ["C012 pilot/clusters"])])
def test_a_pilot_that_shares_one_document_is_found(shares: int, rules: list[str]) -> None:
    known = sorted({w.cluster_id for w in study().preregistration.windows})[:shares]
    clusters = [*known, "sha256:" + "ab" * 32]
    assert planned(lambda made: made.update(pilot={"description": "pilot", "clusters": clusters})) == rules


LOW, HIGH = "sha256:" + "0" * 64, "sha256:" + "f" * 64


def of_receipt(change: Change) -> list[str]:
    made = as_json(honest())
    change(made)
    report = verified(study(), made)
    return sorted({p.rule.removeprefix("ATL-") for r in report.channels.values() for p in r.problems})


@pytest.mark.parametrize("other", [LOW, HIGH])
def test_another_digest_is_another_whichever_sorts_first(other: str) -> None:
    for path, rules in (
        (("contract", "digest"), ["C001"]), (("preregistration", "digest"), ["C002"]), (("run_log", "head"), ["C005"]),
        (("evidence", "root"), ["B004", "C007"]), (("evidence", "tables", 0, "root"), ["B003"]),
    ):  # fmt: skip

        def change(made: Json, path: tuple[Any, ...] = path) -> None:
            for part in path[:-1]:
                made = made[part]
            made[path[-1]] = other

        assert of_receipt(change) == rules, path
    pinned = verified(study(), honest(), Options(pin=other))
    assert [p.rule for r in pinned.channels.values() for p in r.problems] == ["ATL-B005"]
    citing = plan(lambda _: None, contract())
    cites = citing.contract.model_copy(update={"digest": other})
    wrong = citing.model_copy(update={"contract": cites})
    assert fired(lambda r: consistency.check_preregistration(wrong, contract(), r)) == ["C003 contract"]


@pytest.mark.parametrize("by", [-1, 1])
def test_a_count_of_rows_is_another_whichever_is_larger(by: int) -> None:
    def change(made: Json) -> None:
        made["evidence"]["tables"][2]["rows"] += by

    assert of_receipt(change) == ["B002"]


@pytest.mark.parametrize("other", ["a", "zzz"])
def test_another_name_is_another_whichever_sorts_first(other: str) -> None:
    for changes in ({"damage": {"definition": f"damage.{other}/1"}}, {"success": {"definition": f"success.{other}/1"}}):
        made = contract(partial(merge, changes=changes))
        assert fired(partial(consistency.check_contract, made)) == ["C001"]
    judged_by = contract(lambda c: c.update(id=f"{other}.v1"))
    cites = plan(lambda _: None, contract())
    assert fired(lambda r: consistency.check_preregistration(cites, judged_by, r)) == ["C003 contract"]
    channels = as_json(study().contract)["channels"]
    channels[0]["definition"] = f"drift.{other}/1"
    gates = contract(lambda c: c.update(channels=channels))
    assert fired(lambda r: consistency.check_contract(gates, r)) == ["C001"] * len(channels[0]["thresholds"])


def test_the_first_extraction_that_came_too_early_is_the_one_named() -> None:
    """Of several, the report points at the first; of none, at the start of the log."""

    def two_early(steps: list[Json]) -> None:
        steps[:] = [steps[1], {**steps[1]}, steps[0]]
        for at, step in enumerate(steps):
            step["time"] = f"2026-01-01T00:00:0{at}Z"

    assert history(two_early) == ["C006 steps/0"]


def test_a_receipt_over_other_evidence_is_told_which_evidence_the_log_knows() -> None:
    made = as_json(honest())
    made["evidence"]["root"] = LOW
    report = verified(study(), made)
    (problem,) = [p for p in report.channels[Channel.CONTRACT].problems if p.rule == "ATL-C007"]
    assert (problem.stated, problem.recomputed) == (f"evidence root {LOW}", study().evidence_root())


def test_only_a_declaration_of_this_very_plan_declares_it() -> None:
    def another_plan(steps: list[Json]) -> None:
        steps[0]["outputs"] = [{**a, "digest": LOW} for a in steps[0]["outputs"]]

    def another_step(steps: list[Json]) -> None:
        steps[0]["step"] = "issue"

    assert history(another_plan) == ["C006 steps/1"]
    assert history(another_step) == ["C006 steps/1"]


@pytest.mark.parametrize("kind", ["contract", "preregistration", "run_log"])
def test_a_document_of_another_kind_is_refused_whichever_sorts_first(kind: str) -> None:
    for wanted in ("contract", "preregistration", "run_log"):
        report = Report("x")
        parsed = parse(wanted, encoded(as_json(getattr(study(), kind))), wanted, report)
        assert (parsed is not None) == (kind == wanted)
        assert (report.channel(Channel.SCHEMA).status is Status.PASSED) == (kind == wanted)


def test_every_wrong_field_of_a_document_is_named_where_it_stands() -> None:
    made = as_json(honest())
    made["claim"]["verdict"] = "splendid"
    made["run_log"]["steps"] = "two"
    raw = encoded(made)
    report = verified(study(), raw)
    problems = report.channels[Channel.SCHEMA].problems
    assert [p.path for p in problems] == [("claim", "verdict"), ("run_log", "steps")]
    for problem, text in zip(problems, ('"splendid"', '"two"'), strict=True):
        assert problem.position is not None
        line, column = problem.position
        assert raw.decode().splitlines()[line - 1][column - 1 :].startswith(text)


def test_runs_that_lack_or_exceed_the_planned_ones_are_named_apart() -> None:
    def told(change: Change) -> str:
        made = as_json(honest())
        change(made)
        found = verified(study(), made).channels[Channel.CONTRACT].problems
        assert [p.rule for p in found] == ["ATL-C009"]
        return found[0].stated

    assert told(lambda r: r["subjects"].pop(0)) == "without arm:close; beyond none"
    assert (
        told(lambda r: r["subjects"].append({**r["subjects"][-1], "run_id": "null:zzz"}))
        == "without none; beyond null:zzz"
    )


def test_of_many_wrong_fields_twenty_are_named() -> None:
    made = as_json(honest())
    for subject in made["subjects"]:
        subject |= {name: [] for name in subject}
    assert sum(len(s) for s in made["subjects"]) > 20
    assert len(verified(study(), made).channels[Channel.SCHEMA].problems) == 20


@pytest.mark.parametrize(("text", "fine"), [("[1,2,3]", True), ("[1,2,3,4]", False), ("[[1,2,3,4]]", False), ("[[1,2],[3,4],5]", True),
                                            ("[[1],[2],[3],[4]]", False), ('{"a":[1,2,3],"b":[4,5,6]}', True)])  # fmt: skip
def test_members_are_counted_in_each_container_by_itself(text: str, fine: bool) -> None:
    limits = replace(LIMITS, members=3)
    if fine:
        _require_bounds(text, limits)
    else:
        with pytest.raises(DocumentError, match="too many members"):
            _require_bounds(text, limits)


def test_a_place_is_told_by_line_and_column_from_one() -> None:
    text = '{"a":\t1,\n\t"b":\t2}'
    assert [_where(text, text.index(c)) for c in "{1b2}"] == ["1:1", "1:7", "2:3", "2:7", "2:8"]
    assert [_where("\n[]", at) for at in (0, 1, 2)] == ["1:1", "2:1", "2:2"]


@pytest.mark.parametrize(("text", "values"), [
    ("[[1,2],[3,4]]", 7), ("[1,1,1,1]", 5), ("[[[[]]]]", 4), ('{"a":{"b":1},"c":[2,3]}', 9), ("null", 1), ("[true,-0.5e+3,NaN]", 4),
])  # fmt: skip
def test_a_document_holds_as_many_values_as_the_limit(text: str, values: int) -> None:
    """Counted are names, and whatever else a value begins with; whether it is JSON is not asked."""
    _require_bounds(text, replace(LIMITS, values=values))
    with pytest.raises(DocumentError, match="too many values"):
        _require_bounds(text, replace(LIMITS, values=values - 1))


def test_half_of_a_pair_is_quoted_in_part() -> None:
    with pytest.raises(DocumentError) as error:
        read_json(b'["' + b"k" * 200 + b'\\ud800"]')
    assert error.value.found == "'" + "k" * 79


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_a_stated_number_is_off_by_half_a_unit_of_its_last_digit_at_most(scale: float) -> None:
    stated = 1.23456789 * scale
    for by, same in ((0.49e-8, True), (-0.49e-8, True), (0.51e-8, False), (-0.51e-8, False), (0.3, False)):
        found = list(differences({"x": [stated]}, {"x": [stated + by * scale]}, 1e-12, 9))
        assert (found == []) == same, by
        assert [path for path, _, _ in found] == ([] if same else [("x", 0)])
    assert list(differences([0.0], [0.0], 1e-12, 9)) == []
    assert len(list(differences([0.0], [1e-300], 1e-12, 9))) == len(list(differences([1e-300], [0.0], 1e-12, 9))) == 1


def test_every_window_with_other_tokens_is_named() -> None:
    rows = study().rows("window")
    for at in (0, 2, 3):
        rows[at]["tokens"] = [*rows[at]["tokens"][:-1], (rows[at]["tokens"][-1] + 1) % 19]
    s = study().with_rows("window", rows)
    found = list(_window_faults(s.source().read("window", ()), s.preregistration))
    assert [where for _, where, _, _ in found] == [
        f"table window, window_id={rows[at]['window_id']}" for at in (0, 2, 3)
    ]


def test_of_many_wrong_windows_five_are_reported_and_no_table_is_looked_at() -> None:
    rows = [{**row, "n_bytes": row["n_bytes"] + 1} for row in study().rows("window")]
    s = study().with_rows("window", rows)
    assert len(rows) > 5
    result = ChannelResult(Channel.CONTRACT)
    check_tables(s.source(), s.preregistration, s.contract, result)
    assert [p.where for p in result.problems] == [f"table window, window_id={r['window_id']}" for r in rows[:5]]
    assert (result.checked, result.total) == (1, 1)


@pytest.mark.parametrize(("length", "shown"), [(118, '"' + "x" * 118 + '"'), (119, '"' + "x" * 116 + "...")])
def test_a_text_that_differs_is_shown_in_120_characters(length: int, shown: str) -> None:
    ((_, stated, found),) = differences("x" * length, "y", 0.0, 9)
    assert (stated, found) == (shown, '"y"')
    assert len(stated) == 120


def test_a_name_that_stands_twice_is_quoted_in_part() -> None:
    with pytest.raises(DocumentError) as error:
        read_json(b'{"' + b"k" * 200 + b'": 1, "' + b"k" * 200 + b'": 2}')
    assert error.value.found == "'" + "k" * 79


def test_a_document_may_be_as_long_as_the_limit() -> None:
    assert read_json(b"[1, 2]", replace(LIMITS, document_bytes=6)) == [1, 2]
    with pytest.raises(DocumentError, match="too large"):
        read_json(b"[1, 2]", replace(LIMITS, document_bytes=5))


@pytest.mark.parametrize(("limit", "token", "fine"), [
    (8, "a" * 8, True), (8, "a" * 9, False), (8, "é" * 4, True), (8, "é" * 4 + "a", False), (10, "a" * 10, True), (10, "a" * 11, False),
    (11, "a" * 11, True), (11, "a" * 12, False), (11, "a" * 13, False),
])  # fmt: skip
def test_a_string_is_as_long_as_its_bytes(limit: int, token: str, fine: bool) -> None:
    limits = replace(LIMITS, string_bytes=limit)
    if fine:
        _require_bounds(f'["{token}"]', limits)
    else:
        with pytest.raises(DocumentError, match="too long"):
            _require_bounds(f'["{token}"]', limits)


@pytest.mark.parametrize(("digits", "fine"), [(39, True), (40, True), (41, False), (42, False), (400, False)])
def test_a_number_has_forty_characters_at_most(digits: int, fine: bool) -> None:
    if fine:
        _require_bounds(f"[{'1' * digits}]", LIMITS)
    else:
        with pytest.raises(DocumentError, match="number is too long"):
            _require_bounds(f"[{'1' * digits}]", LIMITS)


def test_the_head_of_a_log_is_the_hash_of_its_last_step() -> None:
    report = verified(study(), as_json(study().run_log), Options(profile="offline"))
    assert report.facts["head"] == study().run_log.steps[-1].hash


def test_what_was_found_apart_is_added_to_a_channel() -> None:
    apart = ChannelResult(Channel.REPRODUCTION, checked=3, total=5, unit="rows")
    apart.report(Problem("ATL-R001", "x"))
    result = ChannelResult(Channel.REPRODUCTION, checked=10, total=20)
    result.absorb(apart)
    assert (result.checked, result.total, result.unit) == (13, 25, "rows")
    assert [p.rule for p in result.problems] == ["ATL-R001"]


def test_profiles_ask_for_what_they_say() -> None:
    first = ["admission", "schema"]
    offline, review = [*first, "contract", "binding"], [*first, "contract", "binding", "reproduction", "decision"]
    asked = {name: {c.value for c in channels} for name, channels in PROFILES.items()}
    assert asked == {
        "schema": set(first), "offline": set(offline), "review": set(review), "release": {*review, "authenticity"},
        "replay": {*review, "authenticity", "replay"},
    }  # fmt: skip
    assert all(channels[: len(first)] == (Channel.ADMISSION, Channel.SCHEMA) for channels in PROFILES.values())
    assert all(
        channels[-1] is Channel.DECISION for n, channels in PROFILES.items() if n in ("review", "release", "replay")
    )


def test_a_record_is_asked_for_each_series_value_and_claim() -> None:
    """Two series of three and two values, and two claims."""
    report = Report("x", required=PROFILES["offline"])
    verify_measurement(Measurement.model_validate(measurement(), strict=False), None, report, lambda _: None)
    assert (report.channels[Channel.CONTRACT].checked, report.channels[Channel.CONTRACT].total) == (9, 9)


def test_absent_rows_of_a_record_are_one_gap() -> None:
    result = told(bound()).channels[Channel.BINDING]
    assert (result.checked, result.total, result.status) == (0, 1, Status.UNPROVEN)


def test_each_outcome_has_its_number() -> None:
    assert {code.name: int(code) for code in Code} == {
        "VERIFIED": 0, "NOT_PRESERVED": 1, "USAGE": 2, "INADMISSIBLE": 3, "TAMPERED": 4, "DIVERGED": 5, "UNPROVEN": 6, "INTERNAL": 70,
        "INTERRUPTED": 130,
    }  # fmt: skip


def test_a_log_that_breaks_the_protocol_is_told_where() -> None:
    def first_read_last(steps: list[Json]) -> list[Json]:
        return [*steps, {**steps[-1], "step": "read0", "actor": "technician"}]

    log = rechained(study().run_log, first_read_last)
    found = fired(partial(check_protocol, log))
    assert found == [f"C040 steps/{len(log.steps) - 1}"]


def test_a_run_table_that_no_receipt_can_repeat_is_a_finding_and_no_fault_of_the_verifier() -> None:
    s = study()
    nameless = s.with_value("run", s.find("run", run_id="arm:close"), "model", "")
    result = ChannelResult(Channel.REPRODUCTION)
    check_runs(honest(), nameless.source(), s.preregistration, s.contract, result)
    assert [(p.rule, p.what) for p in result.problems] == [("ATL-R014", "Table run holds what no receipt can repeat.")]
    assert result.problems[0].stated.startswith("/model ")
    twice = nameless.with_value("run", s.find("run", run_id="arm:close"), "tokenizer_digest", "none")
    result = ChannelResult(Channel.REPRODUCTION)
    check_runs(honest(), twice.source(), s.preregistration, s.contract, result)
    (found,) = [p for p in result.problems if p.rule == "ATL-R014"]
    assert found.stated.startswith("/model ")  # the first of two


@pytest.mark.parametrize("wrong", [0, 1, 19, 20, 21, 40])
def test_twenty_findings_that_differ_are_listed_and_more_are_counted(wrong: int) -> None:
    def findings(values: Json) -> Any:
        return SimpleNamespace(model_dump=lambda **_: {"deep": [values]})

    stated, found = {f"n{i:02}": 1.0 for i in range(40)}, {f"n{i:02}": 2.0 if i < wrong else 1.0 for i in range(40)}
    receipt = cast(Receipt, SimpleNamespace(findings=findings(stated)))
    result = ChannelResult(Channel.REPRODUCTION)
    check_findings(receipt, findings(found), study().contract, result)
    assert (result.checked, result.total) == (40, 40)
    listed = [p.path for p in result.problems if len(p.path) > 1]
    assert listed == [("findings", "deep", 0, f"n{i:02}") for i in range(min(wrong, 20))]
    assert [p.what for p in result.problems if len(p.path) == 1] == (
        [f"{wrong} findings differ in all."] if wrong > 20 else []
    )


def test_a_number_may_be_off_by_just_half_a_unit_and_a_container_by_nothing() -> None:
    """Of one digit, 1 stands for 0.5 to 1.5, both of which a double holds exactly."""
    for found, same in ((0.5, True), (1.5, True), (1.5000001, False), (0.4999999, False)):
        assert (list(differences(1.0, found, 0.0, 1)) == []) is same
    for one, other in (
        ({"a": 1}, 5),
        (5, {"a": 1}),
        ({"a": 1}, [1]),
        ([1], {"a": 1}),
        ({"a": 1}, {"a": 1, "b": 1}),
        ([1], [1, 1]),
    ):
        assert [path for path, _, _ in differences(one, other, 0.0, 9)] == [()]
    assert leaves({"a": [1, {"b": 2}], "c": None, "d": []}) == 3


def test_a_table_of_which_nothing_is_planned_is_looked_at_once() -> None:
    s = study().with_preregistration({"overlap_pairs": 0}).with_rows("overlap", [])
    assert fired(partial(_check_table, s.source(), "overlap", s.preregistration, s.contract)) == []
    result = ChannelResult(Channel.CONTRACT)
    _check_table(s.source(), "overlap", s.preregistration, s.contract, result)
    assert result.checked == 1


def test_a_record_says_which_of_its_values_cite_no_rows() -> None:
    def sources(record: Json) -> list[str]:
        read = Measurement.model_validate(record, strict=False)
        return [line for line in _not_established(read) if line.startswith("where ")]

    def all_cited(m: Json) -> None:
        cited = m["series"][1]["values"][0]["rows"]
        for series in m["series"]:
            for value in series["values"]:
                value["rows"] = cited

    count = sum(len(s["values"]) for s in measurement()["series"])
    assert sources(measurement()) == [f"where {count} of {count} values come from (they cite no rows)"]
    assert sources(bound()) == [f"where {count - 1} of {count} values come from (they cite no rows)"]
    assert sources(bound(all_cited)) == []


def test_rows_of_a_record_that_cannot_be_read_are_inadmissible() -> None:
    def unreadable() -> Rows:
        raise EvidenceError("The file is none.", where="measurement_row.parquet")

    report = told(bound(), open_rows=unreadable)
    assert exit_code(report) in (Code.INADMISSIBLE, Code.TAMPERED)
    assert [p.what for r in report.channels.values() for p in r.problems] == ["The file is none."]


def test_a_prediction_is_asked_for_each_requirement_role_and_clause_and_two_things_more() -> None:
    made = Prediction.model_validate(prediction(), strict=False)
    result = ChannelResult(Channel.CONTRACT)
    check_prediction(made, [], result)
    asked = [*made.requires, *made.rule.given, *made.rule.clauses]
    assert (result.checked, result.total) == (len(asked) + 2,) * 2


@pytest.mark.parametrize("identifier", sorted(built_in_predictions()))
def test_a_published_prediction_is_itself_and_any_other_under_its_id_is_not(identifier: str) -> None:
    def found(made: Prediction) -> list[str]:
        result = ChannelResult(Channel.CONTRACT)
        check_prediction(made, [], result)
        return [p.rule for p in result.problems]

    published = built_in_predictions()[identifier]
    others = [published.model_copy(update={"title": f"another {n}"}) for n in range(8)]
    assert found(published) == []
    assert [found(other) for other in others] == [["ATL-C067"]] * 8


def test_how_stated_uncertainties_came_about_is_not_established_where_there_are_any() -> None:
    def said(change: Change = lambda m: None) -> bool:
        made = Measurement.model_validate(measurement(change), strict=False)
        return "how stated uncertainties were computed" in _not_established(made)

    def certain(m: Json, left: int = 0) -> None:
        for value in m["series"][1]["values"][left:]:
            value["uncertainty"] = None

    def words(change: Change) -> bool:
        made = Measurement.model_validate(measurement(change), strict=False)
        return any("words of a claim" in line for line in _not_established(made))

    assert words(lambda m: None)
    assert not words(lambda m: m.update(claims=[]))
    assert said()
    assert said(partial(certain, left=1))
    assert not said(certain)


def test_runs_with_the_bases_weights_alone_are_at_no_distance_from_it() -> None:
    def faults(run: str, weights: str | None, distance: float) -> list[str]:
        s = study()
        at = s.find("run", run_id=run)
        s = s.with_value("run", at, "param_distance", distance)
        s = s if weights is None else s.with_value("run", at, "weights_digest", weights)
        found = _identity_faults(s.source().read("run", ()), s.preregistration)
        return [f"{what.partition(' ')[0]} {where} {stated[:6]}" for what, where, stated, _ in found]

    far, other = "param_distance", "weights_digest"
    assert faults("arm:close", None, 1e-9) == []
    assert faults("arm:close", None, 0.0) == []
    for distance in (-1e-9, -0.5, -1.0, -2.0):
        assert faults("arm:close", None, distance) == [f"{far} arm:close {str(distance)[:6]}"]
    assert faults("arm:frozen", None, 0.5) == [f"{far} arm:frozen 0.5"]
    for run in ("base", "null:batch"):
        assert faults(run, None, 0.5) == [f"{far} {run} 0.5"]
        assert faults(run, LOW, 0.0) == [f"{other} {run} {LOW[:6]}"]
        assert faults(run, LOW, 0.5) == [f"{other} {run} {LOW[:6]}", f"{far} {run} 0.5"]


def test_only_the_plan_has_an_option_by_which_an_absent_one_may_be_given() -> None:
    report = verified(study(), honest(), preregistration=None, run_log=None)
    found = {p.rule: p.todo for p in report.channels[Channel.CONTRACT].problems}
    assert found == {
        "ATL-C002": "put preregistration.json beside the receipt or --preregistration",
        "ATL-C005": "put run_log.json beside the receipt",
    }


def test_every_window_too_short_for_its_positions_is_named() -> None:
    s = study()
    late = s.preregistration.model_copy(update={"first_allowed_position": 5})
    found = list(_window_faults(s.source().read("window", ()), late))
    short = [w.window_id for w in late.windows if w.n_tokens < 5 + late.positions_per_window]
    named = [where.partition("window_id=")[2] for what, where, _, _ in found if "too short" in what]
    assert len(short) > 1
    assert named == short
