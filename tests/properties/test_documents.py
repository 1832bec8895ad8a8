"""Documents made up from the schema, and such with faults: read, written and judged the same by everybody who reads them.

That models and `schema.json` accept the same documents is shown in `tests/documents/test_schema.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from documents.examples import KINDS, documents
from documents.test_schema import by_models, mutants
from hypothesis import given
from hypothesis import strategies as st
from properties.contract import holds

from atlas_schema.canonical import canonical_json, digest_document
from atlas_schema.documents.schema import MODELS
from atlas_schema.errors import DocumentError
from atlas_schema.files import document_text
from atlas_schema.verify.outcome import Code, exit_code
from atlas_schema.verify.reading import read_json
from atlas_schema.verify.verifier import Options, Submission, verify

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@holds(
    "documents",
    "Any document read, written canonically and read again is the same document with the same digest.",
    2,
    30,
)
@EVERY_KIND
@given(data=st.data())
def test_round_trips(kind: str, data: st.DataObject) -> None:
    value = data.draw(documents(kind))
    if not by_models(kind, value):
        return  # what the schema's keywords cannot say of a document made from them; both refuse it
    model = MODELS[kind].model_validate_json(json.dumps(value))
    written = canonical_json(model.model_dump(mode="json"))
    again = MODELS[kind].model_validate_json(written)
    assert again == model
    assert canonical_json(again.model_dump(mode="json")) == written
    assert MODELS[kind].model_validate_json(document_text(model)) == model
    assert digest_document(value) == digest_document(model.model_dump(mode="json"))


@holds("documents", "Order of members, indentation and escapes change neither what is read nor its digest.", 1, 30)
@EVERY_KIND
@given(
    data=st.data(),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    seed=st.randoms(use_true_random=False),
)
def test_form_does_not_matter(kind: str, data: st.DataObject, indent: int | None, ascii_only: bool, seed: Any) -> None:
    value = data.draw(documents(kind))

    def shuffled(part: Any) -> Any:
        if isinstance(part, dict):
            names = list(part)
            seed.shuffle(names)
            return {name: shuffled(part[name]) for name in names}
        return [shuffled(inner) for inner in part] if isinstance(part, list) else part

    raw = json.dumps(shuffled(value), indent=indent, ensure_ascii=ascii_only).encode()
    assert read_json(raw) == value
    assert digest_document(read_json(raw)) == digest_document(value)


@holds(
    "documents",
    "Whatever is submitted, verification ends with a code; profile schema gives 0 exactly where the models accept.",
    3,
    60,
)
@EVERY_KIND
@given(data=st.data())
def test_every_document_has_an_outcome(kind: str, data: st.DataObject) -> None:
    value = data.draw(mutants(kind))
    raw = json.dumps(value).encode()
    try:
        read_json(raw)
        readable = True
    except DocumentError:
        readable = False
    # A tier typed into a document is refused by a rule of the contract, which profile schema does not ask for.
    found = verify(Submission("document.json", raw), Options(profile="schema"))
    accepted = (
        isinstance(value, dict) and by_models(str(value.get("kind")), value) if value_names_a_kind(value) else False
    )
    assert (exit_code(found) is Code.VERIFIED) == (readable and accepted)
    for profile in ("offline", "review"):
        code = exit_code(verify(Submission("document.json", raw), Options(profile=profile)))
        assert code is not Code.INTERNAL
        assert accepted or code is Code.INADMISSIBLE
        assert profile == "offline" or code is not Code.VERIFIED or kind == "measurement"


def value_names_a_kind(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str) and value["kind"] in MODELS
