"""One shape, said twice: the models and the JSON Schema accept exactly the same documents."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents.examples import KINDS, documents, example
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from atlas_schema.documents.base import SAFE_INTEGER, Time
from atlas_schema.documents.schema import (
    MODELS,
    schema_bytes,
    schema_document,
    schema_errors,
    schema_of,
    shipped_schema,
)
from atlas_schema.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
Path_ = tuple[str | int, ...]


def by_models(kind: str, value: Any) -> bool:
    try:
        MODELS[kind].model_validate_json(json.dumps(value))
    except ValidationError:
        return False
    return True


def by_schema(kind: str, value: Any) -> bool:
    return not schema_errors(json.loads(json.dumps(value)), kind)


def both_agree(kind: str, value: Any) -> bool:
    """Return what both say; fail where they differ."""
    models, schema = by_models(kind, value), by_schema(kind, value)
    assert models == schema, f"models {models}, schema {schema}: {schema_errors(value, kind)[:3]}"
    return models


# --- one schema in three places ---------------------------------------------------------------------------------


def test_generated_committed_and_shipped_schema_are_the_same_bytes() -> None:
    generated = schema_bytes()
    assert (ROOT / "schema.json").read_bytes() == generated
    assert (ROOT / "contracts" / "atlas_contracts" / "schema.json").read_bytes() == generated
    assert shipped_schema() == schema_document() == json.loads(generated)


KEYWORDS = {
    "$defs", "$id", "$ref", "$schema", "additionalProperties", "anyOf", "const", "description", "enum", "exclusiveMaximum",
    "exclusiveMinimum", "items", "maximum", "maxItems", "maxLength", "maxProperties", "minimum", "minItems", "minLength",
    "minProperties", "oneOf", "pattern", "properties", "propertyNames", "required", "title", "type",
}  # fmt: skip


def keywords(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema
        for name, part in schema.items():
            inside = part.values() if name in ("properties", "$defs") else [part]
            for value in inside:
                yield from keywords(value)
    elif isinstance(schema, list):
        for part in schema:
            yield from keywords(part)


def test_the_schema_uses_keywords_of_json_schema_only() -> None:
    """A word that JSON Schema does not know is ignored in silence, and a bound with it."""
    assert set(keywords(schema_document())) <= KEYWORDS
    for kind in KINDS:
        assert set(keywords(schema_of(kind))) <= KEYWORDS


def test_the_schema_is_a_valid_schema_of_draft_2020_12() -> None:
    Draft202012Validator.check_schema(schema_document())
    assert {
        d["properties"]["kind"]["const"] for d in schema_document()["$defs"].values() if "kind" in d["properties"]
    } == {*KINDS}


@EVERY_KIND
def test_the_schema_of_one_kind_is_a_valid_schema(kind: str) -> None:
    schema = schema_of(kind)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(example(kind))
    assert not validator.is_valid({**example(kind), "kind": "another"})


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="no such document kind") as caught:
        schema_of("letter")
    assert "receipt" in caught.value.expected


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def test_every_object_is_closed_and_every_field_required() -> None:
    found = list(objects(schema_document()))
    assert len(found) > 30
    for schema in found:
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])


# --- agreement --------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_examples_are_accepted_by_both(kind: str) -> None:
    assert both_agree(kind, example(kind))


@EVERY_KIND
@given(data=st.data())
@settings(max_examples=max(1, settings().max_examples // 4))
def test_documents_made_from_the_schema_are_accepted_by_both(kind: str, data: st.DataObject) -> None:
    assert both_agree(kind, data.draw(documents(kind)))


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from places(child, (*path, name))


def at(value: Any, path: Path_) -> Any:
    for part in path:
        value = value[part]
    return value


def put(value: Any, path: Path_, new: Any) -> Any:
    if not path:
        return new
    changed = copy.deepcopy(value)
    at(changed, path[:-1])[path[-1]] = new
    return changed


def dropped(value: Any, path: Path_) -> Any:
    changed = copy.deepcopy(value)
    del at(changed, path[:-1])[path[-1]]
    return changed


_REPLACEMENTS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.0, 1.0, -0.0, 0.5, -0.5, 1e300, -1e300, 1e301, 5e-324, 10**400, SAFE_INTEGER,
    SAFE_INTEGER + 1, -SAFE_INTEGER - 1, float(2**53), 65_535, 65_536, 65_535.0, "", " ", "0", "1", "true", "null", "a",
    "A-b_c", "\u00e9", "\U0001f600", "x" * 64, "x" * 65, "x" * 2001, "sha256:" + "0" * 64, "sha256:" + "A" * 64,
    "sha256:" + "0" * 63, "2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01", "base",
    "arm:", "arm:x", "TRUE", "below", "1.0", [], {}, [None], [[]], {"": 0}, [0], ["a"], {"id": "a"},
)  # fmt: skip


def _scaled(value: Any) -> Any:
    return value * 10**18 if isinstance(value, int | float) and not isinstance(value, bool) else value


_EDITS: tuple[Callable[[Any], Any], ...] = (
    lambda v: v + "\n" if isinstance(v, str) else v,
    lambda v: "\n" + v if isinstance(v, str) else v,
    lambda v: v + " " if isinstance(v, str) else v,
    lambda v: v.upper() if isinstance(v, str) else v,
    lambda v: v + "\u0660" if isinstance(v, str) else v,
    lambda v: v * 300 if isinstance(v, str) else v,
    lambda v: float(v) if isinstance(v, int) and not isinstance(v, bool) else v,
    lambda v: int(v) if isinstance(v, float) and v.is_integer() else v,
    lambda v: v + 0.5 if isinstance(v, int | float) and not isinstance(v, bool) else v,
    lambda v: -v if isinstance(v, int | float) and not isinstance(v, bool) else v,
    lambda v: bool(v) if isinstance(v, int | float) else v,
    lambda v: str(v) if isinstance(v, int | float) else v,
    _scaled,
    lambda v: [v],
    lambda v: v * 2 if isinstance(v, list) else v,
    lambda v: [] if isinstance(v, list) else v,
    lambda v: {**v, "extra": 0} if isinstance(v, dict) else v,
    lambda v: {**v, "": None} if isinstance(v, dict) else v,
    lambda v: {f"{k}\n": x for k, x in v.items()} if isinstance(v, dict) else v,
    lambda v: {k.upper(): x for k, x in v.items()} if isinstance(v, dict) else v,
    lambda v: list(v.values()) if isinstance(v, dict) else v,
    lambda v: dict(enumerate(v)) if isinstance(v, list) else v,
)


@st.composite
def mutants(draw: st.DrawFn, kind: str) -> Any:
    """Draw a document with one to three faults, or changes that are none."""
    value: Any = draw(documents(kind)) if draw(st.integers(0, 3)) == 0 else example(kind)
    for _ in range(draw(st.integers(1, 3))):
        every = list(places(value))
        path = draw(st.sampled_from(every))
        how = draw(st.integers(0, 2))
        if how == 0 and path:
            value = dropped(value, path)
        elif how == 1:
            value = put(value, path, draw(st.sampled_from(_REPLACEMENTS)))
        else:
            value = put(value, path, draw(st.sampled_from(_EDITS))(at(value, path)))
    return json.loads(json.dumps(value))


@EVERY_KIND
@given(data=st.data())
def test_mutated_documents_are_judged_alike(kind: str, data: st.DataObject) -> None:
    agreed = both_agree(kind, data.draw(mutants(kind)))  # raises where the two judge differently
    assert isinstance(agreed, bool)


@EVERY_KIND
def test_every_dropped_field_is_refused_by_both(kind: str) -> None:
    value = example(kind)
    seen: set[Path_] = set()
    for path in places(value):
        # One element of every list stands for all.
        shape = tuple(part if isinstance(part, str) else 0 for part in path)
        if not path or shape in seen or isinstance(path[-1], int) or shape[-2:-1] == ("fingerprint",):
            continue
        seen.add(shape)
        assert not both_agree(kind, dropped(value, path)), path
    assert len(seen) > 5


@EVERY_KIND
def test_every_added_field_is_refused_by_both(kind: str) -> None:
    value = example(kind)
    for path in places(value):
        if isinstance(at(value, path), dict) and path[-1:] != ("fingerprint",) and 1 not in path:
            assert not both_agree(kind, put(value, path, {**at(value, path), "extra": 0})), path


@EVERY_KIND
def test_every_small_edit_of_every_leaf_is_judged_alike(kind: str) -> None:
    value, accepted, refused = example(kind), 0, 0
    seen: set[Path_] = set()
    for path in places(value):
        shape = tuple(part if isinstance(part, str) else 0 for part in path)
        leaf = at(value, path)
        if shape in seen or isinstance(leaf, dict | list):
            continue
        seen.add(shape)
        for edit in _EDITS[:13]:
            changed = edit(leaf)
            if changed == leaf and type(changed) is type(leaf):
                continue
            ok = both_agree(kind, put(value, path, changed))
            accepted, refused = accepted + ok, refused + (not ok)
    assert accepted > 0
    assert refused > 0


def test_one_point_zero_is_an_integer_and_true_is_no_number() -> None:
    value = example("preregistration")
    path: Path_ = ("expected_rows", "run")
    assert both_agree("preregistration", put(value, path, 7.0))
    assert not both_agree("preregistration", put(value, path, 7.5))
    assert not both_agree("preregistration", put(value, path, True))
    assert not both_agree("preregistration", put(value, ("damage_tolerance_nats",), True))
    assert both_agree("preregistration", put(value, ("damage_tolerance_nats",), 0))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    written = json.dumps(example("preregistration")).replace(
        '"damage_tolerance_nats": 0.05', f'"damage_tolerance_nats": {text}'
    )
    assert text in written
    with pytest.raises(ValidationError):
        MODELS["preregistration"].model_validate_json(written)
    assert schema_errors(json.loads(written), "preregistration") or text == "NaN"


@EVERY_KIND
def test_a_document_of_another_kind_is_refused(kind: str) -> None:
    for other in KINDS:
        assert both_agree(kind, example(other)) == (kind == other)


@EVERY_KIND
def test_errors_name_the_place(kind: str) -> None:
    errors = schema_errors({**example(kind), "schema_version": "2.0"}, kind)
    assert [path for path, _ in errors] == [("schema_version",)]


SHAPES: dict[str, tuple[Path_, Any, Path_, str]] = {
    "unknown tag": (
        ("claims", 0, "statement", "operator"),
        "argmax",
        ("claims", 0, "statement", "operator"),
        "is not one of argmax_in",
    ),
    "field of the meant shape": (
        ("claims", 0, "statement", "labels"),
        [],
        ("claims", 0, "statement", "labels"),
        "non-empty",
    ),
    "value or null": (("series", 0, "term"), "coupling", ("series", 0, "term"), "does not match"),
    "no shape at all": (("claims", 0, "statement"), 3, ("claims", 0, "statement"), "not valid under any"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_errors_are_about_the_shape_that_was_meant(name: str) -> None:
    path, new, where, says = SHAPES[name]
    ((found, message),) = schema_errors(put(example("measurement"), path, new), "measurement")
    assert found == where
    assert says in message


@EVERY_KIND
def test_models_write_what_they_read(kind: str) -> None:
    value = example(kind)
    model = MODELS[kind].model_validate_json(json.dumps(value))
    assert model.model_dump(mode="json") == value
    assert MODELS[kind].model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize(
    ("time", "exists"),
    [("2025-02-28", True), ("2025-02-29", False), ("2025-02-31", False), ("2024-02-29", True), ("1900-02-29", False),
     ("2000-02-29", True), ("2025-04-31", False), ("2025-04-30", True), ("2025-12-31", True), ("2025-13-01", False),
     ("2025-00-10", False), ("2025-01-00", False), ("2025-01-32", False), ("0999-01-01", False), ("3000-01-01", False)],
)  # fmt: skip
def test_a_day_that_does_not_exist_is_no_time(time: str, exists: bool) -> None:
    adapter = TypeAdapter(Time)
    for clock, real in (("T00:00:00Z", True), ("T23:59:59Z", True), ("T24:00:00Z", False), ("T12:60:00Z", False),
                        ("T12:00:60Z", False), ("t00:00:00z", False), ("T00:00:00+00:00", False)):  # fmt: skip
        if exists and real:
            assert adapter.validate_python(time + clock) == time + clock
        else:
            with pytest.raises(ValidationError):
                adapter.validate_python(time + clock)


@given(st.integers(1000, 2999), st.integers(0, 13), st.integers(0, 32))
def test_the_days_are_those_of_the_calendar(year: int, month: int, day: int) -> None:
    try:
        datetime.date(year, month, day)
        exists = True
    except ValueError:
        exists = False
    try:
        TypeAdapter(Time).validate_python(f"{year:04d}-{month:02d}-{day:02d}T00:00:00Z")
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == exists
