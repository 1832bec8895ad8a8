"""Capture reads without changing: logits stay the same to the last bit, and nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from atlas_extractors.models.binding import BoundModel, bind
from atlas_extractors.routing.capture import KEEP, capture
from tiny_world import tiny_model
from torch import Tensor


def _tokens(batch: int = 5, length: int = 20) -> Tensor:
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(0))


def _logits(bound: BoundModel, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        return bound.model(input_ids=tokens, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_logits_are_bitwise_the_same_with_capture(dtype: torch.dtype, experts: str, k: int) -> None:
    bound = bind(tiny_model(1, experts=experts, num_experts_per_tok=k).to(dtype), [0, 2])
    tokens = _tokens()
    before = _logits(bound, tokens)
    captured = capture(bound, tokens)
    assert torch.equal(before, captured.logits)
    assert torch.equal(before, _logits(bound, tokens))


def _left_behind(bound: BoundModel) -> list[str]:
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    left = [name for name, module in bound.model.named_modules() for kind in hooks if getattr(module, kind)]
    left += [name for name, module in bound.model.named_modules() if KEEP in module.__dict__]
    return left


@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_nothing_is_left_on_the_model(experts: str) -> None:
    bound = bind(tiny_model(1, experts=experts), [0, 1, 2])
    before = _left_behind(bound)
    capture(bound, _tokens())
    assert _left_behind(bound) == before == []
    assert bound.model.config._experts_implementation == experts


def test_nothing_is_left_after_a_failure() -> None:
    bound = bind(tiny_model(1), [0, 1, 2])
    layer = bound.model.model.layers[1]

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("in the middle")

    layer.self_attn.forward = fail
    with pytest.raises(RuntimeError, match="in the middle"):
        capture(bound, _tokens())
    assert _left_behind(bound) == []
    assert bound.model.config._experts_implementation == "grouped_mm"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_updates_reconstruct_the_block(dtype: torch.dtype, tolerance: float, experts: str) -> None:
    bound = bind(tiny_model(2, experts=experts).to(dtype), [0, 1, 2])
    captured = capture(bound, _tokens(), keep_updates=True)
    for index, layer in captured.layers.items():
        assert layer.reconstruction_error < tolerance
        assert layer.updates is not None
        again = bound.layers[index].live.updates(layer.g, layer.experts)
        gap = (again - layer.updates).double().norm() / layer.updates.double().norm()
        assert float(gap) < tolerance


def test_a_wrong_update_shows_in_the_reconstruction_error() -> None:
    bound = bind(tiny_model(2), [0])
    block = bound.model.model.layers[0].mlp
    forward = block.forward
    block.forward = lambda hidden: forward(hidden) * 1.01
    assert capture(bound, _tokens()).layers[0].reconstruction_error > 5e-3
