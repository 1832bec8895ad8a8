"""The evidence tables, declared once.

From one declaration come the DuckDB columns, the Arrow schema of the Parquet bundle, the sort order and the unit of the
content digest (the leaf). `docs/format.md` lists the same tables in prose; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

ColumnType = Literal["str", "u8", "u16", "u32", "f32", "f64", "bool"]
Shape = Literal["", "d", "E", "k", "P", "E*d", "*"]

ARROW: dict[str, pa.DataType] = {
    "str": pa.string(), "u8": pa.uint8(), "u16": pa.uint16(), "u32": pa.uint32(),
    "f32": pa.float32(), "f64": pa.float64(), "bool": pa.bool_(),
}  # fmt: skip
DUCKDB: dict[str, str] = {
    "str": "VARCHAR", "u8": "UTINYINT", "u16": "USMALLINT", "u32": "UINTEGER",
    "f32": "FLOAT", "f64": "DOUBLE", "bool": "BOOLEAN",
}  # fmt: skip
DUCKDB_ARRAY = 100_000
"""DuckDB's longest ARRAY; a router map of more values is kept as a LIST, and read as a list of fixed size all the same."""
WIDTH_BYTES: dict[str, int] = {"str": 4, "u8": 1, "u16": 2, "u32": 4, "f32": 4, "f64": 8, "bool": 1}


@dataclass(frozen=True, slots=True)
class Dims:
    """Sizes that a study fixes: hidden size ``d``, experts ``E``, active experts ``k``, sampled positions per window ``P``."""

    d: int
    E: int
    k: int
    P: int

    def of(self, shape: Shape) -> int:
        """Return the number of values per row of a fixed-size column."""
        return {"": 1, "d": self.d, "E": self.E, "k": self.k, "P": self.P, "E*d": self.E * self.d, "*": 0}[shape]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: scalar (``shape=""``), a list of fixed size, or a list of variable size (``"*"``)."""

    name: str
    type: ColumnType
    shape: Shape = ""
    nullable: bool = False

    def arrow_type(self, dims: Dims) -> pa.DataType:
        item = ARROW[self.type]
        if self.shape == "":
            return item
        field = pa.field("element", item, nullable=True)
        return pa.list_(field) if self.shape == "*" else pa.list_(field, dims.of(self.shape))

    @property
    def storage(self) -> str:
        """How a Parquet file holds the column, in Arrow's words: integers of any width, lists of whatever length."""
        item = "integer" if self.type in ("u8", "u16", "u32") else str(ARROW[self.type])
        return f"list<{item}>" if self.shape else item

    def duckdb_type(self, dims: Dims) -> str:
        width = dims.of(self.shape)
        suffix = "" if self.shape == "" else "[]" if self.shape == "*" or width > DUCKDB_ARRAY else f"[{width}]"
        return DUCKDB[self.type] + suffix + ("" if self.nullable else " NOT NULL")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table: columns, the key that sorts and identifies rows, and the prefix of the key that forms one digest leaf."""

    name: str
    columns: tuple[ColumnSpec, ...]
    key: tuple[str, ...]
    leaf: tuple[str, ...]

    def column(self, name: str) -> ColumnSpec:
        return next(column for column in self.columns if column.name == name)

    @property
    def partition(self) -> tuple[str, ...]:
        """The part of the key by which rows are read at a time: run and layer, as far as a leaf has them."""
        return tuple(name for name in self.leaf if name in ("run_id", "layer"))

    def arrow_schema(self, dims: Dims) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.arrow_type(dims), nullable=c.nullable) for c in self.columns])

    def ddl(self, dims: Dims) -> str:
        """Return the CREATE TABLE statement. Names come from this module only, never from a document."""
        columns = ", ".join(f'"{c.name}" {c.duckdb_type(dims)}' for c in self.columns)
        keys = ", ".join(f'"{name}"' for name in self.key)
        return f'CREATE TABLE IF NOT EXISTS "{self.name}" ({columns}, PRIMARY KEY ({keys}))'


def _columns(text: str) -> tuple[ColumnSpec, ...]:
    """Parse ``name type[shape]?`` entries; the compact form keeps a table on one screen."""
    specs = []
    for entry in text.replace("\n", ",").split(","):
        if not entry.strip():
            continue
        name, kind = entry.split()
        nullable = kind.endswith("?")
        base, _, shape = kind.removesuffix("?").partition("[")
        specs.append(ColumnSpec(name, base, shape.removesuffix("]"), nullable))  # type: ignore[arg-type]
    return tuple(specs)


def _table(name: str, key: str, leaf: int, columns: str) -> TableSpec:
    parsed = _columns(columns)
    names = tuple(key.split())
    return TableSpec(name, parsed, names, names[:leaf])


TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        _table("run", "run_id", 0, """
            run_id str, role str, arm str?, policy str?, model str
            weights_digest str, config_digest str, tokenizer_digest str
            adapter str, fingerprint str, param_distance f64"""),
        _table("layer", "run_id layer", 2, """
            run_id str, layer u16, d u32, n_experts u32, top_k u32, eps f64, norm_kind str
            gain f32[d], gain_convention str, router_weight f32[E*d], router_bias f32[E]?, selection_bias f32[E]?
            score_space str, weight_rule str, weight_scale f64, group_mode str, n_groups u32, kept_groups u32
            executed_dtype str, residual_path str, w1_kind str, w1_rank_min u32, tensor_digests str
            reconstruction_error f64, identity_permutation u16[E]"""),
        _table("window", "window_id", 1, """
            window_id str, cluster_id str, domain str, split str, n_bytes u32, predicted_bytes u32
            tokens u32[*], positions u16[P]"""),
        _table("routing", "run_id layer window_id position", 3, """
            run_id str, layer u16, window_id str, position u16, experts u16[k]
            competitor_in u16?, competitor_out u16, margin f32?, group_margin f32?, flags u8"""),
        _table("state", "run_id layer window_id position", 3, """
            run_id str, layer u16, window_id str, position u16, z f32[d], r f32, g f32[d]?
            dispatch f32[E], admissible bool[E]?, weights f32[k], margin_logit f32?"""),
        _table("update", "run_id layer window_id position", 3, """
            run_id str, layer u16, window_id str, position u16, experts u16[*], in0 u32, in1 u32
            pair_out u16, pair_in u16?, rho0 f32[*], rho1 f32[*], rho0_b f32, rho1_b_forced f32
            dispatch0 f32[E], dispatch1 f32[E], uz0 f64[*], uu0 f64[*], uz1 f64[*], uu1 f64[*], gram f64[*]
            dV_norm f64, y0_norm f64, dy_norm f64, transport_angle f64?"""),
        _table("update_vector", "run_id layer window_id position", 3, """
            run_id str, layer u16, window_id str, position u16, v0 f32[*], v1 f32[*]"""),
        _table("output", "run_id window_id position", 2, """
            run_id str, window_id str, position u16, nll f32, top1 u32, entropy f32, kl_from_base f32?"""),
        _table("task", "run_id item_id", 1, """
            run_id str, item_id str, score f32"""),
        _table("overlap", "run_id layer expert_a expert_b", 2, """
            run_id str, layer u16, expert_a u16, expert_b u16, visits u32, rank u32, cond f64?
            residual f64, drift_num f64, drift_den f64"""),
        _table("measurement_row", "measurement_id series index", 1, """
            measurement_id str, series str, index u32, window_id str?, layer u16?, head u16?, value f64"""),
    )
}  # fmt: skip
"""Every table by name. ``leaf`` of `run` is empty: the whole table is one leaf."""

STUDY_TABLES: tuple[str, ...] = tuple(name for name in TABLES if name != "measurement_row")
"""The tables of a study's bundle, in declaration order; `measurement_row` belongs to measurement records."""
