"""The figures of `docs/attacks.md` and of the corpus's page are what is measured."""

from __future__ import annotations

import os
import re

import pytest
from conformance.adequacy import (
    CODES,
    PAGES,
    SECTION,
    VECTORS,
    Answer,
    by_code,
    caught,
    constant,
    rules_table,
    spread,
    switched_off,
)
from conformance.broken import BROKEN

from atlas_schema.conformance.corpus import read_corpus
from atlas_schema.verify.rules import RULES
from benchmarks.page import section


def stated() -> str:
    return section(PAGES[0], SECTION)


def test_both_pages_state_the_same() -> None:
    assert stated() == section(PAGES[1], SECTION) != ""


def test_the_figure_stands_and_counts_every_rule() -> None:
    whole, total, coded, again = re.findall(
        r"case: (\d+) of (\d+)\*\* .*?, (\d+) of (\d+) by the exit code", stated(), re.S
    )[0]
    assert int(total) == int(again) == len(RULES)
    assert int(whole) == len(RULES), "a rule without a separating case: write one"
    behind = re.findall(r"^\| `(ATL-\w+)` \|", stated(), flags=re.MULTILINE)
    assert int(coded) + len(behind) == int(whole)


def test_every_broken_verifier_is_listed_and_given_away() -> None:
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"^\| ([a-z][^|]+) \| `(\w+)` \| (\d+) \| (\d+) \|$", stated(), flags=re.MULTILINE)
    }
    assert set(rows) == set(BROKEN)
    expected = {case.name: case.expected.exit_code for case in read_corpus(VECTORS)[0]}
    assert all(int(e) == expected[name] != int(found) for name, e, found in rows.values())
    assert "it passes" not in stated()


def test_constants_are_what_the_corpus_gives() -> None:
    codes = [case.expected.exit_code for case in read_corpus(VECTORS)[0]]
    rows = re.findall(r"^\| always exits (\d) \| (\d+) \| (\d+) \|$", stated(), flags=re.MULTILINE)
    assert [tuple(map(int, row)) for row in rows] == [
        (code, len(codes) - codes.count(code), len(codes)) for code in CODES
    ]


def test_a_rule_switched_off_is_missed() -> None:
    """One rule of each kind of place: a reader, a document, a root, a signature, a row, a finding."""
    chosen = (
        "claim_twice",
        "wide_tolerance",
        "wrong_pin",
        "disowned_keyid",
        "maps_inflated_recomputed",
        "ninth_digit_outside",
    )
    cases = [case for case in read_corpus(VECTORS)[0] if case.name in chosen]
    found = {rule: answers for rule, answers in switched_off(cases).items() if answers}
    assert set(found) == {"ATL-A001", "ATL-C008", "ATL-B005", "ATL-K003", "ATL-R025", "ATL-R013"}
    assert all(rule not in a.rules and not a.same for rule, answers in found.items() for a in answers)
    assert all(by_code(answers) for answers in found.values())


def test_the_table_would_tell_of_a_rule_without_a_case() -> None:
    told = "\n".join(rules_table({"ATL-X001": [], "ATL-X002": [Answer("x", 5, 5, ("ATL-X003",), False)]}))
    assert "case: 1 of 2**" in told
    assert "0 of 2 by the exit code" in told
    assert "No case at all: ATL-X001." in told
    assert "| `ATL-X002` | 1 | `ATL-X003` |" in told


@pytest.mark.thorough
def test_rules_switched_off_are_as_stated() -> None:
    cases, _ = read_corpus(VECTORS)
    made = "\n".join(rules_table(switched_off(cases, os.cpu_count() or 1)))
    assert stated().startswith(made.strip())


@pytest.mark.thorough
def test_constants_are_as_stated_by_the_command_line() -> None:
    rows = re.findall(r"^\| always exits (\d) \| (\d+) \| (\d+) \|$", stated(), flags=re.MULTILINE)
    for code in (0, 3):
        total, failed = constant(code)
        assert (str(code), str(failed), str(total)) in rows


@pytest.mark.thorough
def test_broken_verifiers_are_given_away_as_stated() -> None:
    for name, first in zip(BROKEN, spread(caught, BROKEN, os.cpu_count() or 1), strict=True):
        assert first is not None, name
        assert f"| {name} | `{first.case}` | {first.expected} | {first.code} |" in stated()
