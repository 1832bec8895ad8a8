"""The receipt: subjects, evidence roots, findings, predicates and one claim, all recomputable from the evidence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from atlas_schema.documents.base import (
    Count,
    DefinitionId,
    Digest,
    DigestOnly,
    Document,
    DocumentReference,
    Identifier,
    Judgement,
    Line,
    Name,
    NonNegative,
    Number,
    Positive,
    RunId,
    Share,
    Text,
)
from atlas_schema.documents.contract import Form

VerdictName = Literal["preserved", "rewritten", "damaged", "unmatched", "undetermined"]
CellState = Literal["below", "above", "undetermined", "identical", "not_applicable"]
PredicateValue = Literal["TRUE", "FALSE", "UNDETERMINED"]
Assurance = Literal["recomputed", "cross-checked", "asserted"]
Source = Literal["contract", "preregistration"]
Layer = Annotated[Count, Field(le=65_535)]
ObjectId = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,20}\.[A-Za-z]{1,20}$", max_length=41)]


class Bound(Document):
    """A threshold or tolerance and the document it comes from."""

    value: Number
    source: Source


class Interval(Document):
    """Bounds that hold for all cells of a family at once."""

    lower: Number
    upper: Number | None


class Cell(Document):
    """One gated cell: a protected layer, a channel, a form. ``upper`` is null where no bound can be given."""

    layer: Layer
    definition: DefinitionId
    form: Form
    value: Number | None
    numerator: Number
    denominator: Number
    clusters: Count
    nonzero_clusters: Count
    missing_tokens: Count
    top_percent_share: Annotated[Share | None, Field(description="share of the denominator in the top 1 % of tokens")]
    method: Literal["bootstrap", "identical", "rare_events", "none"]
    upper: Number | None
    simultaneous: Interval | None
    monte_carlo_error: Number | None
    floor: Number | None
    threshold: Bound
    state: CellState
    reason: Line
    assurance: Assurance


class Floor(Document):
    """The largest upper bound that a null arm reached in a cell: what a difference of zero looks like."""

    layer: Layer
    definition: DefinitionId
    form: Form
    upper: Number | None
    nuisance: Name


class Reported(Document):
    """A quantity that is reported and decides nothing; of a layer, a domain, or the whole run.

    ``count`` is what the value is taken over, ``note`` says what that is, or why there is no value. ``standard_error`` is
    the cluster-robust one, where the value is a ratio of sums over clusters.
    """

    definition: DefinitionId
    layer: Layer | None
    domain: Identifier | None
    value: Number | None
    standard_error: NonNegative | None
    count: Count
    assurance: Assurance
    note: Line


class Assumption(Document):
    """The measured status of something that a statement assumes. ``holds`` is null where the number has no threshold."""

    definition: DefinitionId
    layer: Layer
    value: Number | None
    holds: bool | None
    count: Count
    assurance: Assurance
    note: Line


class LayerOccupancy(Document):
    """How one layer's assignments spread over experts, from every token. ``pi`` sums to ``k``."""

    layer: Layer
    tokens: Positive
    pi: Annotated[tuple[NonNegative, ...], Field(min_length=1, max_length=65_535)]
    cv_percent: NonNegative
    entropy_nats: NonNegative
    max_load_percent: NonNegative
    experts_active: Positive
    effective_experts: NonNegative
    distinct_sets: Annotated[
        NonNegative | None, Field(description="expected distinct sets at the rarefied token number")
    ]


class RunOccupancy(Document):
    """Occupancy of one run in the protected layers, and its summary over them."""

    definition: DefinitionId
    run_id: RunId
    layers: Annotated[tuple[LayerOccupancy, ...], Field(min_length=1, max_length=1024)]
    mean_cv_percent: NonNegative
    std_cv_percent: NonNegative
    min_entropy_nats: NonNegative
    mean_entropy_nats: NonNegative
    dead_experts: Count
    experts_active_mean: NonNegative
    assurance: Assurance


class MarginUse(Document):
    """Whether margins of an arm may be cited for preservation: not where its occupancy has degenerated."""

    citable: bool
    reason: Line


class ThreeStates(Document):
    """The informal summary for operators. It is no verdict."""

    boundary_sensitivity: CellState
    coactive_compatibility: CellState
    output_damage: CellState


class MatchedSuccess(Document):
    """Whether two arms succeed equally: the paired mean difference of scores, ``first`` minus ``second``."""

    definition: DefinitionId
    first: Name
    second: Name
    difference: Number
    items: Positive
    lower: Number | None
    upper: Number | None
    tolerance: Bound
    state: Literal["matched", "different", "undetermined"]
    reason: Line
    assurance: Assurance


class BaseFindings(Document):
    """What is reported of the base by itself."""

    reported: Annotated[tuple[Reported, ...], Field(max_length=100_000)]
    assumptions: Annotated[tuple[Assumption, ...], Field(max_length=100_000)]


class DomainDamage(Document):
    """Paired change of the negative log-likelihood in one base domain, nats per predicted token."""

    definition: DefinitionId
    domain: Identifier
    delta_nll_nats: Number
    base_nll_nats: Number
    tokens: Positive
    clusters: Positive
    upper: Number | None
    simultaneous: Interval | None
    monte_carlo_error: Number | None
    tolerance: Bound
    state: CellState
    reason: Line
    assurance: Assurance


class TaskSuccess(Document):
    """Mean task score with its interval over items."""

    definition: DefinitionId
    value: Share
    items: Positive
    lower: Number | None
    upper: Number | None
    target: Share
    tolerance: Share
    state: Literal["reached", "missed", "undetermined"]
    reason: Line
    assurance: Assurance


class Predicate(Document):
    """A Kleene truth value and the cells that decided it."""

    value: PredicateValue
    decided_by: Annotated[tuple[Line, ...], Field(max_length=10_000)]


class Predicates(Document):
    """The two predicates of an arm; `Findings.knowledge_expansive` is about all arms together."""

    protected_atlas_rewrite: Predicate
    base_domain_damage: Predicate


class ArmFindings(Document):
    """Everything found about one arm."""

    arm: Name
    cells: Annotated[tuple[Cell, ...], Field(min_length=1, max_length=100_000)]
    damage: Annotated[tuple[DomainDamage, ...], Field(min_length=1, max_length=10_000)]
    success: TaskSuccess
    reported: Annotated[tuple[Reported, ...], Field(max_length=100_000)]
    assumptions: Annotated[tuple[Assumption, ...], Field(max_length=100_000)]
    margin_use: MarginUse
    three_states: ThreeStates
    predicates: Predicates
    verdict: VerdictName
    flags: Annotated[tuple[Line, ...], Field(max_length=64)]


class Findings(Document):
    """The result of one pure function of evidence, contract and pre-registration."""

    floors: Annotated[tuple[Floor, ...], Field(min_length=1, max_length=100_000)]
    base: BaseFindings
    occupancy: Annotated[tuple[RunOccupancy, ...], Field(min_length=2, max_length=300)]
    arms: Annotated[tuple[ArmFindings, ...], Field(min_length=1, max_length=256)]
    matched_success: Annotated[tuple[MatchedSuccess, ...], Field(max_length=40_000)]
    knowledge_expansive: Predicate


class Claim(Document):
    """What the receipt says of its subject arm."""

    arm: Name
    verdict: VerdictName


class LogHead(Document):
    """The run log as it stood when the receipt was issued."""

    head: Digest
    steps: Positive


class Subject(Document):
    """One run of the evidence and the model behind it, repeated from table `run`."""

    run_id: RunId
    role: Literal["base", "null", "arm"]
    policy: Line | None
    model: Line
    weights_digest: Digest
    config_digest: Digest
    tokenizer_digest: Digest


class ExtractedObject(Document):
    """One extraction object: the columns that hold it, or that it is derived from, and how many rows there are."""

    id: ObjectId
    kept: Literal["stored", "derived"]
    columns: Annotated[tuple[Line, ...], Field(min_length=1, max_length=16)]
    rows: Count


class Extraction(Document):
    """How the base and the arms were run, repeated from table `run`, and the objects that were extracted."""

    extractor: Line
    adapter: Name
    fingerprint: Annotated[dict[Name, Line], Field(min_length=1, max_length=64)]
    objects: Annotated[tuple[ExtractedObject, ...], Field(min_length=1, max_length=64)]


class TableSummary(Document):
    """Rows and Merkle root of one evidence table."""

    name: Name
    rows: Count
    root: Digest


class Evidence(Document):
    """The evidence this receipt is about."""

    root: Digest
    tables: Annotated[tuple[TableSummary, ...], Field(min_length=1, max_length=64)]


class Readings(Document):
    """Fields that only a person may fill."""

    reading: Judgement | None


class Receipt(Document):
    """A receipt for one subject arm."""

    kind: Literal["receipt"]
    schema_version: Literal["1.0"]
    claim: Claim
    contract: DocumentReference
    preregistration: DigestOnly
    run_log: LogHead
    subjects: Annotated[tuple[Subject, ...], Field(min_length=2, max_length=300)]
    extraction: Extraction
    evidence: Evidence
    findings: Findings
    judgement: Readings
    notes: Text


FREE_TEXT: tuple[str, ...] = ("/notes", "/judgement/reading")
"""JSON pointers whose content is not recomputed from anything."""
