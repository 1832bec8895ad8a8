"""Every bound on what comes from outside, in one place, with units. They are printed by ``atlas-verify --limits``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that reading a document or evidence may not exceed."""

    document_bytes: int = 16 * 2**20
    """Size of one JSON document, bytes."""
    depth: int = 32
    """Nesting of one JSON document, levels."""
    members: int = 200_000
    """Members of one JSON object or array."""
    values: int = 2_000_000
    """Values of one JSON document in all."""
    string_bytes: int = 65_536
    """Length of one JSON string in its encoded form, bytes."""
    number_characters: int = 40
    """Length of one JSON number, characters."""
    table_rows: int = 2_000_000_000
    """Rows of one evidence table."""
    table_bytes: int = 64 * 2**30
    """Rows times declared row width of one evidence table, bytes."""
    footer_bytes: int = 16 * 2**20
    """Footer of one Parquet file, bytes."""
    pages: int = 262_144
    """Pages of one Parquet file."""
    row_group_bytes: int = 1 * 2**30
    """Decoded size of one Parquet row group, and of the rows of one run and layer, bytes."""
    group_rows: int = 8 * 2**20
    """Rows of one Parquet row group, and of one run and layer."""
    row_groups: int = 16_384
    """Row groups of one Parquet file."""
    kept_bytes: int = 64 * 2**20
    """Decoded rows of a bundle that are kept for the next check, bytes."""
    list_values: int = 16_384
    """Values of one list of variable size."""
    database_bytes: int = 64 * 2**30
    """Size of one DuckDB file, bytes."""
    catalogue_entries: int = 4_096
    """Entries of one kind in the catalogue of a DuckDB file."""
    worker_memory: int = 4 * 2**30
    """Address space of the process that reads a DuckDB file, bytes; a quarter of it is the database's."""
    worker_seconds: int = 900
    """Time of that process, seconds, of processor and of clock each."""
    worker_files: int = 64
    """Files that process may have open."""
    text_bytes: int = 1 * 2**20
    """Length of one text in a row, bytes."""
    dimension: int = 1_048_576
    """Hidden size, number of experts, active experts, sampled positions per window, each."""
    router_values: int = 16 * 2**20
    """Hidden size times number of experts."""


LIMITS = Limits()
