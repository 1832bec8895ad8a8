"""Loading models from local folders: safetensors only, never code from a model repository."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from atlas_extractors.models.errors import ModelRefused
from atlas_extractors.models.families import FamilyRow, family_row
from atlas_schema import __version__
from atlas_schema.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("eager", "sdpa")
EXPERTS = ("grouped_mm", "eager")  # batched_mm copies weights per token and slot: never used
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a model is run: everything that may move its last bits. Becomes the numerics fingerprint."""

    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "eager"
    experts: str = "grouped_mm"
    batch_size: int = 16
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("dtype", self.dtype, tuple(DTYPES)),
            ("attention", self.attention, ATTENTIONS),
            ("experts", self.experts, EXPERTS),
        ):
            if value not in allowed:
                raise UsageError(
                    f"{name} {value!r} is not supported", expected="one of " + ", ".join(allowed), found=value
                )
        for name, number in (("batch size", self.batch_size), ("threads", self.threads)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1", expected="1 or more", found=str(number))

    def fingerprint(self) -> dict[str, Any]:
        """The numerics fingerprint as a JSON object; `docs/format.md` lists its keys."""
        return {
            "attention": self.attention,
            "batch_size": self.batch_size,
            "device": self.device,
            "dtype": self.dtype,
            "experts": self.experts,
            "libraries": {
                "atlas-schema": __version__,
                "python": ".".join(platform.python_version_tuple()[:2]),
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
            },
            "threads": self.threads,
        }


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes in which every arm must agree with its base."""

    model_type: str
    hidden_size: int
    vocab_size: int
    n_layers: int
    n_experts: int
    top_k: int


def check_folder(folder: Path) -> None:
    """Refuse what cannot be loaded safely, before any library opens it.

    Raises:
        ModelRefused: no folder, no `config.json`, custom code, an adapter that is not merged, no safetensors weights.
    """
    if not folder.is_dir():
        raise ModelRefused(
            "the model folder does not exist", where=str(folder), expected="a local folder with config.json",
            found="nothing", todo="give the path of a downloaded model; nothing is fetched from the network",
        )  # fmt: skip
    if (folder / "adapter_config.json").is_file():
        raise ModelRefused(
            "this folder holds an adapter, not a model", where=str(folder), expected="merged weights",
            found="adapter_config.json", todo="merge the adapter into its base (merge_and_unload) and save the result",
        )  # fmt: skip
    config = folder / "config.json"
    if not config.is_file():
        raise ModelRefused(
            "the model folder has no config.json", where=str(folder), expected="config.json", found="absent",
            todo="give the folder written by save_pretrained",
        )  # fmt: skip
    if "auto_map" in _json(config):
        raise ModelRefused(
            "this model wants to run code from its repository", where=str(config),
            expected="a family of the transformers library", found="auto_map",
            todo="convert the model to a library class; remote code is never run",
        )  # fmt: skip
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        raise ModelRefused(
            "the model has no safetensors weights", where=str(folder), expected="*.safetensors",
            found=", ".join(pickles) or "no weights", todo="save the model with save_pretrained; pickles are refused",
        )  # fmt: skip


def read_sizes(folder: Path) -> tuple[Sizes, FamilyRow]:
    """The sizes and the family row of a model folder, from its configuration alone.

    Raises:
        ModelRefused: the folder cannot be loaded safely.
        UnsupportedArchitecture: no row for its model type.
    """
    check_folder(folder)
    config = _config(folder)
    row = family_row(config.model_type)
    text = config.get_text_config()
    sizes = Sizes(
        model_type=config.model_type,
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        n_layers=int(text.num_hidden_layers),
        n_experts=int(getattr(text, row.n_experts)),
        top_k=int(getattr(text, row.top_k)),
    )
    return sizes, row


def check_same_sizes(base: Path, arm: Path) -> None:
    """Refuse an arm whose family, width, vocabulary, depth, experts or top-k differ from its base's."""
    expected, _ = read_sizes(base)
    found, _ = read_sizes(arm)
    for name in Sizes.__slots__:
        ours, theirs = getattr(expected, name), getattr(found, name)
        if ours != theirs:
            raise ModelRefused(
                f"the arm differs from its base in {name}", where=str(arm / "config.json"), expected=str(ours),
                found=str(theirs), todo="compare checkpoints that descend from one base without change of shape",
            )  # fmt: skip


def check_same_tokenizer(expected: str, found: str, *, where: Path, whose: str = "the base's") -> None:
    """Refuse a model whose tokenizer digest is not the expected one: positions would not be the same tokens."""
    if expected != found:
        raise ModelRefused(
            f"the tokenizer differs from {whose}", where=str(where), expected=expected, found=found,
            todo="save the arm with the base's own tokenizer files, or start a new study for this tokenizer",
        )  # fmt: skip


def load_model(folder: Path, execution: Execution, *, dtype: str | None = None) -> PreTrainedModel:
    """Load a model for evaluation; `dtype` overrides the execution's (the stored weights are read as `float32`).

    Raises:
        ModelRefused: unsafe folder, weights that do not fit the configuration, or an option the model rejects.
    """
    check_folder(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=DTYPES[execution.dtype if dtype is None else dtype],
            attn_implementation=execution.attention,
            experts_implementation=execution.experts,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelRefused(
            "the model cannot be loaded", where=str(folder), expected="weights and options that fit together",
            found=str(error).strip().splitlines()[0], todo="check the files; load it once with transformers alone",
        ) from error  # fmt: skip
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(name) for name in report.get(kind) or ())
        if names:
            raise ModelRefused(
                f"the weights do not fit the configuration: {kind.replace('_', ' ')}", where=str(folder),
                expected="every parameter exactly once", found=", ".join(names[:5]),
                todo="save the model again; parameters are never filled with random values",
            )  # fmt: skip
    try:
        model.to(execution.device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise UsageError(
            f"device {execution.device!r} cannot be used", expected="a torch device of this machine",
            found=str(error).splitlines()[0],
        ) from error  # fmt: skip
    model.requires_grad_(False)
    return model.eval()


def _config(folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelRefused(
            "the configuration cannot be read", where=str(folder / "config.json"), expected="a transformers config",
            found=str(error).strip().splitlines()[0],
        ) from error  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(
            "the configuration cannot be read", where=str(path), expected="a JSON object", found=str(error)
        ) from error
    return value if isinstance(value, dict) else {}
