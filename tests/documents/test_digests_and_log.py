"""Canonical digests, and the run log's chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from documents.examples import example, study
from hypothesis import given
from hypothesis import strategies as st
from simulator import make_log, make_step

from atlas_schema.canonical import canonical_json, digest_bytes, digest_document, raw_digest
from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.documents.schema import MODELS
from atlas_schema.errors import DocumentError, UsageError
from atlas_schema.files import document_text, read_document
from atlas_schema.protocol.log import append_step, chain_faults, step_hash

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner),
    max_leaves=12,
)  # fmt: skip


def reordered(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, dict):
        names = data.draw(st.permutations(sorted(value)))
        return {name: reordered(value[name], data) for name in names}
    return [reordered(v, data) for v in value] if isinstance(value, list) else value


@given(json_values, st.data())
def test_digests_ignore_key_order_and_format(value: Any, data: st.DataObject) -> None:
    expected = digest_document(value)
    assert digest_document(reordered(value, data)) == expected
    for text in (
        json.dumps(value, indent=3),
        json.dumps(value, separators=(",", ":")),
        json.dumps(value, ensure_ascii=False),
    ):
        assert digest_document(json.loads(text)) == expected
    # Integral numbers beyond 2^53 are floats that the canonical form writes without a point.
    again = json.loads(
        canonical_json(value), parse_int=lambda text: int(text) if abs(int(text)) < 2**53 else float(text)
    )
    assert digest_document(again) == expected


@given(json_values, json_values)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    same = canonical_json(one) == canonical_json(other)
    assert (digest_document(one) == digest_document(other)) == same
    if not same:
        assert json.loads(canonical_json(one)) != json.loads(canonical_json(other))


def test_canonical_form_is_that_of_rfc_8785() -> None:
    value = {"\u20ac": 1.0, "\r": -0.0, "1": 1e21, "\U0001f600": [333333333.33333329, 4.5, 2e-3], "a": None}
    assert canonical_json(value).decode() == (
        '{"\\r":0,"1":1e+21,"a":null,"\u20ac":1,"\U0001f600":[333333333.3333333,4.5,0.002]}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**53), {1: 2}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(DocumentError, match="no canonical form"):
        canonical_json([value])


@given(st.binary(max_size=10))
def test_raw_digest_undoes_the_prefix(data: bytes) -> None:
    digest = digest_bytes(data)
    assert digest == "sha256:" + raw_digest(digest).hex()
    assert len(raw_digest(digest)) == 32


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_document_has_one_digest_however_it_was_read(kind: str, tmp_path: Path) -> None:
    value = example(kind)
    path = tmp_path / "document.json"
    path.write_text(document_text(MODELS[kind].model_validate_json(json.dumps(value))), encoding="utf-8")
    model = read_document(path, MODELS[kind], kind)
    assert digest_document(model.model_dump(mode="json")) == digest_document(value)
    assert digest_document(json.loads(path.read_bytes())) == digest_document(value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "contract"}'])
def test_an_unfit_document_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    path.write_text(text)
    with pytest.raises(
        DocumentError, match="declared shape" if text.endswith(("]", "l", "}")) else "not JSON"
    ) as caught:
        read_document(path, MODELS["contract"], "contract")
    assert str(path) in caught.value.where
    with pytest.raises(UsageError, match="cannot be read"):
        read_document(tmp_path / "absent.json", MODELS["contract"], "contract")


# --- the run log ------------------------------------------------------------------------------------------------


def log_of(count: int) -> RunLog:
    steps: list[Step] = []
    for i in range(count):
        name = "declare" if i == 0 else "extract"
        time = f"2026-01-01T00:{i:02d}:00Z"
        steps.append(
            make_step(steps[-1] if steps else None, name, "automation", time, {}, {"it": digest_bytes(bytes([i]))})
        )
    return RunLog(kind="run_log", schema_version="1.0", steps=tuple(steps))


def with_steps(log: RunLog, steps: tuple[Step, ...]) -> RunLog:
    return log.model_copy(update={"steps": steps})


def test_an_honest_log_has_no_faults() -> None:
    assert chain_faults(study().run_log) == []
    assert chain_faults(make_log(study().preregistration, study().evidence_root())) == []
    assert chain_faults(log_of(7)) == []


@given(st.integers(3, 7), st.data())
def test_a_removed_step_is_found(count: int, data: st.DataObject) -> None:
    log = log_of(count)
    gone = data.draw(st.integers(0, count - 2))  # without its last steps a log is a shorter log
    assert chain_faults(with_steps(log, log.steps[:gone] + log.steps[gone + 1 :]))


@given(st.integers(1, 7))
def test_a_shortened_log_has_another_head(count: int) -> None:
    assert log_of(count).steps[-1].hash != log_of(count + 1).steps[-1].hash


@given(st.permutations(range(5)))
def test_reordered_steps_are_found(order: list[int]) -> None:
    log = log_of(5)
    faults = chain_faults(with_steps(log, tuple(log.steps[i] for i in order)))
    assert bool(faults) == (order != sorted(order))


CHANGES: dict[str, Any] = {
    "step": "issue", "actor": "technician", "tool": "another", "time": "2026-01-01T00:02:30Z",
    "inputs": (), "outputs": (), "previous": digest_bytes(b"x"), "hash": digest_bytes(b"y"), "index": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_any_altered_field_is_found(name: str) -> None:
    log = log_of(5)
    altered = log.steps[2].model_copy(update={name: CHANGES[name]})
    if altered == log.steps[2]:
        altered = log.steps[2].model_copy(update={name: log.steps[1].outputs})
    faults = chain_faults(with_steps(log, (*log.steps[:2], altered, *log.steps[3:])))
    assert 2 in {index for index, _ in faults}


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"hash"}))
def test_an_altered_step_with_a_new_hash_breaks_the_next(name: str) -> None:
    log = log_of(5)
    value = CHANGES[name] if getattr(log.steps[2], name) != CHANGES[name] else log.steps[1].outputs
    altered = log.steps[2].model_copy(update={name: value})
    altered = altered.model_copy(update={"hash": step_hash(altered)})
    assert chain_faults(with_steps(log, (*log.steps[:2], altered, *log.steps[3:])))


def test_a_retimed_log_with_new_hashes_must_still_be_in_order() -> None:
    first = make_step(None, "declare", "technician", "2026-01-02T00:00:00Z", {}, {})
    second = make_step(first, "extract", "automation", "2026-01-01T00:00:00Z", {}, {})
    faults = chain_faults(RunLog(kind="run_log", schema_version="1.0", steps=(first, second)))
    assert [index for index, _ in faults] == [1]
    assert "before" in faults[0][1]


def test_steps_are_appended_in_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "run_log.json"
    with pytest.raises(UsageError, match="no run log"):
        append_step(path, step="extract", actor="automation", inputs={}, outputs={})
    for step in ("declare", "extract", "issue"):
        append_step(path, step=step, actor="automation", inputs={}, outputs={"it": digest_bytes(b"")})
    log = read_document(path, RunLog, "run log")
    assert [s.step for s in log.steps] == ["declare", "extract", "issue"]
    assert chain_faults(log) == []


def test_nothing_is_appended_to_an_altered_log(tmp_path: Path) -> None:
    path = tmp_path / "run_log.json"
    log = log_of(3)
    path.write_text(document_text(with_steps(log, log.steps[1:])), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="has been altered") as caught:
        append_step(path, step="issue", actor="automation", inputs={}, outputs={})
    assert "step 0" in caught.value.where
    assert path.read_bytes() == before
