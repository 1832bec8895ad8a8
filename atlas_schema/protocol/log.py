"""The minimal run log: declare, extract, issue. The tools write it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from atlas_schema import EXTRACTOR
from atlas_schema.canonical import digest_document
from atlas_schema.documents.run_log import Artefact, RunLog, Step
from atlas_schema.errors import UsageError
from atlas_schema.files import document_text, read_document, write_atomically

LOG_NAME = "run_log.json"
StepName = Literal["declare", "extract", "issue"]
Actor = Literal["automation", "technician", "model"]


def now() -> str:
    """Return the current time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def step_hash(step: Step) -> str:
    """Return the digest of a step without its own ``hash``; it covers ``previous`` and so the whole log before it."""
    return digest_document({name: value for name, value in step.model_dump(mode="json").items() if name != "hash"})


def chain_faults(log: RunLog) -> list[tuple[int, str]]:
    """Return (index, fault) for every step that is out of order, altered, or not chained to the one before."""
    faults, before = [], None
    for index, step in enumerate(log.steps):
        if step.index != index:
            faults.append((index, f"index is {step.index}; a step was removed or reordered"))
        if step.previous != (before.hash if before else None):
            faults.append((index, "previous is not the hash of the step before; a step was removed, added or altered"))
        if step.hash != step_hash(step):
            faults.append((index, "hash is not the digest of the step; the step was altered"))
        if before and step.time < before.time:
            faults.append((index, f"time {step.time} is before that of the step before, {before.time}"))
        before = step
    return faults


def require_unaltered(path: Path, log: RunLog) -> None:
    """Raise `UsageError` where the chain of a log is broken."""
    faults = chain_faults(log)
    if faults:
        raise UsageError("The run log has been altered; nothing is added to it.", where=f"{path}, step {faults[0][0]}",
                         found=faults[0][1], todo="restore the log from where it was backed up")  # fmt: skip


def append_step(
    path: Path,
    *,
    step: StepName,
    actor: Actor,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    tool: str = EXTRACTOR,
) -> RunLog:
    """Append one step and return the log. Refuses a log whose chain is broken; creates the file for ``declare`` only."""
    steps: tuple[Step, ...] = ()
    if path.exists():
        log = read_document(path, RunLog, "run log")
        require_unaltered(path, log)
        steps = log.steps
    elif step != "declare":
        raise UsageError("There is no run log.", where=str(path), expected="the log that 'atlas prereg new' starts",
                         todo="keep run_log.json beside the pre-registration")  # fmt: skip
    artefacts = [tuple(Artefact(name=n, digest=d) for n, d in sorted(group.items())) for group in (inputs, outputs)]
    time = max(now(), steps[-1].time) if steps else now()
    fields = Step(index=len(steps), step=step, actor=actor, tool=tool, time=time, inputs=artefacts[0], outputs=artefacts[1],
                  previous=steps[-1].hash if steps else None, hash="sha256:" + "0" * 64)  # fmt: skip
    made = RunLog(
        kind="run_log", schema_version="1.0", steps=(*steps, fields.model_copy(update={"hash": step_hash(fields)}))
    )
    write_atomically(path, document_text(made))
    return made
