"""Rows as NumPy columns: the only form in which measures, digests and checks see evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas_schema.errors import EvidenceError, RowsError
from atlas_schema.evidence.tables import ColumnSpec, Dims, TableSpec

Array = npt.NDArray[Any]

_NUMPY = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4", "f64": "<f8", "bool": "|b1"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``n`` rows.

    ``values`` is ``[n]`` (scalars, strings as Python objects), ``[n, width]`` (fixed lists) or the concatenated values of
    variable lists, delimited by ``offsets`` ``[n + 1]``. ``valid`` is ``[n]`` for nullable columns; null rows hold zeros.
    Strings also have ``codes`` ``[n]`` into ``texts``, their distinct values in ascending order of code point.
    """

    values: Array
    valid: npt.NDArray[np.bool_] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    codes: npt.NDArray[np.int64] | None = None
    texts: tuple[str, ...] = ()

    def take(self, rows: Array) -> Column:
        """Return the given rows, in the given order (not for variable lists with reordering beyond a gather)."""
        valid = None if self.valid is None else self.valid[rows]
        if self.offsets is None:
            codes = None if self.codes is None else self.codes[rows]
            return Column(self.values[rows], valid, None, codes, self.texts)
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Column(self.values[starts + np.arange(offsets[-1])], valid, offsets)

    def slice(self, start: int, stop: int) -> Column:
        """Return rows ``[start, stop)`` as views."""
        valid = None if self.valid is None else self.valid[start:stop]
        codes = None if self.codes is None else self.codes[start:stop]
        if self.offsets is None:
            return Column(self.values[start:stop], valid, None, codes, self.texts)
        offsets = self.offsets[start : stop + 1]
        return Column(self.values[offsets[0] : offsets[-1]], valid, offsets - offsets[0])


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table, sorted by its key."""

    spec: TableSpec
    n: int
    columns: dict[str, Column]

    @property
    def nbytes(self) -> int:
        """Bytes that the columns hold, references for strings."""
        return sum(
            part.nbytes
            for c in self.columns.values()
            for part in (c.values, c.valid, c.offsets, c.codes)
            if part is not None
        )

    def __getitem__(self, name: str) -> Array:
        return self.columns[name].values

    def valid(self, name: str) -> npt.NDArray[np.bool_]:
        """Return the validity mask ``[n]`` of a column; all true where the column is not nullable."""
        mask = self.columns[name].valid
        return np.ones(self.n, dtype=np.bool_) if mask is None else mask

    def offsets(self, name: str) -> npt.NDArray[np.int64]:
        """Return the row delimiters ``[n + 1]`` of a variable-list column."""
        offsets = self.columns[name].offsets
        if offsets is None:
            raise EvidenceError(f"Column {self.spec.name}.{name} is not a list of variable size.")
        return offsets

    def take(self, rows: Array) -> Rows:
        return Rows(self.spec, len(rows), {name: column.take(rows) for name, column in self.columns.items()})

    def slice(self, start: int, stop: int) -> Rows:
        """Return rows ``[start, stop)`` as views of these."""
        if (start, stop) == (0, self.n):
            return self
        return Rows(self.spec, stop - start, {name: column.slice(start, stop) for name, column in self.columns.items()})


def conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Return rows cast to the declared schema. Raises `RowsError` for nulls where none may stand and lossy casts.

    That a list of fixed size has it is for the caller to see.
    """
    try:
        return table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        field = _unfit(table, schema)
        place, kind = (
            (where, "the declared columns") if field is None else (f"{where}, column {field.name}", str(field.type))
        )
        expected = kind if field is None or field.nullable else f"{kind}, no value missing"
        raise RowsError("A value is missing or does not fit its column.", where=place, expected=expected,
                        found=str(error).splitlines()[0],
                        todo="find what made it: nothing is rounded, cut or filled in") from error  # fmt: skip


def _unfit(table: pa.Table, schema: pa.Schema) -> pa.Field | None:
    """Return the first column that cannot be cast, None where it is not one by itself."""
    if table.schema.names != schema.names:
        return None
    for field in schema:
        try:
            table.select([field.name]).cast(pa.schema([field]))
        except (pa.ArrowException, ValueError):
            return field
    return None


def from_arrow(spec: TableSpec, dims: Dims, table: pa.Table) -> Rows:
    """Convert an Arrow table of the declared schema to sorted `Rows`.

    Strings may come dictionary-encoded. Raises `RowsError` for nulls where none may stand, non-finite floats, and
    duplicate keys. Does not check ranges: those are rules of verification.
    """
    columns = {c.name: _column(spec, c, dims, table.column(c.name)) for c in spec.columns}
    rows = Rows(spec, table.num_rows, columns)
    order = sort_order(rows)
    return rows if order is None else rows.take(order)


def key_codes(rows: Rows) -> list[npt.NDArray[np.int64]]:
    """Return one integer array ``[n]`` per key column whose order is the order of the key (strings by code point)."""
    codes = []
    for name in rows.spec.key:
        column = rows.columns[name]
        codes.append(column.values.astype(np.int64) if column.codes is None else column.codes)
    return codes


def sort_order(rows: Rows) -> Array | None:
    """Return the permutation that sorts rows by key, or None where they are sorted. Raises on duplicate keys."""
    if rows.n < 2:
        return None
    codes = key_codes(rows)
    if _ascending(codes):
        return None
    order = np.lexsort(codes[::-1])
    same = np.ones(rows.n - 1, dtype=np.bool_)
    for code in codes:
        ordered = code[order]
        same &= ordered[1:] == ordered[:-1]
    if same.any():
        at = int(order[int(np.flatnonzero(same)[0])])
        key = ", ".join(f"{name}={rows[name][at]}" for name in rows.spec.key)
        raise RowsError("Two rows have the same key.", where=f"table {rows.spec.name}, {key}",
                            expected="each key once", found=f"{int(same.sum()) + 1} or more rows")  # fmt: skip
    return order


def _ascending(codes: Sequence[npt.NDArray[np.int64]]) -> bool:
    """Return whether keys rise strictly from row to row; what an export writes, and cheaper to see than to sort."""
    rises = np.zeros(len(codes[0]) - 1, dtype=np.bool_)
    for code in reversed(codes):
        step = code[1:] - code[:-1]
        rises = (step > 0) | ((step == 0) & rises)
    return bool(rises.all())


def _column(spec: TableSpec, column: ColumnSpec, dims: Dims, chunked: pa.ChunkedArray) -> Column:
    array = chunked.combine_chunks() if chunked.num_chunks != 1 else chunked.chunk(0)
    if pa.types.is_dictionary(array.type) and array.dictionary.null_count:
        array = array.dictionary_decode()  # a null may hide in the dictionary, where it is not counted
    where = f"table {spec.name}, column {column.name}"
    valid = None
    if column.nullable:
        valid = array.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    elif array.null_count:
        raise RowsError("A value is missing.", where=where, expected="no nulls", found=f"{array.null_count} nulls")
    if column.type == "str":
        return _strings(array, valid)
    if column.shape == "":
        return Column(_numbers(array.fill_null(0) if array.null_count else array, column, where), valid)
    if column.shape == "*":
        offsets = np.asarray(array.offsets.to_numpy(), dtype=np.int64)
        flat = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])) if len(offsets) else array.values
        return Column(_numbers(flat, column, where), valid, offsets - offsets[0])
    width = dims.of(column.shape)
    if valid is not None and not valid.any():
        return Column(np.zeros((len(array), width), dtype=_NUMPY[column.type]), valid)
    flat = array.values.slice(array.offset * width, len(array) * width)
    if valid is not None and not valid.all():
        # The slots behind a null row hold arbitrary bytes; they are content of nothing and read as zeros.
        present = flat.is_valid().to_numpy(zero_copy_only=False).reshape(len(array), width)
        if not present[valid].all():
            raise RowsError("A list holds a missing value.", where=where, expected="values only")
        flat = flat.fill_null(False if column.type == "bool" else 0)
        values = _numbers(flat, column, where, finite=False).reshape(len(array), width).copy()
        values[~valid] = 0
        _require_finite(values, where)
        return Column(values, valid)
    return Column(_numbers(flat, column, where).reshape(len(array), width), valid)


def _strings(array: pa.Array, valid: npt.NDArray[np.bool_] | None) -> Column:
    """Number the distinct strings in order, so that sorting and hashing touch each only once.

    A dictionary that came with the file may hold a string twice, or one that no row has; neither stays.
    """
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    found = ["" if text is None else text for text in encoded.dictionary.to_pylist()]
    indices = encoded.indices
    if indices.null_count:
        indices, found = indices.cast(pa.int64()).fill_null(len(found)), [*found, ""]
    at = indices.to_numpy(zero_copy_only=False).astype(np.int64)
    present = np.flatnonzero(np.bincount(at, minlength=len(found)))
    texts = tuple(sorted({found[i] for i in present}))
    number = {text: i for i, text in enumerate(texts)}
    rank = np.array([number.get(text, 0) for text in found], dtype=np.int64)
    codes = rank[at]
    return Column(np.array(texts, dtype=object)[codes], valid, None, codes, texts)


def _numbers(array: pa.Array, column: ColumnSpec, where: str, *, finite: bool = True) -> Array:
    if array.null_count:
        raise RowsError("A list holds a missing value.", where=where, expected="numbers only")
    values = np.ascontiguousarray(array.to_numpy(zero_copy_only=False), dtype=_NUMPY[column.type])
    if finite:
        _require_finite(values, where)
    return values


def _require_finite(values: Array, where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RowsError("A number is not finite.", where=where, expected="finite numbers", found="NaN or infinity",
                            todo="find what produced it and extract again; such rows support no statistic")  # fmt: skip
