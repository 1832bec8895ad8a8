"""Table `overlap` of one run: which pairs, then their sums, streamed over chunks of windows.

Sums are added in the order of the planned windows, chunk by chunk, so a run that is interrupted and run again gives the
same numbers. One layer of one run is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas_extractors.routing.overlap import SUMS, most_visited
from atlas_extractors.routing.rows import overlap_rows
from atlas_schema.evidence.tables import Dims

CHUNK = 64  # windows whose states are sent at a time

States = Callable[[Sequence[int]], bytes]
"""The base's states of some windows, float32 `[windows * P, d]`."""


class Caller(Protocol):
    """The parent's end of a worker."""

    hello: dict[str, Any]

    def call(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> tuple[dict[str, Any], Any]: ...


def base_pairs(
    worker: Caller, layer: int, states: States, windows: int, number: int
) -> tuple[list[tuple[int, int]], npt.NDArray[np.int64]]:
    """The `number` most visited ordered pairs of a layer of the base, and their visits."""
    counts: npt.NDArray[np.int64] | None = None
    for members in _chunks(windows):
        reply, _ = worker.call({"op": "visits", "layer": layer}, [states(members)])
        part = np.array(reply["counts"], dtype=np.int64)
        counts = part if counts is None else counts + part
    if counts is None:
        raise ValueError("a study has windows")
    pairs = most_visited(counts, number)
    return pairs, np.array([counts[pair] for pair in pairs], dtype=np.int64)


def pair_rows(
    worker: Caller, run_id: str, layer: int, dims: Dims, states: States, windows: int,
    pairs: Sequence[tuple[int, int]], visits: npt.NDArray[np.int64],
) -> pa.Table:  # fmt: skip
    """The rows of one layer, a group of pairs at a time: the worker holds the maps of one group."""
    facts: list[tuple[int, float | None]] = []
    sums = np.zeros((len(pairs), SUMS))
    size = int(worker.hello["pairs_at_a_time"])
    for start in range(0, len(pairs), size):
        request = {"layer": layer, "pairs": pairs[start : start + size]}
        for members in _chunks(windows):
            reply, _ = worker.call({"op": "overlap", **request}, [states(members)])
            sums[start : start + size] += np.array(reply["sums"])
        reply, _ = worker.call({"op": "maps", **request})
        facts += [(int(rank), condition) for rank, condition in reply["facts"]]
    return overlap_rows(run_id, layer, dims, pairs, visits, facts, sums)


def _chunks(windows: int) -> Iterator[Sequence[int]]:
    for start in range(0, windows, CHUNK):
        yield range(start, min(start + CHUNK, windows))
