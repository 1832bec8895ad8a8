"""The run log: the protocol's steps in order, each hash-chained to the one before. Times and hosts live here only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from atlas_schema.documents.base import Count, Digest, Document, Line, Time

StepName = Literal["declare", "stimulus", "read0", "extract", "transcribe", "read1", "issue", "verify", "judge"]
Actor = Literal["automation", "technician", "model"]


class Artefact(Document):
    """Something a step read or made."""

    name: Line
    digest: Digest


class Step(Document):
    """One step. ``hash`` is the digest of the step's canonical form without that field."""

    index: Count
    step: StepName
    actor: Actor
    tool: Line
    time: Time
    inputs: Annotated[tuple[Artefact, ...], Field(max_length=64)]
    outputs: Annotated[tuple[Artefact, ...], Field(max_length=64)]
    previous: Digest | None
    hash: Digest


class RunLog(Document):
    """The steps of one study."""

    kind: Literal["run_log"]
    schema_version: Literal["1.0"]
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=10_000)]
