"""The raw format, ``atlas-raw/1``: JSON Lines that any runner can write. Its reference is `docs/protocol.md`, Raw output.

The first line is the run, every other line one output. The reader is the strict one of `verify.reading`; errors name
file and line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.base import Count, Digest, Document, Identifier, Line, Name, Number, Positive, Time
from atlas_schema.documents.measurement import Condition, Date, Instrument, ModelSpecification
from atlas_schema.errors import AtlasError, DocumentError, UsageError
from atlas_schema.limits import LIMITS
from atlas_schema.verify.reading import pointer, read_json

D = TypeVar("D", bound=Document)
PROBABILITY_SLACK = 1e-6
"""Log-probabilities up to this count as 0: float32 softmaxes end a little above it."""
LINE_LIMITS = replace(LIMITS, document_bytes=LIMITS.raw_line_bytes, string_bytes=LIMITS.raw_line_bytes)
StimulusPart = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$", max_length=64)]


class RawError(AtlasError):
    """Raw output that cannot be transcribed, with the line that is to blame."""


class Stimulus(Document):
    """The registered version of what the model was given, and the digest of its bytes."""

    name: StimulusPart
    version: StimulusPart
    digest: Digest


class Ask(Document):
    """A judgement that the instrument needs, once per run or once per output."""

    field: Name
    asks: Line
    per: Literal["run", "output"]


class RawRun(Document):
    """The first line: which model ran, on what, when, in which process, for whom.

    ``scored`` is the text that ``logprobs`` are about.
    """

    record: Literal["run"]
    format: Literal["atlas-raw/1"]
    id: Identifier
    title: Line
    instrument: Instrument
    model: ModelSpecification
    date: Date
    conditions: Annotated[tuple[Condition, ...], Field(max_length=256)]
    stimulus: Stimulus
    party: Annotated[Line, Field(max_length=200)]
    process: Digest
    started: Time
    ended: Time
    scored: Literal["input", "output", "none"]
    axis: Name
    questions: Annotated[tuple[Ask, ...], Field(max_length=64)]


class RawOutput(Document):
    """Another line: one input and what the model made of it. What the runner does not know is null."""

    record: Literal["output"]
    id: Identifier
    group: Identifier | None
    input: str
    input_tokens: Positive | None
    output: str
    output_tokens: Count | None
    logprobs: Annotated[tuple[Number, ...], Field(min_length=1, max_length=LIMITS.raw_logprobs)] | None


@dataclass(frozen=True, slots=True)
class Raw:
    """A whole file, with the digest of its bytes."""

    digest: str
    run: RawRun
    outputs: tuple[RawOutput, ...]


def read_raw(path: Path) -> Raw:
    """Read a file of raw output. Raises `RawError` or `UsageError`; nothing is read beyond the limits."""
    try:
        with path.open("rb") as stream:
            data = stream.read(LIMITS.raw_bytes + 1)
    except OSError as error:
        raise UsageError(
            "The raw output cannot be read.", where=str(path), found=error.strerror or str(error), todo="check the path"
        ) from error
    return parse_raw(data, str(path))


def parse_raw(data: bytes, name: str) -> Raw:
    """Parse raw output. ``name`` is what messages call it."""
    if len(data) > LIMITS.raw_bytes:
        raise RawError(
            "The raw output is too large.",
            where=name,
            expected=f"at most {LIMITS.raw_bytes} bytes",
            todo="split the run",
        )
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        raise RawError(
            "The raw output holds no output.",
            where=name,
            expected="a line for the run, then a line per output",
            found=f"{len(lines)} lines",
        )
    if len(lines) - 1 > LIMITS.raw_outputs:
        raise RawError(
            "The raw output holds too many outputs.",
            where=name,
            expected=f"at most {LIMITS.raw_outputs}",
            found=str(len(lines) - 1),
            todo="split the run",
        )
    run = _line(lines[0], RawRun, name, 1)
    if run.ended < run.started:
        raise RawError(
            "The run ended before it began.",
            where=f"{name}, line 1",
            expected=f"ended not before {run.started}",
            found=run.ended,
        )
    outputs = tuple(_line(line, RawOutput, name, number) for number, line in enumerate(lines[1:], 2))
    _require_agreement(run, outputs, name)
    return Raw(digest_bytes(data), run, outputs)


def _line(line: bytes, model: type[D], name: str, number: int) -> D:
    where = f"{name}, line {number}"
    if not line.strip():
        raise RawError("A line is empty.", where=where, todo="remove it; one record per line")
    try:
        read_json(line, LINE_LIMITS)
        return model.model_validate_json(line)
    except DocumentError as error:
        raise RawError(
            error.what.replace("document", "line"),
            where=where + (f":{error.where.rpartition(':')[2]}" if ":" in error.where else ""),
            expected=error.expected,
            found=error.found,
            todo="one JSON object per line, in UTF-8",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        expected = "the first line is the run" if model is RawRun else "every line but the first is an output"
        raise RawError(
            f"A line does not have its shape ({expected}).",
            where=f"{where} at {pointer(tuple(first['loc']))}",
            found=f"{first['msg']}: {str(first['input'])[:80]}",
            todo="docs/protocol.md, Raw output, lists every field",
        ) from error


def _require_agreement(run: RawRun, outputs: tuple[RawOutput, ...], name: str) -> None:
    """Lines agree with the run and with each other: a number that only some outputs have is no series."""
    seen: dict[str, int] = {}
    for number, output in enumerate(outputs, 2):
        where = f"{name}, line {number}"
        if output.id in seen:
            raise RawError(
                "An id stands twice.",
                where=where,
                found=f"{output.id}, also in line {seen[output.id]}",
                todo="give every output its own",
            )
        seen[output.id] = number
        for field in ("group", "input_tokens", "output_tokens"):
            if (getattr(output, field) is None) != (getattr(outputs[0], field) is None):
                raise RawError(
                    f"Some outputs have '{field}' and others do not.",
                    where=where,
                    expected="as in line 2",
                    todo="give it everywhere or nowhere",
                )
        if (output.logprobs is None) != (run.scored == "none"):
            raise RawError(
                "Log-probabilities and 'scored' do not agree.",
                where=where,
                expected=f"scored is '{run.scored}'",
                found="none" if output.logprobs is None else f"{len(output.logprobs)} log-probabilities",
            )
        _require_probabilities(run, output, where)
    fields = [q.field for q in run.questions]
    if len(set(fields)) != len(fields):
        raise RawError("A question stands twice.", where=f"{name}, line 1 at /questions", found=", ".join(fields))


def _require_probabilities(run: RawRun, output: RawOutput, where: str) -> None:
    for i, value in enumerate(output.logprobs or ()):
        if value > PROBABILITY_SLACK:
            raise RawError(
                "A probability is greater than 1.",
                where=f"{where} at /logprobs/{i}",
                found=str(value),
                expected="a natural logarithm, at most 0",
                todo="write log-probabilities, not logits or probabilities",
            )
    tokens = output.input_tokens if run.scored == "input" else output.output_tokens
    if output.logprobs is not None and tokens is not None and len(output.logprobs) not in (tokens, tokens - 1):
        raise RawError(
            "The log-probabilities are not one per token.",
            where=where,
            found=f"{len(output.logprobs)} for {tokens} tokens",
            expected=f"{tokens}, or {tokens - 1} without the first token",
        )
