"""Rules of rows one by one, on rows small enough to work out by hand: what is accepted at the edge, and what beyond it is not."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from measures.by_hand import DIMS, V0, V1, at, layer, pair, rows, rule, update

from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import RowsError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures.collect import LayerBlock
from atlas_schema.measures.drift import update_groups
from atlas_schema.measures.routers import RouterRule
from atlas_schema.measures.tensors import tensor_digest
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.verify.outcome import Channel, ChannelResult
from atlas_schema.verify.physics.layers import LayerFacts, check_digests, check_layer, text_object
from atlas_schema.verify.physics.native import States, _check_groups, check_routing, check_routing_against_state
from atlas_schema.verify.physics.observer import Physics
from atlas_schema.verify.physics.outputs import check_divergence, check_output, check_task, check_transport
from atlas_schema.verify.physics.overlap import MAPPED, check_ranks, chosen_pairs
from atlas_schema.verify.physics.overlap import _check_returns as check_returns
from atlas_schema.verify.physics.samestate import BaseSide, Choice, _check_gram, leading
from atlas_schema.verify.physics.vectors import check_vectors
from atlas_schema.verify.physics.violations import SHOWN_PER_RULE, Record, Violation, by_slot, first_false, first_wrong
from atlas_schema.verify.reproduction import differences

TOLERANCES = next(iter(built_in_contracts().values())).tolerances
LN2 = math.log(2.0)


def said(found: list[Violation]) -> set[str]:
    return {v.what for v in found}


# --- layers -------------------------------------------------------------------------------------------------------


def sound(dims: Dims = DIMS, **changes: Any) -> dict[str, Any]:
    """Return a layer's row with the digests of what it stores; ``digests`` changes some of them, None takes one away."""
    digests = changes.pop("digests", {})
    row = layer(**{
        "residual_path": "experts", "w1_kind": "gate_up_stacked", "reconstruction_error": 0.0, "router_weight": [0.5] * (dims.E * dims.d),
        "gain": [2.0] * dims.d, "identity_permutation": list(range(dims.E)), "d": dims.d, "n_experts": dims.E, "top_k": dims.k, **changes,
    })  # fmt: skip
    made = {
        "norm.gain": tensor_digest(np.array(row["gain"], dtype=np.float32)),
        "router.weight": tensor_digest(np.array(row["router_weight"], dtype=np.float32).reshape(dims.E, dims.d)),
        "local": "l", "upstream": "u", **{f"experts.{e}": f"e{e}" for e in range(dims.E)},
    }  # fmt: skip
    if row["selection_bias"] is not None:
        made["selection.bias"] = tensor_digest(np.array(row["selection_bias"], dtype=np.float32))
    if row["router_bias"] is not None:
        made["router.bias"] = tensor_digest(np.array(row["router_bias"], dtype=np.float32))
    made = {name: d for name, d in {**made, **digests}.items() if d is not None}
    return {**row, "tensor_digests": json.dumps(made)}


def checked(dims: Dims = DIMS, **changes: Any) -> set[str]:
    return said(check_layer(rows("layer", sound(dims, **changes), dims=dims), dims, TOLERANCES))


GROUPS = "groups do not divide the experts, or leave too few"


@pytest.mark.parametrize("changes", [
    {}, {"gain_convention": "1+w"}, {"gain_convention": "none", "gain": [1.0, 1.0]}, {"eps": 1e-9}, {"w1_rank_min": 0},
    {"reconstruction_error": TOLERANCES.reconstruction}, {"router_bias": [1.0] * 4}, {"weight_scale": 1e-6}, {"weight_scale": 1e6},
    {"residual_path": "experts+shared", "digests": {"shared": "s"}},
    {"executed_dtype": "bfloat16", "reconstruction_error": TOLERANCES.accumulation * 2.0**-8},
    {"executed_dtype": "float16", "reconstruction_error": TOLERANCES.accumulation * 2.0**-11},
    {"score_space": "sigmoid+bias", "weight_rule": "sigmoid_topk", "selection_bias": [0.5] * 4},
    {"score_space": "sigmoid+bias", "weight_rule": "sigmoid_topk", "group_mode": "max", "n_groups": 2},
    {"score_space": "softmax+bias", "weight_rule": "softmax_topk", "group_mode": "top2_sum", "n_groups": 2},
    {"group_mode": "max", "n_groups": 4, "kept_groups": 2},
])  # fmt: skip
def test_layers_that_may_be(changes: dict[str, Any]) -> None:
    assert checked(**changes) == set()


@pytest.mark.parametrize(("changes", "what"), [
    ({"d": 3}, "sizes differ from the columns"), ({"n_experts": 5}, "sizes differ from the columns"),
    ({"top_k": 3}, "sizes differ from the columns"), ({"eps": 0.0}, "eps is not between 0 and 1"),
    ({"eps": 1.0}, "eps is not between 0 and 1"), ({"eps": 1.5}, "eps is not between 0 and 1"),
    ({"identity_permutation": [0, 0, 2, 3]}, "experts changed places"), ({"eps": -0.5}, "eps is not between 0 and 1"),
    ({"reconstruction_error": -1e-9}, "the block was not reconstructed from its experts"),
    ({"reconstruction_error": TOLERANCES.reconstruction * 1.01}, "the block was not reconstructed from its experts"),
    ({"executed_dtype": "float16", "reconstruction_error": TOLERANCES.accumulation * 2.0**-11 * 1.01},
     "the block was not reconstructed from its experts"),
    ({"identity_permutation": [0, 2, 1, 3]}, "experts changed places"), ({"w1_rank_min": 3}, "a rank is larger than the hidden size"),
    ({"gain_convention": "none"}, "a norm without gain has one"), ({"norm_kind": "layer"}, "norm_kind is unknown to this version"),
    ({"digests": {"norm.gain": "x"}}, "the digest of norm.gain is not that of the stored values"),
    ({"digests": {"upstream": None}}, "a tensor has no digest, or an unknown one has"),
    ({"digests": {"shared": "s"}}, "a tensor has no digest, or an unknown one has"),
    ({"digests": {"experts.4": "s"}}, "a tensor has no digest, or an unknown one has"),
    ({"weight_scale": 0.9e-6}, "the scale of the weights is not between 1e-6 and 1e6"),
    ({"weight_scale": 1.1e6}, "the scale of the weights is not between 1e-6 and 1e6"),
    ({"selection_bias": [0.5] * 4}, "logits carry a selection bias"),
    ({"score_space": "sigmoid+bias"}, "weights and scores have different gates"),
    ({"score_space": "softmax+bias", "weight_rule": "sigmoid_topk"}, "weights and scores have different gates"),
    ({"n_groups": 2}, GROUPS), ({"kept_groups": 2}, GROUPS), ({"n_groups": 0}, GROUPS), ({"group_mode": "max"}, GROUPS),
    ({"group_mode": "max", "n_groups": 3, "kept_groups": 2}, GROUPS), ({"group_mode": "max", "n_groups": 2, "kept_groups": 0}, GROUPS),
    ({"group_mode": "max", "n_groups": 2, "kept_groups": 2}, GROUPS), ({"group_mode": "max", "n_groups": 0}, GROUPS),
    ({"group_mode": "max", "n_groups": 4}, GROUPS),  # one expert is left, and two are to be chosen
    ({"group_mode": "top2_sum", "n_groups": 4, "kept_groups": 2}, GROUPS),  # no two scores to a group
])  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_layers_that_may_not_be(changes: dict[str, Any], what: str) -> None:
    assert checked(**changes) == {what}


def test_the_tensors_that_lack_a_digest_or_have_one_too_many_are_named() -> None:
    for digests, stated in (({"upstream": None}, "upstream"), ({"experts.4": "s"}, "experts.4"),
                            ({"local": None, "shared": "s"}, "local, shared")):  # fmt: skip
        (found,) = check_layer(rows("layer", sound(digests=digests)), DIMS, TOLERANCES)
        assert (found.rule, found.stated) == ("ATL-R003", stated)


def test_more_active_experts_than_there_are_is_said_whatever_the_columns() -> None:
    many = "more experts are active than there are"
    wide = Dims(d=8, E=4, k=5, P=2)
    assert many in checked(wide)
    assert many in checked(top_k=0)
    assert checked(Dims(d=2, E=4, k=4, P=2)) == set()
    assert checked(Dims(d=2, E=4, k=1, P=2)) == set()


def test_a_norm_that_has_no_gain_and_shows_one_is_told_with_it() -> None:
    row = rows("layer", sound(gain_convention="none", gain=[3.0, 1.0]))
    assert [(v.rule, v.stated) for v in check_layer(row, DIMS, TOLERANCES)] == [("ATL-R003", "3.0")]


def test_texts_of_tables_are_strict_documents() -> None:
    table = rows("layer", sound())
    assert text_object(table, "tensor_digests", 0)["upstream"] == "u"
    for text in ('{"a": 1, "a": 2}', "[1]", "{"):
        with pytest.raises(Exception, match="tensor_digests does not hold"):
            text_object(rows("layer", {**sound(), "tensor_digests": text}), "tensor_digests", 0)


def digests_of(**changes: str) -> dict[str, str]:
    return {"local": "l", "upstream": "u", "experts.0": "e", **{n.replace("_", "."): d for n, d in changes.items()}}


UP = "upstream of protected layer number {} equals the base's although an earlier tensor differs"


@pytest.mark.parametrize(("arm", "weights", "expected"), [
    ([digests_of(), digests_of()], ("w", 0.0), set()), ([digests_of(experts_0="x"), digests_of(upstream="x")], ("x", 0.5), set()),
    ([digests_of(), digests_of(experts_0="x")], ("x", 0.5), set()),
    ([digests_of(experts_0="x"), digests_of()], ("x", 0.5), {UP.format(1)}),
    ([digests_of(local="x"), digests_of(upstream="x")], ("x", 0.5), {UP.format(0)}),
    ([digests_of(upstream="x"), digests_of()], ("x", 0.5), {UP.format(1)}),
    ([digests_of(), digests_of(experts_0="x")], ("x", 0.0), {"tensors differ from the base's although the weights do not"}),
    ([digests_of(), digests_of(experts_0="x")], ("w", 0.5), {
        "tensors differ from the base's although the weights do not",
        "tensors differ from those of arm:x although the weights' digest is the same"}),
])  # fmt: skip
def test_digests_agree_between_layers_and_runs(
    arm: list[dict[str, str]], weights: tuple[str, float], expected: set[str]
) -> None:
    base = [digests_of(), digests_of()]
    assert said(check_digests({"base": base, "arm:x": arm}, {"base": ("w", 0.0), "arm:x": weights})) == expected


def test_two_arms_of_one_weights_digest_have_one_set_of_tensors() -> None:
    base, one = [digests_of()], [digests_of(experts_0="x")]
    both = {"base": ("w", 0.0), "arm:a": ("v", 0.5), "arm:b": ("v", 0.5)}
    assert check_digests({"base": base, "arm:a": one, "arm:b": one}, both) == []
    (found,) = check_digests({"base": base, "arm:a": one, "arm:b": [digests_of(experts_0="y")]}, both)
    assert (found.rule, found.where) == ("ATL-R017", "table layer, run_id=arm:b")
    assert "those of arm:a" in found.what
    assert (found.stated, found.recomputed) == ("v", "v")


# --- outputs ------------------------------------------------------------------------------------------------------


def output(nll: float, entropy: float, top1: int = 7, kl: float | None = None) -> Rows:
    return rows("output", {**at("w", 0), "nll": nll, "entropy": entropy, "top1": top1, "kl_from_base": kl})


HALF, BELOW, SMALL = (
    "a token that is not the most likely one is predicted with more than half",
    "the most likely token is less likely than the entropy allows",
    "the entropy is smaller than the loss allows",
)


@pytest.mark.parametrize(("nll", "entropy", "top1", "what"), [
    (0.0, 0.0, 7, set()), (1.0, 2.0, 7, set()), (1.0, 1.0, 7, set()), (1.001, 1.0, 7, {BELOW}), (LN2, 0.9, 8, set()),
    (0.69, 0.9, 8, {HALF}), (0.0, 0.9, 8, {HALF}), (3.0, 1.0, 8, set()), (-0.5, 1.0, 7, {"a loss is negative"}),
    (-0.5, 1.0, 8, {"a loss is negative"}), (1.0, -0.5, 8, {"an entropy is negative"}),
    (LN2, LN2, 7, set()), (LN2, 0.68, 8, {SMALL}), (3.0, 0.19, 8, {SMALL}), (3.0, 0.2, 8, set()), (60.0, 0.0, 8, set()),
])  # fmt: skip
def test_loss_entropy_and_the_most_likely_token_bound_each_other(
    nll: float, entropy: float, top1: int, what: set[str]
) -> None:
    assert said(check_output(output(nll, entropy, top1), np.array([7]))) == what


@pytest.mark.parametrize(("before", "after", "kl", "equal", "what"), [
    (1.0, 1.0, 0.0, True, set()), (1.0, 1.0, 0.25, False, set()), (1.0, 1.0, 0.25, True, {"weights equal to the base's diverge from it"}),
    (1.0, 1.0, -0.25, False, {"a divergence is negative", "the divergence is smaller than the losses allow"}),
    (LN2, 2 * LN2, 0.5 * LN2 + 0.5 * math.log(2 / 3), False, set()),
    (LN2, 2 * LN2, 0.1, False, {"the divergence is smaller than the losses allow"}),
    (LN2, 2 * LN2, 0.15, False, set()), (LN2, -1.0, 0.0, False, set()), (-1.0, LN2, 0.0, False, set()),
])  # fmt: skip
def test_a_divergence_is_at_least_that_of_the_token_alone(
    before: float, after: float, kl: float, equal: bool, what: set[str]
) -> None:
    assert said(check_divergence(output(after, 9.0, kl=kl), output(before, 9.0), arm=True, equal=equal)) == what


def test_only_arms_diverge_from_the_base() -> None:
    assert check_divergence(output(1.0, 2.0), output(1.0, 2.0), arm=False, equal=True) == []
    assert len(check_divergence(output(1.0, 2.0, kl=0.0), output(1.0, 2.0), arm=False, equal=True)) == 1
    assert len(check_divergence(output(1.0, 2.0), output(1.0, 2.0), arm=True, equal=True)) == 1


@pytest.mark.parametrize(("score", "fine"), [(0.0, True), (1.0, True), (0.5, False), (-1.0, False), (2.0, False)])
def test_a_score_is_all_or_nothing(score: float, fine: bool) -> None:
    task = {"run_id": "base", "item_id": "i", "score": score}
    assert (check_task(rows("task", task)) == []) == fine


@pytest.mark.parametrize(("angle", "equal", "fine"), [
    (0.0, True, True), (1.0, False, True), (1e-9, True, False), (1.01, False, False), (-0.01, False, False),
])  # fmt: skip
def test_an_angle_lies_between_nothing_and_a_half_turn(angle: float, equal: bool, fine: bool) -> None:
    token = rows("update", update(0, [0, 1, 2], V0, V0, transport_angle=angle))
    assert (check_transport(token, arm=True, equal=equal) == []) == fine


# --- maps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cond", "other", "fine"), [
    (2.0, 2.0, True), (2.0, 2.0 * (1 + 0.9 * MAPPED[0]), True), (2.0, 2.0 * (1 + 1.1 * MAPPED[0]), False),
    (1000.0, 1000.0 * (1 + 1.005), True), (1000.0, 100.0, True), (100.0, 100.0 / (1 - 0.9 * 0.02), True),
    (100.0, 100.0 / (1 - 1.2 * 0.02), False),
])  # fmt: skip
def test_a_map_and_the_one_back_have_one_condition_number(cond: float, other: float, fine: bool) -> None:
    for a, b in ((cond, other), (other, cond)):
        maps = rows("overlap", pair(0, 1, cond=a), pair(0, 3, cond=77.0), pair(1, 0, cond=b))
        assert (check_returns(maps) == []) == fine


def test_a_map_and_the_one_back_have_one_rank() -> None:
    found = check_returns(rows("overlap", pair(0, 1, rank=2), pair(1, 0, rank=1), pair(2, 1, rank=0)))
    assert said(found) == {"a map and the one back have other ranks"}
    assert [(v.stated, v.recomputed, v.wrong) for v in found] == [("2", "1", 2)]


def test_ranks_of_maps_are_at_least_the_lowest_of_the_layer() -> None:
    maps = rows("overlap", pair(0, 1, rank=2), pair(0, 2, rank=1))
    assert check_ranks(maps, 1, 1, equal=True) == []
    assert said(check_ranks(maps, 2, 2, equal=True)) == {"a map has a rank below the lowest of the layer"}
    assert said(check_ranks(maps, 1, 2, equal=True)) == {"equal experts have another lowest rank than the base's"}
    assert check_ranks(maps, 1, 2, equal=False) == []
    (found,) = check_ranks(rows("overlap", pair(0, 1, rank=2)), 2, 1, equal=True)
    assert (found.stated, found.recomputed) == ("2", "1")


def test_the_pairs_of_most_visits_are_chosen() -> None:
    visits = np.array([[0, 5, 1], [5, 0, 0], [2, 7, 0]])
    assert chosen_pairs(visits, 3).tolist() == [[0, 1], [1, 0], [2, 1]]  # those of 7 and 5 visits, in order


# --- what is said -------------------------------------------------------------------------------------------------


def three() -> Rows:
    return rows("state", at("w", 0), at("w", 1), at("w", 2))


def test_the_first_wrong_value_is_shown_and_rows_are_counted() -> None:
    stated, exact = np.array([[1.0, 2.0], [3.0, 4.5], [9.0, 9.0]]), np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    (found,) = first_wrong("ATL-R000", "x", three(), stated, exact, 0.25)
    assert (found.stated, found.recomputed, found.tolerance, found.wrong) == ("4.5", "4", "0.25 from the contract", 2)
    assert found.where.endswith("position=1")
    assert first_wrong("ATL-R000", "x", three(), stated, exact, 9.0) == []
    for tolerance in (np.inf, np.nan):
        assert first_wrong("ATL-R000", "x", three(), stated, stated, tolerance)[0].wrong == 3
    assert first_wrong("ATL-R000", "x", three(), stated, np.full((3, 2), np.nan), 1.0)[0].wrong == 3
    (found,) = first_false("ATL-R000", "x", three(), np.array([True, False, False]), stated, exact)
    assert (found.stated, found.recomputed, found.wrong) == ("[3.0, 4.5]", "[3.0, 4.0]", 2)
    assert by_slot(rows("update", update(0, [0, 1, 2], V0, V0)), "experts").tolist() == [0, 0, 0]


def test_a_record_keeps_the_first_of_a_kind_and_counts_the_others() -> None:
    record, result = Record(), ChannelResult(Channel.REPRODUCTION)
    assert record.clean
    for cell in range(SHOWN_PER_RULE + 2):
        record.add((0, cell), [Violation("ATL-R001", "a", f"first of {cell}", "", "")], 10)
        record.add((0, cell), [Violation("ATL-R001", "a", "second", "", "", wrong=2)], 10)
    record.add((1, 0), [Violation("ATL-R002", "b", "there", "", "")])
    assert (record.clean, record.broken("ATL-R001"), record.broken("ATL-R003")) == (False, True, False)
    record.report(result)
    assert [p.where for p in result.problems] == [*(f"first of {c}" for c in range(SHOWN_PER_RULE)), "there"]
    assert {p.what for p in result.problems} == {"a (3 rows)", "b"}
    assert result.checked == 20 * (SHOWN_PER_RULE + 2)


# --- findings against findings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stated", "found", "same"), [
    (1.0, 1.0, True), (1.23456789, 1.234567894, True), (1.23456789, 1.234567896, False), (0.0, 1e-300, False), (1e-300, 0.0, False),
    (0.0, 0.0, True), (True, 1.0, False), (1.0, True, False), (True, True, True), (False, 0, False), (3, 3, True), (3, 4, False),
    (3.0, 3, True), (None, None, True), (None, 0.0, False), (None, 1.5, False), ("a", 1.5, False), (1.5, "a", False),
     ("a", "a", True), ("a", "b", False), ("1", 1, False),
])  # fmt: skip
def test_numbers_are_the_same_within_half_a_unit_of_nine_digits(stated: object, found: object, same: bool) -> None:
    assert (list(differences(stated, found, 1e-12, 9)) == []) == same


def test_differences_are_found_where_they_are() -> None:
    stated = {"a": [1.0, {"b": 2.0, "c": "x"}], "d": None}
    assert [p for p, *_ in differences(stated, {"a": [1.0, {"b": 3.0, "c": "y"}], "d": None}, 0.0, 9)] == [
        ("a", 1, "b"),
        ("a", 1, "c"),
    ]
    assert [p for p, *_ in differences(stated, {"a": [1.0], "d": None}, 0.0, 9)] == [("a",)]
    assert [p for p, *_ in differences(stated, {"a": stated["a"]}, 0.0, 9)] == [()]


# --- routing ------------------------------------------------------------------------------------------------------

THREE = Dims(d=2, E=6, k=3, P=2)
DISTINCT, SPREAD = "experts are not distinct ids in range", "executed experts lie in more groups than are kept"


def routed(experts: list[int], groups: RouterRule | None = None, **columns: Any) -> set[str]:
    made = rule() if groups is None else groups
    usual = {
        "competitor_out": experts[-1],
        "competitor_in": 5,
        "margin": 0.5,
        "group_margin": None if groups is None else 0.5,
    }
    token = at("w", 0, experts=experts, **{**usual, **columns})
    return said(check_routing(rows("routing", token, dims=THREE), made, THREE))


@pytest.mark.parametrize(("experts", "columns", "what"), [
    ([0, 1, 2], {}, set()), ([2, 1, 0], {}, set()), ([0, 2, 2], {}, {DISTINCT}), ([2, 2, 0], {}, {DISTINCT}),
    ([0, 0, 2], {}, {DISTINCT}), ([0, 1, 6], {}, {DISTINCT}), ([0, 1, 2], {"competitor_out": 3}, {"competitor_out is not a member"}),
    ([0, 1, 2], {"competitor_in": 2}, {"competitor_in is a member or out of range"}),
    ([0, 1, 2], {"competitor_in": 6}, {"competitor_in is a member or out of range"}),
    ([0, 1, 2], {"margin": -0.5}, {"a margin is negative"}),
    ([0, 1, 2], {"margin": None}, {"a margin is missing, or there without a competitor"}),
    ([0, 1, 2], {"margin": None, "competitor_in": None}, {"competitor_in is missing"}),
    ([0, 1, 2], {"flags": 8}, {"a flag is unknown"}), ([0, 1, 2], {"flags": 4}, set()), ([0, 1, 2], {"margin": 0.0, "flags": 7}, set()),
     ([0, 1, 2], {"margin": 0.0, "flags": 1}, set()),
    ([0, 1, 2], {"margin": 0.0, "flags": 2}, set()), ([0, 1, 2], {"margin": 0.0}, {"a zero margin and its flag disagree"}),
    ([0, 1, 2], {"flags": 1}, {"a zero margin and its flag disagree"}),
])  # fmt: skip
def test_a_set_is_of_distinct_experts_with_its_competitors(
    experts: list[int], columns: dict[str, Any], what: set[str]
) -> None:
    assert routed(experts, **columns) == what


def test_where_every_expert_is_active_nothing_competes() -> None:
    every = Dims(d=2, E=3, k=3, P=2)
    token = {"experts": [2, 0, 1], "competitor_out": 1, "competitor_in": None, "margin": None, "flags": 0}
    assert check_routing(rows("routing", at("w", 0, **token), dims=every), rule(), every) == []


@pytest.mark.parametrize(("experts", "what"), [
    ([0, 1, 2], set()), ([1, 2, 3], set()), ([0, 3, 1], set()), ([0, 2, 4], {SPREAD}), ([4, 0, 3], {SPREAD}),
])  # fmt: skip
def test_a_set_lies_in_as_many_groups_as_are_kept(experts: list[int], what: set[str]) -> None:
    for mode in ("max", "top2_sum"):
        assert routed(experts, rule(mode=mode, n_groups=3, kept_groups=2)) == what
    assert routed(experts, rule(mode="max", n_groups=3, kept_groups=2), group_margin=-0.5) == what | {
        "a group margin is negative"
    }


def at_state(
    scores: list[list[float]],
    experts: list[int],
    pair: tuple[int, int | None],
    *,
    flags: int = 0,
    margin: float | None = 0.0,
    routed_rows: int = 1,
    **changes: Any,
) -> list[Violation]:
    """Check tokens of the given scores against a routing table that has the first of them."""
    facts = LayerFacts.of(rows("layer", sound(**changes)), DIMS)
    state = rows("state", *(at("w", i, dispatch=s) for i, s in enumerate(scores)))
    token = {"experts": experts, "competitor_out": pair[0], "competitor_in": pair[1], "margin": margin, "flags": flags}
    routing = rows("routing", *(at("w", i, **token) for i in range(routed_rows)))
    return check_routing_against_state(state, States.of(state, facts), routing, facts, TOLERANCES)


DIFFERENCE = "the margin is not the difference of the pair"


def test_where_nothing_competes_there_is_no_margin() -> None:
    """An absent margin is no difference of two scores; a stated one of two scores that differ is theirs."""
    assert DIFFERENCE not in said(at_state([[4.0, 3.0, 2.0, 1.0]], [0, 1], (1, None), margin=None))
    assert DIFFERENCE in said(at_state([[4.0, 3.0, 2.0, 1.0]], [0, 1], (1, 2)))
    assert DIFFERENCE not in said(at_state([[4.0, 3.0, 2.0, 1.0]], [0, 1], (1, 2), margin=1.0))
    assert DIFFERENCE not in said(at_state([[4.0, 2.0, 3.0, 1.0]], [0, 1], (1, 2), margin=0.0))  # clipped at 0


STRONGER, OF_GROUPS = "a dropped group is stronger than a kept one", "the group margin is not that of the scores"


@pytest.mark.parametrize(("scores", "stated", "what"), [
    ([-1.0, -2.0, -3.0, -4.0], 2.0, set()), ([4.0, 0.0, 1.0, 2.0], 2.0, set()), ([1.0, 0.5, -2.0, -3.0], 3.0, set()),
    ([-3.0, -4.0, -1.0, -2.0], 0.0, {STRONGER, OF_GROUPS}), ([-1.0, -2.0, -3.0, -4.0], 1.0, {OF_GROUPS}),
])  # fmt: skip
def test_the_kept_group_is_the_stronger_one_whatever_the_sign_of_its_scores(
    scores: list[float], stated: float, what: set[str]
) -> None:
    """Experts 0 and 1 are the group that was kept; a group is as strong as its best."""
    token = rows("state", at("w", 0, dispatch=scores, admissible=[True, True, False, False]))
    assert said(_check_groups(token, np.array([stated]), rule(mode="max"), TOLERANCES)) == what


HIGHER = "a non-member scores higher than a member"
ONE_STEP = 2.0**-23
"""The step of float32 above 1; of two scores so far apart the softmax differs by less than its own rounding."""
BIASED = {"score_space": "softmax+bias", "weight_rule": "softmax_topk", "selection_bias": [0.0] * 4}


@pytest.mark.parametrize(("gap", "flags", "changes", "fine"), [
    (0.0, 0, {}, True), (-0.5, 0, {}, True), (ONE_STEP, 2, {}, True), (ONE_STEP, 3, {}, True), (ONE_STEP, 0, {}, False),
    (ONE_STEP, 1, {}, False), (8 * ONE_STEP, 2, {}, False), (1.0, 2, {}, False), (ONE_STEP, 2, BIASED, False),
])  # fmt: skip
def test_only_a_set_flagged_saturated_may_leave_out_a_higher_score_by_a_rounding_and_only_of_logits(
    gap: float, flags: int, changes: dict[str, Any], fine: bool
) -> None:
    found = said(at_state([[2.0, 1.0, 1.0 + gap, 0.0]], [0, 1], (1, 2), flags=flags, **changes))
    assert (HIGHER not in found) is fine


def test_the_sampled_position_without_a_routing_row_is_named_not_the_first() -> None:
    tokens = [[2.0, 1.0, 0.0, 0.0]] * 3
    (found,) = at_state(tokens, [0, 1], (1, 2), routed_rows=2)
    assert (found.rule, found.where) == ("ATL-R006", "table state, run_id=base, layer=3, window_id=w, position=2")


# --- fields and drift ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beyond", "fine"), [(0.0, True), (0.99, True), (1.01, False)])
def test_a_field_may_change_beyond_its_bound_by_what_sums_of_vectors_round(beyond: float, fine: bool) -> None:
    """Updates of lengths 4 and 2, half of each before and after, the first moved by a hair: sizes of 6, a bound of half a hair."""
    hair = 2.0**-30
    v0 = np.array([[4.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    allowed = 0.5 * hair + beyond * 2.0**-40 * 6.0
    token = update(0, [0, 1, 2], v0, v0 + np.array([[0.0, hair], [0.0, 0.0], [0.0, 0.0]]), rho0=[0.5, 0.5, 0.0],
                   rho1=[0.5, 0.5, 0.0], dV_norm=allowed, dy_norm=0.5 * hair, y0_norm=math.sqrt(5.0),
                   uu0=[16.0, 4.0, 1.0], uu1=[16.0, 4.0, 1.0])  # fmt: skip
    made = rows("update", token)
    (group,) = update_groups(made)
    side = BaseSide(
        States(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.zeros((1, 4))),
        LayerFacts.of(rows("layer", sound()), DIMS),
        TOLERANCES,
        DIMS,
    )
    found = _check_gram(made, group, side, (False, False))
    assert [v.rule for v in found] == ([] if fine else ["ATL-R022"])


def gram_of(v: Any, changes: float = 0.0) -> set[str]:
    """Check a token whose three updates have the inner products ``[3, 3]``; return what its matrix is told.

    Changes are orthogonal to them and to each other, and have the given square.
    """
    full = np.zeros((6, 6))
    full[:3, :3], full[3:, 3:] = v, changes * np.eye(3)
    norms = np.maximum(np.diagonal(full)[:3], 0.0)
    token = update(0, [0, 1, 2], V0, V0, uu0=norms.tolist(), uu1=(norms + changes).tolist())
    token["gram"] = full[np.triu_indices(6)].tolist()
    made = rows("update", token)
    (group,) = update_groups(made)
    still = States(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.zeros((1, 4)))
    side = BaseSide(still, LayerFacts.of(rows("layer", sound()), DIMS), TOLERANCES, DIMS)
    return {x.what for x in _check_gram(made, group, side, (False, False)) if x.rule == "ATL-R009"}


BEYOND_NORMS = "inner products exceed the norms in the Gram matrix"
NOT_POSITIVE = "the Gram matrix is not positive semidefinite"
EPS = 2 * 3 * TOLERANCES.float64_relative
"""By how much three updates may be beyond what vectors can be: ``2 n rel``."""


@pytest.mark.parametrize(("beyond", "what"), [(0.0, set()), (0.99, set()), (1.01, {BEYOND_NORMS}), (-2.0, set())])
def test_an_inner_product_exceeds_the_norms_by_rounding_at_most(beyond: float, what: set[str]) -> None:
    c = 4.0 * (1.0 + beyond * EPS)
    assert gram_of([[4.0, c, 0.0], [c, 4.0, 0.0], [0.0, 0.0, 1.0]]) == what
    assert gram_of([[4.0, -c, 0.0], [-c, 4.0, 0.0], [0.0, 0.0, 1.0]]) == what


@pytest.mark.parametrize(
    ("beyond", "what"), [(0.0, set()), (0.99, set()), (1.01, {NOT_POSITIVE}), (1e3, {NOT_POSITIVE})]
)
def test_three_updates_do_not_point_away_from_each_other_more_than_in_a_star(beyond: float, what: set[str]) -> None:
    """Three unit vectors with cosines c add up to a squared length of 3 (1 + 2 c); 1 + 2 c is the lowest eigenvalue."""
    c = -0.5 * (1.0 + beyond * EPS)
    for changes in (0.0, 4.0):
        assert gram_of([[1.0, c, c], [c, 1.0, c], [c, c, 1.0]], changes) == what


def test_no_square_is_below_zero_by_however_little() -> None:
    assert gram_of([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, -1e-305]]) == {BEYOND_NORMS}


def test_where_nothing_changed_the_field_did_not_change_by_a_hair() -> None:
    """Rounding is admitted to a change, not to none: the same weights and updates give the same field, exactly."""
    token = update(
        0, [0, 1, 2], V0, V0, rho1=[0.5, 0.25, 0.125], dV_norm=1e-13, uu0=[25.0, 4.0, 1.0], uu1=[25.0, 4.0, 1.0]
    )
    made = rows("update", token)
    (group,) = update_groups(made)
    still = States(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.zeros((1, 4)))
    side = BaseSide(still, LayerFacts.of(rows("layer", sound()), DIMS), TOLERANCES, DIMS)
    found = [v for v in _check_gram(made, group, side, (True, True)) if v.rule == "ATL-R022"]
    assert [v.stated for v in found] == ["1e-13"]


def test_the_first_of_the_updates_that_differ_between_runs_is_named_and_rows_are_counted() -> None:
    """The base's own updates of three experts on three tokens; two of the last two tokens' are another run's."""
    tokens = [update(p, [0, 1, 2], V0, V0, uu0=[25.0, 4.0, 1.0]) for p in range(3)]
    for p in (1, 2):
        tokens[p] = {**tokens[p], "uu0": [25.0, 8.0, 2.0 if p == 1 else 1.0]}
    still = States(np.zeros((3, 2)), np.zeros(3), np.zeros(3), np.zeros((3, 4)))
    side = BaseSide(still, LayerFacts.of(rows("layer", sound()), DIMS), TOLERANCES, DIMS)
    side.uu0, side.uz0 = np.array([[25.0, 4.0, 1.0, np.nan]] * 3), np.array([[0.0, 0.0, 0.0, np.nan]] * 3)
    (found,) = side._check_same_base(rows("update", *tokens))
    assert (found.rule, found.stated, found.recomputed, found.wrong) == ("ATL-R016", "8", "4", 2)
    assert found.where.endswith("position=1")


def test_bits_of_a_column_are_added_up_however_it_is_stored_and_cut() -> None:
    """-1.0 is 0xbf800000 in four bytes and 0xbff0000000000000 in eight; sums of bits are kept in eight bytes."""
    for dtype, one in ((np.float32, 0xBF800000), (np.float64, 0xBFF0000000000000)):
        made = physics_of({}, {})
        made._marks = {}
        for block in ([-1.0, 0.0, -1.0], [-1.0]):
            made._mark("losses", "arm:x", None, np.array(block, dtype=dtype))
        made._mark("losses", "base", None, np.array([-1.0], dtype=dtype))
        made._mark("losses", "null:x", None, np.array([-1.0], dtype=dtype))
        made._mark("states", "base", 3, np.array([-1.0], dtype=dtype))
        assert made._marks == {("losses", None): {"arm:x": 3 * one % 2**64, "base": one}}


def physics_of(base: dict[str, str], arm: dict[str, str]) -> Physics:
    """Return checks that know the tensors of one layer of two runs and have seen no block."""
    made = object.__new__(Physics)
    made.dims, made._moved = DIMS, set()
    made.facts = {(run, 3): cast(LayerFacts, SimpleNamespace(digests=d)) for run, d in (("base", base), ("arm:x", arm))}
    return made


TENSORS = {"upstream": "u", "local": "l", "norm.gain": "g", **{f"experts.{e}": f"e{e}" for e in range(4)}}
OTHERS = {f"experts.{e}": f"other {e}" for e in range(4)}
LESSER = {f"experts.{e}": f"a {e}" for e in range(4)}


@pytest.mark.parametrize(("what", "changes", "differ"), [
    ("updates", {}, False), ("updates", OTHERS, True), ("updates", LESSER, True), ("updates", {**OTHERS, "experts.2": "e2"}, False),
    ("updates", {"experts.2": "x"}, False), ("updates", {**OTHERS, "norm.gain": "h"}, False), ("updates", {"norm.gain": "h"}, False),
    ("updates", {"upstream": "x"}, False), ("states", {"upstream": "x"}, True), ("states", {"upstream": "a"}, True),
    ("states", OTHERS, False), ("losses", {"upstream": "x"}, True), ("losses", {"local": "x"}, False),
])  # fmt: skip
def test_what_is_behind_a_column_differs(what: str, changes: dict[str, str], differ: bool) -> None:
    """Behind updates stand all experts, under one gain; behind states and losses all that comes before."""
    assert physics_of(TENSORS, {**TENSORS, **changes})._differ(what, "base", "arm:x", 3) is differ


STATE, CONTENT, ANGLE = (
    "no state moved although the tensors before the layer did",
    "no expert update changed although every expert's weights did",
    "no state is turned although attention or norm changed",
)


@pytest.mark.parametrize(("changes", "what"), [
    ({}, set()), ({"upstream": "x"}, {STATE}), ({"upstream": "a"}, {STATE}), ({"local": "x"}, {ANGLE}), ({"local": "a"}, {ANGLE}),
    (OTHERS, {CONTENT}), (LESSER, {CONTENT}), ({**OTHERS, "experts.0": "e0"}, set()), ({**OTHERS, "norm.gain": "h"}, set()),
    ({**OTHERS, "norm.gain": "a"}, set()), ({**OTHERS, "upstream": "x", "local": "x"}, {STATE, CONTENT, ANGLE}),
])  # fmt: skip
def test_something_moves_where_the_tensors_behind_it_did(changes: dict[str, str], what: set[str]) -> None:
    made = physics_of(TENSORS, {**TENSORS, **changes})
    assert said(made._unmoved("arm:x", 3)) == what
    made._moved = {(name, ("arm:x", 3)) for name in ("state", "content", "angle")}
    assert made._unmoved("arm:x", 3) == []
    made._moved, made.facts["null:x", 3] = set(), made.facts["arm:x", 3]
    assert said(made._unmoved("null:x", 3)) == what - {ANGLE}  # null arms have no angle


@pytest.mark.parametrize(("of_layer", "upstream", "where"), [
    (None, ("u", "x"), "table output, arm:y"), (None, ("x", "u"), None), (None, ("u", "u"), None), (None, ("x", "x"), "table output, arm:y"),
    (1, ("x", "u"), "layer 1, arm:y"), (1, ("u", "x"), None), (3, ("u", "x"), "layer 3, arm:y"), (3, ("x", "u"), None),
])  # fmt: skip
def test_runs_that_share_rows_have_the_tensors_that_these_come_from(
    of_layer: int | None, upstream: tuple[str, str], where: str | None
) -> None:
    """Two arms whose tensors before layers 1 and 3 differ or not; losses come from all, of which the last layer knows most."""
    made = physics_of({}, {})
    made.plan, made.runs, made.record = (
        cast(Preregistration, SimpleNamespace(protected_layers=(1, 3))),
        ("base", "arm:x", "arm:y"),
        Record(),
    )
    of = {"arm:x": ("u", "u"), "arm:y": upstream}
    made.facts = {
        (run, layer): cast(LayerFacts, SimpleNamespace(digests={"upstream": digest}))
        for run, digests in of.items()
        for layer, digest in zip((1, 3), digests, strict=True)
    }
    made._marks = {("losses" if of_layer is None else "states", of_layer): {"arm:x": 7, "arm:y": 7}}
    made._shared_rows()
    result = ChannelResult(Channel.REPRODUCTION)
    made.record.report(result)
    assert [(p.where, p.stated, p.recomputed) for p in result.problems] == (
        [(where, "arm:x", "arm:y")] if where else []
    )
    made.record, made._marks = Record(), {key: {"arm:x": 7, "arm:y": 8} for key in made._marks}
    made._shared_rows()
    assert made.record.clean


@pytest.mark.parametrize(
    ("beyond", "what"), [(0.0, []), (0.99, []), (1.01, ["inner", "output"]), (-0.99, []), (-1.01, ["inner", "output"])]
)
def test_the_bases_field_is_the_same_in_every_run_within_the_sizes_that_enter(beyond: float, what: list[str]) -> None:
    """Updates of lengths 5, 2 and 1 with weights 1/2, 1/4 and none; the block's output is 3: its scale is 3 + 5/2 + 2/4."""
    unit = TOLERANCES.accumulation * DIMS.d * TOLERANCES.float32_unit
    token = update(0, [0, 1, 2], V0, V0, y0_norm=3.0 + beyond * unit * 6.0)
    token["gram"][1] += beyond * unit * 5.0 * 2.0  # of the first two
    made = rows("update", token)
    still = States(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.zeros((1, 4)))
    side = BaseSide(still, LayerFacts.of(rows("layer", sound()), DIMS), TOLERANCES, DIMS)
    scores = np.array([[3.0, 2.0, 1.0, 0.0]], dtype=np.float32)
    top, member = np.array([[0, 1, 2]]), np.array([[True, True, False, False]])
    side.choice = Choice(scores, top, member, np.array([[0.5, 0.25, 0.0, 0.0]]))
    side.uu0, side.y0 = np.array([[25.0, 4.0, 1.0, np.nan]]), np.array([3.0])
    side.inner = (V0 @ V0.T)[None]
    assert [
        v.what.split()[0 if "inner" in v.what else 1] for v in side._check_same_field(made, update_groups(made))
    ] == what


def test_a_base_whose_updates_are_nothing_agrees_with_itself() -> None:
    none = np.zeros((3, 2))
    made = rows("update", update(0, [0, 1, 2], none, none))
    still = States(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.zeros((1, 4)))
    side = BaseSide(still, LayerFacts.of(rows("layer", sound()), DIMS), TOLERANCES, DIMS)
    side.uu0, side.uz0 = np.array([[0.0, 0.0, 0.0, np.nan]]), np.array([[0.0, 0.0, 0.0, np.nan]])
    assert side._check_same_base(made) == []


def test_the_order_of_all_experts_is_wanted_where_all_are_active() -> None:
    scores = np.array([[1.0, 3.0, 2.0, 3.0]])
    for k, first in ((1, [1, 3]), (2, [1, 3, 2]), (3, [1, 3, 2, 0]), (4, [1, 3, 2, 0])):
        assert leading(rule(), scores, k).tolist() == [first]


def drift_in(physics: Physics, token: dict[str, Any]) -> set[str]:
    return said(physics._equal_tensors(LayerBlock(3, {}, {}, {"arm:x": rows("update", token)}, {}), "arm:x"))


ROUTER = {"router.weight": "r", "norm.gain": "g"}
OUTSIDE = update(0, [0, 1, 2], V0, V0, in1=0b101)
"""A token whose set changed, and no update of an expert."""
BOUNDARY = "drift.boundary/1 is not zero although every tensor that feeds it is equal"


def test_a_set_that_changes_under_an_equal_router_is_told_of_every_block() -> None:
    """Also of one after the first in which the experts' updates were seen to change."""
    physics = physics_of({**ROUTER, "experts.0": "a"}, {**ROUTER, "experts.0": "b"})
    assert drift_in(physics, update(0, [0, 1, 2], V0, V1)) == set()
    assert drift_in(physics, OUTSIDE) == {BOUNDARY}
    assert drift_in(physics_of(ROUTER, {**ROUTER, "router.weight": "other"}), OUTSIDE) == set()


@pytest.mark.parametrize(("by", "moved"), [(0.0, False), (2.0**-20, True), (0.25, True), (4.0, True)])
def test_updates_moved_if_they_moved_at_all(by: float, moved: bool) -> None:
    physics = physics_of({"experts.0": "a"}, {"experts.0": "b"})
    assert drift_in(physics, update(0, [0, 1, 2], V0, V0 + np.array([[0.0, 0.0], [0.0, by], [0.0, 0.0]]))) == set()
    assert (("content", ("arm:x", 3)) in physics._moved) is moved


# --- vectors ------------------------------------------------------------------------------------------------------


def vectored(
    v0: np.ndarray[Any, Any], v1: np.ndarray[Any, Any], *, equal: bool = False, position: int = 1
) -> list[Violation]:
    tokens = rows(
        "update",
        update(0, [0, 1, 2], V0, V0),
        update(1, [0, 1, 2], V0, V1, uu0=[25.0, 4.0, 1.0], uu1=[25.0, 25.0, 17.0]),
    )
    kept = {**at("w", position, run_id="arm:x"), "v0": v0.reshape(-1).tolist(), "v1": v1.reshape(-1).tolist()}
    z = np.array([[1.0, 0.0], [0.0, 0.0]])
    return check_vectors(rows("update_vector", kept), tokens, z, TOLERANCES, equal=equal)


def test_vectors_are_those_of_the_gram_matrix() -> None:
    assert not {v.what for v in vectored(V0, V1)} & {"inner products of the vectors are not those of the Gram matrix"}
    honest = said(vectored(V0, V1))
    for v0, v1 in ((V0 * 1.01, V1), (V0, V1 * 1.01), (V0[::-1], V1)):
        assert said(vectored(v0.copy(), v1)) - honest


def test_equal_tensors_have_equal_vectors_and_every_vector_a_row() -> None:
    differ, absent = "v0 and v1 differ although every tensor is equal", "a vector has no row in table update"
    assert differ in said(vectored(V0, V1, equal=True))
    assert differ not in said(vectored(V0, V0, equal=True))
    (found,) = vectored(V0, V1, position=5)
    assert (found.what, found.where) == (absent, "table update_vector, run_id=arm:x, layer=3, window_id=w, position=5")
    with pytest.raises(RowsError) as error:
        vectored(V0[:2], V1)
    assert (error.value.expected, error.value.found) == ("6", "4")
