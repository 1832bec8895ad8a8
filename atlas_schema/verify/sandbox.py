"""Evidence from a DuckDB file: a confined process takes the tables out of a private copy, and the bundle it leaves is verified.

The verifier itself never loads the database. Nothing the process says is believed but that it refuses: its bundle is read
like any other, and a receipt is compared with what that bundle holds.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from atlas_schema.errors import DocumentError, EvidenceError, UsageError
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.limits import LIMITS, Limits
from atlas_schema.verify.reading import read_json

_MAGIC, _MAGIC_AT = b"DUCK", 8
_FIELDS = ("what", "where", "expected", "found", "todo", "rule")


def open_database(path: Path, limits: Limits = LIMITS) -> ParquetBundle:
    """Return the tables of a DuckDB file as a bundle. Raises `EvidenceError` for what is refused, `UsageError` for the call.

    The temporary folder is gone on return: the bundle holds its files open.
    """
    if sys.platform == "win32":
        raise UsageError("A DuckDB file is read in a confined process, which this system does not offer.", where=str(path),
                         todo="ask for the Parquet bundle; no tool opens another's database safely without that process")  # fmt: skip
    _require_no_log(path)
    try:
        with tempfile.TemporaryDirectory(prefix="atlas-verify-", ignore_cleanup_errors=True) as made:
            folder = Path(made)
            with _open(path, limits) as source, (folder / "submitted.duckdb").open("wb") as target:
                _copy(source, target)
            _run(folder, path, limits)
            return ParquetBundle(folder / "bundle", limits, shown=path)
    except OSError as error:
        raise UsageError("The DuckDB file could not be copied to a private folder.", where=tempfile.gettempdir(),
                         found=error.strerror or str(error),
                         todo="free space there, or set TMPDIR to a folder that has it") from error  # fmt: skip


def _require_no_log(path: Path) -> None:
    """Changes that lie beside the file are neither applied nor passed over in silence."""
    log = path.with_name(path.name + ".wal")
    if os.path.lexists(log) and (log.is_symlink() or log.stat().st_size > 0):
        raise EvidenceError("Beside the DuckDB file lies a log of changes that are not in it.", where=str(log),
                            expected="a file that was closed", rule="ATL-A026",
                            todo="its producer opens and closes it once with 'atlas evidence export', and sends it again")  # fmt: skip


def _open(path: Path, limits: Limits) -> BinaryIO:
    """Open what the reviewer named, if it is a regular file of the right kind and size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError("The DuckDB file cannot be read.", where=str(path), found=error.strerror or str(error),
                         todo="check the path given with --evidence") from error  # fmt: skip
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UsageError("This is not a regular file.", where=str(path), todo="name a file or a folder with --evidence")
    stream = os.fdopen(descriptor, "rb")
    head = os.pread(descriptor, _MAGIC_AT + len(_MAGIC), 0)
    if head[_MAGIC_AT:] != _MAGIC or status.st_size > limits.database_bytes:
        stream.close()
        wrong = head[_MAGIC_AT:] != _MAGIC
        raise EvidenceError("This is not a DuckDB file." if wrong else "The DuckDB file is larger than the limits allow.",
                            where=str(path), found="no DuckDB header" if wrong else f"{status.st_size} bytes",
                            expected=f"a DuckDB file of at most {limits.database_bytes} bytes", rule="ATL-A025")  # fmt: skip
    return stream


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    left = os.fstat(source.fileno()).st_size
    while left > 0 and (block := source.read(min(left, 2**20))):
        target.write(block)
        left -= len(block)


def _run(folder: Path, path: Path, limits: Limits) -> None:
    """Run the worker over ``folder/submitted.duckdb``; return if it left a bundle, and raise what it refused otherwise."""
    command = [sys.executable, "-I", "-B", "-m", "atlas_schema.evidence.worker", str(folder / "submitted.duckdb"), str(folder),
               json.dumps(asdict(limits))]  # fmt: skip
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    said, longest = folder / "said.txt", limits.worker_seconds + limits.worker_spare_seconds
    try:
        with said.open("wb") as stream:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=folder,
                                   env={"HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", **kept},
                                   timeout=longest, start_new_session=True, check=False)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _ended(path, f"more than {limits.worker_seconds} seconds") from error
    answer = _answer(folder / "result.json")
    if answer is None:
        if not (folder / "opening").exists():
            raise UsageError("The process that reads DuckDB files cannot start here.", where=str(path),
                             found=_last_line(said) or f"exit status {ended.returncode}",
                             todo="ask for the Parquet bundle; no tool opens another's database safely without that process")  # fmt: skip
        if ended.returncode >= 0:  # a fault of the worker, never a verdict on the file
            raise RuntimeError(f"the process that reads DuckDB files failed: {_last_line(said)}")
        raise _ended(path, f"signal {-ended.returncode}")
    if "system" in answer:
        raise OSError(answer["system"])
    if answer:
        # The path of the private copy differs from run to run; the report does not.
        shown = {name: answer.get(name, "").replace(str(folder / "submitted.duckdb"), str(path)) for name in _FIELDS}
        if shown["rule"] not in _REFUSALS:
            raise _ended(path, "an answer that is none")
        raise EvidenceError(shown["what"], where=f"{path}, {shown['where']}" if shown["where"] else str(path),
                            expected=shown["expected"], found=shown["found"], todo=shown["todo"], rule=shown["rule"])  # fmt: skip


_REFUSALS = ("ATL-A002", "ATL-A023", "ATL-A024", "ATL-A025")


def _ended(path: Path, how: str) -> EvidenceError:
    return EvidenceError("The process that reads the DuckDB file ended without a result.", where=str(path), found=how,
                         expected="its tables within the bounds of memory and time", rule="ATL-A025",
                         todo="the file is damaged or was made to exhaust its reader: ask for the Parquet bundle")  # fmt: skip


def _answer(path: Path) -> dict[str, str] | None:
    """Return what the worker wrote, or None. The worker may have been taken over: its answer is hostile input too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        raw = stream.read(LIMITS.worker_answer_bytes)
    try:
        value = read_json(raw)
    except DocumentError:
        return None
    return value if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()) else None


def _last_line(path: Path) -> str:
    lines = path.read_bytes()[-2000:].decode("utf-8", "replace").splitlines()
    return lines[-1].strip() if lines else ""
