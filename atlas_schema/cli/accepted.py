"""What is about to be written or signed goes through verification first: nobody is handed what ``atlas-verify`` refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from atlas_schema.verify.verifier import Submission


def accepted(submission: Submission, profile: str = "review") -> bool:
    """Return whether every channel that the profile requires passes; where one does not, show the report.

    What the verdict is does not matter: an honest receipt of a rewrite, or of nothing decided, is accepted.
    """
    from atlas_schema.reports.text import render
    from atlas_schema.verify.outcome import Status
    from atlas_schema.verify.verifier import Options, verify

    report = verify(submission, Options(profile=profile))
    if all(report.status(channel) is Status.PASSED for channel in report.required):
        return True
    typer.echo(render(report), err=True)
    return False
