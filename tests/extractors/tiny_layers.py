"""Routed layers of random tensors, for tests of arithmetic that needs no model."""

from __future__ import annotations

from dataclasses import replace

import torch
from atlas_extractors.models.adapters import RoutedLayer
from atlas_extractors.models.families import FAMILIES
from torch import Tensor
from torch.nn.functional import silu


def layer(
    seed: int, *, d: int = 16, experts: int = 6, k: int = 2, m: int = 5, renormalise: bool = True,
    dtype: torch.dtype = torch.float64, eps: float = 1e-5,
) -> RoutedLayer:  # fmt: skip
    """A routed layer with random tensors."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return RoutedLayer(
        row=FAMILIES["olmoe"], index=0, top_k=k, eps=eps, renormalise=renormalise, n_groups=1, kept_groups=1, act=silu,
        gain=1 + 0.3 * random(d), router_weight=0.5 * random(experts, d), router_bias=None, selection_bias=None,
        gate_up=random(experts, 2 * m, d), down=random(experts, d, m),
    )  # fmt: skip


def near(base: RoutedLayer, seed: int, size: float) -> RoutedLayer:
    """The layer with every tensor moved a little."""
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        return tensor + size * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)

    return replace(
        base, gain=moved(base._gain()), router_weight=moved(base.router_weight), gate_up=moved(base.gate_up),
        down=moved(base.down),
    )  # fmt: skip


def states(base: RoutedLayer, count: int, seed: int) -> Tensor:
    """Normalised states of random inputs."""
    x = torch.randn(count, base.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return base.normalise(x.to(base.router_weight.dtype))[0]
