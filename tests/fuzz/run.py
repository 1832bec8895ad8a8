"""Fuzz for a while and say how often: ``python tests/fuzz/run.py [SECONDS] [TARGET ...] [--write PAGE]``. Needs Atheris.

Every target runs in a process of its own, since libFuzzer ends the one it runs in. Prints one line per target; exits 1 if
one was found wanting, with the input that shows it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process; never returns."""
    import atheris
    from fuzz.targets import TARGETS

    target = TARGETS[name]
    for data in (b"", b"\0\0\0\0[]", b"\0\0\0\1\1\1"):
        target.run(data)  # what is made once is made before the clock starts
    # Atheris's own hook takes whole packages; what computes would only be slowed down by it.
    for module in target.guides:
        for function in functions(importlib.import_module(f"atlas_schema.{module}")):
            atheris.instrument_func(function)
    seeds = Path("seeds")  # in the folder of its own that this process was started in
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (seeds / f"{number}").write_bytes(seed)
    longest = max(4096, 2 * max(map(len, target.seeds())))
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", f"-max_len={longest}", "-len_control=0", "-rss_limit_mb=4096",
                   str(seeds)], target.run)  # fmt: skip
    atheris.Fuzz()


def functions(module: ModuleType) -> list[FunctionType]:
    """Return the functions that a module defines, those of its classes too."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    held: list[Any] = [part for value in own if inspect.isclass(value) for part in vars(value).values()]
    plain = [getattr(part, "__func__", getattr(part, "fget", part)) for part in (*own, *held)]
    return [part for part in plain if inspect.isfunction(part) and part.__module__ == module.__name__]


def main(seconds: int, names: list[str], page: Path | None) -> int:
    """Run every target and print its figure, or put the figures into a page. Returns how many were found wanting."""
    failed, rows, total = 0, [], 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, str(HERE), "--one", name, str(seconds)], capture_output=True, text=True,
                                  errors="replace", cwd=folder, check=False)  # fmt: skip
        counted = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
        if done.returncode == 0 and counted:
            print(f"{name:<16} {int(counted[1]):>12,} executions in {counted[2]} s, none wanting", flush=True)
            total += int(counted[1])
            rows.append(f"| `{name}` | {TARGETS[name].holds} | {int(counted[1]):,} | {counted[2]} |")
            continue
        failed += 1
        rows.append(f"| `{name}` | found wanting | — | — |")
        print(f"{name:<16} FOUND WANTING (exit {done.returncode})\n{(done.stdout + done.stderr)[-3000:]}", flush=True)
    if page is not None:
        head = ["| target | what it holds | executions | seconds |", "|---|---|---|---|"]
        said = f"{total:,} executions, {failed} of {len(names)} targets found wanting."
        write_section(page, SECTION, "\n".join([said, "", *head, *rows]))
    return 1 if failed else 0


SECTION = "tests/fuzz/run.py"

if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]))
    from fuzz.targets import TARGETS

    from benchmarks.page import write_section

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=int, default=60, help="seconds for each target")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default all")
    parser.add_argument("--write", type=Path, help="page with the marks between which the figures stand")
    given = parser.parse_args()
    sys.exit(main(given.seconds, given.targets or list(TARGETS), given.write))
