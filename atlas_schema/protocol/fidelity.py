"""The fidelity tier: a function of the steps of a log, and of nothing else. No document has a field for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.protocol.log import chain_faults
from atlas_schema.protocol.sequence import first, is_run, parties, processes, protocol_faults

Tier = Literal["A", "B", "C"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A tier and what kept it from being A. ``tier`` is None where there is no run yet, or the log breaks the protocol."""

    tier: Tier | None
    lacking: tuple[str, ...]

    @property
    def words(self) -> str:
        """Return one line for people."""
        name = f"tier {self.tier}" if self.tier else "no tier"
        return f"{name}: {'; '.join(self.lacking)}" if self.lacking else f"{name}: every step of the protocol is there"


ABOUT_ONE = ("issue", "verify", "judge")
"""Steps that are about one document of a log. What was done for another document does not count for this one."""


def fidelity(log: RunLog, subject: str | None = None) -> Fidelity:
    """Return the tier of a log. A: all steps. C: no declaration, or no Read #0, before the first run. B: otherwise.

    ``subject`` is a document's digest with judgements blank: the tier is then that of this document. A broken log has
    none. Runs count up to the issue: what ran later made nothing of what was issued, so a log that is cut at its end has
    no higher tier. That a step happened as the log says is not checked; that the log was not changed since is.
    """
    if chain_faults(log) or protocol_faults(log.steps):
        return Fidelity(None, ("the log is altered or breaks the protocol; atlas log check says where",))
    run = first(log.steps, "extract")
    if run == len(log.steps):
        return Fidelity(None, ("no run is recorded",))
    steps = [s for s in log.steps if _counts(s, subject)]
    made = [s for s in steps if s.step != "issue" or s.index > run]  # what was issued before any run came from none
    if subject is not None and first(steps, "issue") < len(steps) and first(made, "issue") == len(made):
        return Fidelity(None, ("no run stands before the issue",))
    grave = tuple(_before(log.steps, run))
    lacking = (*grave, *_after(made))
    return Fidelity("C" if grave else "B" if lacking else "A", lacking)


def _counts(step: Step, subject: str | None) -> bool:
    return (
        subject is None or step.step not in ABOUT_ONE or any(a.digest == subject for a in (*step.inputs, *step.outputs))
    )


def _before(steps: Sequence[Step], run: int) -> list[str]:
    lacking = [] if first(steps, "declare") < run else ["no declaration before the first run"]
    return lacking + ([] if first(steps, "read0") < run else ["no Read #0 before the first run"])


def _after(steps: Sequence[Step]) -> list[str]:
    names = {step.step for step in steps}
    probed = "stimulus" in names or any(a.name == "probe" for s in steps if s.step == "declare" for a in s.inputs)
    issue = first(steps, "issue")
    before = steps[:issue]
    runs = [s for s in before if is_run(s)] or [s for s in before if s.step == "extract"]
    verified = [s for s in steps[issue:] if s.step == "verify"]
    known = all(parties(s) for s in runs) and any(parties(s) for s in verified)
    checks = (
        (probed, "no registered stimulus"),
        (all(processes(s) for s in runs), "isolation is not shown: a run names no process"),
        ("read1" in names, "no Read #1 between the first run and the issue"),
        ("issue" in names, "nothing was issued"),
        (bool(verified), "no verification"),
        (known or not verified, "who extracted or who verified is not recorded"),
        ("judge" in names, "no judgement"),
    )
    return [text for holds, text in checks if not holds]
