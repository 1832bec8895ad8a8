"""The definition ids that a document names, wherever they stand in it."""

from __future__ import annotations

from typing import Any


def ids_in(value: Any) -> set[str]:
    """Return every value of a member `definition` of a JSON value."""
    if isinstance(value, list):
        return {name for part in value for name in ids_in(part)}
    if not isinstance(value, dict):
        return set()
    own = {value["definition"]} if isinstance(value.get("definition"), str) else set()
    return own | {name for part in value.values() for name in ids_in(part)}
