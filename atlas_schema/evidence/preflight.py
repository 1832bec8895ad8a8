"""What is refused of a Parquet bundle before one of its values is decoded."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.tables import STUDY_TABLES, WIDTH_BYTES, Dims, TableSpec
from atlas_schema.limits import Limits


def require_closed_folder(folder: Path) -> None:
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


def open_table(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError("This Parquet file cannot be read.", where=str(path), found=str(error).partition("\n")[0],
                            todo="it is truncated or damaged: obtain the bundle again") from error  # fmt: skip


def dims_of(folder: Path, schemas: dict[str, pa.Schema], limits: Limits) -> Dims:
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


def preflight(path: Path, spec: TableSpec, file: pq.ParquetFile, dims: Dims, limits: Limits) -> None:
    expected = spec.arrow_schema(dims)
    if not same_types(file.schema_arrow, expected):
        raise EvidenceError("This table does not have the declared columns.", where=str(path),
                            expected=describe(expected), found=describe(file.schema_arrow))  # fmt: skip
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


def same_types(found: pa.Schema, expected: pa.Schema) -> bool:
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


def describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
