"""The router's rule as data: from recorded dispatch scores to admissible experts, routed sets and combine weights.

One description serves measures and checks alike. Sources: `docs/measures.md`, section 1. What a rule says of a model is
proved by the extractor's binding check; here rows are only held to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.geometry import F64, Ints, ranking, softmax

Mask = npt.NDArray[np.bool_]

WEIGHT_RULES = ("softmax_topk", "softmax_topk_renormalised", "sigmoid_topk", "sigmoid_topk_renormalised")
SCORE_SPACES = ("logit", "sigmoid+bias", "softmax+bias")
GROUP_MODES = ("none", "top2_sum", "max")


@dataclass(frozen=True, slots=True)
class RouterRule:
    """How a family routes: score space, weight rule, scale of the weights, selection bias ``[E]`` and group limit.

    In score space ``logit`` dispatch scores are the logits; in ``sigmoid+bias`` and ``softmax+bias`` they are the values
    that top-k saw: gate probabilities plus ``selection_bias`` (zeros where the family has none).
    """

    score_space: str
    weight_rule: str
    scale: float
    selection_bias: F64 | None
    group_mode: str
    n_groups: int
    kept_groups: int

    @classmethod
    def of(cls, layer: Rows, at: int = 0) -> RouterRule:
        """Read the rule of one row of table `layer`."""
        biased = bool(layer.valid("selection_bias")[at])
        return cls(
            str(layer["score_space"][at]), str(layer["weight_rule"][at]), float(layer["weight_scale"][at]),
            layer["selection_bias"][at].astype(np.float64) if biased else None, str(layer["group_mode"][at]),
            int(layer["n_groups"][at]), int(layer["kept_groups"][at]),
        )  # fmt: skip

    @property
    def monotone(self) -> bool:
        """Whether the set follows from the logits by plain top-k, so that margins are margins of logits."""
        return self.score_space == "logit" and self.group_mode == "none"

    @property
    def renormalised(self) -> bool:
        return self.weight_rule.endswith("_renormalised")

    def probabilities(self, dispatch: F64) -> F64:
        """Return the gate's values before selection ``[T, E]`` from dispatch scores ``[T, E]``."""
        if self.score_space == "logit":
            return self._gate(dispatch)
        return dispatch if self.selection_bias is None else dispatch - self.selection_bias

    def _gate(self, logits: F64) -> F64:
        softmaxed = self.score_space == "softmax+bias" or (
            self.score_space == "logit" and self.weight_rule.startswith("softmax")
        )
        out: F64 = softmax(logits) if softmaxed else 1.0 / (1.0 + np.exp(-logits))
        return out

    def dispatch(self, logits: F64) -> F64:
        """Return dispatch scores ``[T, E]`` from exact logits ``[T, E]``."""
        if self.score_space == "logit":
            return logits
        gate = self._gate(logits)
        return gate if self.selection_bias is None else gate + self.selection_bias

    def group_scores(self, dispatch: npt.NDArray[np.floating]) -> F64:
        """Return the groups' strengths ``[T, n_groups]``, added in float32 as the models do."""
        size = dispatch.shape[1] // self.n_groups
        grouped = dispatch.astype(np.float32).reshape(len(dispatch), self.n_groups, size)
        taken = 1 if self.group_mode == "max" else 2
        best = np.sort(grouped, axis=2)[:, :, -taken:].sum(axis=2, dtype=np.float32)
        out: F64 = best.astype(np.float64)
        return out

    def admissible(self, dispatch: npt.NDArray[np.floating]) -> Mask:
        """Return which experts a group limit leaves ``[T, E]``; all where there is none. Ties go to the lower group."""
        if self.group_mode == "none":
            return np.ones(dispatch.shape, dtype=np.bool_)
        kept = np.zeros((len(dispatch), self.n_groups), dtype=np.bool_)
        np.put_along_axis(kept, ranking(self.group_scores(dispatch))[:, : self.kept_groups], True, axis=1)
        return np.repeat(kept, dispatch.shape[1] // self.n_groups, axis=1)

    def order(self, dispatch: npt.NDArray[np.floating]) -> Ints:
        """Return expert ids ``[T, E]``: admissible ones by descending score, ties to the lower id, then the others."""
        if self.group_mode == "none":
            return ranking(dispatch)
        return ranking(np.where(self.admissible(dispatch), dispatch.astype(np.float64), -np.inf))

    def weights(self, dispatch: F64, members: Ints) -> F64:
        """Return combine weights ``[T, k]`` of given members ``[T, k]``."""
        chosen = np.take_along_axis(self.probabilities(dispatch), members, axis=1)
        if self.renormalised:
            chosen = chosen / chosen.sum(axis=1, keepdims=True)
        out: F64 = chosen * self.scale
        return out


def effective_gain(layer: Rows, at: int = 0) -> F64:
    """Return the factor ``[d]`` on the normalised state that the row's convention declares."""
    gain: F64 = layer["gain"][at].astype(np.float64)
    convention = str(layer["gain_convention"][at])
    return np.ones_like(gain) if convention == "none" else gain + 1.0 if convention == "1+w" else gain
