"""Output whose reader may have gone: ``head`` and a closed pager change no exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class OutputError(OSError):
    """A standard stream takes no more, as on a full disk. Its reader is there."""


class _Dropping(io.RawIOBase):
    """A file that takes everything; what a closed pipe no longer takes is dropped. Other faults are an `OutputError`."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write what the reader still takes."""
        try:
            return self._raw.write(data) or 0
        except BrokenPipeError:
            return len(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


def patient(stream: TextIO) -> TextIO:
    """Return a stream to the same file that outlives its reader, and escapes what its encoding lacks."""
    buffer: Any = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is no buffer between
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO):
        return stream
    stream.flush()
    kept: Any = _Dropping(raw)
    buffered = io.BufferedWriter(kept)
    return io.TextIOWrapper(buffered, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def outlive_readers() -> None:
    """Make the standard streams patient. One that was closed from the start stays so."""
    if sys.stdout is not None:
        sys.stdout = patient(sys.stdout)
    if sys.stderr is not None:
        sys.stderr = patient(sys.stderr)


def abandon(stream: TextIO | None) -> None:
    """Let what is left in a stream's buffer go nowhere: its file takes no more."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
