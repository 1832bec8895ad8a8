"""``atlas vocab``: browse and check the vocabulary."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema.errors import UsageError

if TYPE_CHECKING:
    from atlas_schema.vocabulary import Term, Vocabulary

app = typer.Typer(no_args_is_help=True, help="The terms that records speak in.")
WIDTH = 100


@app.command("list")
def vocab_list(
    layer: Annotated[str, typer.Option(help="Only this layer.")] = "",
    hypotheses: Annotated[bool, typer.Option("--hypotheses", help="Only what is untested: statements, not terms.")] = False,
) -> None:  # fmt: skip
    """List terms by layer, or every untested statement."""
    from atlas_schema.vocabulary import load_vocabulary

    vocabulary = load_vocabulary()
    if layer and layer not in vocabulary.layers:
        raise UsageError("There is no such layer.", found=layer, expected=", ".join(vocabulary.layers))
    chosen = [part for part in vocabulary.layers.values() if not layer or part.id == layer]
    for part in chosen:
        terms = [t for t in vocabulary.terms.values() if t.layer == part.id]
        lines = [line for t in terms for line in (_untested(t) if hypotheses else [_line(t)])]
        if hypotheses and part.collapse:
            lines.append(
                f"  the seven come down to three  {part.collapse.status.label}\n      test: {part.collapse.test}"
            )
        if lines:
            typer.echo(f"{part.id}: {part.title}\n" + "\n".join(lines) + "\n")
    if not hypotheses:
        count = sum(t.layer in {p.id for p in chosen} for t in vocabulary.terms.values())
        typer.echo(f"{count} terms; atlas vocab show ID tells one, * marks terms whose convention a record must name")


@app.command("show")
def vocab_show(term: Annotated[str, typer.Argument(help="An id, a name such as viscosity, or layer.name.")]) -> None:
    """Show one term, or all that a word may mean."""
    from atlas_schema.vocabulary import load_vocabulary

    vocabulary = load_vocabulary()
    found = vocabulary.find(term)
    if not found:
        vocabulary.cite(term, None)  # says what is unknown and what is close
    if len(found) > 1:
        conflict = next((c for c in vocabulary.conflicts if {t.id for t in found} <= set(c.terms)), None)
        typer.echo(f"'{term}' may mean {len(found)} terms." + (f" {conflict.text}" if conflict else "") + "\n")
    typer.echo("\n\n".join("\n".join(_card(t, vocabulary)) for t in found))


@app.command("check")
def vocab_check() -> None:
    """Check that references resolve, symbols are defined, no cycles exist, and readouts rest on the independent variables."""
    from atlas_schema.vocabulary import Status, load_vocabulary
    from atlas_schema.vocabulary.check import faults

    vocabulary = load_vocabulary()
    found = faults(vocabulary)
    for fault in found:
        typer.echo(f"{fault.where}: {fault.check}: {fault.what}\n  to do:    {fault.todo}", err=True)
    if found:
        raise typer.Exit(1)
    terms = vocabulary.terms.values()
    typer.echo(
        f"{len(terms)} terms in {len(vocabulary.layers)} layers, {len(vocabulary.references)} references, "
        f"{sum(len(t.conventions) for t in terms)} conventions, {len(vocabulary.conflicts)} recorded conflicts\n"
        f"references resolve, symbols are defined, dependencies have no cycle"
    )
    for layer in vocabulary.layers.values():
        if layer.collapse:
            names = [
                ", ".join(i.split(".")[1].split("/")[0] for i in ids)
                for ids in (layer.collapse.derived, layer.collapse.independent)
            ]
            typer.echo(f"{layer.id}: {names[0]} rest on {names[1]} ({layer.collapse.status.label})")
    statements = [s for t in terms for s in t.statements]
    typer.echo(
        f"{sum(t.status is Status.ESTABLISHED for t in terms)} terms are established, {len(statements)} statements are not tested"
    )


def _line(term: Term) -> str:
    poles = " / ".join(term.qualifiers)
    mark = "*" if term.conventions else " "
    return f"  {term.id:<40}{mark} {poles:<26} {term.status.label}"


def _untested(term: Term) -> list[str]:
    return [f"  {s.id}  {s.status.label}\n      {s.text}\n      test: {s.test}" for s in term.statements]


def _card(term: Term, vocabulary: Vocabulary) -> Iterator[str]:
    yield f"{term.id}  {term.title}" + (f"  ({' / '.join(term.qualifiers)})" if term.qualifiers else "")
    yield f"  status      {term.status.label}"
    yield from textwrap.wrap(term.description, WIDTH, initial_indent="  ", subsequent_indent="  ")
    if term.formula:
        yield f"  formula     {term.formula}"
        yield from (f"                {symbol}: {meaning}" for symbol, meaning in term.symbols.items())
    if term.role:
        yield f"  role        {'independent variable' if term.independent else 'derived readout'} (a working hypothesis)"
    for edge in term.depends:
        yield f"  depends on  {edge.term} ({edge.kind}" + (
            f", {edge.status.label})" if edge.term in term.derived_from else ")"
        )
    if term.conventions:
        yield "  conventions (a record names one of these)"
    for convention in term.conventions:
        yield f"    {convention.id} ({convention.kind}, unit: {convention.unit})"
        yield from textwrap.wrap(convention.statement, WIDTH, initial_indent="      ", subsequent_indent="      ")
    for statement in term.statements:
        yield f"  {statement.status.label}: {statement.text}"
        yield f"    test: {statement.test}   [{statement.id}]"
    yield from (f"  flag        {flag}" for flag in term.flags)
    for missing, words in ((term.unknown, "not known"), (term.inferred, "inferred")):
        if missing:
            yield f"  {words:<11} {', '.join(missing)}"
    for reference in (vocabulary.references[r] for r in term.references):
        extra = "" if reference.given else " (title not given by the source)"
        yield f"  reference   {reference.text}{extra}" + (f" [{reference.note}]" if reference.note else "")
    source = vocabulary.sources[term.source]
    yield f"  source      {source.title}; {source.note}"
