"""Targets for submitted DuckDB files: through the verifier's own sandbox, whose worker is forked from this warm process.

`sandbox._run` starts a Python of its own for every file, which costs more than a second of imports. Here the same worker runs
in a fork that has imported everything already: `confine` bounds it as ever, and how it ends is told as a process's end is.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from evidence.test_bundle import tiny
from fuzz.spoil import document

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence import worker
from atlas_schema.evidence.digest import TableRoot
from atlas_schema.evidence.source import table_roots
from atlas_schema.limits import LIMITS
from atlas_schema.verify import sandbox

HEADER, BLOCK = 4096, 262_144
"""Bytes of one of the three headers of a DuckDB file, and of a block after them; each begins with its sum of 8 bytes."""
BOUNDS = replace(LIMITS, worker_seconds=4, worker_memory=2 * 2**30)
ANSWER = b'{"what": "The DuckDB file holds more than tables.", "where": "", "found": "view v", "rule": "ATL-A023"}'
_SUM = np.uint64(0xBF58476D1CE4E5B9)
_OWN = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGXCPU", "SIGXFSZ", "SIGALRM", "SIGINT", "SIGTERM")


def database(data: bytes) -> None:
    """A DuckDB file with bytes changed and its blocks' sums made good: refused as documented, or rows with a root."""
    raw = spoilt_database(_file(), data)
    if raw is not None:
        opened(raw)


def worker_answer(data: bytes) -> None:
    """What the confined process leaves as its answer, any bytes: nothing, or texts under names."""
    path = _answers() / "result.json"
    for raw in (data, document(ANSWER, data)):
        path.write_bytes(raw or b"")
        found = sandbox._answer(path)
        if found is not None and not all(isinstance(part, str) for part in (*found, *found.values())):
            raise AssertionError("an answer is more than texts")


def opened(raw: bytes) -> list[TableRoot] | EvidenceError:
    """Return the roots of a submitted file's tables, or how it was refused. Raises what must not be."""
    path = _folder() / "evidence.duckdb"
    path.write_bytes(raw)
    try:
        with (
            patch("atlas_schema.verify.sandbox.subprocess.run", forked),
            patch.object(tempfile, "tempdir", str(_folder())),
        ):
            found = sandbox.open_database(path, BOUNDS)
        return table_roots(found)
    except EvidenceError as error:
        if "submitted.duckdb" in str(error):
            raise AssertionError(f"a private path is told: {error}") from error
        if sorted(entry.name for entry in _folder().iterdir()) != ["evidence.duckdb"]:
            raise AssertionError("a private folder is left behind") from error
        return error


def spoilt_database(raw: bytes, data: bytes) -> bytes | None:
    """Change bytes where something is written, in one header or block, and make its sum good as any forger would."""
    if len(data) < 5:
        return None
    filled = _filled(raw)
    at = int(filled[int.from_bytes(data[:3], "little") % len(filled)])
    made = bytearray(raw)
    change = data[4:36]
    made[at : at + len(change)] = change[: len(made) - at]
    if data[3] & 1:
        for start, size in parts(len(raw)):
            if start < at + len(change) and at < start + size:
                made[start : start + 8] = struct.pack("<Q", checksum(bytes(made[start + 8 : start + size])))
    return bytes(made)


def checksum(data: bytes) -> int:
    """Return the sum that DuckDB keeps of a header or block: words of 64 bits, each multiplied, taken together by xor."""
    words = np.frombuffer(data, dtype="<u8")
    return int(np.bitwise_xor.reduce(words * _SUM)) ^ 5381


def parts(size: int) -> list[tuple[int, int]]:
    """Return where the headers and blocks of a file lie, and their sizes."""
    heads = [(i * HEADER, HEADER) for i in range(3)]
    return [*heads, *((at, BLOCK) for at in range(3 * HEADER, size - BLOCK + 1, BLOCK))]


def forked(
    command: Sequence[str], *, stdout: Any, cwd: Path, timeout: float, **_: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the worker's `main` in a fork, in place of ``python -m atlas_schema.evidence.worker``."""
    module = list(command).index("atlas_schema.evidence.worker")
    child = os.fork()
    if child == 0:
        _be_worker(list(command[module:]), stdout.fileno(), cwd)
    until = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status))
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise subprocess.TimeoutExpired(command, timeout)
        time.sleep(0.001)


def _be_worker(arguments: list[str], output: int, folder: Path) -> None:
    """Become the worker; never returns. Signals end it as they end a process that no fuzzer watches."""
    code = 1
    try:
        for name in _OWN:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        sys.argv = arguments
        code = worker.main()
    except BaseException as error:  # noqa: BLE001 - the end of a process: what an interpreter would print
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))


@cache
def _answers() -> Path:
    return Path(tempfile.mkdtemp())


@cache
def _file() -> bytes:
    import duckdb  # noqa: F401 - before the first fork, so that none has to
    import pyarrow  # noqa: F401

    from atlas_schema.evidence.unpack import _listable

    _listable()

    path = Path(tempfile.mkdtemp()) / "evidence.duckdb"
    tiny().store(path).close()
    raw = path.read_bytes()
    if opened(raw) != table_roots(tiny().source()):
        raise AssertionError("the sound file has other roots")
    return raw


@cache
def _filled(raw: bytes) -> Any:
    """Return the places of a file at which something is written, or beside which."""
    return np.flatnonzero(np.convolve(np.frombuffer(raw, dtype=np.uint8) != 0, [True, True, True], mode="same"))
