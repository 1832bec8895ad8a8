"""What a receipt repeats from table `run`: issuing writes it, verifying compares it."""

from __future__ import annotations

import json

from atlas_schema.documents.receipt import Extraction, Subject
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


def extraction_of(evidence: EvidenceSource) -> Extraction:
    """Return how the base was run; the arms ran the same way, which a rule of verification checks."""
    runs = evidence.read("run", ())
    base = list(runs["run_id"]).index("base")
    loaded = json.loads(runs["fingerprint"][base])
    texts = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in sorted(loaded.items())}
    libraries = loaded.get("libraries")
    version = libraries.get("atlas-schema") if isinstance(libraries, dict) else None
    return Extraction(
        extractor=f"atlas-schema {version or 'of unknown version'}", adapter=runs["adapter"][base], fingerprint=texts
    )
