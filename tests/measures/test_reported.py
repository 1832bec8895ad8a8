"""Everything that is reported beside the gated cells: against the oracle on every kind of router, and by its properties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evidence.strategies import arrow
from hypothesis import given, settings
from hypothesis import strategies as st
from measures.worlds import WORLDS, CutSource, findings, found_in, naive, study
from naive import reported as oracle
from naive.reported import Number
from naive.reported import Rows as Naive
from simulator import COLLAPSED, IDENTICAL, PRESERVED, StudySimulator, small

from atlas_schema.documents.receipt import Assumption, Reported
from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.tables import TABLES, Dims
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.collect import LayerBlock, OutputBlock, Sums, collect
from atlas_schema.measures.drift import update_groups
from atlas_schema.measures.reported import Native, base_same_state, certificate, log_ratio
from atlas_schema.measures.routers import RouterRule
from atlas_schema.measures.statements import NOTES

EVERY = sorted(WORLDS)
LAYERS = (0, 2)


def close(value: float | None) -> object:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-13)


def same(found: Reported | Assumption, expected: Number) -> None:
    where = f"{found.definition} {found.layer}"
    assert found.value == close(expected.value), where
    assert found.count == expected.count, where
    if isinstance(found, Reported):
        assert found.standard_error == close(expected.error), where


# --- against the oracle -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", EVERY)
def test_what_is_reported_of_arms_equals_the_oracle(world: str) -> None:
    rows = naive(world)
    for arm in findings(world).arms:
        run, listed = f"arm:{arm.arm}", {(r.definition, r.layer, r.domain): r for r in arm.reported}
        assert len(listed) == len(arm.reported)
        for layer in LAYERS:
            expected = oracle.layer_ratios(rows, run, layer) | oracle.overlap(rows, run, layer)
            expected |= oracle.shifts(rows, run, layer)
            expected["overlap.rank_correlation/1"] = oracle.rank_correlation(rows, run, layer)
            after, before = (oracle.entropy(oracle.loads(rows, of, layer)) for of in (run, "base"))
            tokens = len(rows.of("routing", run, layer))
            expected["baseline.telemetry/1"] = Number(abs(after - before), None, tokens)
            error = rows.of("layer", run, layer)[0]["reconstruction_error"]
            expected["reconstruction.error/1"] = Number(error, None, tokens)
            assert {d for d, at, _ in listed if at == layer} == set(expected)
            for name, number in expected.items():
                same(listed[name, layer, None], number)
        distance = next(r["param_distance"] for r in rows.tables["run"] if r["run_id"] == run)
        same(listed["baseline.parameters/1", None, None], Number(distance, None, 1))
        for domain in ("a", "b", "c"):
            numbers = oracle.domain_numbers(rows, run, domain)
            assert {d for d, _, at in listed if at == domain} == set(numbers)
            for name, number in numbers.items():
                same(listed[name, None, domain], number)


@pytest.mark.parametrize("world", EVERY)
def test_what_is_reported_of_the_base_equals_the_oracle(world: str) -> None:
    rows, base = naive(world), findings(world).base
    listed = {(r.definition, r.layer, r.domain): r for r in base.reported}
    for layer in LAYERS:
        expected = oracle.base_ratios(rows, layer, "arm:preserved")
        maps = oracle.overlap(rows, "base", layer)
        expected |= {name: maps[name] for name in ("overlap.residual/1", "overlap.condition/1")}
        error = rows.of("layer", "base", layer)[0]["reconstruction_error"]
        expected["reconstruction.error/1"] = Number(error, None, len(rows.of("routing", "base", layer)))
        assert {d for d, at, _ in listed if at == layer} == set(expected)
        for name, number in expected.items():
            same(listed[name, layer, None], number)
    for domain in ("a", "b", "c"):
        for name, number in oracle.domain_numbers(rows, "base", domain).items():
            same(listed[name, None, domain], number)


@pytest.mark.parametrize("world", EVERY)
def test_assumptions_equal_the_oracle_and_hold_where_they_say(world: str) -> None:
    rows, found = naive(world), findings(world)
    runs = [("base", "arm:preserved", found.base.assumptions)]
    runs += [(f"arm:{a.arm}", f"arm:{a.arm}", a.assumptions) for a in found.arms]
    for run, update_run, listed in runs:
        assert [(a.definition, a.layer) for a in listed] == [(d, layer) for layer in LAYERS for d in ids.ASSUMPTIONS]
        for a in listed:
            number = oracle.assumptions(rows, run, a.layer, update_run)[a.definition]
            same(a, number)
            expected = {ids.RANK: number.value == rows.d, ids.ANGULAR: number.value == 1.0, ids.TANGENT: None}
            assert a.holds == (None if number.value is None else expected[a.definition])
    assert world != "low rank" or not any(a.holds for a in found.base.assumptions if a.definition == ids.RANK)


@pytest.mark.parametrize("world", EVERY)
def test_asserted_is_what_rows_give_no_way_to_recompute(world: str) -> None:
    asserted = {ids.TRANSPORT_LOCAL, ids.OVERLAP_DRIFT, ids.OVERLAP_RESIDUAL, ids.OVERLAP_CONDITION, ids.OVERLAP_CORRELATION,
                ids.BASELINE_PARAMETERS, ids.RECONSTRUCTION, ids.KL, ids.RANK}  # fmt: skip
    found = findings(world)
    listed: list[Reported | Assumption] = [*found.base.reported, *found.base.assumptions]
    for arm in found.arms:
        listed += [*arm.reported, *arm.assumptions]
    assert {r.definition for r in listed if r.assurance == "asserted"} == asserted
    for entry in listed:
        assert (entry.assurance == "asserted") == (entry.definition in asserted)
        over = NOTES.get(entry.definition, ids.REGISTRY[entry.definition].over)
        assert entry.note == over if entry.value is not None else entry.note not in ("", over)


def test_every_definition_id_occurs() -> None:
    """The list in the documents is compared with the registry by the tests of the documents."""
    from docs.definitions import ids_in

    assert ids_in(findings("softmax").model_dump(mode="json")) == set(ids.REGISTRY)


# --- the base against itself, other score spaces, nothing to report -------------------------------------------------


@pytest.mark.parametrize("world", ["softmax", "groups"])
def test_an_arm_with_the_bases_weights_differs_by_exactly_nothing(world: str) -> None:
    arm = next(a for a in findings(world).arms if a.arm == "identical")
    zero = {ids.TRANSPORT_LOCAL, ids.TURNOVER, ids.ROUTER_TERM, ids.MARGIN_SHIFT, ids.ROUTER_SHIFT, ids.OVERLAP_DRIFT, ids.PI_SHIFT,
            ids.PI_PLUGIN, ids.ADJACENCY_SHIFT, ids.ADJACENCY_PLUGIN, ids.BASELINE_NORM, ids.BASELINE_TELEMETRY,
            ids.BASELINE_PARAMETERS, ids.KL}  # fmt: skip
    values = {(r.definition, r.layer, r.domain): r.value for r in arm.reported}
    for (definition, *_), value in values.items():
        if definition in zero:
            assert value == 0.0, definition
        if definition in (ids.CERTIFICATE, ids.TOP1):
            assert value == 1.0, definition
        if definition == ids.TIGHTNESS:
            assert value is None, "nothing moved: the bound is zero"
    base = {(r.definition, r.layer, r.domain): r.value for r in findings(world).base.reported}
    for key in base.keys() & values.keys():
        assert base[key] == values[key], key


@pytest.mark.parametrize("other", ["arm:preserved", "base"])
def test_margins_are_not_compared_across_score_spaces(other: str) -> None:
    made = study("softmax")
    rows = [{**row, "score_space": "softmax+bias"} if row["run_id"] == other else row for row in made.rows("layer")]
    arm = found_in(made.with_rows("layer", rows)).arms[0]
    for entry in arm.reported:
        if entry.definition in (ids.MARGIN_SHIFT, ids.CERTIFICATE):
            assert (entry.value, entry.standard_error, entry.count) == (None, None, 0)
            assert "different score spaces" in entry.note


def test_the_norm_of_the_input_is_taken_with_each_runs_own_eps() -> None:
    made = study("softmax")
    rows = [{**row, "eps": row["eps"] + 0.125 * (row["run_id"] == "arm:preserved")} for row in made.rows("layer")]
    changed = made.with_rows("layer", rows)
    numbers = Naive({name: changed.rows(name) for name in changed.tables}, changed.settings.top_k, changed.settings.experts,
                    changed.settings.d, 10)  # fmt: skip
    sums = collect(changed.source(), changed.contract, changed.preregistration)
    for layer in LAYERS:
        found = sums.ratios["arm:preserved", layer, ids.BASELINE_NORM].value
        assert found == close(oracle.layer_ratios(numbers, "arm:preserved", layer)[ids.BASELINE_NORM].value)
        assert found != sums.ratios["arm:rewritten", layer, ids.BASELINE_NORM].value


def test_pairs_that_nobody_visits_are_no_numbers() -> None:
    made = study("softmax")
    rows = [{**row, "visits": 0, "residual": 0.0, "drift_num": 0.0, "drift_den": 0.0} for row in made.rows("overlap")]
    for entry in found_in(made.with_rows("overlap", rows)).arms[0].reported:
        if entry.definition in (ids.OVERLAP_DRIFT, ids.OVERLAP_RESIDUAL, ids.OVERLAP_CONDITION):
            assert (entry.value, entry.count, entry.note) == (None, 0, "no pair of experts was visited")


@pytest.mark.parametrize("world", EVERY)
def test_a_field_moves_no_further_than_its_adaptation_bound(world: str) -> None:
    for arm in findings(world).arms:
        for entry in arm.reported:
            if entry.definition == ids.TIGHTNESS and entry.value is not None:
                assert entry.value <= 1.0 + 1e-9
    for row in study(world).rows("update"):
        moved, bound = oracle.tightness(row)
        assert moved <= bound * (1 + 1e-6) + 1e-12  # stored weights are float32


def test_a_token_belongs_to_the_cluster_of_its_own_row_in_its_own_table() -> None:
    """Rows of one table may be fewer than those of another; a rule of verification refuses that, and measures are true of both."""
    made, whole = study("softmax"), whole_sums("softmax")
    first = min(row["window_id"] for row in made.rows("update"))
    changed = made.with_rows("update", [row for row in made.rows("update") if row["window_id"] != first])
    found = collect(changed.source(), changed.contract, changed.preregistration)
    of_window = whole.clusters.of_window[first]
    others = np.arange(len(whole.clusters.names)) != of_window
    for key, ratio in whole.ratios.items():
        if key[2].startswith(ids.COORDINATE):
            assert bits(found.ratios[key]) == bits(ratio)
        if key[2].startswith(ids.CONTENT):
            assert bits(found.ratios[key].denominator[others]) == bits(ratio.denominator[others])
            assert found.ratios[key].denominator[of_window] < ratio.denominator[of_window]


# --- blocks -------------------------------------------------------------------------------------------------------


def bits(value: Any) -> Any:
    """Return a value in which floats are compared bit by bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: bits(part) for key, part in value.items()}
    if isinstance(value, float):
        return np.float64(value).tobytes()
    if hasattr(value, "model_dump"):
        return bits(value.model_dump())
    if hasattr(value, "__dataclass_fields__"):
        return {name: bits(getattr(value, name)) for name in value.__dataclass_fields__}
    return [bits(part) for part in value] if isinstance(value, (list, tuple)) else value


def whole_sums(world: str) -> Sums:
    made = study(world)
    return collect(made.source(), made.contract, made.preregistration)


@pytest.mark.parametrize("world", ["softmax", "groups"])
@settings(max_examples=12)
@given(data=st.data())
def test_where_blocks_are_cut_changes_no_bit(world: str, data: st.DataObject) -> None:
    made = study(world)
    windows = [row["window_id"] for row in made.rows("window")]
    last = data.draw(st.lists(st.sampled_from(windows), unique=True, max_size=6))
    found = collect(CutSource(made, last), made.contract, made.preregistration)
    assert bits(found) == bits(whole_sums(world))


def test_a_block_of_every_single_window_gives_the_same_sums() -> None:
    made = study("softmax")
    source = CutSource(made, [row["window_id"] for row in made.rows("window")])
    assert bits(collect(source, made.contract, made.preregistration)) == bits(whole_sums("softmax"))


class Looker:
    """Counts rows and keeps the order in which blocks come."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.layers: list[int] = []

    def layer_block(self, block: LayerBlock) -> None:
        self.layers.append(block.layer)
        for name, of in (("state", block.state), ("routing", block.routing), ("update", block.update),
                         ("update_vector", block.vectors)):  # fmt: skip
            self.rows[name] = self.rows.get(name, 0) + sum(rows.n for rows in of.values())
        assert set(block.state) == set(block.routing) == {"base", *block.update}
        assert block.groups("arm:preserved") is block.groups("arm:preserved")

    def output_block(self, block: OutputBlock) -> None:
        self.rows["output"] = self.rows.get("output", 0) + sum(rows.n for rows in block.output.values())


def test_observers_see_every_row_once() -> None:
    made, looker = study("softmax"), Looker()
    source = CutSource(made, [made.rows("window")[9]["window_id"]])
    collect(source, made.contract, made.preregistration, [looker])
    counts = made.counts()
    assert looker.rows == {name: counts[name] for name in ("state", "routing", "update", "update_vector", "output")}
    assert looker.layers == [0, 0, 2, 2]


def test_an_observer_that_raises_stops_the_pass() -> None:
    class Stop(Looker):
        def layer_block(self, block: LayerBlock) -> None:
            raise LookupError("enough")

    made = study("softmax")
    with pytest.raises(LookupError):
        collect(made.source(), made.contract, made.preregistration, [Stop()])


# --- margins under degenerate occupancy, three states ---------------------------------------------------------------


def test_a_margin_that_rises_while_experts_die_may_not_be_cited() -> None:
    found = findings("softmax")
    arm = next(a for a in found.arms if a.arm == "collapsed")
    shift = {r.layer: r.value for r in arm.reported if r.definition == ids.MARGIN_SHIFT}
    assert all(value is not None and value > 0 for value in shift.values()), "the margin rises"
    assert not arm.margin_use.citable
    assert "margin not citable" in arm.flags
    base, occupied = (next(o for o in found.occupancy if o.run_id == run) for run in ("base", "arm:collapsed"))
    ratio = occupied.layers[0].effective_experts / base.layers[0].effective_experts
    assert f"layer 0: effective experts fell to {ratio:.3f} of the base's and 2 experts" in arm.margin_use.reason
    for other in found.arms:
        if other.arm in ("preserved", "identical"):
            assert (other.margin_use.citable, "margin not citable" in other.flags) == (True, False)


@pytest.mark.parametrize(("changes", "citable"), [
    ({}, False), ({"min_effective_ratio": 0.0, "max_lost_experts": 2}, True),
    ({"min_effective_ratio": 0.0, "max_lost_experts": 1}, False), ({"min_effective_ratio": 1.0, "max_lost_experts": 6}, False),
])  # fmt: skip
def test_the_contract_says_when_occupancy_has_degenerated(changes: dict[str, Any], citable: bool) -> None:
    made = StudySimulator.make(small(arms=(COLLAPSED,))).with_contract({"occupancy": changes})
    assert found_in(made).arms[0].margin_use.citable is citable


def test_no_flag_of_a_margin_changes_a_verdict() -> None:
    made = StudySimulator.make(small(arms=(replace(IDENTICAL, name="same"),)))
    strict = made.with_contract({"occupancy": {"min_effective_ratio": 1.0}})
    assert found_in(strict).arms[0].verdict == found_in(made).arms[0].verdict == "preserved"


@pytest.mark.parametrize("world", EVERY)
def test_three_states_summarise_cells_and_domains(world: str) -> None:
    order = ("above", "undetermined", "below", "identical")

    def worst(states: Sequence[str]) -> str:
        left = [s for s in states if s != "not_applicable"]
        return next((s for s in order if s in left), "not_applicable")

    for arm in findings(world).arms:
        of = {d: [c.state for c in arm.cells if c.definition == d] for d in ids.DEFINITIONS}
        assert arm.three_states.boundary_sensitivity == worst(of[ids.BOUNDARY])
        assert arm.three_states.coactive_compatibility == worst([*of[ids.TRANSITION], *of[ids.CONTENT]])
        assert arm.three_states.output_damage == worst([d.state for d in arm.damage])


# --- properties on made-up tokens -----------------------------------------------------------------------------------

DIMS = Dims(3, 8, 2, 2)
GRID = st.integers(-8, 8).map(lambda i: i / 4)


def rule_of(space: str, weights: str, mode: str, bias: list[float] | None = None) -> RouterRule:
    groups = 1 if mode == "none" else 4
    return RouterRule(space, weights, 1.0, None if bias is None else np.array(bias), mode, groups, min(2, groups))


def update_of(rule: RouterRule, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], seed: int) -> Rows:
    """Return update rows of made-up vectors whose sets follow from scores ``[T, 8]``."""
    rng, rows = np.random.default_rng(seed), []
    orders = rule.order(before), rule.order(after)
    for t in range(len(before)):
        first, second = (o[t].tolist() for o in orders)
        listed = sorted({*first[:3], *second[:2]})
        n = len(listed)
        vectors = rng.standard_normal((2 * n, 3))
        masks = [sum(1 << listed.index(e) for e in o[:2]) for o in (first, second)]
        rows.append({
            "run_id": "arm:x", "layer": 1, "window_id": "w", "position": t, "experts": listed, "in0": masks[0], "in1": masks[1],
            "pair_out": first[1], "pair_in": first[2], "rho0": [0.5] * n, "rho1": [0.5] * n, "rho0_b": 0.5, "rho1_b_forced": 0.5,
            "dispatch0": before[t].tolist(), "dispatch1": after[t].tolist(), "uz0": [0.0] * n, "uu0": [0.0] * n,
            "uz1": [0.0] * n, "uu1": [0.0] * n, "gram": (vectors @ vectors.T)[np.triu_indices(2 * n)].tolist(), "dV_norm": 0.0,
            "y0_norm": 0.0, "dy_norm": 0.0, "transport_angle": None,
        })  # fmt: skip
    return from_arrow(TABLES["update"], DIMS, arrow("update", rows, DIMS))


def scores(draw: st.DrawFn, size: int = 4) -> np.ndarray[Any, Any]:
    drawn = draw(st.lists(st.lists(GRID, min_size=8, max_size=8), min_size=size, max_size=size))
    return np.array(drawn, dtype=np.float32).astype(np.float64)


@st.composite
def moves(draw: st.DrawFn) -> tuple[RouterRule, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rule = rule_of(*draw(st.sampled_from([
        ("logit", "softmax_topk", "none"), ("sigmoid+bias", "sigmoid_topk", "top2_sum"), ("softmax+bias", "softmax_topk", "max"),
    ])))  # fmt: skip
    before = scores(draw)
    size = draw(st.sampled_from([0.0, 0.01, 0.1, 0.5]))
    return rule, before, (before + size * scores(draw)).astype(np.float32).astype(np.float64)


@given(moves())
def test_a_certified_set_did_not_change(move: tuple[RouterRule, np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    rule, before, after = move
    update = update_of(rule, before, after, 0)
    for t, certified in enumerate(certificate(update, rule, before, after)):
        if certified:
            assert update["in0"][t] == update["in1"][t]
    still = certificate(update, rule, before, before)
    orders = rule.order(before)
    margins = before[np.arange(4), orders[:, 1]] - before[np.arange(4), orders[:, 2]]
    if rule.group_mode == "none":
        assert still.tolist() == (margins > 0).tolist(), "nothing moved: certified unless there is a tie"


@given(st.data(), st.sampled_from([
    ("logit", "softmax_topk"), ("logit", "softmax_topk_renormalised"), ("sigmoid+bias", "sigmoid_topk"),
    ("sigmoid+bias", "sigmoid_topk_renormalised"),
]))  # fmt: skip
def test_the_one_swap_formula_is_exact_at_a_boundary(data: st.DataObject, kind: tuple[str, str]) -> None:
    """Where the pair's scores are equal, weights agree across the boundary and nothing is left of the jump."""
    rule = rule_of(*kind, "none")
    before = np.abs(data.draw(st.composite(scores)())) + 0.25
    orders = rule.order(before)
    row = np.arange(len(before))
    before[row, orders[:, 2]] = before[row, orders[:, 1]]
    update = update_of(rule, before, before, data.draw(st.integers(0, 99)))
    routing = np.stack([o[:2] for o in rule.order(before)])
    base = native_of(routing)
    found = base_same_state(update, update_groups(update), rule, base)
    swap = found[ids.ONE_SWAP]
    assert (swap.numerator <= 1e-6 * (1.0 + swap.denominator)).all()
    assert found[ids.AGREEMENT].numerator.tolist() == [1.0] * len(before)


def native_of(experts: np.ndarray[Any, Any]) -> Native:
    rows = [
        {"run_id": "base", "layer": 1, "window_id": "w", "position": t, "experts": chosen.tolist(), "competitor_in": None,
         "competitor_out": int(chosen[-1]), "margin": None, "group_margin": None, "flags": 0}
        for t, chosen in enumerate(experts)
    ]  # fmt: skip
    return Native.of(from_arrow(TABLES["routing"], DIMS, arrow("routing", rows, DIMS)), 8)


@given(st.data(), st.sampled_from([0.0, 1e-9, 1e-3, 0.4, 3.0]))
def test_log_ratios_are_those_of_the_gate_values(data: st.DataObject, size: float) -> None:
    for kind in (("logit", "softmax_topk"), ("logit", "sigmoid_topk"), ("sigmoid+bias", "sigmoid_topk")):
        rule = rule_of(*kind, "none")
        before = data.draw(st.composite(scores)())
        after = before + size * data.draw(st.composite(scores)())
        found, shown = log_ratio((rule, rule), before, after)
        p0, p1 = rule.probabilities(before), rule.probabilities(after)
        assert (shown == ((p0 > 0) & (p1 > 0))).all()
        direct = np.log(p1[shown] / p0[shown])
        assert found[shown] == pytest.approx(direct, rel=1e-9, abs=1e-15)
        if size == 0.0:
            assert not found[shown].any()


def test_small_changes_of_gate_values_keep_their_digits() -> None:
    rule = rule_of("logit", "softmax_topk", "none")
    before, step = np.linspace(-2, 2, 8)[None], 1e-13
    after = before.copy()
    after[0, 3] += step
    moved = float(after[0, 3] - before[0, 3])
    found, _ = log_ratio((rule, rule), before, after)
    p = float(rule.probabilities(before)[0, 3])
    assert found[0, 0] == pytest.approx(-p * moved, rel=1e-9)
    assert found[0, 3] == pytest.approx((1 - p) * moved, rel=1e-9)
    assert math.isfinite(found.sum())


def test_a_whole_study_of_one_arm_needs_no_other() -> None:
    assert found_in(StudySimulator.make(small(arms=(PRESERVED,)))).matched_success == ()
