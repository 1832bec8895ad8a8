"""Families of routed models, one declarative row each.

A row says how a family's routed layer is computed; it holds no code. What a row claims is proved on the
loaded model by `atlas_extractors.models.binding.bind` before anything is extracted. To support a family,
add a row: a wrong one is refused, with the name of the check that it failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from atlas_extractors.models.errors import UnsupportedArchitecture


class NormKind(StrEnum):
    """The normalisation before the routed block."""

    RMS = "rms"
    LAYERNORM = "layernorm"


class GainConvention(StrEnum):
    """How the norm's stored weight `w` multiplies the normalised state."""

    WEIGHT = "w"  # cast(w) * cast(z): the state is cast to the executed dtype before the product
    ONE_PLUS_WEIGHT = "1+w"  # cast((1 + w) * z): the product is taken in float32
    NONE = "none"


class GateInput(StrEnum):
    """What happens to the norm's output before the router's linear map."""

    IDENTITY = "identity"
    INVERSE_SQRT_WIDTH = "1/sqrt(d)"


class Activation(StrEnum):
    """The map from logits to the values among which top-k selects."""

    IDENTITY = "identity"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


class GroupMode(StrEnum):
    """How groups of experts are scored where a group limit acts."""

    NONE = "none"
    TOP2_SUM = "top2_sum"
    MAX = "max"


class ResidualPath(StrEnum):
    """What the block adds to the residual stream."""

    EXPERTS = "experts"  # exactly sum_e rho_e u_e
    EXPERTS_SHARED = "experts+shared"  # and the output of shared experts, gated by a sigmoid or not


class W1Layout(StrEnum):
    """Where the experts' input projection is stored."""

    GATE_UP_STACKED = "gate_up_stacked"  # gate_up_proj [E, 2m, d], down_proj [E, d, m]


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One family of routed models, as data.

    Paths are attribute paths: `layers` from the causal model, `norm` and `block` from a decoder layer, `router`,
    `experts`, `selection_bias`, `shared` and `shared_gate` from the block. `renormalise` is a constant or the name of the
    configuration field that decides; `weight_scale`, `n_groups` and `kept_groups` name configuration fields.
    `wide_logits`: the router's linear map runs in float32 whatever the executed dtype; `wide_weights`: combine weights
    stay float32 instead of being cast to the dtype of the logits.
    """

    model_type: str
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens"
    attention: str = "self_attn"
    input_norm: str = "input_layernorm"
    norm: str = "post_attention_layernorm"
    norm_kind: NormKind = NormKind.RMS
    gain: GainConvention = GainConvention.WEIGHT
    eps: str = "variance_epsilon"
    block: str = "mlp"
    router: str = "gate"
    router_weight: str = "weight"
    router_bias: str | None = None
    gate_input: GateInput = GateInput.IDENTITY
    activation: Activation = Activation.SOFTMAX
    selection_bias: str | None = None
    group_mode: GroupMode = GroupMode.NONE
    n_groups: str = "n_group"
    kept_groups: str = "topk_group"
    renormalise: bool | str = False
    weight_scale: str | None = None
    wide_logits: bool = False
    wide_weights: bool = False
    experts: str = "experts"
    expert_activation: str = "hidden_act"
    w1_layout: W1Layout = W1Layout.GATE_UP_STACKED
    shared: str | None = None
    shared_gate: str | None = None
    n_experts: str = "num_experts"
    top_k: str = "num_experts_per_tok"
    logits_output: int = 0

    @property
    def monotone(self) -> bool:
        """Whether selection is monotone in the logits, so that the logits are the dispatch scores."""
        return self.selection_bias is None and self.group_mode is GroupMode.NONE

    @property
    def score_space(self) -> str:
        """The space in which dispatch scores and margins are stated, as evidence states it."""
        return "logit" if self.monotone else f"{self.activation.value}+bias"

    @property
    def residual_path(self) -> ResidualPath:
        """What the block adds to the residual stream."""
        return ResidualPath.EXPERTS if self.shared is None else ResidualPath.EXPERTS_SHARED

    def weight_rule(self, *, renormalise: bool) -> str:
        """The name of the combine-weight rule as evidence states it."""
        name = f"{self.activation.value}_topk"
        return f"{name}_renormalised" if renormalise else name


FAMILIES: dict[str, FamilyRow] = {
    row.model_type: row
    for row in (
        FamilyRow(model_type="olmoe", renormalise="norm_topk_prob"),
        FamilyRow(
            model_type="qwen2_moe",
            renormalise="norm_topk_prob",
            shared="shared_expert",
            shared_gate="shared_expert_gate",
        ),
        FamilyRow(model_type="qwen3_moe", renormalise="norm_topk_prob"),
        FamilyRow(model_type="mixtral", renormalise=True, wide_weights=True, n_experts="num_local_experts"),
        FamilyRow(
            model_type="deepseek_v3",
            activation=Activation.SIGMOID,
            selection_bias="gate.e_score_correction_bias",
            group_mode=GroupMode.TOP2_SUM,
            renormalise="norm_topk_prob",
            weight_scale="routed_scaling_factor",
            wide_logits=True,
            wide_weights=True,
            shared="shared_experts",
            n_experts="n_routed_experts",
        ),
    )
}


def family_row(model_type: str) -> FamilyRow:
    """The row of `model_type`.

    Raises:
        UnsupportedArchitecture: no row describes it; never approximated by a similar family.
    """
    row = FAMILIES.get(model_type)
    if row is None:
        raise UnsupportedArchitecture(model_type, tuple(sorted(FAMILIES)))
    return row
