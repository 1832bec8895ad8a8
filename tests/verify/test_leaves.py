"""Every leaf of a receipt is load-bearing: change any, and the receipt is not verified. Free text is published as such.

The study stays as it is, so what does not depend on the receipt (its other documents, roots, physics, recomputed
findings) is computed once and remembered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify.forging import Json, as_json, honest, study, verified

from atlas_schema.canonical import canonical_json
from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.evidence.source import table_roots
from atlas_schema.measures import summarise as measures
from atlas_schema.verify import binding, consistency, documents, reproduction, verifier
from atlas_schema.verify.outcome import Channel, ChannelResult, Code, Report, exit_code
from atlas_schema.verify.reading import pointer

Path = tuple[str | int, ...]
WORDS = (
    ("preserved", "rewritten"), ("below", "above", "identical"), ("TRUE", "FALSE"), ("reached", "missed"),
    ("bootstrap", "identical"), ("recomputed", "asserted"), ("contract", "preregistration"), ("base", "arm", "null"),
)  # fmt: skip
"""Words that may stand in each other's place by the schema."""
ARM = "close"
"""Its cells come from the bootstrap and from exact binomial bounds; the arm beside it has cells decided by identity."""


@pytest.fixture(scope="module", autouse=True)
def study_is_looked_at_once() -> Iterator[None]:
    """Remember what no receipt enters. Each function is run once for real; the receipt's own checks are untouched."""
    s = study()
    roots = table_roots(s.source())
    findings = measures.summarise(s.source(), s.contract, s.preregistration, s.evidence_root())
    parse = documents.parse
    parsed: dict[tuple[str, bytes], Any] = {}

    def parse_once(name: str, raw: bytes, kind: str | None, report: Report) -> Any:
        if name == "receipt" or (name, raw) not in parsed:
            parsed[name, raw] = parse(name, raw, kind, report)
        return parsed[name, raw]

    def checked_once(check: Callable[..., None], *given: Any) -> Callable[..., None]:
        first = ChannelResult(Channel.CONTRACT)
        check(*given, first)
        assert not first.problems
        return lambda *args: args[-1].check(first.checked)

    given_rows = (s.source(), s.preregistration, s.contract)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "parse", parse_once)
        patch.setattr(binding, "table_roots", lambda _: roots)
        patch.setattr(measures, "summarise", lambda *_: findings)
        patch.setattr(consistency, "check_rows", checked_once(consistency.check_rows, *given_rows))
        patch.setattr(reproduction, "check_physics", checked_once(reproduction.check_physics, *given_rows))
        yield


@cache
def original() -> Json:
    return as_json(honest(ARM))


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value of a document with its path, containers too."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from walk(inner, (*path, name))


LEAVES: list[Path] = [
    path for path, value in walk(as_json(honest(ARM))) if not isinstance(value, (dict, list)) or not value
]
CONTAINERS: list[Path] = [
    path for path, value in walk(as_json(honest(ARM))) if isinstance(value, (dict, list)) and value
]


def kind_of(path: Path) -> str:
    """Return a path with positions in lists left open."""
    return pointer(tuple("*" if isinstance(part, int) else part for part in path))


def first_of_each_kind(paths: list[Path]) -> dict[str, Path]:
    """Return one path per kind: the last, since the first arm and cell are the plainest."""
    return {kind_of(path): path for path in paths}


def free(path: Path) -> bool:
    return any(pointer(path) == text or pointer(path).startswith(f"{text}/") for text in FREE_TEXT)


def changes(value: Any) -> dict[str, Any]:
    """Return other values that a leaf could have, by what was done to it."""
    made: dict[str, Any] = {"to null": None, "to true": True}
    if isinstance(value, bool):
        made["negated"] = not value
    elif isinstance(value, int):
        made |= {"one more": value + 1, "one less": value - 1, "a half more": value + 0.5}
    elif isinstance(value, float):
        made |= {"ninth digit up": ninth_digit(value, 1), "ninth digit down": ninth_digit(value, -1), "doubled": 2 * value,
                 "zero": 0, "negative": -value}  # fmt: skip
    elif isinstance(value, str):
        made |= {"longer": value + "x", "last letter": value[:-1] + "0", "other case": value.swapcase()}
        made |= {f"to {word}": word for words in WORDS if value in words for word in words}
    elif value is None:
        made["to zero"] = 0
    return {name: new for name, new in made.items() if canonical_json([new]) != canonical_json([value])}


def ninth_digit(value: float, by: int) -> float:
    """Return a number moved by units of its ninth significant digit."""
    mantissa, _, exponent = f"{value:.8e}".partition("e")
    return float(f"{float(mantissa) + by * 1e-8:.8f}e{exponent}")


def with_leaf(path: Path, value: Any) -> Json:
    changed = copy.deepcopy(original())
    inner: Any = changed
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return changed


def code_of(receipt: Json) -> Code:
    return exit_code(verified(study(), receipt))


def test_the_receipt_itself_is_verified() -> None:
    assert code_of(original()) is Code.VERIFIED


@pytest.mark.parametrize("kind", first_of_each_kind(LEAVES))
def test_no_kind_of_leaf_can_be_changed(kind: str) -> None:
    path = first_of_each_kind(LEAVES)[kind]
    value = dict(walk(original()))[path]
    if free(path):
        return
    for name, new in changes(value).items():
        code = code_of(with_leaf(path, new))
        assert code not in (Code.VERIFIED, Code.INTERNAL), f"{pointer(path)} {name}: {value!r} -> {new!r}"


@settings(max_examples=120)
@given(st.data())
def test_no_leaf_can_be_changed(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([p for p in LEAVES if not free(p)]), label="leaf")
    value = dict(walk(original()))[path]
    name = data.draw(st.sampled_from(sorted(changes(value))), label="change")
    assert code_of(with_leaf(path, changes(value)[name])) is not Code.VERIFIED


@pytest.mark.parametrize("kind", first_of_each_kind(CONTAINERS))
def test_nothing_can_be_removed_added_or_reordered(kind: str) -> None:
    path = first_of_each_kind(CONTAINERS)[kind]
    value = dict(walk(original()))[path]
    for name, new in reshaped(value).items():
        receipt = with_leaf(path, new) if path else new
        assert code_of(receipt) not in (Code.VERIFIED, Code.INTERNAL), f"{pointer(path)} {name}"


def reshaped(value: Any) -> dict[str, Any]:
    """Return a container with something removed, added or moved."""
    if isinstance(value, dict):
        made: dict[str, Any] = {f"without {k}": {n: v for n, v in value.items() if n != k} for k in value}
        return {**made, "with more": {**value, "extra": "text"}}
    made = {
        "without the first": value[1:],
        "without the last": value[:-1],
        "doubled": [*value, *value],
        "with null": [*value, None],
    }
    return made if len(value) < 2 or value == value[::-1] else {**made, "reversed": value[::-1]}


def test_a_receipt_turned_to_an_arm_of_the_same_verdict_is_that_arms_receipt() -> None:
    assert with_leaf(("claim", "arm"), "frozen") == as_json(honest("frozen"))


def test_the_order_of_members_and_spaces_mean_nothing() -> None:
    import json

    reordered = json.dumps(original(), sort_keys=True, separators=(",", ":")).encode()
    assert exit_code(verified(study(), reordered)) is Code.VERIFIED


def test_free_text_is_free_and_nothing_else_is() -> None:
    assert FREE_TEXT == ("/notes",)
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
