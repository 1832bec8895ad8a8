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

from atlas_schema.measures import summarise
from atlas_schema.verify import consistency, documents, examine, protocol, reproduction, verifier
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
}
"""Verifiers with one step left out."""
