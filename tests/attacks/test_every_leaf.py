"""Every leaf of every shipped receipt, sampled: `python tests/attacks/leaves.py` tries them all, this a share of them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator

import pytest
from attacks.changes import TWICE, Change, Changes, is_leaf
from attacks.leaves import CODES, DEMO, ROOT, SECTION, Sweep, Target, chosen, table, targets
from attacks.remembered import forgotten, outcome_of, remembered

from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.verify.verifier import verify
from benchmarks.page import section

RECEIPT = Target(f"{DEMO}/receipt-preserved.json")
BESIDE = [Target(RECEIPT.receipt, document) for document in ("preregistration", "run_log")]


@pytest.fixture(scope="module")
def sweep() -> Iterator[Sweep]:
    with remembered() as recomputed:
        yield Sweep(RECEIPT, recomputed)


def not_contradicted(sweep: Sweep, number: int, seed: str) -> list[str]:
    """Make a number of changes, drawn by a seed; return those that nothing contradicts, or that end oddly."""
    made = list(chosen(sweep.changes, whole=False, seed=seed))
    tally = sweep.tally()
    for change in random.Random(seed).sample(made, min(number, len(made))):
        sweep.count(change, tally)
    assert tally.tried == min(number, len(made))
    wrong = tally.believed + tally.odd
    assert sum(tally.caught.values()) + len(tally.true) + len(wrong) == tally.tried
    return wrong


def test_the_honest_receipt_is_verified_and_its_free_text_is_free(sweep: Sweep) -> None:
    assert sweep.study.honest.code == 0
    assert list(sweep.changes.free) == [("notes",)]
    freed = Changes(sweep.study.submission.raw)
    change = next(c for c in freed.of_leaf(("notes",), freed.value["notes"]) if c.what == "longer")
    assert sweep.study.outcome(freed.raw(change)) == sweep.study.honest


def test_changes_of_the_receipt_are_contradicted(sweep: Sweep) -> None:
    assert not_contradicted(sweep, 150, os.environ.get("ATLAS_SEED", "quick")) == []


@pytest.mark.parametrize("target", BESIDE, ids=lambda t: t.document)
def test_changes_beside_the_receipt_are_contradicted(sweep: Sweep, target: Target) -> None:
    beside = object.__new__(Sweep)
    beside.target, beside.recomputed, beside.receipt, beside.study = (
        target,
        sweep.recomputed,
        sweep.receipt,
        sweep.study,
    )
    beside.changes = Changes((ROOT / target.path).read_bytes())
    assert not_contradicted(beside, 40, "beside") == []


def same_outcomes(target: Target, pick: Callable[[Changes], list[Change]]) -> set[str]:
    """Verify changes with what is remembered, and again with the verifier as it is; return the channels that caught them."""
    with remembered() as recomputed:
        sweep = Sweep(target, recomputed)
        made = pick(sweep.changes)
        quick = [sweep.outcome(change) for change in made]
    with forgotten():
        assert quick == [outcome_of(verify(sweep.submission(change), sweep.study.options)) for change in made]
    return {outcome.caught_in for outcome in quick}


def one_for_each_channel(changes: Changes) -> list[Change]:
    values = dict([*changes.leaves, *changes.containers])
    wanted = [
        ((), TWICE), (("claim",), "without arm"), (("run_log", "steps"), "one more"),
        (("evidence", "tables", 0, "root"), "last letter"), (("findings", "arms", 0, "cells", 0, "value"), "last place up"),
        (("claim", "verdict"), "to rewritten"),
    ]  # fmt: skip
    made = [
        (changes.of_leaf if is_leaf(values[path]) else changes.of_container)(path, values[path]) for path, _ in wanted
    ]
    return [next(c for c in found if c.what == what) for found, (_, what) in zip(made, wanted, strict=True)]


def test_what_is_remembered_changes_no_outcome() -> None:
    """Exit code, verdict, every channel and every rule that fired are those of the verifier as it is, in every channel."""
    assert same_outcomes(RECEIPT, one_for_each_channel) == {channel.value for channel in CODES}


@pytest.mark.thorough
@pytest.mark.parametrize("document", ["receipt", "preregistration", "run_log"])
def test_what_is_remembered_changes_no_outcome_of_many(document: str) -> None:
    draw = random.Random(os.environ.get("ATLAS_SEED", "unpatched"))
    target = Target(RECEIPT.receipt, document, whole=False)
    assert len(same_outcomes(target, lambda changes: draw.sample(list(chosen(changes, whole=False)), 25))) > 1


def test_a_change_is_what_it_says() -> None:
    """Text put in place of text gives the document with that one value replaced, and no other."""
    changes = Changes((ROOT / RECEIPT.path).read_bytes(), FREE_TEXT)
    for change in random.Random("splice").sample(list(chosen(changes, whole=False)), 200):
        if change.what == TWICE:
            continue
        expected = json.loads(changes.text)
        inner = expected
        for part in change.path[:-1]:
            inner = inner[part]
        if change.path:
            inner[change.path[-1]] = change.new
        assert json.loads(changes.raw(change)) == (expected if change.path else change.new)
        assert json.loads(changes.raw(change)) != changes.value


def test_every_shipped_receipt_is_swept_and_the_page_states_what_was_counted() -> None:
    shipped = {t.path for t in targets() if t.document == "receipt"}
    assert {f"fixtures/{name}" for name in json.loads((ROOT / "fixtures/expected.json").read_bytes())} <= shipped
    text = section(ROOT / "docs/attacks.md", SECTION)
    for target in targets():
        changes = Changes((ROOT / target.path).read_bytes(), FREE_TEXT if target.document == "receipt" else ())
        counts = f"{len(changes.leaves) + len(changes.free):,} | {len(changes.free):,} | {len(changes.containers):,}"
        assert f"| `{target.path}`{target.how} | {counts} |" in text
    assert ", 0 believed." in text


def test_a_believed_change_shows_in_the_table(sweep: Sweep) -> None:
    tally = sweep.tally()
    tally.believed.append("/claim/verdict: to rewritten, exit 0")
    assert "1 believed.\n- `" in table([tally])


@pytest.mark.thorough
@pytest.mark.parametrize("target", targets(), ids=lambda t: t.path.replace("/", "-"))
def test_more_changes_of_every_shipped_document_are_contradicted(target: Target) -> None:
    with remembered() as recomputed:
        assert not_contradicted(Sweep(target, recomputed), 120, os.environ.get("ATLAS_SEED", "thorough")) == []
