"""The judgement boundary: what a judgement is about, what the log holds of it, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from atlas_schema.canonical import digest_document
from atlas_schema.documents.base import Document, Judgement
from atlas_schema.documents.judgements import Path, blank, judgement_fields, pointer
from atlas_schema.documents.read import Read
from atlas_schema.documents.run_log import Step

JUDGEMENT = "judgement "
"""Begins the name of the artefact under which a judgement is logged; the field's pointer follows."""
DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A judgement or Read that the log does not bear out."""

    path: Path
    what: str
    stated: str
    expected: str
    todo: str


def judgement_digest(document: Document, path: Path, made: Judgement) -> str:
    """Return the digest that the log holds of a judgement: its content, its field, and the document without judgements."""
    return digest_document(
        {"document": subject_digest(document), "field": pointer(path), "judgement": made.model_dump(mode="json")}
    )


def subject_digest(document: Document) -> str:
    """Return the digest of a document with every judgement blank."""
    return digest_document(blank(document))


def judgement_doubts(document: Document, steps: Sequence[Step] | None) -> Iterator[Doubt]:
    """Yield what is wrong with the filled judgements of a document. ``steps`` is None where there is no log."""
    for path, made in judgement_fields(document):
        if made is None:
            continue
        empty = [name for name, text in made if not text.strip()]
        if empty:
            yield Doubt(path, f"A judgement has no {' and no '.join(empty)}.", "white space", "words of a person",
                        "blank the field; atlas judge asks for all of them")  # fmt: skip
        if steps is not None:
            yield from _logged(document, path, made, steps)


def _logged(document: Document, path: Path, made: Judgement, steps: Sequence[Step]) -> Iterator[Doubt]:
    wanted = judgement_digest(document, path, made)
    name = JUDGEMENT + pointer(path)
    found = next((s for s in steps if s.step == "judge" and any(a == (name, wanted) for a in _pairs(s))), None)
    advice = "blank the field; atlas judge FILE FIELD asks a person and records it"
    if found is None:
        others = [s for s in steps if any(a == (name, wanted) for a in _pairs(s))]
        stated = f"{made.author}, {made.time}"
        if others:
            yield Doubt(
                path, f"The log holds this judgement under a step '{others[0].step}'.", stated, "a step 'judge'", advice
            )
        else:
            yield Doubt(path, "The log holds no step in which a person made this judgement of this document.", stated,
                        f"a step 'judge' by a technician with {name} {wanted}", advice)  # fmt: skip
    elif found.actor != "technician":
        yield Doubt(path, f"The judgement was made by {found.actor}.", found.actor, "technician", advice)
    elif found.time != made.time:
        yield Doubt(path, "The judgement and its step have different times.", made.time, found.time, advice)


def _pairs(step: Step) -> list[tuple[str, str]]:
    return [(a.name, a.digest) for a in step.outputs]


def read_doubts(read: Read, steps: Sequence[Step]) -> Iterator[Doubt]:
    """Yield what the log does not bear out of a Read."""
    name = "read0" if read.moment == "before_first_run" else "read1"
    digest = digest_document(read.model_dump(mode="json"))
    found = next((s for s in steps if s.step == name and any(d == digest for _, d in _pairs(s))), None)
    empty = [n for n in ("author", "text", "surprise") if not str(getattr(read, n)).strip()]
    if empty:
        yield Doubt(
            (empty[0],),
            f"A Read has no {' and no '.join(empty)}.",
            "white space",
            "words of a person",
            f"atlas log {name}",
        )
    if found is None:
        yield Doubt((), f"The log holds no step '{name}' with this Read.", digest, f"a step '{name}' by a technician",
                    f"a Read counts from when it is logged: atlas log {name}")  # fmt: skip
        return
    before: Any = steps[found.index - 1].hash if found.index else None
    if read.log_head != before:
        yield Doubt(
            ("log_head",),
            "The Read was written at another place of the log.",
            str(read.log_head),
            str(before),
            "give the Read as it was logged",
        )
    if read.time != found.time:
        yield Doubt(
            ("time",),
            "The Read and its step have different times.",
            read.time,
            found.time,
            "give the Read as it was logged",
        )
