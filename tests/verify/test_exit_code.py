"""The exit code is a total function of the report, the same in every format, and nothing unchecked is ever green."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.contract import examples

from atlas_schema.reports import json as json_report
from atlas_schema.reports import text as text_report
from atlas_schema.verify.outcome import (
    PROFILES,
    Channel,
    ChannelResult,
    Code,
    Problem,
    Report,
    Status,
    exit_code,
    headline,
)

VERDICTS = ("preserved", "rewritten", "damaged", "unmatched", "undetermined")
REACHABLE = (Status.PASSED, Status.FAILED, Status.UNPROVEN, Status.NOT_CHECKED)
PRECEDENCE = (70, 2, 130, 3, 4, 5, 6, 1, 0)


def channel_with(channel: Channel, status: Status) -> ChannelResult:
    """Return a channel's result that has the status."""
    result = ChannelResult(channel)
    if status is Status.PASSED:
        result.check(3)
    elif status is Status.FAILED:
        result.check()
        result.report(Problem("ATL-R013", "contradicted"))
    elif status is Status.UNPROVEN:
        result.report(Problem("ATL-C010", "absent", unproven=True))
    else:
        result.skipped = "an earlier channel did not pass"
    return result


@st.composite
def reports(draw: st.DrawFn, *, clean: bool = False) -> Report:
    """Draw any report: every combination of statuses, also such as no run of the verifier leads to."""
    profile = draw(st.sampled_from(sorted(PROFILES)))
    report = Report("receipt.json", profile=profile, required=PROFILES[profile])
    for channel in Channel:
        status = draw(st.sampled_from((*REACHABLE, None)))
        if status is not None:
            report.channels[channel] = channel_with(channel, status)
    report.claim = draw(st.none() | st.sampled_from(VERDICTS))
    report.verdict = draw(st.none() | st.sampled_from(VERDICTS))
    report.require = draw(st.sampled_from(VERDICTS))
    report.arm = draw(st.sampled_from(("", "x")))
    if not clean:
        report.fault = draw(st.sampled_from(("", "ValueError: boom")))
        report.usage = draw(st.sampled_from(("", "no such file")))
        report.interrupted = draw(st.booleans())
    return report


def holding(report: Report) -> set[int]:
    """Return every code whose own condition holds, written down independently of the code under test."""
    statuses = [report.status(c) for c in report.required]
    decides = Channel.DECISION in report.required
    held = {0}
    held |= {70} if report.fault else set()
    held |= {2} if report.usage else set()
    held |= {130} if report.interrupted else set()
    for code, channels in (
        (3, (Channel.ADMISSION, Channel.SCHEMA, Channel.CONTRACT)), (4, (Channel.BINDING, Channel.AUTHENTICITY)),
        (5, (Channel.REPRODUCTION, Channel.REPLAY, Channel.DECISION)),
    ):  # fmt: skip
        held |= {code} if any(report.status(c) is Status.FAILED for c in channels) else set()
    if decides:
        if None not in (report.claim, report.verdict) and report.claim != report.verdict:
            held.add(5)
        if report.verdict in (None, "undetermined"):
            held.add(6)
        if report.verdict != report.require:
            held.add(1)
    if any(s in (Status.UNPROVEN, Status.NOT_CHECKED) for s in statuses) or Status.PASSED not in statuses:
        held.add(6)
    return held


@examples(150, 2000)
@given(reports())
def test_the_code_is_the_first_that_holds(report: Report) -> None:
    held = holding(report)
    assert int(exit_code(report)) == next(code for code in PRECEDENCE if code in held)


@examples(150, 2000)
@given(reports())
def test_both_formats_give_the_same_code(report: Report) -> None:
    loaded = json.loads(json_report.render(report))
    first = text_report.render(report).splitlines()[0]
    assert loaded["exit_code"] == int(exit_code(report))
    assert loaded["outcome"] == headline(report)
    assert first.startswith(f"{headline(report)} ({int(exit_code(report))}) ")


@examples(150, 2000)
@given(reports(clean=True))
def test_green_means_that_every_required_channel_passed(report: Report) -> None:
    if exit_code(report) is Code.VERIFIED:
        assert all(report.status(c) is Status.PASSED for c in report.required)
        assert all(report.channels[c].checked > 0 for c in report.required)
        assert not report.decides or report.verdict == report.require == (report.claim or report.require)


@examples(150, 2000)
@given(reports())
def test_consistent_and_verified_are_different_words(report: Report) -> None:
    word = headline(report)
    if word == "VERIFIED":
        assert report.decides
    if word == "CONSISTENT":
        assert not report.decides
        assert exit_code(report) is Code.VERIFIED
    assert word in {"CONSISTENT", *(c.name for c in Code)}


@given(reports(clean=True), st.sampled_from(list(Channel)))
def test_a_failed_channel_is_never_green_nor_a_verdict_whether_it_was_asked_for_or_not(
    report: Report, channel: Channel
) -> None:
    report.channels[channel] = channel_with(channel, Status.FAILED)
    assert exit_code(report) not in (Code.VERIFIED, Code.NOT_PRESERVED, Code.UNPROVEN)


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_nothing_checked_is_never_green(profile: str) -> None:
    empty = Report("receipt.json", profile=profile, required=PROFILES[profile], claim="preserved", verdict="preserved")
    assert exit_code(empty) is Code.UNPROVEN
    for channel in empty.required:
        empty.channels[channel] = ChannelResult(channel)
    assert exit_code(empty) is Code.UNPROVEN


def test_no_required_channel_is_never_green() -> None:
    assert exit_code(Report("receipt.json", required=(), claim="preserved", verdict="preserved")) is Code.UNPROVEN


@pytest.mark.parametrize(("checked", "total"), [(0, 0), (0, 5), (4, 5)])
def test_a_channel_with_gaps_in_its_denominator_is_unproven(checked: int, total: int) -> None:
    assert ChannelResult(Channel.BINDING, checked=checked, total=total).status is Status.UNPROVEN


def test_a_contradiction_outweighs_a_gap() -> None:
    result = channel_with(Channel.BINDING, Status.UNPROVEN)
    result.report(Problem("ATL-B003", "changed"))
    assert result.status is Status.FAILED


def test_profiles_that_need_what_this_version_lacks_are_unproven() -> None:
    for profile in ("release", "replay"):
        report = Report(
            "receipt.json", profile=profile, required=PROFILES[profile], claim="preserved", verdict="preserved"
        )
        for channel in PROFILES["review"]:
            report.channels[channel] = channel_with(channel, Status.PASSED)
        report.skip_rest("not part of this version")
        assert exit_code(report) is Code.UNPROVEN


@pytest.mark.parametrize(
    ("verdict", "require", "code"),
    [
        ("preserved", "preserved", Code.VERIFIED), ("rewritten", "rewritten", Code.VERIFIED),
        ("rewritten", "preserved", Code.NOT_PRESERVED), ("damaged", "preserved", Code.NOT_PRESERVED),
        ("unmatched", "preserved", Code.NOT_PRESERVED), ("preserved", "rewritten", Code.NOT_PRESERVED),
        ("undetermined", "preserved", Code.UNPROVEN), ("undetermined", "undetermined", Code.UNPROVEN),
    ],
)  # fmt: skip
def test_the_verdict_decides_where_everything_passed(verdict: str, require: str, code: Code) -> None:
    report = Report("receipt.json", claim=verdict, verdict=verdict, require=require)
    for channel in report.required:
        report.channels[channel] = channel_with(channel, Status.PASSED)
    assert exit_code(report) is code
