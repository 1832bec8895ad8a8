"""`atlas extract`: declared here without torch, which is imported only once the command runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import AtlasError, UsageError
from atlas_schema.files import read_document

if TYPE_CHECKING:
    from atlas_extractors.cli.progress import Terminal
    from atlas_extractors.routing.extract import Request

USAGE = 2
INTERRUPTED = 130
NEEDED = ("torch", "transformers", "safetensors", "tokenizers", "scipy")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("extract", help="Run base, null arms and arms of a study, and write their routing evidence.")(extract)


def extract(
    prereg: Annotated[Path, typer.Option("--prereg", help="The pre-registration; its run log lies beside it.")],
    base: Annotated[Path, typer.Option("--base", help="Folder of the pre-registered base model.")],
    evidence: Annotated[Path, typer.Option("--evidence", help="Evidence file (DuckDB), new or to be resumed.")],
    arm: Annotated[list[str] | None, typer.Option("--arm", help="NAME=FOLDER of a planned arm; repeatable.")] = None,
    contract: Annotated[
        Path | None, typer.Option("--contract", help="Contract file, where it is not built in.")
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Executed dtype: float32, bfloat16 or float16.")] = "float32",
    attention: Annotated[str, typer.Option(help="Attention implementation: eager or sdpa.")] = "eager",
    experts: Annotated[str, typer.Option(help="Experts implementation: grouped_mm or eager.")] = "grouped_mm",
    batch_size: Annotated[int, typer.Option(help="Windows per forward pass; part of the fingerprint.")] = 16,
    threads: Annotated[int, typer.Option(help="CPU threads; part of the fingerprint.")] = 1,
    party: Annotated[str, typer.Option(help="Who extracts, for the run log; a verifier is another party.")] = "",
) -> None:
    """Write evidence, or the rest of it: a run that is interrupted continues where it stopped."""
    try:
        _require_libraries()
        from atlas_extractors.cli.progress import Terminal
        from atlas_extractors.models.loading import Execution
        from atlas_extractors.routing.extract import Request
        from atlas_extractors.routing.extract import extract as run_extraction

        execution = Execution(device, dtype, attention, experts, batch_size, threads)
        request = Request(prereg, base, parse_arms(arm or []), evidence, execution, contract, party.strip())
        with Terminal() as terminal:
            run_extraction(request, terminal)
            _say_end(terminal, request)
    except AtlasError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt as interruption:
        print(
            "Interrupted. Everything committed so far is kept; run the same command again to resume.", file=sys.stderr
        )
        raise typer.Exit(INTERRUPTED) from interruption


def parse_arms(given: list[str]) -> dict[str, Path]:
    """`NAME=FOLDER` arguments as a mapping.

    Raises:
        UsageError: another form, or a name twice.
    """
    arms: dict[str, Path] = {}
    for argument in given:
        name, separator, folder = argument.partition("=")
        if not (name and separator and folder):
            raise UsageError(
                "An arm is not given as NAME=FOLDER.", where="--arm", expected="for example --arm lora=models/lora",
                found=argument,
            )  # fmt: skip
        if name in arms:
            raise UsageError("An arm is given twice.", where="--arm", expected="each name once", found=name)
        arms[name] = Path(folder)
    return arms


def _require_libraries() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            "Extraction needs libraries that are not installed.", expected=", ".join(NEEDED),
            found="missing: " + ", ".join(missing), todo="pip install 'atlas-schema[extract]'",
        )  # fmt: skip


def _say_end(terminal: Terminal, request: Request) -> None:
    terminal.note(f"Evidence: {request.evidence}")
    plan = read_document(request.preregistration, Preregistration, "pre-registration")
    missing = sorted({arm.name for arm in plan.arms} - set(request.arms))
    if missing:
        terminal.note(f"Not given, and still to be extracted before a receipt can be issued: {', '.join(missing)}")
