"""The run log's chain: making, linking and appending steps. What their order must be is in `sequence`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from atlas_schema import EXTRACTOR
from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.run_log import Actor, Artefact, RunLog, Step, StepName
from atlas_schema.errors import UsageError
from atlas_schema.files import document_text, read_document, write_atomically

LOG_NAME = "run_log.json"
PROCESS = "process"
"""Name of the artefact that says which process a step ran in."""
PARTY = "party: "
"""Begins the name of the artefact that says who ran a step."""
_BLANK = "sha256:" + "0" * 64


def now() -> str:
    """Return the current time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def party(name: str) -> dict[str, str]:
    """Return the artefact that names a party. Case and spacing do not make another party. Refuses a blank name."""
    if not name.strip():
        raise UsageError("A party needs a name.", found="nothing", expected="a person, a group or a laboratory")
    return {PARTY + name: party_digest(name)}


def party_digest(name: str) -> str:
    """Return the digest by which parties are compared."""
    return digest_bytes(" ".join(name.casefold().split()).encode())


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


def next_step(
    steps: tuple[Step, ...],
    *,
    step: StepName,
    actor: Actor,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    tool: str = EXTRACTOR,
    time: str | None = None,
) -> Step:
    """Return the step that follows, chained. Its time is now, or that of the step before where the clock went back."""
    artefacts = [tuple(Artefact(name=n, digest=d) for n, d in sorted(group.items())) for group in (inputs, outputs)]
    at = time or now()
    made = Step(index=len(steps), step=step, actor=actor, tool=tool, time=max(at, steps[-1].time) if steps else at,
                inputs=artefacts[0], outputs=artefacts[1], previous=steps[-1].hash if steps else None, hash=_BLANK)  # fmt: skip
    return made.model_copy(update={"hash": step_hash(made)})


def read_log(path: Path) -> RunLog:
    """Read a log and require that its chain is whole."""
    log = read_document(path, RunLog, "run log")
    require_unaltered(path, log)
    return log


def append_step(
    path: Path,
    *,
    step: StepName,
    actor: Actor,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    tool: str = EXTRACTOR,
    time: str | None = None,
    start: bool = False,
) -> RunLog:
    """Append one step and return the log.

    Refuses a log whose chain is broken. Creates the file for ``declare``, and with ``start`` for any step: a study
    without a declaration has a log too, and the lowest tier.
    """
    steps: tuple[Step, ...] = ()
    if path.exists():
        steps = read_log(path).steps
    elif step != "declare" and not start:
        raise UsageError("There is no run log.", where=str(path), expected="the log that 'atlas prereg new' starts",
                         todo="keep run_log.json beside the pre-registration")  # fmt: skip
    added = next_step(steps, step=step, actor=actor, inputs=inputs, outputs=outputs, tool=tool, time=time)
    made = RunLog(kind="run_log", schema_version="1.0", steps=(*steps, added))
    write_atomically(path, document_text(made))
    return made
