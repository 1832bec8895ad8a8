"""Digests of tensors, distance of parameters, and whether experts kept their places."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import torch
from atlas_extractors.models import identity
from atlas_extractors.models.binding import bind
from atlas_extractors.models.errors import ModelRefused
from atlas_extractors.models.identity import (
    Digester,
    expert_permutation,
    layer_digests,
    lowest_rank,
    parameter_distance,
    tensor_digest,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import perturbed, tiny_model
from torch import Tensor


def _encoded(tensor: Tensor) -> bytes:
    """The specification written out."""
    shape = struct.pack("<I", tensor.dim()) + b"".join(struct.pack("<I", size) for size in tensor.shape)
    values = b"".join(struct.pack("<f", value) for value in tensor.reshape(-1).tolist())
    return b"atlas-tensor/1\0" + shape + values


def test_tensor_digest_is_the_specified_one() -> None:
    tensor = torch.arange(6, dtype=torch.float16).reshape(2, 3).T
    assert tensor_digest(tensor) == "sha256:" + hashlib.sha256(_encoded(tensor)).hexdigest()
    assert tensor_digest(tensor) == tensor_digest(tensor.float()), "widening does not change what is stored"
    assert tensor_digest(tensor) != tensor_digest(tensor.T)
    assert tensor_digest(tensor) != tensor_digest(-tensor)


def test_layer_digests_cover_what_feeds_the_layer() -> None:
    model = tiny_model(1)
    live = bind(model, [1]).layers[1].live
    row = live.row
    before = layer_digests(Digester(model), row, live)
    assert sorted(before) == sorted(
        ["local", "norm.gain", "router.weight", "upstream", *(f"experts.{e}" for e in range(8))]
    )
    expected = hashlib.sha256(_encoded(live.gate_up[3]) + _encoded(live.down[3])).hexdigest()
    assert before["experts.3"] == "sha256:" + expected

    def changed(tensor: Tensor) -> set[str]:
        original = tensor.view(-1)[0].clone()
        tensor.view(-1)[0] += 1.0
        after = layer_digests(Digester(model), row, live)
        tensor.view(-1)[0] = original
        return {name for name in after if after[name] != before[name]}

    layers = model.model.layers
    assert changed(live.router_weight) == {"router.weight"}
    assert changed(layers[1].mlp.experts.down_proj[5]) == {"experts.5"}
    assert changed(layers[1].post_attention_layernorm.weight) == {"norm.gain"}
    below = (model.model.embed_tokens.weight, layers[0].mlp.gate.weight, layers[0].mlp.experts.down_proj)
    assert [changed(tensor) for tensor in below] == [{"upstream"}] * 3
    own = (layers[1].self_attn.q_proj.weight, layers[1].input_layernorm.weight)
    assert [changed(tensor) for tensor in own] == [{"local", "upstream"}] * 2
    for elsewhere in (layers[2].self_attn.q_proj.weight, model.lm_head.weight, model.model.norm.weight):
        assert changed(elsewhere) == set()


def test_upstream_and_local_digests_are_the_specified_ones() -> None:
    model = tiny_model(1)
    live = bind(model, [0]).layers[0].live
    names = [n for n, _ in model.named_parameters() if "layers.0.self_attn." in n or "layers.0.input_layernorm." in n]
    tensors = dict(model.named_parameters())

    def specified(wanted: list[str]) -> str:
        parts = [n.encode() + b"\0" + hashlib.sha256(_encoded(tensors[n])).digest() for n in sorted(wanted)]
        return "sha256:" + hashlib.sha256(b"".join(parts)).hexdigest()

    found = layer_digests(Digester(model), live.row, live)
    assert found["local"] == specified(names)
    assert found["upstream"] == specified([*names, "model.embed_tokens.weight"])


def test_each_tensor_is_hashed_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(1)
    layers = [bound.live for bound in bind(model, [0, 1, 2]).layers.values()]
    expected = [layer_digests(Digester(model), layer.row, layer) for layer in layers]
    hashed: list[int] = []
    digest = identity.tensor_digest

    def counting(*tensors: Tensor) -> str:
        hashed.extend(id(tensor) for tensor in tensors)
        return digest(*tensors)

    monkeypatch.setattr(identity, "tensor_digest", counting)
    digester = Digester(model)
    assert [layer_digests(digester, layer.row, layer) for layer in layers] == expected
    below = [id(p) for name, p in model.named_parameters() if ".layers.0." in name and "self_attn" in name]
    assert all(hashed.count(one) == 1 for one in below)


def test_parameter_distance() -> None:
    base = tiny_model(1)
    other = perturbed(base, 2, 0.1)
    moved = sum(
        float((a - b).double().square().sum()) for a, b in zip(base.parameters(), other.parameters(), strict=True)
    )
    total = sum(float(a.double().square().sum()) for a in base.parameters())
    assert parameter_distance(base, other) == pytest.approx((moved / total) ** 0.5, rel=1e-6)
    assert parameter_distance(base, base) == 0.0
    with pytest.raises(ModelRefused, match="parameters"):
        parameter_distance(base, tiny_model(1, num_hidden_layers=2))


@given(order=st.permutations(range(6)), noise=st.floats(0.0, 0.3))
@settings(max_examples=30, deadline=None)
def test_moved_experts_are_found(order: list[int], noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, 12, generator=generator)
    arm = base[order] + noise * torch.randn(6, 8, 12, generator=generator)
    found = expert_permutation(base, arm)
    assert [order[place] for place in found] == list(range(6))


def test_copies_of_one_expert_count_as_in_place() -> None:
    base = torch.randn(1, 8, 12).repeat(5, 1, 1)
    assert expert_permutation(base, base).tolist() == [0, 1, 2, 3, 4]
    assert expert_permutation(base, base).dtype == np.uint16


@pytest.mark.parametrize(("rows", "rank"), [(8, 8), (20, 12), (20, 5)])
def test_lowest_rank(rows: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, 12, generator=generator)
    full = torch.randn(rows, 12, generator=generator)
    assert lowest_rank([full, low]) == min(rank, rows, 12)
    assert lowest_rank([full]) == int(torch.linalg.matrix_rank(full))
