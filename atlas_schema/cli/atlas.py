"""``atlas``: the technician's commands. Extraction joins through the entry point group ``atlas_schema.commands``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from atlas_schema.errors import AtlasError, UsageError, printable

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
                  help="Pre-register, extract, and issue receipts for routed models.")  # fmt: skip
prereg = typer.Typer(no_args_is_help=True, help="Fix in advance what will be measured.")
evidence = typer.Typer(no_args_is_help=True, help="Move evidence between the working store and the form of exchange.")
app.add_typer(prereg, name="prereg")
app.add_typer(evidence, name="evidence")
COMMANDS = "atlas_schema.commands"


@prereg.command("new")
def prereg_new(
    study: Annotated[str, typer.Option(help="Name of the study.")],
    base: Annotated[Path, typer.Option(help="Folder of the base model: config.json, tokenizer.json, safetensors.")],
    windows: Annotated[
        Path, typer.Option(help="Probe windows, JSON Lines: window_id, cluster_id, domain, source, licence, text.")
    ],
    task: Annotated[Path, typer.Option(help="Task items, JSON Lines: item_id, prompt, answer.")],
    arm: Annotated[
        list[str],
        typer.Option(help="NAME=POLICY, repeatable; ':preserving' after it declares the policy chart-preserving."),
    ],
    layers: Annotated[str, typer.Option(help="Protected layers, such as 0,1,2.")],
    target: Annotated[float, typer.Option(help="Mean task score that an arm must reach.")],
    contract: Annotated[str, typer.Option(help="Id of the contract.")] = "chart-preserving.v1",
    positions: Annotated[int, typer.Option(help="Sampled positions per window.")] = 8,
    first_position: Annotated[
        int, typer.Option(help="First position that may be sampled; 1 leaves out the attention sink.")
    ] = 1,
    tolerance: Annotated[float, typer.Option(help="Tolerance on the task score.")] = 0.05,
    damage_tolerance: Annotated[float, typer.Option(help="Tolerance on base-domain damage, nats per token.")] = 0.05,
    base_name: Annotated[str, typer.Option(help="What to call the base model; default: its folder's name.")] = "",
    pilot: Annotated[
        Path | None, typer.Option(help="Windows that thresholds were calibrated on; must share no document.")
    ] = None,
    pilot_description: Annotated[str, typer.Option(help="What the pilot was.")] = "calibration windows",
    notes: Annotated[str, typer.Option(help="A line for readers.")] = "none",
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("preregistration.json"),
) -> None:
    """Write a pre-registration and start the run log beside it."""
    from atlas_schema.documents.preregistration import Pilot, PlannedArm
    from atlas_schema.study.contracts import load_contract
    from atlas_schema.study.preregister import Plan, digest_of, write_preregistration
    from atlas_schema.study.probe import load_windows

    arms = []
    for entry in arm:
        name, separator, policy = entry.partition("=")
        if not separator or not policy:
            raise UsageError(
                "--arm needs a name and a policy.", found=entry, expected="NAME=POLICY or NAME=POLICY:preserving"
            )
        keeping = policy.endswith(":preserving")
        if ":" in policy.removesuffix(":preserving"):
            raise UsageError("--arm has an unknown suffix.", found=entry, expected="no colon but in ':preserving'")
        arms.append(PlannedArm(name=name, policy=policy.removesuffix(":preserving"), chart_preserving=keeping))
    clusters = sorted({w.cluster_id for w in load_windows(pilot)}) if pilot else []
    made = write_preregistration(
        Plan(
            study=study, base=base, base_name=base_name or base.resolve().name, windows=windows, task=task,
            contract=load_contract(contract), protected_layers=_layers(layers), positions_per_window=positions,
            first_allowed_position=first_position, target=target, tolerance=tolerance,
            damage_tolerance_nats=damage_tolerance, arms=tuple(arms),
            pilot=Pilot(description=pilot_description, clusters=tuple(clusters)) if pilot else None, notes=notes,
        ),
        output,
    )  # fmt: skip
    typer.echo(f"{output}: {len(made.windows)} windows, {len(made.task.items)} items, {len(made.arms)} arms")
    typer.echo(f"digest {digest_of(made)}\nPublish this digest now; a reviewer can pin it.")


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError("--layers is not a list of layer numbers.", found=text, expected="such as 0,1,2") from error


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
    """Compute every finding and write the receipt of one arm."""
    from atlas_schema.documents.contract import Contract
    from atlas_schema.documents.preregistration import Preregistration
    from atlas_schema.documents.run_log import RunLog
    from atlas_schema.evidence.bundle import ParquetBundle
    from atlas_schema.evidence.store import EvidenceStore
    from atlas_schema.files import read_document
    from atlas_schema.protocol.log import LOG_NAME
    from atlas_schema.study.contracts import contract_digest, load_contract
    from atlas_schema.study.issue import issue as issue_receipt
    from atlas_schema.study.preregister import digest_of

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
    receipt = issue_receipt(source, plan, rules, log_path, log, arm, output)
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


def _add_extensions() -> None:
    """Let installed packages add commands. Registering must not import what only running needs, such as torch."""
    for point in entry_points(group=COMMANDS):
        point.load()(app)


def main() -> None:
    """Entry point."""
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
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
