"""A case against this project's own verifier, in this process: what the command would print and return."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from atlas_schema.cli import verify
from atlas_schema.conformance.run import REPORT


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def answer(folder: Path, arguments: list[str]) -> tuple[int, bytes]:
    """Return exit code and standard output of ``atlas-verify ARGUMENTS --report json``, called in a folder."""
    with inside(folder):
        done = CliRunner().invoke(verify.app, [*arguments, *REPORT])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout_bytes


def report(output: bytes) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(output)
    return made
