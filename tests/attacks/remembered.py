"""Verify again and again: what no change enters is computed once for real and remembered. The one place where tests do so.

| remembered | by | why that is sound |
|---|---|---|
| a document, read | its bytes and kind | reading is a function of bytes; one in which anything is wrong is read every time |
| a document's digest | the document itself | documents are frozen |
| what those beside the receipt say of each other | the documents themselves | so are they; counts and problems are added as they were |
| the pass over the rows | the rows themselves, digests of plan and contract | no test changes rows in place; it is a function of these three |
| findings | that pass, digests of plan and contract, root, seed | a function of these |

A pass that is not to reproduce tells the roots, and no document enters those: any pass over the same rows gives them. Then
documents contradict each other, so nothing else of it is told; whoever asked would find that there is nothing.

Left out, since they decide nothing: positions in messages, the schema's words for a document that its model refuses, digests
of the receipt that a report repeats. So are bounds on sizes, which no change of one value comes near. The receipt's own checks
are the verifier's, made every time. Tests compare the outcomes with those of the verifier as it is (`forgotten`).

Documents are remembered as long as the process lives, rows and findings as long as `remembered` lasts; of each kind a `FEW`, and
those asked for last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import pytest
from simulator import MemorySource

from atlas_schema.documents.receipt import Receipt
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.measures import summarise as measures
from atlas_schema.verify import consistency, documents, examine, protocol, reading, verifier
from atlas_schema.verify.examine import Examined
from atlas_schema.verify.outcome import Channel, ChannelResult, Code, Report, Status, exit_code
from atlas_schema.verify.verifier import Options, Submission, verify

FEW = 16
"""How many of a kind are remembered: those of the honest submission are asked for every time and stay, changed ones pass."""
T = TypeVar("T")
Known = OrderedDict[Any, Any]


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


# --- what is remembered -------------------------------------------------------------------------------------------


def _once(known: Known, key: Hashable, make: Callable[[], T]) -> T:
    """Return what is known by a key, or make it; what was not asked for longest is forgotten."""
    if key in known:
        known.move_to_end(key)
    else:
        known[key] = make()
        if len(known) > FEW:
            known.popitem(last=False)
    return cast(T, known[key])


HOMES = {
    "parse": verifier, "subject_digest": verifier, "_locate": verifier, "_require_bounds": reading, "positions": documents,
    "schema_errors": documents, "digest_of": consistency, "check_contract": consistency, "check_log": consistency,
    "check_preregistration": consistency, "check_protocol": protocol, "examine": examine, "conclude": measures,
}  # fmt: skip
"""The verifier's functions that others stand in for, by the module in which they are looked up."""
REAL: dict[str, Callable[..., Any]] = {name: getattr(module, name) for name, module in HOMES.items()}
"""Those functions as they are, also where another `remembered` lasts already."""
PARSE, DIGEST_OF, EXAMINE, CONCLUDE = documents.parse, consistency.digest_of, examine.examine, measures.conclude
READ: Known = OrderedDict()
DIGESTS: Known = OrderedDict()


def _read(name: str, raw: bytes, kind: str | None, report: Report) -> Any:
    """Read a document; one in which nothing is wrong is read once."""
    key = (name, kind, raw)
    if key in READ:
        report.channel(Channel.ADMISSION).check()
        report.channel(Channel.SCHEMA).check()
        return _once(READ, key, lambda: None)
    before = _problems(report)
    made = PARSE(name, raw, kind, report)
    if made is not None and _problems(report) == before:
        _once(READ, key, lambda: made)
    return made


def _problems(report: Report) -> int:
    return sum(len(result.problems) for result in report.channels.values())


def _digest(document: Any) -> str:
    """Return a document's digest; that of a receipt is only repeated, and left out."""
    if isinstance(document, Receipt):
        return ""
    # The document is kept beside its digest, so that no other takes its identity.
    return str(_once(DIGESTS, id(document), lambda: (document, DIGEST_OF(document)))[1])


def _replayed(check: Callable[..., None]) -> Callable[..., None]:
    """Return a check that is made once per arguments and then repeated: counts and problems are added as they were."""
    known: Known = OrderedDict()

    def made(given: tuple[Any, ...], channel: Channel) -> tuple[Any, ChannelResult]:
        found = ChannelResult(channel)
        check(*given, found)
        return given, found  # the arguments are kept, so that no other object takes their identity

    def repeated(*args: Any) -> None:
        *given, result = args
        key = tuple(id(x) for x in given)
        _, found = _once(known, key, lambda: made(tuple(given), result.channel))
        result.check(found.checked)
        result.problems += found.problems

    return repeated


CHECKS = {name: _replayed(check) for name, check in REAL.items() if name.startswith("check_")}


class _Rows:
    """Passes over rows, and the findings that follow from them."""

    def __init__(self) -> None:
        self.passes: Known = OrderedDict()
        self.findings: Known = OrderedDict()
        self.recomputed: list[Any] = []

    def examine(self, evidence: EvidenceSource, plan: Any, contract: Any, *, reproduce: bool) -> Examined:
        rows = evidence.tables if isinstance(evidence, MemorySource) else evidence
        key = (id(rows), _digest(plan), _digest(contract))
        if not reproduce and key not in self.passes:
            for held, known in self.passes.values():
                if held is rows:
                    nothing = cast(ChannelResult, None)
                    return replace(known, contract=nothing, physics=nothing, sums=None, error=None)
            return EXAMINE(evidence, plan, contract, reproduce=False)
        made: Examined = _once(self.passes, key, lambda: (rows, EXAMINE(evidence, plan, contract, reproduce=True)))[1]
        return replace(made)

    def conclude(self, sums: Any, contract: Any, plan: Any, root: str, second: bytes | None = None) -> Any:
        def make() -> tuple[Any, Any]:
            self.recomputed.append(CONCLUDE(sums, contract, plan, root, second))
            return sums, self.recomputed[-1]

        return _once(self.findings, (id(sums), _digest(contract), _digest(plan), root, second), make)[1]


@contextmanager
def remembered() -> Iterator[list[Any]]:
    """Remember, while this lasts, what no change enters. Yields the list of findings that were recomputed."""
    rows = _Rows()
    instead: dict[str, Callable[..., Any]] = {
        "parse": _read, "digest_of": _digest, **CHECKS, "examine": rows.examine, "conclude": rows.conclude,
        "subject_digest": lambda _: "", "_locate": lambda *_: None, "_require_bounds": lambda *_: None,
        "positions": lambda *_: {}, "schema_errors": lambda *_: [],
    }  # fmt: skip
    with _replaced(instead):
        yield rows.recomputed


@contextmanager
def forgotten() -> Iterator[None]:
    """Let the verifier be as it is, while this lasts, whatever is remembered around it."""
    with _replaced(REAL):
        yield


@contextmanager
def _replaced(instead: dict[str, Callable[..., Any]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, module in HOMES.items():
            patch.setattr(module, name, instead[name])
        yield
