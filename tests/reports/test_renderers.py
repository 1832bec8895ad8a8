"""Both renderers show the same report, each safe for where it is shown."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.contract import examples
from simulator import COLLAPSED, StudySimulator, small
from verify.forging import OTHER_PLAN, as_json, honest, reissued, study, verified

from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.reports import json as json_report
from atlas_schema.reports import text as text_report
from atlas_schema.verify.outcome import Channel, ClaimLine, Code, Problem, Report, exit_code
from atlas_schema.verify.verifier import Options

texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    [
        "\x1b[2J",
        "a\nVERIFIED (0)",
        "\r",
        "\u202e",
        "\x00",
        "\u2028",
        "\x9b",
        "\U000e0001",
        "\ufeff",
        "\u3164",
        "\u2800",
        "a\ufe0f",
        "::error::x",
        "##vso[task.complete]",
        "###[add-mask]",
    ]
)


@st.composite
def noisy_reports(draw: st.DrawFn) -> Report:
    """Draw a report whose every text comes from somebody hostile."""
    report = Report(draw(texts), claim=draw(texts), verdict=draw(texts), arm=draw(texts), require=draw(texts))
    report.usage, report.fault = draw(st.just("") | texts), draw(st.just("") | texts)
    report.kind = draw(st.sampled_from(("receipt", "measurement")))
    report.claims = tuple(ClaimLine(*draw(st.tuples(*[texts] * 6))) for _ in range(draw(st.integers(0, 2))))
    report.facts = draw(st.dictionaries(texts, texts, max_size=2))
    report.remarks = tuple(draw(st.lists(texts, max_size=2)))
    report.establishes_not = tuple(draw(st.lists(texts, max_size=2)))
    for channel in draw(st.sets(st.sampled_from(list(Channel)), max_size=3)):
        path = tuple(draw(st.lists(texts | st.integers(0, 9), max_size=3)))
        problem = Problem("ATL-R013", draw(texts), draw(texts), path, where=draw(texts), stated=draw(texts))
        report.channel(channel).report(
            replace(problem, recomputed=draw(texts), tolerance=draw(texts), todo=draw(texts))
        )
    return report


@examples(80, 800)
@given(noisy_reports())
def test_text_holds_printable_characters_and_line_ends_only(report: Report) -> None:
    shown = text_report.render(report)
    assert shown.endswith("\n")
    assert all((c.isprintable() and c not in "\u3164\u2800\ufe0f") or c == "\n" for c in shown)
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines())
    assert "##[" not in shown
    assert "##vso[" not in shown


@examples(80, 800)
@given(noisy_reports())
def test_no_text_of_a_document_begins_a_line_that_looks_like_a_verdict(report: Report) -> None:
    usual = replace(report, usage="", fault="")
    heads = [line for line in text_report.render(usual).splitlines() if line.startswith("VERIFIED (0)")]
    assert heads == []


@examples(80, 800)
@given(noisy_reports())
def test_json_holds_ascii_only_and_keeps_every_text(report: Report) -> None:
    shown = json_report.render(report)
    assert shown.isascii()
    assert "##" not in shown
    loaded = json.loads(shown)
    assert loaded["document"] == report.document
    assert loaded["digests"] == report.facts
    stated = [p["stated"] or "" for c in loaded["channels"] for p in c["problems"]]
    assert stated == [p.stated for c in Channel if c in report.channels for p in report.channels[c].problems]


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """Real reports of every outcome that documents can have."""
    s, receipt = study(), as_json(honest())
    renamed = {**receipt, "claim": {"arm": "rewritten", "verdict": "preserved"}}
    return {
        "VERIFIED": verified(s, honest()), "NOT_PRESERVED": verified(s, honest("rewritten")),
        "CONSISTENT": verified(s, honest(), Options(profile="offline")), "INADMISSIBLE": verified(s, b"{]"),
        "TAMPERED": verified(s, honest(), Options(pin="sha256:" + "0" * 64)), "DIVERGED": verified(s, renamed),
        "UNPROVEN": verified(s, honest(), run_log=None),
    }  # fmt: skip


def test_reports_are_deterministic(reports: dict[str, Report]) -> None:
    again = verified(study(), honest())
    assert json_report.render(again) == json_report.render(reports["VERIFIED"])
    assert text_report.render(again) == text_report.render(reports["VERIFIED"])


def test_the_first_word_is_the_outcome(reports: dict[str, Report]) -> None:
    for word, report in reports.items():
        assert text_report.render(report).split(" ", 1)[0] == word
        assert json.loads(json_report.render(report))["outcome"] == word


def test_json_lists_every_channel_with_its_denominator(reports: dict[str, Report]) -> None:
    for report in reports.values():
        channels = json.loads(json_report.render(report))["channels"]
        assert [c["channel"] for c in channels] == [c.value for c in Channel]
        for entry in channels:
            assert entry["checked"] <= entry["total"]
            assert entry["status"] != "passed" or entry["checked"] == entry["total"] > 0
            assert entry["status"] != "not_checked" or entry["skipped"]


@pytest.mark.parametrize(("field", "value", "why"), [
    ("usage", "no such file", "the call was refused"), ("fault", "ValueError: x", "a fault of the verifier"), ("interrupted", True, "stopped"),
])  # fmt: skip
def test_json_says_why_a_channel_was_not_looked_at(field: str, value: str | bool, why: str) -> None:
    report = Report("receipt.json")
    setattr(report, field, value)
    for entry in json.loads(json_report.render(report))["channels"]:
        assert (entry["status"], entry["skipped"].startswith(why)) == ("not_checked", True)


def test_a_green_text_says_of_which_weights_and_what_was_asked(reports: dict[str, Report]) -> None:
    shown, plan = text_report.render(reports["VERIFIED"]), study().preregistration
    arm = next(s for s in honest().subjects if s.run_id == "arm:frozen")
    asked = next(line for line in shown.splitlines() if line.startswith("asked "))
    assert f"arm's weights    {arm.weights_digest} {arm.model}" in shown
    assert f"{len(plan.windows)} windows of {len({w.cluster_id for w in plan.windows})} documents in 2 domains" in asked
    assert f"{len(plan.task.items)} items, target {plan.task.target:g} less {plan.task.tolerance:g}" in asked
    # An arm that is the base is preserved, and says so.
    assert "this arm's weights are the base's" in shown
    assert "this arm's weights are the base's" not in text_report.render(reports["NOT_PRESERVED"])


def test_a_green_text_is_a_screen_and_says_what_it_does_not_establish(reports: dict[str, Report]) -> None:
    shown = text_report.render(reports["VERIFIED"])
    assert len(shown.splitlines()) <= 24
    assert "Does not establish:" in shown
    for part in ("replay", "signature", "--pin", "authenticity", "not checked"):
        assert part in shown


def test_a_problem_shows_place_rule_and_both_values() -> None:
    receipt = as_json(honest("close"))
    cell = receipt["findings"]["arms"][1]["cells"][0]
    cell["upper"] = float(f"{cell['upper'] * 1.5:.9g}")
    report = verified(study(), receipt)
    assert exit_code(report) is Code.DIVERGED
    shown = text_report.render(report)
    (problem,) = json.loads(json_report.render(report))["channels"][5]["problems"]
    assert problem["pointer"] == "/findings/arms/1/cells/0/upper"
    for part in (f"receipt.json:{problem['line']}:{problem['column']}: ATL-R013", problem["pointer"], problem["stated"],
                 problem["recomputed"], "from the contract"):  # fmt: skip
        assert part in shown
    assert repr(cell["upper"]) == problem["stated"]


def test_values_of_a_problem_are_called_what_they_are(tmp_path: Path) -> None:
    """What was found is not what was recomputed, and what the reviewer pinned is neither."""
    folder = study().write(tmp_path / "study")
    (folder / "evidence" / "task.parquet").rename(folder / "evidence" / "notes.txt")
    shown = text_report.render(verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence")))
    assert (
        f"  found      missing task.parquet; extra notes.txt\n  expected   {len(honest().evidence.tables)} Parquet files\n  to do      obtain"
        in shown
    )
    receipt = as_json(honest())
    left_out = receipt["evidence"]["tables"].pop()["name"]
    shown = text_report.render(verified(study(), receipt))
    names = [t["name"] for t in receipt["evidence"]["tables"]]
    assert (
        f"  found      {', '.join(names)}\n  expected   {', '.join([*names, left_out])}\n  to do      obtain" in shown
    )
    pin = "sha256:" + "0" * 64
    shown = text_report.render(verified(study(), honest(), Options(pin=pin)))
    assert f"  found      {study().preregistration_digest()}\n  pinned     {pin}\n" in shown
    receipt = as_json(honest())
    receipt["evidence"]["tables"][0]["root"] = pin
    shown = text_report.render(verified(study(), receipt))
    assert f"  stated     {pin}\n  recomputed {honest().evidence.tables[0].root}\n" in shown


def test_a_problem_of_a_row_names_its_table_and_key() -> None:
    at = study().find("state", run_id="arm:close")
    s, receipt = reissued(study().with_value("state", at, "r", 5.0))
    (problem,) = json.loads(json_report.render(verified(s, receipt)))["channels"][5]["problems"]
    assert problem["where"].startswith("table state, run_id=arm:close, layer=1, window_id=")
    assert problem["to_do"]


def test_problems_of_other_documents_name_their_file() -> None:
    s, receipt = reissued(study().with_preregistration({**OTHER_PLAN, "damage_tolerance_nats": 0.5}))
    shown = text_report.render(verified(s, receipt))
    assert "preregistration.json:" in shown
    assert "/damage_tolerance_nats" in shown


def test_many_problems_are_counted_not_poured_out() -> None:
    report = Report("receipt.json")
    for i in range(100):
        report.channel(Channel.REPRODUCTION).report(Problem("ATL-R013", f"finding {i}"))
    shown = text_report.render(report)
    assert shown.count("ATL-R013") == text_report.SHOWN
    assert f"{100 - text_report.SHOWN} more" in shown
    problems: list[Any] = json.loads(json_report.render(report))["channels"][5]["problems"]
    assert len(problems) == 100


def test_the_json_of_a_problem_has_every_field() -> None:
    report = Report("receipt.json")
    report.channel(Channel.BINDING).report(Problem("ATL-B003", "changed"))
    (entry,) = json.loads(json_report.render(report))["channels"][3]["problems"]
    assert len(entry) == len(fields(Problem)) + 1  # a position is a line and a column


def test_what_stands_beside_the_verdict_is_shown_and_decides_nothing() -> None:
    report = verified(study(), honest())
    assert exit_code(report) is Code.VERIFIED
    three = next(a.three_states for a in honest().findings.arms if a.arm == report.arm)
    line = f"  beside it: boundary sensitivity {three.boundary_sensitivity}, co-active compatibility {three.coactive_compatibility}"
    assert line in text_report.render(report)
    assert json.loads(json_report.render(report))["remarks"] == list(report.remarks)
    assert exit_code(replace(report, remarks=("anything",))) is Code.VERIFIED


def test_degenerate_occupancy_is_shown_with_its_numbers() -> None:
    made = StudySimulator.make(small(arms=(COLLAPSED,)))
    receipt = made.receipt("collapsed")
    shown = text_report.render(verified(made, receipt))
    assert "  beside it: margins may not be cited: layer 0: effective experts fell to 0." in shown
    assert "experts are no longer used; the contract admits 0.8 and 0" in shown
