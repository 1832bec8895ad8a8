"""What is refused before and while a model is loaded, and that the message says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from atlas_extractors.models.errors import ModelRefused, UnsupportedArchitecture
from atlas_extractors.models.loading import (
    Execution,
    check_folder,
    check_same_sizes,
    check_same_tokenizer,
    load_model,
    read_sizes,
)
from safetensors.torch import load_file, save_file
from tiny_world import Folders, byte_tokenizer, save, tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

from atlas_schema.errors import UsageError
from atlas_schema.study.identity import tokenizer_digest


def _copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_a_model_loads_in_evaluation_mode_without_gradients(folders: Folders) -> None:
    model = load_model(folders.base, Execution())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_stored_half_precision_widens_exactly(folders: Folders) -> None:
    stored = load_file(folders.base / "model.safetensors")
    model = load_model(folders.base, Execution())
    name = "model.layers.0.mlp.gate.weight"
    assert torch.equal(dict(model.named_parameters())[name], stored[name].float())


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _remote_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_no_folder, "does not exist"), (_no_config, "no config.json"), (_pickle, "pytorch_model.bin"),
     (_remote_code, "run code"), (_adapter, "merge")],
)  # fmt: skip
def test_unsafe_or_incomplete_folders_are_refused(
    damage: Callable[[Path], None], message: str, folders: Folders, tmp_path: Path
) -> None:
    folder = _copy(folders.base, tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelRefused) as refusal:
        check_folder(folder)
    text = str(refusal.value)
    assert message in text
    assert str(folder) in text
    assert refusal.value.todo


def _drop(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _extra(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.extra": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"), [(_drop, "missing keys"), (_extra, "unexpected keys"), (_truncate, "cannot be loaded")]
)
def test_weights_that_do_not_fit_are_never_filled_in(
    damage: Callable[[Path], None], message: str, folders: Folders, tmp_path: Path
) -> None:
    folder = _copy(folders.base, tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelRefused, match=message):
        load_model(folder, Execution())


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"hidden_size": 64}, "hidden_size"), ({"vocab_size": 300}, "vocab_size"), ({"num_hidden_layers": 2}, "n_layers"),
     ({"num_experts": 4}, "n_experts"), ({"num_experts_per_tok": 1}, "top_k")],
)  # fmt: skip
def test_an_arm_of_another_shape_is_refused(
    changes: dict[str, int], name: str, folders: Folders, tmp_path: Path
) -> None:
    arm = save(tiny_model(1, **changes), tmp_path / "arm")
    with pytest.raises(ModelRefused, match=name) as refusal:
        check_same_sizes(folders.base, arm)
    assert refusal.value.expected
    assert refusal.value.found
    check_same_sizes(folders.base, folders.near)


def test_another_tokenizer_is_refused(folders: Folders, tmp_path: Path) -> None:
    arm = _copy(folders.near, tmp_path / "arm")
    byte_tokenizer(extra=("lorem",)).save_pretrained(arm)
    base = tokenizer_digest(folders.base)
    check_same_tokenizer(base, tokenizer_digest(folders.near), where=folders.near)
    with pytest.raises(ModelRefused, match="tokenizer differs from the base's"):
        check_same_tokenizer(base, tokenizer_digest(arm), where=arm)


def test_an_unknown_architecture_is_refused_from_its_configuration(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    with pytest.raises(UnsupportedArchitecture, match="llama"):
        read_sizes(tmp_path / "llama")


@pytest.mark.parametrize(
    "wrong", [{"dtype": "int8"}, {"attention": "flash"}, {"experts": "batched_mm"}, {"batch_size": 0}, {"threads": 0}]
)
def test_unsupported_execution_is_a_usage_error(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Execution(**wrong)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_a_usage_error(folders: Folders) -> None:
    with pytest.raises(UsageError, match="device"):
        load_model(folders.base, Execution(device="cuda:7" if not torch.cuda.is_available() else "nowhere"))
