"""Filling a judgement field: the document and the log's step are written together, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atlas_schema.documents.base import Document, Judgement
from atlas_schema.documents.judgements import judgement_fields, pointer, set_at
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.schema import MODELS
from atlas_schema.errors import DocumentError, UsageError
from atlas_schema.files import document_text, read_bytes, read_document, write_atomically
from atlas_schema.protocol.judgement import DOCUMENT, JUDGEMENT, judgement_digest, subject_digest
from atlas_schema.protocol.log import append_step, now, read_log


def open_document(path: Path) -> Document:
    """Read a document of any kind. Raises `DocumentError` or `UsageError` that names the file."""
    try:
        value = json.loads(read_bytes(path, "document"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DocumentError("The document is not JSON.", where=str(path), found=str(error)) from error
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in MODELS:
        raise DocumentError(
            "The document is of no known kind.", where=str(path), found=str(kind)[:80], expected=", ".join(MODELS)
        )
    return read_document(path, MODELS[kind], kind)


def decides(document: Document) -> bool:
    """Return whether a document claims something that verification decides; the form of any other can be verified only."""
    return isinstance(document, Receipt) or (isinstance(document, Measurement) and bool(document.claims))


def choose(document: Document) -> list[str]:
    """Return one line per judgement field of a document."""
    lines = []
    for path, made in judgement_fields(document):
        asks = _asks(document, path)
        state = f"judged by {made.author} at {made.time}" if made else "blank"
        lines.append(f"{pointer(path)}  {state}" + (f"  {asks}" if asks else ""))
    return lines or ["This document has no judgement fields."]


def require_blank(document: Document, field: str) -> str:
    """Return what a blank judgement field asks, or raise `UsageError` for any other field."""
    fields = {pointer(path): (path, made) for path, made in judgement_fields(document)}
    if field not in fields:
        raise UsageError("This is no judgement field of the document.", found=field, expected=", ".join(fields) or "it has none",
                         todo="atlas judge FILE lists the fields; nothing else may be filled by hand")  # fmt: skip
    path, made = fields[field]
    if made is not None:
        raise UsageError("This judgement was made; it is never overwritten.", where=field, found=f"{made.author}, {made.time}",
                         todo="issue the document anew and judge that")  # fmt: skip
    return _asks(document, path)


def _asks(document: Document, path: tuple[str | int, ...]) -> str:
    """Return the question beside a field, for documents that state one."""
    value: Any = document.model_dump(mode="json")
    for part in path[:-1]:
        value = value[part]
    return str(value["asks"]) if isinstance(value, dict) and "asks" in value else ""


def require_judgeable_log(log: Path) -> None:
    """Refuse a log that does not exist or holds no run: there is nothing to judge."""
    if not log.exists():
        raise UsageError("There is no run log; a judgement is recorded in one.", where=str(log),
                         todo="name it with --log; it is the log that the document came with")  # fmt: skip
    if not any(step.step == "extract" for step in read_log(log).steps):
        raise UsageError(
            "The log holds no run; there is nothing to judge yet.", where=str(log), todo="record the run first"
        )


def fill(path: Path, document: Document, field: str, log: Path, value: str, basis: str, author: str) -> Judgement:
    """Write a person's judgement into its field, and the step into the log. The caller has asked the person.

    The step comes first: a log that says more than a document is honest, a document that says more than its log is not.
    """
    require_blank(document, field)
    require_judgeable_log(log)
    place = next(at for at, _ in judgement_fields(document) if pointer(at) == field)
    time = max(now(), read_log(log).steps[-1].time)
    try:
        made = Judgement(value=value, author=author, time=time, basis=basis)
    except ValidationError as error:
        raise UsageError("The answer does not fit.", where=str(error.errors()[0]["loc"]), found=error.errors()[0]["msg"],
                         todo="a judgement has a value, an author and a basis, in words") from error  # fmt: skip
    filled = set_at(document.model_dump(mode="json"), place, made.model_dump(mode="json"))
    after = type(document).model_validate_json(json.dumps(filled))
    append_step(log, step="judge", actor="technician", time=time, inputs={DOCUMENT: subject_digest(document)},
                outputs={JUDGEMENT + field: judgement_digest(document, place, made)})  # fmt: skip
    write_atomically(path, document_text(after))
    return made
