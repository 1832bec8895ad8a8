"""``atlas``: the technician's commands. Extraction joins through the entry point group ``atlas_schema.commands``."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from atlas_schema.cli import conformance, log, sign, transcribe, vocab
from atlas_schema.cli.prediction import prediction
from atlas_schema.cli.prereg import prereg
from atlas_schema.cli.streams import OutputError, abandon, outlive_readers
from atlas_schema.errors import AtlasError, UsageError, printable

if TYPE_CHECKING:
    from atlas_schema.documents.receipt import Receipt
    from atlas_schema.documents.run_log import RunLog

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
                  help="Pre-register, extract, and issue receipts for routed models.")  # fmt: skip
evidence = typer.Typer(no_args_is_help=True, help="Move evidence between the working store and the form of exchange.")
app.add_typer(prereg, name="prereg")
app.add_typer(evidence, name="evidence")
app.add_typer(vocab.app, name="vocab")
app.add_typer(log.app, name="log")
app.command("judge")(log.judge)
app.command("transcribe")(transcribe.transcribe)
app.add_typer(prediction, name="prediction")
app.add_typer(conformance.app, name="conformance")
COMMANDS = "atlas_schema.commands"


@evidence.command("export")
def evidence_export(database: Path, bundle: Path) -> None:
    """Write the store's tables as a Parquet bundle."""
    from atlas_schema.evidence.bundle import export_bundle
    from atlas_schema.evidence.digest import evidence_root
    from atlas_schema.evidence.source import table_roots
    from atlas_schema.evidence.store import EvidenceStore

    with EvidenceStore.open_existing(database) as store:
        export_bundle(store, bundle)
        typer.echo(f"{bundle}: evidence root {evidence_root(table_roots(store))}")


@evidence.command("import")
def evidence_import(
    bundle: Path, database: Path,
    preregistration: Annotated[Path | None, typer.Option("--prereg", help="Default: preregistration.json beside the bundle.")] = None,
) -> None:  # fmt: skip
    """Load a Parquet bundle into a new store."""
    from atlas_schema.documents.preregistration import Preregistration
    from atlas_schema.evidence.bundle import import_bundle
    from atlas_schema.files import read_document
    from atlas_schema.study.preregister import digest_of

    path = preregistration or bundle.resolve().parent / "preregistration.json"
    plan = read_document(path, Preregistration, "pre-registration")
    import_bundle(bundle, database, digest_of(plan))
    typer.echo(f"{database}: imported from {bundle}")


@app.command()
def issue(
    prereg: Annotated[Path, typer.Option(help="The pre-registration; its run log lies beside it.")],
    evidence: Annotated[Path, typer.Option(help="A Parquet bundle, or the store evidence.duckdb.")],
    arm: Annotated[str, typer.Option(help="The arm that the receipt is about.")],
    output: Annotated[Path, typer.Option("--output", "-o")],
    contract: Annotated[Path | None, typer.Option(help="File of the contract, where it is not a built-in one.")] = None,
) -> None:
    """Compute every finding, verify what would be written, and write the receipt of one arm."""
    from atlas_schema.cli.accepted import accepted
    from atlas_schema.documents.contract import Contract
    from atlas_schema.documents.preregistration import Preregistration
    from atlas_schema.documents.run_log import RunLog
    from atlas_schema.evidence.bundle import ParquetBundle
    from atlas_schema.evidence.store import EvidenceStore
    from atlas_schema.files import document_text, read_bytes, read_document
    from atlas_schema.protocol.log import LOG_NAME
    from atlas_schema.study.contracts import contract_digest, load_contract
    from atlas_schema.study.issue import issue as issue_receipt
    from atlas_schema.study.preregister import digest_of
    from atlas_schema.verify.verifier import Submission

    plan = read_document(prereg, Preregistration, "pre-registration")
    rules = read_document(contract, Contract, "contract") if contract else load_contract(plan.contract.id)
    if contract_digest(rules) != plan.contract.digest:
        raise UsageError("The pre-registration cites another contract.", expected=plan.contract.digest,
                         found=contract_digest(rules), todo="give the cited contract with --contract")  # fmt: skip
    log_path = prereg.parent / LOG_NAME
    log = read_document(log_path, RunLog, "run log")
    source = ParquetBundle(evidence) if evidence.is_dir() else EvidenceStore.open_existing(evidence)
    if isinstance(source, EvidenceStore) and source.preregistration_digest != digest_of(plan):
        raise UsageError("This evidence file holds another study.", where=str(evidence),
                         expected=f"pre-registration {digest_of(plan)}",
                         found=f"pre-registration {source.preregistration_digest}",
                         todo="name the file that 'atlas extract' wrote for this pre-registration")  # fmt: skip

    def accept(made: Receipt, after: RunLog) -> None:
        raw, steps = (document_text(document).encode() for document in (made, after))
        planned = read_bytes(prereg, "pre-registration")
        judged = read_bytes(contract, "contract") if contract else None
        given = Submission(f"{output} (not written)", raw, planned, steps, judged, open_evidence=lambda: source)
        if not accepted(given):
            raise UsageError("Nothing was issued: atlas-verify would not accept this receipt.", where=str(output),
                             todo="mend what the report above names, then issue")  # fmt: skip

    receipt = issue_receipt(source, plan, rules, log_path, log, arm, output, accept)
    typer.echo(f"{output}: arm '{arm}' is {receipt.claim.verdict}")


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="contract, preregistration, receipt, run_log, or all")]) -> None:
    """Print the JSON Schema of a document kind."""
    import json

    from atlas_schema.documents.schema import schema_of, shipped_schema

    typer.echo(json.dumps(shipped_schema() if kind == "all" else schema_of(kind), indent=2, sort_keys=True))


@app.command()
def explain(rule: Annotated[str, typer.Argument(help="A rule id such as ATL-R013.")]) -> None:
    """Say what a rule demands and why."""
    from atlas_schema.verify.rules import RULES

    if rule.upper() not in RULES:
        raise UsageError("There is no such rule.", found=rule, expected=f"one of {min(RULES)} to {max(RULES)}",
                         todo="docs/rules.md lists them all")  # fmt: skip
    found = RULES[rule.upper()]
    typer.echo(f"{found.id} ({found.channel.value})\n{found.statement}\nWhy: {found.rationale}\nSource: {found.source}")


sign.register(app)


@cache
def _add_extensions() -> None:
    """Let installed packages add commands, once. Registering must not import what only running needs, such as torch."""
    for point in entry_points(group=COMMANDS):
        point.load()(app)


def main() -> None:
    """Entry point."""
    outlive_readers()
    try:
        _add_extensions()
        app()
    except AtlasError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "/" + "/".join(str(part) for part in first["loc"])
        typer.echo(f"What you gave does not fit the {error.title} document.\n  where:    {printable(pointer)}\n"
                   f"  expected: {printable(first['msg'])}\n  found:    {printable(str(first['input'])[:200])}", err=True)  # fmt: skip
        sys.exit(2)
    except OutputError as error:
        abandon(sys.stdout)
        typer.echo(f"The output could not be written: {error.strerror}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
