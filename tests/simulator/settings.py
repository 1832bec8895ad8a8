"""What a simulated study depends on: sizes, router, arms, thresholds. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EPS = 1e-5
VOCABULARY = 19
MODEL_LAYERS = 3
NUISANCES = ("batch", "attention", "experts", "dtype")
CHANGES = {"batch": "batch_size", "attention": "attention", "experts": "experts", "dtype": "dtype"}
FINGERPRINT: dict[str, Any] = {
    "attention": "eager", "batch_size": 8, "device": "cpu", "dtype": "float32", "experts": "eager",
    "libraries": {"torch": "2.13.0", "transformers": "5.18.0"}, "threads": 1,
}  # fmt: skip
NULL_VALUES: dict[str, Any] = {"batch_size": 1, "attention": "sdpa", "experts": "grouped_mm", "dtype": "bfloat16"}
THRESHOLDS: dict[str, dict[str, float]] = {
    "drift.coordinate/1": {"ratio_of_sums": 0.1},
    "drift.boundary/1": {"ratio_of_sums": 0.15},
    "drift.transition/1": {"ratio_of_sums": 0.2, "mean_bounded": 0.2},
    "drift.chart_content/1": {"ratio_of_sums": 0.2, "mean_bounded": 0.2},
    "guard.block/1": {"ratio_of_sums": 0.2},
}


@dataclass(frozen=True, slots=True)
class SimulatedArm:
    """An arm: relative size of the random change of the routed blocks' and other weights, and what it achieves.

    ``collapse`` replaces its routers by ones that know a few experts only and are that sure of them: margins rise while
    occupancy degenerates.
    """

    name: str
    policy: str
    chart_preserving: bool
    size: float
    upstream: float = 0.0
    head_scale: float = 1.0
    success: float = 0.95
    collapse: float = 0.0


PRESERVED = SimulatedArm("preserved", "lora+penalty", True, 0.002, upstream=0.002)
REWRITTEN = SimulatedArm("rewritten", "full", False, 1.0, upstream=1.0)
IDENTICAL = SimulatedArm("identical", "frozen", True, 0.0)
DAMAGED = SimulatedArm("damaged", "lora", True, 0.002, upstream=0.002, head_scale=3.0)
UNMATCHED = SimulatedArm("unmatched", "lora+penalty", True, 0.002, upstream=0.002, success=0.3)
COLLAPSED = SimulatedArm("collapsed", "full", False, 0.002, upstream=0.002, collapse=4.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a simulated study depends on. Equal settings give equal studies, byte for byte."""

    seed: int = 1
    d: int = 8
    experts: int = 6
    top_k: int = 2
    inner: int = 5
    positions: int = 2
    first_allowed: int = 1
    protected: tuple[int, ...] = (0, 2)
    window_tokens: tuple[int, int] = (6, 10)
    clusters: tuple[tuple[str, int], ...] = (("legal", 52), ("medical", 52))
    double_windows: int = 3
    items: int = 120
    target: float = 0.9
    tolerance: float = 0.1
    damage_tolerance_nats: float = 0.05
    arms: tuple[SimulatedArm, ...] = (PRESERVED, REWRITTEN, IDENTICAL)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: THRESHOLDS)
    bootstrap: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 1e-6
    evaluation: int = 1
    overlap_pairs: int = 6
    adapter: str = "olmoe"
    gain_convention: str = "w"
    score_space: str = "logit"
    weight_rule: str = "softmax_topk_renormalised"
    weight_scale: float = 1.0
    selection_bias: float = 0.0
    router_bias: float = 0.0
    group_mode: str = "none"
    n_groups: int = 1
    kept_groups: int = 1
    shared: bool = False

    @property
    def admitted(self) -> int:
        """Experts that the group limit leaves per token."""
        return self.experts if self.group_mode == "none" else self.experts // self.n_groups * self.kept_groups


def small(**changes: Any) -> Settings:
    """Return settings of a smaller world: 60 clusters in three domains, enough of them for decisions."""
    defaults: dict[str, Any] = {
        "clusters": (("code", 20), ("legal", 20), ("medical", 20)), "items": 60, "double_windows": 2,
        "damage_tolerance_nats": 0.1,
        "bootstrap": {"resamples": 400, "min_clusters": 20},
    }  # fmt: skip
    return Settings(**{**defaults, **changes})


GROUPED: Mapping[str, Any] = {
    "experts": 8, "adapter": "deepseek_v3", "score_space": "sigmoid+bias", "selection_bias": 0.05,
    "weight_rule": "sigmoid_topk_renormalised", "weight_scale": 2.5, "group_mode": "top2_sum", "n_groups": 4,
    "kept_groups": 2, "shared": True,
}  # fmt: skip
"""A router that adds a selection bias and keeps the best groups, beside a shared expert, as DeepSeek-V3's does."""


def grouped(**changes: Any) -> Settings:
    """Return settings of a small world with the router of `GROUPED`."""
    return small(**{**GROUPED, **changes})
