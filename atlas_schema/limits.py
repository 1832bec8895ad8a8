"""Every bound on what comes from outside, in one place, with units.

``atlas-verify --limits`` prints them, a JSON report repeats them, and `docs/verification.md` lists them (a test compares).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields


def _bound(value: int, unit: str, meaning: str) -> int:
    made: int = field(default=value, metadata={"unit": unit, "meaning": meaning})
    return made


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that reading a document or evidence may not exceed."""

    document_bytes: int = _bound(16 * 2**20, "bytes", "size of one JSON document")
    depth: int = _bound(32, "levels", "nesting of one JSON document")
    members: int = _bound(200_000, "members", "members of one JSON object or array")
    values: int = _bound(2_000_000, "values", "values of one JSON document in all, keys counted")
    string_bytes: int = _bound(65_536, "bytes", "one JSON string as written, quotes not counted")
    number_characters: int = _bound(40, "characters", "one JSON number")
    table_rows: int = _bound(2_000_000_000, "rows", "one evidence table")
    table_bytes: int = _bound(64 * 2**30, "bytes", "rows times declared row width of one evidence table")
    footer_bytes: int = _bound(16 * 2**20, "bytes", "footer of one Parquet file")
    footer_values: int = _bound(4_096, "values", "fields and elements of one footer, those of row groups left out")
    group_values: int = _bound(16, "values", "as many more for each row group, its columns left out")
    column_values: int = _bound(256, "values", "fields and elements of one column of a row group in a footer")
    structure_depth: int = _bound(8, "levels", "nesting of a footer and of a page's header")
    page_header_bytes: int = _bound(65_536, "bytes", "header of one page")
    row_groups: int = _bound(16_384, "row groups", "one Parquet file")
    pages: int = _bound(262_144, "pages", "one Parquet file")
    group_rows: int = _bound(8 * 2**20, "rows", "one Parquet row group; one run and layer")
    row_group_bytes: int = _bound(2**30, "bytes", "decoded size of one Parquet row group; of one run and layer")
    pieces: int = _bound(131_072, "pieces", "runs and layers of one table, in every row group anew")
    block_bytes: int = _bound(
        2 * 2**30, "bytes", "decoded rows of all runs that lie side by side, read windows by windows"
    )
    kept_bytes: int = _bound(64 * 2**20, "bytes", "decoded rows of a bundle that are kept for the next check")
    list_values: int = _bound(262_144, "values", "one list of variable size in a row")
    text_bytes: int = _bound(2**20, "bytes", "one text in a row")
    dimension: int = _bound(1_048_576, "values", "hidden size, experts, active experts, sampled positions, each")
    router_values: int = _bound(16 * 2**20, "values", "hidden size times experts")
    database_bytes: int = _bound(64 * 2**30, "bytes", "size of one DuckDB file")
    catalogue_entries: int = _bound(4_096, "entries", "entries of one kind in the catalogue of a DuckDB file")
    worker_memory: int = _bound(4 * 2**30, "bytes", "address space of the process that reads a DuckDB file")
    worker_seconds: int = _bound(900, "seconds", "processor time of that process")
    worker_spare_seconds: int = _bound(30, "seconds", "what its time by the clock may be more")
    worker_answer_bytes: int = _bound(65_536, "bytes", "what that process may say of a file")
    worker_files: int = _bound(64, "files", "files that process may have open")
    key_bytes: int = _bound(16_384, "bytes", "size of one key file")
    signatures: int = _bound(32, "signatures", "one envelope")
    schema_faults: int = _bound(
        1_000, "faults", "what is wrong with the shape of one document, beyond which nobody looks"
    )
    expression_depth: int = _bound(32, "levels", "nesting of one expression of a claim")
    number_bits: int = _bound(65_536, "bits", "numerator or denominator of a number that a claim leads to")
    exponent: int = _bound(1_000, "value", "argument of exp in a claim, above zero or below")
    claim_operations: int = _bound(200_000, "operations", "interval operations for one measurement or prediction")
    raw_bytes: int = _bound(256 * 2**20, "bytes", "size of one file of raw output")
    raw_line_bytes: int = _bound(4 * 2**20, "bytes", "one line of raw output, and one string in it")
    raw_outputs: int = _bound(10_000, "outputs", "one file of raw output")
    raw_logprobs: int = _bound(200_000, "log-probabilities", "one output")
    raw_questions: int = _bound(256, "questions", "what raw output asks of a person")
    corpus_file_bytes: int = _bound(64 * 2**20, "bytes", "one file of a conformance corpus")
    corpus_depth: int = _bound(8, "levels", "folders of a conformance corpus in each other")
    verifier_output_bytes: int = _bound(
        64 * 2**20, "bytes", "what is read of each stream of a verifier held to the corpus"
    )


LIMITS = Limits()


def listed(limits: Limits = LIMITS) -> list[tuple[str, int, str, str]]:
    """Return name, value, unit and meaning of every bound, in order."""
    values = asdict(limits)
    return [(f.name, values[f.name], f.metadata["unit"], f.metadata["meaning"]) for f in fields(limits)]
