"""Occupancy: how the assignments of all tokens spread over experts, and how far two runs' assignments differ.

Counts are integers, so neither order nor blocks matter. Definitions: `docs/measures.md`, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas_schema.documents.contract import Occupancy
from atlas_schema.documents.receipt import LayerOccupancy, MarginUse, RunOccupancy
from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.definitions import OCCUPANCY
from atlas_schema.measures.geometry import F64, Ints


class Assignments:
    """Counts of one run and layer under construction, per half of the clusters."""

    def __init__(self, experts: int) -> None:
        self.experts, self.tokens = experts, 0
        self.loads = np.zeros((2, experts), dtype=np.int64)
        self.swaps = np.zeros((2, experts * experts), dtype=np.int64)
        self._keys: npt.NDArray[Any] | None = None
        self.sets = np.zeros(0, dtype=np.int64)

    def add(self, routing: Rows, half: Ints) -> None:
        """Count routing rows; ``half`` ``[T]`` is that of each row's cluster."""
        members = routing["experts"].astype(np.int64)
        k, size = members.shape[1], self.experts
        self.tokens += routing.n
        self.loads += np.bincount((half[:, None] * size + members).ravel(), minlength=2 * size).reshape(2, size)
        rival = routing.valid("competitor_in")
        pair = routing["competitor_out"].astype(np.int64) * size + routing["competitor_in"].astype(np.int64)
        swaps = np.bincount(half[rival] * size**2 + pair[rival], minlength=2 * size**2)
        self.swaps += swaps.reshape(2, size**2)
        keys, counts = np.unique(_set_keys(np.sort(members, axis=1), size, k), return_counts=True)
        if self._keys is not None:
            keys, place = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
            counts = np.bincount(place, weights=np.concatenate([self.sets, counts])).astype(np.int64)
        self._keys, self.sets = keys, counts


def _set_keys(members: Ints, experts: int, k: int) -> npt.NDArray[Any]:
    """Return one value per sorted set ``[T, k]``: a number where it fits, the ids' bytes where not."""
    if experts**k < 2**63:
        return members @ (np.int64(experts) ** np.arange(k, dtype=np.int64))
    return np.ascontiguousarray(members.astype(">u2")).view(f"V{2 * k}")[:, 0]


def rarefied(sets: Ints, tokens: int) -> float | None:
    """Return the expected number of distinct sets among ``tokens`` tokens drawn without replacement (Hurlbert).

    ``sets`` counts the tokens of each distinct set. None where there are fewer tokens.
    """
    total = int(sets.sum())
    if tokens > total:
        return None
    counts, sharing = np.unique(sets, return_counts=True)
    # The chance that none of n tokens is drawn: prod_{j<n} (total - tokens - j) / (total - j).
    j = np.arange(int(counts[-1]), dtype=np.float64)
    # Numbers are whole, so it is exactly zero before a factor could be negative.
    unseen = np.cumprod((total - tokens - j) / (total - j))
    return float((sharing * (1.0 - unseen[counts - 1])).sum())


def layer_occupancy(layer: int, found: Assignments, k: int, rarefied_tokens: int) -> LayerOccupancy:
    """Return one layer's occupancy. Needs at least one token."""
    counts = found.loads.sum(axis=0)
    total = int(counts.sum())
    # std / mean from whole numbers: exactly 0 where every expert has the same load.
    spread = math.sqrt(len(counts) * sum(int(c) ** 2 for c in counts) - total**2) / total
    load: F64 = counts / float(total)
    used = load[load > 0]
    entropy = max(0.0, -float((used * np.log(used)).sum()))
    return LayerOccupancy(
        layer=layer, tokens=found.tokens, pi=tuple(float(k * share) for share in load),
        cv_percent=100.0 * spread, entropy_nats=entropy,
        max_load_percent=100.0 * float(load.max()), experts_active=int((counts > 0).sum()),
        effective_experts=float(np.exp(entropy)), distinct_sets=rarefied(found.sets, rarefied_tokens),
    )  # fmt: skip


def run_occupancy(run_id: str, layers: Sequence[LayerOccupancy]) -> RunOccupancy:
    """Summarise one run over its layers."""
    cv, entropy = (np.array([getattr(of, name) for of in layers]) for name in ("cv_percent", "entropy_nats"))
    active = [of.experts_active for of in layers]
    return RunOccupancy(
        definition=OCCUPANCY, run_id=run_id, layers=tuple(layers), mean_cv_percent=float(cv.mean()),
        std_cv_percent=float(cv.std()), min_entropy_nats=float(entropy.min()), mean_entropy_nats=float(entropy.mean()),
        dead_experts=sum(len(of.pi) - of.experts_active for of in layers), experts_active_mean=sum(active) / len(active),
        assurance="recomputed",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shift:
    """How far two distributions differ: the cross-fitted witness, None where a half is empty, and the plug-in distance."""

    witness: float | None
    plugin: float | None
    count: int


def shift(base: Ints, arm: Ints) -> Shift:
    """Compare counts per half ``[2, m]`` of two runs.

    The witness set ``S = {p1 > p0}`` of one half is judged on the other, where nothing was chosen: in expectation it is at
    most the true total variation. Plugged in, the same counts choose and judge, and noise counts as distance.
    """
    sizes = [[int(n) for n in counts.sum(axis=1)] for counts in (base, arm)]
    n0, n1 = (sum(of) for of in sizes)
    if not n0 or not n1:
        return Shift(None, None, 0)
    # Counts are compared over the product of their sums: whole numbers, so that equal shares differ by exactly 0.
    apart = np.abs(arm.sum(axis=0) * n0 - base.sum(axis=0) * n1)
    plugin = int(apart.sum()) / (2 * n0 * n1)
    if not all(sizes[0]) or not all(sizes[1]):
        return Shift(None, plugin, n1)
    judged = []
    for half in (0, 1):
        m0, m1 = sizes[0][half], sizes[1][half]
        chosen = arm[half] * m0 > base[half] * m1
        shares = (
            int(counts[1 - half][chosen].sum()) / of[1 - half] for counts, of in ((arm, sizes[1]), (base, sizes[0]))
        )
        judged.append(next(shares) - next(shares))
    return Shift(0.5 * (judged[0] + judged[1]), plugin, n1)


def entropy_change(base: Assignments, arm: Assignments) -> float:
    """Return ``|H1 - H0|`` of the loads, nats; formed expert by expert, so that a small change keeps its digits."""
    before, after = (found.loads.sum(axis=0) / float(found.loads.sum()) for found in (base, arm))
    both = (before > 0) & (after > 0)
    p, q = before[both], after[both]
    change = (q - p) * np.log(q) + p * np.log1p((q - p) / p)
    alone = [float((of[~both & (of > 0)] * np.log(of[~both & (of > 0)])).sum()) for of in (after, before)]
    return abs(float(change.sum()) + alone[0] - alone[1])


def margin_use(base: RunOccupancy, arm: RunOccupancy, rule: Occupancy) -> MarginUse:
    """Say whether margins of an arm may be cited: not where its occupancy has degenerated in some layer."""
    worst = ""
    for before, after in zip(base.layers, arm.layers, strict=True):
        ratio = after.effective_experts / before.effective_experts
        lost = sum(b > 0 and a == 0 for b, a in zip(before.pi, after.pi, strict=True))
        if ratio < rule.min_effective_ratio or lost > rule.max_lost_experts:
            worst = worst or (
                f"layer {after.layer}: effective experts fell to {ratio:.3f} of the base's and {lost} experts are no longer "
                f"used; the contract admits {rule.min_effective_ratio} and {rule.max_lost_experts}"
            )
    return MarginUse(citable=not worst, reason=worst or "occupancy has not degenerated in any protected layer")
