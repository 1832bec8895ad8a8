"""The rows of measurements in their form of exchange: a folder that holds `measurement_row.parquet` and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.bundle import read_table
from atlas_schema.evidence.columns import Rows, conform, from_arrow
from atlas_schema.evidence.digest import TableRoot, leaf_hashes, merkle_root
from atlas_schema.evidence.tables import TABLES, Dims
from atlas_schema.limits import LIMITS, Limits

TABLE = TABLES["measurement_row"]
FILE = f"{TABLE.name}.parquet"
DIMS = Dims(1, 1, 1, 1)
"""The table has no lists, so sizes of a model do not matter."""


def read_measured(folder: Path, limits: Limits = LIMITS) -> Rows:
    """Return the sorted rows. Raises `EvidenceError` for other files, undeclared columns, and what the limits forbid."""
    if not folder.is_dir():
        raise UsageError(
            "There is no evidence bundle here.", where=str(folder), todo=f"give the folder of {FILE} with --evidence"
        )
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in islice(entries, 8))
    if found != [FILE]:
        raise EvidenceError("The bundle is not exactly the declared tables.", where=str(folder), expected=FILE,
                            found=", ".join(found)[:300] or "nothing", todo="obtain the bundle as written, with nothing added",
                            rule="ATL-B001")  # fmt: skip
    path = folder / FILE
    return from_arrow(TABLE, DIMS, read_table(path, TABLE, DIMS, limits))


def measured_root(rows: Rows) -> TableRoot:
    """Digest the rows."""
    return TableRoot(TABLE.name, rows.n, "sha256:" + merkle_root(leaf_hashes(rows, DIMS)).hex())


def write_measured(rows: Iterable[Mapping[str, Any]], folder: Path) -> TableRoot:
    """Write rows (one mapping of column to value each) as a bundle, and return its root. The folder must be new."""
    schema = TABLE.arrow_schema(DIMS)
    table = conform(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), schema, f"table {TABLE.name}")
    root = measured_root(from_arrow(TABLE, DIMS, table))
    if folder.exists():
        raise UsageError("The bundle folder exists.", where=str(folder), todo="name a new folder")
    folder.mkdir(parents=True)
    pq.write_table(table, folder / FILE, compression="zstd")
    return root
