"""``atlas transcribe``: raw output of a model in, a measurement draft out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atlas_schema.protocol.log import LOG_NAME


def transcribe(
    raw: Annotated[Path, typer.Argument(help="Raw output, JSON Lines of form atlas-raw/1.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the draft.")] = Path(
        "measurement.json"
    ),
    log: Annotated[Path, typer.Option("--log", help="The run log, in which the stimulus was registered.")] = Path(
        LOG_NAME
    ),
) -> None:
    """Compute what can be computed and leave every judgement blank."""
    from atlas_schema.transcription.draft import transcribe as write
    from atlas_schema.transcription.raw import read_raw

    made = write(read_raw(raw), raw.name, output, log)
    values = sum(len(series.values) for series in made.series)
    typer.echo(
        f"{output}: {len(made.series)} series with {values} values; {len(made.judgements)} judgements left blank"
    )
    for series in made.series:
        typer.echo(f"  {series.name:<24} {series.term}" + (f" by {series.convention}" if series.convention else ""))
    if made.judgements:
        typer.echo(f"A person fills them: atlas judge {output}")
