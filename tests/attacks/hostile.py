"""Give the worst inputs to `atlas-verify` as a reviewer would, each in a process of its own, and measure what they cost.

    python tests/attacks/hostile.py [--write docs/attacks.md] [NAME ...]

Every input must be refused with its documented exit code, within the bounds that docs/verification.md states.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from attacks.inputs import INPUTS, MEMORY, RECEIPT, WIDE, Input, prepared, template  # noqa: E402

from atlas_schema.limits import LIMITS  # noqa: E402
from atlas_schema.verify.outcome import Code  # noqa: E402
from benchmarks.page import write_section  # noqa: E402

SECTION = "tests/attacks/hostile.py"
SECONDS = 30.0
"""Processor time that one command may take for one input."""
PATIENCE = 300
"""Seconds by the clock after which a command is ended, and its input wanting."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command did: exit code (negative: a signal ended it), rules that fired, seconds, bytes, and the input's size."""

    code: int
    rules: tuple[str, ...]
    wall: float
    processor: float
    memory: int
    size: int
    said: str

    @property
    def fault(self) -> str:
        """What is wrong with how the command ended, whatever the input was."""
        if self.code not in [int(c) for c in Code] or self.code == Code.INTERNAL:
            return f"ended with {self.code}: {self.said[-300:]}"
        return "a traceback" if "Traceback" in self.said else ""


MEASURE = """
import json, os, sys, time
out, patience, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
files = [(os.POSIX_SPAWN_OPEN, n, f"{out}.{n}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for n in (1, 2)]
started, ended = time.monotonic(), 0
process = os.posix_spawn(command[0], command, os.environ, file_actions=files)
while not ended:
    ended, status, used = os.wait4(process, os.WNOHANG)
    if not ended:
        time.sleep(0.01)
        if time.monotonic() - started > patience:
            os.kill(process, 9)
print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
"""Measures a command from a process that is small itself: a child begins with the memory of who started it."""


def run(arguments: list[str], folder: Path) -> Cost:
    """Run ``atlas-verify`` in a fresh process and measure it, the processes that it starts included."""
    out = folder.parent / "out"
    command = [sys.executable, "-m", "atlas_schema.cli.verify", *arguments, "--report", "json"]
    done = subprocess.run([sys.executable, "-S", "-E", "-c", MEASURE, str(out), str(PATIENCE), *command], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)  # fmt: skip
    code, wall, processor, memory = json.loads(done.stdout)
    said = Path(f"{out}.2").read_text(errors="replace")
    try:
        report = json.loads(Path(f"{out}.1").read_bytes() or b"{}")
    except ValueError:
        report, said = {}, f"{said}\nthe report is not JSON"
    rules = tuple(dict.fromkeys(p["rule"] for c in report.get("channels", ()) for p in c["problems"]))
    return Cost(code, rules, wall, processor, memory, 0, said + (report.get("fault") or ""))


def tried(made: Input, source: Path, folder: Path) -> Cost:
    """Make one input in a folder and verify it."""
    study = prepared(source, folder / "study")
    for beside in ("key.pem", "evidence.duckdb"):
        shutil.copy(source / beside, folder / beside)
    arguments = made.make(study)
    cost = run([str(study / RECEIPT), "--contract", str(study / "contract.json"), *arguments], study)
    size = sum(p.stat().st_blocks * 512 for p in study.rglob("*") if p.is_file() and not p.is_symlink())
    return Cost(cost.code, cost.rules, cost.wall, cost.processor, cost.memory, size, cost.said)


def wrong(made: Input, cost: Cost) -> str:
    """Return what is wrong with the outcome of an input, empty where it was refused as stated and within bounds."""
    if cost.fault:
        return cost.fault
    if cost.code not in made.codes:
        return f"exit {cost.code} {cost.rules}, not {made.codes}"
    if cost.processor > SECONDS or cost.memory > made.memory:
        return f"{cost.processor:.1f} s of {SECONDS:.0f}, {cost.memory / 2**20:.0f} MiB of {made.memory / 2**20:.0f}"
    return ""


def table(found: dict[str, Cost], honest: Cost, worst: int = 12) -> str:
    """Return the Markdown of the section: the dearest inputs, by time and by memory, and the bounds they stayed in."""
    ranked = (
        sorted(found, key=lambda n: -found[n].processor)[:worst] + sorted(found, key=lambda n: -found[n].memory)[:worst]
    )
    lines = ["| input | exit | rules | processor, s | memory, MiB |", "|---|---|---|---|---|"]
    for name, cost in (
        ("the valid study that they are made from", honest),
        *((n, found[n]) for n in dict.fromkeys(ranked)),
    ):
        lines.append(f"| {name} | {cost.code} | {' '.join(cost.rules).replace('ATL-', '') or '—'} | {cost.processor:.1f} "
                     f"| {cost.memory / 2**20:,.0f} |")  # fmt: skip
    parts = {
        part: [n for n in found if INPUTS[n].part == part] for part in dict.fromkeys(i.part for i in INPUTS.values())
    }
    counted = ", ".join(f"{len(names)} {part}" for part, names in parts.items() if names)
    bad = [f"- {name}: {wrong(INPUTS[name], cost)}" for name, cost in found.items() if wrong(INPUTS[name], cost)]
    said = f"{len(found)} inputs ({counted}), {len(bad)} beyond a bound or answered otherwise than documented."
    bounds = (f"Bounds, for the whole command: {SECONDS:.0f} s of processor time and {MEMORY / 2**30:.0f} GiB; "
              f"{LIMITS.worker_memory / 2**30:.0f} GiB with a DuckDB file, {WIDE / 2**30:.0f} GiB where wide rows are decoded.")  # fmt: skip
    longest, largest = max(c.processor for c in found.values()), max(c.memory for c in found.values())
    return "\n".join(
        [
            said,
            bounds,
            f"The dearest took {longest:.1f} s of processor time and {largest / 2**20:,.0f} MiB.",
            *bad,
            "",
            *lines,
        ]
    )


def main() -> int:
    """Try the named inputs, or all; print the table or put it into a page. Exit 1 where one was not refused as stated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names of inputs; default all of them")
    parser.add_argument("--write", type=Path, help="page with the marks between which the table stands")
    given = parser.parse_args()
    wanted = [i for i in INPUTS.values() if not given.names or any(n in f"{i.part}: {i.name}" for n in given.names)]
    found: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as scratch:
        source = template(Path(scratch))
        honest = run(
            [str(source / "study" / RECEIPT), "--contract", str(source / "study" / "contract.json")], source / "study"
        )
        for made in wanted:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                found[made.name] = cost = tried(made, source, Path(folder))
            mark = wrong(made, cost)
            print(f"{made.part:<10}{made.name:<70} {cost.code:>3} {cost.processor:6.1f} s {cost.memory / 2**20:7.0f} MiB "
                  f"{' '.join(cost.rules)} {mark and 'WANTING ' + mark}", file=sys.stderr, flush=True)  # fmt: skip
    if given.write is None:
        print(table(found, honest))
    else:
        write_section(given.write, SECTION, table(found, honest))
    return 1 if any(wrong(INPUTS[name], cost) for name, cost in found.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
