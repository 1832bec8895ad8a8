"""Constants of layers, digests, outputs and overlap maps, on both sides of every bound, one row at a time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from verify.forging import study
from verify.test_tolerances import A, Layer, layer

from atlas_schema.evidence.columns import Column, Rows
from atlas_schema.measures.routers import SCORE_SPACES, WEIGHT_RULES
from atlas_schema.verify.physics import native, outputs
from atlas_schema.verify.physics.layers import KNOWN, check_digests, check_layer
from atlas_schema.verify.physics.overlap import _check_numbers, check_overlap_ids, chosen_pairs
from atlas_schema.verify.physics.violations import Record, Violation, first_false, first_wrong

PLAIN, GROUPS, BFLOAT = ("plain", "arm:close"), ("groups", "arm:close"), ("plain", "null:dtype")


def altered(rows: Rows, **values: Any) -> Rows:
    """Return rows with whole columns replaced; numbers as float64 or int64, whatever the column holds."""
    columns = dict(rows.columns)
    for name, value in values.items():
        old = columns[name]
        made = np.array([value] * rows.n, dtype=object) if isinstance(value, str) else np.array(value)
        made = made if made.shape[:1] == (rows.n,) else np.array([value] * rows.n)
        columns[name] = Column(made, old.valid, old.offsets)
    return replace(rows, columns=columns)


def rules(world: tuple[str, str], **values: Any) -> set[str]:
    x: Layer = layer(*world)
    found = check_layer(altered(x.row, **values), x.dims, x.tolerances)
    return {v.rule.removeprefix("ATL-") for v in found}


def test_the_layers_themselves_break_nothing() -> None:
    assert rules(PLAIN) == rules(GROUPS) == rules(BFLOAT) == set()


@pytest.mark.parametrize("name", ["d", "n_experts", "top_k"])
@pytest.mark.parametrize("by", [-1, 1])
def test_sizes_are_those_of_the_columns(name: str, by: int) -> None:
    assert rules(PLAIN, **{name: int(layer(*PLAIN).row[name][0]) + by}) == {"R003"}


@pytest.mark.parametrize(("eps", "fine"), [(0.0, False), (1e-12, True), (0.999, True), (1.0, False), (-1e-6, False)])
def test_eps_lies_between_0_and_1(eps: float, fine: bool) -> None:
    assert rules(PLAIN, eps=eps) == (set() if fine else {"R003"})


@pytest.mark.parametrize(("world", "limit"), [(PLAIN, 1e-3), (BFLOAT, A * 2.0**-8)])
def test_a_block_is_reconstructed_within_the_contract_or_the_unit_of_its_dtype(
    world: tuple[str, str], limit: float
) -> None:
    for error, fine in ((0.0, True), (limit, True), (limit * 1.001, False), (-1e-9, False)):
        assert rules(world, reconstruction_error=error) == (set() if fine else {"R003"}), error


def test_a_rank_is_at_most_the_hidden_size() -> None:
    d = layer(*PLAIN).dims.d
    assert [rules(PLAIN, w1_rank_min=rank) for rank in (d - 1, d, d + 1)] == [set(), set(), {"R003"}]


def test_experts_stand_where_the_bases_do() -> None:
    order = list(range(layer(*PLAIN).dims.E))
    assert rules(PLAIN, identity_permutation=order) == set()
    assert rules(PLAIN, identity_permutation=[*order[:-2], order[-1], order[-2]]) == {"R003"}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("value", ["", "zzz", "!"])
def test_a_word_that_nobody_knows_is_refused(name: str, value: str) -> None:
    assert "R003" in rules(PLAIN, **{name: value})
    assert "R003" in rules(GROUPS, **{name: value})


def test_a_norm_without_gain_has_gain_one() -> None:
    ones = [1.0] * layer(*PLAIN).dims.d

    def of_gain(gain: list[float], convention: str) -> list[str]:
        x = layer(*PLAIN)
        found = check_layer(altered(x.row, gain=gain, gain_convention=convention), x.dims, x.tolerances)
        return [v.what for v in found if "gain has one" in v.what]

    assert of_gain(ones, "none") == []
    assert len(of_gain([*ones[:-1], 0.5], "none")) == len(of_gain([1.5, *ones[1:]], "none")) == 1
    assert of_gain([0.5] * len(ones), "w") == of_gain([0.5] * len(ones), "1+w") == []


@pytest.mark.parametrize(
    ("mode", "groups", "kept", "fine"),
    [
        ("top2_sum", 4, 2, True), ("top2_sum", 4, 1, True), ("top2_sum", 4, 3, True), ("top2_sum", 4, 4, False),
        ("top2_sum", 4, 0, False), ("top2_sum", 3, 2, False), ("top2_sum", 8, 2, False), ("max", 8, 2, True), ("max", 8, 1, False),
        ("max", 4, 2, True), ("max", 0, 0, False), ("max", 16, 2, False), ("top2_sum", 2, 1, True), ("none", 1, 1, True),
        ("none", 4, 1, False), ("none", 1, 2, False), ("none", 1, 0, False),
    ],
)  # fmt: skip
def test_groups_divide_the_experts_and_leave_enough(mode: str, groups: int, kept: int, fine: bool) -> None:
    """Eight experts of which two are active."""
    assert (layer(*GROUPS).dims.E, layer(*GROUPS).dims.k) == (8, 2)
    assert rules(GROUPS, group_mode=mode, n_groups=groups, kept_groups=kept) == (set() if fine else {"R020"})


@pytest.mark.parametrize("space", SCORE_SPACES)
@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_weights_and_scores_come_from_one_gate(space: str, rule: str) -> None:
    gate = space.removesuffix("+bias")
    fine = (gate == "logit" or rule.startswith(gate)) and space != "logit"  # this router has a selection bias
    assert rules(GROUPS, score_space=space, weight_rule=rule) == (set() if fine else {"R020"})
    if space == "logit":  # and this one has none
        assert rules(PLAIN, score_space=space, weight_rule=rule) == set()


@pytest.mark.parametrize(
    ("scale", "fine"), [(1e-6, True), (0.99e-6, False), (1e6, True), (1e6 + 1e-3, False), (-1.0, False)]
)
def test_the_scale_of_weights_has_bounds(scale: float, fine: bool) -> None:
    assert rules(PLAIN, weight_scale=scale) == (set() if fine else {"R020"})


@pytest.mark.parametrize("world", [PLAIN, GROUPS])
def test_there_are_exactly_the_digests_that_the_layer_has_tensors_for(world: tuple[str, str]) -> None:
    digests = json.loads(layer(*world).row["tensor_digests"][0])
    assert ("shared" in digests) == ("selection.bias" in digests) == (world == GROUPS)
    assert "router.bias" not in digests
    for name in digests:
        rest = {k: v for k, v in digests.items() if k != name}
        assert rules(world, tensor_digests=json.dumps(rest)) == {"R003"}, name
    for name in ("router.bias", "experts.99", "shared"):
        if name not in digests:
            more = {**digests, name: digests["local"]}
            assert rules(world, tensor_digests=json.dumps(more)) == {"R003"}, name
    for name in ("norm.gain", "router.weight", "selection.bias"):
        for other in ("0", "f") if name in digests else ():
            wrong = {**digests, name: "sha256:" + other * 64}
            assert rules(world, tensor_digests=json.dumps(wrong)) == {"R003"}, name


# --- routing of a router with groups ------------------------------------------------------------------------------


def routed(kept: int, *tokens: tuple[int, int]) -> list[tuple[str, int]]:
    """Check routing rows of eight experts in four groups of two, whose experts are given."""
    x = layer(*GROUPS)
    rows = x.routing.slice(0, len(tokens))
    rows = altered(rows, experts=np.array(tokens), competitor_out=np.array([t[0] for t in tokens]), margin=0.5, flags=0,
                   competitor_in=7, group_margin=0.5)  # fmt: skip
    if kept == 1:  # then the executed experts are all that are admitted, and there is no competitor
        nobody = np.zeros(rows.n, dtype=np.bool_)
        gone = {c: replace(rows.columns[c], valid=nobody) for c in ("competitor_in", "margin")}
        rows = altered(replace(rows, columns={**rows.columns, **gone}), margin=0.0, competitor_in=0)
    found = native.check_routing(rows, replace(x.facts.rule, kept_groups=kept), x.dims)
    return [(v.rule.removeprefix("ATL-"), v.wrong) for v in found]


def test_executed_experts_lie_in_at_most_as_many_groups_as_are_kept() -> None:
    assert routed(2, (0, 1), (0, 2), (1, 6)) == []
    assert routed(1, (0, 1), (2, 3), (5, 4)) == []
    assert routed(1, (0, 1), (1, 2), (0, 6)) == [("R021", 2)]


def test_sets_that_are_none_are_no_matter_of_groups() -> None:
    assert routed(1, (0, 60_000), (0, 6)) == [("R006", 1)]
    assert routed(1, (3, 3), (0, 6)) == [("R006", 1)]


@pytest.mark.parametrize("margin", [0.0, -1e-9])
def test_a_group_margin_is_not_negative(margin: float) -> None:
    x = layer(*GROUPS)
    found = native.check_routing(altered(x.routing, group_margin=margin), x.facts.rule, x.dims)
    assert [v.rule for v in found] == ([] if margin == 0 else ["ATL-R021"])


def test_a_state_that_moved_either_way_moved() -> None:
    x = layer(*PLAIN)
    z = x.state["z"].astype(np.float64)
    for by in (-1e-6, 1e-6):
        moved = z.copy()
        moved[2, 1] += by
        assert native.check_moved(altered(x.state, z=moved), altered(x.state, z=z))
    assert not native.check_moved(x.state, x.state)


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({"flags": 8}, False), ({"flags": 7}, False), ({"flags": 4}, True), ({"margin": 0.0, "flags": 3}, True), ({"margin": 0.0}, False),
        ({"margin": 0.0, "flags": 1}, True), ({"margin": 0.0, "flags": 2}, True), ({"margin": 0.0, "flags": 4}, False),
        ({"margin": -1e-9}, False), ({"competitor_out": 5}, False), ({"competitor_in": 1}, False), ({"competitor_in": 6}, False),
        ({"competitor_in": 5}, True), ({"experts": np.array([[1, 0]])}, True), ({"experts": np.array([[0, 6]])}, False),
        ({"experts": np.array([[0, 0]])}, False), ({"experts": np.array([[0, 5]])}, True),
    ],
)  # fmt: skip
def test_a_routing_row_is_held_to_itself(changes: dict[str, Any], fine: bool) -> None:
    """Six experts, two active; 0 and 1 were executed, 0 is the lower, 3 the competitor."""
    x = layer(*PLAIN)
    usual = {"experts": np.array([[0, 1]]), "competitor_out": 0, "competitor_in": 3, "margin": 0.5, "flags": 0}
    row = altered(x.routing.slice(0, 1), **{**usual, **changes})
    assert {v.rule for v in native.check_routing(row, x.facts.rule, x.dims)} == (set() if fine else {"ATL-R006"})


# --- digests between runs -----------------------------------------------------------------------------------------

tensor = st.sampled_from("ab")
one_layer = st.fixed_dictionaries({"upstream": tensor, "local": tensor, "experts.0": tensor})
runs = st.fixed_dictionaries(
    {name: st.tuples(st.lists(one_layer, min_size=2, max_size=2), st.sampled_from(["w0", "w1"]), st.sampled_from([0.0, 0.5]))
     for name in ("arm:x", "arm:y", "base")}
)  # fmt: skip


@given(runs)
def test_digests_agree_with_each_other_as_the_rule_says(made: dict[str, Any]) -> None:
    found = check_digests({r: m[0] for r, m in made.items()}, {r: (m[1], m[2]) for r, m in made.items()})
    base = made["base"]
    expected: list[tuple[str, str]] = []
    for run, (layers, digest, distance) in made.items():
        where = f"table layer, run_id={run}"
        if layers != base[0] and (digest == base[1] or distance == 0):
            expected.append(("although the weights do not", where))
        same = [o for o in made if o < run and made[o][1] == digest and made[o][0] != layers]
        expected += [(f"differ from those of {o} ", where) for o in same]
        for at in range(2):
            earlier = any(layers[i] != base[0][i] for i in range(at))
            if (earlier or layers[at]["local"] != base[0][at]["local"]) and layers[at]["upstream"] == base[0][at][
                "upstream"
            ]:
                expected.append((f"upstream of protected layer number {at} ", where))
    assert len(found) == len(expected)
    for violation, (what, where) in zip(found, expected, strict=True):
        assert what in violation.what
        assert (violation.rule, violation.where) == ("ATL-R017", where)


# --- outputs ------------------------------------------------------------------------------------------------------


def output(run: str, at: int = 3, **values: Any) -> Rows:
    return altered(study().source().read("output", (run,)).slice(at, at + 1), **values)


def of_output(target: int, **values: Any) -> list[str]:
    return [
        f"{v.rule.removeprefix('ATL-')} {v.what}"
        for v in outputs.check_output(output("base", **values), np.array([target]))
    ]


@pytest.mark.parametrize(
    ("nll", "entropy", "hit"), [(0.0, 0.0, True), (0.3, 0.6, True), (0.5, 0.7, True), (2.0, 1.0, False)]
)
def test_losses_and_entropies_that_fit_are_believed(nll: float, entropy: float, hit: bool) -> None:
    assert of_output(7, nll=nll, entropy=entropy, top1=7 if hit else 6) == []


def test_losses_entropies_and_most_likely_tokens_fit_each_other_at_their_bounds() -> None:
    assert [x[:4] for x in of_output(7, nll=-1e-9, entropy=0.5, top1=7)] == ["R012"]
    assert [x[:4] for x in of_output(7, nll=0.1, entropy=-1e-9, top1=6)] == ["R012", "R028"]
    for entropy in (math.log(2) - 1e-5, 3.0):  # the larger side sets the slack
        least = math.log(2) - 1e-6 - 2.0**-18 * max(math.log(2), entropy)
        assert of_output(7, nll=least + 1e-8, entropy=entropy, top1=6) == []
        assert len(of_output(7, nll=least - 1e-7, entropy=entropy, top1=6)) == 1
    most = (2.0 + 1e-6) / (1 - 2.0**-18)
    assert of_output(7, nll=most - 1e-8, entropy=2.0, top1=7) == []
    assert len(of_output(7, nll=most + 1e-7, entropy=2.0, top1=7)) == 1


@pytest.mark.parametrize("nll", [0.1, 0.3, 0.6])
def test_an_entropy_is_at_least_that_of_a_token_and_all_others(nll: float) -> None:
    p = math.exp(-nll)
    least = p * nll - (1 - p) * math.log(1 - p)
    slack = 10 * (1e-6 + 2.0**-18 * least)
    assert of_output(7, nll=nll, entropy=least - slack + 1e-7, top1=7) == []
    assert [x[:4] for x in of_output(7, nll=nll, entropy=least - slack - 1e-6, top1=7)] == ["R131"]


def divergence(kl: float, n0: float, n1: float, *, equal: bool = False) -> list[str]:
    mine = output("arm:close", kl_from_base=kl, nll=n1)
    return [v.what for v in outputs.check_divergence(mine, output("base", nll=n0), arm=True, equal=equal)]


@pytest.mark.parametrize(("n0", "n1"), [(0.5, 2.0), (2.0, 0.5), (1.0, 1.0), (0.0, 3.0), (3.0, 0.0), (0.01, 9.0)])
def test_a_divergence_is_at_least_that_of_the_two_events(n0: float, n1: float) -> None:
    p0, p1 = math.exp(-n0), math.exp(-n1)
    rest0, rest1 = 1 - p0, max(1 - p1, 1e-6)
    least = p0 * (n1 - n0) + (rest0 * math.log(rest0 / rest1) if rest0 > 0 else 0.0)
    slack = 1e-5 * (1 + abs(math.log(rest1))) + 2.0**-18 * (abs(least) + p0 * n1)
    assert divergence(max(least, 0.0), n0, n1) == []
    assert divergence(least + 5.0, n0, n1) == []
    if least - slack > 1e-6:
        assert divergence(least - 0.97 * slack, n0, n1) == []
        assert divergence(least - 1.03 * slack, n0, n1) == ["the divergence is smaller than the losses allow"]


def test_a_divergence_is_not_negative_and_zero_for_the_bases_weights() -> None:
    assert (
        divergence(-1e-6, 1.0, 1.0)
        == divergence(1e-6, 1.0, 1.0, equal=True)
        == divergence(-1e-6, 1.0, 1.0, equal=True)
        == []
    )
    assert divergence(-1.1e-6, 1.0, 1.0) == ["a divergence is negative"]
    assert divergence(1.1e-6, 1.0, 1.0, equal=True) == ["weights equal to the base's diverge from it"]
    assert divergence(1.1e-6, 1.0, 1.0) == []
    # Negative losses are another rule's, whichever side has one.
    assert divergence(0.0, -0.5, 2.0) == divergence(0.0, 0.5, -2.0) == []


@pytest.mark.parametrize(("score", "fine"), [(0.0, True), (1.0, True), (0.5, False), (-1.0, False), (2.0, False)])
def test_a_score_is_0_or_1(score: float, fine: bool) -> None:
    task = study().source().read("task", ("base",))
    assert [v.rule for v in outputs.check_task(altered(task, score=score))] == ([] if fine else ["ATL-R012"])


@pytest.mark.parametrize(("angle", "fine"), [(0.0, True), (1.0, True), (-1e-12, False), (1.0 + 1e-12, False)])
def test_a_transport_angle_lies_between_0_and_1_and_is_0_where_nothing_changed(angle: float, fine: bool) -> None:
    rows = study().source().read("update", ("arm:close", 1))
    moved = altered(rows, transport_angle=angle)
    assert [v.rule for v in outputs.check_transport(moved, arm=True, equal=False)] == ([] if fine else ["ATL-R026"])
    assert ("ATL-R026" in [v.rule for v in outputs.check_transport(moved, arm=True, equal=True)]) == (angle != 0)
    assert [v.rule for v in outputs.check_transport(moved, arm=False, equal=False)] == ["ATL-R015"]


# --- overlap maps -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=16, max_size=16), st.integers(1, 12))
def test_the_pairs_are_the_most_visited_ones_ties_to_lower_ids(counts: list[int], count: int) -> None:
    visits = np.array(counts).reshape(4, 4)
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    best = sorted(sorted(pairs, key=lambda p: (-counts[4 * p[0] + p[1]], p))[:count])
    assert [tuple(p) for p in chosen_pairs(visits, count).tolist()] == best


def overlap_faults(run: str = "arm:close", /, **values: Any) -> list[str]:
    s = study()
    base, mine = (s.source().read("overlap", (r, 1)) for r in ("base", run))
    own, of_base = (json.loads(s.source().read("layer", (r, 1))["tensor_digests"][0]) for r in (run, "base"))
    pairs = np.stack([mine["expert_a"], mine["expert_b"]], axis=1).astype(np.int64)
    found = _check_numbers(altered(mine, **values), base, pairs, own, of_base, s.dims, 1e-9)
    assert {v.rule for v in found} <= {"ATL-R025"}
    return [v.what for v in found]


def test_what_maps_may_state_and_what_not() -> None:
    d = study().dims.d
    base = study().source().read("overlap", ("base", 1))
    assert overlap_faults() == overlap_faults("arm:frozen") == []
    assert overlap_faults(rank=d + 1)[0] == "a rank is larger than the hidden size"
    assert overlap_faults(cond=1.0 - 0.99e-6) == overlap_faults(cond=1.0) == []
    assert overlap_faults(cond=1.0 - 1.01e-6) == ["a condition number is below 1"]
    for name in ("residual", "drift_num"):
        assert overlap_faults("arm:close", **{name: 0.0}) == []
        assert overlap_faults("arm:close", **{name: -1e-12}) == ["a residual or drift is negative"]
    assert overlap_faults(visits=0) == ["a pair without visits has a residual or a drift"]
    assert overlap_faults(visits=0, residual=0.0, drift_num=0.0, drift_den=0.0)[0].startswith(
        "the size of the base's maps"
    )
    assert overlap_faults("arm:frozen", drift_num=1e-300) == ["maps of equal experts drift"]
    assert overlap_faults("arm:frozen", cond=float(base["cond"].max()) + 1) == [
        "maps of equal experts have another condition number"
    ]
    assert overlap_faults("arm:frozen", rank=d - 1)[-1] == "maps of equal experts have another rank"
    for factor, fine in ((1 + 0.9e-9, True), (1 - 0.9e-9, True), (1 + 1.1e-9, False), (1 - 1.1e-9, False)):
        assert (overlap_faults(drift_den=base["drift_den"] * factor) == []) == fine, factor


@pytest.mark.parametrize(
    ("a", "b", "fine"), [(0, 5, True), (5, 0, True), (0, 0, False), (0, 6, False), (6, 0, False), (5, 4, True)]
)
def test_a_pair_is_of_two_different_experts_in_range(a: int, b: int, fine: bool) -> None:
    rows = study().source().read("overlap", ("base", 1))
    assert study().dims.E == 6
    assert [v.rule for v in check_overlap_ids(altered(rows, expert_a=a, expert_b=b), study().dims, rows.n)] == (
        [] if fine else ["ATL-R024"]
    )


@pytest.mark.parametrize("by", [-1, 1])
def test_there_are_as_many_pairs_as_planned(by: int) -> None:
    rows = study().source().read("overlap", ("base", 1))
    (found,) = check_overlap_ids(rows, study().dims, rows.n + by)
    assert (found.rule, found.stated, found.recomputed) == ("ATL-R024", str(rows.n), str(rows.n + by))


# --- how violations are found and told ----------------------------------------------------------------------------

grid = st.lists(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, math.nan]), min_size=2, max_size=2), min_size=1, max_size=6
)


@given(grid, grid, st.sampled_from([0.0, 0.5, math.inf]))
def test_the_first_wrong_number_is_told_with_how_many_rows_have_one(a: Any, b: Any, tolerance: float) -> None:
    n = min(len(a), len(b))
    rows = study().source().read("state", ("base", 1)).slice(0, n)
    wrong = [(t, i) for t in range(n) for i in range(2) if not (abs(a[t][i] - b[t][i]) <= tolerance < math.inf)]
    found = first_wrong("ATL-R005", "it", rows, np.array(a[:n]), np.array(b[:n]), tolerance)
    assert bool(found) == bool(wrong)
    if wrong:
        (t, i), violation = wrong[0], found[0]
        assert (violation.stated, violation.recomputed) == (f"{a[t][i]:.9g}", f"{b[t][i]:.9g}")
        assert violation.wrong == len({t for t, _ in wrong})
        assert str(rows["window_id"][t]) in violation.where
        assert f"position={rows['position'][t]}" in violation.where


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_the_first_false_row_is_told_with_how_many_are(holds: list[bool]) -> None:
    rows = study().source().read("state", ("base", 1)).slice(0, len(holds))
    values = np.arange(len(holds)) * 2
    found = first_false("ATL-R005", "it", rows, np.array(holds), values, values + 1)
    assert bool(found) == (not all(holds))
    if found:
        at = holds.index(False)
        assert (found[0].stated, found[0].recomputed, found[0].wrong) == (
            str(2 * at),
            str(2 * at + 1),
            holds.count(False),
        )
        assert f"position={rows['position'][at]}" in found[0].where


def test_a_record_adds_up_blocks_and_shows_five_of_a_rule_in_order() -> None:
    from atlas_schema.verify.outcome import Channel, ChannelResult

    record = Record()
    assert record.clean
    record.add((0, 0), [], 7)
    assert record.clean
    for cell in ((1, 0), (0, 1), (0, 0), (2, 0), (2, 2), (2, 1)):
        record.add(cell, [Violation("ATL-R005", "it", f"first of {cell}", "1", "2", wrong=2)], 10)
    record.add((0, 0), [Violation("ATL-R005", "it", "a later block", "1", "2", wrong=3)], 10)
    record.add((0, 0), [Violation("ATL-R009", "that", "alone", "1", "2")])
    assert not record.clean
    assert (record.broken("ATL-R005"), record.broken("ATL-R009"), record.broken("ATL-R006")) == (True, True, False)
    result = ChannelResult(Channel.REPRODUCTION)
    record.report(result)
    assert (result.checked, result.total) == (77, 77)
    told = [(p.rule, p.where, p.what) for p in result.problems]
    cells = ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1))
    assert [t for t in told if t[0] == "ATL-R005"] == [
        ("ATL-R005", f"first of {c}", "it (5 rows)" if c == (0, 0) else "it (2 rows)") for c in cells
    ]
    assert [t for t in told if t[0] == "ATL-R009"] == [("ATL-R009", "alone", "that")]
