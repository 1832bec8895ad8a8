"""The confined process that opens a submitted DuckDB file: ``python -m atlas_schema.evidence.worker DATABASE FOLDER LIMITS``.

It bounds itself before it opens anything: address space, processor time, size of files, number of open files, no core
dumps, no network where the system lets a process give it up. The parent bounds the time. What happened is written to
``FOLDER/result.json``; ``FOLDER/opening`` says that the process got as far as the file, so that a crash is the file's fault.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import sys
from pathlib import Path

from atlas_schema.errors import EvidenceError
from atlas_schema.limits import Limits

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_DIE_WITH_PARENT, _SIGKILL = 1, 9


def confine(limits: Limits) -> None:
    """Give up what this process does not need. Cannot be taken back."""
    if sys.platform == "linux":
        system = ctypes.CDLL(None)
        system.prctl(_DIE_WITH_PARENT, _SIGKILL, 0, 0, 0)
        # Not every system lets an ordinary process do this; reading needs no network either way.
        if system.unshare(_NEW_NETWORK) != 0:
            system.unshare(_NEW_USER | _NEW_NETWORK)
    for kind, bound in (
        (resource.RLIMIT_AS, limits.worker_memory), (resource.RLIMIT_CPU, limits.worker_seconds),
        (resource.RLIMIT_FSIZE, limits.table_bytes), (resource.RLIMIT_NOFILE, limits.worker_files), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(kind, (bound, bound))


def main() -> int:
    """Confine, unpack, say what happened."""
    database, folder = Path(sys.argv[1]), Path(sys.argv[2])
    limits = Limits(**json.loads(sys.argv[3]))
    confine(limits)
    import duckdb
    import pyarrow as pa

    from atlas_schema.evidence.unpack import session, unpack

    (folder / "opening").touch()
    (folder / "bundle").mkdir()
    result: dict[str, str] = {}
    try:
        with session(database, limits) as connection:
            unpack(connection, folder / "bundle", limits)
    except EvidenceError as error:
        result = {"what": error.what, "where": error.where, "expected": error.expected, "found": error.found,
                  "todo": error.todo, "rule": error.rule}  # fmt: skip
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError) as error:
        result = _refusal("The DuckDB file needs more memory than it may have.", error)
        result["expected"] = f"at most {limits.worker_memory} bytes"
    except (duckdb.Error, pa.ArrowException, ValueError, OverflowError) as error:
        result = _refusal("The DuckDB file cannot be read.", error)
    except OSError as error:
        # Arrow passes on what DuckDB says while it streams as an OSError without a number. A full disk has one, and is
        # not the file's fault; a file that outgrows its bound has one too, and is.
        result = _refusal("The tables of the DuckDB file cannot be taken out.", error)
        if error.errno is not None and error.errno != errno.EFBIG:
            result["system"] = os.strerror(error.errno)
    text = json.dumps({name: value[:2000].encode("utf-8", "replace").decode() for name, value in result.items()})
    (folder / "result.json").write_text(text, encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # nothing that a hostile file left behind gets to run while the interpreter is taken apart


def _refusal(what: str, error: BaseException) -> dict[str, str]:
    lines = str(error).strip().splitlines()
    return {"what": what, "where": "", "expected": "", "found": lines[0] if lines else type(error).__name__,
            "todo": "obtain the file again, or ask for the Parquet bundle", "rule": "ATL-A025"}  # fmt: skip


if __name__ == "__main__":
    main()
