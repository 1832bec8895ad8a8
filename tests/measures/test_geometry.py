"""Invariants of the geometry of one routed layer, as properties and on simulated evidence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from naive import measures as naive
from simulator import EPS, small_study

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.columns import from_arrow
from atlas_schema.evidence.tables import TABLES
from atlas_schema.measures import drift
from atlas_schema.measures.geometry import (
    angle,
    quadratic_norm,
    ranking,
    softmax,
    tangent_squared,
    unpack_gram,
)
from atlas_schema.measures.routers import RouterRule

F64 = npt.NDArray[np.float64]


def rule(weights: str) -> RouterRule:
    return RouterRule("logit", weights, 1.0, None, "none", 1, 1)


COORDINATES = st.floats(-1e3, 1e3).map(lambda x: 0.0 if abs(x) < 1e-3 else x)


def vectors(rows: int, d: int) -> st.SearchStrategy[F64]:
    return arrays(np.float64, (rows, d), elements=COORDINATES)


directed = st.tuples(st.integers(2, 6), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(vectors(shape[1], shape[0]), vectors(shape[1], shape[0]))
)


def nonzero(*blocks: F64) -> None:
    for block in blocks:
        assume((np.linalg.norm(block, axis=1) > 0).all())


# --- angle ------------------------------------------------------------------------------------------------------


@given(directed)
def test_angle_is_a_symmetric_number_from_zero_to_one(pair: tuple[F64, F64]) -> None:
    nonzero(*pair)
    found = angle(*pair)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found == angle(*reversed(pair))).all()
    assert found == pytest.approx([naive.coordinate_angle(a, b) for a, b in zip(*pair, strict=True)], abs=1e-15)


@given(directed, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_angle_ignores_scale(pair: tuple[F64, F64], one: float, other: float) -> None:
    nonzero(*pair)
    assert angle(pair[0] * one, pair[1] * other) == pytest.approx(angle(*pair), abs=1e-12)


@given(directed)
def test_angle_of_opposites_is_one_and_of_itself_zero(pair: tuple[F64, F64]) -> None:
    nonzero(pair[0])
    assert (angle(pair[0], pair[0]) == 0.0).all()
    assert angle(pair[0], -pair[0]) == pytest.approx(1.0, abs=1e-15)


@given(st.floats(1e-12, math.pi / 2), st.integers(0, 5))
def test_tiny_angles_keep_their_digits(turn: float, axis: int) -> None:
    a, b = np.zeros((1, 7)), np.zeros((1, 7))
    a[0, axis] = 1.0
    b[0, axis], b[0, axis + 1] = math.cos(turn), math.sin(turn)
    assert angle(a, b)[0] == pytest.approx(turn / math.pi, rel=1e-9, abs=1e-16)


def test_orthogonal_states_read_one_half() -> None:
    assert angle(np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]]))[0] == pytest.approx(0.5, abs=1e-16)


@given(st.integers(1, 5).flatmap(lambda d: st.tuples(vectors(1, d), vectors(1, d), vectors(1, d))))
def test_angle_obeys_the_triangle_inequality(three: tuple[F64, F64, F64]) -> None:
    nonzero(*three)
    a, b, c = three
    assert (angle(a, c) <= angle(a, b) + angle(b, c) + 1e-12).all()


# --- rankings and weights ---------------------------------------------------------------------------------------

score_rows = st.integers(2, 7).flatmap(
    lambda e: arrays(np.float32, (3, e), elements=st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0]))
)


@given(score_rows)
def test_ranking_descends_and_breaks_ties_to_the_lower_id(scores: npt.NDArray[np.float32]) -> None:
    for row, order in zip(scores.tolist(), ranking(scores).tolist(), strict=True):
        assert order == sorted(range(len(row)), key=lambda e: (-row[e], e))


@given(score_rows, st.data())
def test_routing_weights_are_the_softmax_of_the_members(scores: npt.NDArray[np.float32], data: st.DataObject) -> None:
    logits = scores.astype(np.float64)
    k = data.draw(st.integers(1, logits.shape[1]))
    members = ranking(logits)[:, :k]
    plain = rule("softmax_topk").weights(logits, members)
    renormalised = rule("softmax_topk_renormalised").weights(logits, members)
    for t, row in enumerate(logits.tolist()):
        total = math.fsum(math.exp(x) for x in row)
        chosen = [math.exp(row[e]) for e in members[t]]
        assert plain[t] == pytest.approx([c / total for c in chosen], rel=1e-12)
        assert renormalised[t] == pytest.approx([c / math.fsum(chosen) for c in chosen], rel=1e-12)
    assert renormalised.sum(axis=1) == pytest.approx(1.0, rel=1e-12)
    assert ((plain >= 0) & (plain <= 1)).all()
    assert (np.diff(plain, axis=1) <= 1e-15).all(), "weights follow the order of scores"


@given(score_rows, st.floats(-500, 500))
def test_softmax_has_the_gauge_of_logits(scores: npt.NDArray[np.float32], shift: float) -> None:
    logits = scores.astype(np.float64)
    assert softmax(logits + shift) == pytest.approx(softmax(logits), rel=1e-9)
    assert softmax(logits * 1000).sum(axis=1) == pytest.approx(1.0)


# --- Gram matrices ----------------------------------------------------------------------------------------------

gram_cases = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(vectors(*shape), arrays(np.float64, (shape[0],), elements=st.floats(-3, 3)))
)


@given(gram_cases)
def test_quadratic_norm_is_the_norm_of_the_combination(case: tuple[F64, F64]) -> None:
    x, c = case
    expected = float(np.linalg.norm(c @ x))
    found = float(quadratic_norm((x @ x.T)[None], c[None])[0])
    scale = float(np.abs(c) @ np.linalg.norm(x, axis=1))
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7 * scale + 1e-300)


@given(gram_cases)
def test_unpacking_restores_the_matrix(case: tuple[F64, F64]) -> None:
    gram = case[0] @ case[0].T
    size = len(gram)
    packed = gram[np.triu_indices(size)]
    full = unpack_gram(packed[None], size)[0]
    assert (full == np.triu(gram) + np.triu(gram, 1).T).all()
    assert full.tolist() == naive.unpack_gram(packed.tolist(), size)


def test_a_negative_residue_reads_zero() -> None:
    gram = np.array([[[1.0, 1.0 + 1e-15], [1.0 + 1e-15, 1.0]]])
    assert quadratic_norm(gram, np.array([[1.0, -1.0]]))[0] == 0.0


# --- the tangent projection -------------------------------------------------------------------------------------


@given(st.integers(2, 8).flatmap(lambda d: st.tuples(vectors(1, d), vectors(1, d))))
def test_tangent_norm_equals_the_explicit_projection(pair: tuple[F64, F64]) -> None:
    u, z = pair[0][0], pair[1][0] / 100
    d = len(u)
    v = u - z * (u @ z) / d
    found = float(tangent_squared(np.array(u @ u), np.array(u @ z), np.array(z @ z), d))
    assert found == pytest.approx(float(v @ v), rel=1e-9, abs=1e-9 * float(u @ u) * (1 + float(z @ z)) ** 2)


@given(st.integers(2, 8).flatmap(lambda d: st.tuples(vectors(1, d), vectors(1, d))))
def test_a_tangent_update_is_orthogonal_up_to_eps(pair: tuple[F64, F64]) -> None:
    """<v, z> = <u, z> (1 - ||z||^2 / d), which is zero for a state on the sphere of radius sqrt(d)."""
    u, z = pair[0][0], pair[1][0]
    assume(float(np.linalg.norm(z)) > 0.1)
    d = len(u)
    z = z / np.linalg.norm(z) * math.sqrt(d)
    v = u - z * (u @ z) / d
    assert v @ z == pytest.approx(0.0, abs=1e-9 * (1 + float(np.linalg.norm(u))) * d)


# --- invariants of honest evidence, on the simulator's rows -----------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, Any]]]:
    study = small_study()
    kept = {"base", "null:dtype", "null:attention", "arm:preserved", "arm:rewritten"}
    return {
        name: [row for row in study.rows(name) if row.get("run_id", "base") in kept]
        for name in ("layer", "state", "routing", "update", "window", "run")
    }


def test_state_norms_follow_from_eps(rows: dict[str, list[dict[str, Any]]]) -> None:
    d = small_study().dims.d
    for row in rows["state"]:
        z = np.array(row["z"], dtype=np.float64)
        assert z @ z == pytest.approx(d * (1 - EPS / row["r"] ** 2), rel=1e-5)


def test_scores_follow_from_gate_coordinates(rows: dict[str, list[dict[str, Any]]]) -> None:
    layers = {(r["run_id"], r["layer"]): r for r in rows["layer"]}
    dims = small_study().dims
    stored = 0
    for row in rows["state"]:
        layer = layers[row["run_id"], row["layer"]]
        half = layer["executed_dtype"] == "bfloat16"
        stored += row["g"] is not None
        g = np.array(row["g"] or np.float32(layer["gain"]) * np.float32(row["z"]), dtype=np.float64)
        weight = np.array(layer["router_weight"]).reshape(dims.E, dims.d)
        size = np.abs(weight) @ np.abs(g)
        bound = size * (2.0**-6 if half else dims.d * 2.0**-22)
        assert (np.abs(weight @ g - row["dispatch"]) <= bound).all()
    assert stored > 0


def test_sets_competitors_and_margins_follow_from_scores(rows: dict[str, list[dict[str, Any]]]) -> None:
    k = small_study().dims.k
    routing = {(r["run_id"], r["layer"], r["window_id"], r["position"]): r for r in rows["routing"]}
    for state in rows["state"]:
        row = routing[state["run_id"], state["layer"], state["window_id"], state["position"]]
        order = ranking(np.array([state["dispatch"]]))[0].tolist()
        assert row["experts"] == order[:k]
        assert (row["competitor_out"], row["competitor_in"]) == (order[k - 1], order[k])
        scores = np.array(state["dispatch"], dtype=np.float32)
        assert row["margin"] == scores[order[k - 1]] - scores[order[k]] >= 0
        assert bool(row["flags"] & 1) == (row["margin"] == 0)
        expected = rule("softmax_topk_renormalised").weights(np.array([state["dispatch"]]), np.array([order[:k]]))[0]
        assert state["weights"] == pytest.approx(expected, rel=2.0**-8 if state["run_id"] == "null:dtype" else 1e-5)


def test_update_rows_obey_their_identities(rows: dict[str, list[dict[str, Any]]]) -> None:
    dims = small_study().dims
    states = {(r["layer"], r["window_id"], r["position"]): r for r in rows["state"] if r["run_id"] == "base"}
    for row in rows["update"]:
        z = np.array(states[row["layer"], row["window_id"], row["position"]]["z"], dtype=np.float64)
        n = len(row["experts"])
        gram = unpack_gram(np.array([row["gram"]]), 2 * n)[0]
        uz, uu = np.array(row["uz0"]), np.array(row["uu0"])
        squared = tangent_squared(uu, uz, np.array(z @ z), dims.d)
        assert np.diag(gram)[:n] == pytest.approx(squared, rel=1e-9, abs=1e-9 * float(uu.max()))
        assert np.linalg.eigvalsh(gram).min() >= -1e-9 * np.trace(gram)
        assert row["experts"] == sorted(set(row["experts"]))
        assert row["in0"].bit_count() == row["in1"].bit_count() == dims.k
        assert row["pair_out"] in row["experts"]
        assert row["pair_in"] in row["experts"]
        # The composite field's change, recorded from the vectors themselves, is the Gram matrix's.
        rho0, rho1 = np.array(row["rho0"]), np.array(row["rho1"])
        change = quadratic_norm(gram[None], np.concatenate([rho1 - rho0, rho1])[None])[0]
        assert row["dV_norm"] == pytest.approx(change, rel=1e-6, abs=1e-7 * math.sqrt(np.trace(gram)))
        norms = np.sqrt(np.diag(gram))
        assert row["dV_norm"] <= (np.abs(rho1 - rho0) @ norms[:n] + rho1 @ norms[n:]) * (1 + 1e-9) + 1e-12


def test_margin_certificate_holds(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Scores that move less than the margin leave the set as it is."""
    k, certified = small_study().dims.k, 0
    for row in rows["update"]:
        s0, s1 = np.array(row["dispatch0"]), np.array(row["dispatch1"])
        order = ranking(s0[None])[0]
        change = s1 - s0
        if change.max() - change.min() < s0[order[k - 1]] - s0[order[k]]:
            certified += 1
            assert row["in0"] == row["in1"]
    assert certified > 0


def test_null_runs_drift_by_exactly_nothing_at_the_same_state(rows: dict[str, list[dict[str, Any]]]) -> None:
    found = [row for row in rows["update"] if row["run_id"].startswith("null:")]
    assert found
    for row in found:
        assert row["in0"] == row["in1"]
        assert row["rho0"] == row["rho1"]
        assert row["dy_norm"] == row["dV_norm"] == 0.0
        assert naive.content_token(row)[0] == 0.0
        assert naive.transition_token(row) is not None
        assert naive.transition_token(row)[0] == 0.0  # type: ignore[index]


# --- channels against the oracle, token by token ----------------------------------------------------------------


@st.composite
def update_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw update rows from explicit vectors, with lists of several lengths and some tokens without a competitor."""
    rows = []
    for position in range(draw(st.integers(1, 5))):
        n = draw(st.integers(2, 5))
        experts = sorted(draw(st.lists(st.integers(0, 7), min_size=n, max_size=n, unique=True)))
        v0, delta = draw(vectors(n, 3)), draw(vectors(n, 3))
        both = np.concatenate([v0, delta])
        share = st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)
        pair = draw(st.permutations(range(n)))[:2]
        bits = st.sampled_from([(1 << i) | (1 << j) for i in range(n) for j in range(i)])
        rows.append({
            "run_id": "arm:x", "layer": 1, "window_id": "w", "position": position, "experts": experts,
            "in0": draw(bits), "in1": draw(bits), "pair_out": experts[pair[0]],
            "pair_in": draw(st.sampled_from([None, experts[pair[1]]])), "rho0": draw(share), "rho1": draw(share),
            "rho0_b": draw(st.floats(0, 1, width=32)), "rho1_b_forced": draw(st.floats(0, 1, width=32)),
            "dispatch0": [0.0] * 8, "dispatch1": [0.0] * 8, "uz0": [0.0] * n, "uu0": [0.0] * n, "uz1": [0.0] * n,
            "uu1": [0.0] * n, "gram": (both @ both.T)[np.triu_indices(2 * n)].tolist(), "dV_norm": 0.0,
            "y0_norm": draw(st.floats(0, 10)), "dy_norm": draw(st.floats(0, 10)), "transport_angle": None,
        })  # fmt: skip
    return rows


def as_rows(rows: list[dict[str, Any]]) -> Any:
    from evidence.strategies import arrow

    from atlas_schema.evidence.tables import Dims

    dims = Dims(3, 8, 2, 2)
    return from_arrow(TABLES["update"], dims, arrow("update", rows, dims))


@given(update_rows())
def test_channels_equal_the_oracle_token_by_token(rows: list[dict[str, Any]]) -> None:
    found = drift.same_state(as_rows(rows), k=2)
    for at, row in enumerate(rows):
        size = math.sqrt(
            sum(row["gram"][i * (2 * len(row["experts"])) - i * (i - 1) // 2] for i in range(2 * len(row["experts"])))
        )
        near = 1e-7 * (size + 1)
        for definition, expected in (
            (naive.BOUNDARY, naive.boundary_token(row)),
            (naive.TRANSITION, naive.transition_token(row)),
            (naive.CONTENT, naive.content_token(row)),
            (naive.BLOCK, naive.block_token(row)),
        ):
            values = found[definition]
            assert bool(values.present[at]) == (expected is not None)
            if expected is not None:
                assert values.numerator[at] == pytest.approx(expected[0], rel=1e-9, abs=near)
                assert values.denominator[at] == pytest.approx(expected[1], rel=1e-9, abs=near)


@given(update_rows())
def test_the_bounded_form_is_a_share(rows: list[dict[str, Any]]) -> None:
    for definition, values in drift.same_state(as_rows(rows), k=2).items():
        bounded = drift.in_form(values, "mean_bounded")
        assert drift.in_form(values, "ratio_of_sums") is values
        for at in range(len(rows)):
            if bounded.present[at]:
                expected = naive.bounded_share(float(values.numerator[at]), float(values.denominator[at]))
                assert bounded.numerator[at] == pytest.approx(expected, rel=1e-12), definition
                assert 0 <= bounded.numerator[at] <= 1
                assert bounded.denominator[at] == 1


@given(update_rows(), st.sampled_from(["rho0", "rho1", "uz0", "uu0", "uz1", "uu1", "gram"]), st.booleans())
def test_lists_of_the_wrong_length_are_refused_and_named(rows: list[dict[str, Any]], name: str, longer: bool) -> None:
    value = rows[0][name]
    rows[0] = {**rows[0], name: [*value, 0.0] if longer else value[:-1]}
    with pytest.raises(EvidenceError, match=f"update.{name} has the wrong length") as caught:
        drift.same_state(as_rows(rows), k=2)
    assert "position=0" in caught.value.where


def test_rows_that_cannot_be_paired_are_refused() -> None:
    study = small_study()
    at = study.find("state", run_id="arm:preserved", layer=2)
    source = study.without_row("state", at).source()
    with pytest.raises(EvidenceError, match="cannot be paired"):
        drift.coordinate(source.read("state", ("base", 2)), source.read("state", ("arm:preserved", 2)))
