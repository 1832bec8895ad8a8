"""Occupancy and the shifts of assignments: against the oracle, and the identities that fractions obey."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from evidence.strategies import arrow
from hypothesis import given
from hypothesis import strategies as st
from measures.worlds import WORLDS, findings, naive, study
from naive import reported as oracle

from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.tables import TABLES, Dims
from atlas_schema.measures.occupancy import (
    Assignments,
    entropy_change,
    layer_occupancy,
    rarefied,
    run_occupancy,
    shift,
)
from atlas_schema.measures.overlap import spearman


def close(value: Any) -> object:
    return value if value is None or isinstance(value, int) else pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_occupancy_equals_the_oracle(world: str) -> None:
    made, found = study(world), findings(world)
    assert [o.run_id for o in found.occupancy] == ["base", *(f"arm:{a.arm}" for a in found.arms)]
    for run in found.occupancy:
        layers = [
            oracle.occupancy(naive(world), run.run_id, layer, made.contract.occupancy.rarefied_tokens)
            for layer in (0, 2)
        ]
        for occupied, expected in zip(run.layers, layers, strict=True):
            for name, value in expected.items():
                stated = getattr(occupied, name)
                assert (list(stated) if name == "pi" else stated) == close(value), name
        cv, entropy, active = (
            np.array([x[n] for x in layers]) for n in ("cv_percent", "entropy_nats", "experts_active")
        )
        assert (run.mean_cv_percent, run.std_cv_percent) == (close(float(cv.mean())), close(float(cv.std())))
        assert (run.min_entropy_nats, run.mean_entropy_nats) == (
            close(float(entropy.min())),
            close(float(entropy.mean())),
        )
        assert run.dead_experts == sum(made.settings.experts - int(n) for n in active)
        assert run.experts_active_mean == close(float(active.mean()))


# --- made-up assignments ------------------------------------------------------------------------------------------


@st.composite
def routed(draw: st.DrawFn) -> tuple[int, int, list[list[int]]]:
    """Draw (experts, k, executed sets)."""
    experts = draw(st.integers(1, 9))
    k = draw(st.integers(1, experts))
    favourites = draw(st.sampled_from([experts, k]))
    sets = st.lists(st.integers(0, favourites - 1), min_size=k, max_size=k, unique=True)
    return experts, k, draw(st.lists(sets, min_size=1, max_size=30))


def rows_of(experts: int, k: int, sets: list[list[int]]) -> Rows:
    dims = Dims(3, experts, k, 2)
    rows = [
        {"run_id": "base", "layer": 0, "window_id": "w", "position": t, "experts": chosen,
         "competitor_in": next((e for e in range(experts) if e not in chosen), None), "competitor_out": chosen[-1],
         "margin": 0.0, "group_margin": None, "flags": 0}
        for t, chosen in enumerate(sets)
    ]  # fmt: skip
    return from_arrow(TABLES["routing"], dims, arrow("routing", rows, dims))


def counted(experts: int, k: int, sets: list[list[int]], halves: npt.NDArray[np.int64] | None = None) -> Assignments:
    found = Assignments(experts)
    found.add(rows_of(experts, k, sets), np.arange(len(sets)) % 2 if halves is None else halves)
    return found


@given(routed())
def test_fractions_obey_their_identities(world: tuple[int, int, list[list[int]]]) -> None:
    experts, k, sets = world
    found = layer_occupancy(3, counted(*world), k, 2)
    assert math.fsum(found.pi) == pytest.approx(k)
    assert all(0 <= p <= 1 + 1e-12 for p in found.pi)
    assert math.log(k) - 1e-12 <= found.entropy_nats <= math.log(experts) + 1e-12
    assert found.max_load_percent <= 100 / k + 1e-9
    assert found.cv_percent <= 100 * math.sqrt(experts / k - 1) + 1e-9
    assert k <= found.experts_active <= experts
    assert found.effective_experts <= found.experts_active + 1e-9
    assert found.tokens == len(sets)
    if k == experts:
        assert found.cv_percent == 0.0
    if found.distinct_sets is not None:
        assert 1.0 - 1e-12 <= found.distinct_sets <= min(2.0, len({frozenset(s) for s in sets})) + 1e-12


@given(routed(), st.data())
def test_neither_order_nor_parts_change_a_count(world: tuple[int, int, list[list[int]]], data: st.DataObject) -> None:
    experts, k, sets = world
    whole = counted(*world)
    cut = data.draw(st.integers(0, len(sets)))
    parts = Assignments(experts)
    for part, first in ((sets[:cut], 0), (sets[cut:], cut)):
        if part:
            parts.add(rows_of(experts, k, part), (np.arange(len(part)) + first) % 2)
    for name in ("loads", "swaps", "sets", "tokens"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name)), name
    again = counted(experts, k, [list(reversed(s)) for s in sets])
    assert np.array_equal(again.sets, whole.sets)


def test_sets_too_large_for_a_number_are_counted_by_their_bytes() -> None:
    experts, k = 300, 12
    rng = np.random.default_rng(1)
    kinds = [sorted(rng.choice(experts, k, replace=False).tolist()) for _ in range(5)]
    sets = [kinds[i] for i in (0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4)]
    found = counted(experts, k, sets)
    assert sorted(found.sets.tolist()) == [1, 2, 3, 4, 5]
    found.add(rows_of(experts, k, [kinds[0], kinds[4]]), np.array([0, 1]))
    assert sorted(found.sets.tolist()) == [2, 2, 3, 4, 6]


counts_of_sets = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(counts_of_sets, st.integers(0, 9))
def test_rarefaction_is_the_mean_over_every_sample(counts: list[int], tokens: int) -> None:
    found = rarefied(np.array(counts), tokens)
    if tokens > sum(counts):
        assert found is None
        return
    assert found == pytest.approx(oracle.distinct_by_enumeration(counts, tokens), rel=1e-12, abs=1e-12)


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=6), st.integers(1, 10**4))
def test_rarefaction_keeps_its_digits_at_any_size(counts: list[int], tokens: int) -> None:
    found = rarefied(np.minimum(np.array(counts), 10**5), tokens)
    expected = oracle.expected_distinct([min(c, 10**5) for c in counts], tokens) if tokens <= 200 else None
    if expected is not None:
        assert found == pytest.approx(expected, rel=1e-9)
    if found is not None:
        assert 1.0 - 1e-9 <= found <= len(counts)


# --- shifts -------------------------------------------------------------------------------------------------------

tables = st.integers(1, 6).flatmap(
    lambda m: st.lists(st.lists(st.integers(0, 40), min_size=m, max_size=m), min_size=4, max_size=4)
)


@given(tables)
def test_a_witness_is_a_difference_of_shares_and_at_most_the_distance(table: list[list[int]]) -> None:
    base, arm = np.array(table[:2]), np.array(table[2:])
    found = shift(base, arm)
    if found.plugin is None:
        assert not base.any() or not arm.any()
        return
    assert 0.0 <= found.plugin <= 1.0
    assert found.count == arm.sum()
    if found.witness is None:
        assert not (base.sum(axis=1) * arm.sum(axis=1)).all()
        return
    apart = [0.5 * np.abs(arm[h] / arm[h].sum() - base[h] / base[h].sum()).sum() for h in (0, 1)]
    assert abs(found.witness) <= sum(apart) / 2 + 1e-12, "judged on a half, no set beats that half's distance"
    back = shift(arm, base)
    assert back.plugin == pytest.approx(found.plugin, abs=1e-15)


@given(tables)
def test_equal_halves_give_the_distance_itself(table: list[list[int]]) -> None:
    """Without noise between the halves the witness is the total variation."""
    base, arm = np.array([table[0], table[0]]), np.array([table[1], table[1]])
    found = shift(base, arm)
    if found.witness is not None:
        assert found.witness == pytest.approx(found.plugin, abs=1e-12)


@given(tables)
def test_the_base_differs_from_itself_by_exactly_nothing(table: list[list[int]]) -> None:
    found = shift(np.array(table[:2]), 3 * np.array(table[:2]))
    assert found.plugin in (None, 0.0)
    assert found.witness in (None, 0.0)


@given(routed(), st.data())
def test_a_change_of_entropy_is_the_difference_of_entropies(
    world: tuple[int, int, list[list[int]]], data: st.DataObject
) -> None:
    experts, k, sets = world
    other = data.draw(st.lists(st.sampled_from(sets), min_size=1))
    a, b = counted(experts, k, sets), counted(experts, k, other)
    entropies = [layer_occupancy(0, x, k, 1).entropy_nats for x in (a, b)]
    assert entropy_change(a, b) == pytest.approx(abs(entropies[1] - entropies[0]), abs=1e-12)
    assert entropy_change(a, b) == pytest.approx(entropy_change(b, a), abs=1e-15)
    assert entropy_change(a, a) == 0.0


@pytest.mark.parametrize("moved", [1, -3])
def test_a_change_of_entropy_keeps_its_digits_however_small(moved: int) -> None:
    whole = 2**40
    base, arm = Assignments(2), Assignments(2)
    base.loads[0] = whole // 4, 3 * whole // 4
    arm.loads[0] = whole // 4 + moved, 3 * whole // 4 - moved
    # dH = -sum dp_i ln p_i; what follows is of the order of dp squared.
    assert entropy_change(base, arm) == pytest.approx(abs(moved) * math.log(3) / whole, rel=1e-9, abs=0.0)


def test_the_summary_of_a_run_is_over_its_layers() -> None:
    layers = [
        layer_occupancy(i, counted(4, 1, [[j] for j in chosen]), 1, 1)
        for i, chosen in enumerate(((0, 1, 2, 3), (0, 0)))
    ]
    found = run_occupancy("base", layers)
    assert (found.dead_experts, found.experts_active_mean, found.min_entropy_nats) == (3, 2.5, 0.0)
    assert found.mean_cv_percent == pytest.approx(100 * math.sqrt(3) / 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9))
def test_rank_correlation_is_that_of_mean_ranks(points: list[tuple[int, int]]) -> None:
    x, y = (np.array([float(p[i]) for p in points]) for i in (0, 1))
    found = spearman(x, y)
    ranks = [oracle.ranks(v.tolist()) for v in (x, y)]
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(float(np.asarray(np.corrcoef(ranks))[0, 1]), abs=1e-12)
        assert found == pytest.approx(spearman(np.exp(x), y), abs=1e-12), "only order counts"
