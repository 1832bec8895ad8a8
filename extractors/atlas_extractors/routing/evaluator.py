"""Same-state evaluation: base and arm at the base's stored states, in float32 on the stored weights.

Both models go through the same operations on tensors of the same shapes, so equal weights give equal bits and drift
is exactly zero. After the float32 updates everything is float64. Definitions: `docs/measures.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atlas_extractors.models.adapters import RoutedLayer, Routing, ranked


@dataclass(frozen=True, slots=True)
class SameState:
    """Same-state evaluation of `N` tokens of one layer.

    Per token: n experts in ascending id, `lengths[t] = n`. Padded to `W = min(E, 2k + 1)` slots, of which the first n
    are used: `experts` `[N, W]`, `rho0`, `rho1`, `uz0`, `uu0`, `uz1`, `uu1` `[N, W]`, `v0`, `v1` `[N, W, d]` float64,
    `gram` `[N, 2W, 2W]` float64 over `v0` then `delta`. Bitmasks `in0`, `in1` `[N]` over list positions.
    `pair_in` is -1 where no competitor exists. `dispatch0`, `dispatch1` `[N, E]`.
    """

    lengths: Tensor
    experts: Tensor
    in0: Tensor
    in1: Tensor
    pair_out: Tensor
    pair_in: Tensor
    rho0: Tensor
    rho1: Tensor
    rho0_b: Tensor
    rho1_b_forced: Tensor
    dispatch0: Tensor
    dispatch1: Tensor
    uz0: Tensor
    uu0: Tensor
    uz1: Tensor
    uu1: Tensor
    v0: Tensor
    v1: Tensor
    gram: Tensor
    dV_norm: Tensor
    y0_norm: Tensor
    dy_norm: Tensor

    def cpu(self) -> SameState:
        """The same on the CPU, where rows are built."""
        return replace(self, **{name: getattr(self, name).cpu() for name in SameState.__slots__})

    def packed_gram(self) -> tuple[Tensor, Tensor]:
        """Row-major upper triangles over the used slots: values of all tokens in order, and per-token lengths `[N]`."""
        sizes = self.lengths * (2 * self.lengths + 1)  # 2n(2n + 1) / 2
        starts = torch.cumsum(sizes, 0) - sizes
        values = self.gram.new_empty(int(sizes.sum()))
        width = self.experts.shape[1]
        for n in torch.unique(self.lengths).tolist():
            tokens = (self.lengths == n).nonzero().squeeze(1)
            used = torch.cat([torch.arange(n), width + torch.arange(n)])
            upper = torch.triu_indices(2 * n, 2 * n)
            triangle = self.gram[tokens][:, used[upper[0]], used[upper[1]]]
            values[starts[tokens].unsqueeze(1) + torch.arange(triangle.shape[1])] = triangle
        return values, sizes


def evaluate(base: RoutedLayer, arm: RoutedLayer, z0: Tensor) -> SameState:
    """Evaluate both layers at the base's states `z0` `[N, d]`.

    `base` and `arm` hold the stored weights in one dtype (float32 in an extraction). Only norms of plain families:
    the tangent projection is `I - z z^T / d`.

    Raises:
        ValueError: shapes or dtypes of the two layers differ.
    """
    if base.gate_up.shape != arm.gate_up.shape or base.router_weight.dtype != arm.router_weight.dtype:
        raise ValueError("same-state evaluation needs two layers of one shape and dtype")
    width = min(base.n_experts, 2 * base.top_k + 1)
    with torch.inference_mode():
        g0, g1 = base.gate(z0), arm.gate(z0)
        routing0, routing1 = base.route(g0), arm.route(g1)
        pair_out, pair_in = _pair(base, routing0)
        member = _membership(routing0, routing1, pair_in)
        slots = _slots(member, width)
        u0, u1 = _updates(base, arm, g0, g1, member, slots)
        forced = arm.route(g1, forced=routing0.experts)
        shared = base.shared_output(g0), arm.shared_output(g1)
        return _assemble(z0, slots, member, (routing0, routing1, forced), (pair_out, pair_in), (u0, u1), shared)


def _pair(base: RoutedLayer, routing: Routing) -> tuple[Tensor, Tensor]:
    """The lowest member and the highest admissible non-member by the base's scores; -1 where there is none."""
    scores, k = routing.dispatch if base.row.monotone else routing.selection, base.top_k
    order = ranked(scores)
    out = order[:, k - 1]
    if k == base.n_experts:
        return out, torch.full_like(out, -1)
    into = order[:, k]
    return out, into.masked_fill(torch.isneginf(scores.gather(1, into.unsqueeze(1)).squeeze(1)), -1)


def _membership(routing0: Routing, routing1: Routing, pair_in: Tensor) -> Tensor:
    """`R0`, `R1` and the competitor as a mask `[N, E]` (the pair's other half is in `R0`)."""
    member = torch.zeros_like(routing0.dispatch, dtype=torch.bool)
    member.scatter_(1, routing0.experts, True).scatter_(1, routing1.experts, True)
    has_pair = pair_in >= 0
    member[has_pair, pair_in[has_pair]] = True
    return member


def _slots(member: Tensor, width: int) -> Tensor:
    """Members in ascending id, `[N, width]`, unused slots -1."""
    lengths = member.sum(dim=1)
    ids = torch.sort(member.to(torch.int8), dim=1, descending=True, stable=True).indices[:, :width]
    return ids.masked_fill(torch.arange(width, device=ids.device) >= lengths.unsqueeze(1), -1)


def _updates(
    base: RoutedLayer, arm: RoutedLayer, g0: Tensor, g1: Tensor, member: Tensor, slots: Tensor
) -> tuple[Tensor, Tensor]:
    """Updates `[N, W, d]` of both models; each expert sees the same rows in the same order under both."""
    u0 = g0.new_zeros(*slots.shape, g0.shape[1])
    u1 = torch.zeros_like(u0)
    for expert in member.any(dim=0).nonzero().squeeze(1).tolist():
        tokens = member[:, expert].nonzero().squeeze(1)
        place = (slots[tokens] == expert).int().argmax(dim=1)
        u0[tokens, place] = base.expert(expert, g0[tokens])
        u1[tokens, place] = arm.expert(expert, g1[tokens])
    return u0, u1


def _assemble(
    z0: Tensor,
    slots: Tensor,
    member: Tensor,
    routings: tuple[Routing, Routing, Routing],
    pair: tuple[Tensor, Tensor],
    updates: tuple[Tensor, Tensor],
    shared: tuple[Tensor | None, Tensor | None],
) -> SameState:
    z = z0.double()
    routing0, routing1, forced = routings
    u0, u1 = updates
    v0, uz0, uu0 = _tangent(u0.double(), z)
    v1, uz1, uu1 = _tangent(u1.double(), z)
    rho0, in0 = _on_slots(routing0, slots)
    rho1, in1 = _on_slots(routing1, slots)
    vectors = torch.cat([v0, v1 - v0], dim=1)
    y0, y1 = _block(rho0, u0, shared[0]), _block(rho1, u1, shared[1])
    b = routing0.experts.shape[1] - 1  # `R0` is in ranked order: its last member is b
    return SameState(
        lengths=member.sum(dim=1),
        experts=slots,
        in0=in0,
        in1=in1,
        pair_out=pair[0],
        pair_in=pair[1],
        rho0=rho0,
        rho1=rho1,
        rho0_b=routing0.weights[:, b],
        rho1_b_forced=forced.weights[:, b],
        dispatch0=routing0.dispatch,
        dispatch1=routing1.dispatch,
        uz0=uz0,
        uu0=uu0,
        uz1=uz1,
        uu1=uu1,
        v0=v0,
        v1=v1,
        gram=torch.bmm(vectors, vectors.transpose(1, 2)),
        dV_norm=(_mix(rho1, v1) - _mix(rho0, v0)).norm(dim=1),
        y0_norm=y0.norm(dim=1),
        dy_norm=(y1 - y0).norm(dim=1),
    )


def _tangent(u: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`v = u - z <u, z> / d`, `<u, z>` and `||u||^2`, float64."""
    uz = torch.einsum("nsd,nd->ns", u, z)
    v = u - z.unsqueeze(1) * (uz / z.shape[1]).unsqueeze(2)
    return v, uz, u.square().sum(dim=2)


def _on_slots(routing: Routing, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Weights on the slots (zero off the set) and the set's bitmask over slots."""
    full = torch.zeros_like(routing.dispatch, dtype=routing.weights.dtype).scatter(1, routing.experts, routing.weights)
    inside = torch.zeros_like(routing.dispatch, dtype=torch.bool).scatter(1, routing.experts, True)
    index, used = slots.clamp_min(0), slots >= 0
    # An int64 mask holds 63 places; a wider union is refused where rows are built, so clamping hides nothing.
    bits = torch.tensor([1 << min(place, 62) for place in range(slots.shape[1])], device=slots.device)
    return full.gather(1, index) * used, ((inside.gather(1, index) & used) * bits).sum(dim=1)


def _block(rho: Tensor, updates: Tensor, shared: Tensor | None) -> Tensor:
    """Everything the block adds, float64: the weighted updates and what shared experts add."""
    mixed = _mix(rho, updates)
    return mixed if shared is None else mixed + shared.double()


def _mix(rho: Tensor, vectors: Tensor) -> Tensor:
    return torch.einsum("ns,nsd->nd", rho.double(), vectors.double())
