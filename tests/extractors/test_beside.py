"""What is measured with both models at hand (transport, divergence, overlap maps, vectors), recomputed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from atlas_extractors.models.binding import bind
from atlas_extractors.routing import overlap, pairs
from atlas_extractors.routing.extract import extract
from atlas_extractors.routing.overlap import OverlapMaps, co_visits, most_visited
from atlas_extractors.routing.transport import angle, carry
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_layers import layer, near, states
from tiny_runs import LocalWorker, Silent, content, of, request, same_content
from tiny_world import Folders, MakeStudy, perturbed, save, tiny_model
from transformers import AutoModelForCausalLM, OlmoeForCausalLM

F64 = npt.NDArray[np.float64]


def _model(folder: Any) -> OlmoeForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def _norm_input(model: OlmoeForCausalLM, index: int, hidden: torch.Tensor) -> F64:
    """The state before the block norm of a layer at layer input `[1, S, d]`, written from the module's parts."""
    decoder = model.model.layers[index]
    length = hidden.shape[1]
    positions = torch.arange(length).unsqueeze(0)
    rotary = model.model.rotary_emb(hidden, positions)
    mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
    moved, _ = decoder.self_attn(decoder.input_layernorm(hidden), rotary, mask)
    x: F64 = (hidden + moved)[0].double().numpy()
    return x


def _layer_input(model: OlmoeForCausalLM, index: int, tokens: torch.Tensor) -> torch.Tensor:
    return model(input_ids=tokens, output_hidden_states=True).hidden_states[index]  # type: ignore[no-any-return]


@pytest.mark.usefixtures("local")
def test_transport_and_divergence_are_those_computed_by_hand(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study(windows=3)
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    base, arm = _model(folders.base), _model(folders.near)
    windows = {row["window_id"]: row for row in found["window"].to_pylist()}
    with torch.inference_mode():
        for row in of(found["update"], "arm:near").to_pylist():
            window = windows[row["window_id"]]
            hidden = _layer_input(base, row["layer"], torch.tensor([window["tokens"]]))
            zero, one = (_norm_input(model, row["layer"], hidden)[row["position"]] for model in (base, arm))
            expected = math.acos(min(1.0, zero @ one / np.linalg.norm(zero) / np.linalg.norm(one))) / math.pi
            assert row["transport_angle"] == pytest.approx(expected, abs=1e-5)
            assert row["transport_angle"] > 1e-4
        output = {
            (r["window_id"], r["position"]): r["kl_from_base"] for r in of(found["output"], "arm:near").to_pylist()
        }
        for name, window in windows.items():
            tokens = torch.tensor([window["tokens"]])
            p, q = (model(input_ids=tokens).logits[0].double().softmax(-1) for model in (base, arm))
            for position in range(len(window["tokens"]) - 1):
                expected = float((p[position] * (p[position] / q[position]).log()).sum())
                assert output[name, position] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.usefixtures("local")
def test_equal_weights_give_exactly_nothing(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    same = of(found["update"], "arm:same").column("transport_angle")
    assert set(same.to_pylist()) == {0.0}
    assert set(of(found["output"], "arm:same").column("kl_from_base").to_pylist()) == {0.0}
    for run in ("base", "null:batch"):
        assert of(found["output"], run).column("kl_from_base").null_count == of(found["output"], run).num_rows
    assert of(found["update"], "null:batch").column("transport_angle").null_count > 0
    maps = {run: of(found["overlap"], run).drop_columns(["run_id"]) for run in ("base", "arm:same")}
    assert maps["base"].equals(maps["arm:same"])
    assert set(maps["base"].column("drift_num").to_pylist()) == {0.0}
    assert min(of(found["overlap"], "arm:near").column("drift_num").to_pylist()) > 0.0
    assert of(found["overlap"], "null:batch").num_rows == 0


@pytest.mark.usefixtures("local")
def test_only_what_a_layer_itself_changes_is_its_transport(
    make_study: MakeStudy, folders: Folders, tmp_path: Any
) -> None:
    """An arm whose layer 0 alone moved: layer 2 starts from the base's input, so its own transport is exactly zero."""

    model = tiny_model(1)
    model.model.layers[0].self_attn.q_proj.weight.mul_(1.5)
    study = make_study()
    arms = {"near": save(model, tmp_path / "lower"), "same": folders.same}
    extract(request(study, folders, arms=arms), Silent())
    rows = of(content(study.evidence)["update"], "arm:near").to_pylist()
    assert {row["transport_angle"] for row in rows if row["layer"] == 2} == {0.0}
    assert min(row["transport_angle"] for row in rows if row["layer"] == 0) > 0.0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_running_an_arm_beside_leaves_the_base_pass_as_it_is(attention: str) -> None:
    model = tiny_model(1, attention=attention)
    base, arm = bind(model, [0, 1, 2]), bind(perturbed(model, 2, 0.05), [0, 1, 2])
    tokens = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = base.model(input_ids=tokens, use_cache=False).logits
    carried = carry(base, arm, tokens, torch.arange(0, 60, 7))
    assert torch.equal(carried.logits, expected)
    assert all(float(angles.min()) > 0 for angles in carried.angles.values())
    hooked = [m for bound in (base, arm) for m in bound.model.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not hooked


@given(seed=st.integers(0, 999), size=st.sampled_from([0.0, 1e-9, 1e-5, 0.1, 10.0]))
@settings(max_examples=30, deadline=None)
def test_angles_are_within_bounds_and_precise(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    side = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    side -= one * (side * one).sum(1, keepdim=True) / one.square().sum(1, keepdim=True)
    other = one + size * side
    expected = torch.atan(size * side.norm(dim=1) / one.norm(dim=1)) / math.pi
    np.testing.assert_allclose(angle(one, other), expected, rtol=1e-6, atol=1e-17)
    assert angle(one, -one).tolist() == pytest.approx([1.0] * 5)


def _naive_map(w_a: F64, w_b: F64) -> tuple[F64, int, float | None]:
    """`T`, its rank and condition number by singular values, from the definition."""
    cut = max(w_a.shape) * np.finfo(np.float32).eps
    ranks = [int((s > cut * s.max()).sum()) for s in (np.linalg.svd(w, compute_uv=False) for w in (w_a, w_b))]
    rank = min(ranks)
    full = rank == w_a.shape[1]
    values = np.linalg.eigvals(np.linalg.solve(w_a.T @ w_a, w_b.T @ w_b)).real if full else np.ones(1)
    return w_b @ np.linalg.pinv(w_a, rcond=cut), rank, float(np.sqrt(values.max() / values.min())) if full else None


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("group", [1, 3, 100])
def test_overlap_rows_are_those_computed_by_hand(
    group: int, make_study: MakeStudy, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_pair = 2 * 2 * 2 * 8 * 48 * 32
    monkeypatch.setattr(overlap, "GROUP_BYTES", group * per_pair)
    monkeypatch.setattr(pairs, "CHUNK", 3)
    study = make_study(overlap_pairs=12)
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    models = {"base": _model(folders.base), "arm:near": _model(folders.near)}
    updates = of(found["update"], "arm:same").to_pylist()
    states_of = {(r["layer"], r["window_id"], r["position"]): r["z"] for r in of(found["state"], "base").to_pylist()}
    for at in (0, 2):
        own = [row for row in updates if row["layer"] == at]
        sets = [{e for i, e in enumerate(row["experts"]) if row["in0"] >> i & 1} for row in own]
        z = np.array([states_of[row["layer"], row["window_id"], row["position"]] for row in own], dtype=np.float32)
        g = (models["base"].model.layers[at].post_attention_layernorm.weight.detach().numpy() * z).astype(np.float64)
        visits = {(a, b): sum({a, b} <= s for s in sets) for a in range(8) for b in range(8) if a != b}
        expected_pairs = sorted(sorted(visits, key=lambda pair: (-visits[pair], pair))[:12])
        weights = {run: model.model.layers[at].mlp.experts.gate_up_proj.detach().double().numpy()
                   for run, model in models.items()}  # fmt: skip
        for run in models:
            rows = [row for row in of(found["overlap"], run).to_pylist() if row["layer"] == at]
            assert [(row["expert_a"], row["expert_b"]) for row in rows] == expected_pairs
            for row in rows:
                a, b = row["expert_a"], row["expert_b"]
                here = g[[{a, b} <= s for s in sets]]
                t1, rank, condition = _naive_map(weights[run][a], weights[run][b])
                t0, _, _ = _naive_map(weights["base"][a], weights["base"][b])
                assert (row["visits"], row["rank"]) == (len(here), rank)
                assert row["cond"] == pytest.approx(condition, rel=1e-6)
                target = here @ weights[run][b].T
                gap = np.linalg.norm(target - here @ weights[run][a].T @ t1.T, axis=1).sum()
                assert row["residual"] == pytest.approx(
                    gap / max(np.linalg.norm(target, axis=1).sum(), 1e-300), abs=1e-9
                )
                before = here @ weights["base"][a].T
                moved = np.linalg.norm(before @ (t1 - t0).T, axis=1).sum()
                assert row["drift_num"] == pytest.approx(moved, rel=1e-6, abs=1e-7)
                assert row["drift_den"] == pytest.approx(np.linalg.norm(before @ t0.T, axis=1).sum(), rel=1e-6)


@pytest.mark.parametrize(("m", "d"), [(5, 16), (8, 16), (20, 16)])
def test_maps_where_the_projection_is_narrow_square_or_tall(m: int, d: int) -> None:
    base = layer(1, d=d, m=m, experts=5)
    arm = near(base, 2, 0.05)
    chosen = [(0, 1), (3, 2), (4, 0)]
    z = states(base, 40, 3)
    maps = OverlapMaps(base, arm, chosen)
    sums = maps.sums(z)
    g = base.gate(z)
    members = base.route(g).experts
    for (a, b), (rank, condition), row in zip(chosen, maps.facts(), sums, strict=True):
        here = g[(members == a).any(1) & (members == b).any(1)].numpy()
        w1, w0 = arm.gate_up.numpy(), base.gate_up.numpy()
        t1, naive_rank, naive_condition = _naive_map(w1[a], w1[b])
        t0, _, _ = _naive_map(w0[a], w0[b])
        assert rank == naive_rank == min(2 * m, d)
        assert condition == (None if naive_condition is None else pytest.approx(naive_condition, rel=1e-6))
        expected = [
            here @ w1[b].T - here @ w1[a].T @ t1.T,
            here @ w1[b].T,
            here @ w0[a].T @ (t1 - t0).T,
            here @ w0[a].T @ t0.T,
        ]
        np.testing.assert_allclose(row, [np.linalg.norm(part, axis=1).sum() for part in expected], rtol=1e-6, atol=1e-8)
    if 2 * m >= d:
        assert sums[:, 0] == pytest.approx(0.0, abs=1e-8), "with full rank the map carries every coordinate"
    else:
        assert sums[:, 0].max() > 1.0


def test_a_rank_below_the_width_has_no_condition_number() -> None:
    base = layer(1, d=16, m=10)
    base.gate_up[2] = base.gate_up[2] @ torch.diag(torch.arange(16.0, dtype=torch.float64).clamp(max=1))
    assert OverlapMaps(base, base, [(0, 1), (2, 1), (1, 2)]).facts()[1:] == [(15, None), (15, None)]


@given(seed=st.integers(0, 999), count=st.integers(1, 30), cut=st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_visits_add_over_any_cut_and_pairs_are_the_most_visited(seed: int, count: int, cut: int) -> None:
    base = layer(seed, k=3)
    z = states(base, count, seed + 1)
    whole = co_visits(base, z)
    cut = min(cut, count)
    assert (whole == co_visits(base, z[:cut]) + co_visits(base, z[cut:])).all()
    assert (whole == whole.T).all()
    assert np.trace(whole) == 3 * count
    chosen = most_visited(whole, 7)
    assert len(set(chosen)) == 7
    left = [(a, b) for a in range(6) for b in range(6) if a != b and (a, b) not in chosen]
    worst = min((whole[pair], -pair[0], -pair[1]) for pair in chosen)
    assert all((whole[pair], -pair[0], -pair[1]) < worst for pair in left)


@pytest.mark.usefixtures("local")
def test_vectors_are_those_of_evaluation_windows_and_give_the_gram_matrices(
    make_study: MakeStudy, folders: Folders
) -> None:
    study = make_study()
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    evaluated = {row["window_id"] for row in found["window"].to_pylist() if row["split"] == "evaluation"}
    assert evaluated
    assert len(evaluated) < found["window"].num_rows
    for run in ("null:batch", "arm:near", "arm:same"):
        keys = ("layer", "window_id", "position")
        updates = {tuple(row[k] for k in keys): row for row in of(found["update"], run).to_pylist()}
        vectors = {tuple(row[k] for k in keys): row for row in of(found["update_vector"], run).to_pylist()}
        assert set(vectors) == {key for key in updates if key[1] in evaluated}
        for key, row in vectors.items():
            v0, v1 = (np.array(row[name]).reshape(len(updates[key]["experts"]), 32) for name in ("v0", "v1"))
            stacked = np.concatenate([v0, v1 - v0])
            full = (stacked @ stacked.T)[np.triu_indices(len(stacked))]
            np.testing.assert_allclose(updates[key]["gram"], full, rtol=1e-4, atol=1e-5 * np.abs(full).max())


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("cut", [1, 4, 9, 14])
def test_an_interruption_among_the_overlap_sums_changes_nothing(
    cut: int, make_study: MakeStudy, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "CHUNK", 2)
    study = make_study(windows=5)
    whole = request(study, folders, evidence=study.root / "whole.duckdb")
    extract(whole, Silent())
    call, left = LocalWorker.call, [cut]

    def interrupted(worker: LocalWorker, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> Any:
        if header["op"] in ("visits", "overlap", "maps"):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return call(worker, header, blobs)

    monkeypatch.setattr(LocalWorker, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(request(study, folders), Silent())
    extract(request(study, folders), Silent())
    assert left[0] < 0
    assert same_content(whole.evidence, study.evidence)
