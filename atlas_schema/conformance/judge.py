"""What a verifier answered against what a case expects of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atlas_schema.conformance.corpus import Expected
from atlas_schema.errors import DocumentError
from atlas_schema.verify.reading import read_json


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as expected."""

    what: str
    expected: str
    found: str


def of_code(expected: Expected, code: int | None, how: str) -> list[Difference]:
    """Compare exit codes. A verifier that crashed or did not answer has none, and agrees with nothing."""
    if code == expected.exit_code:
        return []
    return [Difference("exit code", str(expected.exit_code), how or str(code))]


def of_report(expected: Expected, output: bytes) -> list[Difference]:
    """Compare what a JSON report says: exit code, verdict, every channel, and the rules that fire, no others."""
    try:
        report = read_json(output)
    except DocumentError as error:
        return [Difference("report", "one JSON report on standard output", f"{error.what} {error.found}".strip())]
    try:
        found = answers(report)
    except (TypeError, KeyError, AttributeError) as error:
        return [Difference("report", "the fields of a verification report", f"{type(error).__name__} {error}")]
    wanted: dict[str, Any] = {
        "exit code in the report": expected.exit_code, "verdict": expected.verdict,
        **{f"channel {name}": status for name, status in expected.channels.items()}, "rules": sorted(expected.rules),
    }  # fmt: skip
    return [
        Difference(name, _shown(wanted.get(name)), _shown(found.get(name)))
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
    ]


def answers(report: Any) -> dict[str, Any]:
    """Return what is compared of a report. Raises `KeyError` or `TypeError` where it is none."""
    channels = {c["channel"]: c for c in report["channels"]}
    rules = {p["rule"] for c in channels.values() for p in c["problems"]}
    return {
        "exit code in the report": report["exit_code"], "verdict": report["verdict"],
        **{f"channel {name}": c["status"] for name, c in channels.items()}, "rules": sorted(rules),
    }  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
