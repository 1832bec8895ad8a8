"""``atlas conformance``: hold any verifier to the corpus through its command line."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_schema.errors import UsageError, printable

if TYPE_CHECKING:
    from atlas_schema.conformance.run import Result

app = typer.Typer(no_args_is_help=True, help="Hold any verifier to the conformance corpus.")
CORPUS = Path("contracts/vectors")
Corpus = Annotated[Path, typer.Option(help="Folder of the corpus.")]
ABILITIES = ("signatures", "sigstore", "duckdb", "links")


@app.command("run")
def conformance_run(
    verifier: Annotated[str, typer.Option(help="Command that starts the verifier, such as atlas-verify.")],
    corpus: Corpus = CORPUS,
    case: Annotated[str, typer.Option(help="Only cases whose names match, such as 'signed_*'.")] = "*",
    exit_code_only: Annotated[
        bool, typer.Option("--exit-code-only", help="Compare exit codes alone: the verifier prints no such report.")
    ] = False,
    without: Annotated[
        list[str] | None, typer.Option(help=f"Leave out cases that need this, repeatable: {', '.join(ABILITIES)}.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cases at a time; default: one per processor.")] = os.cpu_count()
    or 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one case may take.")] = 120.0,
    report: Annotated[str, typer.Option(help="text or json.")] = "text",
) -> None:
    """Run a verifier on every case. Exits 0 where every answer is as expected, 1 where one is not, 2 where nothing can be said."""
    from atlas_schema.conformance.corpus import read_corpus
    from atlas_schema.conformance.drive import command_of
    from atlas_schema.conformance.run import drive

    for value in without or ():
        if value not in ABILITIES:
            raise UsageError("--without has an unknown value.", found=value, expected=", ".join(ABILITIES))
    if report not in ("text", "json"):
        raise UsageError("--report has an unknown value.", found=report, expected="text, json")
    cases, left_out = read_corpus(
        corpus, case, frozenset(without or ())
    )  # first: who lacks the corpus learns where it is
    command = command_of(verifier)
    text = report == "text"
    results = drive(cases, command, code_only=exit_code_only, seconds=timeout, jobs=jobs,
                    told=lambda result: _tell(result, corpus) if text else None)  # fmt: skip
    wrong = [result for result in results if not result.passed]
    typer.echo(
        _summary(results, wrong, left_out, exit_code_only)
        if text
        else _as_json(verifier, results, left_out, exit_code_only)
    )
    raise typer.Exit(1 if wrong else 0)


@app.command("lay")
def conformance_lay(case: str, folder: Path, corpus: Corpus = CORPUS) -> None:
    """Lay one case into a new folder, and print how a verifier is called there."""
    from atlas_schema.conformance.corpus import lay_out, read_corpus

    found, _ = read_corpus(corpus, case)
    if len(found) != 1:
        raise UsageError("This names more than one case.", found=case, expected="the name of one")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("The folder is not empty.", where=str(folder), todo="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    lay_out(found[0], folder)
    wanted = found[0].expected
    typer.echo(f"cd {shlex.quote(str(folder))}; VERIFIER {shlex.join(wanted.arguments)}")
    typer.echo(
        f"expected: exit code {wanted.exit_code}; rules {' '.join(wanted.rules) or 'none'}; verdict {wanted.verdict or 'none'}"
    )


def _tell(result: Result, corpus: Path) -> None:
    """One line for a case that failed, and what to do under it."""
    if result.passed:
        return
    wrong = "; ".join(f"{d.what}: expected {d.expected}, found {d.found}" for d in result.differences)
    typer.echo(printable(f"FAIL {result.name}: {wrong}"))
    if result.said:
        typer.echo(printable(f"     it said: {result.said}"))
    typer.echo(
        printable(
            f"     to do: read {corpus / result.name / 'README.md'}; by hand: atlas conformance lay {result.name} FOLDER"
        )
    )


def _summary(results: list[Result], wrong: list[Result], left_out: list[str], code_only: bool) -> str:
    out = f"; {len(left_out)} left out" if left_out else ""
    held = "exit codes" if code_only else "exit codes, verdicts, channels and rules"
    many = f"{len(results)} case{'' if len(results) == 1 else 's'}"
    return f"{many}: {f'{len(wrong)} not' if wrong else 'all'} as expected ({held} compared{out})"


def _as_json(verifier: str, results: list[Result], left_out: list[str], code_only: bool) -> str:
    made: dict[str, Any] = {
        "kind": "conformance_report", "schema_version": "1.0", "verifier": verifier, "compared": "exit_code" if code_only else "report",
        "cases": len(results), "failed": sum(not r.passed for r in results), "left_out": left_out,
        "results": [{"case": r.name, "passed": r.passed, "said": r.said or None,
                     "differences": [{"what": d.what, "expected": d.expected, "found": d.found} for d in r.differences]}
                    for r in results],
    }  # fmt: skip
    return json.dumps(made, indent=2, ensure_ascii=True)
