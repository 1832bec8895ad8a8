"""What is allowed up to a bound is allowed at the bound, and refused one step beyond it: rules between documents, in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from verify.forging import Json, as_json, encoded, honest, rechained, study, verified

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.study.plan import planned_rows
from atlas_schema.verify import consistency
from atlas_schema.verify.documents import parse
from atlas_schema.verify.outcome import Channel, ChannelResult, Report, Status
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
