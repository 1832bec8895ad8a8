"""The same-state evaluator against a loop over tokens, and the identities that honest rows obey."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from atlas_extractors.models.adapters import RoutedLayer, ranked
from atlas_extractors.models.binding import bind
from atlas_extractors.models.families import FAMILIES, NormKind
from atlas_extractors.routing.evaluator import SameState, evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_layers import layer, near, states
from tiny_world import tiny_model
from torch import Tensor
from torch.nn.functional import silu


def naive(base: RoutedLayer, arm: RoutedLayer, z: Tensor) -> dict[str, Any]:
    """One token `z` `[d]`, written from the definitions: no batches, no masks, no packing by index arrays."""
    d, k = base.width, base.top_k

    def scores(model: RoutedLayer) -> list[float]:
        g = model._gain() * z
        return [float(row @ g) for row in model.router_weight]

    def order(s: list[float]) -> list[int]:
        return sorted(range(len(s)), key=lambda e: (-s[e], e))

    def weights(model: RoutedLayer, s: list[float], chosen: list[int]) -> dict[int, float]:
        p = np.exp(np.array(s) - max(s))
        p /= p.sum()
        total = sum(p[e] for e in chosen) if model.renormalise else 1.0
        return {e: float(p[e] / total) for e in chosen}

    def update(model: RoutedLayer, e: int) -> Tensor:
        h = model.gate_up[e] @ (model._gain() * z)
        gate, up = h[: len(h) // 2], h[len(h) // 2 :]
        return model.down[e] @ (silu(gate) * up)

    def tangent(u: Tensor) -> Tensor:
        return u - z * float(u @ z) / d

    s0, s1 = scores(base), scores(arm)
    r0, r1 = order(s0)[:k], order(s1)[:k]
    b, into = order(s0)[k - 1], order(s0)[k] if k < len(s0) else -1
    union = sorted({*r0, *r1, b} | ({into} if into >= 0 else set()))
    rho0, rho1 = weights(base, s0, r0), weights(arm, s1, r1)
    v0 = [tangent(update(base, e)) for e in union]
    v1 = [tangent(update(arm, e)) for e in union]
    vectors = v0 + [one - zero for zero, one in zip(v0, v1, strict=True)]
    zero = torch.zeros(d, dtype=z.dtype)
    y0 = sum((rho0[e] * update(base, e) for e in r0), zero)
    y1 = sum((rho1[e] * update(arm, e) for e in r1), zero)
    field0 = sum((rho0[e] * tangent(update(base, e)) for e in r0), zero)
    field1 = sum((rho1[e] * tangent(update(arm, e)) for e in r1), zero)
    return {
        "experts": union, "pair_out": b, "pair_in": into,
        "in0": sum(1 << i for i, e in enumerate(union) if e in r0),
        "in1": sum(1 << i for i, e in enumerate(union) if e in r1),
        "rho0": [rho0.get(e, 0.0) for e in union], "rho1": [rho1.get(e, 0.0) for e in union],
        "rho0_b": rho0[b], "rho1_b_forced": weights(arm, s1, r0)[b], "dispatch0": s0, "dispatch1": s1,
        "uz0": [float(update(base, e) @ z) for e in union], "uz1": [float(update(arm, e) @ z) for e in union],
        "uu0": [float(update(base, e).square().sum()) for e in union],
        "uu1": [float(update(arm, e).square().sum()) for e in union],
        "gram": [float(vectors[i] @ vectors[j]) for i in range(len(vectors)) for j in range(i, len(vectors))],
        "dV_norm": float((field1 - field0).norm()), "y0_norm": float(y0.norm()), "dy_norm": float((y1 - y0).norm()),
    }  # fmt: skip


LISTED = ("experts", "rho0", "rho1", "uz0", "uu0", "uz1", "uu1")


def token(same: SameState, at: int) -> dict[str, Any]:
    """One token of a vectorised evaluation in the shape of `naive`."""
    n = int(same.lengths[at])
    values, sizes = same.packed_gram()
    start = int(sizes[:at].sum())
    found: dict[str, Any] = {"gram": values[start : start + int(sizes[at])].tolist()}
    for name in SameState.__slots__:
        if name in LISTED:
            found[name] = getattr(same, name)[at, :n].tolist()
        elif name not in ("lengths", "v0", "v1", "gram"):
            found[name] = getattr(same, name)[at].tolist()
    return found


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("renormalise", [True, False])
def test_vectorised_evaluation_equals_a_loop_over_tokens(k: int, renormalise: bool) -> None:
    base = layer(k, k=k, renormalise=renormalise)
    arm = near(base, 10 + k, 0.2)
    z = states(base, 12, 20 + k)
    same = evaluate(base, arm, z)
    for at in range(len(z)):
        expected, found = naive(base, arm, z[at]), token(same, at)
        assert set(expected) == set(found)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), renormalise=st.booleans(), count=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_layer_against_itself_has_no_drift_at_all(seed: int, k: int, renormalise: bool, count: int) -> None:
    base = layer(seed, k=k, renormalise=renormalise, dtype=torch.float32)
    copy = replace(base, gate_up=base.gate_up.clone(), down=base.down.clone(), router_weight=base.router_weight.clone())
    same = evaluate(base, copy, states(base, count, seed + 1))
    assert torch.equal(same.in0, same.in1)
    for zero, one in (("rho0", "rho1"), ("dispatch0", "dispatch1"), ("uz0", "uz1"), ("uu0", "uu1"), ("v0", "v1")):
        assert torch.equal(getattr(same, zero), getattr(same, one)), zero
    assert torch.equal(same.rho0_b, same.rho1_b_forced)
    width = same.experts.shape[1]
    assert not same.gram[:, width:].any()
    assert not same.dV_norm.any()
    assert not same.dy_norm.any()


@given(seed=st.integers(0, 10_000), k=st.integers(1, 5), size=st.floats(0.0, 0.5))
@settings(max_examples=40, deadline=None)
def test_adaptation_bound_and_margin_certificate(seed: int, k: int, size: float) -> None:
    base = layer(seed, k=k, dtype=torch.float32)
    arm = near(base, seed + 1, size)
    same = evaluate(base, arm, states(base, 8, seed + 2))
    norm0, norm_delta = same.v0.norm(dim=2), (same.v1 - same.v0).norm(dim=2)
    rho0, rho1 = same.rho0.double(), same.rho1.double()
    bound = ((rho1 - rho0).abs() * norm0).sum(1) + (rho1 * norm_delta).sum(1)
    assert bool((same.dV_norm <= bound * (1 + 1e-12) + 1e-12).all())
    ordered = same.dispatch0.sort(dim=1, descending=True).values
    margin = ordered[:, k - 1] - ordered[:, k]
    change = same.dispatch1 - same.dispatch0
    certified = (change.amax(1) - change.amin(1)) < margin
    assert torch.equal(same.in0[certified], same.in1[certified])


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_tangent_identities_and_gram(seed: int, k: int) -> None:
    base = layer(seed, k=k, dtype=torch.float32)
    z = states(base, 6, seed + 2)
    same = evaluate(base, near(base, seed + 1, 0.1), z)
    wide, d = z.double(), base.width
    zz = wide.square().sum(1, keepdim=True)
    used = same.experts >= 0
    vz = torch.einsum("nsd,nd->ns", same.v0, wide)
    np.testing.assert_allclose(vz[used], (same.uz0 * (1 - zz / d))[used], atol=1e-9)
    vv = same.v0.square().sum(2)
    np.testing.assert_allclose(vv[used], (same.uu0 - same.uz0**2 * (2 / d - zz / d**2))[used], rtol=1e-9, atol=1e-9)
    vectors = torch.cat([same.v0, same.v1 - same.v0], dim=1)
    np.testing.assert_allclose(same.gram, torch.einsum("nid,njd->nij", vectors, vectors), rtol=1e-10, atol=1e-10)
    scale = same.gram.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()
    eigenvalues = torch.linalg.eigvalsh(same.gram * scale.unsqueeze(1) * scale.unsqueeze(2))
    assert float(eigenvalues.min()) > -1e-10


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-2, 1e3), eps=st.sampled_from([0.0, 1e-6, 1e-5, 1e-2]))
@settings(max_examples=30, deadline=None)
def test_norm_identity_and_jacobian(seed: int, scale: float, eps: float) -> None:
    rms = layer(0, d=12, eps=eps)
    x = scale * torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z, r = rms.normalise(x)
    assert float(z.square().sum()) == pytest.approx(12 * (1 - eps / float(r) ** 2), rel=1e-12)
    step = 1e-5 * scale
    basis = torch.eye(12, dtype=torch.float64) * step
    jacobian = ((rms.normalise(x + basis)[0] - rms.normalise(x - basis)[0]) / (2 * step)).T
    projection = (torch.eye(12, dtype=torch.float64) - torch.outer(z, z) / 12) / r
    assert float((jacobian - projection).norm() / projection.norm()) < 1e-8


def test_layer_norm_jacobian_needs_the_mean_too() -> None:
    centred = replace(layer(0, d=12), row=replace(FAMILIES["olmoe"], norm_kind=NormKind.LAYERNORM))
    x = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z, r = centred.normalise(x)
    jacobian = torch.autograd.functional.jacobian(lambda at: centred.normalise(at)[0], x)
    plain = torch.eye(12, dtype=torch.float64) - torch.outer(z, z) / 12
    assert torch.allclose(jacobian, (plain - 1 / 12) / r, atol=1e-12)
    assert not torch.allclose(jacobian, plain / r, atol=1e-3)


def test_ties_rank_the_lower_id_first() -> None:
    assert ranked(torch.tensor([[1.0, 3.0, 3.0, 1.0]])).tolist() == [[1, 2, 0, 3]]


def test_router_translation_changes_no_route_and_no_margin() -> None:
    base = layer(7, dtype=torch.float64)
    moved = replace(base, router_weight=base.router_weight + torch.randn(16, dtype=torch.float64))
    z = states(base, 10, 8)
    same = evaluate(base, moved, z)
    assert torch.equal(same.in0, same.in1)
    np.testing.assert_allclose(same.rho0, same.rho1, rtol=1e-9, atol=1e-12)
    centred0 = same.dispatch0 - same.dispatch0.mean(1, keepdim=True)
    centred1 = same.dispatch1 - same.dispatch1.mean(1, keepdim=True)
    np.testing.assert_allclose(centred0, centred1, atol=1e-9)


def test_one_swap_at_a_constructed_boundary() -> None:
    """Two experts with equal scores: swapping them changes the field by exactly `rho_b (v_b' - v_b)`."""
    base = layer(9, k=2)
    weight = base.router_weight.clone()
    z = states(base, 1, 3)
    order = ranked(base.logits(base.gate(z)))[0]
    b, into = int(order[1]), int(order[2])
    weight[into] = weight[b]
    tied = replace(base, router_weight=weight)
    g = tied.gate(z)
    stay = tied.route(g, forced=torch.tensor([[int(order[0]), b]]))
    swap = tied.route(g, forced=torch.tensor([[int(order[0]), into]]))

    def field(experts: Tensor, weights: Tensor) -> Tensor:
        u = tied.updates(g, experts)[0]
        v = u - torch.outer(u @ z[0], z[0]) / tied.width
        return weights[0] @ v

    moved = field(swap.experts, swap.weights) - field(stay.experts, stay.weights)
    u = tied.updates(g, torch.tensor([[b, into]]))[0]
    v = u - torch.outer(u @ z[0], z[0]) / tied.width
    np.testing.assert_allclose(moved, stay.weights[0, 1] * (v[1] - v[0]), atol=1e-12)


def test_block_equals_the_model_own_block() -> None:
    bound = bind(tiny_model(3), [1])
    live = bound.layers[1].live
    x = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(5))
    decoder = bound.model.model.layers[1]
    with torch.inference_mode():
        own = decoder.mlp(decoder.post_attention_layernorm(x))[0]
        ours = live.block(live.normalise(x[0])[0])
    assert float((own - ours).norm() / own.norm()) < 1e-6
