"""Native capture: what a model executes on its own states, without changing a bit of what it computes.

Hooks read norm input, router input and experts input; a registered experts implementation keeps every routed
expert's update from the same pass. The updates serve the reconstruction self-check and are then dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from atlas_extractors.models.binding import BoundModel
from atlas_extractors.models.errors import ContractViolation
from atlas_extractors.models.taps import LayerTrace, Taps

KEEP = "_atlas_keep_updates"  # attribute on an experts module: where to leave its updates
PREFIX = "atlas_"
CHUNK = 128  # tokens at a time in the float64 self-check


@dataclass(frozen=True, slots=True)
class LayerCapture:
    """One layer on `N` tokens, executed dtype.

    x `[N, d]` norm input; g `[N, d]` router input; logits `[N, E]` as executed; experts `[N, k]` and weights `[N, k]`
    as the experts module received them; updates `[N, k, d]` only where they were asked for.
    """

    x: Tensor
    g: Tensor
    logits: Tensor
    experts: Tensor
    weights: Tensor
    updates: Tensor | None
    reconstruction_error: float


@dataclass(slots=True)
class Captured:
    """Logits `[B, S, V]` of one forward pass and its layers."""

    logits: Tensor
    layers: dict[int, LayerCapture] = field(default_factory=dict)


def capture(bound: BoundModel, tokens: Tensor, *, keep_updates: bool = False) -> Captured:
    """One teacher-forced forward pass over windows of equal length, `[B, S]`, without padding.

    `reconstruction_error` is the worst over tokens of `||sum rho u - y|| / ||y||`, in float64; what shared experts add
    belongs to the sum.

    Raises:
        ContractViolation: a layer was not called exactly once (check `calls`).
    """
    updates: dict[int, Tensor] = {}
    errors: dict[int, float] = {}
    traces: dict[int, LayerTrace] = {}

    def settle(index: int) -> None:
        kept = bound.layers[index].modules.experts.__dict__[KEEP].pop("updates")
        errors[index] = _reconstruction_error(traces[index], kept)
        if keep_updates:
            updates[index] = kept

    modules = [layer.modules for layer in bound.layers.values()]
    with torch.inference_mode(), _updates_kept(bound), Taps(modules, on_block=settle) as taps:
        traces.update(taps.traces)
        logits = bound.model(input_ids=tokens, use_cache=False).logits
    result = Captured(logits)
    for index, trace in traces.items():
        _require_one_call(bound, index, trace)
        result.layers[index] = LayerCapture(
            x=_present(trace.x),
            g=_present(trace.g),
            logits=trace.router_outputs[bound.row.logits_output],
            experts=_present(trace.experts),
            weights=_present(trace.weights),
            updates=updates.get(index),
            reconstruction_error=errors[index],
        )
    return result


def _reconstruction_error(trace: LayerTrace, updates: Tensor) -> float:
    weights, y, shared = _present(trace.weights), _present(trace.y), trace.shared_part()
    worst = 0.0
    for start in range(0, y.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        total = torch.einsum("nk,nkd->nd", weights[part].double(), updates[part].double())
        if shared is not None:
            total += shared[part].double()
        real = y[part].double()
        gap = (total - real).norm(dim=1) / real.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        worst = max(worst, float(gap.max()))
    return worst


def _require_one_call(bound: BoundModel, index: int, trace: LayerTrace) -> None:
    if set(trace.calls.values()) != {1}:
        raise ContractViolation(
            "calls",
            model_type=bound.row.model_type,
            module=bound.layers[index].modules.path,
            expected="each of norm, router, experts, block called once per forward pass",
            found=", ".join(f"{name} {count}" for name, count in trace.calls.items()),
        )


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise RuntimeError("a bound layer left no trace")
    return tensor


@contextlib.contextmanager
def _updates_kept(bound: BoundModel) -> Iterator[None]:
    """Run the bound layers' experts through the implementation that keeps updates; restore everything afterwards."""
    stock = bound.model.config._experts_implementation
    holders = [layer.modules.experts for layer in bound.layers.values()]
    for experts in holders:
        experts.__dict__[KEEP] = {}
    bound.model.set_experts_implementation(PREFIX + stock)
    try:
        yield
    finally:
        bound.model.set_experts_implementation(stock)
        for experts in holders:
            experts.__dict__.pop(KEEP, None)


def _keeping_grouped_mm(module: nn.Module, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """The stock grouped product with one row per (token, slot) and unit weight, then the stock combination.

    Rows reach the kernel in the same order as without capture, so the result is the same to the last bit.
    """
    stock: Callable[..., Tensor] = ALL_EXPERTS_FUNCTIONS["grouped_mm"]
    keep = module.__dict__.get(KEEP)
    if keep is None:
        return stock(module, hidden, experts, weights)
    tokens, slots = experts.shape
    repeated = hidden.repeat_interleave(slots, dim=0)
    updates = stock(module, repeated, experts.reshape(-1, 1), hidden.new_ones(tokens * slots, 1))
    updates = updates.view(tokens, slots, -1)
    keep["updates"] = updates
    return (updates * weights.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)


def _keeping_eager(module: nn.Module, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """The family's own loop over experts, one row per (slot, token), then its accumulation in ascending expert id."""
    stock: Any = type(module).forward.__wrapped__  # type: ignore[attr-defined]  # what the library's decorator wraps
    keep = module.__dict__.get(KEEP)
    if keep is None:
        return stock(module, hidden, experts, weights)  # type: ignore[no-any-return]
    tokens, slots = experts.shape
    flat = stock(module, hidden.repeat(slots, 1), experts.T.reshape(-1, 1), hidden.new_ones(tokens * slots, 1))
    updates = flat.view(slots, tokens, -1).transpose(0, 1)
    keep["updates"] = updates
    order = experts.sort(dim=1).indices
    total = torch.zeros_like(hidden)
    for slot in range(slots):
        chosen = order[:, slot]
        update = updates[torch.arange(tokens, device=hidden.device), chosen]
        total += (update * weights.gather(1, chosen.unsqueeze(1))).to(total.dtype)
    return total


ALL_EXPERTS_FUNCTIONS.register(PREFIX + "grouped_mm", _keeping_grouped_mm)
ALL_EXPERTS_FUNCTIONS.register(PREFIX + "eager", _keeping_eager)
