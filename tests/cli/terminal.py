"""A pseudo-terminal: what asks a person is answered there, in a process of its own; there is no other way to answer."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from cli.commands import Ended


def at_terminal(folder: Path, answers: list[str], *args: str, echo: bool = True) -> Ended:
    """Run ``atlas`` at a pseudo-terminal and type the answers; without an echo only what is printed comes back."""
    parent, child = pty.openpty()
    if not echo:
        modes = termios.tcgetattr(child)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(child, termios.TCSANOW, modes)
    command = [sys.executable, "-m", "atlas_schema.cli.atlas", *args]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, cwd=folder, close_fds=True,
                               env={**os.environ, "COLUMNS": "200"})  # fmt: skip
    os.close(child)
    os.write(parent, "".join(f"{answer}\n" for answer in answers).encode())
    shown = b""
    try:
        while part := os.read(parent, 65536):
            shown += part
    except OSError:
        pass  # Linux says so when the other end is closed
    os.close(parent)
    return Ended(process.wait(60), shown.decode().replace("\r\n", "\n"), "")
