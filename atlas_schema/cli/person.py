"""Asking a person. Where no person can be asked, nothing is written: there is no option that answers for one.

What is checked is that both ends are a terminal. That a person and not a program types at it cannot be checked; what is
typed stands in the log as that person's words.
"""

from __future__ import annotations

import sys

import typer

from atlas_schema.errors import UsageError

MOST = 2000


def require_person(command: str) -> None:
    """Refuse where input or output is not a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"'{command}' asks a person, and nobody can be asked here.", found="input or output is not a terminal",
                         expected="a terminal at both ends",
                         todo="run it yourself in a terminal; automation leaves the field blank")  # fmt: skip


def ask(question: str, most: int = MOST) -> str:
    """Ask until there is an answer that is not blank and not too long. Ctrl-C writes nothing."""
    while True:
        answer = str(typer.prompt(question)).strip()
        if not answer:
            typer.echo("  An answer is needed; Ctrl-C leaves without writing anything.")
        elif len(answer) > most:
            typer.echo(f"  At most {most} characters; these were {len(answer)}.")
        elif any(not c.isprintable() for c in answer):
            typer.echo("  The answer holds characters that cannot be printed.")
        else:
            return answer


def confirm(question: str) -> None:
    """Ask for a final yes; anything else ends the command with nothing written."""
    if not typer.confirm(question):
        raise UsageError("Nothing was written.", found="the answer was no")
