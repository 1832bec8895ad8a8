"""Judgement fields: where a document leaves room for a person's call. The models say where, nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from atlas_schema.documents.base import Document, Judgement

Path = tuple[str | int, ...]


def judgement_fields(document: Document, at: Path = ()) -> Iterator[tuple[Path, Judgement | None]]:
    """Yield the path and content of every field that only a person may fill, blank ones too."""
    if not _may_hold(type(document)):
        return
    for name, field in type(document).model_fields.items():
        value = getattr(document, name)
        if Judgement in get_args(field.annotation) or field.annotation is Judgement:
            yield (*at, name), value
        else:
            yield from _inside(value, (*at, name))


@cache
def _may_hold(model: type[Document]) -> bool:
    """Whether a judgement has a place anywhere in documents of a model: most parts of a receipt need no look."""
    return Judgement.__name__ in model.model_json_schema().get("$defs", {})


def _inside(value: Any, at: Path) -> Iterator[tuple[Path, Judgement | None]]:
    if isinstance(value, Document):
        yield from judgement_fields(value, at)
    elif isinstance(value, (tuple, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _inside(part, (*at, key))


def pointer(path: Path) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def set_at(value: Any, path: Path, new: Any) -> Any:
    """Return a parsed document with the value at a path replaced; the path must exist."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, first: set_at(value[first], rest, new)}
    return [set_at(part, rest, new) if i == first else part for i, part in enumerate(value)]


def blank(document: Document) -> Any:
    """Return a document as a JSON value with every judgement blank: what judgements are about."""
    value: Any = document.model_dump(mode="json")
    for path, _ in judgement_fields(document):
        value = set_at(value, path, None)
    return value
