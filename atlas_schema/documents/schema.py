"""One JSON Schema for all documents, generated from the models, and the validator that reads it.

`schema.json` at the root of the repository and inside `atlas_contracts` is what `schema_document` returns; a test fails
when they differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import islice
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from atlas_schema.documents.base import Document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Prediction
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.read import Read
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import UsageError
from atlas_schema.limits import LIMITS

MODELS: dict[str, type[Document]] = {
    "contract": Contract,
    "preregistration": Preregistration,
    "receipt": Receipt,
    "run_log": RunLog,
    "measurement": Measurement,
    "prediction": Prediction,
    "read": Read,
}
"""Every document kind that this version reads."""

TAGS = ("kind", "operator", "status")
"""Fields that tell apart the shapes of one value."""
SCHEMA_ID = "https://atlas-schema.invalid/schema.json"
"""Identifies the schema; nothing is fetched from it."""


def schema_document() -> dict[str, Any]:
    """Return the JSON Schema 2020-12 of every document kind, told apart by ``kind``."""
    union = Annotated[
        Contract | Preregistration | Receipt | RunLog | Measurement | Prediction | Read, Field(discriminator="kind")
    ]
    adapter: TypeAdapter[Any] = TypeAdapter(union)
    body = adapter.json_schema(ref_template="#/$defs/{model}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "atlas-schema documents",
        **_standard(body),
    }


def _standard(schema: Any) -> Any:
    """Say in JSON Schema's own keywords what Pydantic leaves in its own.

    Bounds outside a validator come out as ``ge`` and ``le``, which JSON Schema ignores; ``patternProperties`` alone
    admits names that match no pattern; ``discriminator`` is a word of OpenAPI.
    """
    if isinstance(schema, list):
        return [_standard(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        name: _standard(part) for name, part in schema.items() if not (name == "discriminator" and "oneOf" in schema)
    }
    if made.get("type") == "integer":
        for own, standard in (("ge", "minimum"), ("le", "maximum")):
            if own in made:
                made[standard] = made.pop(own)
    if made.get("type") == "object" and "patternProperties" in made:
        ((pattern, made["additionalProperties"]),) = made.pop("patternProperties").items()
        made["propertyNames"] = {**made.get("propertyNames", {}), "pattern": pattern}
    return made


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of one document kind."""
    if kind not in MODELS:
        raise UsageError("There is no such document kind.", found=kind, expected=", ".join(MODELS))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_standard(MODELS[kind].model_json_schema())}


def schema_bytes() -> bytes:
    """Return the committed form: indented, sorted, with a final newline."""
    return (json.dumps(schema_document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def shipped_schema() -> dict[str, Any]:
    """Return the schema that ships with the package."""
    loaded: dict[str, Any] = json.loads((resources.files("atlas_contracts") / "schema.json").read_bytes())
    return loaded


@cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(validator: Any, expression: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
        # ECMA-262, which JSON Schema cites, lets $ match at the very end only; Python's re also before a last newline.
        exact = expression.removesuffix("$") + r"\Z" if expression.endswith("$") else expression
        if validator.is_type(instance, "string") and not re.search(exact, instance):
            yield ValidationError(f"{instance!r} does not match {expression!r}")

    shipped = shipped_schema()
    strict = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}
    )
    # References are inside the document: a registry that fetches is never consulted.
    model = MODELS[kind].__name__
    return strict({"$schema": shipped["$schema"], "$ref": f"#/$defs/{model}", "$defs": shipped["$defs"]})


def _places(error: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where a violation lies. Of several shapes that a value might have, the one it meant is judged alone."""
    path = tuple(error.absolute_path)
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield path, str(error.message)
        return
    branches: dict[Any, list[Any]] = {}
    for inner in error.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    # Another shape: another type altogether, or another tag.
    tagged = [e for e in error.context if len(e.relative_path) == 1 and e.relative_path[0] in TAGS
              and e.validator in ("const", "enum")]  # fmt: skip
    other = {id(e) for e in [*tagged, *(e for e in error.context if e.validator == "type" and not e.relative_path)]}
    meant = [part for part in branches.values() if not other & {id(e) for e in part}]
    if len(meant) == 1:
        yield from (place for inner in meant[0] for place in _places(inner))
    elif tagged and not meant:
        known = {
            v
            for e in tagged
            for v in (e.validator_value if isinstance(e.validator_value, list) else [e.validator_value])
        }
        yield (
            (*path, tagged[0].relative_path[0]),
            f"{tagged[0].instance!r} is not one of {', '.join(sorted(map(str, known)))}",
        )
    else:
        yield path, str(error.message)


def schema_errors(value: Any, kind: str) -> list[tuple[tuple[str | int, ...], str]]:
    """Validate a parsed document against the shipped schema; return (path, message) of the first violations.

    They are bounded: each quotes what it found, and a document can be made to violate the schema a million times.
    """
    errors = _validator(kind).iter_errors(value)
    found = list(islice((place for error in errors for place in _places(error)), LIMITS.schema_faults))
    return sorted(found, key=lambda pair: [str(part) for part in pair[0]])
