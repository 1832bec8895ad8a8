"""The measurement: what one instrument gave on one model, under which conditions, and what is claimed of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from atlas_schema.documents.base import (
    Count,
    Digest,
    Document,
    Identifier,
    Judgement,
    Line,
    Name,
    Positive,
    Probability,
    Text,
)
from atlas_schema.documents.claim import Claim, Decimal, Reading
from atlas_schema.documents.receipt import Evidence

SeriesName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$", max_length=64)]
Date = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?$", min_length=7, max_length=10),
]
"""A day or a month: what the source gives."""
TermId = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}\.[a-z][a-z0-9_]{0,60}/[1-9][0-9]?$", max_length=128)
]
"""A term of the vocabulary, such as ``navigator.coupling/1``."""
ConventionId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}(\.[a-z][a-z0-9_]{0,60}){2}/[1-9][0-9]?$", max_length=192),
]
"""A convention of a term, such as ``navigator.coupling.attention_pearson/1``."""
Licence = Literal["directional_only", "statistical"]
Statistic = Literal["value", "mean", "sum", "minimum", "maximum", "median", "count", "exp_mean"]


class Instrument(Document):
    """What measured. ``version`` is null where the source names none."""

    id: Name
    version: Line | None
    description: Line


class ModelSpecification(Document):
    """The model under the instrument. What the source does not say is null."""

    name: Line
    parameters: Positive | None
    training_corpus: Line | None
    weights: Line
    weights_digest: Digest | None
    fine_tuning: Line | None
    implementation: Line | None
    runtime: Line | None


class Condition(Document):
    """One condition of the run, by name."""

    name: Name
    value: Line


class Sample(Document):
    """How many observations stand behind each value of a series. ``size`` is null where the source does not say."""

    size: Positive | None
    approximate: bool
    of: Line


class CitedRows(Document):
    """Rows of table `measurement_row` under this record's id, and the statistic of them that the value is.

    ``layer`` and ``head`` select rows where they are not null.
    """

    series: Identifier
    layer: Annotated[Count, Field(le=65_535)] | None
    head: Annotated[Count, Field(le=65_535)] | None
    statistic: Statistic


class Uncertainty(Document):
    """An interval for the value. ``student_t`` is recomputed from cited rows; ``stated`` is the producer's word."""

    lower: Decimal
    upper: Decimal
    level: Probability
    method: Literal["stated", "student_t"]


class Value(Document):
    """One value, as written: its digits say how precise it is. ``n`` is the number of observations, null if not stated."""

    at: Identifier
    value: Decimal
    n: Positive | None
    uncertainty: Uncertainty | None
    labels: Annotated[tuple[Line, ...], Field(max_length=16)]
    rows: CitedRows | None


class Series(Document):
    """Values of one quantity along one axis, in the axis's order.

    ``reading`` says whether the numbers were rounded to their last digit, truncated there, or are exact. ``relation``
    says whether the quantity is the vocabulary term or stands in for it.
    """

    name: SeriesName
    quantity: Line
    unit: Line
    axis: Name
    reading: Reading
    term: TermId | None
    convention: ConventionId | None
    relation: Literal["direct", "proxy"] | None
    sample: Sample
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=10_000)]


class Replication(Document):
    """``runs`` counts independent runs, this one included."""

    status: Literal["unreplicated", "replicated", "failed_replication"]
    runs: Positive


class Question(Document):
    """Something that only a person may answer. Automation leaves the answer null."""

    field: Name
    asks: Line
    answer: Judgement | None


class Measurement(Document):
    """One instrument's record, cited by digest."""

    kind: Literal["measurement"]
    schema_version: Literal["1.0"]
    id: Identifier
    title: Line
    source: Line
    instrument: Instrument
    model: ModelSpecification
    date: Date
    conditions: Annotated[tuple[Condition, ...], Field(max_length=256)]
    series: Annotated[tuple[Series, ...], Field(min_length=1, max_length=256)]
    replication: Replication
    licence: Licence
    claims: Annotated[tuple[Claim, ...], Field(max_length=1000)]
    evidence: Evidence | None
    judgements: Annotated[tuple[Question, ...], Field(max_length=256)]
    notes: Text
