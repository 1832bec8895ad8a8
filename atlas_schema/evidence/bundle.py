"""The form of exchange: one Parquet file per table, read without trusting it.

Reading refuses, before decoding, a file whose schema is not the declared one or whose row groups would not fit the limits.
Export writes rows in key order, in row groups of a few windows, cut at the same windows in every table. Reading does not
rely on it: rows in another order take a slower way, which holds whole partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.columns import Array, Rows, conform, from_arrow
from atlas_schema.evidence.preflight import (
    Gathered,
    open_folder,
    open_regular,
    open_table,
    preflight,
    require_short,
    sizes_of,
)
from atlas_schema.evidence.source import Partition
from atlas_schema.evidence.streaming import Chunk, ahead, aligned
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims, TableSpec
from atlas_schema.limits import LIMITS, Limits

if TYPE_CHECKING:
    from atlas_schema.evidence.store import EvidenceStore


GROUP_BYTES = 2 * 2**20
"""Decoded bytes of the widest table per row group of an export: what reading holds per partition side by side."""


CODABLE = frozenset({"PLAIN", "RLE", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "BIT_PACKED"})
"""Encodings of texts that pyarrow decodes into a dictionary."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one partition inside a row group: ``[start, stop)``, or scattered (``rows``). ``first`` and ``last`` window."""

    group: int
    start: int
    stop: int
    first: str
    last: str
    ordered: bool
    rows: Array | None = None


class ParquetBundle:
    """A folder ``TABLE.parquet``. Implements `EvidenceSource`.

    Raises `EvidenceError` on opening for missing, extra, unreadable or oversized files and for undeclared schemas.
    """

    def __init__(self, folder: Path, limits: Limits = LIMITS, *, shown: Path | None = None) -> None:
        self.folder = shown or folder  # what messages name; every file is opened here once, and its path not used again
        self._limits = limits
        streams = open_folder(folder, self.folder)
        self._files = {
            name: open_table(streams[name], self._shown(name), TABLES[name], limits) for name in STUDY_TABLES
        }
        self._sizes = sizes_of(self.folder, self._files, limits)
        self.dims = Dims(*(max(1, size) for size in self._sizes))  # of what no row has, any size gives the same digests
        for name, file in self._files.items():
            preflight(self._shown(name), TABLES[name], file, streams[name], self.dims, limits)
        # Text columns are read as numbers into a dictionary; preflight has seen the declared types.
        self._readers = {name: _coding(streams[name], file) for name, file in self._files.items()}
        self._schemas = {name: _encoded(TABLES[name].arrow_schema(self.dims)) for name in STUDY_TABLES}
        self._lock = Lock()
        self._shared: dict[str, tuple[int, pa.Table]] = {}
        self._kept: dict[tuple[str, Partition], Rows] = {}
        self._kept_bytes = 0
        self._index = {name: self._pieces(name) for name in STUDY_TABLES}

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
            rows = self._whole(table, partition)
            self._kept[key] = rows
            self._kept_bytes += rows.nbytes
            while self._kept_bytes > self._limits.kept_bytes and len(self._kept) > 1:
                self._kept_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return self._kept[key]

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        nothing = [from_arrow(TABLES[table], self.dims, self._schemas[table].empty_table()) for table, _ in wanted]
        parts = [self._chunks(table, partition) for table, partition in wanted]
        return ahead(aligned(parts, nothing, self._limits.block_bytes, str(self.folder)))

    def _chunks(self, table: str, partition: Partition) -> Iterator[Chunk]:
        """Yield a partition row group by row group where its windows stand in order, else in one piece."""
        pieces = self._index[table].get(partition, [])
        follows = all(a.last <= b.first for a, b in pairwise(pieces))
        if "window_id" not in TABLES[table].leaf or not follows or not all(p.ordered for p in pieces):
            yield self._whole(table, partition), None
            return
        for at, piece in enumerate(pieces):
            last = at + 1 == len(pieces)
            yield self._rows_of(table, [piece]), None if last else pieces[at + 1].first

    def _whole(self, table: str, partition: Partition) -> Rows:
        index = self._index[table]
        if len(partition) == len(TABLES[table].partition):
            return self._rows_of(table, index.get(partition, []))
        return self._rows_of(table, [p for key in index if key[: len(partition)] == partition for p in index[key]])

    def _rows_of(self, table: str, pieces: list[_Piece]) -> Rows:
        parts, gathered = [], Gathered(str(self._shown(table)), self._limits)
        for piece in sorted(pieces, key=lambda p: (p.group, p.start)):
            rows = self._group(table, piece.group, keep=piece.stop - piece.start < self._group_rows(table, piece.group))
            part = rows.slice(piece.start, piece.stop - piece.start) if piece.rows is None else rows.take(piece.rows)
            parts.append(gathered.add(part))
        return from_arrow(
            TABLES[table], self.dims, pa.concat_tables(parts) if parts else self._schemas[table].empty_table()
        )

    def _keys(self, table: str, names: list[str]) -> pa.Schema:
        """Return the declared schema of key columns, in which nulls are told by those who look for keys."""
        return pa.schema([self._schemas[table].field(name).with_nullable(True) for name in names])

    def _group_rows(self, table: str, group: int) -> int:
        return int(self._files[table].metadata.row_group(group).num_rows)

    def _group(self, table: str, group: int, *, keep: bool = False) -> pa.Table:
        """Decode one row group. One that holds several partitions is kept until another of its table is read."""
        with self._lock:
            shared = self._shared.get(table)
            if shared is not None and shared[0] == group:
                return shared[1]
            rows = _decoded(self._shown(table), self._readers[table], group)
            where = f"{self._shown(table)}, row group {group}"
            require_short(rows, TABLES[table], self.dims, where, self._limits)
            made = conform(rows, self._schemas[table], where)
            if keep and made.nbytes <= self._limits.kept_bytes:
                self._shared[table] = (group, made)
            return made

    def _pieces(self, table: str) -> dict[Partition, list[_Piece]]:
        """Find which rows of which row groups hold which partitions, from the key columns, not from the footer."""
        spec = TABLES[table]
        names = [name for name in spec.key if name in (*spec.partition, "window_id")]
        index: dict[Partition, list[_Piece]] = {}
        pieces = 0
        for group in range(self._files[table].metadata.num_row_groups):
            if not spec.partition:
                count = self._group_rows(table, group)
                index.setdefault((), []).append(_Piece(group, 0, count, "", "", False))
                continue
            keys = _decoded(self._shown(table), self._readers[table], group, names)
            keys = conform(keys, self._keys(table, names), f"{self._shown(table)}, row group {group}")
            for partition, piece in _split(table, spec, group, keys, self._limits.pieces):
                index.setdefault(partition, []).append(piece)
                pieces += 1
            _require_few(pieces, f"{self._shown(table)}, row groups to {group}", self._limits.pieces)
        return index


def _require_few(found: int, where: str, most: int) -> None:
    if found > most:
        raise EvidenceError("The keys of a table name more runs and layers than the limits allow.", where=where,
                            expected=f"at most {most}", found=f"{found} or more", rule="ATL-A021")  # fmt: skip


def _split(table: str, spec: TableSpec, group: int, keys: pa.Table, most: int) -> Iterator[tuple[Partition, _Piece]]:
    """Yield the partitions of a row group from its key columns, at most ``most``."""
    if keys.num_rows == 0:
        return
    columns = [_coded(table, spec, keys.column(name), most) for name in spec.partition]
    windows: Array | None = None
    texts: list[str] = []
    if "window_id" in keys.column_names:
        windows, texts = _coded(table, spec, keys.column("window_id"), max(most, keys.num_rows))
    number, sizes = np.zeros(keys.num_rows, dtype=np.int64), 1
    for codes, known in columns:
        number, sizes = number * len(known) + codes, sizes * len(known)
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    distinct = np.unique(number[starts])
    _require_few(len(distinct), f"{table}.parquet, row group {group}", most)
    scattered = len(distinct) < len(starts)
    order = np.argsort(number, kind="stable") if scattered else None
    starts = starts if order is None else np.searchsorted(number[order], distinct)
    edges = [*starts.tolist(), keys.num_rows]
    for at, value in enumerate(distinct if scattered else number[starts]):
        rows = None if order is None else order[edges[at] : edges[at + 1]]
        start, stop = (0, len(rows)) if rows is not None else (edges[at], edges[at + 1])
        mine = windows if windows is None else windows[start:stop] if rows is None else windows[rows]
        key, rest = [], int(value)
        for _, known in reversed(columns):
            rest, digit = divmod(rest, len(known))
            key.append(known[digit])
        first, last = ("", "") if mine is None else (texts[int(mine.min())], texts[int(mine.max())])
        ordered = rows is None and mine is not None and bool((mine[1:] >= mine[:-1]).all())
        yield tuple(reversed(key)), _Piece(group, start, stop, first, last, ordered, rows)


def _coded(table: str, spec: TableSpec, column: pa.ChunkedArray, most: int) -> tuple[Array, list[Any]]:
    """Return numbers of a key column's values whose order is that of the values, and the values, ``most`` of them."""
    array = column.combine_chunks()
    array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    if array.null_count or array.dictionary.null_count:
        raise EvidenceError("A key is missing.", where=f"{table}.parquet", expected=", ".join(spec.key))
    _require_few(len(array.dictionary), f"{table}.parquet", most)
    found = array.dictionary.to_pylist()
    values = sorted(set(found))
    place = {value: i for i, value in enumerate(values)}
    return np.array([place[v] for v in found], dtype=np.int64)[array.indices.to_numpy().astype(np.int64)], values


def _coding(stream: BinaryIO, file: pq.ParquetFile) -> pq.ParquetFile:
    """Return another reader of the same open file, which keeps texts as numbers into a dictionary where it can."""
    groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
    texts = [
        field.name for at, field in enumerate(file.schema_arrow)
        if pa.types.is_string(field.type) and all(CODABLE.issuperset(g.column(at).encodings) for g in groups)
    ]  # fmt: skip
    return pq.ParquetFile(stream, metadata=file.metadata, read_dictionary=texts)


def _encoded(schema: pa.Schema) -> pa.Schema:
    """Return the schema with text columns as dictionaries."""
    coded = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([f.with_type(coded) if pa.types.is_string(f.type) else f for f in schema])


def read_table(path: Path, spec: TableSpec, dims: Dims, limits: Limits) -> pa.Table:
    """Decode one file that is not part of a study's bundle, as strictly. Raises `EvidenceError`."""
    stream = open_regular(path, path)
    file = open_table(stream, path, spec, limits)
    preflight(path, spec, file, stream, dims, limits)
    schema = spec.arrow_schema(dims)
    groups, gathered = list[pa.Table](), Gathered(str(path), limits)
    for group in range(file.metadata.num_row_groups):
        rows = _decoded(path, file, group)
        require_short(rows, spec, dims, f"{path}, row group {group}", limits)
        groups.append(gathered.add(conform(rows, schema, f"{path}, row group {group}")))
    return pa.concat_tables(groups) if groups else schema.empty_table()


def export_bundle(store: EvidenceStore, folder: Path) -> None:
    """Write every table of the store as Parquet. The folder must not exist or be empty."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("The bundle folder is not empty.", where=str(folder),
                         todo="name a new folder: a bundle holds the tables of one study and nothing else")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    cuts = _cuts(store)
    for name in STUDY_TABLES:
        spec = TABLES[name]
        try:
            with table_writer(folder, name, store.dims) as writer:
                for partition in store.partitions(name):
                    key = dict(zip(spec.partition, partition, strict=True))
                    for part in _cut(store.arrow(name, **key), spec, cuts):
                        writer.write_table(part, row_group_size=2**30)
        except OSError as error:
            raise EvidenceError("The bundle could not be written.", where=str(folder / f"{name}.parquet"), found=str(error),
                                todo="free space on the disk, remove the folder and export again") from error  # fmt: skip


def table_writer(folder: Path, name: str, dims: Dims) -> pq.ParquetWriter:
    """Open the Parquet file of one table for writing. Levels of zstd hardly differ in size, and not in the time to read."""
    spec = TABLES[name]
    floats = [_leaf_path(c.name, c.shape) for c in spec.columns if c.type in ("f32", "f64")]
    others = [_leaf_path(c.name, c.shape) for c in spec.columns if c.type not in ("f32", "f64")]
    return pq.ParquetWriter(folder / f"{name}.parquet", spec.arrow_schema(dims), compression="zstd", compression_level=3,
                            use_dictionary=others, use_byte_stream_split=floats)  # fmt: skip


def _cuts(store: EvidenceStore) -> list[str]:
    """Return the windows at which every table starts a new row group, so that the widest table's fit `GROUP_BYTES`."""
    windows = sorted(store.arrow("window").column("window_id").to_pylist())
    widest = 1
    for name in STUDY_TABLES:
        if "window_id" in TABLES[name].leaf and TABLES[name].partition:
            for partition in store.partitions(name)[:1]:
                rows = store.arrow(name, **dict(zip(TABLES[name].partition, partition, strict=True)))
                widest = max(widest, rows.nbytes // max(1, len(windows)))
    return windows[:: max(1, GROUP_BYTES // widest)][1:]


def _cut(rows: pa.Table, spec: TableSpec, cuts: list[str]) -> Iterator[pa.Table]:
    """Yield sorted rows in pieces that start at the given windows."""
    edges = [0, rows.num_rows]
    if "window_id" in spec.leaf and spec.partition:
        windows = rows.column("window_id").to_numpy()
        edges = sorted({0, rows.num_rows, *np.searchsorted(windows, cuts).tolist()})
    for start, stop in pairwise(edges):
        yield rows.slice(start, stop - start)


def import_bundle(folder: Path, database: Path, preregistration_digest: str) -> None:
    """Load a bundle into a new store. The content, and so every digest, stays the same."""
    from atlas_schema.evidence.store import EvidenceStore  # reading a bundle needs no database

    bundle = ParquetBundle(folder)
    if database.exists():
        raise UsageError("The evidence file already exists.", where=str(database), todo="name a new file")
    if 0 in bundle._sizes:
        raise UsageError("This bundle has no rows that show the sizes of a model.", where=str(folder),
                         expected="rows of windows, and of states or of layers and routing",
                         todo="extract into a new file: there is nothing to go on from")  # fmt: skip
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
