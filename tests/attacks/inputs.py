"""The worst inputs for the machine of whoever verifies: documents, evidence, databases, signatures and folders.

Each is made in a folder that holds a valid study, in place of one of its parts; what is returned are the arguments of
`atlas-verify`. None of them is a forgery: they are there to take time and memory, or to break the reader.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from documents.records import measurement
from evidence.forged_parquet import task, write
from evidence.test_bundle import tiny
from evidence.test_preflight import ATTACKS as BOMBS
from signing.material import envelope, key, written
from simulator import PRESERVED, REWRITTEN, Settings, StudySimulator
from verify.test_reading import WORST as DOCUMENTS
from verify.test_sandbox import ATTACKS as STATEMENTS

from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims
from atlas_schema.files import document_text
from atlas_schema.limits import LIMITS
from atlas_schema.signing.envelope import sign
from atlas_schema.signing.keys import public_pem
from atlas_schema.signing.statement import statement_bytes
from atlas_schema.verify.loading import load, signature_path
from atlas_schema.verify.verifier import statement_over

Json = dict[str, Any]
RECEIPT = "receipt.json"
FULL = LIMITS.document_bytes


@dataclass(frozen=True, slots=True)
class Input:
    """One hostile input: what it is aimed at, the exit codes that refuse it, the bytes it may cost, how it is made."""

    part: str
    name: str
    codes: tuple[int, ...]
    memory: int
    make: Callable[[Path], list[str]]


WIDE = 8 * 2**30
"""The same for rows that are decoded: six times the largest group of rows, and what lies side by side."""
INPUTS: dict[str, Input] = {}
REFUSED = (3,)
MEMORY = 1024 * 2**20
"""Memory that refusing an input may take, bytes."""


def hostile(
    part: str, name: str, *codes: int, memory: int = MEMORY
) -> Callable[[Callable[[Path], list[str] | None]], None]:
    """Register an input; what it returns are further arguments, none by default."""

    def register(make: Callable[[Path], list[str] | None]) -> None:
        if name in INPUTS:
            raise ValueError(f"two inputs are called {name}")
        INPUTS[name] = Input(part, name, codes or REFUSED, memory, lambda folder: make(folder) or [])

    return register


@cache
def template(folder: Path) -> Path:
    """Write a valid study with its receipt, signed, and its evidence as a DuckDB file too."""
    study = tiny().write(folder / "study")
    issued(tiny(), study)
    (folder / "key.pem").write_bytes(public_pem(key(1).public))
    statement = statement_over(load(study / RECEIPT, contract=str(study / "contract.json")))
    if statement is None:
        raise ValueError("the template cannot be signed")
    signature_path(study / RECEIPT).write_bytes(written(sign(statement_bytes(statement), key(1))))
    tiny().store(folder / "evidence.duckdb").close()
    return folder


def issued(study: StudySimulator, folder: Path) -> None:
    """Write the receipt of a study's first arm."""
    arm = study.preregistration.arms[0].name
    made = study.receipt(arm)
    (folder / RECEIPT).write_text(document_text(made), encoding="utf-8")


def prepared(source: Path, folder: Path) -> Path:
    """Copy the valid study to a folder that one input may change."""
    shutil.copytree(source / "study", folder)
    return folder


def signed(folder: Path) -> list[str]:
    return ["--key", str(folder.parent / "key.pem")]


def receipt(folder: Path) -> Json:
    loaded: Json = json.loads((folder / RECEIPT).read_bytes())
    return loaded


def put(folder: Path, value: Any, name: str = RECEIPT) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    if len(raw) > 4 * FULL:
        raise ValueError(f"{len(raw)} bytes are refused unread")
    (folder / name).write_bytes(raw)


def within(value: Json, grow: Callable[[Json, int], None], most: int = FULL) -> Json:
    """Return a document grown by a number of parts that just fits the limit on its size."""
    probe = json.loads(json.dumps(value))
    grow(probe, 1000)
    each = (len(json.dumps(probe, separators=(",", ":"))) - len(json.dumps(value, separators=(",", ":")))) / 1000
    grow(value, int((most - len(json.dumps(value))) / (each * 1.02)))
    return value


# --- documents ------------------------------------------------------------------------------------------------------


def _document(name: str, raw: bytes) -> None:
    hostile("document", f"a document of {name}")(lambda folder: put(folder, raw))


for _name, _raw in DOCUMENTS.items():
    _document(_name, _raw)
for _name, _raw in {
    "escaped quotes": b'"' + b'\\"' * (FULL // 2 - 1), "quotes": b'"' * FULL, "backslashes": b"\\" * FULL,
    "minus signs": b"-" * FULL, "open strings": b'"a\\' * (FULL // 3), "brackets without end": b"[" * FULL,
    "keys, the last one twice": b"{" + b",".join(b'"%d":1' % i for i in range(199_998)) + b',"1":2}',
    "one number of sixteen million digits": b"[" + b"9" * (FULL - 2) + b"]",
    "four times the bytes that are read": b" " * (4 * FULL),
}.items():  # fmt: skip
    _document(_name, _raw)


@hostile("document", "a receipt with two million small members that no schema knows")
def small_members(folder: Path) -> None:
    value = receipt(folder)
    value["notes"] = [[0] * 190_000 for _ in range(10)]
    put(folder, value)


@hostile("document", "a receipt with 199,000 unknown fields")
def unknown_fields(folder: Path) -> None:
    put(folder, {**receipt(folder), **{f"field {i}": i for i in range(199_000)}})


@hostile("document", "a receipt that states a fidelity tier 190,000 times")
def tiers(folder: Path) -> None:
    put(folder, {**receipt(folder), "extra": [{"tier": 1}] * 190_000})


@hostile("document", "fidelity tiers below keys of 65,536 bytes")
def long_pointers(folder: Path) -> None:
    inner: Any = [{"tier": 1}] * 50
    for depth in range(28):
        inner = {chr(97 + depth % 26) * LIMITS.string_bytes: inner}
    put(folder, {**receipt(folder), "extra": inner})


def reported(entry: Any) -> Callable[[Path], None]:
    """Fill a receipt's list of reported values up to the size of a document."""

    def make(folder: Path) -> None:
        def grow(value: Json, count: int) -> None:
            value["findings"]["arms"][0]["reported"] += [entry] * min(count, 100_000)

        put(folder, within(receipt(folder), grow))

    return make


_SOUND = {"definition": "baseline.norm/1", "layer": 0, "domain": None, "value": 0.5, "standard_error": None, "count": 1,
          "assurance": "asserted", "note": "n"}  # fmt: skip
hostile("document", "a receipt of 100,000 values of wrong types")(reported({"a": [], "b": {}, "c": None}))
hostile("document", "a receipt of as many sound values as a document holds", 3, 5)(reported(_SOUND))
hostile("document", "a receipt of 100,000 nulls for values")(reported(None))


@hostile("document", "texts that nearly match the pattern of every field")
def near_patterns(folder: Path) -> None:
    value = receipt(folder)
    long = LIMITS.string_bytes - 1
    near = {
        "sha256:": "sha256:" + "a" * long,
        "time": "2024-02-29T" * 5000,
        "id": "a" * long + "!",
        "run": "null:" + "a" * long,
    }

    def spoilt(inner: Any, budget: list[int]) -> Any:
        if isinstance(inner, dict):
            return {k: spoilt(v, budget) for k, v in inner.items()}
        if isinstance(inner, list):
            return [spoilt(v, budget) for v in inner]
        if isinstance(inner, str) and budget[0] > 0:
            budget[0] -= 1
            return list(near.values())[budget[0] % len(near)][:long]
        return inner

    put(folder, {**spoilt(value, [240]), "kind": "receipt"})


def log_of(folder: Path, steps: Iterable[Json]) -> None:
    put(folder, {"kind": "run_log", "schema_version": "1.0", "steps": list(steps)}, "run_log.json")


@hostile("document", "a run log of 10,000 steps, all out of order")
def disordered_log(folder: Path) -> None:
    step = json.loads((folder / "run_log.json").read_bytes())["steps"][-1]
    log_of(folder, [{**step, "index": 9_999 - i, "time": f"2026-01-01T00:00:{i % 60:02d}Z"} for i in range(10_000)])


@hostile("document", "a run log of 60,000 inputs that share one process and cite nothing")
def crowded_log(folder: Path) -> None:
    step = json.loads((folder / "run_log.json").read_bytes())["steps"][-1]
    inputs = [{"name": name, "digest": "sha256:" + "0" * 64} for name in ["process", "party: x", "stimulus y"] * 20]
    log_of(folder, [{**step, "step": "extract", "inputs": inputs, "outputs": []} for _ in range(1500)])


@hostile("document", "a plan of 40,000 windows that say the same")
def crowded_plan(folder: Path) -> None:
    plan = json.loads((folder / "preregistration.json").read_bytes())
    window = {**plan["windows"][0], "n_bytes": 1, "predicted_bytes": 2}

    def grow(value: Json, count: int) -> None:
        value["windows"] += [window] * min(count, 99_000)

    put(folder, within(plan, grow), "preregistration.json")


# --- records --------------------------------------------------------------------------------------------------------


def claiming(text: str) -> Callable[[Path], None]:
    """A measurement with as many claims as may be, each by one expression."""

    def make(folder: Path) -> None:
        made = measurement()
        statement = {"operator": "greater_than", "left": text, "right": "1"}
        made["claims"] = [{**made["claims"][0], "id": f"c{i}", "statement": statement} for i in range(1000)]
        put(folder, made)

    return make


for _name, _text in {
    "brackets": "(" * 500, "signs": "-" * 499 + "1", "terms": "+".join(["1"] * 250), "squares": "*".join(["9" * 18] * 26),
    "quotients of quotients": "/".join(["perplexity[code]"] * 29), "means of series": "+".join(["mean(perplexity)"] * 29),
}.items():  # fmt: skip
    hostile("record", f"a measurement with 1,000 claims of {_name}", 1, 3, 6)(claiming(_text))


@hostile("record", "a measurement with 1,000 questions that nobody answered", 3, 6)
def questions(folder: Path) -> None:
    made = measurement()
    made["judgements"] = [{**made["judgements"][0], "field": f"f{i}"} for i in range(1000)]
    put(folder, made)


# --- evidence -------------------------------------------------------------------------------------------------------


def _bomb(name: str, table: str, make: Callable[[], bytes]) -> None:
    def placed(folder: Path) -> None:
        (folder / "evidence" / f"{table}.parquet").write_bytes(make())

    hostile("evidence", f"Parquet: {name}")(placed)


for _name, (_, _table, _make) in BOMBS.items():
    _bomb(_name, _table, _make)


def rows_of(name: str, count: int, **columns: pa.Array) -> pa.Table:
    """Return rows of a table: the tiny study's, again and again, with some columns replaced."""
    table = tiny().tables[name]
    made = table.take(pa.array(np.arange(count) % table.num_rows))
    for column, values in columns.items():
        at = made.schema.get_field_index(column)
        made = made.set_column(at, made.schema.field(at).name, values)
    return made


def names(count: int, order: Any) -> pa.Array:
    return pa.array([f"arm:{i:07d}" for i in order(count)])


@hostile("evidence", "rows of 1,000,000 runs, each of its own")
def many_runs(folder: Path) -> None:
    table = rows_of("task", 1_000_000, run_id=names(1_000_000, range))
    pq.write_table(table, folder / "evidence" / "task.parquet", row_group_size=1_000_000)


@hostile("evidence", "rows of 200,000 runs, scattered")
def scattered_runs(folder: Path) -> None:
    order = np.random.default_rng(0).permutation(400_000) % 200_000
    table = rows_of(
        "task", 400_000, run_id=names(400_000, lambda _: order), item_id=pa.array([f"{i}" for i in range(400_000)])
    )
    pq.write_table(table, folder / "evidence" / "task.parquet", row_group_size=400_000)


@hostile("evidence", "16,384 row groups, each with rows of 100 runs")
def many_pieces(folder: Path) -> None:
    group = rows_of("task", 100, run_id=names(100, range))
    with pq.ParquetWriter(folder / "evidence" / "task.parquet", group.schema) as writer:
        for _ in range(LIMITS.row_groups):
            writer.write_table(group)


@hostile("evidence", "16,385 row groups")
def many_groups(folder: Path) -> None:
    (folder / "evidence" / "task.parquet").write_bytes(write(task(1), groups=LIMITS.row_groups + 1, share=True))


@hostile("evidence", "16,384 row groups of one run, a row each", 4)
def one_run_in_pieces(folder: Path) -> None:
    items = [f"{i:05d}" for i in range(LIMITS.row_groups)]
    table = rows_of("task", len(items), run_id=names(len(items), lambda n: [0] * n), item_id=pa.array(items))
    pq.write_table(table, folder / "evidence" / "task.parquet", row_group_size=1)


@hostile("evidence", "a footer of 13 MiB: 11,000 row groups of 11 columns")
def large_footer(folder: Path) -> None:
    table = tiny().tables["state"]
    with pq.ParquetWriter(folder / "evidence" / "state.parquet", table.schema) as writer:
        for at in range(11_000):
            writer.write_table(table.slice(at % table.num_rows, 1))


@hostile("evidence", "10,000 row groups without rows", 6)
def empty_groups(folder: Path) -> None:
    table = tiny().tables["task"]
    with pq.ParquetWriter(folder / "evidence" / "task.parquet", table.schema) as writer:
        for _ in range(10_000):
            writer.write_table(table.slice(0, 0))
        writer.write_table(table)


def wide(study: StudySimulator, folder: Path, d: int) -> list[str]:
    """Put a study in the folder whose cells are the planned ones, and whose rows are as wide as a row may be."""
    shutil.rmtree(folder)
    study.write(folder)
    issued(study, folder)
    dims = Dims(d, study.dims.E, study.dims.k, study.dims.P)
    for name in STUDY_TABLES:
        schema, table = TABLES[name].arrow_schema(dims), study.tables[name]
        columns = {f.name: _widened(table.column(f.name), f.type) for f in schema}
        cells = len(set(table.column("run_id").to_pylist())) if "run_id" in table.column_names else 1
        pq.write_table(pa.table(columns, schema=schema), folder / "evidence" / f"{name}.parquet", compression="zstd",
                       use_dictionary=False, row_group_size=max(1, table.num_rows // max(1, cells)))  # fmt: skip
    return []


def _widened(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    rows = len(column)
    if pa.types.is_fixed_size_list(kind) and column.type != kind:
        values = pa.array(np.zeros(rows * kind.list_size, dtype=kind.value_type.to_pandas_dtype()))
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return column.combine_chunks().cast(kind)


@cache
def tall(windows: int) -> StudySimulator:
    """A study of many windows, one protected layer, and no decisions to speak of."""
    return StudySimulator.make(Settings(clusters=(("a", windows // 2), ("b", windows // 2)), double_windows=0, items=3,
                                        arms=(PRESERVED, REWRITTEN), protected=(0,)))  # fmt: skip


@hostile("evidence", "states of 110,000 values, all runs side by side", memory=WIDE)
def wide_states(folder: Path) -> list[str]:
    return wide(tall(200), folder, 110_000)


@hostile("evidence", "states of 65,536 values, which fit side by side", 3, 4, 5, memory=WIDE)
def widest_that_fits(folder: Path) -> list[str]:
    return wide(tall(200), folder, 2**16)


# --- DuckDB files ---------------------------------------------------------------------------------------------------


def database(folder: Path, *statements: str) -> list[str]:
    path = folder / "evidence.duckdb"
    shutil.copy(folder.parent / "evidence.duckdb", path)
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return ["--evidence", str(path)]


def _database(name: str, *statements: str) -> None:
    hostile("database", f"DuckDB: {name}", memory=LIMITS.worker_memory)(lambda folder: database(folder, *statements))


for _name in ("a macro shadows a built-in", "a view reads files", "a generated column", "a default with a function"):
    _database(_name, STATEMENTS[_name][0])
_database("5,000 tables", *(f"CREATE TABLE t{i} (a INTEGER)" for i in range(5_000)))
_database("5,000 macros", *(f"CREATE MACRO m{i}(a) AS a" for i in range(5_000)))
_database("a view of views, 200 deep",
          "CREATE VIEW v0 AS SELECT 1 AS a", *(f"CREATE VIEW v{i} AS SELECT a FROM v{i - 1}" for i in range(1, 200)))  # fmt: skip
_database("a text of 256 MiB in one row",
          "UPDATE run SET fingerprint = repeat('x', 268435456) WHERE run_id = 'base'")  # fmt: skip
_database("20,000,000 rows", "INSERT INTO task SELECT 'arm:x', 'i' || range, 1 FROM range(20000000)")


@hostile("database", "DuckDB: noise under a header that is right", memory=LIMITS.worker_memory)
def noise(folder: Path) -> list[str]:
    arguments = database(folder)
    path = Path(arguments[1])
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = np.random.default_rng(0).bytes(len(content) - 4096 * 3)
    path.write_bytes(content)
    return arguments


# --- signatures -----------------------------------------------------------------------------------------------------


def _envelope(name: str, change: Callable[[Json], Any], *codes: int) -> None:
    def make(folder: Path) -> list[str]:
        path = signature_path(folder / RECEIPT)
        made = change(json.loads(path.read_bytes()))
        path.write_bytes(made if isinstance(made, bytes) else json.dumps(made).encode())
        return signed(folder)

    hostile("signature", f"an envelope of {name}", *(codes or (4,)))(make)


_envelope("100,000 signatures", lambda e: {**e, "signatures": e["signatures"] * 100_000})
_envelope("as many strangers' signatures as are looked at", lambda e: {**e, "signatures": strangers()})
_envelope("a payload of twelve million bytes", lambda e: {**e, "payload": "A" * 12_000_000})
_envelope("brackets", lambda _: b"[" * FULL)


def strangers() -> list[Json]:
    made: list[Json] = envelope(*range(2, 2 + LIMITS.signatures)).as_json()["signatures"]
    return made


# --- folders --------------------------------------------------------------------------------------------------------


def _many(folder: Path, count: int = 100_000) -> None:
    for i in range(count):
        os.close(os.open(folder / "evidence" / f"{i}.parquet", os.O_CREAT | os.O_WRONLY))


@hostile("folder", "100,000 files in the evidence", 4)
def many_files(folder: Path) -> None:
    _many(folder)


@hostile("folder", "100,000 files in signed evidence", 4)
def many_signed_files(folder: Path) -> list[str]:
    _many(folder)
    return signed(folder)


@hostile("folder", "a file of 1 TiB, all holes, in signed evidence", 4)
def sparse_file(folder: Path) -> list[str]:
    with (folder / "evidence" / "more.parquet").open("wb") as stream:
        stream.truncate(2**40)
    return signed(folder)


@hostile("folder", "a table of 1 TiB, all holes, in signed evidence", 3, 4)
def sparse_table(folder: Path) -> list[str]:
    os.truncate(folder / "evidence" / "task.parquet", 2**40)
    return signed(folder)


def _in_place(name: str, part: str, make: Callable[[Path], None], *codes: int) -> None:
    def replaced(folder: Path) -> None:
        path = folder / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    hostile("folder", f"{name} in place of {part}", *codes)(replaced)


for _part, _codes in ((RECEIPT, (2,)), ("run_log.json", (2,)), ("evidence/task.parquet", (3,)), ("evidence", (2, 4))):
    _in_place("a pipe", _part, os.mkfifo, *_codes)
    _in_place("a link to /dev/zero", _part, lambda path: path.symlink_to("/dev/zero"), *_codes)
