"""Channels admission and schema: bytes in, typed documents out, or problems with positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from atlas_schema.documents.base import Document
from atlas_schema.documents.schema import MODELS, schema_errors
from atlas_schema.errors import DocumentError
from atlas_schema.verify.outcome import Channel, Problem, Report
from atlas_schema.verify.protocol import typed_tiers
from atlas_schema.verify.reading import pointer, positions, read_json

SHOWN = 20
"""How many faults of one document are reported, by rule."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document that was admitted and has its shape. ``raw`` serves positions in messages."""

    name: str
    raw: bytes
    value: Any
    model: Document


def parse(name: str, raw: bytes, expected_kind: str | None, report: Report) -> Parsed | None:
    """Admit and type one document, recording what is wrong. Returns None where nothing more can be done with it."""
    admission, shape = report.channel(Channel.ADMISSION), report.channel(Channel.SCHEMA)
    try:
        value = read_json(raw)
    except DocumentError as error:
        admission.check()
        admission.report(Problem("ATL-A001", error.what, document=name, where=error.where, stated=error.found,
                                 recomputed=error.expected, todo=error.todo))  # fmt: skip
        return None
    admission.check()
    shape.check()
    kind = value.get("kind") if isinstance(value, dict) else None
    wanted = expected_kind or kind
    if not isinstance(kind, str) or kind != wanted or kind not in MODELS:
        shape.report(Problem("ATL-S001", "The document is of another kind.", document=name, path=("kind",),
                             stated=str(kind), recomputed=expected_kind or f"one of {', '.join(MODELS)}",
                             todo="give the file of the kind that is asked for"))  # fmt: skip
        return None
    typed = list(islice(typed_tiers(value), SHOWN))  # as many as are shown: a document can hold a million of them
    places = positions(raw, [problem.path for problem in typed])
    for problem in typed:
        report.channel(Channel.CONTRACT).check()
        report.channel(Channel.CONTRACT).report(replace(problem, document=name, position=places.get(problem.path)))
    try:
        return Parsed(name, raw, value, MODELS[kind].model_validate_json(raw))
    except ValidationError as error:
        # Models and schema.json accept the same documents, which tests hold; the schema says better what is wrong.
        first = error.errors()[0]
        wrong = schema_errors(value, kind)[:SHOWN] or [(tuple(first["loc"]), first["msg"])]
        places = positions(raw, [path for path, _ in wrong])
        for path, message in wrong:
            shape.report(Problem("ATL-S001", message[:300], document=name, path=path, position=places.get(path),
                                 where=pointer(path), todo=f"atlas schema {kind} prints the shape"))  # fmt: skip
        return None
