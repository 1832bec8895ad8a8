"""``atlas log`` and ``atlas judge``: the protocol's steps, and the questions that only a person answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atlas_schema.errors import UsageError
from atlas_schema.protocol.log import LOG_NAME

app = typer.Typer(no_args_is_help=True, help="The run log: what was done, in order, and by whom.")
Log = Annotated[Path, typer.Option("--log", help="The run log.")]
Party = Annotated[str, typer.Option("--party", help="Who does this: a person, a group, a laboratory.")]
BESIDE = Path(LOG_NAME)


@app.command("show")
def log_show(log: Annotated[Path, typer.Argument(help="The run log.")] = BESIDE) -> None:
    """Show every step and the fidelity tier that follows from them."""
    from atlas_schema.documents.run_log import RunLog
    from atlas_schema.errors import printable
    from atlas_schema.files import read_document
    from atlas_schema.protocol.fidelity import fidelity
    from atlas_schema.protocol.sequence import parties

    found = read_document(log, RunLog, "run log")
    for step in found.steps:
        made = ", ".join(a.name for a in step.outputs) or "nothing"
        made += "".join(f", by {name}" for name in parties(step))
        typer.echo(printable(f"{step.index:>4}  {step.time}  {step.step:<11} {step.actor:<11} {made}"))
    typer.echo(f"head {found.steps[-1].hash}\nfidelity {fidelity(found).words}")


@app.command("check")
def log_check(
    log: Annotated[Path, typer.Argument(help="The run log.")] = BESIDE,
    head: Annotated[str, typer.Option(help="A step's hash that you knew before: the log must still hold it.")] = "",
) -> None:
    """Check chain, order, actors, isolation and stimuli of a log. Exit code 1 where something does not hold."""
    from atlas_schema.documents.run_log import RunLog
    from atlas_schema.errors import AtlasError, printable
    from atlas_schema.files import read_document
    from atlas_schema.protocol.fidelity import fidelity
    from atlas_schema.protocol.log import chain_faults
    from atlas_schema.protocol.sequence import protocol_faults

    found = read_document(log, RunLog, "run log")
    restore = "restore the log from where it was backed up"
    told = [(f"{log}, step {index}: ATL-C004 {what}", "", "", restore) for index, what in chain_faults(found)]
    for fault in protocol_faults(found.steps):
        told.append((f"{log}, step {fault.index}: {fault.rule} {fault.what}", fault.stated, fault.expected, fault.todo))
    if head and head not in [step.hash for step in found.steps]:
        lacking = "the log was cut or rewritten since; ask for the whole one"
        told.append((f"{log}: no step has the hash {head}", "", "", lacking))
    for what, stated, expected, todo in told:
        # The names of steps are free text: each part is escaped by itself, so that none begins a line.
        typer.echo(str(AtlasError(what, found=stated, expected=expected, todo=todo)), err=True)
    if told:
        raise typer.Exit(1)
    typer.echo(printable(f"{log}: {len(found.steps)} steps, chained and in order; {fidelity(found).words}"))


@app.command("declare")
def log_declare(
    file: Annotated[Path, typer.Argument(help="What is declared: a prediction, a plan, any file.")],
    party: Party,
    log: Log = BESIDE,
) -> None:
    """Start a log with a declaration, before any model runs. Studies start theirs with 'atlas prereg new'."""
    from atlas_schema.protocol.log import append_step
    from atlas_schema.protocol.log import party as named
    from atlas_schema.protocol.steps import file_digest, require_before_run

    require_before_run(log, "declaration")
    append_step(log, step="declare", actor="technician", inputs=named(party), outputs={file.name: file_digest(file)})
    typer.echo(f"{log}: declared {file}")


@app.command("stimulus")
def log_stimulus(
    file: Annotated[Path, typer.Argument(help="The stimulus, as it is given to models.")],
    name: Annotated[str, typer.Option(help="Name of the stimulus.")],
    version: Annotated[str, typer.Option(help="Its version; other content is another version.")],
    log: Log = BESIDE,
) -> None:
    """Register a version of a stimulus. A run whose stimulus is not registered before it is untraceable."""
    from atlas_schema.protocol.steps import register_stimulus

    registered = register_stimulus(log, file, name, version)
    typer.echo(f"{log}: registered {registered}")


@app.command("read0")
def log_read0(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the Read.")] = Path("read0.json"),
    log: Log = BESIDE,
) -> None:
    """Ask for Read #0, the expectation, before the first run."""
    from atlas_schema.protocol.steps import require_before_run

    require_before_run(log, "Read #0")
    _read("before_first_run", output, log, "What do you expect", "What would surprise you")


@app.command("read1")
def log_read1(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the Read.")] = Path("read1.json"),
    log: Log = BESIDE,
) -> None:
    """Ask for Read #1, what is seen after the first run, before anything is issued."""
    from atlas_schema.protocol.steps import require_between

    require_between(log)
    _read("after_first_run", output, log, "What do you see", "What surprised you")


def _read(moment: str, output: Path, log: Path, question: str, surprise: str) -> None:
    from atlas_schema.cli.person import ask, confirm, require_person
    from atlas_schema.protocol.steps import write_read

    require_person("atlas log read0" if moment == "before_first_run" else "atlas log read1")
    if output.exists():
        raise UsageError(
            "This file already exists; a Read is never overwritten.",
            where=str(output),
            todo="name another with --output",
        )
    typer.echo("No model may write this. Ctrl-C leaves without writing anything.")
    author, text, other = ask("Your name"), ask(question), ask(surprise)
    confirm("Write this and add it to the log")
    made = write_read(log, output, moment, author, text, other)
    typer.echo(f"{output}: written by {made.author} at {made.time}")


@app.command("issue")
def log_issue(
    document: Annotated[Path, typer.Argument(help="The measurement that is issued.")], party: Party, log: Log = BESIDE
) -> None:
    """Record that a measurement is issued. Receipts are issued with 'atlas issue'; Read #1 comes before."""
    from atlas_schema.protocol.steps import record_issue

    record_issue(log, document, party)
    typer.echo(f"{log}: issued {document}")


@app.command("verify")
def log_verify(
    document: Annotated[Path, typer.Argument(help="The document to verify: a receipt or a measurement.")],
    party: Party,
    log: Log = BESIDE,
) -> None:
    """Verify a document as another party, and record that it was done. Nothing is recorded where it does not verify."""
    from atlas_schema.protocol.filling import decides, open_document
    from atlas_schema.protocol.steps import record_verification, verification
    from atlas_schema.reports import json as report_json
    from atlas_schema.reports import text
    from atlas_schema.verify.loading import load
    from atlas_schema.verify.outcome import Code, exit_code
    from atlas_schema.verify.verifier import Options, verify

    verification(log, document, party, "")  # refused before the work is done, not after
    options = Options(profile="review" if decides(open_document(document)) else "offline")
    result = verify(load(document, run_log=log), options)
    typer.echo(text.render(result), nl=False)
    code = exit_code(result)
    if code not in (Code.VERIFIED, Code.NOT_PRESERVED):
        raise typer.Exit(int(code))
    record_verification(log, document, party, report_json.render(result))
    typer.echo(f"{log}: verified by {party}")


def judge(
    file: Annotated[Path, typer.Argument(help="The document with the field: a receipt, a measurement.")],
    field: Annotated[
        str, typer.Argument(help="The field, such as /judgement/reading; without it, all are listed.")
    ] = "",
    log: Annotated[
        Path | None, typer.Option("--log", help="The run log; default: run_log.json beside the file.")
    ] = None,
) -> None:
    """Ask a person to fill one judgement field, and record who, when and on what basis."""
    from atlas_schema.cli.person import ask, confirm, require_person
    from atlas_schema.errors import printable
    from atlas_schema.protocol.filling import choose, fill, open_document, require_blank, require_judgeable_log

    document = open_document(file)
    if not field:
        for line in choose(document):
            typer.echo(printable(line))
        return
    place = log or file.parent / LOG_NAME
    asks = require_blank(document, field)
    require_judgeable_log(place)
    require_person("atlas judge")
    typer.echo(printable(f"{file}, {field}" + (f": {asks}" if asks else "")))
    typer.echo(printable("The answer stands under your name. Ctrl-C leaves without writing anything."))
    value, basis, author = ask("Your judgement"), ask("On what basis"), ask("Your name")
    confirm(f"Sign this as {author}")
    made = fill(file, document, field, place, value, basis, author)
    typer.echo(f"{file}: {field} judged by {made.author} at {made.time}; recorded in {place}")
