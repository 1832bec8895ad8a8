"""The contract: what a claim of preservation must contain and the numbers it is judged by, each with its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from atlas_schema.documents.base import (
    Count,
    DefinitionId,
    Document,
    Identifier,
    Line,
    Name,
    NonNegative,
    Positive,
    Probability,
    Share,
)

Form = Literal["ratio_of_sums", "mean_bounded"]


class Threshold(Document):
    """The value of one gated cell form that separates 'below' from 'above'."""

    form: Form
    value: Annotated[float, Field(gt=0, le=1e300)]


class Channel(Document):
    """A gated drift channel with its thresholds."""

    definition: DefinitionId
    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1, max_length=2)]
    rationale: Line


class Nuisance(Document):
    """A difference between two runs of the same weights that a null arm measures."""

    id: Name
    changes: Annotated[Name, Field(description="the one key of the numerics fingerprint that differs from the base")]
    rationale: Line


class Bootstrap(Document):
    """Parameters of the studentised bootstrap over clusters (`docs/measures.md`, section 6)."""

    resamples: Annotated[Positive, Field(le=1_000_000)]
    alpha: Probability
    batches: Annotated[Positive, Field(ge=2, le=1000)]
    monte_carlo_errors: NonNegative
    min_clusters: Positive
    min_clusters_per_stratum: Positive
    rare_event_clusters: Positive
    rare_event_resolution: Annotated[
        Share, Field(description="a per-cluster mean at or below this is no event; it widens the exact bound by itself")
    ]
    rationale: Line


class Tolerances(Document):
    """How closely rows must obey the identities of `docs/measures.md`, section 1."""

    float32_unit: Annotated[NonNegative, Field(description="unit roundoff of the evaluator's float32 arithmetic")]
    accumulation: Annotated[Positive, Field(description="factor on the summation bound d * unit * sum |W| |g|")]
    float64_relative: Annotated[NonNegative, Field(description="relative tolerance of identities kept in float64")]
    reconstruction: Annotated[NonNegative, Field(description="largest accepted relative error of sum rho u")]
    rationale: Line


class Numbers(Document):
    """How numbers are stated and compared."""

    significant_digits: Annotated[Positive, Field(ge=6, le=15)]
    relative_tolerance: NonNegative
    rationale: Line


class Damage(Document):
    """What a pre-registration may choose for base-domain damage."""

    definition: DefinitionId
    max_tolerance_nats: NonNegative
    rationale: Line


class Success(Document):
    """What a pre-registration may choose for task success."""

    definition: DefinitionId
    max_tolerance: Share
    min_items: Positive
    rationale: Line


class Occupancy(Document):
    """When occupancy has degenerated, so that a margin may not be cited for preservation."""

    min_effective_ratio: Annotated[
        Share, Field(description="least effective experts of an arm over those of the base, in every protected layer")
    ]
    max_lost_experts: Annotated[
        Count, Field(description="most experts that may be active in the base and not in an arm")
    ]
    rarefied_tokens: Annotated[Positive, Field(description="tokens at which distinct routed sets are counted")]
    rationale: Line


class Contract(Document):
    """A versioned contract, cited by id and digest."""

    kind: Literal["contract"]
    schema_version: Literal["1.0"]
    id: Identifier
    title: Line
    channels: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=16)]
    nuisances: Annotated[tuple[Nuisance, ...], Field(min_length=1, max_length=16)]
    max_missing_competitor_share: Share
    min_positions_per_window: Count
    bootstrap: Bootstrap
    tolerances: Tolerances
    numbers: Numbers
    damage: Damage
    success: Success
    occupancy: Occupancy
    notes: Line
