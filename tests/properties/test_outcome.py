"""The exit code over every report there is: all statuses of all channels, all verdicts, all that may be required.

The code reads a report only through the statuses of required channels, claim, verdict and what is required, so these are all.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from properties.contract import THOROUGH, holds
from verify.test_exit_code import PRECEDENCE, channel_with

from atlas_schema.verify.outcome import PROFILES, Channel, ChannelResult, Report, Status, exit_code

WORDS = (None, "preserved", "rewritten", "damaged", "unmatched", "undetermined", "supported", "refuted", "unlicensed")
REQUIRED = ("preserved", "rewritten", "damaged", "unmatched", "undetermined", "supported")
SHOWN: tuple[tuple[str | None, str | None, str], ...] = (
    ("preserved", "preserved", "preserved"), ("rewritten", "rewritten", "preserved"), ("preserved", "rewritten", "preserved"),
    ("undetermined", "undetermined", "preserved"), (None, None, "preserved"), (None, "refuted", "supported"),
    (None, "supported", "preserved"), (None, "supported", "supported"), (None, "unlicensed", "supported"),
)  # fmt: skip
"""Claim, verdict and requirement, one of each kind that the code tells apart; `test_words_fall_into_the_kinds` holds it."""


def inapplicable(channel: Channel) -> ChannelResult:
    return ChannelResult(channel, inapplicable="the record cites no rows")


RESULTS = {
    (c, s): inapplicable(c) if s is Status.NOT_APPLICABLE else channel_with(c, s) for c in Channel for s in Status
}
"""One result of every channel and status; reports only read them."""


def report(profile: str, statuses: tuple[Status, ...], words: tuple[str | None, str | None, str]) -> Report:
    required = PROFILES[profile]
    channels = {c: RESULTS[c, s] for c, s in zip(required, statuses, strict=True)}
    claim, verdict, require = words
    return Report("x", profile=profile, required=required, channels=channels, claim=claim, verdict=verdict, require=require)  # fmt: skip


def by_definition(profile: str, statuses: tuple[Status, ...], words: tuple[str | None, str | None, str]) -> int:
    """Return the code by the table of `docs/verification.md`, row by row; shares nothing with the code under test."""
    by = dict(zip(PROFILES[profile], statuses, strict=True))
    failed = {c for c, s in by.items() if s is Status.FAILED}
    claim, verdict, require = words
    decides = "decision" in [c.value for c in by]
    if failed & {Channel.ADMISSION, Channel.SCHEMA, Channel.CONTRACT}:
        return 3
    if failed & {Channel.BINDING, Channel.AUTHENTICITY}:
        return 4
    if failed & {Channel.REPRODUCTION, Channel.REPLAY} or (Channel.DECISION in failed and verdict != "refuted"):
        return 5
    if decides and claim and verdict and claim != verdict:
        return 5
    if set(by.values()) & {Status.UNPROVEN, Status.NOT_CHECKED} or Status.PASSED not in by.values():
        return 6
    if decides and (verdict in (None, "undetermined", "unlicensed") or (verdict == "supported" and require != verdict)):
        return 6
    return 1 if decides and verdict != require else 0


def every_status(profile: str) -> Iterator[tuple[Status, ...]]:
    """Yield the statuses of all required channels; without the one that no receipt has where there are too many."""
    few = [s for s in Status if s is not Status.NOT_APPLICABLE] if len(PROFILES[profile]) > 6 else list(Status)
    return product(few, repeat=len(PROFILES[profile]))


@holds("exit code", "Words fall into the kinds below: every claim, verdict and requirement, under telling statuses.")
def test_words_fall_into_the_kinds() -> None:
    telling = [tuple(Status.PASSED if c is not bad else status for c in PROFILES["review"])
               for bad in Channel for status in Status]  # fmt: skip
    for words in product(WORDS, WORDS, REQUIRED):
        for statuses in telling:
            assert int(exit_code(report("review", statuses, words))) == by_definition("review", statuses, words)


@holds(
    "exit code",
    "Profiles schema, offline and review: every combination of statuses has the defined code.",
    part="two of nine verdicts",
)
@pytest.mark.parametrize("profile", ["schema", "offline", "review"])
def test_every_report_has_the_defined_code(profile: str) -> None:
    kinds = SHOWN if THOROUGH or profile != "review" else SHOWN[:2]
    for statuses in every_status(profile):
        for words in kinds:
            assert int(exit_code(report(profile, statuses, words))) == by_definition(profile, statuses, words)


@pytest.mark.thorough
@holds("exit code", "The same of profiles release and replay, for the statuses that a receipt's channels have.")
@pytest.mark.parametrize("profile", ["release", "replay"])
def test_every_report_of_a_large_profile_has_the_defined_code(profile: str) -> None:
    for statuses in every_status(profile):
        for words in SHOWN[:3]:
            assert int(exit_code(report(profile, statuses, words))) == by_definition(profile, statuses, words)


WORSE = {
    Status.PASSED: (Status.UNPROVEN, Status.NOT_CHECKED, Status.FAILED), Status.NOT_APPLICABLE: (Status.UNPROVEN, Status.FAILED),
    Status.UNPROVEN: (Status.FAILED,), Status.NOT_CHECKED: (Status.UNPROVEN, Status.FAILED), Status.FAILED: (),
}  # fmt: skip
"""What a channel may become where less was shown, or something was contradicted."""


@holds(
    "exit code", "No channel that comes out worse gives a better code, whatever the others say.", part="every seventh"
)
@pytest.mark.parametrize("profile", ["schema", "offline", "review"])
def test_a_worse_channel_never_gives_a_better_code(profile: str) -> None:
    """Better is later in the order 70, 2, 130, 3, 4, 5, 6, 1, 0."""
    words = SHOWN if THOROUGH else SHOWN[:1]
    for statuses in every_status(profile) if THOROUGH or profile != "review" else _seldom(every_status(profile)):
        for of in words:
            before = PRECEDENCE.index(int(exit_code(report(profile, statuses, of))))
            for at, status in enumerate(statuses):
                for worse in WORSE[status]:
                    after = (*statuses[:at], worse, *statuses[at + 1 :])
                    assert PRECEDENCE.index(int(exit_code(report(profile, after, of)))) <= before


def _seldom(statuses: Iterator[tuple[Status, ...]]) -> Iterator[tuple[Status, ...]]:
    """Yield every seventh: a number that no number of statuses divides, so that all channels vary."""
    return (s for at, s in enumerate(statuses) if at % 7 == 0)


@holds("exit code", "One more required channel never gives a better code.", part="every seventh")
def test_asking_for_more_never_gives_a_better_code() -> None:
    def code(
        required: tuple[Channel, ...], statuses: tuple[Status, ...], words: tuple[str | None, str | None, str]
    ) -> int:
        channels = {c: RESULTS[c, s] for c, s in zip(PROFILES["review"], statuses, strict=True)}
        claim, verdict, require = words
        found = Report("x", required=required, channels=channels, claim=claim, verdict=verdict, require=require)
        return PRECEDENCE.index(int(exit_code(found)))

    for statuses in _seldom(every_status("review")):
        if Status.NOT_APPLICABLE in statuses:
            continue
        for words in SHOWN if THOROUGH else SHOWN[:2]:
            codes = [code(PROFILES["review"][:n], statuses, words) for n in range(1, 7)]
            assert codes == sorted(codes, reverse=True)


@holds("exit code", "A fault of the verifier, a wrong call and an interruption stand above every other outcome.")
def test_faults_come_first() -> None:
    for statuses in every_status("offline"):
        for fault, usage, interrupted in product((False, True), repeat=3):
            found = report("offline", statuses, SHOWN[0])
            found.fault, found.usage, found.interrupted = "x" * fault, "x" * usage, interrupted
            wanted = 70 if fault else 2 if usage else 130 if interrupted else None
            if wanted is not None:
                assert int(exit_code(found)) == wanted
