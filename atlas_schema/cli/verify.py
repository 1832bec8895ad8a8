"""``atlas-verify``: the reviewer's command."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema import __version__
from atlas_schema.cli import vouching
from atlas_schema.cli.streams import abandon, outlive_readers
from atlas_schema.cli.vouching import Vouching
from atlas_schema.errors import AtlasError, UsageError, printable
from atlas_schema.verify.outcome import PROFILES, REQUIREMENTS, UNASKED, Channel, Code, Report, exit_code

if TYPE_CHECKING:
    from atlas_schema.verify.verifier import Options

# Before NumPy is loaded: products here are too small to share out, and processors are busy decoding and hashing meanwhile.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

EPILOG = (
    "Exit codes: 0 VERIFIED (or CONSISTENT), 1 NOT_PRESERVED, 2 USAGE, 3 INADMISSIBLE, 4 TAMPERED, 5 DIVERGED, "
    "6 UNPROVEN, 70 INTERNAL, 130 interrupted."
)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
FORMATS = ("text", "json")
VERDICTS = tuple(verdict for known in REQUIREMENTS.values() for verdict in known)


@app.command(epilog=EPILOG)
def verify(
    ctx: typer.Context,
    receipt: Annotated[Path | None, typer.Argument(help="The document to verify, usually receipt.json.")] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Folder of Parquet files, or one DuckDB file; default: evidence/ beside the receipt."),
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="File or id of the contract; default: the built-in one that is cited.")
    ] = None,
    preregistration: Annotated[
        Path | None, typer.Option(help="Default: preregistration.json beside the receipt.")
    ] = None,
    run_log: Annotated[Path | None, typer.Option(help="Default: run_log.json beside the receipt.")] = None,
    measurement: Annotated[
        list[Path] | None, typer.Option(help="Measurement that a settled prediction cites, repeatable.")
    ] = None,
    pin: Annotated[
        str | None, typer.Option(help="Digest of the pre-registration that you knew before results existed.")
    ] = None,
    profile: Annotated[str, typer.Option(help=f"Which channels must pass: {', '.join(PROFILES)}.")] = "review",
    require: Annotated[
        str | None, typer.Option(help=f"The verdict you need: {', '.join(VERDICTS)}; default: {UNASKED}.")
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Any text; replaces the second bootstrap seed.")] = None,
    key: vouching.Keys = None,
    threshold: vouching.Threshold = None,
    signature: vouching.Signature = None,
    sigstore_bundle: vouching.Bundle = None,
    trusted_root: vouching.Root = None,
    identity: vouching.Identity = None,
    issuer: vouching.Issuer = None,
    report: Annotated[list[str] | None, typer.Option(help="FORMAT or FORMAT=PATH, repeatable: text, json.")] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Verify a valid and a forged receipt that ship with the package.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    limits: Annotated[bool, typer.Option("--limits", help="Print every bound on what is read.")] = False,
) -> None:
    """Recompute every number of a receipt from its evidence, and say whether to believe it."""
    if _alone(ctx, receipt, version, limits, demo):
        return
    targets = _targets(report or ["text"])
    asked = Vouching(tuple(key or ()), threshold, signature, sigstore_bundle, trusted_root, identity, issuer)
    result = _run(receipt, evidence, contract, preregistration, run_log, pin, profile, require, seed,
                  tuple(measurement or ()), asked)  # fmt: skip
    _write(result, targets)
    raise typer.Exit(int(exit_code(result)))


def _alone(ctx: typer.Context, receipt: Path | None, version: bool, limits: bool, demo: bool) -> bool:
    """Do what is asked for without a document, and say whether that was so."""
    if demo and receipt is not None:
        raise UsageError("--demo verifies its own receipts, not this one.", where=str(receipt),
                         todo="leave out one of the two")  # fmt: skip
    _require_alone(ctx, {"version": version, "limits": limits, "demo": demo})
    if version:
        typer.echo(f"atlas-verify {__version__}")
    elif limits:
        _print_limits()
    elif demo:
        from atlas_schema.demo import run_demo

        raise typer.Exit(run_demo(typer.echo))
    return version or limits


def _require_alone(ctx: typer.Context, asked: dict[str, bool]) -> None:
    """Refuse what such a call would pass over in silence: a reviewer must not think that it was heard."""
    alone = next((name for name, given in asked.items() if given), None)
    others = [
        name
        for name in ctx.params
        if name != alone and getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if alone is not None and others:
        given = ", ".join("a receipt" if name == "receipt" else f"--{name.replace('_', '-')}" for name in others)
        raise UsageError(f"--{alone} stands alone.", found=given, todo=f"leave out --{alone}, or all the others")


def _run(
    receipt: Path | None, evidence: Path | None, contract: str | None, preregistration: Path | None, run_log: Path | None,
    pin: str | None, profile: str, require: str | None, seed: str | None, measurements: tuple[Path, ...], asked: Vouching,
) -> Report:  # fmt: skip
    """Verify, turning what can go wrong around the core into the report's own fields."""
    name = "-" if receipt is None else str(receipt)
    outcome = Report(name, profile=profile, required=PROFILES.get(profile, ()))
    try:
        options = asked.demanded(_options(profile, require, pin, seed))
        from atlas_schema.verify.loading import load

        submission = asked.loaded(load(receipt, evidence, contract, preregistration, run_log, measurements), receipt)
        from atlas_schema.verify.verifier import verify as run_verifier

        return run_verifier(submission, options)
    except UsageError as error:
        outcome.usage = str(error)
    except KeyboardInterrupt:
        outcome.interrupted = True
    except BaseException as error:  # noqa: BLE001 - the one boundary: a fault must never look like a verdict, nor a library's panic
        outcome.fault = f"{type(error).__name__}: {printable(str(error))}\nPlease report this with the receipt; it is a defect of atlas-verify."
    return outcome


def _options(profile: str, require: str | None, pin: str | None, seed: str | None) -> Options:
    from atlas_schema.verify.verifier import Options

    for value, known, name in ((profile, tuple(PROFILES), "--profile"), (require, VERDICTS, "--require")):
        if value is not None and value not in known:
            raise UsageError(f"{name} has an unknown value.", found=value, expected=", ".join(known))
    deciding = [name for name, channels in PROFILES.items() if Channel.DECISION in channels]
    for given, name in ((require, "--require"), (seed, "--seed")):
        if given is not None and profile not in deciding:  # what nobody looks at must not look as if it had been met
            raise UsageError(f"Profile {profile} recomputes no verdict, so that {name} would decide nothing.", found=given,
                             todo=f"leave out {name}, or use --profile {' or '.join(deciding)}")  # fmt: skip
    if pin is not None and re.fullmatch("sha256:[0-9a-fA-F]{64}", pin) is None:
        raise UsageError("--pin is not a digest.", found=pin, expected="sha256: and 64 hexadecimal digits")
    if seed == "":  # a variable that was not set: anyone knows the digest of nothing
        raise UsageError(
            "--seed is empty.", expected="any text that nobody could foresee", todo="give one, or leave out --seed"
        )
    text = None if seed is None else seed.encode("utf-8", "surrogateescape")  # as it was typed, in whatever encoding
    return Options(
        profile, require or UNASKED, pin and pin.lower(), None if text is None else hashlib.sha256(text).digest()
    )


def _targets(wanted: list[str]) -> list[tuple[str, Path | None]]:
    targets = []
    for entry in wanted:
        name, _, path = entry.partition("=")
        if name not in FORMATS:
            typer.echo(f"--report has an unknown format: {printable(name)}; known are {', '.join(FORMATS)}", err=True)
            raise typer.Exit(int(Code.USAGE))
        targets.append((name, Path(path) if path else None))
    return targets


def _write(result: Report, targets: list[tuple[str, Path | None]]) -> None:
    from atlas_schema.reports import json, text

    for name, path in targets:
        content = json.render(result) if name == "json" else text.render(result)
        if path is None:
            _say(content)
            continue
        try:
            _require_place(path)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            typer.echo(f"The report could not be written to {printable(str(path))}: {error.strerror}", err=True)
            raise typer.Exit(int(Code.USAGE)) from error


def _require_place(path: Path) -> None:
    """Refuse a link: whoever packed a submission may have put it where a report is expected. Devices are links too."""
    if path.is_symlink() and path.parent not in (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd")):
        raise OSError(errno.ELOOP, f"it is a link, to {printable(str(path.readlink()))}")


def _say(content: str) -> None:
    """Print; a reader that has gone (``head``, a closed pager) or never was changes neither verdict nor exit code."""
    if sys.stdout is None:  # started with its output closed
        return
    try:
        typer.echo(content, nl=False)
        sys.stdout.flush()
    except OSError as error:
        abandon(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"The report could not be written to the output: {error.strerror}", err=True)
            raise typer.Exit(int(Code.USAGE)) from error


def _print_limits() -> None:
    from atlas_schema.limits import listed

    for name, value, unit, meaning in listed():
        typer.echo(f"{name:<21}{value:>15,} {unit:<18}{meaning}")


def main() -> None:
    """Entry point. No fault around the verifier may exit 1, which is a verdict."""
    outlive_readers()  # and a terminal that lacks a character still gets the report
    # A build that inherits a shell's completion would otherwise be answered with something other than a verdict.
    os.environ.pop("_ATLAS_VERIFY_COMPLETE", None)
    try:
        app()
    except AtlasError as error:
        typer.echo(str(error), err=True)
        sys.exit(int(Code.USAGE))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(int(Code.INTERRUPTED))
    except SystemExit:
        raise
    except OSError as error:  # of the output: what goes wrong with files is told where they are read
        abandon(sys.stdout)
        typer.echo(f"The output could not be written: {error.strerror}", err=True)
        sys.exit(int(Code.USAGE))
    except BaseException as error:  # noqa: BLE001 - the outer half of the one boundary: showing a report may fail too
        typer.echo(printable(f"INTERNAL ({int(Code.INTERNAL)}): {type(error).__name__}: {error}"), err=True)
        sys.exit(int(Code.INTERNAL))


if __name__ == "__main__":
    main()
