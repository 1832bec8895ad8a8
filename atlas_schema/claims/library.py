"""The predictions that ship with the package."""

from __future__ import annotations

from functools import cache
from importlib import resources

from atlas_schema.documents.prediction import Prediction


@cache
def built_in_predictions() -> dict[str, Prediction]:
    """Return every shipped prediction by id."""
    folder = resources.files("atlas_contracts") / "predictions"
    found = [Prediction.model_validate_json(f.read_bytes()) for f in folder.iterdir() if f.name.endswith(".json")]
    return {p.id: p for p in sorted(found, key=lambda p: p.id)}
