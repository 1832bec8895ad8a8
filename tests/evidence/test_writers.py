"""Files of other writers: the same rows give the same report; what Arrow's own schema says changes nothing; lists have one length."""

from __future__ import annotations

import base64
import json
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence.forged_parquet import zigzag
from evidence.test_bundle import rewrite, roots, tiny
from evidence.writers import WRITERS, Writer, with_arrow
from typer.testing import CliRunner

from atlas_schema.canonical import digest_bytes
from atlas_schema.cli.verify import app
from atlas_schema.demo import demo_folder
from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.bundle import ParquetBundle, import_bundle
from atlas_schema.evidence.preflight import open_table, preflight
from atlas_schema.evidence.source import table_root, table_roots
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims
from atlas_schema.limits import LIMITS

WHOLE = ("duckdb",)
"""Writers whose bundle of the demonstration goes through the whole command in the quick run; the others in the long one."""
LATER = pytest.mark.thorough


def report(evidence: Path) -> tuple[int, dict[str, Any]]:
    """Return exit code and JSON report of the demonstration's receipt over a bundle, without where it lies."""
    receipt = demo_folder() / "receipt-preserved.json"
    done = CliRunner().invoke(app, [str(receipt), "--evidence", str(evidence), "--report", "json"])
    return done.exit_code, json.loads(done.stdout.replace(str(evidence), "EVIDENCE"))


@pytest.fixture(scope="module")
def honest() -> tuple[int, dict[str, Any]]:
    return report(demo_folder() / "evidence")


def rewritten(folder: Path, write: Writer) -> Path:
    folder.mkdir()
    for name in STUDY_TABLES:
        write(pq.read_table(demo_folder() / "evidence" / f"{name}.parquet"), folder / f"{name}.parquet")
    return folder


def same_report(tmp_path: Path, name: str, honest: tuple[int, dict[str, Any]]) -> None:
    found = report(rewritten(tmp_path / "evidence", WRITERS[name]))
    assert found[0] == honest[0] == 0
    assert found[1] == honest[1]


@pytest.mark.parametrize("name", WHOLE)
def test_the_demonstration_of_another_writer_gives_the_same_report(
    tmp_path: Path, name: str, honest: tuple[int, dict[str, Any]]
) -> None:
    same_report(tmp_path, name, honest)


@LATER
@pytest.mark.parametrize("name", [n for n in WRITERS if n not in WHOLE])
def test_the_demonstration_of_any_writer_gives_the_same_report(
    tmp_path: Path, name: str, honest: tuple[int, dict[str, Any]]
) -> None:
    same_report(tmp_path, name, honest)


@pytest.mark.parametrize("name", WRITERS)
def test_rows_of_another_writer_have_the_same_roots_and_sizes(tmp_path: Path, name: str) -> None:
    for table in STUDY_TABLES:
        WRITERS[name](tiny().tables[table], tmp_path / f"{table}.parquet")
    source = ParquetBundle(tmp_path)
    assert source.dims == tiny().dims
    assert roots(source) == tiny().evidence_root()


@pytest.mark.parametrize(
    "name", ["duckdb", pytest.param("polars", marks=LATER), pytest.param("no unsigned integers", marks=LATER)]
)
def test_rows_of_another_writer_are_imported(tmp_path: Path, name: str) -> None:
    folder, database = tmp_path / "evidence", tmp_path / "imported.duckdb"
    folder.mkdir()
    for table in STUDY_TABLES:
        WRITERS[name](tiny().tables[table], folder / f"{table}.parquet")
    import_bundle(folder, database, tiny().preregistration_digest())
    with EvidenceStore.open_existing(database) as store:
        assert (roots(store), store.dims) == (tiny().evidence_root(), tiny().dims)


def test_nulls_beside_lists_of_one_size_are_read_as_such(bundle: Path) -> None:
    """A list that may be null has no length where it is; Arrow keeps room for it, other writers do not."""
    study = tiny().with_rows(
        "state", [{**row, "g": None if i % 3 else row["z"]} for i, row in enumerate(tiny().rows("state"))]
    )
    seen = set()
    for write in (with_arrow, *(WRITERS[name] for name in ("no Arrow schema", "large lists", "duckdb"))):
        write(study.tables["state"], bundle / "state.parquet")
        seen.add(roots(ParquetBundle(bundle)))
    assert seen == {study.evidence_root()} != {tiny().evidence_root()}


# --- what Arrow's own schema says ----------------------------------------------------------------------------------


def lying(table: pa.Table, path: Path, schema: bytes) -> None:
    """Write rows under a schema of Arrow's that was not theirs."""
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ARROW:schema": schema})


def kept(schema: pa.Schema) -> bytes:
    return base64.b64encode(schema.serialize().to_pybytes())


def typed(**types: pa.DataType) -> Callable[[pa.Schema], bytes]:
    """Return what makes the bytes of a schema in which some columns have other types."""
    return lambda schema: kept(pa.schema([f.with_type(types.get(f.name, f.type)) for f in schema]))


def fixed(size: int) -> pa.DataType:
    return pa.list_(pa.float32(), size)


LIES: dict[str, Callable[[pa.Schema], bytes]] = {
    "categories": typed(run_id=pa.dictionary(pa.int8(), pa.string())),
    "an extension": typed(run_id=pa.json_()),
    "texts of bytes": typed(run_id=pa.large_binary(), window_id=pa.binary_view()),
    "lists of half the size": typed(z=fixed(tiny().dims.d // 2)),
    "lists of twice the size": typed(z=fixed(2 * tiny().dims.d)),
    "lists of 2e9 values": typed(z=fixed(2_000_000_000)),
    "a list whose values are times": typed(z=pa.list_(pa.duration("ns"))),
    "numbers of another width": typed(layer=pa.uint8(), r=pa.float16(), position=pa.int64()),
    "times": typed(layer=pa.timestamp("ns", "Europe/Paris"), position=pa.time32("s")),
    "decimals and nothing": typed(layer=pa.decimal128(5, 2), r=pa.null()),
    "a union and a run": typed(r=pa.sparse_union([pa.field("a", pa.float32())]), layer=pa.run_end_encoded(pa.int32(), pa.uint16())),
    "other names": lambda schema: kept(pa.schema([f.with_name(f.name[::-1]) for f in schema])),
    "another order": lambda schema: kept(pa.schema(list(schema)[::-1])),
    "no columns": lambda schema: kept(pa.schema([])),
    "nothing": lambda schema: b"",
    "no schema": lambda schema: b"/////" * 1000,
    "a schema cut short": lambda schema: kept(schema)[:-100],
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_what_arrows_schema_says_changes_nothing(bundle: Path, name: str) -> None:
    table, path = tiny().tables["state"], bundle / "state.parquet"
    lying(table, path, LIES[name](table.schema))
    assert b"ARROW:schema" in path.read_bytes()
    source = ParquetBundle(bundle)
    assert (source.dims, table_root(source, "state")) == (tiny().dims, table_root(tiny().source(), "state"))


def test_lies_are_believed_by_a_plain_reader(tmp_path: Path) -> None:
    """Otherwise nothing would be shown by not believing them."""
    table, path, moved = tiny().tables["state"], tmp_path / "state.parquet", set()
    lying(table, path, kept(table.schema))
    honest = pq.read_table(path).schema.types
    for name, lie in LIES.items():
        lying(table, path, lie(table.schema))
        try:
            if pq.read_table(path).schema.types != honest:
                moved.add(name)
        except (pa.ArrowException, OSError, ValueError):
            moved.add(name)
    assert {"categories", "lists of half the size", "lists of 2e9 values", "no schema", "a schema cut short"} <= moved


def test_names_that_say_arrow_elsewhere_are_refused_or_rows(bundle: Path) -> None:
    """The bytes that are blotted out of the footer may stand in a statistic or in the name of a column."""
    study = tiny().with_rows(
        "task", [{**row, "item_id": f"ARROW:schema{i}"} for i, row in enumerate(tiny().rows("task"))]
    )
    rewrite(bundle, "task", study.tables["task"])
    assert (bundle / "task.parquet").read_bytes().count(b"ARROW:schema") > 2
    assert roots(ParquetBundle(bundle)) == study.evidence_root()
    rewrite(bundle, "task", study.tables["task"].rename_columns(["run_id", "ARROW:schema", "score"]))
    with pytest.raises(EvidenceError, match="declared columns"):
        ParquetBundle(bundle)


def test_arrays_of_duckdb_that_are_null_are_refused_not_misread(bundle: Path) -> None:
    """What it writes of them (issue 24731 of duckdb/duckdb) is no list: levels say more values than there are."""
    with duckdb.connect() as connection:
        connection.register("rows_here", tiny().tables["state"])
        connection.execute(f"COPY rows_here TO '{bundle / 'state.parquet'}' (FORMAT parquet)")
    try:
        found = roots(ParquetBundle(bundle))
    except EvidenceError as error:
        found = f"{error.rule} {error.where.rpartition('/')[2]}"
    assert found in (tiny().evidence_root(), "ATL-A002 state.parquet, row group 0")


# --- lists of another length, values that do not fit --------------------------------------------------------------


def changed(table: str, column: str, values: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    """Return a table with one column exchanged, as a writer without fixed sizes has it."""
    found = tiny().tables[table]
    at = found.schema.get_field_index(column)
    declared = found.schema.field(at).type
    if kind is None:
        kind = pa.list_(declared.value_type) if pa.types.is_fixed_size_list(declared) else declared
    return found.set_column(at, column, pa.array(values, kind))


def cells(table: str, column: str) -> list[Any]:
    return list(tiny().tables[table].column(column).to_pylist())


def shifted(table: str, column: str, row: int = 3) -> pa.Table:
    """Move one value of a list to the next row's: as many values in all."""
    rows = cells(table, column)
    rows[row], rows[row + 1] = rows[row][:-1], [rows[row][-1], *rows[row + 1]]
    return changed(table, column, rows)


def with_cell(table: str, column: str, value: Any, kind: pa.DataType | None = None, row: int = 3) -> pa.Table:
    rows = cells(table, column)
    rows[row] = value(rows[row]) if callable(value) else value
    return changed(table, column, rows, kind)


def null_last(row: list[Any]) -> list[Any]:
    return [*row[:-1], None]


REFUSED: dict[str, tuple[str, str, Callable[[], pa.Table], str]] = {
    "a value in the next row": ("ATL-A003", "state", lambda: shifted("state", "z"), "column z, row 3"),
    "a score in the next row": ("ATL-A003", "update", lambda: shifted("update", "dispatch0"), "column dispatch0, row 3"),
    "an expert in the next row": ("ATL-A003", "routing", lambda: shifted("routing", "experts"), "column experts, row 3"),
    "a position in the next row": ("ATL-A003", "window", lambda: shifted("window", "positions"), "column positions, row 3"),
    "a weight in the next layer": ("ATL-A003", "layer", lambda: shifted("layer", "router_weight", 0), "column router_weight, row 0"),
    "a list a value short": ("ATL-A002", "state", lambda: with_cell("state", "z", lambda row: row[:-1]), "column z, row group 0"),
    "a list that may be null a value short": (
        "ATL-A003", "state", lambda: with_cell("state", "g", lambda _: [1.0] * (tiny().dims.d - 1)), "column g, row 3"),
    "a list that may be null empty": ("ATL-A003", "state", lambda: with_cell("state", "g", []), "column g, row 3"),
    "only empty lists": ("ATL-A020", "state", lambda: changed("state", "z", [[]] * len(cells("state", "z"))), "layer.parquet"),
    "lists of one value": ("ATL-A003", "layer", lambda: changed("layer", "gain", [[1.0]] * len(cells("layer", "gain"))), "column gain, row 0"),
    "a null in place of a list": ("ATL-A002", "state", lambda: with_cell("state", "z", None), "column z, row group 0"),
    "nulls in place of lists": ("ATL-A003", "layer", lambda: changed("layer", "gain", [None] * len(cells("layer", "gain"))), "column gain"),
    "a null inside of a list": ("ATL-A003", "state", lambda: with_cell("state", "z", null_last), "column z"),
    "a null inside of a list that may be null": (
        "ATL-A003", "state", lambda: with_cell("state", "g", lambda _: null_last([1.0] * tiny().dims.d)), "column g"),
    "a number above its column": ("ATL-A003", "routing", lambda: with_cell("routing", "flags", 256, pa.int64()), "column flags"),
    "a negative number": ("ATL-A003", "output", lambda: with_cell("output", "top1", -1, pa.int64()), "column top1"),
    "a negative layer": ("ATL-A003", "state", lambda: with_cell("state", "layer", -1, pa.int32()), "column layer"),
    "a layer beyond any": ("ATL-A003", "state", lambda: with_cell("state", "layer", 2**40, pa.int64()), "column layer"),
    "a number above its column in a list": (
        "ATL-A003", "window", lambda: with_cell("window", "tokens", lambda row: [2**32, *row[1:]], pa.list_(pa.int64())), "column tokens"),
}  # fmt: skip
"""Attack: the rule, the file, its rows, and what the message names besides the file."""


@pytest.fixture(params=["no Arrow schema", pytest.param("duckdb", marks=LATER)])
def write(request: pytest.FixtureRequest) -> Writer:
    return WRITERS[request.param]


@pytest.mark.parametrize("name", REFUSED)
def test_lists_of_another_length_and_values_that_do_not_fit_are_refused(bundle: Path, write: Writer, name: str) -> None:
    rule, table, make, named = REFUSED[name]
    made = make()
    write(
        pa.table(made.columns, schema=pa.schema([f.with_nullable(True) for f in made.schema])),
        bundle / f"{table}.parquet",
    )
    with pytest.raises(EvidenceError) as caught:
        roots(ParquetBundle(bundle))
    assert caught.value.rule == rule
    assert named in caught.value.where


def of_other_types() -> Iterator[tuple[str, str, pa.DataType]]:
    """Yield columns with a type in which they are not read, though it may hold the same values."""
    for kind in (pa.binary(), pa.large_binary(), pa.json_(), pa.binary(4)):
        yield "task", "run_id", kind
    for kind in (pa.float32(), pa.float64(), pa.decimal128(9, 0), pa.date32(), pa.time64("us"), pa.timestamp("us"), pa.bool_(),
                 pa.list_(pa.uint16())):  # fmt: skip
        yield "routing", "position", kind
    for kind in (pa.float64(), pa.float16(), pa.int32(), pa.decimal128(9, 0)):
        yield "task", "score", kind
    for kind in (pa.float32(), pa.list_(pa.float64()), pa.list_(pa.list_(pa.float32())), pa.list_(pa.struct([("a", pa.float32())])),
                 pa.map_(pa.string(), pa.float32()), pa.struct([("a", pa.list_(pa.float32()))]), pa.list_(pa.int32())):  # fmt: skip
        yield "state", "z", kind
    yield "layer", "eps", pa.float32()


@pytest.mark.parametrize(("table", "column", "kind"), list(of_other_types()), ids=str)
def test_other_types_are_refused_by_what_parquet_says(bundle: Path, table: str, column: str, kind: pa.DataType) -> None:
    """Under Arrow's own schema of the declared types, too."""
    found = tiny().tables[table]
    at = found.schema.get_field_index(column)
    other = found.set_column(at, pa.field(column, kind), pa.nulls(found.num_rows, kind))
    for schema in (other.schema, found.schema):
        lying(other, bundle / f"{table}.parquet", kept(schema))
        with pytest.raises(EvidenceError, match="declared columns") as caught:
            ParquetBundle(bundle)
        assert (caught.value.rule, f"column {at + 1}" in caught.value.where) == ("ATL-A002", True)
        assert caught.value.expected == f"{column} {TABLES[table].column(column).storage}"
        assert column in caught.value.found
        assert caught.value.expected != caught.value.found


def admitted(path: Path, most: int) -> bool:
    """Return whether the row groups of a table are admitted where each may take so many bytes."""
    limits, spec = replace(LIMITS, row_group_bytes=most), TABLES[path.stem]
    with path.open("rb") as stream:
        try:
            preflight(path, spec, open_table(stream, path, spec, limits), stream, tiny().dims, limits)
        except EvidenceError:
            return False
    return True


def test_wider_integers_count_by_the_width_they_are_decoded_in(bundle: Path) -> None:
    table, path = tiny().tables["routing"], bundle / "routing.parquet"
    needed = {}
    for name in ("no Arrow schema", "no unsigned integers"):
        WRITERS[name](table, path)
        needed[name] = bisect_left(range(2**24), True, key=lambda most: admitted(path, most))
    # layer, position, experts, competitor_in and competitor_out each take two bytes more; flags, of eight bits, one more.
    values = (4 + tiny().dims.k) * 2 + 1
    assert needed["no unsigned integers"] - needed["no Arrow schema"] >= values * table.num_rows


# --- sizes ----------------------------------------------------------------------------------------------------------


def lied(raw: bytes, before: int, after: int) -> bytes:
    """Return a file whose footer counts other values in the column that counted ``before``, a number that stands once."""
    codec = b"\x15\x00\x16"  # field 4, codec: none; then field 5, number of values
    assert raw.count(codec + zigzag(before)) == 1
    assert len(zigzag(before)) == len(zigzag(after))
    return raw.replace(codec + zigzag(before), codec + zigzag(after))


@pytest.mark.parametrize("times", [(3, 4), (1, 2)])
def test_a_footer_that_lies_about_sizes_is_refused(bundle: Path, times: tuple[int, int]) -> None:
    """A size that the footer makes up is not the pages', nor that of other columns."""
    d, table, path = tiny().dims.d, tiny().tables["state"], bundle / "state.parquet"
    pq.write_table(table, path, compression="none", store_schema=False)
    values = table.num_rows * d
    path.write_bytes(lied(path.read_bytes(), values, values * times[0] // times[1]))
    with pytest.raises(EvidenceError) as caught:
        ParquetBundle(bundle)
    assert caught.value.rule == "ATL-A020"


def test_sizes_come_from_whatever_table_has_rows(bundle: Path) -> None:
    for name in ("state", "layer"):
        rewrite(bundle, name, tiny().tables[name].slice(0, 0))
        found = ParquetBundle(bundle).dims
        assert found == (tiny().dims if name == "state" else Dims(1, tiny().dims.E, tiny().dims.k, tiny().dims.P))


def test_a_bundle_without_rows_has_the_roots_of_nothing_and_is_not_imported(bundle: Path, tmp_path: Path) -> None:
    for name in STUDY_TABLES:
        rewrite(bundle, name, tiny().tables[name].slice(0, 0))
    assert {root.rows for root in table_roots(ParquetBundle(bundle))} == {0}
    assert {root.root for root in table_roots(ParquetBundle(bundle))} == {digest_bytes(b"")}
    with pytest.raises(UsageError, match="no rows that show the sizes"):
        import_bundle(bundle, tmp_path / "new.duckdb", tiny().preregistration_digest())
    assert not (tmp_path / "new.duckdb").exists()


# --- through the command --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a value in the next row", "a number above its column"])
def test_the_command_ends_with_the_documented_code(tmp_path: Path, name: str) -> None:
    """Rows of the demonstration, one of them changed; what is wrong, and where, is said."""
    shutil.copytree(demo_folder() / "evidence", tmp_path / "evidence")
    rule, table, _, named = REFUSED[name]
    column = named.removeprefix("column ").split(",")[0]
    path = tmp_path / "evidence" / f"{table}.parquet"
    found = pq.read_table(path)
    at, rows = found.schema.get_field_index(column), found.column(column).to_pylist()
    if table == "state":
        rows[3], rows[4] = rows[3][:-1], [rows[3][-1], *rows[4]]
    else:
        rows[3] = 256
    kind = pa.list_(pa.float32()) if table == "state" else pa.int64()
    pq.write_table(found.set_column(at, column, pa.array(rows, kind)), path)
    code, said = report(tmp_path / "evidence")
    assert code == 3
    assert rule in json.dumps(said)
    assert named in json.dumps(said)
