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
    row_group_bytes: int = 1 * 2**30
    """Rows times declared row width of one Parquet row group, bytes, before anything is decoded."""
    row_groups: int = 1_000_000
    """Row groups of one Parquet file."""
    kept_bytes: int = 64 * 2**20
    """Decoded rows of a bundle that are kept for the next check, bytes."""
    list_values: int = 16_384
    """Values of one list of variable size."""
    claim_operations: int = 200_000
    """Interval operations for all statements of one measurement or prediction."""
    dimension: int = 1_048_576
    """Hidden size, number of experts and their product, each."""
    raw_bytes: int = 256 * 2**20
    """Size of one file of raw output, bytes."""
    raw_line_bytes: int = 4 * 2**20
    """Length of one line of raw output, and of one string in it, bytes."""
    raw_outputs: int = 10_000
    """Outputs of one file of raw output."""
    raw_logprobs: int = 200_000
    """Log-probabilities of one output."""


LIMITS = Limits()
