"""The probe: windows of text and task items, their tokens, and the positions sampled from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atlas_schema.canonical import digest_bytes, raw_digest
from atlas_schema.errors import UsageError
from atlas_schema.files import read_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class ProbeWindow:
    """One window of text; ``cluster_id`` is the digest of its source document."""

    window_id: str
    cluster_id: str
    domain: str
    source: str
    licence: str
    text: str
    split: str = "probe"


@dataclass(frozen=True, slots=True)
class ProbeItem:
    """One task item: the model is shown ``prompt`` and must continue with ``answer``."""

    item_id: str
    prompt: str
    answer: str
    domain: str = ""


def load_windows(path: Path) -> list[ProbeWindow]:
    """Read windows from JSON Lines, sorted by id. Raises `UsageError` naming the line that is wrong."""
    required = ("window_id", "cluster_id", "domain", "source", "licence", "text")
    rows = _lines(path, required, (*required, "split"), "window_id")
    return [ProbeWindow(**{name: row[name] for name in (*required, "split") if name in row}) for row in rows]


def load_items(path: Path) -> list[ProbeItem]:
    """Read task items from JSON Lines, sorted by id. Other fields (source, licence) are documentation."""
    required = ("item_id", "prompt", "answer")
    rows = _lines(path, required, None, "item_id")
    return [ProbeItem(row["item_id"], row["prompt"], row["answer"], row.get("domain", "")) for row in rows]


def _lines(path: Path, required: tuple[str, ...], allowed: tuple[str, ...] | None, key: str) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    try:
        text = read_bytes(path, "probe file").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            "The probe file is not UTF-8.", where=f"{path}, byte {error.start}", found=error.reason
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError("A line of the probe file is not JSON.", where=where, found=str(error)) from error
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) and row[name] for name in required):
            raise UsageError("A line of the probe file lacks a field.", where=where, expected=", ".join(required))
        if allowed is not None and set(row) - set(allowed):
            extra = ", ".join(sorted(set(row) - set(allowed)))
            raise UsageError("A line of the probe file has a field nobody reads.", where=where, found=extra)
        if row[key] in rows:
            raise UsageError("Two lines of the probe file have the same id.", where=where, found=row[key])
        rows[row[key]] = row
    if not rows:
        raise UsageError("The probe file is empty.", where=str(path))
    return [rows[name] for name in sorted(rows)]


def load_tokenizer(model: Path) -> Tokenizer:
    """Load ``tokenizer.json`` of a checkpoint; extraction and pre-registration tokenize with this and nothing else."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError(
            "Tokenizing needs the package 'tokenizers'.", todo="pip install 'atlas-schema[extract]'"
        ) from error
    path = model / "tokenizer.json"
    if not path.is_file():
        raise UsageError("The model has no tokenizer.json.", where=str(model),
                         todo="save the tokenizer with AutoTokenizer.from_pretrained(...).save_pretrained(...)")  # fmt: skip
    try:
        return Tokenizer.from_buffer(read_bytes(path, "tokenizer"))
    except ValueError as error:
        raise UsageError("The tokenizer cannot be read.", where=str(path), found=str(error),
                         todo="save the tokenizer anew, with this or an older version of 'tokenizers'") from error  # fmt: skip


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text, with the special tokens that the tokenizer adds by itself."""
    return list(tokenizer.encode(text).ids)


def predicted_bytes(tokenizer: Tokenizer, text: str) -> int:
    """Return the UTF-8 bytes of a text from its second token on: what predictions of the next token are about.

    A tokenizer that splits characters gives both halves the character's offset; the second then counts it whole.
    """
    offsets = tokenizer.encode(text).offsets
    start = offsets[1][0] if len(offsets) > 1 else len(text)
    return len(text[start:].encode())


def token_digest(tokens: Sequence[int]) -> str:
    """Return the digest of a token sequence: a tag, the count and the ids as little-endian u32."""
    return digest_bytes(b"atlas-tokens/1\0" + np.array([len(tokens), *tokens], dtype="<u4").tobytes())


def item_digest(prompt: Sequence[int], answer: Sequence[int]) -> str:
    """Return the digest of a task item's tokens."""
    return digest_bytes(b"atlas-item/1\0" + (token_digest(prompt) + token_digest(answer)).encode())


def positions_for(digest: str, n_tokens: int, count: int, first_allowed: int) -> list[int]:
    """Return the sampled positions of a window, ascending: a counter generator keyed by the window's token digest.

    A partial Fisher-Yates shuffle of ``first_allowed .. n_tokens - 1``. Raises `UsageError` for windows too short.
    """
    eligible = list(range(first_allowed, n_tokens))
    if len(eligible) < count:
        raise UsageError("A window is too short for its sampled positions.", found=f"{len(eligible)} eligible tokens",
                         expected=f"at least {count}", todo="use longer windows or fewer positions per window")  # fmt: skip
    seed = hashlib.sha256(b"atlas-positions/1\0" + raw_digest(digest)).digest()
    generator = np.random.Philox(key=np.frombuffer(seed[:16], dtype="<u8").astype(np.uint64), counter=0)
    for i, raw in enumerate(generator.random_raw(count)):
        j = i + int(float(int(raw) >> 11) * 2.0**-53 * (len(eligible) - i))
        eligible[i], eligible[j] = eligible[j], eligible[i]
    return sorted(eligible[:count])
