"""The report for a terminal: a dozen lines when green, one block per problem when not."""

from __future__ import annotations

from atlas_schema.errors import printable
from atlas_schema.verify.outcome import (
    QUESTIONS,
    Channel,
    ChannelResult,
    Code,
    Problem,
    Report,
    Status,
    exit_code,
    headline,
)
from atlas_schema.verify.reading import pointer

MEANING = {
    Code.VERIFIED: "genuine, reproduced, and the verdict is what you require",
    Code.NOT_PRESERVED: "genuine and reproduced, but the verdict is not the one you require",
    Code.USAGE: "the call could not be carried out; this says nothing about the receipt",
    Code.INADMISSIBLE: "unsafe or malformed, or its parts contradict each other",
    Code.TAMPERED: "these are not the bytes that the receipt is about",
    Code.DIVERGED: "genuine bytes, but they contradict what the receipt states",
    Code.UNPROVEN: "what you require cannot be established",
    Code.INTERNAL: "a fault of this verifier, never a verdict",
    Code.INTERRUPTED: "stopped before it was done; this says nothing about the receipt",
}
_MARK = {
    Status.PASSED: "ok", Status.FAILED: "FAILED", Status.UNPROVEN: "unproven", Status.NOT_CHECKED: "not checked",
    Status.NOT_APPLICABLE: "n/a",
}  # fmt: skip
SHOWN = 4
"""How many problems of one channel the text lists; JSON lists all that were recorded."""
LONGEST = 400
"""How many characters of one value the text shows."""


def short(text: str) -> str:
    """Return a value cut to a length that leaves the rest of the report in sight."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters; --report json has them all)"


def render(report: Report) -> str:
    """Return the report as plain text, ending in a newline."""
    lines = [*_head(report), "", *(_channel(report.channels[c]) for c in Channel if c in report.channels)]
    if report.channels:
        lines += [_not_required(c) for c in (Channel.AUTHENTICITY, Channel.REPLAY) if c not in report.required]
    for channel in Channel:
        if channel in report.channels:
            lines += _problems(report, report.channels[channel])
    if report.facts:
        lines += ["", *(f"{name:<17}{value}" for name, value in report.facts.items())]
    if report.establishes_not and not (report.usage or report.fault or report.interrupted):
        lines += ["", "Does not establish: " + "; ".join(report.establishes_not) + "."]
    return "\n".join(printable(line) for line in lines) + "\n"


def _head(report: Report) -> list[str]:
    code = exit_code(report)
    meaning = "its channels agree; no verdict was asked for" if headline(report) == "CONSISTENT" else MEANING[code]
    lines = [f"{headline(report)} ({int(code)})  {report.document}: {meaning}"]
    if report.usage or report.fault:
        lines += ["", *(report.usage or report.fault).splitlines()]
    if report.verdict is not None:
        claimed = "as claimed" if report.verdict == report.claim else f"but the receipt claims '{report.claim}'"
        lines.append(
            f"Arm '{report.arm}' is recomputed as '{report.verdict}', {claimed}; required: '{report.require}'."
        )
        lines += [f"  because {reason}" for reason in report.reasons[:SHOWN]]
        hidden = len(report.reasons) - SHOWN
        lines += [f"  ... and {hidden} more reasons; --report json lists them"] if hidden > 0 else []
    elif report.claim is not None:
        lines.append(f"The receipt claims that arm '{report.arm}' is '{report.claim}'; no verdict was recomputed.")
    return lines


def _channel(result: ChannelResult) -> str:
    count = (
        f"{result.checked:,} of {result.total:,} {result.unit}"
        if result.total
        else (result.skipped or "nothing to check")
    )
    if result.problems:
        plural = "problem" if len(result.problems) == 1 else "problems"
        count = f"{len(result.problems)} {plural}; looked at {result.checked:,} {result.unit}"
    asked = "" if result.status is Status.PASSED else f" - {QUESTIONS[result.channel]}"
    return f"  {result.channel.value:<13}{_MARK[result.status]:<12}{count}{asked}"


def _not_required(channel: Channel) -> str:
    why = "signatures are" if channel is Channel.AUTHENTICITY else "re-running the models is"
    return f"  {channel.value:<13}{'not checked':<12}{why} not part of this version - {QUESTIONS[channel]}"


def _problems(report: Report, result: ChannelResult) -> list[str]:
    lines: list[str] = []
    for problem in result.problems[:SHOWN]:
        lines += ["", *problem_lines(report.document, problem)]
    hidden = len(result.problems) - SHOWN
    return (
        [*lines, "", f"... and {hidden} more in channel {result.channel.value}; --report json lists them"]
        if hidden > 0
        else lines
    )


def problem_lines(document: str, problem: Problem) -> list[str]:
    """Return the block of one problem: place, rule, what; then stated, recomputed, tolerance, what to do."""
    place = document if problem.document in ("", "receipt") else f"{problem.document}.json"
    if problem.position is not None:
        place += f":{problem.position[0]}:{problem.position[1]}"
    where = short(" ".join(part for part in (pointer(problem.path), problem.where) if part))
    # What cannot be read was found, not stated; what documents say of each other is expected, not recomputed.
    channel = problem.rule[4:5]
    first = "found" if channel in ("A", "S") else "stated"
    second = "recomputed" if channel in ("B", "R", "D") and not problem.unproven else "expected"
    parts = (
        (first, problem.stated), (second, problem.recomputed),
        ("tolerance", problem.tolerance), ("to do", problem.todo),
    )  # fmt: skip
    return [f"{place}: {problem.rule} {problem.what}", *([f"  at         {where}"] if where else []),
            *(f"  {name:<11}{short(value)}" for name, value in parts if value)]  # fmt: skip
