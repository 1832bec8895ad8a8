"""`contracts.md` lists the properties that there are, with the numbers that they are tried on."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings
from properties.contract import CONTRACTS
from properties.table import NAME, PROFILES, elsewhere, properties, table

from benchmarks.page import section

PAGE = Path(__file__).parents[2] / "docs" / "contracts.md"


def test_the_page_lists_every_property() -> None:
    assert section(PAGE, NAME) == table(), "make contracts writes it anew"


def test_numbers_are_those_of_the_profiles() -> None:
    assert {name: settings.get_profile(name).max_examples for name in PROFILES} == PROFILES
    assert settings().max_examples == PROFILES[os.environ.get("ATLAS_HYPOTHESIS_PROFILE", "quick")]


def test_what_is_read_from_the_source_is_what_runs() -> None:
    import properties.test_decisions as decisions
    import properties.test_less as less

    found = {f"properties/{p.file}::{p.test}": p for p in properties()}
    for module in (decisions, less):
        names = [key for key in CONTRACTS if key.startswith(module.__name__.replace(".", "/"))]
        assert len(names) > 5
        for key in names:
            assert (found[key].subject, found[key].says) == (CONTRACTS[key].subject, CONTRACTS[key].says)


def test_every_sentence_is_one_and_stands_once() -> None:
    said = [p.says for p in properties()]
    assert len(set(said)) == len(said) > 30
    assert all(sentence[0].isupper() and sentence.endswith(".") and "|" not in sentence for sentence in said)
    assert len(list(elsewhere())) > 100
