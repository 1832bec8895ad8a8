"""Channel contract: was the protocol kept, and did a person make the judgements? The rules are those of `protocol`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from atlas_schema.documents.base import Document
from atlas_schema.documents.judgements import judgement_fields
from atlas_schema.documents.read import Read
from atlas_schema.documents.run_log import RunLog
from atlas_schema.protocol.judgement import judgement_doubts, read_doubts
from atlas_schema.protocol.sequence import protocol_faults
from atlas_schema.verify.outcome import ChannelResult, Problem

TYPED_TIER = ("tier", "fidelity_tier")


def check_protocol(log: RunLog, result: ChannelResult) -> None:
    """Check order, actors, isolation, parties and stimuli of the steps (C040 to C044)."""
    result.check(5)
    for fault in protocol_faults(log.steps):
        result.report(Problem(fault.rule, fault.what, document="run_log", path=("steps", fault.index), stated=fault.stated,
                              recomputed=fault.expected, todo=fault.todo))  # fmt: skip


def check_judgements(document: Document, log: RunLog | None, result: ChannelResult, name: str = "receipt") -> None:
    """Check every filled judgement against the log (C046); without a log they are unproven."""
    filled = [path for path, made in judgement_fields(document) if made is not None]
    result.check(len(filled))
    for doubt in judgement_doubts(document, None if log is None else log.steps):
        result.report(Problem("ATL-C046", doubt.what, document=name, path=doubt.path, stated=doubt.stated,
                              recomputed=doubt.expected, todo=doubt.todo))  # fmt: skip
    if log is None and filled:
        result.report(Problem("ATL-C046", "There is no log that shows who made the judgement.", document=name, path=filled[0],
                              recomputed="run_log.json", unproven=True, todo="give the run log with --run-log"))  # fmt: skip


def check_read(read: Read, log: RunLog | None, result: ChannelResult) -> None:
    """Check a Read against the log (C047); without a log it is unproven."""
    result.check()
    for doubt in read_doubts(read, log.steps) if log else ():
        result.report(Problem("ATL-C047", doubt.what, document="receipt", path=doubt.path, stated=doubt.stated,
                              recomputed=doubt.expected, todo=doubt.todo))  # fmt: skip
    if log is None:
        result.report(Problem("ATL-C047", "There is no log that shows when this Read was written.", document="receipt",
                              recomputed="run_log.json", unproven=True, todo="give the run log with --run-log"))  # fmt: skip


def typed_tiers(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Yield a problem for every field of a parsed document that states a fidelity tier (C045)."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        if key in TYPED_TIER:
            yield Problem("ATL-C045", "A fidelity tier is typed in.", path=(*at, key), stated=str(part)[:80],
                          recomputed="no such field: the tier follows from the steps of the run log",
                          todo="remove the field; atlas log show derives the tier")  # fmt: skip
        if isinstance(part, (dict, list)):
            yield from typed_tiers(part, (*at, key))
