"""The router's rule, token by token: gate values, sets under a group limit, combine weights."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .rows import Row


@dataclass(frozen=True)
class Rule:
    """One row of table `layer`, as far as routing goes."""

    space: str
    weights: str
    scale: float
    bias: Sequence[float] | None
    mode: str
    groups: int
    kept: int

    @classmethod
    def of(cls, row: Row) -> Rule:
        return cls(
            row["score_space"], row["weight_rule"], row["weight_scale"], row["selection_bias"], row["group_mode"],
            row["n_groups"], row["kept_groups"],
        )  # fmt: skip


def single(value: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def softmax(logits: Sequence[float]) -> list[float]:
    """Softmax in float64."""
    top = max(logits)
    powers = [math.exp(x - top) for x in logits]
    total = math.fsum(powers)
    return [p / total for p in powers]


def sigmoid(x: float) -> float:
    """The logistic function."""
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else 0.0


def gates(rule: Rule, scores: Sequence[float]) -> list[float]:
    """The gate's values before selection, from dispatch scores."""
    if rule.space != "logit":
        return [s - (rule.bias[e] if rule.bias else 0.0) for e, s in enumerate(scores)]
    return softmax(scores) if rule.weights.startswith("softmax") else [sigmoid(s) for s in scores]


def scores_of(rule: Rule, logits: Sequence[float]) -> list[float]:
    """Dispatch scores from exact logits."""
    if rule.space == "logit":
        return list(logits)
    values = softmax(logits) if rule.space == "softmax+bias" else [sigmoid(x) for x in logits]
    return [v + (rule.bias[e] if rule.bias else 0.0) for e, v in enumerate(values)]


def strengths(rule: Rule, scores: Sequence[float]) -> list[float]:
    """The strength of every group: its best score, or the float32 sum of its two best."""
    size = len(scores) // rule.groups
    parts = [sorted(scores[g * size : (g + 1) * size], reverse=True) for g in range(rule.groups)]
    return [p[0] if rule.mode == "max" else single(single(p[0]) + single(p[1])) for p in parts]


def admitted(rule: Rule, scores: Sequence[float]) -> list[int]:
    """The experts that a group limit leaves; equal strengths keep the lower group."""
    if rule.mode == "none":
        return list(range(len(scores)))
    strength, size = strengths(rule, scores), len(scores) // rule.groups
    kept = sorted(range(rule.groups), key=lambda g: (-strength[g], g))[: rule.kept]
    return [e for e in range(len(scores)) if e // size in kept]


def ranked(rule: Rule, scores: Sequence[float]) -> list[int]:
    """Admitted experts by descending score, ties to the lower id."""
    return sorted(admitted(rule, scores), key=lambda e: (-scores[e], e))


def combine(rule: Rule, scores: Sequence[float], members: Sequence[int]) -> dict[int, float]:
    """Combine weights of given members."""
    values = gates(rule, scores)
    total = math.fsum(values[e] for e in members) if rule.weights.endswith("_renormalised") else 1.0
    return {e: values[e] / total * rule.scale for e in members}
