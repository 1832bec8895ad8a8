"""What passes through the modules of routed layers during one forward pass.

Hooks only read; every tensor kept is a detached clone, because some families change their states in place afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from atlas_extractors.models.adapters import LayerModules


@dataclass(slots=True)
class LayerTrace:
    """One layer in one forward pass, all tokens flattened to `N` rows, executed dtype.

    x `[N, d]` norm input, g `[N, d]` router input, router_outputs as returned, h `[N, d]` experts input,
    experts and weights `[N, k]`, mixed `[N, d]` experts output, shared `[N, d]` and shared_gate `[N, 1]` outputs of these
    modules, y `[N, d]` block output, after `[N, d]` decoder output.
    """

    calls: dict[str, int] = field(default_factory=lambda: {"norm": 0, "router": 0, "experts": 0, "block": 0})
    x: Tensor | None = None
    g: Tensor | None = None
    router_outputs: tuple[Any, ...] = ()
    h: Tensor | None = None
    experts: Tensor | None = None
    weights: Tensor | None = None
    mixed: Tensor | None = None
    shared: Tensor | None = None
    shared_gate: Tensor | None = None
    y: Tensor | None = None
    after: Tensor | None = None

    def shared_part(self) -> Tensor | None:
        """What shared experts added, from the modules' own outputs; none where the family has none."""
        if self.shared is None or self.shared_gate is None:
            return self.shared
        return torch.sigmoid(self.shared_gate) * self.shared


def rows(tensor: Tensor) -> Tensor:
    """A detached copy with all leading dimensions flattened: `[..., n] -> [N, n]`."""
    return tensor.detach().reshape(-1, tensor.shape[-1]).clone()


class Taps:
    """Context manager that hooks the given layers and fills one `LayerTrace` per layer; hooks are gone on exit.

    `on_block` is called after a layer's block has run, with its index; what it takes out of a trace need not be kept.
    """

    def __init__(self, layers: Sequence[LayerModules], on_block: Callable[[int], None] | None = None) -> None:
        self.traces: dict[int, LayerTrace] = {modules.index: LayerTrace() for modules in layers}
        self._layers = tuple(layers)
        self._on_block = on_block
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for modules in self._layers:
            self._hook(modules, self.traces[modules.index])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, modules: LayerModules, trace: LayerTrace) -> None:
        def norm_input(_: nn.Module, args: tuple[Any, ...]) -> None:
            trace.calls["norm"] += 1
            trace.x = rows(args[0])

        def router_call(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            trace.calls["router"] += 1
            trace.g = rows(args[0])
            outputs = output if isinstance(output, tuple) else (output,)
            trace.router_outputs = tuple(rows(part) if isinstance(part, Tensor) else part for part in outputs)

        def experts_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            trace.calls["experts"] += 1
            given = [*args, *kwargs.values()]
            if len(given) >= 3 and all(isinstance(part, Tensor) for part in given[:3]):
                trace.h, trace.experts, trace.weights = (rows(part) for part in given[:3])
            trace.mixed = rows(output)

        def block_call(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            trace.calls["block"] += 1
            trace.y = rows(output[0] if isinstance(output, tuple) else output)
            if self._on_block is not None:
                self._on_block(modules.index)

        def decoder_call(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            trace.after = rows(output[0] if isinstance(output, tuple) else output)

        def shared_call(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            trace.shared = rows(output)

        def shared_gate_call(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            trace.shared_gate = rows(output)

        if modules.shared is not None:
            self._handles.append(modules.shared.register_forward_hook(shared_call))
        if modules.shared_gate is not None:
            self._handles.append(modules.shared_gate.register_forward_hook(shared_gate_call))
        self._handles += [
            modules.norm.register_forward_pre_hook(norm_input),
            modules.router.register_forward_hook(router_call),
            modules.experts.register_forward_hook(experts_call, with_kwargs=True),
            modules.block.register_forward_hook(block_call),
            modules.decoder.register_forward_hook(decoder_call),
        ]


@dataclass(frozen=True, slots=True)
class TopKCall:
    """The input and the chosen indices of one `torch.topk` call."""

    scores: Tensor
    indices: Tensor


class TopKTap(TorchFunctionMode):
    """Records every `torch.topk` on a matrix: the exact scores among which a router selected. Used by binding only."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[TopKCall] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.topk, Tensor.topk):
            scores = args[0] if args else (kwargs or {})["input"]
            if scores.dim() == 2:
                self.calls.append(TopKCall(scores.detach().clone(), result[1].detach().clone()))
        return result
