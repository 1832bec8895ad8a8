"""The base's states on disk, by window, so that every later run reads them at once and none holds them in memory.

A scratch file without a name beside the evidence: it disappears with the process. What it holds is a copy of column
`z` of table `state`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from atlas_schema.errors import EvidenceError


class BaseStates:
    """Float32 states `[P, d]` of every (protected layer, window); fixed size per entry."""

    def __init__(self, folder: Path, windows: int, positions: int, width: int) -> None:
        self._folder, self._windows = folder, windows
        self._entry = positions * width * 4
        self._known: set[tuple[int, int]] = set()
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed on exit
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def has(self, place: int, window: int) -> bool:
        """Whether the entry of the `place`-th protected layer and `window`-th window was written."""
        return (place, window) in self._known

    def put(self, place: int, window: int, z: npt.NDArray[np.float32]) -> None:
        """Write one entry, `[P * d]` values."""
        try:
            os.pwrite(self._file.fileno(), z.astype("<f4").tobytes(), self._offset(place, window))
        except OSError as error:
            raise self._unwritable(error) from error
        self._known.add((place, window))

    def get(self, place: int, window: int) -> bytes:
        """Read one entry that was written."""
        return os.pread(self._file.fileno(), self._entry, self._offset(place, window))

    def _offset(self, place: int, window: int) -> int:
        return (place * self._windows + window) * self._entry

    def _unwritable(self, error: OSError) -> EvidenceError:
        return EvidenceError(
            "A scratch file beside the evidence cannot be written; what was committed before is kept.",
            where=str(self._folder), found=error.strerror or str(error),
            todo="free space on the disk and run the same command again: it resumes",
        )  # fmt: skip
