"""Fuzz for a while and say how often: ``python tests/fuzz/run.py [SECONDS] [TARGET ...]``. Needs Atheris.

Every target runs in a process of its own, since libFuzzer ends the one it runs in. Prints one line per target; exits 1 if
one was found wanting, with the input that shows it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process; never returns."""
    import atheris

    # What parses is instrumented; what computes would only be slowed down.
    with atheris.instrument_imports(include=["atlas_schema.verify.reading", "atlas_schema.evidence.thrift",
                                             "atlas_schema.evidence.pages", "atlas_schema.evidence.preflight"]):  # fmt: skip
        from fuzz.targets import TARGETS

    TARGETS[name](b"")  # what is made once is made before the clock starts
    TARGETS[name](b"\0\0\0\0[]")
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=4096"], TARGETS[name])
    atheris.Fuzz()


def main(seconds: int, names: list[str]) -> int:
    """Run every target and print its figure."""
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, str(HERE), "--one", name, str(seconds)], capture_output=True, text=True,
                                  errors="replace", cwd=folder, check=False)  # fmt: skip
        counted = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
        if done.returncode == 0 and counted:
            print(f"{name:<9} {int(counted[1]):>12,} executions in {counted[2]} s, none wanting", flush=True)
            continue
        failed += 1
        print(f"{name:<9} FOUND WANTING (exit {done.returncode})\n{(done.stdout + done.stderr)[-3000:]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]))
    from fuzz.targets import TARGETS

    sys.exit(main(int((sys.argv[1:] or ["60"])[0]), sys.argv[2:] or list(TARGETS)))
