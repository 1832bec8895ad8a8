"""Every definition that a receipt may name: its unit, its source, its title; and what the gated ones need to be decided.

`docs/measures.md` explains each; a test compares its tables with `REGISTRY`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atlas_schema.documents.contract import Form

COORDINATE = "drift.coordinate/1"
BOUNDARY = "drift.boundary/1"
TRANSITION = "drift.transition/1"
CONTENT = "drift.chart_content/1"
GUARD = "guard.block/1"
DAMAGE = "damage.delta_nll/1"
SUCCESS = "success.mean_score/1"
MATCHED = "success.matched/1"
OCCUPANCY = "occupancy.load/1"
RANK = "assumption.rank/1"
ANGULAR = "assumption.angular/1"
TANGENT = "assumption.tangent/1"
TRANSPORT_LOCAL = "transport_local/1"
TURNOVER = "native.turnover/1"
ROUTER_TERM = "router.term/1"
TIGHTNESS = "bound.tightness/1"
MARGIN_SHIFT = "margin.shift/1"
ROUTER_SHIFT = "router.shift/1"
CERTIFICATE = "certificate.share/1"
OVERLAP_DRIFT = "overlap.drift/1"
OVERLAP_RESIDUAL = "overlap.residual/1"
OVERLAP_CONDITION = "overlap.condition/1"
OVERLAP_CORRELATION = "overlap.rank_correlation/1"
PI_SHIFT = "pi.shift/1"
PI_PLUGIN = "pi.shift_plugin/1"
ADJACENCY_SHIFT = "adjacency.shift/1"
ADJACENCY_PLUGIN = "adjacency.shift_plugin/1"
BASELINE_NORM = "baseline.norm/1"
BASELINE_TELEMETRY = "baseline.telemetry/1"
BASELINE_PARAMETERS = "baseline.parameters/1"
RECONSTRUCTION = "reconstruction.error/1"
AGREEMENT = "same_state.agreement/1"
ONE_SWAP = "one_swap.residual/1"
BITS = "damage.bits_per_byte/1"
PERPLEXITY = "damage.perplexity/1"
KL = "damage.kl/1"
TOP1 = "damage.top1_agreement/1"

SUMS: Form = "ratio_of_sums"
MEAN: Form = "mean_bounded"

Source = Literal["essay", "theorem", "project", "essay; formula: project"]
Assurance = Literal["recomputed", "asserted"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One definition. ``over`` says what a value is taken over; ``assurance`` whether the rows suffice to recompute it."""

    id: str
    unit: str
    source: Source
    title: str
    over: str
    assurance: Assurance = "recomputed"


_SAMPLED, _TOKENS, _PREDICTED = "sampled tokens", "all tokens", "predicted tokens"
_PAIRS = "visited pairs of experts, from the extractor's matrices"

REGISTRY: dict[str, Entry] = {
    e.id: e
    for e in (
        Entry(COORDINATE, "π radians", "essay; formula: project", "angle between the native states", _SAMPLED),
        Entry(BOUNDARY, "share", "essay; formula: project", "share of the base's set that the arm's router leaves", _SAMPLED),
        Entry(TRANSITION, "1", "essay; formula: project", "change of the jump at the base's nearest boundary", _SAMPLED),
        Entry(CONTENT, "1", "essay; formula: project", "change of the experts' updates", _SAMPLED),
        Entry(GUARD, "1", "project", "change of what the block adds", _SAMPLED),
        Entry(DAMAGE, "nats per token", "essay; formula: project", "change of the loss", _PREDICTED),
        Entry(SUCCESS, "score", "essay; formula: project", "mean task score", "task items"),
        Entry(MATCHED, "score", "essay; formula: project", "paired difference of two arms' scores", "task items"),
        Entry(OCCUPANCY, "see section 4", "essay", "how assignments spread over experts", _TOKENS),
        Entry(TRANSPORT_LOCAL, "π radians", "project", "angle after the arm's own layer on the base's input", _SAMPLED, "asserted"),
        Entry(TURNOVER, "share", "project", "share of the executed set that changed", _TOKENS),
        Entry(ROUTER_TERM, "1", "theorem", "change of the weights over the content's denominator", _SAMPLED),
        Entry(TIGHTNESS, "share", "theorem", "change of the field over its adaptation bound", _SAMPLED),
        Entry(MARGIN_SHIFT, "score", "project", "mean change of the native margin", "tokens with a competitor in both"),
        Entry(ROUTER_SHIFT, "nats", "essay; formula: project", "mean log ratio of gate values over the base's set", _SAMPLED),
        Entry(CERTIFICATE, "share", "theorem", "share of tokens whose set provably did not change", _SAMPLED),
        Entry(OVERLAP_DRIFT, "1", "essay; formula: project", "change of the overlap maps", _PAIRS, "asserted"),
        Entry(OVERLAP_RESIDUAL, "1", "theorem", "what the overlap maps do not transport", _PAIRS, "asserted"),
        Entry(OVERLAP_CONDITION, "1", "essay; formula: project", "median condition number of the overlap maps", _PAIRS, "asserted"),
        Entry(OVERLAP_CORRELATION, "1", "project", "rank correlation of the base's condition numbers with transition drift",
              "pairs with at least 5 tokens", "asserted"),
        Entry(PI_SHIFT, "total variation", "essay; formula: project", "change of the marginal over experts, cross-fitted", _TOKENS),
        Entry(PI_PLUGIN, "total variation", "project", "the same, plugged in: biased upward", _TOKENS),
        Entry(ADJACENCY_SHIFT, "total variation", "essay; formula: project", "change of swap adjacency, cross-fitted",
              "tokens with a competitor"),
        Entry(ADJACENCY_PLUGIN, "total variation", "project", "the same, plugged in: biased upward", "tokens with a competitor"),
        Entry(BASELINE_NORM, "1", "project", "generic baseline: relative change of the norm of the layer's input", _SAMPLED),
        Entry(BASELINE_TELEMETRY, "nats", "project", "generic baseline: change of the load entropy", _TOKENS),
        Entry(BASELINE_PARAMETERS, "1", "project", "generic baseline: relative distance of the parameters", "all parameters", "asserted"),
        Entry(RECONSTRUCTION, "1", "project", "worst relative error of the block's reconstruction", _TOKENS, "asserted"),
        Entry(AGREEMENT, "share", "project", "share of tokens whose executed set is the same-state one", _SAMPLED),
        Entry(ONE_SWAP, "1", "theorem", "what the one-swap formula leaves of the jump", _SAMPLED),
        Entry(BITS, "bits per byte", "project", "loss per byte of the predicted tokens", _PREDICTED),
        Entry(PERPLEXITY, "1", "project", "exponential of the mean loss", _PREDICTED),
        Entry(KL, "nats per token", "project", "KL divergence of base and arm", _PREDICTED, "asserted"),
        Entry(TOP1, "share", "project", "share of tokens with the same most likely next token", _PREDICTED),
        Entry(RANK, "rank", "theorem", "lowest rank of the experts' input projections: holds where it is d", "experts", "asserted"),
        Entry(ANGULAR, "share", "theorem", "share of tokens whose set at sqrt(d)·z/‖z‖ is that at z: holds where it is 1", _SAMPLED),
        Entry(TANGENT, "share", "theorem", "length of the tangent-visible updates over that of the updates", _SAMPLED),
    )
}  # fmt: skip
"""Every definition id of this version."""

OF_ARM_LAYER = (
    TRANSPORT_LOCAL, TURNOVER, ROUTER_TERM, TIGHTNESS, MARGIN_SHIFT, ROUTER_SHIFT, CERTIFICATE, OVERLAP_DRIFT, OVERLAP_RESIDUAL,
    OVERLAP_CONDITION, OVERLAP_CORRELATION, PI_SHIFT, PI_PLUGIN, ADJACENCY_SHIFT, ADJACENCY_PLUGIN, BASELINE_NORM,
    BASELINE_TELEMETRY, RECONSTRUCTION,
)  # fmt: skip
"""What is reported of an arm in every protected layer, in order."""

OF_BASE_LAYER = (AGREEMENT, ONE_SWAP, OVERLAP_RESIDUAL, OVERLAP_CONDITION, RECONSTRUCTION)
"""What is reported of the base in every protected layer, in order."""

OF_ARM_DOMAIN = (BITS, PERPLEXITY, KL, TOP1)
OF_BASE_DOMAIN = (BITS, PERPLEXITY)
ASSUMPTIONS = (RANK, ANGULAR, TANGENT)


@dataclass(frozen=True, slots=True)
class Definition:
    """A gated drift definition.

    ``bounded`` names the forms whose per-token values lie in [0, 1]. ``tensors`` are the prefixes of
    `layer.tensor_digests` that feed the channel: if all are bitwise equal in base and arm, same-state drift is exactly
    zero. ``native`` channels may still differ by numerics when the tensors are equal.
    """

    id: str
    forms: tuple[Form, ...]
    bounded: tuple[Form, ...]
    tensors: tuple[str, ...]
    native: bool
    needs_pair: bool


_ROUTER = ("norm.gain", "router.", "selection.")
_EXPERTS = (*_ROUTER, "experts.")

DEFINITIONS: dict[str, Definition] = {
    d.id: d
    for d in (
        Definition(COORDINATE, (SUMS,), (SUMS,), ("upstream",), True, False),
        Definition(BOUNDARY, (SUMS,), (SUMS,), _ROUTER, False, False),
        Definition(TRANSITION, (SUMS, MEAN), (MEAN,), _EXPERTS, False, True),
        Definition(CONTENT, (SUMS, MEAN), (MEAN,), _EXPERTS, False, False),
        Definition(GUARD, (SUMS,), (), (*_EXPERTS, "shared"), False, False),
    )
}
"""The gated drift channels."""
