"""Identities of a checkpoint from its files alone: weights, configuration, tokenizer. No model is loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.errors import UsageError

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt")
"""Files that decide how text becomes tokens. Chat templates and display settings do not."""


def weights_digest(model: Path) -> str:
    """Return the digest over name, size and SHA-256 of every safetensors file. Refuses folders without any."""
    _require_folder(model)
    files = sorted(model.glob("*.safetensors"))
    if not files:
        pickled = sorted(p.name for p in model.glob("*.bin"))
        raise UsageError("There are no safetensors weights here.", where=str(model), expected="*.safetensors",
                         found=", ".join(pickled) or "no weight files",
                         todo="convert the checkpoint with save_pretrained(); pickled weights are never loaded")  # fmt: skip
    return _files_digest(files)


def config_digest(model: Path) -> str:
    """Return the SHA-256 of config.json."""
    _require_folder(model)
    path = model / "config.json"
    if not path.is_file():
        raise UsageError("The model has no config.json.", where=str(model))
    return digest_bytes(path.read_bytes())


def tokenizer_digest(model: Path) -> str:
    """Return the digest over the files that decide how text becomes tokens."""
    _require_folder(model)
    files = [model / name for name in TOKENIZER_FILES if (model / name).is_file()]
    if not files:
        raise UsageError("The model has no tokenizer files.", where=str(model), expected=" or ".join(TOKENIZER_FILES))
    return _files_digest(files)


def read_config(model: Path) -> dict[str, Any]:
    """Return the parsed config.json."""
    config_digest(model)
    try:
        loaded = json.loads((model / "config.json").read_bytes())
    except ValueError as error:
        raise UsageError("config.json is not JSON.", where=str(model / "config.json"), found=str(error)) from error
    if not isinstance(loaded, dict):
        raise UsageError("config.json is not an object.", where=str(model / "config.json"))
    return loaded


def _files_digest(files: list[Path]) -> str:
    entries = []
    for path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append({"name": path.name, "size": path.stat().st_size, "sha256": digest})
    return digest_document({"files": entries})


def _require_folder(model: Path) -> None:
    if not model.is_dir():
        raise UsageError("There is no model folder here.", where=str(model), expected="a folder with config.json and weights",
                         todo="check the path; models are read from disk, never fetched")  # fmt: skip
