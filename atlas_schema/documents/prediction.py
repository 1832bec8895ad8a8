"""The prediction: a falsifiable statement, the measurements that may settle it, and its decision rule.

Nobody types in an outcome: it is `not_run`, or it cites the measurements from which anyone derives it again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from atlas_schema.documents.base import Digest, Document, Identifier, Line, Name, Positive, Text
from atlas_schema.documents.claim import Statement
from atlas_schema.documents.measurement import Condition, Licence, SeriesName, TermId

Role = SeriesName
"""Names a measurement inside the rule: ``role.series[label]``."""


class Requirement(Document):
    """What a measurement must be to stand for a role. ``model`` null admits any; conditions must be met word for word."""

    role: Role
    instrument: Name
    model: Line | None
    conditions: Annotated[tuple[Condition, ...], Field(max_length=64)]
    licence: Licence
    min_sample: Positive
    min_runs: Positive


class Clause(Document):
    """One statement of the rule, in expressions such as ``base.perplexity[poetry]``."""

    id: Name
    says: Line
    statement: Statement


class Rule(Document):
    """``all``: every clause must hold; ``any``: one is enough. Clauses are joined by three-valued logic.

    Where a clause of ``given`` does not hold, nothing was tested and the rule gives undetermined.
    """

    given: Annotated[tuple[Clause, ...], Field(max_length=64)]
    combine: Literal["all", "any"]
    clauses: Annotated[tuple[Clause, ...], Field(min_length=1, max_length=64)]
    rationale: Line


class NotRun(Document):
    """Nothing has been measured for it."""

    status: Literal["not_run"]


class SettledBy(Document):
    """The measurement that stood for a role."""

    role: Role
    id: Identifier
    digest: Digest


class Settled(Document):
    """What the rule gives on the cited measurements; verification derives it again."""

    status: Literal["supported", "contradicted", "undetermined"]
    measurements: Annotated[tuple[SettledBy, ...], Field(min_length=1, max_length=64)]


class Prediction(Document):
    """A prediction, cited by digest."""

    kind: Literal["prediction"]
    schema_version: Literal["1.0"]
    id: Identifier
    title: Line
    statement: Line
    source: Line
    terms: Annotated[tuple[TermId, ...], Field(max_length=32)]
    requires: Annotated[tuple[Requirement, ...], Field(min_length=1, max_length=64)]
    same_conditions: Annotated[tuple[Name, ...], Field(max_length=64)]
    different_models: bool
    rule: Rule
    outcome: Annotated[NotRun | Settled, Field(discriminator="status")]
    notes: Text
