"""The draft: a measurement with every number computed, every judgement blank, and its steps in the log."""

from __future__ import annotations

from pathlib import Path

from atlas_schema.canonical import digest_document
from atlas_schema.documents.measurement import Measurement, Question, Replication
from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.errors import UsageError
from atlas_schema.files import document_text, write_atomically
from atlas_schema.limits import LIMITS
from atlas_schema.protocol.judgement import subject_digest
from atlas_schema.protocol.log import PROCESS, append_step, next_step, now, party, read_log
from atlas_schema.protocol.sequence import REGISTERED, protocol_faults
from atlas_schema.transcription.compute import series
from atlas_schema.transcription.raw import Raw, RawRun

RAW = "raw output"


def draft(raw: Raw, source: str) -> Measurement:
    """Return the measurement that raw output supports: no claims, one run, directional only, nothing judged."""
    run = raw.run
    questions = [Question(field=q.field, asks=q.asks, answer=None) for q in run.questions if q.per == "run"]
    questions += [
        Question(field=f"{q.field}-{number}", asks=f"output {output.id}: {q.asks}"[:2000], answer=None)
        for q in run.questions
        if q.per == "output"
        for number, output in enumerate(raw.outputs)
    ]
    if len(questions) > LIMITS.raw_questions or any(len(q.field) > 64 for q in questions):
        raise UsageError(
            "The questions per output are too many, or their names too long, for one measurement.",
            found=f"{len(questions)} questions",
            expected=f"at most {LIMITS.raw_questions}, each with a name of at most 64 characters",
            todo="split the run",
        )
    return Measurement(
        kind="measurement",
        schema_version="1.0",
        id=run.id,
        title=run.title,
        source=f"transcribed from {source}, {raw.digest}",
        instrument=run.instrument,
        model=run.model,
        date=run.date,
        conditions=run.conditions,
        series=series(raw),
        replication=Replication(status="unreplicated", runs=1),
        licence="directional_only",
        claims=(),
        evidence=None,
        judgements=tuple(questions),
        notes="",
    )


def transcribe(raw: Raw, source: str, target: Path, log: Path) -> Measurement:
    """Write the draft, and add the run and the transcription to the log. Refuses a run that the log contradicts."""
    if target.exists():
        raise UsageError(
            "This file already exists; a measurement is never overwritten.",
            where=str(target),
            todo="name a new file with --output",
        )
    if not log.exists():
        raise UsageError(
            "There is no run log; what the model was given cannot be traced.",
            where=str(log),
            expected="a log in which the stimulus was registered before the run",
            todo="atlas log stimulus FILE --name NAME --version VERSION, before the model runs",
        )
    steps = read_log(log).steps
    logged = any(a.digest == raw.digest for s in steps if s.step == "extract" for a in s.outputs)
    if not logged:
        _require_in_order(raw.run, steps, log)
    made = draft(raw, source)
    write_atomically(target, document_text(made))
    if not logged:
        _append_run(raw, log)
    append_step(
        log,
        step="transcribe",
        actor="automation",
        inputs={RAW: raw.digest},
        outputs={"measurement": subject_digest(made)},
    )
    return made


def run_inputs(run: RawRun) -> dict[str, str]:
    """Return what the step of a run cites: stimulus version, model, process and party."""
    return {
        f"{REGISTERED}{run.stimulus.name}@{run.stimulus.version}": run.stimulus.digest,
        "model": digest_document(run.model.model_dump(mode="json")),
        PROCESS: run.process,
        **party(run.party),
    }


def _append_run(raw: Raw, log: Path) -> RunLog:
    return append_step(
        log,
        step="extract",
        actor="automation",
        inputs=run_inputs(raw.run),
        outputs={RAW: raw.digest},
        time=raw.run.ended,
    )


def _require_in_order(run: RawRun, steps: tuple[Step, ...], log: Path) -> None:
    """Refuse a run that began before what the log says came first, that ended in the future, or that breaks a rule."""
    first = next((s for s in steps if s.step in ("declare", "stimulus", "read0") and s.time > run.started), None)
    if first is not None:
        raise UsageError(
            f"The run began before the step '{first.step}' of the log.",
            where=f"{log}, step {first.index}",
            expected=f"a run that began at {first.time} or later",
            found=f"began at {run.started}",
            todo="what was written after a run cannot count as before it: run the model again, or start a new log",
        )
    if run.ended > now():
        raise UsageError(
            "The run ends in the future.",
            where="line 1 of the raw output",
            found=run.ended,
            expected=f"at most {now()}, UTC",
            todo="correct the clock of the runner",
        )
    step = next_step(
        steps, step="extract", actor="automation", inputs=run_inputs(run), outputs={RAW: "sha256:" + "0" * 64}
    )
    for fault in protocol_faults((*steps, step)):
        if fault.index == step.index:
            raise UsageError(
                fault.what,
                where=f"{log}, and line 1 of the raw output",
                found=fault.stated,
                expected=fault.expected,
                todo=fault.todo,
            )
