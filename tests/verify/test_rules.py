"""Every rule fires on the defect it names, alone, on its channel, with its exit code.

Each case changes one thing in a valid study. Where a forger could have re-issued roots, receipt and log, the case does,
so that only the rule under test stands between the forgery and belief.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from documents.records import measurement
from verify import coherence_defects, document_defects, finding_defects, router_defects, row_defects
from verify.cases import CASES, OTHER, Case, forged
from verify.document_defects import a_read, judged, judging, logged, read_verified
from verify.forging import (
    FROZEN,
    as_json,
    counting,
    encoded,
    honest,
    study,
    verified,
)
from verify.record_defects import CASES as RECORD_CASES
from verify.record_defects import told, with_rows
from verify.test_authenticity import CASES as SIGNED

from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify import documents, reading
from atlas_schema.verify.outcome import Channel, Code, Report, Status, exit_code, headline
from atlas_schema.verify.physics.layers import check_digests
from atlas_schema.verify.rules import RULES
from atlas_schema.verify.verifier import Options

__all__ = ["CASES"]

MODULES = (document_defects, row_defects, router_defects, coherence_defects, finding_defects)
"""Importing them registers their cases."""


def adopted(rules: str, sentence: str, code: Code, make: Callable[[], Report]) -> Case:
    return Case(frozenset(f"ATL-{rule}" for rule in rules.split()), sentence, code, lambda _: make())


CASES |= {name: adopted(*parts) for name, parts in RECORD_CASES.items()}


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study().write(tmp_path_factory.mktemp("written") / "study")


@pytest.mark.parametrize("name", CASES)
def test_the_defect_is_caught_by_its_rule(name: str, written: Path, tmp_path: Path) -> None:
    case, folder = CASES[name], tmp_path / "study"
    if case.make.__code__.co_argcount and case.make.__name__ == name:
        shutil.copytree(written, folder)
    report = case.make(folder)
    fired = {p.rule for result in report.channels.values() for p in result.problems}
    assert fired == case.rules, case.defect
    assert exit_code(report) is case.code, case.defect
    for channel, result in report.channels.items():
        assert all(RULES[p.rule].channel is channel for p in result.problems)
        assert all(p.what and (p.path or p.where or p.document or p.stated) for p in result.problems)
        assert all(p.position is not None for p in result.problems if p.path), (
            "a field is told with its line and column"
        )


def test_every_rule_has_a_case() -> None:
    """Replay (P) is not part of this version; every rule must be shown to fire, those of signatures in `test_authenticity`."""
    fired = {rule for case in CASES.values() for rule in case.rules} | {
        r for case in SIGNED.values() for r in case.rules
    }
    assert set(RULES) - fired == set()


def test_cases_have_their_own_sentences() -> None:
    assert len({case.defect for case in CASES.values()}) == len(CASES)
    assert all(case.defect.endswith(".") for case in CASES.values())


@pytest.mark.parametrize(("arm", "code"), [("frozen", 0), ("close", 0), ("rewritten", 1)])
def test_honest_receipts_are_believed(arm: str, code: int, written: Path) -> None:
    in_memory = verified(study(), honest(arm))
    from_files = verified(study(), honest(arm), open_evidence=lambda: ParquetBundle(written / "evidence"))
    assert int(exit_code(in_memory)) == int(exit_code(from_files)) == code
    assert not [p for result in in_memory.channels.values() for p in result.problems]
    assert in_memory == from_files


def test_an_honest_measurement_with_rows_is_believed() -> None:
    report = with_rows()
    assert exit_code(report) is Code.VERIFIED
    assert report.verdict == "supported"
    assert report.channels[Channel.REPRODUCTION].checked == 4
    assert [c.outcome for c in report.claims] == ["supported", "supported"]


def test_a_measurement_in_a_receipts_place_is_never_green() -> None:
    assert exit_code(told(measurement(), Options(require="preserved"))) is Code.UNPROVEN
    assert exit_code(told(measurement(), Options(require="rewritten"))) is Code.USAGE
    assert exit_code(told(measurement(), Options(require="supported"))) is Code.VERIFIED
    assert exit_code(told(measurement(lambda m: m.update(claims=[])), Options(require="supported"))) is Code.UNPROVEN
    offline = told(measurement(), Options(profile="offline"))
    assert (exit_code(offline), headline(offline)) == (Code.VERIFIED, "CONSISTENT")


def test_a_coherent_reissue_of_honest_rows_is_believed() -> None:
    assert exit_code(forged(study())) is Code.VERIFIED


def test_a_contract_that_is_not_built_in_is_said_to_be_the_reviewers_own() -> None:
    assert any("--contract" in line for line in verified(study(), honest()).establishes_not)


def test_the_right_pin_is_recorded_as_checked() -> None:
    pinned = verified(study(), honest(), Options(pin=digest_of(study().preregistration)))
    assert exit_code(pinned) is Code.VERIFIED
    assert not any("--pin" in line for line in pinned.establishes_not)
    assert any("--pin" in line for line in verified(study(), honest()).establishes_not)


def test_a_seed_of_the_reviewer_is_recorded_as_checked() -> None:
    report = verified(study(), honest(), Options(seed=b"\x07" * 32))
    assert exit_code(report) is Code.VERIFIED
    assert report.channels[Channel.DECISION].checked == 2


@pytest.mark.parametrize("profile", ["schema", "offline"])
def test_profiles_without_reproduction_leave_the_rows_alone(profile: str) -> None:
    opened: list[str] = []
    report = verified(study(), honest(), Options(profile=profile), open_evidence=counting(study().source(), opened))
    assert exit_code(report) is Code.VERIFIED
    assert report.verdict is None
    assert Channel.REPRODUCTION not in report.channels
    assert bool(opened) is (profile == "offline")


@pytest.mark.parametrize("profile", ["release", "replay"])
def test_profiles_that_need_more_than_this_version_has_are_unproven(profile: str) -> None:
    assert exit_code(verified(study(), honest(), Options(profile=profile))) is Code.UNPROVEN


def test_a_pin_is_compared_under_every_profile() -> None:
    for profile in ("schema", "offline", "review"):
        assert exit_code(verified(study(), honest(), Options(profile=profile, pin=OTHER))) is not Code.VERIFIED


@pytest.mark.parametrize("kind", ["contract", "preregistration", "run_log"])
def test_other_documents_are_consistent_never_verified(kind: str) -> None:
    document = as_json(getattr(study(), kind))
    report = verified(study(), document, Options(profile="offline"))
    assert not report.decides
    assert (exit_code(report), headline(report)) == (Code.VERIFIED, "CONSISTENT")
    assert exit_code(verified(study(), document, Options(profile="offline", pin=OTHER))) is not Code.VERIFIED


def test_a_plan_is_held_to_the_contract_that_the_reviewer_gives() -> None:
    plan, offline = as_json(study().preregistration), Options(profile="offline")
    other = encoded({**as_json(study().contract), "id": "another-one"})
    assert exit_code(verified(study(), plan, offline)) is Code.VERIFIED
    assert exit_code(verified(study(), plan, offline, contract=other)) is Code.INADMISSIBLE
    assert exit_code(verified(study(), plan, offline, contract=None)) is Code.UNPROVEN  # it is not a built-in one


def test_a_profile_reports_no_channel_that_it_does_not_ask_about() -> None:
    """Nobody reads CONSISTENT above a line that says FAILED."""
    odd = as_json(study().contract)
    odd["channels"][0]["definition"] = "drift.nonsense/9"
    report = verified(study(), odd, Options(profile="schema"))
    assert (exit_code(report), set(report.channels)) == (Code.VERIFIED, {Channel.ADMISSION, Channel.SCHEMA})
    assert exit_code(verified(study(), odd, Options(profile="offline"))) is Code.INADMISSIBLE


@pytest.mark.parametrize("kind", ["contract", "preregistration", "run_log"])
@pytest.mark.parametrize("profile", ["review", "release", "replay"])
def test_another_document_in_a_receipts_place_is_never_green(kind: str, profile: str) -> None:
    report = verified(study(), as_json(getattr(study(), kind)), Options(profile=profile))
    assert exit_code(report) is Code.UNPROVEN


def test_problems_name_line_and_column_of_the_receipt() -> None:
    receipt = as_json(honest())
    receipt["subjects"][0]["model"] = "a famous model"
    raw = encoded(receipt)
    report = verified(study(), raw)
    (problem,) = report.channels[Channel.REPRODUCTION].problems
    assert problem.position is not None
    line, column = problem.position
    assert raw.decode().splitlines()[line - 1][column - 1 :].startswith('"a famous model"')


def test_later_channels_are_not_checked_after_a_failure() -> None:
    report = CASES["one_float_changed"].make(Path())
    assert report.status(Channel.REPRODUCTION) is Status.NOT_CHECKED
    assert report.verdict is None


def test_the_arm_under_test_is_frozen() -> None:
    assert study().settings.arms[0] == FROZEN


def test_a_judgement_that_a_person_made_is_accepted() -> None:
    receipt, made = judged()
    assert exit_code(logged(judging(made), receipt=receipt)) is Code.VERIFIED


def test_a_read_that_is_logged_is_accepted() -> None:
    assert exit_code(read_verified(a_read(), a_read())) is Code.VERIFIED


def test_upstream_must_differ_where_an_earlier_layer_does() -> None:
    base = [{"upstream": "a", "experts.0": "x"}, {"upstream": "b", "experts.0": "y"}]
    honest_arm = [{"upstream": "a", "experts.0": "z"}, {"upstream": "c", "experts.0": "y"}]
    forged_arm = [{"upstream": "a", "experts.0": "z"}, {"upstream": "b", "experts.0": "y"}]
    weights = {"base": ("w0", 0.0), "arm:x": ("w1", 0.5)}
    assert check_digests({"base": base, "arm:x": honest_arm}, weights) == []
    assert [v.rule for v in check_digests({"base": base, "arm:x": forged_arm}, weights)] == ["ATL-R017"]


def test_many_wrong_fields_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of fields cost a pass over the document; one pass each would take hours."""
    passes: list[int] = []

    def counted(raw: bytes, paths: Iterable[reading.Path]) -> dict[reading.Path, tuple[int, int]]:
        asked = list(paths)
        passes.append(len(asked))
        return reading.positions(raw, asked)

    monkeypatch.setattr(documents, "positions", counted)
    many = {"kind": "contract", "typed": [{"tier": "A"} for _ in range(500)]}
    report = verified(study(), many, Options(profile="offline"))
    assert exit_code(report) is Code.INADMISSIBLE
    assert len(passes) == 2
    places = [p.position for p in report.channels[Channel.CONTRACT].problems]
    assert len(places) == 20
    assert None not in places
