"""A small world for the extractor's tests: tiny OLMoE models with random gains and routers, a tokenizer, a study.

Default initialisation has gains of one, under which a wrong gain convention could pass; so everything is randomised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import PlannedArm
from atlas_schema.files import document_text
from atlas_schema.study.preregister import Plan, write_preregistration

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

SIZES: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True, "max_position_embeddings": 128,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Gains around one, router rows and projections large enough for distinct margins."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                1 + 0.3 * noise if "norm" in name else 0.5 * noise if "gate.weight" in name else 0.2 * noise
            )


def tiny_model(
    seed: int = 0, *, experts: str = "grouped_mm", attention: str = "eager", **changes: Any
) -> OlmoeForCausalLM:
    """A tiny OLMoE in evaluation mode."""
    config = OlmoeConfig(**{**SIZES, **changes})
    model = OlmoeForCausalLM._from_config(config, experts_implementation=experts, attn_implementation=attention)
    randomise(model, seed)
    return model.requires_grad_(False).eval()


def perturbed(model: OlmoeForCausalLM, seed: int, size: float) -> OlmoeForCausalLM:
    """A copy moved by Gaussian noise of relative size `size`."""
    generator = torch.Generator().manual_seed(seed)
    copy = OlmoeForCausalLM._from_config(model.config, experts_implementation="grouped_mm", attn_implementation="eager")
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * parameter.std() * size)
    return copy.requires_grad_(False).eval()


def byte_tokenizer(extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges; `extra` symbols make another tokenizer."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    vocabulary = {symbols[byte]: byte for byte in range(256)} | {text: 256 + at for at, text in enumerate(extra)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def save(model: OlmoeForCausalLM, folder: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Save in `dtype` with the byte tokenizer; the model passed in stays as it is."""
    config = OlmoeConfig(**{**model.config.to_dict(), "dtype": str(dtype).removeprefix("torch.")})
    copy = OlmoeForCausalLM(config).to(dtype)
    copy.load_state_dict({name: value.to(dtype) for name, value in model.state_dict().items()})
    copy.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Folders:
    """Saved models: a base, an arm near it, and a copy of the base."""

    base: Path
    near: Path
    same: Path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("models")
    base = tiny_model(1)
    return Folders(save(base, root / "base"), save(perturbed(base, 2, 0.05), root / "near"), save(base, root / "same"))


def contract(nuisances: dict[str, str]) -> Contract:
    """A small contract with the given null arms."""
    why = "a test"
    return Contract.model_validate({
        "kind": "contract", "schema_version": "1.0", "id": "test.v1", "title": why,
        "channels": [{"definition": "drift.boundary/1", "thresholds": [{"form": "ratio_of_sums", "value": 0.05}],
                      "rationale": why}],
        "nuisances": [{"id": name, "changes": key, "rationale": why} for name, key in nuisances.items()],
        "max_missing_competitor_share": 0.05, "min_positions_per_window": 1,
        "bootstrap": {"resamples": 1000, "alpha": 0.025, "batches": 20, "monte_carlo_errors": 4.0, "min_clusters": 50,
                      "min_clusters_per_stratum": 5, "rare_event_clusters": 10, "rare_event_resolution": 1e-6, "rationale": why},
        "tolerances": {"float32_unit": 6e-8, "accumulation": 1, "float64_relative": 1e-9, "reconstruction": 1e-5,
                       "rationale": why},
        "numbers": {"significant_digits": 9, "relative_tolerance": 1e-12, "rationale": why},
        "damage": {"definition": "damage.nll/1", "max_tolerance_nats": 1.0, "rationale": why},
        "success": {"definition": "success.mean/1", "max_tolerance": 0.5, "min_items": 1, "rationale": why},
        "notes": why,
    }, strict=False)  # fmt: skip


@dataclass(frozen=True)
class StudyFolder:
    """A pre-registered study on disk."""

    root: Path
    preregistration: Path
    contract: Path
    evidence: Path


MakeStudy = Callable[..., StudyFolder]


@pytest.fixture
def make_study(tmp_path: Path, folders: Folders) -> MakeStudy:
    """Make a study of the base with windows of two lengths."""

    def make(
        name: str = "study", *, windows: int = 7, base: Path = folders.base, nuisances: dict[str, str] | None = None,
        layers: tuple[int, ...] = (0, 2), arms: tuple[str, ...] = ("near", "same"),
    ) -> StudyFolder:  # fmt: skip
        root = tmp_path / name
        root.mkdir()
        chosen = contract({"batch": "batch_size"} if nuisances is None else nuisances)
        (root / "contract.json").write_text(document_text(chosen), encoding="utf-8")
        rows = [
            {"window_id": f"w{at}", "cluster_id": digest_bytes(b"%d" % at), "domain": "ab"[at % 2], "source": "made up",
             "licence": "CC0-1.0", "text": f"{at} lorem ipsum dolor sit amet"[: 24 - 4 * (at == 3)]}
            for at in range(windows)
        ]  # fmt: skip
        items = [
            {"item_id": f"i{at}", "prompt": f"say {at}:", "answer": "ab"[at % 2] * (1 + at % 2)} for at in range(5)
        ]
        for file, lines in (("windows.jsonl", rows), ("task.jsonl", items)):
            (root / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        plan = Plan(
            study="test", base=base, base_name="tiny", windows=root / "windows.jsonl", task=root / "task.jsonl",
            contract=chosen, protected_layers=layers, positions_per_window=4, first_allowed_position=1, overlap_pairs=6, target=0.5,
            tolerance=0.1, damage_tolerance_nats=0.1, pilot=None, notes="a test",
            arms=tuple(PlannedArm(name=arm, policy="test", chart_preserving=True) for arm in arms),
        )  # fmt: skip
        write_preregistration(plan, root / "preregistration.json")
        return StudyFolder(root, root / "preregistration.json", root / "contract.json", root / "evidence.duckdb")

    return make
