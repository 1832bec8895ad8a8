"""What is reported and what cells are made of, part by part, on examples small enough to work out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from measures.by_hand import DIMS, V0, V1, at, clusters, rows, rule, update

from atlas_schema.documents.contract import Contract
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.measures.collect import Sums, cell_key
from atlas_schema.measures.definitions import DEFINITIONS
from atlas_schema.measures.drift import (
    same_state,
    update_groups,
)
from atlas_schema.measures.facts import (
    LayerFacts,
)
from atlas_schema.measures.ledger import Ratio
from atlas_schema.measures.reported import (
    Native,
    angular,
    base_same_state,
    certificate,
    log_ratio,
    native,
    norm_baseline,
    outputs,
    same_state_reported,
    tangent,
)
from atlas_schema.measures.runs import damage_columns, run_cells
from atlas_schema.measures.statements import Statements, standard_error

# --- what is reported ---------------------------------------------------------------------------------------------


def routed(*sets: list[int], **columns: list[Any]) -> Native:
    listed = [at("w", i, experts=s, **{n: c[i] for n, c in columns.items()}) for i, s in enumerate(sets)]
    return Native.of(rows("routing", *listed), 4)


def test_turnover_and_margin_shift_of_three_tokens() -> None:
    base = routed([0, 1], [0, 1], [2, 3], margin=[1.0, 2.0, None])
    arm = routed([1, 0], [0, 2], [0, 1], margin=[1.5, None, 4.0])
    found = native(base, arm, comparable=True)
    assert found[ids.TURNOVER].numerator.tolist() == [0.0, 0.5, 1.0]
    shift = found[ids.MARGIN_SHIFT]
    assert (shift.numerator[0], shift.present.tolist()) == (0.5, [True, False, False])
    assert set(native(base, arm, comparable=False)) == {ids.TURNOVER}


def test_the_norm_of_the_input_follows_from_r_and_eps() -> None:
    base = rows("state", *(at("w", i, r=r) for i, r in enumerate((2.5, 0.5, 0.25))))
    arm = rows("state", *(at("w", i, r=r) for i, r in enumerate((1.5, 2.5, 2.5))))
    found = norm_baseline(base, arm, 2.25, 0.25, 4)  # base: 4 (6.25 - 2.25), 4 (0.25 - 2.25) < 0
    assert found.numerator[0] == pytest.approx(abs(math.sqrt(8.0) - 4.0) / 4.0)
    assert found.present.tolist() == [True, False, False]
    assert found.numerator[1:].tolist() == [0.0, 0.0]


def test_router_term_shift_and_tightness_worked_by_hand() -> None:
    before = np.array([[0.0, 2.0, 1.0, 0.0]])
    after = np.array([[0.0, 2.5, 0.5, 0.0]])
    token = update(0, [1, 2, 3], V0, V1, rho0=[0.5, 0.25, 0.125], rho1=[0.75, 0.125, 0.125], dV_norm=0.75,
                   dispatch0=before[0].tolist(), dispatch1=after[0].tolist())  # fmt: skip
    made = rows("update", token)
    groups, r = update_groups(made), rule()
    content = same_state(made, 2, groups)[ids.CONTENT]
    found = same_state_reported(made, groups, (r, r), content)
    assert found[ids.ROUTER_TERM].numerator == pytest.approx([0.25 * 5 + 0.125 * 2])
    assert found[ids.ROUTER_TERM].denominator.tolist() == content.denominator.tolist()
    assert found[ids.TIGHTNESS].numerator.tolist() == [0.75]
    assert found[ids.TIGHTNESS].denominator == pytest.approx([1.5 + 0.125 * 3 + 0.125 * 4])
    p0, p1 = (np.exp(s) / np.exp(s).sum() for s in (before, after))
    logs = np.log(p1 / p0)[0]
    assert found[ids.ROUTER_SHIFT].numerator == pytest.approx([logs[1] + logs[2]])
    assert found[ids.ROUTER_SHIFT].denominator.tolist() == [2.0]
    # the change spreads over 1 in all, the margin between 1 and 2 of the set is 2 - 1 of the pair (2, 3): 1 - 0
    assert found[ids.CERTIFICATE].numerator.tolist() == [0.0]
    other = same_state_reported(made, groups, (r, rule("softmax+bias")), content)
    assert ids.CERTIFICATE not in other


def test_gate_values_of_zero_have_no_logarithm() -> None:
    r = rule("sigmoid+bias", "sigmoid_topk")
    found, shown = log_ratio((r, r), np.array([[0.0, 0.5, 0.25, 0.25]]), np.array([[0.5, 0.0, 0.5, 0.25]]))
    assert shown.tolist() == [[False, False, True, True]]
    assert found[0, 2:] == pytest.approx([math.log(2.0), 0.0])
    far, _ = log_ratio((r, r), np.array([[4.0, 0.5, 1.0, 1.0]]), np.array([[0.5, 2.0, 1.0, 1.0]]))
    assert far[0] == pytest.approx([math.log(0.125), math.log(4.0), 0.0, 0.0])


@pytest.mark.parametrize(("mode", "change", "certified"), [
    ("none", [0.0, 0.0, 0.0, 0.0], True), ("none", [0.0, -0.5, 0.4375, 0.0], True), ("none", [0.0, -0.5, 0.5, 0.0], False),
    ("none", [1.0, 0.0, 0.0, 0.0], False), ("none", [9.0, 9.0, 9.0, 9.0], True),
    # groups (0, 1) and (2, 3): 5 against 2 by their best, 7 against 2.5 by their sums
    ("max", [0.0, 0.0, 0.75, 0.0], True), ("max", [0.0, 0.0, 2.5, 0.0], True), ("max", [0.0, 0.0, 3.5, 0.0], False),
    ("top2_sum", [0.0, 0.0, 2.0, 0.0], True), ("top2_sum", [0.0, 0.0, 2.5, 0.0], False),
])  # fmt: skip
def test_a_set_is_certified_while_scores_move_less_than_what_holds_it(
    mode: str, change: list[float], certified: bool
) -> None:
    groups = mode != "none"
    before = np.array([[5.0, 2.0, 2.0, 0.5]]) if groups else np.array([[3.0, 2.0, 1.0, 0.0]])
    out, entering = (0, 1) if groups else (1, 2)
    made = rows("update", update(0, [0, 1, 2], V0, V0, pair_out=out, pair_in=entering))
    assert certificate(made, rule(mode=mode), before, before + np.array([change])).tolist() == [certified]
    alone = rows("update", update(0, [0, 1, 2], V0, V0, pair_out=out, pair_in=None))
    assert certificate(alone, rule(mode=mode), before, before).tolist() == [False]


def test_agreement_and_one_swap_residual_of_the_base() -> None:
    scores = [float(s) for s in (3.0, 2.0, 1.0, 0.0)]
    tokens = [update(i, [0, 1, 2], V0, V0, dispatch0=scores, pair_in=None if i == 2 else 2) for i in range(4)]
    made, r = rows("update", *tokens), rule(weights="softmax_topk_renormalised")
    found = base_same_state(made, update_groups(made), r, routed([1, 0], [0, 2], [0, 1]))
    assert found[ids.AGREEMENT].numerator.tolist() == [1.0, 0.0, 1.0, 0.0]  # the fourth has no routing row
    swap = found[ids.ONE_SWAP]
    first, second = (np.exp(s) / sum(np.exp(s)) for s in ([3.0, 2.0], [3.0, 1.0]))
    jump = second[0] * V0[0] + second[1] * V0[2] - first[0] * V0[0] - first[1] * V0[1]
    rest = jump - first[1] * (V0[2] - V0[1])
    assert swap.denominator[:2] == pytest.approx([float(np.linalg.norm(jump))] * 2)
    assert swap.numerator[:2] == pytest.approx([float(np.linalg.norm(rest))] * 2)
    assert (swap.numerator[2], swap.denominator[2], swap.present.tolist()) == (0.0, 0.0, [True, True, False, True])
    nowhere = base_same_state(made, update_groups(made), r, Native(rows("routing"), np.zeros((0, 1), dtype=np.uint64)))
    assert nowhere[ids.AGREEMENT].numerator.tolist() == [0.0] * 4


def test_the_tangent_share_of_base_and_arm() -> None:
    made = rows("update", update(0, [0, 2, 3], V0, V1, uu0=[36.0, 4.0, -1.0], uu1=[49.0, 36.0, 25.0]))
    groups = update_groups(made)
    base, arm = tangent(made, groups, of_base=True), tangent(made, groups, of_base=False)
    assert base.numerator == pytest.approx([5 + 2 + 1])
    assert base.denominator == pytest.approx([6 + 2 + 0])
    assert arm.numerator == pytest.approx([5 + 5 + math.sqrt(17)])
    assert arm.denominator == pytest.approx([7 + 6 + 5])


def test_the_set_at_full_length_depends_on_length_only_through_a_bias() -> None:
    states = rows("state", at("w", 0, z=[0.1, 0.0]), at("w", 1, z=[0.0, 10.0]), at("w", 2, z=[1.0, 1.0]))
    weights, bias = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), np.array([0.0, 0.0, 1.0, 0.0])
    for positions in (1, 2, 3):
        assert angular(states, rule(), weights, None, 2, positions).numerator.tolist() == [1.0, 1.0, 1.0]
        # at 0.1 the bias puts expert 2 first and 0 second; at sqrt(2) the order of 0 and 2 turns, the set {0, 2} stays
        assert angular(states, rule(), weights, bias, 1, positions).numerator.tolist() == [0.0, 1.0, 1.0]


def test_outputs_of_two_tokens() -> None:
    base = rows("output", {**at("w", 0), "nll": 2.0, "top1": 7}, {**at("w", 1), "nll": 1.0, "top1": 8})
    arm = rows(
        "output", {**at("w", 0), "nll": 2.5, "top1": 7, "kl_from_base": 0.25}, {**at("w", 1), "nll": 0.5, "top1": 9}
    )
    found = outputs(base, arm)
    assert found[ids.PERPLEXITY].numerator.tolist() == [2.5, 0.5]
    assert found[ids.DAMAGE].numerator.tolist() == [0.5, -0.5]
    assert found[ids.TOP1].numerator.tolist() == [1.0, 0.0]
    assert (found[ids.KL].numerator[0], found[ids.KL].present.tolist()) == (0.25, [True, False])


# --- cells, damage, entries ---------------------------------------------------------------------------------------


def facts(**digests: str) -> LayerFacts:
    return LayerFacts(rule(), 0.0, np.zeros((4, 2)), None, 2, 0.0, {n.replace("_", "."): d for n, d in digests.items()})


def sums(missing: int, dims: Dims = DIMS, *, arm_expert: str = "y") -> tuple[Sums, Contract]:
    """Return sums of one arm in one layer, 100 tokens in two clusters, and the contract's channels."""
    channels = [SimpleNamespace(definition=d, thresholds=[SimpleNamespace(form=ids.SUMS)]) for d in DEFINITIONS]
    contract = SimpleNamespace(channels=channels, max_missing_competitor_share=0.25)
    names = [cell_key("arm:x", 3, d, ids.SUMS) for d in DEFINITIONS]
    ratios: dict[Any, Ratio] = {
        key: Ratio(np.array([1.0 + i, 2.0]), np.array([5.0, 5.0]), 100 - missing, missing)
        for i, key in enumerate(names)
    }
    ratios["arm:x", None, ids.DAMAGE] = Ratio(np.array([1.0, 2.0]), np.array([4.0, 6.0]))
    ratios["base", None, ids.PERPLEXITY] = Ratio(np.array([8.0, 3.0]), np.array([4.0, 6.0]))
    layers = {("base", 3): facts(router_0="x", experts_0="y"), ("arm:x", 3): facts(router_0="x", experts_0=arm_expert)}
    shares: Any = dict.fromkeys(names, 0.5)
    made = Sums(
        dims,
        clusters(("c1", "a"), ("c2", "b")),
        {},
        cast(Any, layers),
        ratios,
        {},
        shares,
        {},
        np.array([2.0, 2.0]),
        {},
    )
    return made, cast(Contract, contract)


@pytest.mark.parametrize(("missing", "refused"), [
    (0, ""), (25, ""), (26, "26.0% of tokens have no competitor"), (100, "100.0% of tokens have no competitor"),
])  # fmt: skip
def test_only_transition_is_refused_where_competitors_are_missing(missing: int, refused: str) -> None:
    made, contract = sums(missing)
    cells = run_cells(made, "arm:x", (3,), contract)
    of = dict(zip((n.definition for n in cells.names), cells.statistics, strict=True))
    assert [d for d, s in of.items() if s.refused] == ([ids.TRANSITION] if refused else [])
    assert of[ids.TRANSITION].refused == refused
    assert cells.missing == (missing,) * 5
    assert [str(n) for n in cells.names][:2] == [f"layer 3 {d} {ids.SUMS}" for d in (ids.COORDINATE, ids.BOUNDARY)]


def test_nothing_at_all_counts_as_all_missing() -> None:
    made, contract = sums(0)
    for ratio in made.ratios.values():
        ratio.tokens = 0
    statistics = run_cells(made, "arm:x", (3,), contract).statistics
    assert statistics[list(DEFINITIONS).index(ids.TRANSITION)].refused == "100.0% of tokens have no competitor"


def test_cells_know_bounds_equal_tensors_and_where_there_is_a_boundary() -> None:
    made, contract = sums(0, arm_expert="z")
    cells = run_cells(made, "arm:x", (3,), contract)
    assert [s.identical for s in cells.statistics] == [False, True, False, False, False]
    assert [s.bounded for s in cells.statistics] == [True, True, False, False, False]
    assert [s.nonnegative for s in cells.statistics] == [True] * 5
    assert cells.numerator.tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0], [2.0] * 5]
    assert cells.denominator.tolist() == [[5.0] * 5] * 2
    assert cells.applicable == (True,) * 5
    every = run_cells(sums(0, Dims(d=2, E=2, k=2, P=2))[0], "arm:x", (3,), contract)
    assert every.applicable == (True, False, False, True, True)


def test_damage_is_split_by_domain() -> None:
    found = damage_columns(sums(0)[0], "arm:x", ("a", "b"))
    assert (found.numerator.tolist(), found.denominator.tolist()) == (
        [[1.0, 0.0], [0.0, 2.0]],
        [[4.0, 0.0], [0.0, 6.0]],
    )
    assert found.base_nll == (2.0, 0.5)


def test_a_standard_error_is_that_of_residuals_in_their_strata() -> None:
    n, d = np.array([1.0, 3.0, 2.0, 9.0]), np.array([2.0, 2.0, 4.0, 4.0])
    ratio, strata = Ratio(n, d), [np.array([0, 1]), np.array([2, 3])]
    e = n - n.sum() / d.sum() * d
    variance = 2 * ((e[:2] - e[:2].mean()) ** 2).sum() + 2 * ((e[2:] - e[2:].mean()) ** 2).sum()
    assert standard_error(ratio, strata) == pytest.approx(math.sqrt(variance) / 12)
    three = [np.array([0, 1, 2]), np.array([3])]
    variance = 1.5 * ((e[:3] - e[:3].mean()) ** 2).sum()
    assert standard_error(ratio, three) == pytest.approx(math.sqrt(variance) / 12)
    inside = n[:2] - n[:2].sum() / 4.0 * d[:2]
    assert standard_error(ratio, strata[:1]) == pytest.approx(math.sqrt(2 * ((inside - inside.mean()) ** 2).sum()) / 4)
    assert standard_error(ratio, [np.array([i]) for i in range(4)]) is None
    assert standard_error(Ratio(n, np.zeros(4)), strata) is None
    assert standard_error(ratio, []) is None
    assert standard_error(Ratio(2.0 * d, d), strata) == 0.0
    assert standard_error(Ratio(np.array([1e200, -1e200, 1e200, 0.0]), d), strata) is None


def test_numbers_of_a_domain_are_over_its_clusters() -> None:
    made, _ = sums(0)
    made.ratios["base", None, ids.PERPLEXITY].numerator[1] = 6.0 * 800.0
    say = Statements(made, (), Strata((np.array([0, 1]),)), ("a", "b"))
    found = {(r.definition, r.domain): r for r in say.base().reported}
    assert found[ids.PERPLEXITY, "a"].value == pytest.approx(math.exp(2.0))
    assert found[ids.BITS, "a"].value == pytest.approx(8.0 / math.log(2.0) / 2.0)
    assert (found[ids.BITS, "a"].count, found[ids.BITS, "b"].count) == (4, 6)
    assert found[ids.PERPLEXITY, "b"].value is None
    assert found[ids.PERPLEXITY, "b"].note == "the value is no finite number"
    made.ratios["base", None, ids.PERPLEXITY].denominator[0] = 0.0
    nothing = next(r for r in say.base().reported if (r.definition, r.domain) == (ids.PERPLEXITY, "a"))
    assert (nothing.value, nothing.count, nothing.note) == (None, 0, "nothing is in the denominator")
