"""What an arm changes before a layer's router, alone: the arm's own attention on the base's input of that layer.

One forward pass of the base gives its logits, and for every bound layer its block norm's input. When the pass reaches
such a layer, the arm's decoder layer runs on the same input and the same arguments, and is stopped at its block norm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atlas_extractors.models.adapters import LayerModules
from atlas_extractors.models.binding import BoundModel


class _Reached(Exception):  # noqa: N818  # no error: a layer that is stopped on purpose
    """The block norm has been reached."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The base's logits `[B, S, V]`, and per layer the transport angle `[n]` of the chosen tokens, float64, units of pi."""

    logits: Tensor
    angles: dict[int, Tensor]


def carry(base: BoundModel, arm: BoundModel, tokens: Tensor, chosen: Tensor) -> Carried:
    """Run the base on windows `[B, S]` and the arm's layers on the base's layer inputs.

    `chosen` `[n]` are flat rows of the `B * S` tokens. Both models have the same layers bound. Where a layer's own
    attention and input norm are equal in both, its angle is exactly zero: the same operations on the same tensors.
    """
    base_x: dict[int, Tensor] = {}
    arm_x: dict[int, Tensor] = {}
    handles = []
    for index, layer in base.layers.items():
        beside = _run_beside(arm.layers[index].modules, index, chosen, arm_x)
        handles.append(layer.modules.decoder.register_forward_pre_hook(beside, with_kwargs=True))
        handles.append(layer.modules.norm.register_forward_pre_hook(_keep(index, chosen, base_x)))
    try:
        with torch.inference_mode():
            logits = base.model(input_ids=tokens, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    angles = {}
    for index, layer in base.layers.items():
        zero, _ = layer.live.normalise(base_x[index])
        one, _ = arm.layers[index].live.normalise(arm_x[index])
        angles[index] = angle(zero, one)
    return Carried(logits, angles)


def angle(zero: Tensor, one: Tensor) -> Tensor:
    """Angles between paired rows `[n, d]` in units of pi, float64, by the half-angle form of `drift.coordinate/1`."""
    a, b = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (zero, one))
    return 2.0 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)) / torch.pi


def _keep(index: int, chosen: Tensor, into: dict[int, Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        into[index] = args[0].reshape(-1, args[0].shape[-1])[chosen]

    return hook


def _run_beside(
    modules: LayerModules, index: int, chosen: Tensor, into: dict[int, Tensor]
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    """A hook before the base's decoder layer that runs the arm's on copies of its tensors, up to the block norm."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with _stopped_at(modules.norm, _keep(index, chosen, into)):
            modules.decoder(*(_copy(value) for value in args), **{name: _copy(value) for name, value in kwargs.items()})

    return hook


@contextlib.contextmanager
def _stopped_at(norm: nn.Module, keep: Callable[[nn.Module, tuple[Any, ...]], None]) -> Iterator[None]:
    def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
        keep(module, args)
        raise _Reached

    handle = norm.register_forward_pre_hook(stop)
    try:
        with contextlib.suppress(_Reached):
            yield
    finally:
        handle.remove()


def _copy(value: Any) -> Any:
    """A tensor's copy: a layer that changes its input in place must not change the base's pass."""
    return value.clone() if isinstance(value, Tensor) else value
