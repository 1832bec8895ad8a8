"""The form of exchange: one Parquet file per table, read without trusting it.

Reading refuses, before decoding, a file whose schema is not the declared one or whose row groups would not fit the limits.
Export writes one row group per (run, layer); reading does not rely on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.columns import Rows, conform, from_arrow
from atlas_schema.evidence.preflight import (
    describe,
    dims_of,
    open_folder,
    open_table,
    preflight,
    require_bounded,
    require_short,
    same_types,
)
from atlas_schema.evidence.source import Partition
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, TableSpec
from atlas_schema.limits import LIMITS, Limits

if TYPE_CHECKING:
    from atlas_schema.evidence.store import EvidenceStore


class ParquetBundle:
    """A folder ``TABLE.parquet``. Implements `EvidenceSource`.

    Raises `EvidenceError` on opening for missing, extra, unreadable or oversized files and for undeclared schemas.
    """

    def __init__(self, folder: Path, limits: Limits = LIMITS, *, shown: Path | None = None) -> None:
        self.folder = shown or folder  # what messages name; every file is opened here once, and its path not used again
        self._limits = limits
        streams = open_folder(folder, self.folder)
        self._files = {name: open_table(streams[name], self._shown(name), limits) for name in STUDY_TABLES}
        self.dims = dims_of(self.folder, {name: file.schema_arrow for name, file in self._files.items()}, limits)
        for name, file in self._files.items():
            preflight(self._shown(name), TABLES[name], file, streams[name], self.dims, limits)
        self._index = {name: self._row_groups(name) for name in STUDY_TABLES}
        self._cached: tuple[str, int, pa.Table] | None = None
        self._kept: dict[tuple[str, Partition], Rows] = {}
        self._kept_bytes = 0

    def _shown(self, table: str) -> Path:
        return self.folder / f"{table}.parquet"

    def rows(self, table: str) -> int:
        return int(self._files[table].metadata.num_rows)

    def partitions(self, table: str) -> list[Partition]:
        return sorted(self._index[table])

    def read(self, table: str, partition: Partition) -> Rows:
        """Return one partition. Partitions read lately are kept, within a bound, since several checks want the same ones."""
        key = (table, partition)
        if key not in self._kept:
            rows = self._decode(table, partition)
            self._kept[key] = rows
            self._kept_bytes += rows.nbytes
            while self._kept_bytes > self._limits.kept_bytes and len(self._kept) > 1:
                self._kept_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return self._kept[key]

    def _decode(self, table: str, partition: Partition) -> Rows:
        spec = TABLES[table]
        wanted = [key for key in self._index[table] if key[: len(partition)] == partition]
        groups = sorted({group for key in wanted for group in self._index[table][key]})
        pieces: list[pa.Table] = []
        for group in groups:
            pieces.append(_matching(self._group(table, group), spec, partition))
            require_bounded(pieces, f"{self._shown(table)}, {', '.join(map(str, partition))}", self._limits)
        empty = spec.arrow_schema(self.dims).empty_table()
        rows = pa.concat_tables(pieces) if pieces else empty
        return from_arrow(spec, self.dims, rows)

    def _group(self, table: str, group: int) -> pa.Table:
        """Decode one row group; the last one is kept, since one group may hold several partitions."""
        if self._cached is None or self._cached[:2] != (table, group):
            self._cached = None
            rows = _decoded(self._shown(table), self._files[table], group)
            require_short(rows, f"{self._shown(table)}, row group {group}", self._limits)
            expected = TABLES[table].arrow_schema(self.dims)
            if not same_types(rows.schema, expected):
                raise EvidenceError("Decoded columns differ from the declared ones.", where=f"{table}.parquet",
                                    expected=describe(expected), found=describe(rows.schema))  # fmt: skip
            self._cached = (table, group, conform(rows, expected, f"{table}.parquet"))
        return self._cached[2]

    def _row_groups(self, table: str) -> dict[Partition, list[int]]:
        """Find which row groups hold which partitions, from the key columns themselves, not from the footer."""
        spec, file = TABLES[table], self._files[table]
        index: dict[Partition, list[int]] = {}
        for group in range(file.metadata.num_row_groups):
            if not spec.partition:
                index.setdefault((), []).append(group)
                continue
            keys = _decoded(self._shown(table), file, group, list(spec.partition))
            distinct = keys.group_by(list(spec.partition)).aggregate([]).to_pydict()
            for key in zip(*(distinct[name] for name in spec.partition), strict=True):
                if None in key:
                    raise EvidenceError(
                        "A key is missing.", where=f"{table}.parquet", expected=", ".join(spec.partition)
                    )
                index.setdefault(key, []).append(group)
        return index


def export_bundle(store: EvidenceStore, folder: Path) -> None:
    """Write every table of the store as Parquet. The folder must not exist or be empty."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("The bundle folder is not empty.", where=str(folder),
                         todo="name a new folder: a bundle holds the tables of one study and nothing else")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDY_TABLES:
        spec = TABLES[name]
        schema = spec.arrow_schema(store.dims)
        floats = [_leaf_path(c.name, c.shape) for c in spec.columns if c.type in ("f32", "f64")]
        others = [_leaf_path(c.name, c.shape) for c in spec.columns if c.type not in ("f32", "f64")]
        target = folder / f"{name}.parquet"
        try:
            with pq.ParquetWriter(target, schema, compression="zstd", compression_level=9, use_dictionary=others,
                                  use_byte_stream_split=floats) as writer:  # fmt: skip
                for partition in store.partitions(name):
                    key = dict(zip(spec.partition, partition, strict=True))
                    writer.write_table(store.arrow(name, **key), row_group_size=2**30)
        except OSError as error:
            raise EvidenceError("The bundle could not be written.", where=str(target), found=str(error),
                                todo="free space on the disk, remove the folder and export again") from error  # fmt: skip


def import_bundle(folder: Path, database: Path, preregistration_digest: str) -> None:
    """Load a bundle into a new store. The content, and so every digest, stays the same."""
    from atlas_schema.evidence.store import EvidenceStore  # reading a bundle needs no database

    bundle = ParquetBundle(folder)
    if database.exists():
        raise UsageError("The evidence file already exists.", where=str(database), todo="name a new file")
    with EvidenceStore.open(database, preregistration_digest=preregistration_digest, dims=bundle.dims) as store:
        for name in STUDY_TABLES:
            with store.transaction():
                for group in range(bundle._files[name].metadata.num_row_groups):
                    store.append(name, bundle._group(name, group))


def _leaf_path(name: str, shape: str) -> str:
    return name if shape == "" else f"{name}.list.element"


def _decoded(path: Path, file: pq.ParquetFile, group: int, columns: list[str] | None = None) -> pa.Table:
    try:
        rows = file.read_row_group(group, columns=columns, use_threads=False)
        rows.validate(full=True)  # text is UTF-8 and lists lie inside their values: Arrow does not look by itself
        return rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError("This Parquet file cannot be decoded.", where=f"{path}, row group {group}",
                            found=str(error).partition("\n")[0], todo="it is damaged: obtain the bundle again") from error  # fmt: skip


def _matching(rows: pa.Table, spec: TableSpec, partition: Partition) -> pa.Table:
    """Keep the rows of one partition."""
    mask = None
    for name, value in zip(spec.partition, partition, strict=False):
        equal = pc.equal(rows.column(name), value)
        mask = equal if mask is None else pc.and_(mask, equal)
    return rows if mask is None else rows.filter(mask)
