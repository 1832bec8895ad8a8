"""Verify many receipts over one study: what no receipt enters is computed once for real and remembered.

Remembered are the other documents, the digests of their content, what they say of each other, the one pass over the
rows, and the findings that follow from it. The receipt's own checks are the verifier's, untouched. Facts that a report
repeats (digests of the receipt) and positions in messages are left out: they decide nothing. So are bounds on sizes, which
no change of one value comes near. A test compares the outcome with that of the verifier as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from atlas_schema.documents.receipt import Receipt
from atlas_schema.measures import summarise as measures
from atlas_schema.verify import consistency, documents, examine, protocol, reading, verifier
from atlas_schema.verify.outcome import Channel, ChannelResult, Code, Report, Status, exit_code
from atlas_schema.verify.verifier import Options, Submission, verify

FEW = 8
"""How many objects of a kind are remembered: those of the honest submission come first and stay, changed ones pass."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reviewer learns: exit code, recomputed verdict, and per channel its status and the rules that fired."""

    code: Code
    verdict: str | None
    channels: tuple[tuple[str, str, tuple[str, ...]], ...]

    @property
    def caught_in(self) -> str:
        """The first channel that failed, empty where none did."""
        order = [channel.value for channel in Channel]
        red = [name for name, status, _ in self.channels if status == Status.FAILED.value]
        return min(red, key=order.index, default="")


def outcome_of(report: Report) -> Outcome:
    """Return the outcome of a report."""
    channels = [
        (c.value, r.status.value, tuple(dict.fromkeys(p.rule for p in r.problems)))
        for c, r in sorted(report.channels.items(), key=_order)
    ]
    return Outcome(exit_code(report), report.verdict, tuple(channels))


def _order(item: tuple[Channel, ChannelResult]) -> int:
    return list(Channel).index(item[0])


class Study:
    """One submission whose receipt, or whose plan or log, is changed many times."""

    def __init__(self, submission: Submission, require: str) -> None:
        if submission.open_evidence is None:
            raise ValueError("a study without evidence has nothing to remember")
        source = submission.open_evidence()
        self.options = Options(require=require)
        self.submission = replace(submission, open_evidence=lambda: source)
        self.honest = outcome_of(verify(self.submission, self.options))

    def outcome(self, raw: bytes) -> Outcome:
        """Verify with another receipt."""
        return outcome_of(verify(replace(self.submission, raw=raw), self.options))

    def believed(self, outcome: Outcome) -> bool:
        """Whether a changed submission is believed as much as the honest one: the same code, or no contradiction."""
        if self.honest.code is Code.VERIFIED:
            return outcome.code is Code.VERIFIED
        return outcome.code not in (Code.NOT_PRESERVED, Code.INADMISSIBLE, Code.TAMPERED, Code.DIVERGED)


def _replayed(check: Callable[..., None]) -> Callable[..., None]:
    """Return a check that is made once per arguments and then repeated: counts and problems are added as they were."""
    known: dict[tuple[int, ...], tuple[Any, ChannelResult]] = {}

    def repeated(*args: Any) -> None:
        *given, result = args
        key = tuple(id(x) for x in given)
        found = known[key][1] if key in known else ChannelResult(result.channel)
        if key not in known:
            check(*given, found)
            if len(known) < FEW:
                known[key] = (given, found)  # the arguments are kept, so that no other object takes their place
        result.check(found.checked)
        result.problems += found.problems

    return repeated


@contextmanager
def remembered() -> Iterator[list[Any]]:
    """Remember, while this lasts, what does not depend on the receipt. Yields the list of findings that were recomputed."""
    parse, digest_of, pass_over, conclude = documents.parse, consistency.digest_of, examine.examine, measures.conclude
    parsed: dict[tuple[str, bytes], Any] = {}
    digests: dict[int, tuple[Any, str]] = {}
    passes: dict[tuple[int, ...], tuple[Any, Any]] = {}
    findings: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    recomputed: list[Any] = []

    def parse_once(name: str, raw: bytes, kind: str | None, report: Report) -> Any:
        if (name, raw) in parsed:
            report.channel(Channel.ADMISSION).check()
            report.channel(Channel.SCHEMA).check()
            return parsed[name, raw]
        made = parse(name, raw, kind, report)
        first = name != "receipt" or all(known != "receipt" for known, _ in parsed)  # the honest one comes first
        if first and made is not None and len(parsed) < FEW:  # what is refused says why, every time
            parsed[name, raw] = made
        return made

    def digest_once(document: Any) -> str:
        if isinstance(document, Receipt):
            return ""
        if id(document) in digests:
            return digests[id(document)][1]
        if len(digests) == FEW:
            digests.popitem()
        digests[id(document)] = (document, digest_of(document))
        return digests[id(document)][1]

    def pass_once(evidence: Any, plan: Any, contract: Any, *, reproduce: bool) -> Any:
        if not reproduce and passes:  # then only the roots are told, and no document enters those
            return replace(next(iter(passes.values()))[1])
        key = (id(evidence), id(plan), id(contract))
        if key not in passes:
            made = pass_over(evidence, plan, contract, reproduce=reproduce)
            passes[key] = ((evidence, plan, contract), made)
        return replace(passes[key][1])

    def conclude_once(sums: Any, contract: Any, plan: Any, root: str, *seed: bytes) -> Any:
        key = (id(sums), id(contract), id(plan), root, seed)
        if key not in findings:
            findings[key] = ((sums, contract, plan), conclude(sums, contract, plan, root, *seed))
            recomputed.append(findings[key][1])
        return findings[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "parse", parse_once)
        patch.setattr(reading, "_require_bounds", lambda *_: None)
        patch.setattr(verifier, "subject_digest", lambda _: "")
        patch.setattr(verifier, "_locate", lambda *_: None)
        patch.setattr(documents, "positions", lambda *_: {})
        patch.setattr(documents, "schema_errors", lambda *_: [])
        patch.setattr(consistency, "digest_of", digest_once)
        for module, name in ((consistency, "check_contract"), (consistency, "check_log"), (protocol, "check_protocol"),
                             (consistency, "check_preregistration")):  # fmt: skip
            patch.setattr(module, name, _replayed(getattr(module, name)))
        patch.setattr(examine, "examine", pass_once)
        patch.setattr(measures, "conclude", conclude_once)
        yield recomputed
