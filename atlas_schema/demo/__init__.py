"""A valid and a forged receipt over one small bundle, as package data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

from atlas_schema.verify.outcome import Code, exit_code

CASES = (
    ("receipt-preserved.json", Code.VERIFIED, "A receipt as its study issued it."),
    ("receipt-forged.json", Code.DIVERGED, "The same evidence; the rewritten arm's receipt edited to say 'preserved'."),
)
"""File, expected outcome, and what it is."""


def demo_folder() -> Path:
    """Return the folder of the demo study. The wheel is installed unpacked, so package data are files."""
    return Path(str(resources.files("atlas_schema.demo") / "study"))


def run_demo(say: Callable[[str], None]) -> int:
    """Verify both receipts, print both reports, and return 0 iff both come out as expected, else 70."""
    from atlas_schema.evidence.bundle import ParquetBundle
    from atlas_schema.reports.text import render
    from atlas_schema.verify.loading import load
    from atlas_schema.verify.verifier import Options, verify

    fine, bundle = True, ParquetBundle(demo_folder() / "evidence")
    for number, (name, expected, what) in enumerate(CASES, start=1):
        report = verify(replace(load(demo_folder() / name), open_evidence=lambda: bundle), Options())
        code = exit_code(report)
        report.document = name
        say(f"--- {number} of {len(CASES)}: {name}. {what} Expected: {expected.name}.\n\n{render(report)}")
        fine &= code is expected
    verdict = "Both came out as expected." if fine else "This is not what was expected: the installation is faulty."
    say(f"{verdict} 'atlas explain RULE' says what a rule protects; docs/verification.md says what each channel means.")
    return 0 if fine else int(Code.INTERNAL)
