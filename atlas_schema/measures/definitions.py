"""Ids of the definitions, the forms each is given in, and the tensors that feed it."""

from __future__ import annotations

from dataclasses import dataclass

from atlas_schema.documents.contract import Form

COORDINATE = "drift.coordinate/1"
BOUNDARY = "drift.boundary/1"
TRANSITION = "drift.transition/1"
CONTENT = "drift.chart_content/1"
GUARD = "guard.block/1"
DAMAGE = "damage.delta_nll/1"
SUCCESS = "success.mean_score/1"

SUMS: Form = "ratio_of_sums"
MEAN: Form = "mean_bounded"


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


DEFINITIONS: dict[str, Definition] = {
    d.id: d
    for d in (
        Definition(COORDINATE, (SUMS,), (SUMS,), ("upstream",), True, False),
        Definition(BOUNDARY, (SUMS,), (SUMS,), ("norm.gain", "router."), False, False),
        Definition(TRANSITION, (SUMS, MEAN), (MEAN,), ("norm.gain", "router.", "experts."), False, True),
        Definition(CONTENT, (SUMS, MEAN), (MEAN,), ("norm.gain", "router.", "experts."), False, False),
        Definition(GUARD, (SUMS,), (), ("norm.gain", "router.", "experts."), False, False),
    )
}
