"""The normative report: JSON, deterministic, without times."""

from __future__ import annotations

import json
from typing import Any

from atlas_schema import __version__
from atlas_schema.limits import listed
from atlas_schema.verify.outcome import Channel, Problem, Report, exit_code, headline
from atlas_schema.verify.reading import pointer


def as_dict(report: Report) -> dict[str, Any]:
    """Return the report as a JSON value."""
    code = exit_code(report)
    return {
        "kind": "verification_report", "schema_version": "1.0", "verifier": f"atlas-schema {__version__}",
        "document": report.document, "document_kind": report.kind or None, "profile": report.profile,
        "outcome": headline(report), "exit_code": int(code), "arm": report.arm or None, "claim": report.claim,
        "verdict": report.verdict, "reasons": list(report.reasons), "remarks": list(report.remarks), "require": report.require,
        "claims": [{"id": c.id, "says": c.says, "checked": c.checked, "strength": c.strength, "outcome": c.outcome, "because": c.because}
                   for c in report.claims],
        "channels": [
            {
                "channel": c.value, "required": c in report.required, "status": report.status(c).value,
                "checked": report.channels[c].checked if c in report.channels else 0,
                "total": report.channels[c].total if c in report.channels else 0,
                "skipped": _skipped(report, c),
                "problems": [_problem(p) for p in report.channels[c].problems] if c in report.channels else [],
            }
            for c in Channel
        ],
        "limits": {name: {"at_most": value, "unit": unit} for name, value, unit, _ in listed()},
        "digests": report.facts, "does_not_establish": list(report.establishes_not),
        "usage": report.usage or None, "fault": report.fault or None, "interrupted": report.interrupted,
    }  # fmt: skip


def _skipped(report: Report, channel: Channel) -> str:
    """Return why a channel was not looked at, empty where it was."""
    if channel in report.channels:
        return report.channels[channel].skipped
    if report.fault:
        return "a fault of the verifier: nothing was established"
    if report.usage:
        return "the call was refused: nothing was looked at"
    if report.interrupted:
        return "stopped before it was done"
    return "an earlier channel did not pass" if channel in report.required else "not required by the profile"


def _problem(problem: Problem) -> dict[str, Any]:
    line, column = problem.position or (None, None)
    return {
        "rule": problem.rule, "what": problem.what, "document": problem.document or None,
        "pointer": pointer(problem.path) if problem.path else None, "line": line, "column": column,
        "where": problem.where or None, "stated": problem.stated or None, "recomputed": problem.recomputed or None,
        "tolerance": problem.tolerance or None, "to_do": problem.todo or None, "unproven": problem.unproven,
    }  # fmt: skip


def render(report: Report) -> str:
    """Return the report as indented JSON in ASCII, ending in a newline.

    ``##`` stands in texts only. Spelled otherwise it means the same, and no build service takes it for a command to itself.
    """
    return json.dumps(as_dict(report), indent=2, ensure_ascii=True).replace("##", "#\\u0023") + "\n"
