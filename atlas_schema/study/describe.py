"""What a receipt repeats from table `run`: issuing writes it, verifying compares it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from atlas_schema.documents.receipt import ExtractedObject, Extraction, Subject
from atlas_schema.evidence.source import EvidenceSource


def subjects_of(evidence: EvidenceSource) -> list[Subject]:
    """Return one subject per run, in order of run id."""
    runs = evidence.read("run", ())
    made = []
    for i, run_id in enumerate(runs["run_id"]):
        made.append(Subject(
            run_id=run_id, role=runs["role"][i], policy=runs["policy"][i] if runs.valid("policy")[i] else None,
            model=runs["model"][i], weights_digest=runs["weights_digest"][i], config_digest=runs["config_digest"][i],
            tokenizer_digest=runs["tokenizer_digest"][i],
        ))  # fmt: skip
    return made


OBJECTS: tuple[tuple[str, Literal["stored", "derived"], str], ...] = (
    ("state.z", "stored", "state.z state.r"),
    ("state.g", "derived", "state.g state.z layer.gain layer.gain_convention"),
    ("score.logit", "derived", "state.z layer.gain layer.router_weight layer.router_bias"),
    ("score.dispatch", "stored", "state.dispatch state.admissible update.dispatch0 update.dispatch1"),
    ("routing.experts", "stored", "routing.experts"),
    ("routing.competitors", "stored", "routing.competitor_out routing.competitor_in"),
    ("margin.dispatch", "stored", "routing.margin routing.group_margin"),
    ("margin.logit", "stored", "state.margin_logit"),
    ("routing.weights", "stored", "state.weights update.rho0 update.rho1"),
    ("update.u", "derived", "update.uz0 update.uu0 update.uz1 update.uu1"),
    ("update.v", "stored", "update_vector.v0 update_vector.v1 update.gram"),
    ("field.V", "derived", "update.gram update.rho0 update.rho1 update.dV_norm"),
    ("block.y", "derived", "update.y0_norm update.dy_norm"),
    ("overlap.T", "derived", "overlap.rank overlap.cond overlap.residual overlap.drift_num overlap.drift_den"),
)
"""Every extraction object of `docs/measures.md`, section 1: whether itself is stored, and the columns it is or follows from.

Rows are those of the first column's table. A derived object is kept as norms, inner products or numbers of it, or follows
from the columns by the layer's rule.
"""


def extraction_of(evidence: EvidenceSource, rows: Mapping[str, int]) -> Extraction:
    """Return how the base was run, and which objects were kept; ``rows`` counts those of every table.

    The arms ran the same way, which a rule of verification checks.
    """
    runs = evidence.read("run", ())
    base = list(runs["run_id"]).index("base")
    loaded = json.loads(runs["fingerprint"][base])
    texts = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in sorted(loaded.items())}
    libraries = loaded.get("libraries")
    version = libraries.get("atlas-schema") if isinstance(libraries, dict) else None
    return Extraction(
        extractor=f"atlas-schema {version or 'of unknown version'}", adapter=runs["adapter"][base], fingerprint=texts,
        objects=tuple(
            ExtractedObject(id=name, kept=kept, columns=tuple(columns.split()), rows=rows[columns.partition(".")[0]])
            for name, kept, columns in OBJECTS
        ),
    )  # fmt: skip
