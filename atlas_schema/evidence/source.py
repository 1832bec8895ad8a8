"""What measures and verification read evidence from: a Parquet bundle or the technician's store, partition by partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.digest import EvidenceDigester, Partition, TableRoot
from atlas_schema.evidence.tables import STUDY_TABLES, Dims

__all__ = ["EvidenceSource", "Partition", "read_all", "table_root", "table_roots", "whole"]


class EvidenceSource(Protocol):
    """Sorted rows of the declared tables. Memory is bounded by one partition, not by the evidence."""

    @property
    def dims(self) -> Dims: ...

    def partitions(self, table: str) -> list[Partition]:
        """Return the partitions that hold rows, in key order."""
        ...

    def read(self, table: str, partition: Partition) -> Rows:
        """Return the rows of one partition, sorted by key; no rows where the partition is absent."""
        ...

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        """Yield the rows of several partitions side by side, a run of windows at a time.

        All parts of one block cover the same range of window ids, in ascending order; a part may be empty. Blocks are cut
        at windows, so the concatenation of all blocks gives each partition, and no window is split. Memory is bounded by
        one block.
        """
        ...


def whole(source: EvidenceSource, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
    """Implement `EvidenceSource.blocks` with a single block, for sources that hold little."""
    yield tuple(source.read(table, partition) for table, partition in wanted)


def read_all(source: EvidenceSource, table: str) -> Rows:
    """Return a table that has no partitions (`window`), or `run` as a whole."""
    return source.read(table, ())


def table_root(source: EvidenceSource, table: str) -> TableRoot:
    """Digest one table, a block at a time."""
    digester = EvidenceDigester(source.dims)
    for partition in source.partitions(table):
        for (rows,) in source.blocks([(table, partition)]):
            digester.add(table, partition, rows)
    return digester.root(table)


def table_roots(source: EvidenceSource) -> list[TableRoot]:
    """Digest every table of a study, in order of declaration."""
    return [table_root(source, table) for table in STUDY_TABLES]
