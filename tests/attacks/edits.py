"""Ways to change evidence: one value of any type, rows of a table, windows, experts. Each gives the changed study, or None
where there is nothing to change."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from attacks.experts import experts_exchanged
from simulator import StudySimulator

from atlas_schema.canonical import canonical_json
from atlas_schema.evidence.tables import TABLES, ColumnSpec, TableSpec

Change = Callable[[StudySimulator, Random], StudySimulator | None]

SMALL = ("lowest bit", "by 1e-6", "sign of zero", "exponent of zero")
"""Changes of the size of a rounding: what two honest kernels may differ by."""
LARGEST = {"u8": 2**8 - 1, "u16": 2**16 - 1, "u32": 2**32 - 1}
FLOATS: Mapping[str, tuple[str, str, int]] = {"f32": ("<f", "<I", 23), "f64": ("<d", "<Q", 52)}
"""Packing of a float, of its bits, and the place of its lowest exponent bit."""
WORDS = (
    ("arm", "null", "base"), ("probe", "evaluation"), ("float32", "bfloat16"), ("w", "none"), ("experts", "experts+shared"),
    ("logit", "sigmoid+bias"), ("softmax_topk_renormalised", "softmax_topk"), ("sigmoid_topk_renormalised", "sigmoid_topk"),
    ("none", "max"), ("top2_sum", "max"),
)  # fmt: skip
"""Words that may stand in each other's place."""


@dataclass(frozen=True)
class Attack:
    """One change of evidence: of a column, or of a whole table (``column`` empty); ``run`` says whose rows."""

    table: str
    column: str
    change: str
    run: str
    make: Change

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column or '*'} {self.change} ({self.run})"

    @property
    def small(self) -> bool:
        return self.change in SMALL


# --- single values ------------------------------------------------------------------------------------------------


def flipped(value: float, kind: str, bit: int) -> float:
    """Return a float with one bit flipped."""
    as_float, as_bits, _ = FLOATS[kind]
    (bits,) = struct.unpack(as_bits, struct.pack(as_float, value))
    made: float = struct.unpack(as_float, struct.pack(as_bits, bits ^ (1 << bit)))[0]
    return made


def floats(value: float, kind: str) -> dict[str, float]:
    """Return other floats by what was done."""
    made = {
        "lowest bit": flipped(value, kind, 0), "exponent" if value else "exponent of zero": flipped(value, kind, FLOATS[kind][2]),
        "sign" if value else "sign of zero": -value, "by 1e-6": value * (1 + 1e-6) if value else 1e-6,
        "by a tenth": value * 1.1 if value else 0.1, "to zero": 0.0, "to NaN": math.nan,
    }  # fmt: skip
    pack = FLOATS[kind][0]
    return {name: new for name, new in made.items() if struct.pack(pack, new) != struct.pack(pack, value)}


def texts(value: str) -> dict[str, str]:
    """Return other texts: of JSON objects with one member changed, of digests with another digit, of words with another word."""
    made = {"longer": value + "x"}
    if value.startswith("{"):
        loaded = json.loads(value)
        name = sorted(loaded)[len(loaded) // 2]
        inner = loaded[name]
        other = (
            texts(inner)["another"] if isinstance(inner, str) else inner + 1 if isinstance(inner, int) else {"x": "y"}
        )
        return {**made, "another member": canonical_json({**loaded, name: other}).decode(),
                "a member left out": canonical_json({k: v for k, v in loaded.items() if k != name}).decode()}  # fmt: skip
    other = next((w for words in WORDS if value in words for w in words if w != value), "")
    made["another"] = other or value[:-1] + ("0" if value[-1:] != "0" else "1")
    return made


def scalars(value: Any, kind: str) -> dict[str, Any]:
    """Return other values of a scalar by what was done."""
    if kind in FLOATS:
        return dict(floats(value, kind))
    if kind == "str":
        return dict(texts(value))
    if kind == "bool":
        return {"negated": not value}
    made = {"one more": value + 1, "to the largest": LARGEST[kind]} | ({"one less": value - 1} if value % 2 else {})
    return {name: new for name, new in made.items() if 0 <= new <= LARGEST[kind] and new != value}


def others(spec: ColumnSpec, value: Any, width: int, rng: Random) -> dict[str, Any]:
    """Return other values of one cell by what was done. Of a list one element is changed, or all of them."""
    if value is None:
        zero = {"str": "x", "bool": True}.get(spec.type, 0)
        return {"from null": zero if spec.shape == "" else [zero] * width}
    if spec.shape == "":
        return {**scalars(value, spec.type), "to null": None}
    made: dict[str, Any] = {"to null": None}
    if spec.shape == "*":
        made |= {"one left out": value[:-1], "one added": [*value, value[-1] if value else 0]}
    if not value:
        return made
    at = rng.randrange(len(value))
    made |= {name: [*value[:at], new, *value[at + 1 :]] for name, new in scalars(value[at], spec.type).items()}
    if spec.type in FLOATS:
        made["all by a tenth"] = [v * 1.1 for v in value]
    if len(set(value)) > 1 and value != value[::-1]:
        made["reversed"] = value[::-1]
    return made


def with_cell(s: StudySimulator, table: str, at: int, column: str, value: Any) -> StudySimulator:
    """Replace one cell; where it does not fit the declared schema, the column is declared to fit it."""
    rows, schema = s.tables[table], s.tables[table].schema
    if value is None and not TABLES[table].column(column).nullable:
        where = schema.get_field_index(column)
        schema = schema.set(where, schema.field(where).with_nullable(True))
        rows = rows.cast(schema)
    row = {**rows.slice(at, 1).to_pylist()[0], column: value}
    return s.with_table(
        table, pa.concat_tables([rows.slice(0, at), pa.Table.from_pylist([row], schema=schema), rows.slice(at + 1)])
    )


def rows_of(s: StudySimulator, table: str, run: str) -> np.ndarray:
    """Return the numbers of a run's rows; all where a table has no runs."""
    if "run_id" not in TABLES[table].key:
        return np.arange(s.tables[table].num_rows)
    return np.flatnonzero(s.tables[table].column("run_id").to_numpy(zero_copy_only=False) == run)


def cell_attacks(s: StudySimulator, spec: TableSpec, column: ColumnSpec, run: str, seed: int) -> Iterator[Attack]:
    """Yield every change of one cell of a column, of a row that the seed draws."""
    rng = Random(f"{seed} {spec.name} {column.name} {run}")
    own = rows_of(s, spec.name, run)
    if not len(own):
        return
    at = int(own[rng.randrange(len(own))])
    value = s.tables[spec.name].column(column.name)[at].as_py()
    for name, new in others(column, value, s.dims.of(column.shape), rng).items():
        yield Attack(spec.name, column.name, name, run, partial(_with, spec.name, at, column.name, new))


def _with(table: str, at: int, column: str, value: Any, s: StudySimulator, _: Random) -> StudySimulator:
    return with_cell(s, table, at, column, value)


# --- rows ---------------------------------------------------------------------------------------------------------


def taken(s: StudySimulator, table: str, order: Sequence[int] | np.ndarray) -> StudySimulator:
    return s.with_table(table, s.tables[table].take(pa.array(np.asarray(order, dtype=np.int64))))


def exchanged_rows(
    s: StudySimulator, table: str, pairs: Sequence[tuple[int, int]], fixed: Sequence[str] = ()
) -> StudySimulator:
    """Exchange everything but the key, and columns that are kept ``fixed``, of pairs of rows."""
    order = np.arange(s.tables[table].num_rows)
    for a, b in pairs:
        order[a], order[b] = order[b], order[a]
    rows = s.tables[table]
    moved = rows.take(pa.array(order))
    for name in (*TABLES[table].key, *fixed):
        at = rows.schema.get_field_index(name)
        moved = moved.set_column(at, rows.schema.field(at), rows.column(name))
    return s.with_table(table, moved)


def _dropped(s: StudySimulator, table: str, run: str, rng: Random) -> StudySimulator | None:
    own = rows_of(s, table, run)
    return taken(s, table, np.delete(np.arange(s.tables[table].num_rows), rng.choice(own))) if len(own) else None


def _doubled(s: StudySimulator, table: str, run: str, rng: Random) -> StudySimulator | None:
    own = rows_of(s, table, run)
    return taken(s, table, sorted([*range(s.tables[table].num_rows), int(rng.choice(own))])) if len(own) else None


def _swapped(s: StudySimulator, table: str, run: str, rng: Random) -> StudySimulator | None:
    """Exchange the values of two rows of one run and layer whose values differ."""
    own, rows = rows_of(s, table, run), s.tables[table]
    if len(own) < 2:
        return None
    names = [c.name for c in TABLES[table].columns if c.name not in TABLES[table].key]
    for _ in range(50):
        a, b = sorted(rng.sample([int(i) for i in own], 2))
        pair = rows.take(pa.array([a, b])).to_pylist()
        if any(pair[0][n] != pair[1][n] for n in names) and pair[0].get("layer") == pair[1].get("layer"):
            return exchanged_rows(s, table, [(a, b)])
    return None


def _runs_exchanged(s: StudySimulator, table: str, run: str, rng: Random) -> StudySimulator | None:
    """Exchange the rows of a run with those of a null arm."""
    mine, theirs = rows_of(s, table, run), rows_of(s, table, "null:dtype")
    if "run_id" not in TABLES[table].key or len(mine) != len(theirs):
        return None
    return exchanged_rows(s, table, list(zip(mine.tolist(), theirs.tolist(), strict=True)))


def copied_from(s: StudySimulator, table: str, run: str, source: str) -> StudySimulator | None:
    """Put another run's values into a run's rows of a table."""
    mine, theirs = rows_of(s, table, run), rows_of(s, table, source)
    if not len(mine) or len(mine) != len(theirs):
        return None
    order = np.arange(s.tables[table].num_rows)
    order[mine] = theirs
    rows = s.tables[table]
    moved = rows.take(pa.array(order))
    for name in TABLES[table].key:
        at = rows.schema.get_field_index(name)
        moved = moved.set_column(at, rows.schema.field(at), rows.column(name))
    return s.with_table(table, moved)


def _base_copied(s: StudySimulator, table: str, run: str, _: Random) -> StudySimulator | None:
    source = "base" if len(rows_of(s, table, "base")) else "null:batch"
    return copied_from(s, table, run, source) if "run_id" in TABLES[table].key else None


def _run_dropped(s: StudySimulator, table: str, run: str, _: Random) -> StudySimulator | None:
    own = rows_of(s, table, run)
    return taken(s, table, np.setdiff1d(np.arange(s.tables[table].num_rows), own)) if len(own) else None


def other_domain(s: StudySimulator, tables: Sequence[str], run: str | None, rng: Random) -> StudySimulator | None:
    """Put the rows of a window of another domain in place of one window's, in tables of one run or of all (``run`` None).

    Positions stay: a window's n-th row takes the place of the other's n-th row.
    """
    windows = s.rows("window")
    tokens = {w["window_id"]: len(w["tokens"]) for w in windows}
    domain = {w["window_id"]: (w["domain"], w["split"]) for w in windows}
    pairs = [(a, b) for a in sorted(tokens) for b in sorted(tokens)
             if domain[a][0] < domain[b][0] and tokens[a] == tokens[b] and domain[a][1] == domain[b][1]]  # fmt: skip
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    for table in tables:
        if "window_id" not in TABLES[table].key:
            return None
        rows = s.tables[table]
        named = rows.column("window_id").to_numpy(zero_copy_only=False)
        mine = (
            np.ones(rows.num_rows, bool) if run is None else np.isin(np.arange(rows.num_rows), rows_of(s, table, run))
        )
        first, second = np.flatnonzero((named == a) & mine), np.flatnonzero((named == b) & mine)
        if len(first) != len(second) or not len(first):
            continue
        s = exchanged_rows(s, table, list(zip(first.tolist(), second.tolist(), strict=True)))
    return s


# --- a whole table ------------------------------------------------------------------------------------------------

EXPERTS = ("layer", "routing", "state", "update", "update_vector", "overlap")
WINDOWED = ("routing", "state", "update", "update_vector", "output")


def table_attacks(s: StudySimulator, table: str, run: str) -> Iterator[Attack]:
    """Yield the changes of rows of one table."""
    plain = {
        "a row left out": _dropped, "a row twice": _doubled, "values of two rows exchanged": _swapped,
        "rows exchanged with a null arm's": _runs_exchanged, "the base's values copied": _base_copied, "a run left out": _run_dropped,
    }  # fmt: skip
    for name, change in plain.items():
        yield Attack(table, "", name, run, partial(_of_table, change, table, run))
    if table in EXPERTS:
        yield Attack(table, "", "two experts exchanged", run, lambda s, _: experts_exchanged(s, table, [run], 0, 1))
    if table in WINDOWED:
        yield Attack(table, "", "a window of another domain", run, lambda s, rng: other_domain(s, [table], run, rng))


def _of_table(
    change: Callable[..., StudySimulator | None], table: str, run: str, s: StudySimulator, rng: Random
) -> StudySimulator | None:
    return change(s, table, run, rng)


def joint_attacks(s: StudySimulator, run: str) -> Iterator[Attack]:
    """Yield changes that several tables take together."""

    def exchanged(s: StudySimulator, runs: Sequence[str]) -> StudySimulator:
        for table in EXPERTS[::-1]:  # slots of vectors follow from `update` as it was
            s = experts_exchanged(s, table, runs, 0, 1)
        return s

    every = sorted(set(s.tables["run"].column("run_id").to_pylist()))
    yield Attack("all", "", "two experts exchanged in one run", run, lambda s, _: exchanged(s, [run]))
    yield Attack("all", "", "two experts exchanged in every run", "every", lambda s, _: exchanged(s, every))
    yield Attack(
        "all", "", "a window of another domain, one run", run, lambda s, rng: other_domain(s, WINDOWED, run, rng)
    )
    yield Attack(
        "all", "", "a window of another domain, every run", "every", lambda s, rng: other_domain(s, WINDOWED, None, rng)
    )
