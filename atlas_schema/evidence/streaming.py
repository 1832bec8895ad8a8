"""Several partitions side by side, a run of windows at a time: where blocks are cut, and reading ahead."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.columns import Column, Rows, sort_order

T = TypeVar("T")
Chunk = tuple[Rows, str | None]
"""Sorted rows of a partition, and the window from which on more may come; None where nothing more comes."""


def aligned(
    parts: Sequence[Iterator[Chunk]], nothing: Sequence[Rows], most: int, where: str
) -> Iterator[tuple[Rows, ...]]:
    """Cut partitions at the same windows. ``nothing`` gives each part without rows. Holds one chunk per part.

    Chunks of a part come in ascending order of window; one window may lie in several of them. Raises `EvidenceError` where
    what is held of all parts is more than ``most`` bytes.
    """
    feeds = [_Feed(part, empty) for part, empty in zip(parts, nothing, strict=True)]
    ended = False
    while not ended:
        for feed in feeds:
            feed.fill()
            _require_held(feeds, most, where)
        bound = min((f.bound for f in feeds if f.bound is not None), default=None)
        ended = bound is None
        yield tuple(feed.take(bound) for feed in feeds)


def _require_held(feeds: Sequence[_Feed], most: int, where: str) -> None:
    held = sum(feed.nbytes for feed in feeds)
    if held > most:
        raise EvidenceError("The rows of all runs that lie side by side are more than the limits allow.", where=where,
                            expected=f"at most {most} bytes", found=f"{held} bytes or more", rule="ATL-A021",
                            todo="export the bundle with smaller row groups, cut at the same windows in every table")  # fmt: skip


class _Feed:
    """Rows of one partition that were read and not yet given away."""

    def __init__(self, chunks: Iterator[Chunk], empty: Rows) -> None:
        self._chunks, self._empty = chunks, empty
        self._rows = empty
        self.bound: str | None = ""

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def fill(self) -> None:
        """Read until some window is complete, or nothing more comes."""
        while self.bound is not None and self._before(self.bound) == 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.bound = None
                return
            rows, self.bound = chunk
            self._rows = joined(self._rows, rows)

    def take(self, bound: str | None) -> Rows:
        """Give away the windows before a bound."""
        at = self._rows.n if bound is None else self._before(bound)
        taken, self._rows = self._rows.slice(0, at), self._rows.slice(at, self._rows.n)
        if self._rows.n == 0:
            self._rows = self._empty
        return taken

    def _before(self, bound: str) -> int:
        column = self._rows.columns.get("window_id")
        if column is None or column.codes is None:
            return 0
        codes = column.codes
        return int(np.searchsorted(codes, bisect_left(column.texts, bound)))


def joined(first: Rows, second: Rows) -> Rows:
    """Return rows of two chunks of one partition, sorted by key. Raises `RowsError` where both hold a key."""
    if first.n == 0:
        return second
    if second.n == 0:
        return first
    columns = {name: _joined(first.columns[name], second.columns[name]) for name in first.columns}
    rows = Rows(first.spec, first.n + second.n, columns)
    order = sort_order(rows)
    return rows if order is None else rows.take(order)


def _joined(a: Column, b: Column) -> Column:
    values = np.concatenate([a.values, b.values])
    valid = None if a.valid is None or b.valid is None else np.concatenate([a.valid, b.valid])
    if a.offsets is not None and b.offsets is not None:
        return Column(values, valid, np.concatenate([a.offsets, b.offsets[1:] + a.offsets[-1]]))
    if a.codes is None or b.codes is None:
        return Column(values, valid)
    texts = tuple(sorted({*a.texts, *b.texts}))
    number = {text: i for i, text in enumerate(texts)}
    codes = [np.array([number[t] for t in c.texts], dtype=np.int64)[c.codes] for c in (a, b)]
    return Column(values, valid, None, np.concatenate(codes), texts)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, the next one being made in another thread meanwhile; by turns on one processor.

    What the iterator raises is raised here, at the same place. Holds one item more.
    """
    if processors() < 2:
        yield from items
        return
    with ThreadPoolExecutor(1) as pool:
        end = object()
        coming = pool.submit(next, items, end)
        while True:
            item = coming.result()
            if item is end:
                return
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
