"""What verification costs, as ratios within one run: ``make bench`` prints the table of `docs/benchmarks.md`.

Each figure is the median of several repeats, each in a fresh process, after one that is not counted (it fills the file
cache and compiles modules). Ratios compare medians of one run on one machine; seconds are not comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atlas_schema.documents.run_log import RunLog
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.files import read_document
from atlas_schema.study.issue import issue
from benchmarks.world import Size, write_world

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "atlas_schema" / "demo" / "study"
TASKS = {
    "nothing": "import numpy, pyarrow.parquet",
    "binding": """
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.source import table_roots
table_roots(ParquetBundle(folder / "evidence"))""",
    "verify": """
import atlas_schema.cli.verify  # sets what the command sets
from atlas_schema.verify.loading import load
from atlas_schema.verify.outcome import Channel, Status
from atlas_schema.verify.verifier import Options, verify
report = verify(load(folder / "receipt.json", None, None, None, None), Options())
good = (Channel.CONTRACT, Channel.BINDING, Channel.REPRODUCTION)
if any(report.status(channel) is not Status.PASSED for channel in good):
    raise SystemExit([p for c in report.channels.values() for p in c.problems])""",
    "openssl": """
import hashlib
for path in sorted((folder / "evidence").iterdir()):
    with path.open("rb") as stream:
        hashlib.file_digest(stream, "sha256").digest()""",
    "scipy": """
import numpy as np, scipy.stats
rng = np.random.default_rng(1)
n, d = rng.gamma(1.0, size=(512, 1)), rng.gamma(2.0, size=(512, 1))
def ratio(a, b, axis):
    return a.sum(axis=axis) / b.sum(axis=axis)
start = time.perf_counter()
scipy.stats.bootstrap((n[:, 0], d[:, 0]), ratio, paired=True, n_resamples=10_000, batch=1000, method="basic", rng=rng)""",
    "bootstrap": """
import numpy as np
from atlas_schema.measures.intervals import Resampler, Statistic, family
from atlas_schema.measures.bootstrap import Strata
from atlas_schema.study.contracts import load_contract
rng = np.random.default_rng(1)
n, d = rng.gamma(1.0, size=(512, 64)), rng.gamma(2.0, size=(512, 64))
rule = load_contract("chart-preserving.v1").bootstrap
start = time.perf_counter()
family(n, d, [Statistic(False, False, False, "")] * 64, Resampler(bytes(32), Strata((np.arange(512),)), rule), 1)""",
}
AROUND = """
import json, resource, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
start = time.perf_counter()
{task}
spent = time.perf_counter() - start
scale = 1 if sys.platform == "darwin" else 1024
print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale]))
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Median wall time in seconds, and largest peak memory in bytes."""

    seconds: float
    memory: float


def in_process(task: str, folder: Path, repeats: int) -> Measured:
    """Run a task in fresh interpreters; time is from after start-up, imports of the task included."""

    def once() -> tuple[float, float]:
        done = subprocess.run([sys.executable, "-c", AROUND.format(task=TASKS[task]), str(folder)], cwd=ROOT, check=True,
                              capture_output=True, text=True)  # fmt: skip
        spent, memory = json.loads(done.stdout.splitlines()[-1])
        return spent, memory

    return _median(once, repeats)


def command(arguments: list[str], repeats: int) -> Measured:
    """Run a command; time is the whole of it."""

    def once() -> tuple[float, float]:
        start = time.perf_counter()
        subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start, 0.0

    return _median(once, repeats)


def _median(once: Callable[[], tuple[float, float]], repeats: int) -> Measured:
    once()
    found = [once() for _ in range(repeats)]
    return Measured(statistics.median(t for t, _ in found), max(m for _, m in found))


def study(folder: Path, size: Size) -> Path:
    """Write a world with a receipt, unless it is there from an earlier run."""
    if (folder / "receipt.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    plan, contract = write_world(folder, size)
    log = folder / "run_log.json"
    steps = read_document(log, RunLog, "run log")
    issue(ParquetBundle(folder / "evidence"), plan, contract, log, steps, "close", folder / "receipt.json")
    return folder


def rows(folder: Path, windows: int, repeats: int) -> list[tuple[str, str, str, str]]:
    """Return the table: what, found, aim, how."""
    full, half = study(folder / "full", Size(windows)), study(folder / "half", Size(windows // 2))
    files = sorted((full / "evidence").iterdir())
    size = sum(path.stat().st_size for path in files) / 2**20
    plain, openssl = command(["sha256sum", *map(str, files)], repeats), in_process("openssl", full, repeats)
    binding, whole, less = (
        in_process(t, f, repeats) for t, f in (("binding", full), ("verify", full), ("verify", half))
    )
    cli = [sys.executable, "-m", "atlas_schema.cli.verify"]
    empty, shown = command([sys.executable, "-c", "pass"], 2 * repeats), command([*cli, "--help"], 2 * repeats)
    demo = [*cli, str(DEMO / "receipt-preserved.json")]
    believed = subprocess.run(demo, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
    smallest = f"{command(demo, repeats).seconds:.2f} s" if believed else "not verified"
    ours, theirs = in_process("bootstrap", full, repeats), in_process("scipy", full, repeats)

    def against(m: Measured) -> str:
        return f"{m.seconds:.2f} s; {m.seconds / openssl.seconds:.2f}× OpenSSL's {openssl.seconds:.2f} s"

    return [
        ("binding over `sha256sum`", f"{binding.seconds / plain.seconds:.2f}×", "≤ 1.5×", f"{size:.0f} MiB; {against(binding)}"),
        ("whole verification over `sha256sum`", f"{whole.seconds / plain.seconds:.2f}×", "≤ 4×", against(whole)),
        ("peak memory", f"{whole.memory / 2**20:.0f} MiB", "< 500 MiB", "of whole verification"),
        ("growth when evidence doubles", f"{(whole.memory - less.memory) / 2**20:+.0f} MiB", "flat",
         f"from {less.memory / 2**20:.0f} MiB at half"),
        ("`atlas-verify --help`", f"{1000 * (shown.seconds - empty.seconds):.0f} ms", "< 120 ms",
         f"beyond {1000 * empty.seconds:.0f} ms of `python -c pass`"),
        ("smallest shipped receipt", smallest, "< 0.5 s", "the demo's valid one, whole command"),
        ("bootstrap", f"{ours.seconds:.2f} s", "< 1 s", "10,000 resamples × 512 clusters × 64 cells"),
        ("`scipy.stats.bootstrap` over it", f"{64 * theirs.seconds / ours.seconds:.0f}×", "≥ 50×", f"{theirs.seconds:.2f} s a cell, × 64"),
    ]  # fmt: skip


def machine() -> str:
    """Name processor, cores and versions; no host."""
    names = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f} before the run"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--windows", type=int, default=900, help="windows of the full study; 900 give more than 500 MiB"
    )
    parser.add_argument("--repeats", type=int, default=5, help="counted repeats")
    parser.add_argument("--folder", type=Path, help="keep the evidence here, and use it again")
    chosen = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        table = rows(chosen.folder or Path(scratch), chosen.windows, chosen.repeats)
    print("\n| what | found | aim | |\n|---|---|---|---|")
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
