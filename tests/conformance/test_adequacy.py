"""The figures of `docs/attacks.md` and of the corpus's page are what is measured."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator

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
from conformance.broken import BROKEN, TOLD, without_rule
from documents.records import Json, measurement
from verify.record_defects import told as told_of

from atlas_schema.conformance.corpus import read_corpus
from atlas_schema.verify.outcome import PROFILES, Channel, ChannelResult, Code, Problem, Report, exit_code
from atlas_schema.verify.rules import RULES
from atlas_schema.verify.verifier import Options
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
    assert set(behind) == set(TOLD), "a rule that no exit code depends on: write a case, or prove that there is none"
    assert f"; the other {len(TOLD)} cannot be, for the reasons below" in stated()


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


def test_a_rule_that_only_tells_is_said_to_be_one() -> None:
    kept = Answer("x", 5, 5, (), False)
    told = "\n".join(rules_table({"ATL-D001": [kept], "ATL-X002": [kept]}))
    assert "0 of 2 by the exit code alone; of the other 2, 1 cannot be" in told
    assert f"| `ATL-D001` | 1 | {TOLD['ATL-D001'].why} | {TOLD['ATL-D001'].entirely} |" in told
    assert "| `ATL-X002` | 1 | no other rule: verdict and channels still say so |" in told
    assert "0 of 1 by the exit code alone; the other 1 cannot be" in "\n".join(rules_table({"ATL-D001": [kept]}))
    assert "cannot be" not in "\n".join(rules_table({"ATL-X002": [Answer("x", 5, 0, (), False)]}))


# --- why no case can have another exit code ------------------------------------------------------------------------


def test_rules_that_only_tell_name_the_verifier_without_all_of_them() -> None:
    assert len({told.entirely for told in TOLD.values()}) == len(TOLD)
    assert {told.entirely for told in TOLD.values()} <= set(BROKEN)
    assert all("|" not in told.why for told in TOLD.values())


def deciding() -> Iterator[Report]:
    """Yield reports of a receipt whose verdict is not the claimed one: every state of every other channel, in every profile that decides."""
    others = [c for c in Channel if c is not Channel.DECISION]
    assert all(Channel.DECISION in asked for asked in PROFILES.values() if Channel.REPRODUCTION in asked)
    profiles = [name for name, asked in PROFILES.items() if Channel.DECISION in asked]
    for profile, states in itertools.product(profiles, itertools.product((True, False, None), repeat=len(others))):
        channels: dict[Channel, ChannelResult] = {}
        for channel, state in zip(others, states, strict=True):
            problems = [] if state else [Problem("ATL-X", "", unproven=state is None)]
            channels[channel] = ChannelResult(channel, 1, 1, problems=problems)
        for claim, verdict in (("preserved", "rewritten"), ("rewritten", "preserved"), ("damaged", "undetermined")):
            yield Report("", "receipt", profile, PROFILES[profile], channels, claim, verdict, "preserved")


def test_no_report_has_another_exit_code_without_d001() -> None:
    found = set()
    for report in deciding():
        codes = []
        for problems in ([Problem("ATL-D001", "")], []):
            report.channels[Channel.DECISION] = ChannelResult(Channel.DECISION, 1, 1, problems=problems)
            codes.append(exit_code(report))
        found.add(codes[0])
        assert len(set(codes)) == 1
    assert found == {Code.INADMISSIBLE, Code.TAMPERED, Code.DIVERGED}


def records() -> Iterator[Json]:
    """Every record that has or has not a claim of each outcome, a licence and a replication that it may not have."""
    empty, few = {"operator": "beyond_record", "needs": "more"}, {"labels": ["2"]}
    for refuted, open_, strong, sure, licence, status in itertools.product((False, True), repeat=6):

        def change(
            m: Json,
            parts: tuple[bool, ...] = (refuted, open_, strong, sure),
            sure_of: bool = licence,
            again: bool = status,
        ) -> None:
            peak = m["claims"][0]
            made = [
                {**peak, "id": "refuted", "statement": {**peak["statement"], **few}},
                {**peak, "id": "open", "statement": empty},
                {**peak, "id": "strong", "strength": "replicated"},
                peak,
            ]
            m["claims"] = [claim for claim, there in zip(made, parts, strict=True) if there]
            m["licence"] = "statistical" if sure_of else m["licence"]
            m["replication"]["status"] = "replicated" if again else m["replication"]["status"]

        yield measurement(change)


def test_no_record_has_another_exit_code_without_d041_to_d044() -> None:
    fired: dict[str, set[Code]] = {}
    for record, require in itertools.product(records(), ("supported", "preserved")):
        options = Options(require=require)
        honest = told_of(record, options)
        for rule in {p.rule for c in honest.channels.values() for p in c.problems} & set(TOLD):
            with without_rule(rule):
                deaf = told_of(record, options)
            assert rule not in {p.rule for c in deaf.channels.values() for p in c.problems}
            assert exit_code(deaf) == exit_code(honest), (rule, record["claims"])
            fired.setdefault(rule, set()).add(exit_code(honest))
    assert fired == {rule: {Code.NOT_PRESERVED, Code.UNPROVEN} for rule in set(TOLD) - {"ATL-D001"}}


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
