"""``atlas prereg new`` and ``plan``: fix in advance what will be measured, and how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema.cli.plan import plan
from atlas_schema.errors import UsageError

if TYPE_CHECKING:
    from atlas_schema.documents.preregistration import PlannedArm, Preregistration

prereg = typer.Typer(no_args_is_help=True, help="Fix in advance what will be measured.")
prereg.command("plan")(plan)

BaseFolder = Annotated[Path, typer.Option(help="Folder of the base model: config.json, tokenizer.json, safetensors.")]
WindowFile = Annotated[
    Path, typer.Option(help="Probe windows, JSON Lines: window_id, cluster_id, domain, source, licence, text.")
]
Arms = Annotated[
    list[str],
    typer.Option(help="NAME=POLICY, repeatable; ':preserving' after it declares the policy chart-preserving."),
]
FirstPosition = Annotated[
    int, typer.Option(help="First position that may be sampled; 1 leaves out the attention sink.")
]
OverlapPairs = Annotated[
    int, typer.Option(help="Ordered expert pairs per layer whose overlap map is measured, most co-active first.")
]
DamageTolerance = Annotated[float, typer.Option(help="Tolerance on base-domain damage, nats per token.")]
PilotPath = Annotated[
    Path | None,
    typer.Option(help="What thresholds or sizes were chosen from: windows, or a study folder; must share no document."),
]
PilotWords = Annotated[str, typer.Option(help="What the pilot was; default: its study, or calibration windows.")]


@prereg.command("new")
def new(
    study: Annotated[str, typer.Option(help="Name of the study.")],
    base: BaseFolder,
    windows: WindowFile,
    task: Annotated[Path, typer.Option(help="Task items, JSON Lines: item_id, prompt, answer.")],
    arm: Arms,
    layers: Annotated[str, typer.Option(help="Protected layers, such as 0,1,2.")],
    target: Annotated[float, typer.Option(help="Mean task score that an arm must reach.")],
    contract: Annotated[str, typer.Option(help="Id of the contract.")] = "chart-preserving.v1",
    positions: Annotated[int, typer.Option(help="Sampled positions per window.")] = 8,
    first_position: FirstPosition = 1,
    overlap_pairs: OverlapPairs = 16,
    tolerance: Annotated[float, typer.Option(help="Tolerance on the task score.")] = 0.05,
    damage_tolerance: DamageTolerance = 0.05,
    base_name: Annotated[str, typer.Option(help="What to call the base model; default: its folder's name.")] = "",
    pilot: PilotPath = None,
    pilot_description: PilotWords = "",
    notes: Annotated[str, typer.Option(help="A line for readers.")] = "none",
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("preregistration.json"),
) -> None:
    """Write a pre-registration and start the run log beside it."""
    from atlas_schema.study.contracts import load_contract
    from atlas_schema.study.pilot import pilot_of, undecidable
    from atlas_schema.study.preregister import Plan, digest_of, write_preregistration

    rules = load_contract(contract)
    made = write_preregistration(
        Plan(
            study=study, base=base, base_name=base_name or base.resolve().name, windows=windows, task=task,
            contract=rules, protected_layers=_layers(layers), positions_per_window=positions,
            first_allowed_position=first_position, overlap_pairs=overlap_pairs, target=target, tolerance=tolerance,
            damage_tolerance_nats=damage_tolerance, arms=_planned(arm),
            pilot=pilot_of(pilot, pilot_description) if pilot else None, notes=notes,
        ),
        output, lambda made: _require_accepted(made, output),
    )  # fmt: skip
    typer.echo(f"{output}: {len(made.windows)} windows, {len(made.task.items)} items, {len(made.arms)} arms")
    for never in undecidable(made, rules):
        typer.echo(f"warning: {never}", err=True)
    typer.echo(f"digest {digest_of(made)}\nPublish this digest now; a reviewer can pin it.")


def _require_accepted(made: Preregistration, output: Path) -> None:
    """Refuse a plan that no receipt could be accepted under: it would be found out when everything is extracted."""
    from atlas_schema.cli.accepted import accepted
    from atlas_schema.files import document_text
    from atlas_schema.verify.verifier import Submission

    if not accepted(Submission(f"{output} (not written)", document_text(made).encode()), "offline"):
        raise UsageError("Nothing was pre-registered: atlas-verify would not accept this plan.", where=str(output),
                         todo="mend what the report above names, then pre-register")  # fmt: skip


def _planned(entries: list[str]) -> tuple[PlannedArm, ...]:
    """Return the arms that ``NAME=POLICY`` entries name."""
    from atlas_schema.documents.preregistration import PlannedArm

    arms = []
    for entry in entries:
        name, separator, policy = entry.partition("=")
        if not separator or not policy:
            raise UsageError(
                "--arm needs a name and a policy.", found=entry, expected="NAME=POLICY or NAME=POLICY:preserving"
            )
        keeping = policy.endswith(":preserving")
        if ":" in policy.removesuffix(":preserving"):
            raise UsageError("--arm has an unknown suffix.", found=entry, expected="no colon but in ':preserving'")
        arms.append(PlannedArm(name=name, policy=policy.removesuffix(":preserving"), chart_preserving=keeping))
    return tuple(arms)


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError("--layers is not a list of layer numbers.", found=text, expected="such as 0,1,2") from error
