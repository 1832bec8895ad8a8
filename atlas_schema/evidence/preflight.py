"""What is refused of a Parquet bundle before one of its values is decoded.

A decoder believes the headers of pages, and a footer of a few hundred bytes can promise gigabytes. So every file is opened
once, without following links; the footer must fit the declared tables and the limits; and the header of every page is read
and must agree with the footer. What is then decoded, from the same open file, has a size that was known before.

Not checked: that a file is left alone while it is read. Whoever can write to the bundle during a verification can change
what is decoded; the digests are of what was decoded.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.footer import require_sound_footer
from atlas_schema.evidence.pages import Chunk, PageError, Pages, at_column, walk
from atlas_schema.evidence.tables import STUDY_TABLES, WIDTH_BYTES, ColumnSpec, Dims, TableSpec
from atlas_schema.limits import Limits

_DAMAGED = "the file is damaged, or was changed after it was written: obtain it again, or export the same rows anew"
_LEVELS_BYTES = 4
"""Repetition and definition level of one value of a list or a nullable column, as the decoder holds them."""


def open_folder(folder: Path, shown: Path) -> dict[str, BinaryIO]:
    """Open the file of every table, each once and for good. Raises where the folder is not exactly the declared tables."""
    if folder.is_file():
        raise UsageError("Evidence is a folder of Parquet files or one DuckDB file.", where=str(shown), found="another file",
                         todo="give the folder, or a file whose name ends in .duckdb, with --evidence")  # fmt: skip
    if not folder.is_dir():
        raise UsageError("There is no evidence bundle here.", where=str(shown),
                         todo="give the folder of Parquet files with --evidence")  # fmt: skip
    expected = {f"{name}.parquet" for name in STUDY_TABLES}
    with os.scandir(folder) as entries:
        found = {entry.name for entry in islice(entries, 4 * len(expected))}
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)[:10]
        raise EvidenceError(
            "The bundle is not exactly the declared tables.", where=str(shown), expected=f"{len(expected)} Parquet files",
            found="; ".join(t for t in (f"missing {', '.join(missing)}" if missing else "",
                                        f"extra {', '.join(extra)}" if extra else "") if t),
            todo="obtain the whole bundle as exported, with nothing added", rule="ATL-B001",
        )  # fmt: skip
    return {name: open_regular(folder / f"{name}.parquet", shown / f"{name}.parquet") for name in STUDY_TABLES}


def open_regular(path: Path, shown: Path) -> BinaryIO:
    """Open a file that is neither link, pipe nor device; a pipe does not make the opening wait."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        what = "A bundle holds regular files only." if path.is_symlink() else "This Parquet file cannot be read."
        found = "a link" if path.is_symlink() else error.strerror or str(error)
        raise EvidenceError(what, where=str(shown), found=found, todo="obtain the bundle as exported, without links",
                            rule="ATL-A022" if path.is_symlink() else "ATL-A002") from error  # fmt: skip
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise EvidenceError("A bundle holds regular files only.", where=str(shown), found="a folder, pipe or device",
                            todo="obtain the bundle as exported", rule="ATL-A022")  # fmt: skip
    return os.fdopen(descriptor, "rb")


def open_table(stream: BinaryIO, shown: Path, limits: Limits) -> pq.ParquetFile:
    """Read the footer of one file, once its stated length fits the limits."""
    size = os.fstat(stream.fileno()).st_size
    tail = os.pread(stream.fileno(), 8, max(0, size - 8))
    if len(tail) == 8 and tail[4:] == b"PAR1" and (stated := struct.unpack("<I", tail[:4])[0]) > limits.footer_bytes:
        raise EvidenceError("The footer is larger than the limits allow.", where=str(shown), found=f"{stated} bytes",
                            expected=f"at most {limits.footer_bytes} bytes")  # fmt: skip
    try:
        return pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError("This Parquet file cannot be read.", where=str(shown), found=str(error).partition("\n")[0],
                            todo="it is truncated or damaged: obtain the bundle again") from error  # fmt: skip


def dims_of(folder: Path, schemas: dict[str, pa.Schema], limits: Limits) -> Dims:
    """Return the sizes that the schemas declare, each within the limits."""

    def size(table: str, column: str) -> int:
        schema = schemas[table]
        kind = schema.field(column).type if schema.names.count(column) == 1 else None
        if kind is None or not pa.types.is_fixed_size_list(kind):
            raise EvidenceError("A column is not a list of fixed size.", where=f"{folder / table}.parquet, column {column}",
                                expected="a fixed-size list", found=_short(str(kind)))  # fmt: skip
        if not 0 < kind.list_size <= limits.dimension:
            raise EvidenceError("A list size is out of bounds.", where=f"{folder / table}.parquet, column {column}",
                                expected=f"1 to {limits.dimension}", found=str(kind.list_size))  # fmt: skip
        return int(kind.list_size)

    dims = Dims(size("state", "z"), size("state", "dispatch"), size("state", "weights"), size("window", "positions"))
    if dims.E * dims.d > limits.router_values:
        raise EvidenceError("Hidden size times experts is out of bounds.", where=str(folder),
                            expected=f"at most {limits.router_values}", found=str(dims.E * dims.d))  # fmt: skip
    return dims


def preflight(shown: Path, spec: TableSpec, file: pq.ParquetFile, stream: BinaryIO, dims: Dims, limits: Limits) -> None:
    """Hold footer and page headers of one file to the declared table, to each other and to the limits."""
    expected = spec.arrow_schema(dims)
    coded = any(pa.types.is_dictionary(kind) for kind in file.schema_arrow.types)
    if coded or not same_types(file.schema_arrow, expected) or file.metadata.num_columns != len(spec.columns):
        at, declared, there = _first_difference(file.schema_arrow, expected)
        raise EvidenceError("This table does not have the declared columns.", where=f"{shown}, column {at}",
                            expected=declared, found=_short(there), todo="obtain the bundle as 'atlas evidence export' wrote it")  # fmt: skip
    metadata = file.metadata
    width = sum(WIDTH_BYTES[c.type] * max(1, dims.of(c.shape)) for c in spec.columns)
    if (metadata.num_rows > min(limits.table_rows, limits.table_bytes // width)
            or metadata.num_row_groups > limits.row_groups):  # fmt: skip
        raise EvidenceError(
            "This table is larger than the limits allow.", where=str(shown),
            expected=f"at most {limits.table_rows} rows and {limits.table_bytes} bytes in {limits.row_groups} row groups",
            found=f"{metadata.num_rows} rows of {width} bytes in {metadata.num_row_groups}",
        )  # fmt: skip
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if rows > limits.group_rows or rows * width > limits.row_group_bytes:
            raise _too_large(f"{shown}, row group {group}", rows * width, limits)
    try:
        require_sound_footer(stream, metadata, limits)
        _require_agreement(shown, spec, metadata, stream, dims, limits)
    except PageError as error:
        place = f"{shown}, {error.where}" if error.where else str(shown)
        raise EvidenceError("The pages of this Parquet file contradict its footer, or are not read here.", where=place,
                            expected=error.expected, found=str(error), todo=error.todo or _DAMAGED, rule="ATL-A020") from error  # fmt: skip


def _require_agreement(
    shown: Path, spec: TableSpec, metadata: pq.FileMetaData, stream: BinaryIO, dims: Dims, limits: Limits
) -> None:
    """Walk every page; add up what a row group takes when decoded. Raises `PageError`, or `EvidenceError` for sizes."""
    expected = spec.arrow_schema(dims)
    descriptor, pages, rows, taken, sizes = stream.fileno(), 0, 0, [], []
    size = os.fstat(descriptor).st_size
    for group in range(metadata.num_row_groups):
        stated = metadata.row_group(group)
        rows += stated.num_rows
        needed = texts = 0
        for at, column in enumerate(spec.columns):
            try:
                chunk = _chunk(stated.column(at), size)
                _require_count(column, dims, stated.num_rows, chunk.values, limits)
                found = walk(descriptor, chunk, limits.pages, pages)
            except PageError as error:
                raise at_column(error, group, f"{column.name} ({expected.field(column.name).type})") from error
            pages += found.count
            taken.append((chunk.start, chunk.start + chunk.length))
            needed += _decoded_bytes(column, chunk, found)
            texts += chunk.values * min(found.dictionary_bytes, limits.text_bytes) if column.type == "str" else 0
        if needed > limits.row_group_bytes:
            raise _too_large(f"{shown}, row group {group}", needed, limits)
        sizes.append((needed, texts))
    if rows != metadata.num_rows:
        raise PageError(f"row groups hold {rows} rows", expected=f"{metadata.num_rows}, as the footer says")
    taken.sort()
    if any(a[1] > b[0] for a, b in pairwise(taken)):
        raise PageError(
            "two columns share the same bytes", expected="bytes of its own for every column of every row group"
        )
    for group, (needed, texts) in enumerate(sizes):
        # At most, every row holds the longest text. Only where that would be too much are the texts looked at.
        if needed + texts > limits.row_group_bytes:
            total = needed + _text_bytes(shown, spec, stream, group)
            if total > limits.row_group_bytes:
                raise _too_large(f"{shown}, row group {group}", total, limits)


def _chunk(stated: pq.ColumnChunkMetaData, size: int) -> Chunk:
    """Return where a decoder will read this chunk."""
    if stated.file_path:
        raise PageError("the column lies in another file", expected="all of a table in one file")
    start, dictionary = stated.data_page_offset, stated.dictionary_page_offset
    if stated.has_dictionary_page and dictionary is not None and 0 < dictionary < start:
        start = dictionary
    length = stated.total_compressed_size
    if stated.num_values == 0:
        return Chunk(0, 0, 0)  # no page is read; writers state any offset
    if start < 4 or length < 0 or start + length > size:
        raise PageError(
            f"the column has {length} bytes from {start} on", expected=f"bytes of the file, which ends at {size}"
        )
    return Chunk(start, length, stated.num_values)


def _require_count(column: ColumnSpec, dims: Dims, rows: int, values: int, limits: Limits) -> None:
    most = rows * (limits.list_values if column.shape == "*" else max(1, dims.of(column.shape)))
    if not rows <= values <= most:
        each = f"{most // rows} or fewer a row" if rows > 0 and column.shape else "one a row"
        long = column.shape == "*" and values > most
        raise PageError(f"{values} values in {rows} rows", expected=each, todo="no list may be longer" if long else "")


def _decoded_bytes(column: ColumnSpec, chunk: Chunk, pages: Pages) -> int:
    """Return at most how many bytes a chunk takes when decoded: raw pages, levels, values; not what a dictionary repeats."""
    levels = _LEVELS_BYTES * chunk.values if column.nullable or column.shape else 0
    return pages.data_bytes + pages.dictionary_bytes + levels + WIDTH_BYTES[column.type] * chunk.values


def _text_bytes(shown: Path, spec: TableSpec, stream: BinaryIO, group: int) -> int:
    """Return how many bytes the texts of a row group take once every index stands for its text. Expands none of them."""
    names = [c.name for c in spec.columns if c.type == "str"]
    try:
        rows = pq.ParquetFile(stream, read_dictionary=names).read_row_group(group, columns=names, use_threads=False)
        total = 0
        for chunk in (chunk for column in rows.columns for chunk in column.chunks):
            total += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
        return int(total)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError("This Parquet file cannot be decoded.", where=f"{shown}, row group {group}",
                            found=str(error).partition("\n")[0], todo="it is damaged: obtain the bundle again") from error  # fmt: skip


def require_short(rows: pa.Table, where: str, limits: Limits) -> None:
    """Refuse decoded rows that hold a longer list or text than the limits allow."""
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        coded = pa.types.is_dictionary(column.type)
        text = coded or pa.types.is_string(column.type)
        if not (text or pa.types.is_list(column.type)):
            continue
        if coded:
            longest = max((pc.max(pc.binary_length(c.dictionary)).as_py() or 0 for c in column.chunks), default=0)
        else:
            longest = pc.max(pc.binary_length(column) if text else pc.list_value_length(column)).as_py() or 0
        most = limits.text_bytes if text else limits.list_values
        if longest > most:
            raise EvidenceError(f"A {'text' if text else 'list'} is longer than the limits allow.",
                                where=f"{where}, column {name}", expected=f"at most {most} {'bytes' if text else 'values'}",
                                found=str(longest), rule="ATL-A021")  # fmt: skip


@dataclass(slots=True)
class Gathered:
    """How much of one run and layer was gathered from row groups so far; more than one row group may hold is refused."""

    where: str
    limits: Limits
    rows: int = 0
    size: int = 0

    def add(self, piece: pa.Table) -> pa.Table:
        """Count one more piece and return it. Raises `EvidenceError`."""
        self.rows, self.size = self.rows + piece.num_rows, self.size + piece.nbytes
        if self.rows > self.limits.group_rows or self.size > self.limits.row_group_bytes:
            raise EvidenceError("The rows of one run and layer are more than the limits allow.", where=self.where,
                                expected=f"at most {self.limits.group_rows} rows and {self.limits.row_group_bytes} bytes",
                                found=f"{self.rows} rows and {self.size} bytes or more", rule="ATL-A021")  # fmt: skip
        return piece


def same_types(found: pa.Schema, expected: pa.Schema) -> bool:
    """Compare names, order and value types; field names inside lists and nullability flags vary by writer."""
    return found.names == expected.names and all(
        _shape(a) == _shape(b) for a, b in zip(found.types, expected.types, strict=True)
    )


def _first_difference(found: pa.Schema, expected: pa.Schema) -> tuple[int, str, str]:
    """Return the number of the first column that differs, counted from 1, and what is declared and found there."""
    for at in range(max(len(found), len(expected))):
        there, declared = ([schema.field(at)] if at < len(schema) else [] for schema in (found, expected))
        if (
            not there
            or not declared
            or there[0].name != declared[0].name
            or _shape(there[0].type) != _shape(declared[0].type)
        ):
            one, other = (
                f"{field[0].name} {field[0].type}" if field else "no more columns" for field in (declared, there)
            )
            return at + 1, one, other
    return 1, describe(expected), describe(found)


def describe(schema: pa.Schema) -> str:
    """Return columns and types in one line."""
    return ", ".join(f"{field.name} {field.type}" for field in islice(schema, 64))


def _too_large(where: str, needed: int, limits: Limits) -> EvidenceError:
    return EvidenceError("A row group is larger than the limits allow.", where=where,
                         expected=f"at most {limits.group_rows} rows and {limits.row_group_bytes} bytes",
                         found=f"{needed} bytes or more",
                         todo="export the bundle with one row group per run and layer")  # fmt: skip


def _shape(kind: pa.DataType) -> tuple[object, ...]:
    if pa.types.is_fixed_size_list(kind):
        return ("fixed", kind.list_size, kind.value_type)
    if pa.types.is_list(kind):
        return ("list", kind.value_type)
    return ("text",) if _is_text(kind) else ("scalar", kind)


def _is_text(kind: pa.DataType) -> bool:
    """Texts are read as they are, or as numbers into a dictionary of them."""
    return bool(pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _short(text: str) -> str:
    return text if len(text) <= 2000 else f"{text[:2000]}..."
