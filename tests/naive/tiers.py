"""The fidelity tier read off the definition, line by line, over plain tuples. An oracle; shares no code with the package."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plain:
    """A step without its chain. ``process`` and ``who`` are empty where the step does not say."""

    step: str
    process: str = ""
    who: str = ""


def naive_tier(steps: list[Plain]) -> str:
    """Return A, B, C, or 'none' where there is no run."""
    names = [s.step for s in steps]
    if "extract" not in names:
        return "none"
    before = names[: names.index("extract")]
    if "declare" not in before or "read0" not in before:
        return "C"
    needed = ["declare", "stimulus", "read0", "extract", "read1", "issue", "verify", "judge"]
    if any(name not in names for name in needed):
        return "B"
    runs = [s for s in steps[: names.index("issue")] if s.step == "extract"]
    if any(not s.process for s in runs) or any(not s.who for s in runs):
        return "B"
    return "A" if any(s.who for s in steps if s.step == "verify") else "B"


def naive_faultless(steps: list[Plain]) -> bool:
    """Return whether order, isolation and parties hold."""
    names = [s.step for s in steps]
    run = names.index("extract") if "extract" in names else len(names)
    issue = names.index("issue") if "issue" in names else len(names)
    for i, name in enumerate(names):
        if name in ("declare", "read0") and i > run:
            return False
        if name in ("read1", "transcribe", "judge") and i < run:
            return False
        if (name == "read1" and i > issue) or (name == "verify" and i < issue):
            return False
    used = [s.process for s in steps if s.step == "extract" and s.process]
    if len(used) != len(set(used)):
        return False
    for i, s in enumerate(steps):
        makers = [m for m in steps[:i] if m.step in ("extract", "transcribe", "issue")]
        if s.step == "verify" and s.who and s.who in {m.who for m in makers}:
            return False
        if s.step == "verify" and s.process and s.process in {m.process for m in makers}:
            return False
    return True
