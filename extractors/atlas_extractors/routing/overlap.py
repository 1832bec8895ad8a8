"""Overlap maps of co-active experts: how one expert's input coordinates follow from another's, base and arm.

For experts a and b, `T = W1^b (W1^a)^+` with `W1` the stacked input projection `[2m, d]`, float64. Definitions:
`docs/measures.md`. Sums are per chunk of windows, so memory does not grow with their number; the largest thing held is
one group of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atlas_extractors.models.adapters import RoutedLayer
from atlas_extractors.models.identity import gram_spectrum

GROUP_BYTES = 512 * 2**20
SUMS = 4  # residual, its scale, drift, its scale

Pairs = Sequence[tuple[int, int]]
F64 = npt.NDArray[np.float64]


def co_visits(base: RoutedLayer, z0: Tensor) -> npt.NDArray[np.int64]:
    """In how many of the states `z0` `[n, d]` the base's same-state set holds both experts. `[E, E]`."""
    with torch.inference_mode():
        inside = _members(base, base.gate(z0)).to(torch.float64)
        counts: npt.NDArray[np.int64] = (inside.T @ inside).cpu().numpy().round().astype(np.int64)
    return counts


def most_visited(counts: npt.NDArray[np.int64], number: int) -> list[tuple[int, int]]:
    """The `number` ordered pairs of distinct experts with the most visits, ties to the lower pair."""
    first, second = np.nonzero(~np.eye(len(counts), dtype=np.bool_))
    order = np.lexsort((second, first, -counts[first, second]))[:number]
    return [(int(first[at]), int(second[at])) for at in order]


def group_size(layer: RoutedLayer) -> int:
    """How many pairs are worked on at a time: two experts of two models, projection and inverse of each in float64."""
    per_pair = 2 * 2 * 2 * 8 * layer.gate_up.shape[1] * layer.gate_up.shape[2]
    return max(1, GROUP_BYTES // per_pair)


@dataclass(frozen=True, slots=True)
class _Factor:
    """One expert's projection `[2m, d]`, its pseudo-inverse `[d, 2m]`, rank, and spectrum of its Gram matrix, float64."""

    weight: Tensor
    inverse: Tensor
    rank: int
    whiten: Tensor | None  # [d, d] with whiten^T (W^T W) whiten = I, where the rank is d


class OverlapMaps:
    """The maps of a group of pairs in one layer of base and run. The base itself is compared with itself."""

    def __init__(self, base: RoutedLayer, run: RoutedLayer, pairs: Pairs) -> None:
        self.base, self.pairs = base, tuple(pairs)
        experts = sorted({expert for pair in pairs for expert in pair})
        self._zero = {expert: _factor(base.gate_up[expert]) for expert in experts}
        # Where the weights are equal the maps are the same tensors, so that the drift is exactly zero.
        self._one = {
            expert: self._zero[expert]
            if run is base or torch.equal(base.gate_up[expert], run.gate_up[expert])
            else _factor(run.gate_up[expert])
            for expert in experts
        }

    def facts(self) -> list[tuple[int, float | None]]:
        """Rank and condition number of the run's map of every pair; no condition number below full rank."""
        found = []
        for a, b in self.pairs:
            first, second = self._one[a], self._one[b]
            rank = min(first.rank, second.rank)
            found.append((rank, _condition(first, second) if rank == first.weight.shape[1] else None))
        return found

    def sums(self, z0: Tensor) -> F64:
        """Per pair `[pairs, 4]`, over the states `z0` `[n, d]` whose base set holds both experts, float64:

        `||W1^b g - T W1^a g||`, `||W1^b g||`, `||T1 W1_0^a g - T0 W1_0^a g||`, `||T0 W1_0^a g||`.
        """
        out = np.zeros((len(self.pairs), SUMS))
        with torch.inference_mode():
            g = self.base.gate(z0)
            inside = _members(self.base, g)
            for at, (a, b) in enumerate(self.pairs):
                visiting = g[inside[:, a] & inside[:, b]].double()
                if len(visiting):
                    out[at] = self._pair(a, b, visiting)
        return out

    def _pair(self, a: int, b: int, g: Tensor) -> list[float]:
        one_a, one_b = self._one[a], self._one[b]
        zero_a, zero_b = self._zero[a], self._zero[b]
        target = g @ one_b.weight.T
        gap = target - _apply(one_b, one_a, g @ one_a.weight.T)
        before = g @ zero_a.weight.T
        mapped = _apply(zero_b, zero_a, before)
        moved = torch.zeros_like(mapped)
        if one_a is not zero_a or one_b is not zero_b:
            moved = _apply(one_b, one_a, before) - mapped
        return [float(rows.norm(dim=1).sum()) for rows in (gap, target, moved, mapped)]


def _members(layer: RoutedLayer, g: Tensor) -> Tensor:
    """The routed sets at gate coordinates `[n, d]` as a mask `[n, E]`."""
    routing = layer.route(g)
    return torch.zeros_like(routing.dispatch, dtype=torch.bool).scatter_(1, routing.experts, True)


def _apply(target: _Factor, source: _Factor, rows: Tensor) -> Tensor:
    """`T x` for rows x `[n, 2m]`, without forming T."""
    return (rows @ source.inverse.T) @ target.weight.T


def _factor(projection: Tensor) -> _Factor:
    weight = projection.detach().double()
    values, vectors, keep = gram_spectrum(weight)
    values, vectors = values[keep], vectors[:, keep]
    wide = weight.shape[0] < weight.shape[1]
    # Smaller side: W W^T = U s^2 U^T gives W^+ = W^T U s^-2 U^T; else W^T W = V s^2 V^T gives W^+ = V s^-2 V^T W^T.
    middle = (vectors / values) @ vectors.T
    inverse = weight.T @ middle if wide else middle @ weight.T
    full = not wide and len(values) == weight.shape[1]
    return _Factor(weight, inverse, len(values), vectors / values.sqrt() if full else None)


def _condition(first: _Factor, second: _Factor) -> float:
    """`sqrt(max / min)` over the eigenvalues of `(W1^a^T W1^a)^-1 W1^b^T W1^b`."""
    if first.whiten is None:
        raise ValueError("a condition number needs full rank")
    image = second.weight @ first.whiten
    values = torch.linalg.eigvalsh(image.T @ image)
    return float((values[-1] / values[0]).sqrt())
