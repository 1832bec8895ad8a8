"""What measures are made of, part by part, on examples small enough to work out by hand."""

from __future__ import annotations

import hashlib
import struct
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from measures.by_hand import V0, V1, Row, at, clusters, layer, pair, rows, rule, source, update

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import RowsError
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.clusters import Clusters, clusters_of, merged_strata, strata_of, top_percent_share
from atlas_schema.measures.definitions import DEFINITIONS
from atlas_schema.measures.drift import (
    TokenValues,
    coordinate,
    in_form,
    matching_rows,
    require_same_keys,
    row_name,
    same_state,
    update_groups,
)
from atlas_schema.measures.facts import (
    RunFacts,
    layer_facts,
    run_facts,
    runs_of,
    same_tensors,
    tensor_digests,
)
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.ledger import Ledger, Places, Ratio, Scalar, everywhere
from atlas_schema.measures.overlap import PairDrift, overlap_scalars, rank_correlation, spearman
from atlas_schema.measures.reported import same_state_reported
from atlas_schema.measures.routers import RouterRule, effective_gain
from atlas_schema.measures.tensors import tensor_bytes, tensor_digest

# --- clusters -----------------------------------------------------------------------------------------------------


def window(name: str, cluster: str, domain: str = "a") -> Row:
    return {"window_id": name, "cluster_id": cluster, "domain": domain}


def test_clusters_are_ordered_by_domain_and_name_and_belong_where_their_first_window_does() -> None:
    made = clusters_of(
        rows("window", window("w1", "c2", "b"), window("w2", "c1", "b"), window("w3", "c9"), window("w4", "c2"))
    )
    assert (made.names, made.domains) == (("c9", "c1", "c2"), ("a", "b", "b"))
    assert made.of_window == {"w1": 2, "w2": 1, "w3": 0, "w4": 2}


def test_halves_are_the_parity_of_the_last_digit() -> None:
    assert clusters(("x0", "a"), ("x1", "a"), ("xa", "a"), ("xf", "a")).halves.tolist() == [0, 1, 0, 1]


def sized(**sizes: int) -> Clusters:
    return clusters(*((f"{d}{i}", d) for d, n in sizes.items() for i in range(n)))


@pytest.mark.parametrize(("sizes", "at_least", "strata"), [
    ({"a": 2, "b": 5}, 2, {"a": ["a"], "b": ["b"]}),  # exactly enough
    ({"a": 2, "b": 5}, 3, {"a+b": ["a", "b"]}),
    ({"a": 9, "b": 1, "c": 2, "d": 8}, 3, {"a": ["a"], "b+c": ["b", "c"], "d": ["d"]}),
    ({"a": 9, "b": 1, "c": 2, "d": 8}, 4, {"a": ["a"], "b+c+d": ["b", "c", "d"]}),
    ({"c": 1, "b": 1, "a": 1}, 2, {"a+b+c": ["a", "b", "c"]}),  # a with b by name, then c to both
    ({"d": 1, "c": 1, "b": 1, "a": 1}, 2, {"a+b": ["a", "b"], "c+d": ["c", "d"]}),
    ({"a": 1}, 50, {"a": ["a"]}),  # nothing to merge with
    ({}, 50, {}),
])  # fmt: skip
def test_small_strata_join_the_next_smallest(
    sizes: dict[str, int], at_least: int, strata: dict[str, list[str]]
) -> None:
    found = merged_strata(sized(**sizes), at_least)
    assert found == strata
    assert list(found) == sorted(found)


def test_members_of_a_stratum_are_in_order_of_their_names() -> None:
    made = clusters(("m", "a"), ("z", "a"), ("b", "c"), ("k", "b"))
    found = strata_of(made, {"a+b": ["a", "b"], "c": ["c"]})
    assert [m.tolist() for m in found.members] == [[3, 0, 1], [2]]


@pytest.mark.parametrize(("weights", "share"), [
    ([], None), ([0.0, 0.0], None), ([0.25, 0.25], 0.5), ([3.0, 1.0, 0.0], 0.75), ([0.5], 1.0),
    ([1.0] * 99 + [101.0], 101 / 200), ([1.0] * 100 + [49.0, 51.0], 100 / 200), ([0.125], 1.0),
])  # fmt: skip
def test_the_top_percent_is_at_least_one_token(weights: list[float], share: float | None) -> None:
    assert top_percent_share(np.array(weights)) == share


# --- the ledger ---------------------------------------------------------------------------------------------------


def test_a_quotient_of_nothing_is_no_number() -> None:
    assert Ratio(np.array([1.0, 2.0]), np.array([4.0, 2.0])).value == 0.5
    for numerator, denominator in ((1.0, 0.0), (0.0, 0.0), (np.inf, 1.0), (1e300, 1e-300), (1.0, -1.0)):
        assert Ratio(np.array([numerator]), np.array([denominator])).value is None
    assert Ratio(np.array([1.0]), np.array([0.5])).value == 2.0


def test_places_number_the_windows_of_the_rows_and_find_their_clusters() -> None:
    made = clusters_of(rows("window", window("w1", "c2"), window("w2", "c1"), window("w3", "c1")))
    found = Places.of(rows("routing", *({"window_id": w, "position": p} for w in ("w3", "w1") for p in (0, 1))), made)
    assert (found.window.tolist(), found.cluster_of_window.tolist()) == ([0, 0, 1, 1], [1, 0])
    assert found.cluster.tolist() == [1, 1, 0, 0]
    with pytest.raises(KeyError):
        Places.of(rows("routing", {"window_id": "w9", "position": 0}), made)


def test_no_rows_have_no_places() -> None:
    made = clusters_of(rows("window", window("w1", "c1")))
    found = Places.of(rows("routing"), made)
    assert (len(found.window), len(found.cluster_of_window), len(found.cluster)) == (0, 0, 0)


def test_a_ledger_adds_tokens_that_are_there_and_counts_those_that_are_not() -> None:
    places = Places(np.array([0, 0, 1, 2, 2]), np.array([1, 0, 1]))
    there = np.array([True, False, True, True, True])
    values = TokenValues(np.array([1.0, 100.0, 2.0, 4.0, 8.0]), np.array([10.0, 1.0, 20.0, 30.0, 40.0]), there)
    book, key = Ledger(3), ("arm:x", 0, "y")
    book.add(key, values, places)
    assert book.ratios[key].numerator.tolist() == [2.0, 13.0, 0.0]
    assert book.ratios[key].denominator.tolist() == [20.0, 80.0, 0.0]
    assert (book.ratios[key].tokens, book.ratios[key].missing) == (4, 1)
    book.add(key, everywhere(np.ones(5)), places)
    assert book.ratios[key].numerator.tolist() == [3.0, 17.0, 0.0]
    assert (book.ratios[key].tokens, book.ratios[key].missing) == (9, 1)
    some = everywhere(np.ones(5), there)
    assert (some.denominator.tolist(), some.present.tolist()) == ([1.0] * 5, there.tolist())


# --- facts of runs and layers -------------------------------------------------------------------------------------


def test_runs_are_base_then_nulls_then_arms_in_the_order_of_the_documents() -> None:
    nuisances = [SimpleNamespace(id="z"), SimpleNamespace(id="a")]
    arms = [SimpleNamespace(name="y"), SimpleNamespace(name="b")]
    contract, plan = SimpleNamespace(nuisances=nuisances), SimpleNamespace(arms=arms)
    found = runs_of(cast(Preregistration, plan), cast(Contract, contract))
    assert found == ("base", "null:z", "null:a", "arm:y", "arm:b")


def test_facts_of_a_run_are_its_row() -> None:
    usual = {
        "role": "r",
        "arm": None,
        "policy": None,
        "model": "m",
        "config_digest": "",
        "tokenizer_digest": "",
        "adapter": "",
    }
    made = source(run=[
        {**usual, "run_id": f"run{i}", "weights_digest": f"w{i}", "fingerprint": f"f{i}", "param_distance": i / 2}
        for i in range(3)
    ])  # fmt: skip
    assert run_facts(made) == {f"run{i}": RunFacts(f"w{i}", f"f{i}", i / 2) for i in range(3)}


def test_facts_of_a_layer_are_its_row_with_the_gain_in_the_router() -> None:
    made = source(layer=[layer(), layer("arm:x", router_bias=[0.5, 1.0, 1.5, 2.0], gain_convention="1+w")])
    plain, biased = (layer_facts(made, run, 3) for run in ("base", "arm:x"))
    assert plain.weights.tolist() == [[2.0, 6.0], [6.0, 12.0], [10.0, 18.0], [14.0, 24.0]]
    assert biased.weights.tolist() == [[3.0, 8.0], [9.0, 16.0], [15.0, 24.0], [21.0, 32.0]]
    assert plain.bias is None
    assert biased.bias is not None
    assert biased.bias.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert (plain.eps, plain.rank, plain.reconstruction, plain.digests) == (0.25, 2, 0.125, {"router.0": "r"})
    assert plain.rule == RouterRule("logit", "softmax_topk", 1.5, None, "none", 1, 1)
    assert tensor_digests(made, "base", 3) == {"router.0": "r"}
    assert tensor_digests(made, "base", 4) == {}


def test_tensors_are_the_same_only_where_a_definition_has_any_and_all_agree() -> None:
    boundary = DEFINITIONS[ids.BOUNDARY]
    base = {"router.0": "x", "experts.0": "y"}
    assert same_tensors(boundary, base, {**base, "experts.0": "z"})
    assert not same_tensors(boundary, base, {**base, "router.0": "z"})
    assert not same_tensors(boundary, base, {"experts.0": "y"})
    assert not same_tensors(boundary, {"experts.0": "y"}, {"experts.0": "y"})
    assert not same_tensors(boundary, base, {**base, "router.1": "x"})
    assert not same_tensors(DEFINITIONS[ids.CONTENT], base, {**base, "experts.0": "z"})


def test_a_tensor_is_hashed_with_its_shape() -> None:
    values = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    expected = b"atlas-tensor/1\0" + struct.pack("<III", 2, 1, 3) + struct.pack("<fff", 1.0, 2.0, 3.0)
    assert tensor_bytes(values) == expected
    assert tensor_bytes(np.asfortranarray(values.repeat(2, 0)))[15 + 12 :] == struct.pack("<6f", *([1.0, 2.0, 3.0] * 2))
    assert (
        tensor_digest(values, values[0]) == "sha256:" + hashlib.sha256(expected + tensor_bytes(values[0])).hexdigest()
    )


# --- drift --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [[("w1", 0), ("w2", 1)], [("w1", 0), ("w1", 2)], [("w1", 0)], []])
def test_rows_of_other_windows_or_positions_are_not_paired(other: list[tuple[str, int]]) -> None:
    a, b = rows("state", at("w1", 0), at("w1", 1)), rows("state", *({**at(*key), "run_id": "arm:x"} for key in other))
    require_same_keys(a, a)
    with pytest.raises(RowsError) as error:
        require_same_keys(a, b)
    assert error.value.where == f"base and {'arm:x' if other else 'an empty partition'}"
    assert error.value.found == f"2 and {len(other)} rows that differ"


def test_matching_rows_are_found_by_window_and_position() -> None:
    kept = rows("routing", at("w1", 0), at("w1", 5), at("w3", 1), at("w3", 4_464))
    asked = rows("state", at("w0", 0), at("w1", 0), at("w1", 1), at("w1", 5), at("w2", 1), at("w3", 1), at("w4", 9))
    assert matching_rows(kept, asked).tolist() == [-1, 0, -1, 1, -1, 2, -1]
    assert matching_rows(rows("routing"), asked).tolist() == [-1] * 7
    assert matching_rows(kept, rows("state")).tolist() == []
    assert matching_rows(rows("routing", at("w9", 0)), asked).tolist() == [-1] * 7
    assert matching_rows(kept, rows("state", at("w3", 9_999))).tolist() == [-1]  # beyond the last


def test_a_row_is_named_by_its_key() -> None:
    assert (
        row_name(rows("state", at("w1", 0), at("w1", 1)), 1)
        == "table state, run_id=base, layer=3, window_id=w1, position=1"
    )


def test_coordinate_drift_is_the_angle_over_pi() -> None:
    turned = [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]
    base = rows("state", *(at("w", i, z=[1.0, 0.0]) for i in range(3)))
    found = coordinate(base, rows("state", *(at("w", i, z=z) for i, z in enumerate(turned))))
    assert found.numerator == pytest.approx([0.0, 0.5, 1.0])
    assert (found.denominator.tolist(), found.present.tolist()) == ([1.0] * 3, [True] * 3)


def test_channels_of_two_tokens_worked_by_hand() -> None:
    made = rows(
        "update",
        update(0, [0, 2, 3], V0, V1, in1=0b101, rho0_b=0.5, rho1_b_forced=0.25, dy_norm=0.5, y0_norm=2.0),
        update(1, [0, 1, 3], V0, V0, pair_in=None, rho0_b=0.5, rho1_b_forced=0.5),
    )
    found = same_state(made, 2)
    assert found[ids.BOUNDARY].numerator.tolist() == [0.5, 0.0]
    assert found[ids.CONTENT].numerator == pytest.approx([0.25 * 3 + 0.125 * 4, 0.0])
    assert found[ids.CONTENT].denominator == pytest.approx([0.5 * 5 + 0.25 * 2 + 0.125 * 1] * 2)
    assert (found[ids.GUARD].numerator.tolist(), found[ids.GUARD].denominator.tolist()) == ([0.5, 0.0], [2.0, 0.0])
    # J0 = 0.5 ((1,0) - (0,2)); J1 = 0.25 ((1,4) - (0,5))
    jump0, jump1 = 0.5 * (V0[2] - V0[1]), 0.25 * (V1[2] - V1[1])
    assert found[ids.TRANSITION].numerator == pytest.approx([float(np.linalg.norm(jump1 - jump0)), 0.0])
    assert found[ids.TRANSITION].denominator == pytest.approx([float(np.linalg.norm(jump0)), 0.0])
    assert found[ids.TRANSITION].present.tolist() == [True, False]


def test_a_square_that_rounds_below_zero_is_a_length_of_zero() -> None:
    token = update(0, [0, 1, 2], V0, V0)
    token["gram"][0], token["gram"][15] = -1e-18, -1e-18  # of the first update, and of its change
    made = rows("update", token)
    for found in (same_state(made, 2)[ids.CONTENT], same_state_reported(made, update_groups(made), (rule(), rule()),
                  same_state(made, 2)[ids.CONTENT])[ids.ROUTER_TERM]):  # fmt: skip
        assert (found.numerator.tolist(), found.denominator.tolist()) == ([0.0], [pytest.approx(0.25 * 2 + 0.125)])


def test_lists_of_several_lengths_are_split_and_keep_their_rows() -> None:
    four = np.concatenate([V0, [[7.0, 7.0]]])
    made = rows(
        "update", update(0, [0, 1, 2, 3], four, four), update(1, [0, 2, 3], V0, V1), update(2, [0, 1, 3], V0, V0)
    )
    groups = update_groups(made)
    assert [(g.rows.tolist(), g.experts.tolist()) for g in groups] == [
        ([1, 2], [[0, 2, 3], [0, 1, 3]]),
        ([0], [[0, 1, 2, 3]]),
    ]
    assert np.diagonal(groups[1].gram[0])[:4] == pytest.approx([25.0, 4.0, 1.0, 98.0])


def test_a_list_of_the_wrong_length_is_named_with_its_row() -> None:
    made = rows("update", update(0, [0, 2, 3], V0, V1), update(1, [0, 2, 3], V0, V1, rho1=[0.5]))
    with pytest.raises(RowsError) as error:
        update_groups(made)
    assert "update.rho1" in error.value.what
    assert (error.value.expected, error.value.found) == ("3", "1")
    assert str(error.value.where).endswith("position=1")


def test_the_bounded_form_of_nothing_is_nothing() -> None:
    values = TokenValues(np.array([0.0, 3.0, 0.0]), np.array([0.0, 1.0, 0.5]), np.array([True, True, False]))
    found = in_form(values, ids.MEAN)
    assert (found.numerator.tolist(), found.denominator.tolist()) == ([0.0, 0.75, 0.0], [1.0, 1.0, 0.0])
    assert found.present.tolist() == [True, True, False]
    assert in_form(values, ids.SUMS) is values


# --- overlap ------------------------------------------------------------------------------------------------------


def test_drift_of_pairs_is_summed_by_leaving_and_entering_expert() -> None:
    drift = PairDrift(rows("overlap", pair(0, 1), pair(1, 0), pair(3, 2)), 4)
    tokens = rows("update", *(update(i, [0, 1, 3], V0, V0, pair_out=o, pair_in=n)
                              for i, (o, n) in enumerate([(0, 1), (1, 0), (0, 1), (2, 3), (3, 2), (3, None)])))  # fmt: skip
    values = TokenValues(np.arange(1.0, 7.0), np.arange(10.0, 16.0), tokens.valid("pair_in"))
    drift.add(tokens, values)
    assert drift.numerator.tolist() == [4.0, 2.0, 5.0]
    assert drift.denominator.tolist() == [22.0, 11.0, 14.0]
    assert drift.tokens.tolist() == [2, 1, 1]
    none = PairDrift(rows("overlap"), 4)
    none.add(tokens, values)
    assert len(none.tokens) == 0


def test_scalars_of_maps_weigh_visited_pairs() -> None:
    found = overlap_scalars(rows(
        "overlap", pair(0, 1, visits=3, residual=0.5, drift_num=1.0, drift_den=4.0, cond=2.0),
        pair(0, 2, visits=1, residual=0.25, drift_num=2.0, drift_den=2.0, cond=8.0),
        pair(0, 3, visits=0, residual=9.0, drift_num=9.0, drift_den=9.0, cond=None, rank=1),
        pair(1, 3, visits=4, residual=0.0, drift_num=0.0, drift_den=2.0, cond=4.0),
    ), 2)  # fmt: skip
    assert found[ids.OVERLAP_DRIFT] == Scalar(3.0 / 8.0, 3)
    assert found[ids.OVERLAP_RESIDUAL] == Scalar((1.5 + 0.25) / 8.0, 3)
    assert found[ids.OVERLAP_CONDITION] == Scalar(4.0, 3)


@pytest.mark.parametrize("change", [{"rank": 1}, {"cond": None}, {"rank": 3}])
def test_maps_below_full_rank_have_no_condition_number(change: Row) -> None:
    found = overlap_scalars(rows("overlap", pair(0, 1), pair(0, 2, **change), pair(0, 3)), 2)[ids.OVERLAP_CONDITION]
    assert (found.value, found.count) == (None, 3)
    assert "rank below 2" in found.note


def test_maps_of_nothing_have_no_drift() -> None:
    found = overlap_scalars(rows("overlap", pair(0, 1, drift_den=0.0)), 2)
    assert found[ids.OVERLAP_DRIFT] == Scalar(None, 1, "the maps are zero")
    little = overlap_scalars(rows("overlap", pair(0, 1, drift_num=0.125, drift_den=0.5)), 2)
    assert little[ids.OVERLAP_DRIFT] == Scalar(0.25, 1)
    unseen = overlap_scalars(rows("overlap", pair(0, 1, visits=0)), 2)
    assert set(unseen.values()) == {Scalar(None, 0, "no pair of experts was visited")}


def ranked(usable: int, tokens: int = 5, flat: bool = False) -> Scalar:
    """Correlate pairs whose condition numbers rise with their drift, ``usable`` of six with so many tokens."""
    maps = rows("overlap", *(pair(0, i, cond=1.0 if flat else 1.0 + i) for i in range(6)))
    drift = PairDrift(maps, 6)
    drift.numerator[:], drift.denominator[:] = np.arange(6.0), 0.5
    drift.tokens[:usable] = tokens
    return rank_correlation(maps, drift)


def test_a_rank_correlation_needs_five_pairs_of_five_tokens() -> None:
    assert ranked(5) == Scalar(1.0, 5)
    assert ranked(6) == Scalar(1.0, 6)
    assert ranked(4) == Scalar(None, 4, "4 pairs with 5 tokens and a condition number; 5 are needed")
    assert ranked(6, 4).count == 0
    assert ranked(6, flat=True) == Scalar(None, 6, "all pairs are equal: there are no ranks")


def test_pairs_without_a_denominator_or_a_condition_number_are_not_ranked() -> None:
    maps = rows("overlap", *(pair(0, i, cond=None if i == 6 else 1.0 + i) for i in range(7)))
    drift = PairDrift(maps, 7)
    drift.numerator[:], drift.denominator[:], drift.tokens[:] = -np.arange(7.0), 2.0, 9
    drift.denominator[0] = 0.0
    assert rank_correlation(maps, drift) == Scalar(-1.0, 5)


def test_ties_share_the_mean_of_their_ranks() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 7.0]), np.array([4.0, 1.0, 9.0, 9.0])
    x, y = np.array([1.0, 2.5, 2.5, 4.0]), np.array([2.0, 1.0, 3.5, 3.5])
    assert spearman(a, b) == pytest.approx(float(np.corrcoef(x, y)[0, 1]))
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert spearman(a, np.ones(4)) is None
    assert spearman(np.ones(4), a) is None


# --- routers ------------------------------------------------------------------------------------------------------


SCORES = np.array([[0.0, np.log(2.0), np.log(4.0), 0.0]])
"""Logits whose softmax is 1/8, 2/8, 4/8, 1/8 and whose sigmoid is 1/2, 2/3, 4/5, 1/2."""
SOFT, SIGMOID = np.array([[1, 2, 4, 1]]) / 8, np.array([[1 / 2, 2 / 3, 4 / 5, 1 / 2]])
BIAS = np.array([0.5, 0.0, -0.25, 1.0])


def test_a_rule_is_read_from_its_row() -> None:
    table = rows("layer", layer(), layer("x", layer=4, selection_bias=BIAS.tolist(), score_space="sigmoid+bias", weight_scale=2.5,
                                         weight_rule="sigmoid_topk_renormalised", group_mode="max", n_groups=2))  # fmt: skip
    assert RouterRule.of(table) == rule(scale=1.5)
    found = RouterRule.of(table, 1)
    assert found.selection_bias is not None
    assert found.selection_bias.tolist() == BIAS.tolist()
    assert (found.score_space, found.weight_rule, found.scale) == ("sigmoid+bias", "sigmoid_topk_renormalised", 2.5)
    assert (found.group_mode, found.n_groups, found.kept_groups) == ("max", 2, 1)


def test_only_plain_logits_are_monotone() -> None:
    assert rule().monotone
    assert not rule(mode="max").monotone
    assert not rule("softmax+bias").monotone
    assert [rule(weights=w).renormalised for w in ("softmax_topk", "softmax_topk_renormalised")] == [False, True]


@pytest.mark.parametrize(("space", "weights", "gate"), [
    ("softmax+bias", "sigmoid_topk", SOFT), ("softmax+bias", "softmax_topk", SOFT), ("sigmoid+bias", "softmax_topk", SIGMOID),
    ("sigmoid+bias", "sigmoid_topk", SIGMOID),
])  # fmt: skip
def test_dispatch_scores_of_biased_spaces_are_gates_plus_bias(space: str, weights: str, gate: F64) -> None:
    biased, plain = rule(space, weights, selection_bias=BIAS), rule(space, weights)
    assert biased.dispatch(SCORES) == pytest.approx(gate + BIAS)
    assert plain.dispatch(SCORES) == pytest.approx(gate)
    assert biased.probabilities(gate + BIAS) == pytest.approx(gate)
    assert plain.probabilities(gate) is gate


def test_dispatch_scores_in_logits_are_the_logits() -> None:
    assert rule().dispatch(SCORES) is SCORES
    assert rule().probabilities(SCORES) == pytest.approx(SOFT)
    assert rule(weights="sigmoid_topk").probabilities(SCORES) == pytest.approx(SIGMOID)


def test_groups_are_as_strong_as_their_best_or_best_two() -> None:
    scores = np.array([[5.0, 1.0, 0.0, 4.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    best, two = rule(mode="max"), rule(mode="top2_sum")
    assert best.group_scores(scores).tolist() == [[5.0, 4.0], [1.0, 1.0]]
    assert two.group_scores(scores).tolist() == [[6.0, 7.0], [2.0, 2.0]]
    assert best.admissible(scores).tolist() == [[True] * 3 + [False] * 3] * 2
    assert two.admissible(scores).tolist() == [[False] * 3 + [True] * 3, [True] * 3 + [False] * 3]
    assert rule().admissible(scores).all()
    assert two.order(scores)[:, :3].tolist() == [[3, 5, 4], [0, 1, 2]]
    assert rule().order(scores)[0].tolist() == [0, 3, 5, 4, 1, 2]
    # The group of the best one, though each of the other group is above its second.
    assert best.order(np.array([[5.0, 0.0, 4.0, 4.5]]))[0, :2].tolist() == [0, 1]
    assert two.order(np.array([[-1.0, -2.0, 0.0, -9.0]])).tolist() == [[0, 1, 2, 3]]  # below zero, and still admissible


def test_strengths_of_groups_are_added_in_single_precision() -> None:
    scores = np.array([[1.0, 2.0**-30, 0.5, 0.5]])
    assert rule(mode="top2_sum").group_scores(scores).tolist() == [[1.0, 1.0]]


def test_weights_are_gates_of_members_scaled_and_renormalised_where_the_rule_says_so() -> None:
    members = np.array([[2, 1]])
    assert rule(scale=3.0).weights(SCORES, members) == pytest.approx(np.array([[1.5, 0.75]]))
    shared = rule(weights="softmax_topk_renormalised", scale=3.0).weights(SCORES, members)
    assert shared == pytest.approx(np.array([[2.0, 1.0]]))


@pytest.mark.parametrize(("convention", "factor"), [("w", [2.0, 3.0]), ("1+w", [3.0, 4.0]), ("none", [1.0, 1.0])])
def test_the_gain_is_read_by_its_convention(convention: str, factor: list[float]) -> None:
    table = rows("layer", layer(), layer("x", layer=4, gain_convention=convention))
    assert effective_gain(table, 1).tolist() == factor
