"""The generic adapter: one routed layer as arithmetic, driven by its family row.

`RoutedLayer` answers five questions about a layer: `normalise`, `gate`, `route` (also forced to a given set),
`expert`, `block`. It works on tensors of whatever dtype it holds. Holding the live parameters it repeats what the
model executes (the binding check compares the two); holding float32 copies of the stored weights it is the
same-state evaluator. Definitions: `docs/measures.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from atlas_extractors.models.errors import ContractViolation
from atlas_extractors.models.families import (
    Activation,
    FamilyRow,
    GainConvention,
    GateInput,
    GroupMode,
    NormKind,
)


@dataclass(frozen=True, slots=True)
class Routing:
    """Routing of `N` tokens.

    dispatch: `[N, E]` scores on which competition takes place (`FamilyRow.score_space`), before any group limit.
    selection: `[N, E]` the values top-k sees; -inf where a group limit acts.
    experts: `[N, k]` ids, descending score, equal scores in ascending id.
    weights: `[N, k]` combine weights in the order of `experts`.
    group_margin: `[N]` strength of the weakest kept group over the strongest dropped one, or none.
    """

    dispatch: Tensor
    selection: Tensor
    experts: Tensor
    weights: Tensor
    group_margin: Tensor | None = None


def ranked(scores: Tensor) -> Tensor:
    """Expert ids by descending score, ties to the lower id. `[N, E] -> [N, E]`."""
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices


@dataclass(frozen=True, slots=True)
class Shared:
    """Shared experts as one gated projection: gate and up `[s, d]`, down `[d, s]`, sigmoid gate `[1, d]` or none."""

    gate: Tensor
    up: Tensor
    down: Tensor
    sigmoid: Tensor | None


@dataclass(frozen=True, slots=True)
class RoutedLayer:
    """Tensors and constants of one routed layer.

    gain `[d]` or none, router_weight `[E, d]`, router_bias and selection_bias `[E]` or none, gate_up `[E, 2m, d]`,
    down `[E, d, m]`; `scale` multiplies the combine weights. Groups are counted only where some are dropped, else 1 and 1.
    """

    row: FamilyRow
    index: int
    top_k: int
    eps: float
    renormalise: bool
    n_groups: int
    kept_groups: int
    act: Callable[[Tensor], Tensor]
    gain: Tensor | None
    router_weight: Tensor
    router_bias: Tensor | None
    selection_bias: Tensor | None
    gate_up: Tensor
    down: Tensor
    scale: float = 1.0
    shared: Shared | None = None

    @property
    def width(self) -> int:
        """Hidden size `d`."""
        return self.router_weight.shape[1]

    @property
    def n_experts(self) -> int:
        """Number of routed experts `E`."""
        return self.router_weight.shape[0]

    @property
    def group_mode(self) -> GroupMode:
        """How groups are scored; none where no group is ever dropped."""
        return GroupMode.NONE if self.kept_groups == self.n_groups else self.row.group_mode

    @property
    def weight_rule(self) -> str:
        """Name of the combine-weight rule."""
        return self.row.weight_rule(renormalise=self.renormalise)

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Norm input `[..., d]` to the pre-gain state `z` `[..., d]` and its scale `r` `[...]`, at least float32.

        `z` is taken in the executed order of operations, `x * rsqrt(mean(x^2) + eps)`, which is `x / r` up to
        rounding; so the gate coordinates follow from it bit for bit.
        """
        wide = x if x.dtype == torch.float64 else x.to(torch.float32)
        if self.row.norm_kind is NormKind.LAYERNORM:
            wide = wide - wide.mean(-1, keepdim=True)
        mean_square = wide.pow(2).mean(-1, keepdim=True) + self.eps
        return wide * torch.rsqrt(mean_square), mean_square.sqrt().squeeze(-1)

    def gate(self, z: Tensor) -> Tensor:
        """Pre-gain state to gate coordinates `g`, exactly as the family multiplies and casts. `[..., d]`."""
        dtype = self.router_weight.dtype
        match self.row.gain:
            case GainConvention.NONE:
                g = z.to(dtype)
            case GainConvention.WEIGHT:
                g = self._gain() * z.to(dtype)
            case GainConvention.ONE_PLUS_WEIGHT:
                g = ((1.0 + self._gain().to(z.dtype)) * z).to(dtype)
        if self.row.gate_input is GateInput.INVERSE_SQRT_WIDTH:
            g = g * (self.width**-0.5)
        return g

    def logits(self, g: Tensor) -> Tensor:
        """Router logits `W_r g (+ b)` in the dtype of the layer, or in float32. `[N, d] -> [N, E]`."""
        if self.row.wide_logits and g.dtype != torch.float64:
            bias = None if self.router_bias is None else self.router_bias.float()
            return linear(g.float(), self.router_weight.float(), bias)
        return linear(g, self.router_weight, self.router_bias)

    def route(self, g: Tensor, forced: Tensor | None = None) -> Routing:
        """Route gate coordinates `[N, d]`; with `forced` `[N, k]` the set is given and only weights are the rule's."""
        return self.route_logits(self.logits(g), forced)

    def route_logits(self, logits: Tensor, forced: Tensor | None = None) -> Routing:
        """As `route`, from logits `[N, E]`."""
        probabilities = self._activate(logits)
        scores = probabilities if self.selection_bias is None else probabilities + self.selection_bias
        selection, group_margin = self._limit_groups(scores)
        dispatch, order = (logits, logits) if self.row.monotone else (scores, selection)
        experts = ranked(order)[:, : self.top_k] if forced is None else forced
        weights = probabilities.gather(-1, experts)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights * self.scale
        return Routing(
            dispatch, selection, experts, weights if self.row.wide_weights else weights.to(logits.dtype), group_margin
        )

    def expert(self, expert: int, g: Tensor) -> Tensor:
        """Update of one expert before its combine weight. `[N, d] -> [N, d]`."""
        gate, up = linear(g, self.gate_up[expert]).chunk(2, dim=-1)
        return linear(self.act(gate) * up, self.down[expert])

    def updates(self, g: Tensor, experts: Tensor) -> Tensor:
        """Updates of chosen experts: `g` `[N, d]`, `experts` `[N, s]` to `[N, s, d]`."""
        flat = experts.reshape(-1)
        out = g.new_empty((flat.shape[0], g.shape[-1]))
        for expert in torch.unique(flat).tolist():
            rows = (flat == expert).nonzero().squeeze(-1)
            out[rows] = self.expert(expert, g[rows // experts.shape[1]])
        return out.view(*experts.shape, g.shape[-1])

    def shared_output(self, g: Tensor) -> Tensor | None:
        """What shared experts add, `[N, d] -> [N, d]`; none where the family has none."""
        if self.shared is None:
            return None
        out = linear(self.act(linear(g, self.shared.gate)) * linear(g, self.shared.up), self.shared.down)
        return out if self.shared.sigmoid is None else torch.sigmoid(linear(g, self.shared.sigmoid)) * out

    def block(self, z: Tensor) -> Tensor:
        """Everything the block adds to the residual at state `z`. `[N, d] -> [N, d]`."""
        g = self.gate(z)
        routing = self.route(g)
        mixed = torch.einsum("nk,nkd->nd", routing.weights.to(g.dtype), self.updates(g, routing.experts))
        shared = self.shared_output(g)
        return mixed if shared is None else mixed + shared

    def to(self, dtype: torch.dtype) -> RoutedLayer:
        """The same layer in `dtype`; tensors that have it already are shared, not copied. Widening is exact."""

        def cast(tensor: Tensor) -> Tensor:
            return tensor.detach().to(dtype).contiguous()

        def maybe(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else cast(tensor)

        return replace(
            self,
            gain=maybe(self.gain),
            router_weight=cast(self.router_weight),
            router_bias=maybe(self.router_bias),
            selection_bias=maybe(self.selection_bias),
            gate_up=cast(self.gate_up),
            down=cast(self.down),
            shared=None if self.shared is None else Shared(
                cast(self.shared.gate), cast(self.shared.up), cast(self.shared.down), maybe(self.shared.sigmoid)),
        )  # fmt: skip

    def _gain(self) -> Tensor:
        if self.gain is None:
            raise ValueError("the family row declares a gain, the norm has none")
        return self.gain

    def _activate(self, logits: Tensor) -> Tensor:
        wide = logits if logits.dtype == torch.float64 else logits.to(torch.float32)
        match self.row.activation:
            case Activation.IDENTITY:
                return wide
            case Activation.SOFTMAX:
                return torch.softmax(wide, dim=-1)
            case Activation.SIGMOID:
                return torch.sigmoid(wide)

    def _limit_groups(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores with the experts of dropped groups at -inf, and the group margin where a group is dropped."""
        if self.group_mode is GroupMode.NONE:
            return scores, None
        grouped = scores.reshape(-1, self.n_groups, scores.shape[-1] // self.n_groups)
        top2 = self.group_mode is GroupMode.TOP2_SUM
        strength = grouped.topk(2, dim=-1).values.sum(-1) if top2 else grouped.amax(-1)
        order = ranked(strength)
        kept = torch.zeros_like(strength, dtype=torch.bool).scatter_(-1, order[:, : self.kept_groups], True)
        border = strength.gather(-1, order[:, self.kept_groups - 1 : self.kept_groups + 1])
        return grouped.masked_fill(~kept.unsqueeze(-1), float("-inf")).flatten(-2), border[:, 0] - border[:, 1]


@dataclass(frozen=True, slots=True)
class LayerModules:
    """The live modules of one routed decoder layer, and their path for messages."""

    index: int
    path: str
    decoder: nn.Module
    norm: nn.Module
    block: nn.Module
    router: nn.Module
    experts: nn.Module
    shared: nn.Module | None = None
    shared_gate: nn.Module | None = None


def find_modules(model: PreTrainedModel, row: FamilyRow, index: int) -> LayerModules:
    """The modules of layer `index` as the row's paths name them.

    Raises:
        ContractViolation: a path does not exist, or the layer is dense (check `structure`).
    """
    path = f"{row.layers}.{index}"
    decoder = _submodule(model, path, row)
    block_path = f"{path}.{row.block}"
    _require_routed(model, row, index)
    return LayerModules(
        index=index,
        path=path,
        decoder=decoder,
        norm=_submodule(model, f"{path}.{row.norm}", row),
        block=_submodule(model, block_path, row),
        router=_submodule(model, f"{block_path}.{row.router}", row),
        experts=_submodule(model, f"{block_path}.{row.experts}", row),
        shared=None if row.shared is None else _submodule(model, f"{block_path}.{row.shared}", row),
        shared_gate=None if row.shared_gate is None else _submodule(model, f"{block_path}.{row.shared_gate}", row),
    )


def routed_layers(model: nn.Module, row: FamilyRow) -> list[int]:
    """Indices of the decoder layers whose block holds routed experts; the others are dense."""
    found = []
    for name, layer in model.get_submodule(row.layers).named_children():
        block = getattr(layer, row.block, None)
        if isinstance(getattr(block, row.experts, None), nn.Module):
            found.append(int(name))
    return found


def _require_routed(model: nn.Module, row: FamilyRow, index: int) -> None:
    """A layer without experts is dense if others of the model have them; else the row's paths are wrong."""
    routed = routed_layers(model, row)
    if routed and index not in routed:
        raise ContractViolation(
            "structure", model_type=row.model_type, module=f"{row.layers}.{index}", expected="a routed layer",
            found="a dense layer: it has no router and no experts",
            todo="protect routed layers only; this model has " + ", ".join(map(str, routed)),
        )  # fmt: skip


def live_layer(model: PreTrainedModel, row: FamilyRow, modules: LayerModules) -> RoutedLayer:
    """A `RoutedLayer` over the live parameters: executed dtype, no copy, nothing checked but presence."""
    config = model.config.get_text_config()
    n_groups, kept_groups = 1, 1
    if row.group_mode is not GroupMode.NONE:
        n_groups, kept_groups = (int(_configured(config, name, row)) for name in (row.n_groups, row.kept_groups))
        if kept_groups >= n_groups:
            n_groups = kept_groups = 1
    renormalise = _configured(config, row.renormalise, row) if isinstance(row.renormalise, str) else row.renormalise
    return RoutedLayer(
        row=row,
        index=modules.index,
        top_k=int(_configured(config, row.top_k, row)),
        eps=_number(modules.norm, row.eps, row, f"{modules.path}.{row.norm}"),
        renormalise=bool(renormalise),
        n_groups=n_groups,
        kept_groups=kept_groups,
        act=ACT2FN[_configured(config, row.expert_activation, row)],
        gain=None if row.gain is GainConvention.NONE else _tensor(modules.norm, "weight", row, modules.path),
        router_weight=_tensor(modules.router, row.router_weight, row, modules.path),
        router_bias=_optional_tensor(modules.router, row.router_bias, row, modules.path),
        selection_bias=_optional_tensor(modules.block, row.selection_bias, row, modules.path),
        gate_up=_tensor(modules.experts, "gate_up_proj", row, modules.path),
        down=_tensor(modules.experts, "down_proj", row, modules.path),
        scale=1.0 if row.weight_scale is None else float(_configured(config, row.weight_scale, row)),
        shared=_shared(modules, row),
    )


def _shared(modules: LayerModules, row: FamilyRow) -> Shared | None:
    if modules.shared is None:
        return None
    path = f"{modules.path}.{row.block}.{row.shared}"
    gate, up, down = (_tensor(modules.shared, f"{name}_proj.weight", row, path) for name in ("gate", "up", "down"))
    sigmoid = None if modules.shared_gate is None else _tensor(modules.shared_gate, "weight", row, path)
    return Shared(gate, up, down, sigmoid)


def _configured(config: PreTrainedConfig, name: str, row: FamilyRow) -> Any:
    value = getattr(config, name, None)
    if value is None:
        raise ContractViolation(
            "structure", model_type=row.model_type, module=type(config).__name__, expected=f"a field {name!r}",
            found="absent, or null",
        )  # fmt: skip
    return value


def _submodule(model: nn.Module, path: str, row: FamilyRow) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as missing:
        raise ContractViolation(
            "structure", model_type=row.model_type, module=path, expected="a module at this path", found=str(missing)
        ) from missing


def _attribute(owner: nn.Module, name: str, row: FamilyRow, path: str) -> object:
    value: object = owner
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            raise ContractViolation(
                "structure",
                model_type=row.model_type,
                module=f"{path} ({type(owner).__name__})",
                expected=f"attribute {name!r}",
                found="absent",
            )
    return value


def _number(owner: nn.Module, name: str, row: FamilyRow, path: str) -> float:
    value = _attribute(owner, name, row, path)
    if not isinstance(value, int | float):
        raise ContractViolation(
            "structure",
            model_type=row.model_type,
            module=f"{path} ({type(owner).__name__})",
            expected=f"a number {name!r}",
            found=type(value).__name__,
        )
    return float(value)


def _tensor(owner: nn.Module, name: str, row: FamilyRow, path: str) -> Tensor:
    value = _attribute(owner, name, row, path)
    if not isinstance(value, Tensor):
        raise ContractViolation(
            "structure",
            model_type=row.model_type,
            module=f"{path} ({type(owner).__name__})",
            expected=f"a tensor {name!r}",
            found=type(value).__name__,
        )
    return value


def _optional_tensor(owner: nn.Module, name: str | None, row: FamilyRow, path: str) -> Tensor | None:
    return None if name is None else _tensor(owner, name, row, path)
