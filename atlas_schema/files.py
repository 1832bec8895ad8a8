"""Reading and writing documents on disk: the I/O shell that technicians' commands share."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from atlas_schema.documents.base import Document
from atlas_schema.errors import DocumentError, UsageError

D = TypeVar("D", bound=Document)


def read_bytes(path: Path, what: str) -> bytes:
    """Return a file's bytes, or raise `UsageError` that says which file is missing for what."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The {what} cannot be read.", where=str(path), found=error.strerror or str(error),
                         todo="check the path") from error  # fmt: skip


def read_document(path: Path, model: type[D], what: str) -> D:
    """Read a document of one kind written by these tools. Raises `DocumentError` naming the first wrong field.

    A key that stands twice is refused as verification refuses it: this reader would take the last, an editor shows the first.
    """
    raw = read_bytes(path, what)
    try:
        json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"The {what} is not JSON.", where=str(path), found=str(error),
                            todo="obtain the file again") from error  # fmt: skip
    except _TwiceError as error:
        raise DocumentError(f"The {what} has the same key twice.", where=str(path), found=ascii(str(error))[:80],
                            expected="each key once", todo="nobody can know which of the two was meant") from error  # fmt: skip
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "/" + "/".join(str(part) for part in first["loc"])
        raise DocumentError(f"The {what} does not have its declared shape.", where=f"{path} at {pointer}",
                            found=first["msg"], todo="atlas schema prints the shape of every document kind") from error  # fmt: skip


class _TwiceError(Exception):
    """A key that stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _TwiceError(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return made


def document_text(document: Document) -> str:
    """Return the form in which documents are written: two-space indents, fields in order of declaration."""
    return json.dumps(document.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old content or the new, never half of it."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError("A file could not be written.", where=str(path), found=error.strerror or str(error),
                      todo="check that the folder exists, is writable, and has space")  # fmt: skip
