"""``atlas prediction``: list, show and settle predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atlas_schema.claims.settle import Settlement
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Prediction, Settled
from atlas_schema.errors import UsageError, printable

prediction = typer.Typer(no_args_is_help=True, help="Falsifiable statements, and what measurements say of them.")
Named = Annotated[str, typer.Argument(help="Id of a shipped prediction, or a file.")]


@prediction.command("list")
def list_predictions() -> None:
    """List the shipped predictions with their status."""
    from atlas_schema.claims.library import built_in_predictions

    found = built_in_predictions()
    width = max(len(name) for name in found)
    for name, made in found.items():
        typer.echo(f"{made.outcome.status:<14}{name:<{width}}  {made.title}")


@prediction.command()
def show(name: Named) -> None:
    """Say what a prediction states, what it needs, and when it would be wrong."""
    from atlas_schema.claims.operators import wording

    made = _load(name)
    lines = [
        f"{made.id}: {made.title}",
        made.statement,
        f"Source: {made.source}",
        f"Status: {made.outcome.status}",
        "",
        "Needs",
    ]
    for r in made.requires:
        conditions = "".join(f"; {c.name}: {c.value}" for c in r.conditions)
        lines.append(f"  {r.role}: instrument {r.instrument}, model {r.model or 'any'}{conditions}; licence {r.licence}, "
                     f"{r.min_sample} observations or more, {r.min_runs} runs or more")  # fmt: skip
    lines += [f"  the same {name} for all" for name in made.same_conditions]
    lines += ["  different models"] if made.different_models else []
    for heading, clauses in (
        ("Presupposes", made.rule.given),
        (f"Supported if {made.rule.combine} of", made.rule.clauses),
    ):
        lines += [heading] if clauses else []
        for clause in clauses:
            lines += [f"  {clause.id}: {clause.says}", f"    {wording(clause.statement)}"]
    lines += ["", made.rule.rationale, *([made.notes] if made.notes else [])]
    if isinstance(made.outcome, Settled):
        lines += ["", "Settled by", *(f"  {m.role}: {m.id} {m.digest}" for m in made.outcome.measurements)]
    _say(lines)


@prediction.command()
def settle(
    name: Named,
    measurements: Annotated[
        list[str], typer.Option("--with", help="A measurement's file, or ROLE=FILE where several fit; repeatable.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the settled prediction here.")] = None,
) -> None:
    """Say what measurements make of a prediction: supported, contradicted or undetermined, and why."""
    from atlas_schema.claims.settle import settle as settle_by
    from atlas_schema.files import document_text, write_atomically
    from atlas_schema.vocabulary import load_vocabulary

    made = _load(name)
    if output is not None and output.exists():
        raise UsageError("The output file exists.", where=str(output), todo="name a new file")
    loose, fixed = _measurements(measurements, {r.role for r in made.requires})
    found = settle_by(made, loose, load_vocabulary(), fixed)
    _say(_told(made, found))
    if output is not None:
        write_atomically(output, document_text(made.model_copy(update={"outcome": found.document()})))
        typer.echo(f"{output}: written; atlas-verify derives the outcome again from the same measurements")


def _say(lines: list[str]) -> None:
    """Print lines whose texts come from a document."""
    typer.echo("\n".join(map(printable, lines)))


def _told(made: Prediction, found: Settlement) -> list[str]:
    lines = [f"{found.outcome.value.upper()}  {made.id}: {made.statement}"]
    for heading, part, clauses in (("presupposed", found.given, made.rule.given),
                                   (f"rule: {made.rule.combine} of", found.clauses, made.rule.clauses)):  # fmt: skip
        lines += [heading] if part else []
        for (_, result), clause in zip(part, clauses, strict=True):
            lines += [f"  {result.outcome.value:<14}{clause.id}: {clause.says}", f"  {'':<14}  {result.because}"]
    cited = found.document().measurements
    return [*lines, "by", *(f"  {m.role}: {m.id} {m.digest}" for m in cited),
            "Not established: that rows give the measurements' values. atlas-verify MEASUREMENT checks those that cite rows."]  # fmt: skip


def _load(name: str) -> Prediction:
    from atlas_schema.claims.library import built_in_predictions
    from atlas_schema.files import read_document

    known = built_in_predictions()
    if name in known:
        return known[name]
    if not Path(name).exists():
        raise UsageError("There is no such prediction.", found=name, expected="an id, or a file",
                         todo="atlas prediction list shows the ids")  # fmt: skip
    return read_document(Path(name), Prediction, "prediction")


def _measurements(given: list[str], roles: set[str]) -> tuple[list[Measurement], dict[str, Measurement]]:
    from atlas_schema.files import read_document

    loose, fixed = [], {}
    for entry in given:
        role, separator, path = entry.partition("=")
        named = bool(separator) and role in roles
        made = read_document(Path(path if named else entry), Measurement, "measurement")
        if named and role in fixed:
            raise UsageError("One role is given twice.", found=entry, expected="one measurement for each role")
        if named:
            fixed[role] = made
        else:
            loose.append(made)
    return loose, fixed
