"""A tiny random model of every family that has a row. Gains, routers and selection biases are randomised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_world import byte_tokenizer, randomise, tiny_model
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

COMMON: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_experts_per_tok": 2, "max_position_embeddings": 128, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
QWEN = {"num_experts": 8, "intermediate_size": 40, "moe_intermediate_size": 24, "mlp_only_layers": [1]}
KINDS: dict[str, tuple[type[Any], type[PreTrainedModel], dict[str, Any]]] = {
    "qwen2_moe": (Qwen2MoeConfig, Qwen2MoeForCausalLM,
                  {**QWEN, "shared_expert_intermediate_size": 20, "norm_topk_prob": False}),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, {**QWEN, "head_dim": 8, "norm_topk_prob": True}),
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 8, "intermediate_size": 24}),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM, {
        "n_routed_experts": 8, "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
        "intermediate_size": 40, "moe_intermediate_size": 24, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 12, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
        "num_key_value_heads": 4}),
}  # fmt: skip
ROUTED = {"olmoe": (0, 2), "qwen2_moe": (0, 2), "qwen3_moe": (0, 2), "mixtral": (0, 2), "deepseek_v3": (1, 2)}
"""Layers that are routed and that tests protect."""
DENSE = {"qwen2_moe": 1, "qwen3_moe": 1, "deepseek_v3": 0}


def family_model(
    family: str, seed: int = 0, *, experts: str = "grouped_mm", attention: str = "eager", **changes: Any
) -> PreTrainedModel:
    """A tiny model of the family in evaluation mode, float32."""
    if family == "olmoe":
        return tiny_model(seed, experts=experts, attention=attention, **changes)
    config, kind, sizes = KINDS[family]
    model = kind._from_config(
        config(**{**COMMON, **sizes, **changes}), experts_implementation=experts, attn_implementation=attention
    )
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    return model.requires_grad_(False).eval()


def moved(model: PreTrainedModel, seed: int, size: float) -> PreTrainedModel:
    """A copy of the model moved by noise of relative size `size`, selection biases too."""
    generator = torch.Generator().manual_seed(seed)
    copy = type(model)._from_config(model.config, experts_implementation="grouped_mm", attn_implementation="eager")
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for tensor in copy.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * tensor.std() * size)
    return copy.requires_grad_(False).eval()


def save_family(model: PreTrainedModel, folder: Path) -> Path:
    """Save in float32 with the byte tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
