"""The technician's steps: what each needs of the log, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.read import Read
from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.errors import UsageError
from atlas_schema.files import document_text, read_bytes, write_atomically
from atlas_schema.protocol.filling import open_document, require_judgeable_log
from atlas_schema.protocol.judgement import subject_digest
from atlas_schema.protocol.log import PROCESS, append_step, next_step, now, party, read_log
from atlas_schema.protocol.process import process_digest
from atlas_schema.protocol.sequence import REGISTERED, protocol_faults


def file_digest(path: Path) -> str:
    """Return how a file is cited in a log: a JSON document by its canonical form, anything else by its bytes."""
    raw = read_bytes(path, "file")
    try:
        value = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return digest_bytes(raw)
    return digest_document(value) if isinstance(value, dict) and "kind" in value else digest_bytes(raw)


def require_before_run(log: Path, what: str) -> None:
    """Refuse what must come before the first run where the log holds one already."""
    steps = read_log(log).steps if log.exists() else ()
    runs = [s for s in steps if s.step == "extract"]
    if runs:
        raise UsageError(f"The first run is over; a {what} written now would be a reconstruction.", where=f"{log}, step {runs[0].index}",
                         expected=f"the {what} before the first run", found=f"a run at {runs[0].time}",
                         todo="go on without it; the fidelity tier says that it is missing")  # fmt: skip


def require_between(log: Path) -> None:
    """Refuse Read #1 before the first run or after something was issued."""
    steps = read_log(log).steps if log.exists() else ()
    if not any(s.step == "extract" for s in steps):
        raise UsageError(
            "There is no run yet; Read #1 is what you see after it.", where=str(log), todo="run the model first"
        )
    issued = [s for s in steps if s.step == "issue"]
    if issued:
        raise UsageError("The result was issued; a Read #1 written now would know it.", where=f"{log}, step {issued[0].index}",
                         found=f"issued at {issued[0].time}", todo="go on without it; the fidelity tier says that it is missing")  # fmt: skip


def register_stimulus(log: Path, file: Path, name: str, version: str) -> str:
    """Add the step that registers a version of a stimulus; return the name under which runs cite it."""
    for what, given in (("name", name), ("version", version)):
        if not given or not all(c.isalnum() or c in "._-" for c in given) or len(given) > 64:
            raise UsageError(f"A stimulus needs a {what} of letters, digits, '.', '_' and '-'.", found=given[:80] or "nothing",
                             todo=f"give another --{what}")  # fmt: skip
    label = f"{REGISTERED}{name}@{version}"
    outputs = {label: digest_bytes(read_bytes(file, "stimulus"))}
    _require_sound(log, "stimulus", outputs)
    append_step(log, step="stimulus", actor="technician", inputs={}, outputs=outputs, start=True)
    return label


def _require_sound(log: Path, step: Literal["stimulus"], outputs: dict[str, str]) -> None:
    before = read_log(log).steps if log.exists() else ()
    made = next_step(before, step=step, actor="technician", inputs={}, outputs=outputs)
    fault = next((f for f in protocol_faults((*before, made)) if f.index == made.index), None)
    if fault:
        raise UsageError(fault.what, where=str(log), found=fault.stated, expected=fault.expected, todo=fault.todo)


def write_read(log: Path, target: Path, moment: str, author: str, text: str, surprise: str) -> Read:
    """Write a Read and its step. The caller has asked a person for the words; this does not."""
    steps = read_log(log).steps if log.exists() else ()
    time = max(now(), steps[-1].time) if steps else now()
    made = Read(kind="read", schema_version="1.0", log_head=steps[-1].hash if steps else None, author=author, time=time, text=text,
                moment="before_first_run" if moment == "before_first_run" else "after_first_run", surprise=surprise)  # fmt: skip
    write_atomically(target, document_text(made))
    digest = digest_document(made.model_dump(mode="json"))
    append_step(log, step="read0" if made.moment == "before_first_run" else "read1", actor="technician", inputs={},
                outputs={target.name: digest}, time=time, start=True)  # fmt: skip
    return made


def verification(log: Path, document: Path, by: str, report: str) -> Step:
    """Return the step of a verification. Raises `UsageError` where the party or this process also extracted."""
    steps = read_log(log).steps
    inputs = {**party(by), PROCESS: process_digest(), "document": subject_digest(open_document(document))}
    outputs = {"report": digest_bytes(report.encode())}
    made = next_step(steps, step="verify", actor="automation", inputs=inputs, outputs=outputs)
    for fault in protocol_faults((*steps, made)):
        if fault.index == made.index:
            raise UsageError(fault.what, where=str(log), found=fault.stated, expected=fault.expected, todo=fault.todo)
    return made


def record_verification(log: Path, document: Path, by: str, report: str) -> RunLog:
    """Add the step of a verification that ended well."""
    made = verification(log, document, by, report)
    pairs = [{a.name: a.digest for a in group} for group in (made.inputs, made.outputs)]
    return append_step(log, step="verify", actor="automation", inputs=pairs[0], outputs=pairs[1], time=made.time)


def record_issue(log: Path, document: Path, by: str) -> RunLog:
    """Add the step that issues a document other than a receipt. Refuses a log without a run."""
    opened = open_document(document)
    if isinstance(opened, (Read, RunLog)):
        raise UsageError(
            "This kind of document is not issued.", where=str(document), found=opened.kind, expected="a measurement"
        )
    require_judgeable_log(log)
    return append_step(
        log, step="issue", actor="automation", inputs=party(by), outputs={"document": subject_digest(opened)}
    )
