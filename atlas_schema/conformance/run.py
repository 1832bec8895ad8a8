"""Driving a verifier through a corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from atlas_schema.conformance.corpus import Case, lay_out
from atlas_schema.conformance.drive import Ended, run
from atlas_schema.conformance.judge import Difference, of_code, of_report

REPORT = ("--report", "json")
"""What is added to a case's arguments where more than the exit code is compared."""


@dataclass(frozen=True, slots=True)
class Result:
    """One case: what is not as expected, nothing if all is; and what the verifier said last on standard error."""

    name: str
    differences: tuple[Difference, ...]
    said: str = ""

    @property
    def passed(self) -> bool:
        return not self.differences


def drive(
    cases: Sequence[Case], command: tuple[str, ...], *, code_only: bool, seconds: float, jobs: int,
    told: Callable[[Result], None] = lambda _: None,
) -> list[Result]:  # fmt: skip
    """Run every case and return the results in order of the cases, told as they come to be known in that order."""
    done = []
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda case: one(case, command, code_only=code_only, seconds=seconds), cases):
            told(result)
            done.append(result)
    return done


def one(case: Case, command: tuple[str, ...], *, code_only: bool, seconds: float) -> Result:
    """Lay out one case in a folder of its own, run the verifier in it, and compare."""
    with tempfile.TemporaryDirectory(prefix="atlas-conformance-", ignore_cleanup_errors=True) as made:
        folder = Path(made) / "case"
        folder.mkdir()
        lay_out(case, folder)
        ended = run((*command, *case.expected.arguments, *(() if code_only else REPORT)), folder, seconds)
    return Result(case.name, tuple(_differences(case, ended, code_only)), ended.said)


def _differences(case: Case, ended: Ended, code_only: bool) -> list[Difference]:
    found = of_code(case.expected, ended.code, ended.how)
    if not code_only and not ended.how:
        found += of_report(case.expected, ended.output)
    return found
