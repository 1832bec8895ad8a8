"""Binding: prove on the loaded model, by one short forward pass, that it computes what its family row says.

Fails closed. Each check has a name, which its `ContractViolation` carries:

`runtime` (evaluation mode, plain modules and dtypes, one device, no expert parallelism), `structure`, `calls`,
`gate_input`, `logits`, `selection_score`, `executed_set`, `indices`, `weights`, `updates`, `shared`, `residual`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from atlas_extractors.models.adapters import LayerModules, RoutedLayer, Routing, find_modules, live_layer, ranked
from atlas_extractors.models.errors import ContractViolation
from atlas_extractors.models.families import FamilyRow, GainConvention, NormKind, family_row
from atlas_extractors.models.taps import LayerTrace, Taps, TopKCall, TopKTap

PROBE_TOKENS = 16
EXPERTS_IMPLEMENTATIONS = ("eager", "grouped_mm")
FLOAT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
ROUNDINGS = 8  # units of the executed dtype that an elementwise rule may differ by


@dataclass(frozen=True, slots=True)
class BoundLayer:
    """A routed layer whose live arithmetic has been proved equal to the model's own."""

    modules: LayerModules
    live: RoutedLayer


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model with its proved layers. Only `bind` makes one."""

    model: PreTrainedModel
    row: FamilyRow
    layers: dict[int, BoundLayer]


def bind(model: PreTrainedModel, layers: Sequence[int], row: FamilyRow | None = None) -> BoundModel:
    """Bind the layers with the given decoder indices.

    Raises:
        UnsupportedArchitecture: no row for the model type (where `row` is not given).
        ContractViolation: a check failed.

    Not checked: that other inputs behave as the probe tokens did; capture repeats the reconstruction on every window.
    """
    model_type = str(getattr(model.config, "model_type", type(model).__name__))
    row = family_row(model_type) if row is None else row
    depth = len(list(model.get_submodule(row.layers).children())) if _has(model, row.layers) else 0
    for index in layers:
        if not 0 <= index < depth:
            raise _violation(row, "structure", row.layers, f"layers 0 to {depth - 1}", f"layer {index}")
    _check_runtime(model, row)
    found = [find_modules(model, row, index) for index in layers]
    bound = {modules.index: BoundLayer(modules, live_layer(model, row, modules)) for modules in found}
    for layer in bound.values():
        _check_shapes(layer)
        _check_layer_runtime(layer)
    tokens = torch.arange(1, PROBE_TOKENS + 1, device=model.device).unsqueeze(0) * 7919
    tokens %= int(model.config.get_text_config().vocab_size)
    with torch.inference_mode(), Taps(found) as taps, TopKTap() as topk:
        model(input_ids=tokens, use_cache=False)
    with torch.inference_mode():
        for index, layer in bound.items():
            _check_pass(layer, taps.traces[index], topk.calls)
    return BoundModel(model, row, bound)


def _check_pass(layer: BoundLayer, trace: LayerTrace, topk: list[TopKCall]) -> None:
    """The checks on one recorded forward pass, each relying on those before it."""
    live = layer.live
    x, g, experts, weights, y = _require_calls(layer, trace)
    _check_gate_input(layer, x, g)
    if trace.h is None or not torch.equal(trace.h, g):
        raise _at(layer, "gate_input", "router and experts receive the same tensor", "different inputs")
    logits = _check_logits(layer, trace, g)
    _check_indices(layer, experts)
    routing = live.route_logits(logits)
    _check_selection(layer, routing, experts, topk)
    expected = live.route_logits(logits, forced=experts).weights
    if weights.dtype != expected.dtype or not _close(weights, expected):
        raise _at(layer, "weights", f"combine weights by {live.weight_rule}", _difference(weights, expected))
    _check_updates(layer, g, experts, weights, trace)
    _check_block(layer, g, y, trace)
    if trace.after is None or not torch.equal(x + y, trace.after):
        raise _at(layer, "residual", "decoder output = norm input + block output", "another residual path")


def _check_block(layer: BoundLayer, g: Tensor, y: Tensor, trace: LayerTrace) -> None:
    """Shared experts compute what the row says, and the block adds exactly what it names."""
    shared, expected = trace.shared_part(), layer.live.shared_output(g)
    if expected is not None:
        unit = torch.finfo(g.dtype).eps
        gap = None if shared is None else (shared.double() - expected.double()).norm(dim=1)
        scale = expected.double().norm(dim=1) * unit * (g.shape[1] ** 0.5 + ROUNDINGS)
        if gap is None or not bool((gap <= scale).all()):
            found = "not called" if shared is None else _difference(shared, expected)
            raise _at(layer, "shared", "shared experts as one gated projection of g", found)
    mixed = trace.mixed
    if mixed is None or not torch.equal(y, mixed if shared is None else mixed + shared):
        raise _at(layer, "residual", f"the block returns exactly its {layer.live.row.residual_path}", "something else")


def _require_calls(layer: BoundLayer, trace: LayerTrace) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if set(trace.calls.values()) != {1}:
        found = ", ".join(f"{name} {count}" for name, count in trace.calls.items())
        raise _at(layer, "calls", "each of norm, router, experts, block called once", found)
    kept = (trace.x, trace.g, trace.experts, trace.weights, trace.y)
    if any(part is None for part in kept):
        raise _at(layer, "calls", "experts(hidden, top_k_index, top_k_weights)", "another signature")
    return kept  # type: ignore[return-value]


def _check_gate_input(layer: BoundLayer, x: Tensor, g: Tensor) -> None:
    z, _ = layer.live.normalise(x)
    if _close(layer.live.gate(z), g):
        return
    row = layer.live.row
    raise _at(
        layer,
        "gate_input",
        f"g from norm {row.norm_kind}, gain {row.gain}, transform {row.gate_input}",
        f"{_difference(layer.live.gate(z), g)}; {_matching_convention(layer.live, x, g)}",
    )


def _matching_convention(live: RoutedLayer, x: Tensor, g: Tensor) -> str:
    """Which norm and gain convention would explain `g`, to help whoever writes the row."""
    centred = x.float() - x.float().mean(-1, keepdim=True)
    for kind in NormKind:
        wide = centred if kind is NormKind.LAYERNORM else x.float()
        z = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + live.eps)
        gains: dict[GainConvention, Tensor] = {GainConvention.NONE: torch.ones_like(g)}
        if live.gain is not None:
            gains |= {GainConvention.WEIGHT: live.gain, GainConvention.ONE_PLUS_WEIGHT: 1.0 + live.gain.float()}
        for convention, gain in gains.items():
            if _close((gain * z).to(g.dtype), g):
                return f"norm {kind}, gain {convention} would match"
    return "no known norm and gain convention would match"


def _check_logits(layer: BoundLayer, trace: LayerTrace, g: Tensor) -> Tensor:
    row = layer.live.row
    given = trace.router_outputs[row.logits_output] if len(trace.router_outputs) > row.logits_output else None
    expected = layer.live.logits(g)
    if not isinstance(given, Tensor) or given.shape != expected.shape or given.dtype != expected.dtype:
        raise _at(
            layer, "logits", f"router output {row.logits_output}: {expected.dtype} {tuple(expected.shape)}", "another"
        )
    unit = torch.finfo(expected.dtype).eps
    bound = g.abs().double() @ layer.live.router_weight.abs().double().T * unit * ROUNDINGS + unit * expected.abs()
    if bool(((given.double() - expected.double()).abs() > bound).any()):
        raise _at(layer, "logits", "logits equal to the router's linear map of g", _difference(given, expected))
    return given


def _check_indices(layer: BoundLayer, experts: Tensor) -> None:
    live = layer.live
    if experts.shape[1] != live.top_k:
        raise _at(layer, "indices", f"{live.top_k} experts per token", f"{experts.shape[1]}")
    if int(experts.min()) < 0 or int(experts.max()) >= live.n_experts:
        raise _at(layer, "indices", f"ids below {live.n_experts}", f"{int(experts.min())} to {int(experts.max())}")
    ordered = experts.sort(dim=-1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise _at(layer, "indices", "distinct experts per token", "an expert twice")


def _check_selection(layer: BoundLayer, routing: Routing, experts: Tensor, topk: list[TopKCall]) -> None:
    """The rule's scores are those that top-k saw, and selecting by the dispatch scores gives the executed set."""
    seen = [call for call in topk if call.indices.shape == experts.shape and torch.equal(call.indices, experts)]
    if not seen:
        raise _at(layer, "selection_score", "a top-k call that chose the executed experts", "none in the forward pass")
    scores = seen[-1].scores.to(routing.selection.dtype)
    if scores.shape != routing.selection.shape or not _close(scores, routing.selection):
        row = layer.live.row
        rule = f"{row.activation}, bias {row.selection_bias}, groups {row.group_mode}"
        raise _at(layer, "selection_score", f"top-k over {rule}", _difference(scores, routing.selection))
    executed = torch.zeros_like(routing.dispatch, dtype=torch.bool).scatter_(1, experts, True)
    order = routing.dispatch if layer.live.row.monotone else routing.selection
    chosen = ranked(order)[:, : layer.live.top_k]
    ruled = torch.zeros_like(executed).scatter_(1, chosen, True)
    wrong = (executed != ruled).any(dim=1)
    # Equal selection scores (ties, or a softmax that merged two logits) leave the choice to the kernel.
    kth = routing.selection.sort(dim=1, descending=True).values
    tied = kth[:, layer.live.top_k - 1] == kth[:, min(layer.live.top_k, layer.live.n_experts - 1)]
    if routing.group_margin is not None:
        tied |= routing.group_margin == 0
    if bool((wrong & ~tied).any()):
        raise _at(layer, "executed_set", "top-k of the dispatch scores", f"{int(wrong.sum())} tokens with other sets")


def _check_updates(layer: BoundLayer, g: Tensor, experts: Tensor, weights: Tensor, trace: LayerTrace) -> None:
    live = layer.live
    mixed = trace.mixed if trace.mixed is not None else torch.zeros_like(g)
    total = torch.einsum("nk,nkd->nd", weights.double(), live.updates(g, experts).double())
    error = ((total - mixed.double()).norm(dim=1) / mixed.double().norm(dim=1).clamp_min(1e-300)).max()
    unit = torch.finfo(g.dtype).eps
    exact = g.dtype in (torch.float32, torch.float64)
    tolerance = unit * (live.gate_up.shape[1] + live.width) ** 0.5 if exact else unit * 4
    if not float(error) <= tolerance:
        raise _at(layer, "updates", f"sum of rho u equals the experts' output within {tolerance:.2g}", f"{error:.3g}")


def _check_shapes(layer: BoundLayer) -> None:
    live = layer.live
    experts, width = live.router_weight.shape[0], live.width
    inner = live.down.shape[-1] if live.down.dim() == 3 else 0
    expected = {
        "gate_up_proj": (experts, 2 * inner, width),
        "down_proj": (experts, width, inner),
        "gain": (width,),
    }
    found = {"gate_up_proj": tuple(live.gate_up.shape), "down_proj": tuple(live.down.shape)}
    found["gain"] = expected["gain"] if live.gain is None else tuple(live.gain.shape)
    if found != expected:
        raise _at(layer, "structure", str(expected), str(found))
    if live.top_k > experts:
        raise _at(layer, "structure", f"at most {experts} active experts", f"{live.row.top_k} = {live.top_k}")


def _check_runtime(model: PreTrainedModel, row: FamilyRow) -> None:
    for name, module in model.named_modules():
        if module.training:
            raise _violation(row, "runtime", name or "model", "evaluation mode", "training mode")
        kind = type(module).__name__
        if kind == "ParamWrapper" or any(base.__module__.split(".")[0] == "peft" for base in type(module).__mro__):
            raise _violation(row, "runtime", name, "merged weights", f"an adapter module {kind} that is not merged")
    implementation = getattr(model.config, "_experts_implementation", None)
    if implementation not in EXPERTS_IMPLEMENTATIONS:
        raise _violation(row, "runtime", "config", f"one of {EXPERTS_IMPLEMENTATIONS}", str(implementation))
    if getattr(model, "device_mesh", None) is not None or getattr(model, "_tp_size", None) not in (None, 1):
        raise _violation(row, "runtime", "model", "one process without a device mesh", "a sharded model")
    if len({parameter.device for parameter in model.parameters()}) > 1:
        raise _violation(row, "runtime", "model", "all parameters on one device", "several devices")


def _check_layer_runtime(layer: BoundLayer) -> None:
    live = layer.live
    for name, tensor in (("gate_up_proj", live.gate_up), ("down_proj", live.down), ("router", live.router_weight)):
        if tensor.dtype not in FLOAT_DTYPES:
            raise _at(layer, "runtime", "weights that are not quantised", f"{name} stored as {tensor.dtype}")
    if getattr(layer.modules.experts, "_is_expert_parallel", False):
        raise _at(layer, "runtime", "all experts in one process", "expert parallelism")


def _close(found: Tensor, expected: Tensor) -> bool:
    """Equal up to a few roundings of the coarser dtype, relative to each row's largest entry."""
    unit = max(torch.finfo(found.dtype).eps, torch.finfo(expected.dtype).eps)
    scale = expected.double().abs()
    finite = torch.isfinite(expected) & torch.isfinite(found)
    if not torch.equal(torch.isfinite(expected), torch.isfinite(found)):
        return False
    gap = (found.double() - expected.double()).abs().masked_fill(~finite, 0.0)
    return bool((gap <= ROUNDINGS * unit * scale.masked_fill(~finite, 0.0) + 1e-30).all())


def _difference(found: Tensor, expected: Tensor) -> str:
    if found.shape != expected.shape:
        return f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    gap = (found.double() - expected.double()).abs().nan_to_num(nan=float("inf")).max()
    return f"largest difference {float(gap):.3g}"


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _at(layer: BoundLayer, check: str, expected: str, found: str) -> ContractViolation:
    modules = layer.modules
    module = f"{modules.path}.{layer.live.row.block} ({type(modules.block).__name__})"
    return _violation(layer.live.row, check, module, expected, found)


def _violation(row: FamilyRow, check: str, module: str, expected: str, found: str) -> ContractViolation:
    return ContractViolation(check, model_type=row.model_type, module=module, expected=expected, found=found)
