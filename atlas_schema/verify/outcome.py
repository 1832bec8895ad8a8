"""The result of verification: independent channels, problems, and an exit code that is a total function of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Channel(Enum):
    """What is asked, one question per channel."""

    ADMISSION = "admission"
    SCHEMA = "schema"
    CONTRACT = "contract"
    BINDING = "binding"
    AUTHENTICITY = "authenticity"
    REPRODUCTION = "reproduction"
    REPLAY = "replay"
    DECISION = "decision"


QUESTIONS: Mapping[Channel, str] = {
    Channel.ADMISSION: "may this be parsed safely?",
    Channel.SCHEMA: "has it the shape?",
    Channel.CONTRACT: "do its parts agree with each other, the contract, the pre-registration and the log?",
    Channel.BINDING: "are these the exact evidence rows?",
    Channel.AUTHENTICITY: "who vouches, under a key that you pinned?",
    Channel.REPRODUCTION: "do the rows obey the physics and give these numbers?",
    Channel.REPLAY: "do the models give these rows?",
    Channel.DECISION: "does the recomputed verdict support the claim and what you require?",
}


class Status(Enum):
    """The answer of one channel."""

    PASSED = "passed"
    FAILED = "failed"
    UNPROVEN = "unproven"
    NOT_CHECKED = "not_checked"
    NOT_APPLICABLE = "not_applicable"


class Code(IntEnum):
    """Exit codes; the names are what a report prints."""

    VERIFIED = 0
    NOT_PRESERVED = 1
    USAGE = 2
    INADMISSIBLE = 3
    TAMPERED = 4
    DIVERGED = 5
    UNPROVEN = 6
    INTERNAL = 70
    INTERRUPTED = 130


_FIRST = (Channel.ADMISSION, Channel.SCHEMA)
_OFFLINE = (*_FIRST, Channel.CONTRACT, Channel.BINDING)
_REVIEW = (*_OFFLINE, Channel.REPRODUCTION, Channel.DECISION)
_RELEASE = (*_OFFLINE, Channel.AUTHENTICITY, Channel.REPRODUCTION, Channel.DECISION)
PROFILES: Mapping[str, tuple[Channel, ...]] = {
    "schema": _FIRST, "offline": _OFFLINE, "review": _REVIEW, "release": _RELEASE,
    "replay": (*_RELEASE[:-1], Channel.REPLAY, Channel.DECISION),
}  # fmt: skip
"""Which channels must pass."""

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "receipt": ("preserved", "rewritten", "damaged", "unmatched"), "measurement": ("supported",),
}  # fmt: skip
"""The verdicts that a reviewer may require, by the kind of document that can have them."""
UNASKED = REQUIREMENTS["receipt"][0]
"""What is required where nothing was said."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or that could not be established.

    ``document`` and ``path`` locate a field of a document; ``where`` names a table row or a file. ``unproven`` problems
    mean that something is absent or too weak, the others that something is contradicted.
    """

    rule: str
    what: str
    document: str = ""
    path: tuple[str | int, ...] = ()
    where: str = ""
    stated: str = ""
    recomputed: str = ""
    tolerance: str = ""
    todo: str = ""
    unproven: bool = False
    position: tuple[int, int] | None = None


@dataclass(slots=True)
class ChannelResult:
    """What one channel found. ``checked`` of ``total`` is its denominator."""

    channel: Channel
    checked: int = 0
    total: int = 0
    unit: str = "checks"
    problems: list[Problem] = field(default_factory=list)
    skipped: str = ""
    inapplicable: str = ""

    def check(self, count: int = 1) -> None:
        """Count checks that were made."""
        self.checked += count
        self.total += count

    def report(self, problem: Problem) -> None:
        self.problems.append(problem)

    def absorb(self, other: ChannelResult) -> None:
        """Add what was found apart from this channel."""
        self.checked, self.total, self.unit = self.checked + other.checked, self.total + other.total, other.unit
        self.problems += other.problems

    @property
    def status(self) -> Status:
        """Contradictions first, then gaps; a channel that checked nothing is never green."""
        if any(not p.unproven for p in self.problems):
            return Status.FAILED
        if self.problems:
            return Status.UNPROVEN
        if self.skipped:
            return Status.NOT_CHECKED
        if self.inapplicable and not self.total:
            return Status.NOT_APPLICABLE
        return Status.PASSED if 0 < self.checked == self.total else Status.UNPROVEN


@dataclass(frozen=True, slots=True)
class ClaimLine:
    """What one claim of a measurement comes to: supported, contradicted, undetermined or unlicensed, and why.

    ``says`` are the producer's words, ``checked`` is the statement that was judged.
    """

    id: str
    says: str
    checked: str
    strength: str
    outcome: str
    because: str


@dataclass(slots=True)
class Report:
    """Everything that is known after verification. ``document`` is the path shown to the reader."""

    document: str
    kind: str = ""
    profile: str = "review"
    required: tuple[Channel, ...] = PROFILES["review"]
    channels: dict[Channel, ChannelResult] = field(default_factory=dict)
    claim: str | None = None
    verdict: str | None = None
    require: str = "preserved"
    arm: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    establishes_not: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    claims: tuple[ClaimLine, ...] = ()
    remarks: tuple[str, ...] = ()
    fault: str = ""
    usage: str = ""
    interrupted: bool = False

    def channel(self, channel: Channel) -> ChannelResult:
        return self.channels.setdefault(channel, ChannelResult(channel))

    def status(self, channel: Channel) -> Status:
        result = self.channels.get(channel)
        return Status.NOT_CHECKED if result is None else result.status

    def skip_rest(self, reason: str) -> None:
        """Record for every required channel that has not run why it did not."""
        for channel in self.required:
            if channel not in self.channels:
                self.channels[channel] = ChannelResult(channel, skipped=reason)

    @property
    def decides(self) -> bool:
        """Whether the profile asks for a verdict at all."""
        return Channel.DECISION in self.required


def exit_code(report: Report) -> Code:
    """Return the exit code; defined for every report, and the same in every format.

    What is absent counts where it was required. What is contradicted counts also where nobody asked for it.
    """
    statuses = {channel: report.status(channel) for channel in report.required}

    def failed(*channels: Channel) -> bool:
        return any(report.status(channel) is Status.FAILED for channel in channels)

    contradicted = report.verdict is not None and report.claim is not None and report.verdict != report.claim
    # A measurement refuted by its own values is genuine: that is an outcome, not a divergence of bytes and numbers.
    refuted = report.verdict == "refuted"
    gaps = any(s in (Status.UNPROVEN, Status.NOT_CHECKED) for s in statuses.values())
    nothing = Status.PASSED not in statuses.values()
    undecided = report.decides and report.verdict in (None, "undetermined", "unlicensed")
    # Whoever asks about a receipt is not answered with 0 because a measurement stands in its place.
    unasked = report.decides and report.verdict == "supported" != report.require
    rows = (
        (bool(report.fault), Code.INTERNAL),
        (bool(report.usage), Code.USAGE),
        (report.interrupted, Code.INTERRUPTED),
        (failed(Channel.ADMISSION, Channel.SCHEMA, Channel.CONTRACT), Code.INADMISSIBLE),
        (failed(Channel.BINDING, Channel.AUTHENTICITY), Code.TAMPERED),
        (
            failed(Channel.REPRODUCTION, Channel.REPLAY)
            or (failed(Channel.DECISION) and not refuted)
            or (report.decides and contradicted),
            Code.DIVERGED,
        ),
        (gaps or undecided or unasked or nothing, Code.UNPROVEN),
        (report.decides and report.verdict != report.require, Code.NOT_PRESERVED),
    )
    return next((code for holds, code in rows if holds), Code.VERIFIED)


def headline(report: Report) -> str:
    """Return the word for the outcome. Profiles that decide nothing never print VERIFIED."""
    code = exit_code(report)
    if code is Code.NOT_PRESERVED and report.kind == "measurement":
        return "REFUTED"
    return "CONSISTENT" if code is Code.VERIFIED and not report.decides else code.name
