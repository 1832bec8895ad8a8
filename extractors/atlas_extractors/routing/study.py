"""What an extraction is bound to: the pre-registration, its contract and its probe, each checked against its digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import UsageError
from atlas_schema.files import read_bytes, read_document
from atlas_schema.study.contracts import contract_digest, load_contract
from atlas_schema.study.probe import (
    encode,
    item_digest,
    load_items,
    load_tokenizer,
    load_windows,
    positions_for,
    predicted_bytes,
    token_digest,
)

Tokens = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One task item as tokens: prompt followed by answer."""

    item_id: str
    tokens: Tokens
    answer_length: int


@dataclass(frozen=True, slots=True)
class Study:
    """A validated pre-registration with the tokens it names. `tokens` and `positions` follow its window order."""

    path: Path
    preregistration: Preregistration
    digest: str
    contract: Contract
    tokens: tuple[Tokens, ...]
    positions: tuple[tuple[int, ...], ...]
    items: tuple[TaskItem, ...]


def open_study(path: Path, base: Path, contract: Path | None = None) -> Study:
    """Read the study at `path` and tokenize its probe with the base's tokenizer.

    Raises:
        UsageError: a file is missing or its digest, or the digest of a window's or item's tokens, is not the
            pre-registered one.
    """
    preregistration = read_document(path, Preregistration, "pre-registration")
    chosen = _contract(preregistration, contract)
    tokenizer = load_tokenizer(base)
    folder = path.parent
    _require_file(folder / preregistration.probe.file, preregistration.probe.digest, "probe file")
    _require_file(folder / preregistration.task.file, preregistration.task.digest, "task file")
    texts = {window.window_id: window.text for window in load_windows(folder / preregistration.probe.file)}
    tokens, positions = [], []
    for window in preregistration.windows:
        where = f"{preregistration.probe.file}, window {window.window_id}"
        if window.window_id not in texts:
            raise UsageError("A pre-registered window is not in the probe file.", where=where)
        ids = encode(tokenizer, texts[window.window_id])
        _require_digest(token_digest(ids), window.token_digest, "window", where)
        _require_bytes(predicted_bytes(tokenizer, texts[window.window_id]), window.predicted_bytes, where)
        tokens.append(np.array(ids, dtype=np.uint32))
        sampled = positions_for(
            window.token_digest, len(ids), preregistration.positions_per_window, preregistration.first_allowed_position
        )
        positions.append(tuple(sampled))
    items = []
    prompts = {item.item_id: item for item in load_items(folder / preregistration.task.file)}
    for planned in preregistration.task.items:
        where = f"{preregistration.task.file}, item {planned.item_id}"
        if planned.item_id not in prompts:
            raise UsageError("A pre-registered item is not in the task file.", where=where)
        item = prompts[planned.item_id]
        prompt, answer = encode(tokenizer, item.prompt), encode(tokenizer, item.answer)
        _require_digest(item_digest(prompt, answer), planned.digest, "task item", where)
        items.append(TaskItem(planned.item_id, np.array([*prompt, *answer], dtype=np.uint32), len(answer)))
    return Study(
        path, preregistration, digest_document(preregistration.model_dump(mode="json")), chosen,
        tuple(tokens), tuple(positions), tuple(items),
    )  # fmt: skip


def _contract(preregistration: Preregistration, path: Path | None) -> Contract:
    cited = preregistration.contract
    chosen = load_contract(cited.id) if path is None else read_document(path, Contract, "contract")
    if chosen.id != cited.id or contract_digest(chosen) != cited.digest:
        raise UsageError(
            "The contract is not the one the pre-registration cites.", where=str(path or "built-in contracts"),
            expected=f"{cited.id} {cited.digest}", found=f"{chosen.id} {contract_digest(chosen)}",
            todo="give the cited contract with --contract",
        )  # fmt: skip
    return chosen


def _require_file(path: Path, expected: str, what: str) -> None:
    found = digest_bytes(read_bytes(path, what))
    if found != expected:
        raise UsageError(
            f"The {what} is not the pre-registered one.", where=str(path), expected=expected, found=found,
            todo="restore the file that was pre-registered, or start a new study",
        )  # fmt: skip


def _require_bytes(found: int, expected: int, where: str) -> None:
    if found != expected:
        raise UsageError(
            "The predicted bytes of a window are not the pre-registered ones.", where=where, expected=str(expected),
            found=str(found), todo="use the base and the tokenizers version that the pre-registration was made with",
        )  # fmt: skip


def _require_digest(found: str, expected: str, what: str, where: str) -> None:
    if found != expected:
        raise UsageError(
            f"The tokens of a {what} are not the pre-registered ones.", where=where, expected=expected, found=found,
            todo="use the base whose tokenizer the pre-registration was made with",
        )  # fmt: skip
