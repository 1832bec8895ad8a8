"""The report for a terminal: a dozen lines when green, one block per problem when not."""

from __future__ import annotations

import re
from collections import Counter

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
    Code.TAMPERED: "not the bytes that it is about, or not those that were signed",
    Code.DIVERGED: "genuine bytes, but they contradict what the receipt states",
    Code.UNPROVEN: "what you require cannot be established",
    Code.INTERNAL: "a fault of this verifier, never a verdict",
    Code.INTERRUPTED: "stopped before it was done; this says nothing about the receipt",
}
MEASURED = {
    Code.VERIFIED: "every claim holds of the values that the record states",
    Code.NOT_PRESERVED: "the record's own values contradict what it claims",
    Code.DIVERGED: "genuine rows, but they contradict what the record states",
    Code.TAMPERED: "these are not the rows that the record is about",
    Code.UNPROVEN: "what it claims cannot be established, or is not what you require",
}
"""Meanings that differ for a measurement."""
_MARK = {
    Status.PASSED: "ok", Status.FAILED: "FAILED", Status.UNPROVEN: "unproven", Status.NOT_CHECKED: "not checked",
    Status.NOT_APPLICABLE: "n/a",
}  # fmt: skip
CLAIMS_SHOWN = 40
"""How many claims of a measurement the text lists."""
SHOWN = 4
"""How many problems of one channel the text lists; JSON lists all that were recorded."""
LONGEST = 400
"""How many characters of one value the text shows."""


def short(text: str) -> str:
    """Return a value cut to a length that leaves the rest of the report in sight, without runs of spaces.

    A terminal breaks long lines, so that spaces could carry a text of the document to the beginning of one.
    """
    text = re.sub(" {2,}", " ", text)
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
    meaning = (
        "its channels agree; no verdict was asked for" if headline(report) == "CONSISTENT" else _meaning(report, code)
    )
    lines = [f"{headline(report)} ({int(code)})  {report.document}: {meaning}"]
    if report.usage or report.fault:
        lines += ["", *(report.usage or report.fault).splitlines()]
    if report.kind == "measurement" and report.verdict is not None:
        lines += _claims(report)
    elif report.verdict is not None:
        claimed = "as claimed" if report.verdict == report.claim else f"but the receipt claims '{report.claim}'"
        lines.append(
            f"Arm '{report.arm}' is recomputed as '{report.verdict}', {claimed}; required: '{report.require}'."
        )
        lines += [f"  because {reason}" for reason in report.reasons[:SHOWN]]
        hidden = len(report.reasons) - SHOWN
        lines += [f"  ... and {hidden} more reasons; --report json lists them"] if hidden > 0 else []
        lines += [f"  beside it: {remark}" for remark in report.remarks]
    elif report.claim is not None:
        lines.append(f"The receipt claims that arm '{report.arm}' is '{report.claim}'; no verdict was recomputed.")
    return lines


def _meaning(report: Report, code: Code) -> str:
    return (MEASURED if report.kind == "measurement" else {}).get(code, MEANING[code])


def _claims(report: Report) -> list[str]:
    """List every claim with its outcome and its numbers, up to a bound."""
    counts = Counter(c.outcome for c in report.claims)
    lines = [
        f"{len(report.claims)} claims: " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())) + "."
    ]
    if report.verdict == "supported" != report.require:
        lines.append(f"A measurement is no receipt and cannot be '{report.require}': --require supported accepts it.")
    for claim in report.claims[:CLAIMS_SHOWN]:
        lines += [
            f"  {claim.outcome:<14}{claim.id}: {short(claim.says)}",
            *(f"  {'':<14}  {part}" for part in (f"checked {short(claim.checked)}", short(claim.because))),
        ]
    hidden = len(report.claims) - CLAIMS_SHOWN
    return [*lines, f"  ... and {hidden} more claims; --report json lists them"] if hidden > 0 else lines


def _channel(result: ChannelResult) -> str:
    count = (
        f"{result.checked:,} of {result.total:,} {result.unit}"
        if result.total
        else (result.skipped or result.inapplicable or "nothing to check")
    )
    if result.problems:
        plural = "problem" if len(result.problems) == 1 else "problems"
        count = f"{len(result.problems)} {plural}; looked at {result.checked:,} {result.unit}"
    asked = "" if result.status in (Status.PASSED, Status.NOT_APPLICABLE) else f" - {QUESTIONS[result.channel]}"
    return f"  {result.channel.value:<13}{_MARK[result.status]:<12}{count}{asked}"


def _not_required(channel: Channel) -> str:
    signed = channel is Channel.AUTHENTICITY
    why = "no key was given (--key)" if signed else "re-running the models is not part of this version"
    return f"  {channel.value:<13}{'not checked':<12}{why} - {QUESTIONS[channel]}"


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


LABELS = {"ATL-B001": ("found", "expected"), "ATL-B005": ("found", "pinned"), "ATL-B010": ("signed", "found")}
"""What the two values of a problem are, for rules that compare other things than a statement with its recomputation."""


def labels(problem: Problem) -> tuple[str, str]:
    """Return what the first and the second value of a problem are called."""
    if problem.rule in LABELS:
        return LABELS[problem.rule]
    # What cannot be read, or was not signed, was found, not stated; what documents say of each other is expected.
    channel = problem.rule[4:5]
    second = "recomputed" if channel in ("B", "R", "D") and not problem.unproven else "expected"
    return "found" if channel in ("A", "S", "K") else "stated", second


def place(document: str, problem: Problem) -> str:
    """Return the file that a problem is in, with line and column where they are known."""
    name = document if problem.document in ("", "receipt") else f"{problem.document}.json"
    return name if problem.position is None else f"{name}:{problem.position[0]}:{problem.position[1]}"


def problem_lines(document: str, problem: Problem) -> list[str]:
    """Return the block of one problem: place, rule, what; then both values, tolerance, what to do."""
    where = short(" ".join(part for part in (pointer(problem.path), problem.where) if part))
    first, second = labels(problem)
    parts = (
        (first, problem.stated), (second, problem.recomputed),
        ("tolerance", problem.tolerance), ("to do", problem.todo),
    )  # fmt: skip
    return [f"{place(document, problem)}: {problem.rule} {problem.what}", *([f"  at         {where}"] if where else []),
            *(f"  {name:<11}{short(value)}" for name, value in parts if value)]  # fmt: skip
