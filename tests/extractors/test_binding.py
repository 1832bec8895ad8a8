"""Binding accepts what a model is and refuses everything else, by the name of the check that failed.

Every wrong row is tried on randomised gains, routers and experts: with default initialisation these tests are vacuous.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from atlas_extractors.models.binding import bind
from atlas_extractors.models.errors import ContractViolation, UnsupportedArchitecture
from atlas_extractors.models.families import (
    FAMILIES,
    Activation,
    FamilyRow,
    GainConvention,
    GateInput,
    GroupMode,
    NormKind,
)
from tiny_world import randomise, tiny_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Dots1Config,
    Dots1ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OlmoeForCausalLM,
)

OLMOE = FAMILIES["olmoe"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "changes", [{}, {"norm_topk_prob": False, "num_experts_per_tok": 4}, {"num_experts_per_tok": 8}]
)
def test_the_true_row_binds(dtype: torch.dtype, experts: str, attention: str, changes: dict[str, Any]) -> None:
    model = tiny_model(3, experts=experts, attention=attention, **changes).to(dtype)
    assert sorted(bind(model, [0, 2]).layers) == [0, 2]


WRONG_ROWS: dict[str, tuple[FamilyRow, str]] = {
    "gain 1+w instead of w": (replace(OLMOE, gain=GainConvention.ONE_PLUS_WEIGHT), "gate_input"),
    "no gain": (replace(OLMOE, gain=GainConvention.NONE), "gate_input"),
    "layer norm instead of RMS": (replace(OLMOE, norm_kind=NormKind.LAYERNORM), "gate_input"),
    "the norm before attention": (replace(OLMOE, norm="input_layernorm"), "gate_input"),
    "a scaled gate input": (replace(OLMOE, gate_input=GateInput.INVERSE_SQRT_WIDTH), "gate_input"),
    "sigmoid instead of softmax": (replace(OLMOE, activation=Activation.SIGMOID), "selection_score"),
    "selection among raw logits": (replace(OLMOE, activation=Activation.IDENTITY), "selection_score"),
    "group-limited selection": (replace(OLMOE, group_mode=GroupMode.MAX), "selection_score"),
    "group-limited by two best": (replace(OLMOE, group_mode=GroupMode.TOP2_SUM), "selection_score"),
    "weights not renormalised": (replace(OLMOE, renormalise=False), "weights"),
    "another expert activation": (replace(OLMOE, expert_activation="other_act"), "updates"),
    "probabilities taken for logits": (replace(OLMOE, logits_output=1), "logits"),
    "a block that does not exist": (replace(OLMOE, block="block_sparse_moe"), "structure"),
    "a bias that does not exist": (replace(OLMOE, selection_bias="expert_bias"), "structure"),
    "another name for epsilon": (replace(OLMOE, eps="eps"), "structure"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", WRONG_ROWS)
def test_a_wrong_row_is_caught_by_its_check(case: str, dtype: torch.dtype) -> None:
    row, check = WRONG_ROWS[case]
    model = tiny_model(4).to(dtype)
    model.config.n_group, model.config.topk_group, model.config.other_act = 4, 1, "gelu"
    with pytest.raises(ContractViolation) as refusal:
        bind(model, [0, 1, 2], row)
    assert refusal.value.check == check
    text = str(refusal.value)
    assert "olmoe" in text
    assert "transformers" in text


def test_a_wrong_gain_names_the_convention_that_would_match() -> None:
    with pytest.raises(ContractViolation, match="norm rms, gain w would match"):
        bind(tiny_model(4), [0], WRONG_ROWS["gain 1+w instead of w"][0])


def _twice(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(hidden: Tensor) -> Any:
        forward(hidden)
        return forward(hidden)

    return run


def _added(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda hidden: forward(hidden) + 0.01


def _zeroed(block: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Experts receive other inputs than the router."""

    def run(hidden: Tensor) -> Tensor:
        flat = hidden.view(-1, hidden.shape[-1])
        _, weights, index = block.gate(flat)
        return block.experts(flat * 1.5, index, weights).view_as(hidden)

    return run


def _shifted(block: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Experts receive another set than the router chose."""

    def run(hidden: Tensor) -> Tensor:
        flat = hidden.view(-1, hidden.shape[-1])
        _, weights, index = block.gate(flat)
        return block.experts(flat, (index + 1) % 8, weights).view_as(hidden)

    return run


def _doubled(block: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """One expert twice."""

    def run(hidden: Tensor) -> Tensor:
        flat = hidden.view(-1, hidden.shape[-1])
        _, weights, index = block.gate(flat)
        return block.experts(flat, index[:, :1].expand_as(index), weights).view_as(hidden)

    return run


@pytest.mark.parametrize(
    ("tamper", "check"),
    [(_twice, "calls"), (_added, "residual"), (_zeroed, "gate_input"), (_shifted, "selection_score"),
     (_doubled, "indices")],
)  # fmt: skip
def test_a_block_that_computes_something_else_is_refused(tamper: Callable[..., Any], check: str) -> None:
    model = tiny_model(5)
    block = model.model.layers[1].mlp
    block.forward = tamper(block, block.forward)
    with pytest.raises(ContractViolation) as refusal:
        bind(model, [0, 1])
    assert refusal.value.check == check
    assert "model.layers.1" in str(refusal.value)


def test_router_logits_that_are_not_the_linear_map_are_refused() -> None:
    model = tiny_model(5)
    router = model.model.layers[0].mlp.gate
    forward = router.forward
    router.forward = lambda hidden: (forward(hidden)[0] + 0.5, *forward(hidden)[1:])
    with pytest.raises(ContractViolation) as refusal:
        bind(model, [0])
    assert refusal.value.check == "logits"


class ParamWrapper(nn.Module):
    """Stands in for the adapter library's wrapper around a parameter that is not merged."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *args: Any) -> Any:
        return self.wrapped(*args)


def _wrap(model: OlmoeForCausalLM) -> None:
    model.model.layers[0].mlp.experts = ParamWrapper(model.model.layers[0].mlp.experts).eval()


def _quantise(model: OlmoeForCausalLM) -> None:
    experts = model.model.layers[0].mlp.experts
    experts.down_proj = nn.Parameter(experts.down_proj.to(torch.int8), requires_grad=False)


def _parallel(model: OlmoeForCausalLM) -> None:
    model.model.layers[0].mlp.experts._is_expert_parallel = True


def _batched(model: OlmoeForCausalLM) -> None:
    model.set_experts_implementation("batched_mm")


@pytest.mark.parametrize(
    ("change", "found"),
    [(lambda model: model.train(), "training mode"), (_wrap, "not merged"), (_quantise, "int8"),
     (_parallel, "expert parallelism"), (_batched, "batched_mm")],
)  # fmt: skip
def test_a_model_in_the_wrong_state_is_refused(change: Callable[[OlmoeForCausalLM], None], found: str) -> None:
    model = tiny_model(6)
    change(model)
    with pytest.raises(ContractViolation, match=found) as refusal:
        bind(model, [0])
    assert refusal.value.check == "runtime"


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ContractViolation, match="layers 0 to 2"):
        bind(tiny_model(6), [3])


@pytest.mark.parametrize("family", ["llama", "dots1"])
def test_an_unknown_family_is_refused_and_never_approximated(family: str) -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }  # fmt: skip
    model: AutoModelForCausalLM
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        model = Dots1ForCausalLM(
            Dots1Config(**sizes, n_routed_experts=4, n_shared_experts=1, moe_intermediate_size=16, head_dim=8)
        )
    randomise(model, 0)
    with pytest.raises(UnsupportedArchitecture) as refusal:
        bind(model.eval(), [0])
    text = str(refusal.value)
    assert family in text
    assert "transformers 5" in text
    assert "olmoe" in text
