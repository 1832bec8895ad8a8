"""What a verdict is about, in two lines: the model behind the arm, and what the plan asked of it.

A green word is worth what was asked. The plan's choices are the producer's; here a reader sees them without opening it.
"""

from __future__ import annotations

from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt

LISTED = 12
"""How many protected layers are listed."""
SHOWN = 120
"""How many characters of a model's name are shown."""


def scope(receipt: Receipt, plan: Preregistration) -> dict[str, str]:
    """Return the facts by name. Compares nothing: rules hold receipt, plan and rows to each other."""
    named = next((s for s in receipt.subjects if s.run_id == f"arm:{receipt.claim.arm}"), None)
    model = "not among the subjects" if named is None else f"{named.weights_digest} {named.model[:SHOWN]}"
    return {"arm's weights": model, "asked": "; ".join((_layers(plan), _windows(plan), _task(plan)))}


def _layers(plan: Preregistration) -> str:
    layers = plan.protected_layers
    if len(layers) > LISTED:
        return f"{len(layers)} layers from {min(layers)} to {max(layers)}"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


def _windows(plan: Preregistration) -> str:
    documents, domains = len({w.cluster_id for w in plan.windows}), len({w.domain for w in plan.windows})
    lost = f"at most {plan.damage_tolerance_nats:g} nats lost"
    return f"{len(plan.windows)} windows of {documents} documents in {domains} domains, {lost}"


def _task(plan: Preregistration) -> str:
    return f"{len(plan.task.items)} items, target {plan.task.target:g} less {plan.task.tolerance:g}"
