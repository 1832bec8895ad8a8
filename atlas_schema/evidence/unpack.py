"""Takes the tables out of a DuckDB file that somebody else wrote. Runs in the confined process of `worker.py` only.

A DuckDB file is code: a macro named ``avg`` shadows the built-in, a view reads files, a default calls functions. So the file
is attached read-only under an alias to a clean session in memory, without external access, extensions or settings; its
catalogue must equal, entry by entry, that of a database made here from the declared tables; and only then are base
tables read, each by its full name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.store import STUDY_DDL
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, WIDTH_BYTES, Dims, TableSpec
from atlas_schema.limits import Limits

CATALOGUE = {
    "schema": "duckdb_schemas", "view": "duckdb_views", "macro": "duckdb_functions", "type": "duckdb_types",
    "sequence": "duckdb_sequences", "index": "duckdb_indexes", "trigger": "duckdb_triggers",
    "coordinate system": "duckdb_coordinate_systems", "table": "duckdb_tables", "constraint": "duckdb_constraints",
    "column": "duckdb_columns",
}  # fmt: skip
"""Every kind of entry that a database can hold, and the table function that lists it."""
CODE = ("schema", "view", "macro", "type", "sequence", "index", "trigger", "coordinate system")
"""Kinds of which a submitted file holds nothing of its own."""
_FORMAT_ONLY = ("database_name", "estimated_size", "index_count", "constraint_index", "has_primary_key")
_BATCH_BYTES = 64 * 2**20
_SHOWN = 5

Entry = tuple[str, str]
"""Name and everything else that the catalogue says of an entry."""


def session(database: Path, limits: Limits) -> duckdb.DuckDBPyConnection:
    """Attach the file as ``submitted`` and an empty database as ``declared``; then lock everything."""
    connection = duckdb.connect(":memory:", config={
        "threads": 1, "memory_limit": f"{limits.worker_memory // 4 // 2**20}MiB", "temp_directory": "",
        "autoload_known_extensions": False, "autoinstall_known_extensions": False, "allow_community_extensions": False,
        "allow_unsigned_extensions": False, "allow_persistent_secrets": False, "secret_directory": str(database.parent),
    })  # fmt: skip
    quoted = str(database).replace("'", "''")
    connection.execute("ATTACH ':memory:' AS declared")
    connection.execute(f"ATTACH '{quoted}' AS submitted (READ_ONLY, TYPE duckdb)")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def unpack(connection: duckdb.DuckDBPyConnection, folder: Path, limits: Limits) -> None:
    """Hold the catalogue to the declared one and write every table as Parquet. Raises `EvidenceError`."""
    require_no_code(connection, limits)
    dims = _require_declared(connection, limits)
    for name in STUDY_TABLES:
        _copy(connection, TABLES[name], dims, folder / f"{name}.parquet", limits)


def require_no_code(connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
    """Refuse a submitted catalogue with entries of its own that are no tables (A023). Looks at tables themselves not at all."""
    for kind in CODE:
        own = _entries(connection, kind, "submitted", limits) - _entries(connection, kind, "declared", limits)
        if own:
            raise EvidenceError("The DuckDB file holds more than tables.", found=_named(kind, own),
                                expected="base tables only: no macro, view, type, sequence, index, trigger or further schema",
                                todo="ask for the Parquet bundle, or for the file as 'atlas extract' wrote it",
                                rule="ATL-A023")  # fmt: skip


def _require_declared(connection: duckdb.DuckDBPyConnection, limits: Limits) -> Dims:
    """Compare tables, columns and constraints with the declared ones; return the sizes that the file states."""
    found, wanted = _tables(connection, "submitted"), {"atlas_study", *STUDY_TABLES}
    if found != wanted:
        missing, extra = sorted(wanted - found), sorted(found - wanted)
        raise _undeclared("tables", missing, extra)
    connection.execute(f"USE declared; {STUDY_DDL}")
    _require_equal(connection, "atlas_study", limits)
    rows = connection.sql('SELECT d, "E", k, "P" FROM submitted.main.atlas_study LIMIT 2').fetchall()
    sizes = rows[0] if len(rows) == 1 else ()
    bounded = all(isinstance(size, int) and 0 < size <= limits.dimension for size in sizes)
    if not sizes or not bounded or sizes[0] * sizes[1] > limits.router_values:
        raise EvidenceError("The DuckDB file does not state the sizes of one study.", where="table atlas_study",
                            expected=f"one row of numbers from 1 to {limits.dimension}", found=str(rows)[:200],
                            rule="ATL-A024")  # fmt: skip
    dims = Dims(*sizes)
    for name in STUDY_TABLES:
        connection.execute(TABLES[name].ddl(dims))
    for name in STUDY_TABLES:
        _require_equal(connection, name, limits)
    return dims


def _require_equal(connection: duckdb.DuckDBPyConnection, table: str, limits: Limits) -> None:
    for kind in ("column", "constraint", "table"):
        found, wanted = (_entries(connection, kind, side, limits, table) for side in ("submitted", "declared"))
        if found != wanted:
            expected, present = _differing(dict(wanted - found), dict(found - wanted))
            raise _undeclared(f"{kind}s of table {table}", expected, present)


def _differing(wanted: dict[str, str], found: dict[str, str]) -> tuple[list[str], list[str]]:
    """Say of each entry that differs only what differs; of one that stands on one side only, what it is."""

    def said(own: dict[str, str], other: dict[str, str]) -> list[str]:
        lines = []
        for name in sorted(own):
            mine, theirs = json.loads(own[name]), json.loads(other.get(name, "{}"))
            apart = {k: v for k, v in mine.items() if k in theirs and theirs[k] != v}
            shown = apart or {k: mine[k] for k in ("constraint_text", "data_type") if mine.get(k)}
            lines.append(f"{name} ({', '.join(f'{k} {json.dumps(v)}' for k, v in shown.items())})")
        return lines

    return said(wanted, found), said(found, wanted)


def _undeclared(what: str, missing: list[str], extra: list[str]) -> EvidenceError:
    return EvidenceError(f"The {what} of the DuckDB file are not the declared ones.", rule="ATL-A024",
                         expected=_few(missing) or "nothing besides the others", found=_few(extra) or "they are missing",
                         todo="ask for the Parquet bundle, or for the file as 'atlas extract' wrote it")  # fmt: skip


def _tables(connection: duckdb.DuckDBPyConnection, side: str) -> set[str]:
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = ? LIMIT 1000"
    found = connection.execute(query, [side]).fetchall()
    return {row[0] for row in found}


def _entries(
    connection: duckdb.DuckDBPyConnection, kind: str, side: str, limits: Limits, table: str | None = None
) -> set[Entry]:
    """List the entries of one kind, without the numbers that only say where the catalogue keeps them."""
    function = CATALOGUE[kind]
    if function not in _listable():
        return set()  # a kind that this DuckDB does not have
    of_table = "" if table is None else " AND table_name = ?"
    listed = connection.sql(
        f"SELECT * FROM {function}() WHERE database_name = ?{of_table} LIMIT {limits.catalogue_entries + 1}",
        params=[side] if table is None else [side, table],
    )
    columns, rows = listed.columns, listed.fetchall()
    if len(rows) > limits.catalogue_entries:
        raise EvidenceError("The DuckDB file holds too many entries.", rule="ATL-A023",
                            expected=f"at most {limits.catalogue_entries} of a kind", found=f"more, of kind {kind}")  # fmt: skip
    entries = set()
    for row in rows:
        said = {n: v for n, v in zip(columns, row, strict=True) if not n.endswith("oid") and n not in _FORMAT_ONLY}
        name = next((str(said[n]) for n in (f"{kind}_name", "function_name", "constraint_text") if said.get(n)), "?")
        entries.add((name, json.dumps(said, default=str, sort_keys=True)))
    return entries


@cache
def _listable() -> frozenset[str]:
    """Return which of the listing functions this DuckDB has, asked of a database of its own: it lists thousands of them."""
    with duckdb.connect(":memory:") as own:
        names = own.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table'")
        return frozenset(CATALOGUE.values()) & {name for (name,) in names.fetchall()}


def _named(kind: str, entries: set[Entry]) -> str:
    return _few([f"{kind} {name}" for name, _ in sorted(entries)])


def _few(names: list[str]) -> str:
    shown = [name if len(name) <= 200 else f"{name[:200]}..." for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _copy(connection: duckdb.DuckDBPyConnection, spec: TableSpec, dims: Dims, target: Path, limits: Limits) -> None:
    """Write one table, partition by partition, in batches of bounded size. Nulls pass: reading the bundle refuses them."""
    source = f'submitted.main."{spec.name}"'  # names come from TABLES only
    rows = int(connection.sql(f"SELECT count(*) FROM {source}").fetchall()[0][0])
    width = sum(WIDTH_BYTES[c.type] * max(1, dims.of(c.shape)) for c in spec.columns)
    if rows > min(limits.table_rows, limits.table_bytes // width):
        raise EvidenceError(
            "This table is larger than the limits allow.", where=f"table {spec.name}", found=f"{rows} rows of {width} bytes",
            expected=f"at most {limits.table_rows} rows and {limits.table_bytes} bytes",
        )  # fmt: skip
    schema = pa.schema([pa.field(c.name, c.arrow_type(dims)) for c in spec.columns])
    columns = ", ".join(f'"{c.name}"' for c in spec.columns)
    with pq.ParquetWriter(target, schema, compression="lz4") as writer:
        for clause, key in _partitions(connection, spec, source):
            relation = connection.sql(f"SELECT {columns} FROM {source}{clause}", params=key)
            with relation.to_arrow_reader(max(1, _BATCH_BYTES // width)) as reader:
                for batch in reader:
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def _partitions(
    connection: duckdb.DuckDBPyConnection, spec: TableSpec, source: str
) -> Iterator[tuple[str, list[str | int | None]]]:
    if not spec.partition:
        yield "", []
        return
    names = ", ".join(f'"{name}"' for name in spec.partition)
    clause = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in spec.partition)
    for key in connection.sql(f"SELECT DISTINCT {names} FROM {source} ORDER BY ALL").fetchall():
        yield f" WHERE {clause}", list(key)
