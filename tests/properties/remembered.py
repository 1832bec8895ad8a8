"""Verifying one study again and again: what depends on its rows alone is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from verify.forging import study

from atlas_schema.measures import summarise as measures
from atlas_schema.verify import documents, examine, verifier
from atlas_schema.verify.outcome import Report

EXAMINE, CONCLUDE = examine.examine, measures.conclude
"""The functions themselves."""


@contextmanager
def rows_looked_at_once() -> Iterator[None]:
    """Remember what is found in the rows of `study`, and its other documents as they are. Each is looked at once for real."""
    s = study()
    examined = EXAMINE(s.source(), s.preregistration, s.contract, reproduce=True)
    if examined.contract.problems or examined.physics.problems:
        raise ValueError("the honest study has problems")
    findings = measures.summarise(s.source(), s.contract, s.preregistration, s.evidence_root())
    parse = documents.parse
    parsed: dict[tuple[str, bytes], Any] = {}

    def parse_once(name: str, raw: bytes, kind: str | None, report: Report) -> Any:
        before = sum(len(result.problems) for result in report.channels.values())
        if name == "receipt":
            return parse(name, raw, kind, report)
        if (name, raw) in parsed:
            return parsed[name, raw]
        found = parse(name, raw, kind, report)
        if found is not None and before == sum(len(result.problems) for result in report.channels.values()):
            parsed[name, raw] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "parse", parse_once)
        patch.setattr(examine, "examine", lambda *_, **__: replace(examined))
        patch.setattr(measures, "conclude", lambda *_: findings)
        yield


@contextmanager
def rows_looked_at() -> Iterator[None]:
    """Look at the rows after all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examine, "examine", EXAMINE)
        patch.setattr(measures, "conclude", CONCLUDE)
        yield
