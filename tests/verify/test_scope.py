"""What a verdict is said to be about: the model behind the arm and what the plan asked, word by word."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.verify.scope import scope


def plan(layers: Sequence[int] = (3,)) -> Preregistration:
    """Return a plan of three windows of two documents in one domain, and of five items."""
    windows = [SimpleNamespace(cluster_id=c, domain="law") for c in ("c1", "c1", "c2")]
    task = SimpleNamespace(items=[None] * 5, target=0.75, tolerance=0.125)
    made = SimpleNamespace(protected_layers=tuple(layers), windows=windows, damage_tolerance_nats=0.5, task=task)
    return cast(Preregistration, made)


def receipt(arm: str, **models: str) -> Receipt:
    """Return a receipt about an arm, with subjects in the given order."""
    subjects = [SimpleNamespace(run_id=f"arm:{n}", weights_digest=f"digest of {n}", model=m) for n, m in models.items()]
    return cast(Receipt, SimpleNamespace(claim=SimpleNamespace(arm=arm), subjects=subjects))


@pytest.mark.parametrize("arm", ["a", "b", "c"])
def test_the_model_is_that_of_the_arm_whichever_stands_first(arm: str) -> None:
    found = scope(receipt(arm, a="A", b="B", c="C"), plan())["arm's weights"]
    assert found == f"digest of {arm} {arm.upper()}"


def test_a_long_name_is_cut_and_an_absent_arm_said_to_be_absent() -> None:
    assert scope(receipt("a", a="é" * 121), plan())["arm's weights"] == f"digest of a {'é' * 120}"
    assert scope(receipt("z", a="A"), plan())["arm's weights"] == "not among the subjects"


def test_what_was_asked_is_counted() -> None:
    asked = "layer 3; 3 windows of 2 documents in 1 domains, at most 0.5 nats lost; 5 items, target 0.75 less 0.125"
    assert scope(receipt("a", a="A"), plan())["asked"] == asked


@pytest.mark.parametrize(("layers", "said"), [
    ([7], "layer 7"), ([0, 7], "layers 0, 7"), (range(12), "layers 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
    (range(1, 14), "13 layers from 1 to 13"), ([2, *range(5, 30)], "26 layers from 2 to 29"),
])  # fmt: skip
def test_a_dozen_layers_are_listed_and_more_are_counted(layers: Sequence[int], said: str) -> None:
    assert scope(receipt("a", a="A"), plan(layers))["asked"].partition("; ")[0] == said
