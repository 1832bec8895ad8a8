"""Verifiers that are wrong in one thing: this project's own, with one rule switched off, or with one step left out.

A rule is switched off where it is found or reported, so that what comes after it runs on as in a verifier that never had it. What
cannot be read at all (a document that is no JSON, a file that is no Parquet) stays unread: there is nothing to run on with.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from atlas_schema.claims.operators import Outcome
from atlas_schema.claims.record import ClaimResult, judge_claims, licence_faults
from atlas_schema.measures import summarise
from atlas_schema.verify import consistency, documents, examine, protocol, records, reproduction, verifier
from atlas_schema.verify.outcome import ChannelResult, Problem
from atlas_schema.verify.physics import native, observer, violations
from atlas_schema.verify.physics.samestate import BaseSide
from atlas_schema.verify.physics.violations import Violation
from atlas_schema.verify.rows import Keys
from atlas_schema.verify.verifier import Options, Submission

report_problem, add_violations = ChannelResult.report, violations.Record.add


@contextlib.contextmanager
def without_rule(rule: str) -> Iterator[None]:
    """Switch one rule off."""

    def report(self: ChannelResult, problem: Problem) -> None:
        if problem.rule != rule:
            report_problem(self, problem)

    def add(self: violations.Record, cell: tuple[int, int], found: Any, rows: int = 0) -> None:
        add_violations(self, cell, [v for v in found if v.rule != rule], rows)

    def deaf(check: Callable[..., list[Violation]]) -> Callable[..., list[Violation]]:
        return lambda *args, **kwargs: [v for v in check(*args, **kwargs) if v.rule != rule]

    with contextlib.ExitStack() as stack:
        change = stack.enter_context
        change(mock.patch.object(ChannelResult, "report", report))
        change(mock.patch.object(violations.Record, "add", add))
        # Found violations keep these from going on; the others are only recorded.
        for module, name in ((observer, "check_layer"), (native, "check_routing"), (BaseSide, "check")):
            change(mock.patch.object(module, name, deaf(getattr(module, name))))
        if rule == "ATL-C010":
            change(mock.patch.object(Keys, "clean", property(lambda self: True)))
        yield


def _asked(change: Callable[[Options], Options], given: Callable[[Submission], Submission] = lambda s: s) -> Any:
    """Let the verifier hear other options, or get another submission, than the reviewer gave."""
    real = verifier.verify
    return mock.patch.object(verifier, "verify", lambda submission, options: real(given(submission), change(options)))


def _instead(options: Options, profile: str) -> Options:
    """Let the default profile be another one."""
    return replace(options, profile=profile if options.profile == "review" else options.profile)


def _silent(module: Any, *names: str) -> Any:
    """Let checks find nothing."""
    stack = contextlib.ExitStack()
    for name in names:
        stack.enter_context(mock.patch.object(module, name))
    return stack


@contextlib.contextmanager
def _trusting() -> Iterator[None]:
    """Take the findings that a receipt states for those that its rows give."""
    stated: list[Any] = []
    real = verifier._reproduce

    def reproduce(receipt: Any, *args: Any) -> Any:
        stated.append(receipt.findings)
        return real(receipt, *args)

    with (
        mock.patch.object(verifier, "_reproduce", reproduce),
        mock.patch.object(summarise, "conclude", side_effect=lambda *_: stated[-1]),
    ):
        yield


@contextlib.contextmanager
def _rows_unlooked() -> Iterator[None]:
    """Compare roots, and look at no row beyond that."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(violations.Record, "add"))
        stack.enter_context(mock.patch.object(reproduction, "check_runs"))
        stack.enter_context(mock.patch.object(native, "check_routing", return_value=[]))
        stack.enter_context(mock.patch.object(BaseSide, "check", return_value=[]))
        yield


@contextlib.contextmanager
def _claim_uncompared() -> Iterator[None]:
    """Take the recomputed verdict for the claimed one, in D001 and in the exit code."""
    real = verifier._decide

    def decide(options: Any, receipt: Any, plan: Any, contract: Any, sums: Any, findings: Any, report: Any) -> None:
        real(options, receipt, plan, contract, sums, findings, report)
        report.claim = report.verdict

    with without_rule("ATL-D001"), mock.patch.object(verifier, "_decide", decide):
        yield


def _judging(change: Callable[[ClaimResult], ClaimResult]) -> Any:
    """Judge claims otherwise."""
    return mock.patch.object(
        records,
        "judge_claims",
        lambda m: tuple(change(r) if isinstance(r, ClaimResult) else r for r in judge_claims(m)),
    )


def _decided(found: ClaimResult) -> ClaimResult:
    return replace(found, outcome=Outcome.SUPPORTED) if found.outcome is Outcome.UNDETERMINED else found


def _licence_without(rule: str) -> Any:
    return mock.patch.object(records, "licence_faults", lambda m: (f for f in licence_faults(m) if f.rule != rule))


def _lax(raw: bytes, *_: Any) -> Any:
    return json.loads(raw)


@dataclass(frozen=True)
class Broken:
    """A verifier with one step left out, and the cases to try first: any that gives it away will do."""

    make: Callable[[], Any]
    first: str


BROKEN: dict[str, Broken] = {
    "does not look at the evidence": Broken(lambda: _asked(lambda o: _instead(o, "schema")), "one_*"),
    "compares roots and recomputes nothing": Broken(lambda: _asked(lambda o: _instead(o, "offline")), "ninth_*"),
    "recomputes findings from rows whose physics it does not check": Broken(_rows_unlooked, "angle_*"),
    "trusts the findings that are stated": Broken(_trusting, "ninth_*"),
    "does not compare findings, only the verdict": Broken(lambda: _silent(reproduction, "check_findings"), "ninth_*"),
    "leaves out the second seed of the bootstrap": Broken(
        lambda: mock.patch.object(summarise, "second_seed", lambda first: first), "preserved_*"
    ),
    "does not hear the reviewer's seed": Broken(lambda: _asked(lambda o: replace(o, seed=None)), "lucky_*"),
    "does not hear the pin": Broken(lambda: _asked(lambda o: replace(o, pin=None)), "*_pin*"),
    "does not hear which verdict is required": Broken(
        lambda: _asked(lambda o: replace(o, require="preserved")), "*_required"
    ),
    "does not hear the profile": Broken(lambda: _asked(lambda o: replace(o, profile="review")), "profile_*"),
    "checks no signature": Broken(lambda: _asked(lambda o: replace(o, keys=(), sigstore=None)), "unpinned_*"),
    "counts one signature for a threshold": Broken(
        lambda: _asked(lambda o: replace(o, threshold=1)), "signed_threshold_*"
    ),
    "does not compare the files that were signed": Broken(
        lambda: mock.patch("atlas_schema.verify.binding.check_files"), "signed_file_*"
    ),
    "does not check the chain of the log": Broken(lambda: _silent(consistency, "check_log"), "log_*"),
    "does not check the protocol": Broken(
        lambda: _silent(protocol, "check_protocol", "check_judgements", "check_read"), "judgement_*"
    ),
    "does not compare the plan with the contract": Broken(
        lambda: _silent(consistency, "check_preregistration"), "wide_*"
    ),
    "does not compare the receipt with plan and log": Broken(
        lambda: _silent(consistency, "check_receipt"), "no_such_*"
    ),
    "does not know the contracts that are built in": Broken(
        lambda: _silent(consistency, "check_familiar"), "borrowed_*"
    ),
    "does not compare windows and cells with the plan": Broken(lambda: _silent(examine, "check_tables"), "window_*"),
    "reads JSON as it comes": Broken(lambda: mock.patch.object(documents, "read_json", _lax), "number_*"),
    "says nothing against unknown fields": Broken(lambda: without_rule("ATL-S001"), "unknown_*"),
    "takes the recomputed verdict for the claimed one": Broken(_claim_uncompared, "claim_*"),
    "takes an undecided claim for supported": Broken(lambda: _judging(_decided), "too_few_*"),
    "lets any claim be as strong as it says": Broken(
        lambda: _judging(lambda r: replace(r, unlicensed="")), "statistics_*"
    ),
    "lets any record license statistics": Broken(lambda: _licence_without("ATL-D043"), "licence_*"),
    "lets any record call itself replicated": Broken(lambda: _licence_without("ATL-D044"), "replicated_once"),
}
"""Verifiers with one step left out."""


@dataclass(frozen=True)
class Told:
    """Why no case can have another exit code without a rule's problem, and the verifier of `BROKEN` without all of the rule."""

    why: str
    entirely: str


_MEASURED = "a record's exit code comes from its verdict, which counts {what}: `{verdict}` gives 6; {worse}"
_WORSE = "beside a contradicted claim it is `refuted`, which `D040` tells and which gives 1"
TOLD: dict[str, Told] = {
    "ATL-D001": Told(
        "the exit code compares the recomputed verdict with the claimed one by itself: where they differ it is 5, or 3 or 4 for what failed "
        "earlier, whatever is told",
        "takes the recomputed verdict for the claimed one",
    ),
    "ATL-D041": Told(
        _MEASURED.format(
            what="undecided claims",
            verdict="undetermined",
            worse=f"beside an unlicensed one it is `unlicensed`, also 6; {_WORSE}",
        ),
        "takes an undecided claim for supported",
    ),
    "ATL-D042": Told(
        _MEASURED.format(what="claims beyond the licence", verdict="unlicensed", worse=_WORSE),
        "lets any claim be as strong as it says",
    ),
    "ATL-D043": Told(
        _MEASURED.format(what="faults of the licence", verdict="unlicensed", worse=_WORSE),
        "lets any record license statistics",
    ),
    "ATL-D044": Told(
        _MEASURED.format(what="faults of the replication", verdict="unlicensed", worse=_WORSE),
        "lets any record call itself replicated",
    ),
}
"""Rules that only tell what the exit code already follows from; `test_adequacy` tries it over every record and report of that kind."""
