"""Valid documents of every kind as JSON values, from a simulated study and made up from the schema."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from documents.records import measurement, prediction
from hypothesis import strategies as st
from simulator import PRESERVED, REWRITTEN, Settings, StudySimulator

from atlas_schema.documents.schema import MODELS, shipped_schema
from atlas_schema.evidence.source import table_roots
from atlas_schema.measures.summarise import summarise

KINDS = tuple(MODELS)


@cache
def study() -> StudySimulator:
    """A study small enough that every part of its documents is drawn now and then."""
    small = Settings(
        clusters=(("a", 2), ("b", 1)), double_windows=1, items=2, arms=(PRESERVED, REWRITTEN), protected=(2,),
        bootstrap={"resamples": 100, "min_clusters": 2},
    )  # fmt: skip
    return StudySimulator.make(small)


_READ = {
    "kind": "read", "schema_version": "1.0", "moment": "before_first_run", "author": "a person",
    "time": "2026-01-02T00:00:00Z", "log_head": None, "text": "It will rise.", "surprise": "A fall.",
}  # fmt: skip


@cache
def _example(kind: str) -> str:
    records = {"measurement": measurement, "prediction": prediction}
    if kind in records:
        return json.dumps(records[kind]())
    if kind == "read":
        return json.dumps(_READ)
    made = study()
    documents: dict[str, Any] = {
        "contract": made.contract, "preregistration": made.preregistration, "run_log": made.run_log,
    }  # fmt: skip
    value = documents[kind].model_dump(mode="json") if kind in documents else _receipt(made)
    return json.dumps(_trimmed(value))


def _trimmed(value: Any) -> Any:
    """Keep two elements of every list: shapes repeat."""
    if isinstance(value, dict):
        return {name: _trimmed(part) for name, part in value.items()}
    return [_trimmed(part) for part in value[:2]] if isinstance(value, list) else value


def example(kind: str) -> dict[str, Any]:
    """Return a fresh valid document."""
    loaded: dict[str, Any] = json.loads(_example(kind))
    return loaded


def _receipt(made: StudySimulator) -> dict[str, Any]:
    findings = summarise(made.source(), made.contract, made.preregistration, made.evidence_root())
    subjects = [
        {name: row[name] for name in ("run_id", "role", "policy", "model", "weights_digest", "config_digest", "tokenizer_digest")}
        for row in made.rows("run")
    ]  # fmt: skip
    roots = [{"name": r.name, "rows": r.rows, "root": r.root} for r in table_roots(made.source())]
    return {
        "kind": "receipt", "schema_version": "1.0", "claim": {"arm": "preserved", "verdict": findings.arms[0].verdict},
        "contract": made.preregistration.contract.model_dump(mode="json"),
        "preregistration": {"digest": made.preregistration_digest()},
        "run_log": {"head": made.run_log.steps[-1].hash, "steps": len(made.run_log.steps)}, "subjects": subjects,
        "extraction": {"extractor": "atlas-schema 0.1.0", "adapter": "olmoe",
                       "fingerprint": {"dtype": "float32", "attention": "eager"}},
        "evidence": {"root": made.evidence_root(), "tables": roots}, "findings": findings.model_dump(mode="json"),
        "judgement": {"reading": {"value": "plausible", "author": "a person", "time": "2026-01-02T00:00:00Z",
                                  "basis": "the numbers"}},
        "notes": "",
    }  # fmt: skip


# --- documents made up from the schema --------------------------------------------------------------------------


def documents(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of documents that the shipped schema describes."""
    schema = shipped_schema()
    return _of({"$ref": f"#/$defs/{MODELS[kind].__name__}"}, schema["$defs"])


def _of(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Translate the part of JSON Schema that the models use; anything else is an error here."""
    if "$ref" in schema:
        return _of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of(*(_of(part, definitions) for part in schema[several]))
    made: dict[str, Any] = {
        "object": _object, "array": _array, "string": _string, "number": _number, "integer": _integer,
    }  # fmt: skip
    if schema["type"] == "null":
        return st.none()
    if schema["type"] == "boolean":
        return st.booleans()
    found: st.SearchStrategy[Any] = made[schema["type"]](schema, definitions)
    return found


def _object(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" in schema:
        return st.fixed_dictionaries({n: _of(part, definitions) for n, part in schema["properties"].items()})
    inner, names = schema["additionalProperties"], _string(schema.get("propertyNames", {}), definitions)
    return st.dictionaries(names, _of(inner, definitions), min_size=schema.get("minProperties", 0), max_size=4)


def _array(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    least = schema.get("minItems", 0)
    return st.lists(_of(schema["items"], definitions), min_size=least, max_size=least + 1)


def _string(schema: dict[str, Any], _: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].removesuffix("$") + r"\Z")
    least = schema.get("minLength", 0)
    return st.text(st.characters(codec="utf-8"), min_size=least, max_size=least + 8)


def _number(schema: dict[str, Any], _: dict[str, Any]) -> st.SearchStrategy[Any]:
    low: float = schema.get("minimum", schema.get("exclusiveMinimum", -1e300))
    high: float = schema.get("maximum", schema.get("exclusiveMaximum", 1e300))
    open_low, open_high = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
    floats = st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_nan=False, allow_infinity=False)
    integers = [
        i for i in (0, 1, 2) if (low < i or (low == i and not open_low)) and (i < high or (i == high and not open_high))
    ]
    return floats | st.sampled_from(integers) if integers else floats


def _integer(schema: dict[str, Any], _: dict[str, Any]) -> st.SearchStrategy[Any]:
    whole = st.integers(schema.get("minimum"), schema.get("maximum"))
    return whole | whole.filter(lambda i: float(i) == i).map(float)
