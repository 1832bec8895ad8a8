"""What is refused of a Parquet bundle before one of its values is decoded.

A decoder believes the headers of pages, and a footer of a few hundred bytes can promise gigabytes. So every file is opened
once, without following links; the footer must fit the declared tables and the limits; and the header of every page is read
and must agree with the footer. What is then decoded, from the same open file, has a size that was known before.

What columns are is what Parquet's own schema says: physical and logical types. Whatever else a writer left in the footer for
its own use is not looked at, so that files of any writer with the same rows are read alike.

Not checked: that a file is left alone while it is read. Whoever can write to the bundle during a verification can change
what is decoded; the digests are of what was decoded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, pairwise, zip_longest
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError, RowsError, UsageError
from atlas_schema.evidence.footer import bare_footer, footer_size, read_metadata, require_sound_footer
from atlas_schema.evidence.pages import Chunk, PageError, Pages, at_column, walk
from atlas_schema.evidence.tables import ARROW, STUDY_TABLES, TABLES, WIDTH_BYTES, ColumnSpec, Dims, Shape, TableSpec
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


def open_table(stream: BinaryIO, shown: Path, spec: TableSpec, limits: Limits) -> pq.ParquetFile:
    """Read the footer of one file, once its stated length fits the limits, and hold it to the declared columns and to itself."""
    length = footer_size(stream)
    if length is not None and length > limits.footer_bytes:
        raise EvidenceError("The footer is larger than the limits allow.", where=str(shown), found=f"{length} bytes",
                            expected=f"at most {limits.footer_bytes} bytes")  # fmt: skip
    try:
        if length is None:
            raise ValueError("it does not end as a Parquet file does")
        raw = bare_footer(stream, length)
        file = pq.ParquetFile(stream, metadata=read_metadata(raw))
        found = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError("This Parquet file cannot be read.", where=str(shown), found=str(error).partition("\n")[0],
                            todo="it is truncated or damaged: obtain the bundle again") from error  # fmt: skip
    _require_columns(shown, spec, found, file.metadata)
    if file.metadata.num_row_groups > limits.row_groups:
        raise EvidenceError("This table is larger than the limits allow.", where=str(shown),
                            expected=f"at most {limits.row_groups} row groups", found=f"{file.metadata.num_row_groups}")  # fmt: skip
    try:
        require_sound_footer(raw, file.metadata, limits)
    except PageError as error:
        raise _contradicted(shown, error) from error
    return file


def _require_columns(shown: Path, spec: TableSpec, found: pa.Schema, metadata: pq.FileMetaData) -> None:
    for at, (column, field) in enumerate(zip_longest(spec.columns, islice(found, len(spec.columns) + 1))):
        held = column is not None and field is not None and field.name == column.name and holds(field.type, column)
        # One that holds is a single leaf of Parquet's schema, as are those before it: leaf and column have one number.
        logical = metadata.schema.column(at).logical_type.type if held and column.type == "str" else "STRING"
        if not held or logical != "STRING":
            there = f"{field.name} {field.type}" if field is not None else "no more columns"
            raise EvidenceError(
                "This table does not have the declared columns.", where=f"{shown}, column {at + 1}",
                expected=f"{column.name} {column.storage}" if column else "no more columns",
                found=_short(there if logical == "STRING" else f"{there}, of Parquet's type {logical}"),
                todo="write the declared columns in their order with their types, or obtain the bundle as it was exported",
            )  # fmt: skip


def holds(kind: pa.DataType, column: ColumnSpec) -> bool:
    """Return whether decoded values of a type can be those of a column. Integers may be of any width: their values decide."""
    if column.shape:
        if not pa.types.is_list(kind):
            return False
        kind = kind.value_type
    declared = ARROW[column.type]
    coded = pa.types.is_dictionary(kind)  # texts are decoded as they are, or as numbers into a dictionary of them
    return bool(
        pa.types.is_integer(kind) if pa.types.is_integer(declared) else (kind.value_type if coded else kind) == declared
    )


def sizes_of(folder: Path, files: Mapping[str, pq.ParquetFile], limits: Limits) -> tuple[int, ...]:
    """Return `d`, `E`, `k` and `P`, each within the limits: values by rows of the first row group that has any.

    Asks one column that is never null; 0 where no column of that size has rows. That every list has that length is seen
    when it is decoded.
    """

    def size(shape: Shape) -> int:
        for name in ("state", *STUDY_TABLES):
            for at, column in enumerate(TABLES[name].columns):
                if column.shape == shape and not column.nullable:
                    found = _list_size(
                        f"{folder / name}.parquet, column {column.name}", files[name].metadata, at, limits
                    )
                    if found:
                        return found
        return 0

    sizes = (size("d"), size("E"), size("k"), size("P"))
    if sizes[0] * sizes[1] > limits.router_values:
        raise EvidenceError("Hidden size times experts is out of bounds.", where=str(folder),
                            expected=f"at most {limits.router_values}", found=str(sizes[0] * sizes[1]))  # fmt: skip
    return sizes


def _list_size(where: str, metadata: pq.FileMetaData, at: int, limits: Limits) -> int:
    for group in range(metadata.num_row_groups):
        stated = metadata.row_group(group)
        if stated.num_rows > 0:
            values = stated.column(at).num_values
            size, rest = divmod(values, stated.num_rows)
            if rest or not 0 < size <= limits.dimension:
                raise EvidenceError("A list size is out of bounds.", where=f"{where}, row group {group}",
                                    expected=f"lists of one size, from 1 to {limits.dimension}",
                                    found=f"{values} values in {stated.num_rows} rows")  # fmt: skip
            return int(size)
    return 0


def preflight(shown: Path, spec: TableSpec, file: pq.ParquetFile, stream: BinaryIO, dims: Dims, limits: Limits) -> None:
    """Hold what an open file says of its rows, and the headers of its pages, to each other and to the limits."""
    metadata = file.metadata
    width = sum(WIDTH_BYTES[c.type] * max(1, dims.of(c.shape)) for c in spec.columns)
    if metadata.num_rows > min(limits.table_rows, limits.table_bytes // width):
        raise EvidenceError(
            "This table is larger than the limits allow.", where=str(shown), found=f"{metadata.num_rows} rows of {width} bytes",
            expected=f"at most {limits.table_rows} rows and {limits.table_bytes} bytes",
        )  # fmt: skip
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if rows > limits.group_rows or rows * width > limits.row_group_bytes:
            raise _too_large(f"{shown}, row group {group}", rows * width, limits)
    try:
        _require_agreement(shown, spec, file, stream, dims, limits)
    except PageError as error:
        raise _contradicted(shown, error) from error


def _contradicted(shown: Path, error: PageError) -> EvidenceError:
    place = f"{shown}, {error.where}" if error.where else str(shown)
    return EvidenceError("The pages of this Parquet file contradict its footer, or are not read here.", where=place,
                         expected=error.expected, found=str(error), todo=error.todo or _DAMAGED, rule="ATL-A020")  # fmt: skip


def _require_agreement(
    shown: Path, spec: TableSpec, file: pq.ParquetFile, stream: BinaryIO, dims: Dims, limits: Limits
) -> None:
    """Walk every page; add up what a row group takes when decoded. Raises `PageError`, or `EvidenceError` for sizes."""
    metadata, widths = (
        file.metadata,
        [_width(*pair) for pair in zip(spec.columns, file.schema_arrow.types, strict=True)],
    )
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
                raise at_column(error, group, f"{column.name} ({file.schema_arrow.field(at).type})") from error
            pages += found.count
            taken.append((chunk.start, chunk.start + chunk.length))
            needed += _decoded_bytes(column, widths[at], chunk, found)
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
            total = needed + _text_bytes(shown, spec, metadata, stream, group)
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


def _width(column: ColumnSpec, kind: pa.DataType) -> int:
    """Return the bytes of one value, as it is decoded or as it is declared, whichever are more."""
    item = kind.value_type if column.shape else kind
    return max(WIDTH_BYTES[column.type], 0 if column.type == "str" else item.bit_width // 8)


def _decoded_bytes(column: ColumnSpec, width: int, chunk: Chunk, pages: Pages) -> int:
    """Return at most how many bytes a chunk takes when decoded: raw pages, levels, values; not what a dictionary repeats."""
    levels = _LEVELS_BYTES * chunk.values if column.nullable or column.shape else 0
    return pages.data_bytes + pages.dictionary_bytes + levels + width * chunk.values


def _text_bytes(shown: Path, spec: TableSpec, metadata: pq.FileMetaData, stream: BinaryIO, group: int) -> int:
    """Return how many bytes the texts of a row group take once every index stands for its text. Expands none of them."""
    names = [c.name for c in spec.columns if c.type == "str"]
    try:
        file = pq.ParquetFile(stream, metadata=metadata, read_dictionary=names)
        rows = file.read_row_group(group, columns=names, use_threads=False)
        total = 0
        for chunk in (chunk for column in rows.columns for chunk in column.chunks):
            total += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
        return int(total)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError("This Parquet file cannot be decoded.", where=f"{shown}, row group {group}",
                            found=str(error).partition("\n")[0], todo="it is damaged: obtain the bundle again") from error  # fmt: skip


def require_short(rows: pa.Table, spec: TableSpec, dims: Dims, where: str, limits: Limits) -> None:
    """Refuse decoded rows that hold a longer list or text than the limits allow, or a list of another length than its column's."""
    for column, held in zip(spec.columns, rows.columns, strict=True):
        at, size = f"{where}, column {column.name}", dims.of(column.shape)
        if column.shape:
            lengths = [np.diff(chunk.offsets) for chunk in held.chunks]  # 0 where a list is null
            if size and held.null_count < len(held) and not all((found == size).all() for found in lengths):
                _require_length(held, at, size)
            if not size:
                _require_most(
                    max((found.max(initial=0) for found in lengths), default=0), at, "list", limits.list_values
                )
        elif column.type == "str":
            texts = [chunk.dictionary if pa.types.is_dictionary(held.type) else chunk for chunk in held.chunks]
            longest = max((pc.max(pc.binary_length(text)).as_py() or 0 for text in texts), default=0)
            _require_most(longest, at, "text", limits.text_bytes)


def _require_length(held: pa.ChunkedArray, where: str, size: int) -> None:
    """Raise for the first list of another length; one that is null has none."""
    lengths = pc.list_value_length(held)
    at = pc.index(pc.not_equal(lengths, size), True).as_py()
    if at >= 0:
        raise RowsError("A list has another length than the others of its column.", where=f"{where}, row {at}",
                        expected=f"{size} values", found=str(lengths[at].as_py()))  # fmt: skip


def _require_most(longest: int, where: str, what: str, most: int) -> None:
    if longest > most:
        raise EvidenceError(f"A {what} is longer than the limits allow.", where=where, found=str(longest), rule="ATL-A021",
                            expected=f"at most {most} {'bytes' if what == 'text' else 'values'}")  # fmt: skip


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


def _too_large(where: str, needed: int, limits: Limits) -> EvidenceError:
    return EvidenceError("A row group is larger than the limits allow.", where=where,
                         expected=f"at most {limits.group_rows} rows and {limits.row_group_bytes} bytes",
                         found=f"{needed} bytes or more",
                         todo="export the bundle with one row group per run and layer")  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= 2000 else f"{text[:2000]}..."
