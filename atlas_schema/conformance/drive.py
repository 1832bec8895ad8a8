"""Starting somebody's verifier on one case, and what it did. The only module here that starts processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from atlas_schema.errors import UsageError
from atlas_schema.limits import LIMITS


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code, or in ``how`` why it has none; what it printed; the last line of its errors."""

    code: int | None
    how: str
    output: bytes
    said: str


def command_of(text: str) -> tuple[str, ...]:
    """Return a command line as words, with every word that names a file here made absolute: the cases run elsewhere.

    No shell reads it. Raises `UsageError` for a program that is not there.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            "The verifier's command line cannot be read.", found=text, expected="words, quoted as for a shell"
        ) from error
    if not words:
        raise UsageError("No verifier was named.", todo="--verifier atlas-verify, or the command that starts yours")
    program = shutil.which(words[0])
    if program is None:
        raise UsageError("The verifier was not found.", where=words[0], found="no program of that name that may be run",
                         todo="name its full path, and check that it may be executed; a script may need its interpreter first: "
                         "--verifier 'python verifier.py'")  # fmt: skip
    return (str(Path(program).absolute()), *(str(Path(w).absolute()) if Path(w).is_file() else w for w in words[1:]))


def run(command: tuple[str, ...], folder: Path, seconds: float) -> Ended:
    """Run a command in a folder, with nothing to read. What it starts is ended with it where time runs out."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=folder,
                                       start_new_session=sys.platform != "win32")  # fmt: skip
        except OSError as error:
            raise UsageError("The verifier could not be started.", where=command[0], found=error.strerror or str(error),
                             todo="check that it may be executed; a script names its interpreter in its first line") from error  # fmt: skip
        how = ""
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            how = f"no answer within {seconds:g} seconds"
        finally:
            _end(process)
        if not how and code < 0:
            how = f"ended by signal {-code} ({_signal(-code)})"
        output.seek(0)
        errors.seek(0)
        said = errors.read(LIMITS.verifier_output_bytes).decode("utf-8", "replace").strip().splitlines()
        return Ended(
            None if how else code, how, output.read(LIMITS.verifier_output_bytes), said[-1][:300] if said else ""
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, and what it started."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
