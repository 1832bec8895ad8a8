"""The pre-registration: everything that could be tuned after seeing results, fixed before extraction."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from atlas_schema.documents.base import (
    Count,
    Digest,
    Document,
    DocumentReference,
    FileName,
    Identifier,
    Line,
    Name,
    NonNegative,
    Positive,
    Share,
    Time,
)


class Window(Document):
    """One probe window. Windows of one source document share ``cluster_id`` and are resampled together."""

    window_id: Identifier
    cluster_id: Digest
    domain: Name
    split: Literal["probe", "evaluation"]
    n_bytes: Positive
    predicted_bytes: Annotated[
        Count, Field(description="bytes of the text without its first token, which nothing predicts")
    ]
    n_tokens: Annotated[Positive, Field(ge=2, le=65_535)]
    token_digest: Digest


class Item(Document):
    """One task item, bound by the digest of its prompt and answer tokens."""

    item_id: Identifier
    digest: Digest


class ProbeFile(Document):
    """The file that holds the windows' text, beside the pre-registration; only extraction needs it."""

    file: FileName
    digest: Digest


class Task(Document):
    """The task on which arms must succeed equally before drift is compared."""

    file: FileName
    digest: Digest
    scoring: Literal["greedy_exact"]
    target: Share
    tolerance: Share
    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=100_000)]


class PlannedArm(Document):
    """A post-trained model that will be reported, whatever comes out."""

    name: Name
    policy: Line
    chart_preserving: bool


class BaseModelIdentity(Document):
    """The base checkpoint, known before extraction."""

    name: Line
    architecture: Name
    weights_digest: Digest
    config_digest: Digest
    tokenizer_digest: Digest


class Pilot(Document):
    """What thresholds and sizes were chosen from; disjoint from the study's windows and arms."""

    description: Line
    clusters: Annotated[tuple[Digest, ...], Field(max_length=100_000)]


class ExpectedRows(Document):
    """Number of rows that each table of the evidence must hold: no more, no fewer."""

    run: Positive
    layer: Positive
    window: Positive
    routing: Positive
    state: Positive
    update: Positive
    update_vector: Count
    output: Positive
    task: Positive
    overlap: Count


class Preregistration(Document):
    """A pre-registration, cited by digest."""

    kind: Literal["preregistration"]
    schema_version: Literal["1.0"]
    study: Name
    created: Time
    contract: DocumentReference
    base: BaseModelIdentity
    protected_layers: Annotated[tuple[Annotated[Count, Field(le=65_535)], ...], Field(min_length=1, max_length=1024)]
    positions_per_window: Annotated[Positive, Field(le=65_535)]
    first_allowed_position: Annotated[Count, Field(le=65_535)]
    overlap_pairs: Annotated[
        Count, Field(le=65_535, description="ordered pairs of experts per layer whose overlap map is measured")
    ]
    probe: ProbeFile
    windows: Annotated[tuple[Window, ...], Field(min_length=1, max_length=100_000)]
    damage_tolerance_nats: NonNegative
    task: Task
    arms: Annotated[tuple[PlannedArm, ...], Field(min_length=1, max_length=256)]
    pilot: Pilot | None
    expected_rows: ExpectedRows
    notes: Line
