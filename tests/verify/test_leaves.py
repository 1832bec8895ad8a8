"""Every leaf of a receipt is load-bearing: change any, and the receipt is not verified. Free text is published as such.

Here on a study of the simulator, one of each kind of place; `tests/attacks/leaves.py` does the same to every shipped receipt.
What does not depend on the receipt (its other documents, roots, physics, recomputed findings) is computed once and remembered.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from attacks.changes import Change, Changes, Path, kind_of, walk
from attacks.remembered import Study, remembered
from hypothesis import given, settings
from hypothesis import strategies as st
from verify.forging import Json, as_json, encoded, honest, study, submission

from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.measures import summarise as measures
from atlas_schema.verify.outcome import Code

ARM = "close"
"""Its cells come from the bootstrap and from exact binomial bounds; the arm beside it has cells decided by identity."""
CHANGES = Changes(encoded(as_json(honest(ARM))), FREE_TEXT)


@pytest.fixture(scope="module", autouse=True)
def looked_at_once() -> Iterator[None]:
    """Remember what no receipt enters. Each function is run once for real; the receipt's own checks are untouched."""
    with remembered():
        yield
    one_study.cache_clear()


@cache
def one_study() -> Study:
    made = Study(submission(study(), honest(ARM)), "preserved")
    assert made.honest.code is Code.VERIFIED
    return made


def last_of_each_kind(places: list[tuple[Path, Any]]) -> dict[str, tuple[Path, Any]]:
    """Return one place per kind: the last, since the first arm and cell are the plainest."""
    return {kind_of(path): (path, value) for path, value in places}


LEAVES = last_of_each_kind(CHANGES.leaves)
CONTAINERS = last_of_each_kind(CHANGES.containers)


def with_leaf(path: Path, value: Any) -> Json:
    changed: Json = copy.deepcopy(CHANGES.value)
    inner: Any = changed
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return changed


def code_of(receipt: Json | bytes) -> Code:
    return one_study().outcome(receipt if isinstance(receipt, bytes) else encoded(receipt)).code


def says_the_truth(change: Change) -> bool:
    """Turned to an arm of the same verdict, a receipt is that arm's; a test below holds it."""
    return change.path == ("claim", "arm") and change.new == "frozen"


def contradicted(made: list[Change]) -> None:
    assert made
    for change in made:
        code = code_of(CHANGES.raw(change))
        if says_the_truth(change):
            continue
        assert code in (Code.INADMISSIBLE, Code.TAMPERED, Code.DIVERGED), f"{change}: {change.new!r} ends {code.name}"


@pytest.mark.parametrize("kind", LEAVES)
def test_no_kind_of_leaf_can_be_changed(kind: str) -> None:
    contradicted(CHANGES.of_leaf(*LEAVES[kind]))


@settings(max_examples=120)
@given(st.data())
def test_no_leaf_can_be_changed(data: st.DataObject) -> None:
    made = CHANGES.of_leaf(*data.draw(st.sampled_from(CHANGES.leaves), label="leaf"))
    change = data.draw(st.sampled_from(made), label="change")
    assert (code_of(CHANGES.raw(change)) is Code.VERIFIED) == says_the_truth(change)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_nothing_can_be_removed_added_or_reordered(kind: str) -> None:
    path, value = CONTAINERS[kind]
    contradicted([c for c in CHANGES.of_container(path, value) if "element" not in c.what or len(value) < 5])


def test_a_receipt_turned_to_an_arm_of_the_same_verdict_is_that_arms_receipt() -> None:
    assert with_leaf(("claim", "arm"), "frozen") == as_json(honest("frozen"))


def test_the_order_of_members_and_spaces_mean_nothing() -> None:
    reordered = json.dumps(CHANGES.value, sort_keys=True, separators=(",", ":")).encode()
    assert code_of(reordered) is Code.VERIFIED


def test_free_text_is_free_and_nothing_else_is() -> None:
    assert FREE_TEXT == ("/notes",)
    assert len(CHANGES.leaves) + 1 == sum(not isinstance(v, (dict, list)) or not v for _, v in walk(CHANGES.value))
    assert code_of(with_leaf(("notes",), "See the appendix.")) is Code.VERIFIED


def test_a_judgement_that_nobody_logged_is_refused() -> None:
    made = {"value": "safe to ship", "author": "A. Reviewer", "time": "2026-02-01T00:00:00Z", "basis": "the cells"}
    assert code_of(with_leaf(("judgement", "reading"), made)) is Code.INADMISSIBLE


def test_free_text_still_has_a_shape() -> None:
    assert code_of(with_leaf(("notes",), 1)) is Code.INADMISSIBLE
    assert code_of(with_leaf(("judgement", "reading"), {"value": "safe to ship"})) is Code.INADMISSIBLE


@pytest.mark.parametrize("digits", [9, 10, 12, 15])
def test_numbers_stated_with_more_digits_than_the_contract_asks_are_no_contradiction(digits: int) -> None:
    findings = measures.summarise(study().source(), study().contract, study().preregistration, study().evidence_root())
    found = findings.arms[1].cells[0].value
    assert found is not None
    path = ("findings", "arms", 1, "cells", 0, "value")
    assert code_of(with_leaf(path, float(f"{found:.{digits}g}"))) is Code.VERIFIED
