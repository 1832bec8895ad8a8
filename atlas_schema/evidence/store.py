"""The technician's working store: one DuckDB file per study, written in transactions.

A file belongs to one pre-registration. Opening it for another is refused, so that evidence of two studies never mixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.columns import Rows, conform, from_arrow
from atlas_schema.evidence.source import Partition, whole
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims
from atlas_schema.limits import LIMITS

STUDY_DDL = (
    "CREATE TABLE IF NOT EXISTS atlas_study (preregistration VARCHAR, d INTEGER, E INTEGER, k INTEGER, P INTEGER)"
)


class EvidenceStore:
    """An open evidence file. Implements `EvidenceSource` for reading; `append` inside `transaction` for writing."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, dims: Dims, preregistration: str) -> None:
        self.path, self.dims, self.preregistration_digest = path, dims, preregistration
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, preregistration_digest: str, dims: Dims) -> EvidenceStore:
        """Open or create the store of one study. Raises `UsageError` where the file holds another study."""
        connection = _connect(path, read_only=False)
        try:
            present = _study(connection)
            if present is None:
                if _user_tables(connection):
                    raise UsageError("This DuckDB file is not an evidence store.", where=str(path),
                                     expected="a new file or one made by 'atlas extract'", found="other tables",
                                     todo="name another file with --evidence")  # fmt: skip
                connection.execute("BEGIN")
                connection.execute(STUDY_DDL)
                connection.execute("INSERT INTO atlas_study VALUES (?, ?, ?, ?, ?)",
                                   [preregistration_digest, dims.d, dims.E, dims.k, dims.P])  # fmt: skip
                for name in STUDY_TABLES:
                    connection.execute(TABLES[name].ddl(dims))
                connection.execute("COMMIT")
            else:
                _require_same(path, present, preregistration_digest, dims)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, dims, preregistration_digest)

    @classmethod
    def open_existing(cls, path: Path) -> EvidenceStore:
        """Open a store that exists, for reading only.

        Raises `EvidenceError` where the file holds more than tables: a view in the place of one reads other files, and the
        store of a pilot or a study may be somebody else's.
        """
        if not path.is_file():
            raise UsageError("There is no evidence file here.", where=str(path),
                             todo="check the path, or make evidence with 'atlas extract'")  # fmt: skip
        _require_no_code(path)
        connection = _connect(path, read_only=True)
        present = _study(connection)
        if present is None:
            connection.close()
            raise UsageError("This DuckDB file is not an evidence store.", where=str(path),
                             expected="a file made by 'atlas extract' or 'atlas evidence import'")  # fmt: skip
        return cls(path, connection, present[1], present[0])

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> EvidenceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group writes: all of them are kept, or none. A failed write (full disk) leaves what was committed before."""
        try:
            self._connection.execute("BEGIN")
            yield
            self._connection.execute("COMMIT")
        except duckdb.Error as error:
            self._rollback()
            raise EvidenceError(
                "The evidence could not be written; what was committed before is kept.", where=str(self.path),
                found=str(error).splitlines()[0], todo="free space on the disk and run the same command again: it resumes",
            ) from error  # fmt: skip
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except duckdb.Error:
            # Nothing to roll back: DuckDB has already abandoned the transaction that failed.
            return

    def append(self, table: str, rows: pa.Table) -> None:
        """Insert rows of the declared schema. Call inside `transaction`."""
        spec = TABLES[table]
        expected = spec.arrow_schema(self.dims)
        if rows.schema.names != expected.names:
            raise EvidenceError(f"Rows for table {table} have other columns than declared.",
                                expected=", ".join(expected.names), found=", ".join(rows.schema.names))  # fmt: skip
        self._connection.register("incoming", conform(rows, expected, f"table {table}"))
        try:
            self._connection.execute(f'INSERT INTO "{table}" SELECT * FROM incoming')  # names from TABLES only
        finally:
            self._connection.unregister("incoming")

    def has_cell(self, table: str, **key: str | int) -> bool:
        """Return whether any row has these values in key columns of the table."""
        where, values = _where(table, key)
        # Results are always fetched to their end: DuckDB refuses a relation while a result is open.
        return bool(self._connection.execute(f'SELECT 1 FROM "{table}"{where} LIMIT 1', values).fetchall())

    def count(self, table: str, **key: str | int) -> int:
        """Return the number of rows that have these values in key columns of the table."""
        where, values = _where(table, key)
        rows = self._connection.execute(f'SELECT count(*) FROM "{table}"{where}', values).fetchall()
        return int(rows[0][0])

    def arrow(self, table: str, **key: str | int) -> pa.Table:
        """Return rows as Arrow, sorted by key, cast to the declared schema."""
        where, values = _where(table, key)
        order = ", ".join(f'"{name}"' for name in TABLES[table].key)
        relation = self._connection.sql(f'SELECT * FROM "{table}"{where} ORDER BY {order}', params=values)
        rows: pa.Table = relation.to_arrow_table().cast(TABLES[table].arrow_schema(self.dims))
        return rows

    def partitions(self, table: str) -> list[Partition]:
        keys = TABLES[table].partition
        if not keys:
            return [()] if self.has_cell(table) else []
        names = ", ".join(f'"{name}"' for name in keys)
        found = self._connection.execute(f'SELECT DISTINCT {names} FROM "{table}"').fetchall()
        return sorted(found)

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        return whole(self, wanted)

    def read(self, table: str, partition: Partition) -> Rows:
        spec = TABLES[table]
        key = dict(zip(spec.partition, partition, strict=False))
        return from_arrow(spec, self.dims, self.arrow(table, **key))


def _where(table: str, key: dict[str, str | int]) -> tuple[str, list[str | int]]:
    unknown = set(key) - set(TABLES[table].key)
    if unknown:
        raise EvidenceError(f"Table {table} has no key column {', '.join(sorted(unknown))}.")
    clause = " AND ".join(f'"{name}" = ?' for name in key)
    return (f" WHERE {clause}" if clause else ""), list(key.values())


def _connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as error:
        raise _unopened(path, error) from error


def _unopened(path: Path, error: duckdb.Error) -> UsageError:
    return UsageError("The evidence file cannot be opened.", where=str(path), found=str(error).splitlines()[0],
                      todo="check the path, and that no other process has the file open")  # fmt: skip


def _require_no_code(path: Path) -> None:
    """Look at the catalogue from a session of its own, in which nothing that the file stores is in force."""
    from atlas_schema.evidence.unpack import require_no_code, session

    try:
        with session(path, LIMITS) as connection:
            require_no_code(connection, LIMITS)
    except duckdb.Error as error:
        raise _unopened(path, error) from error


def _user_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]


def _study(connection: duckdb.DuckDBPyConnection) -> tuple[str, Dims] | None:
    if "atlas_study" not in _user_tables(connection):
        return None
    rows = connection.execute("SELECT preregistration, d, E, k, P FROM atlas_study").fetchall()
    return (rows[0][0], Dims(*rows[0][1:])) if rows else None


def _require_same(path: Path, present: tuple[str, Dims], digest: str, dims: Dims) -> None:
    if present[0] != digest:
        raise UsageError("This evidence file already holds another study.", where=str(path),
                         expected=f"pre-registration {digest}", found=f"pre-registration {present[0]}",
                         todo="name another file with --evidence; evidence of two studies is never mixed")  # fmt: skip
    if present[1] != dims:
        raise UsageError("This evidence file was made for a model of other sizes.", where=str(path),
                         expected=str(dims), found=str(present[1]))  # fmt: skip
