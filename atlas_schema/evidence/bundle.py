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
from atlas_schema.evidence.source import Partition
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, WIDTH_BYTES, Dims, TableSpec
from atlas_schema.limits import LIMITS, Limits

if TYPE_CHECKING:
    from atlas_schema.evidence.store import EvidenceStore


class ParquetBundle:
    """A folder ``TABLE.parquet``. Implements `EvidenceSource`.

    Raises `EvidenceError` on opening for missing, extra, unreadable or oversized files and for undeclared schemas.
    """

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.folder = folder
        self._limits = limits
        _require_closed_folder(folder)
        self._files = {name: _open(folder / f"{name}.parquet") for name in STUDY_TABLES}
        self.dims = _dims(folder, {name: file.schema_arrow for name, file in self._files.items()}, limits)
        for name, file in self._files.items():
            _preflight(folder / f"{name}.parquet", TABLES[name], file, self.dims, limits)
        self._index = {name: self._row_groups(name) for name in STUDY_TABLES}
        self._cached: tuple[str, int, pa.Table] | None = None
        self._kept: dict[tuple[str, Partition], Rows] = {}
        self._kept_bytes = 0

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
        pieces = [_matching(self._group(table, group), spec, partition) for group in groups]
        empty = spec.arrow_schema(self.dims).empty_table()
        rows = pa.concat_tables(pieces) if pieces else empty
        return from_arrow(spec, self.dims, rows)

    def _group(self, table: str, group: int) -> pa.Table:
        """Decode one row group; the last one is kept, since one group may hold several partitions."""
        if self._cached is None or self._cached[:2] != (table, group):
            self._cached = None
            rows = _decoded(self.folder / f"{table}.parquet", self._files[table], group)
            expected = TABLES[table].arrow_schema(self.dims)
            if not _same_types(rows.schema, expected):
                raise EvidenceError("Decoded columns differ from the declared ones.", where=f"{table}.parquet",
                                    expected=_describe(expected), found=_describe(rows.schema))  # fmt: skip
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
            keys = _decoded(self.folder / f"{table}.parquet", file, group, list(spec.partition))
            distinct = keys.group_by(list(spec.partition)).aggregate([]).to_pydict()
            for key in zip(*(distinct[name] for name in spec.partition), strict=True):
                if None in key:
                    raise EvidenceError(
                        "A key is missing.", where=f"{table}.parquet", expected=", ".join(spec.partition)
                    )
                index.setdefault(key, []).append(group)
        return index


def open_table(path: Path, spec: TableSpec, dims: Dims, limits: Limits) -> pq.ParquetFile:
    """Open one table's file and check columns and sizes before anything is decoded. Raises `EvidenceError`."""
    file = _open(path)
    _preflight(path, spec, file, dims, limits)
    return file


def read_groups(path: Path, spec: TableSpec, file: pq.ParquetFile, dims: Dims) -> pa.Table:
    """Decode a file that `open_table` admitted."""
    schema = spec.arrow_schema(dims)
    groups = [conform(_decoded(path, file, group), schema, path.name) for group in range(file.metadata.num_row_groups)]
    return pa.concat_tables(groups) if groups else schema.empty_table()


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


def _require_closed_folder(folder: Path) -> None:
    if folder.suffix == ".duckdb" or folder.is_file():
        raise UsageError("Evidence is verified from a Parquet bundle, not from a database file.", where=str(folder),
                         todo=f"atlas evidence export {folder} BUNDLE, then --evidence BUNDLE")  # fmt: skip
    if not folder.is_dir():
        raise UsageError("There is no evidence bundle here.", where=str(folder),
                         todo="give the folder of Parquet files with --evidence")  # fmt: skip
    expected = {f"{name}.parquet" for name in STUDY_TABLES}
    found = {entry.name for entry in folder.iterdir()}
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        raise EvidenceError(
            "The bundle is not exactly the declared tables.", where=str(folder), expected=f"{len(expected)} Parquet files",
            found="; ".join(t for t in (f"missing {', '.join(missing)}" if missing else "",
                                        f"extra {', '.join(extra)}" if extra else "") if t),
            todo="obtain the whole bundle as exported, with nothing added",
        )  # fmt: skip
    for entry in folder.iterdir():
        if entry.is_symlink() or not entry.is_file():
            raise EvidenceError("A bundle holds regular files only.", where=str(entry), found="a link or a folder")


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError("This Parquet file cannot be read.", where=str(path), found=str(error).partition("\n")[0],
                            todo="it is truncated or damaged: obtain the bundle again") from error  # fmt: skip


def _decoded(path: Path, file: pq.ParquetFile, group: int, columns: list[str] | None = None) -> pa.Table:
    try:
        rows = file.read_row_group(group, columns=columns, use_threads=False)
        rows.validate(full=True)  # text is UTF-8 and lists lie inside their values: Arrow does not look by itself
        return rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError("This Parquet file cannot be decoded.", where=f"{path}, row group {group}",
                            found=str(error).partition("\n")[0], todo="it is damaged: obtain the bundle again") from error  # fmt: skip


def _dims(folder: Path, schemas: dict[str, pa.Schema], limits: Limits) -> Dims:
    def size(table: str, column: str) -> int:
        schema = schemas[table]
        kind = schema.field(column).type if column in schema.names else None
        if kind is None or not pa.types.is_fixed_size_list(kind):
            raise EvidenceError("A column is not a list of fixed size.", where=f"{folder / table}.parquet, column {column}",
                                expected="a fixed-size list", found=str(kind))  # fmt: skip
        if not 0 < kind.list_size <= limits.dimension:
            raise EvidenceError("A list size is out of bounds.", where=f"{folder / table}.parquet, column {column}",
                                expected=f"1 to {limits.dimension}", found=str(kind.list_size))  # fmt: skip
        return int(kind.list_size)

    return Dims(size("state", "z"), size("state", "dispatch"), size("state", "weights"), size("window", "positions"))


def _preflight(path: Path, spec: TableSpec, file: pq.ParquetFile, dims: Dims, limits: Limits) -> None:
    expected = spec.arrow_schema(dims)
    if not _same_types(file.schema_arrow, expected):
        raise EvidenceError("This table does not have the declared columns.", where=str(path),
                            expected=_describe(expected), found=_describe(file.schema_arrow))  # fmt: skip
    metadata = file.metadata
    if metadata.num_rows > limits.table_rows or metadata.num_row_groups > limits.row_groups:
        raise EvidenceError("This table is larger than the limits allow.", where=str(path),
                            expected=f"at most {limits.table_rows} rows in {limits.row_groups} row groups",
                            found=f"{metadata.num_rows} rows in {metadata.num_row_groups}")  # fmt: skip
    width = sum(WIDTH_BYTES[c.type] * max(1, dims.of(c.shape)) for c in spec.columns)
    for group in range(metadata.num_row_groups):
        needed = metadata.row_group(group).num_rows * width
        if needed > limits.row_group_bytes:
            raise EvidenceError("A row group is larger than the limits allow.", where=f"{path}, row group {group}",
                                expected=f"at most {limits.row_group_bytes} bytes", found=f"{needed} bytes",
                                todo="export the bundle with one row group per run and layer")  # fmt: skip


def _same_types(found: pa.Schema, expected: pa.Schema) -> bool:
    """Compare names, order and value types; field names inside lists and nullability flags vary by writer."""
    return found.names == expected.names and all(
        _shape(a) == _shape(b) for a, b in zip(found.types, expected.types, strict=True)
    )


def _shape(kind: pa.DataType) -> tuple[object, ...]:
    if pa.types.is_fixed_size_list(kind):
        return ("fixed", kind.list_size, kind.value_type)
    if pa.types.is_list(kind):
        return ("list", kind.value_type)
    return ("scalar", kind)


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _matching(rows: pa.Table, spec: TableSpec, partition: Partition) -> pa.Table:
    """Keep the rows of one partition."""
    mask = None
    for name, value in zip(spec.partition, partition, strict=False):
        equal = pc.equal(rows.column(name), value)
        mask = equal if mask is None else pc.and_(mask, equal)
    return rows if mask is None else rows.filter(mask)
