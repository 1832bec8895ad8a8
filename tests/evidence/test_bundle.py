"""The Parquet bundle: what survives a round trip, and what is refused before it is believed."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import PRESERVED, Settings, StudySimulator

from atlas_schema.canonical import digest_bytes
from atlas_schema.errors import EvidenceError, RowsError, UsageError
from atlas_schema.evidence.bundle import ParquetBundle, export_bundle, import_bundle
from atlas_schema.evidence.columns import conform
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import EvidenceSource, table_roots
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.limits import Limits


@cache
def tiny() -> StudySimulator:
    """A study of six windows and one arm."""
    return StudySimulator.make(Settings(clusters=(("a", 3), ("b", 2)), double_windows=1, items=3, arms=(PRESERVED,)))


def roots(source: EvidenceSource) -> str:
    return evidence_root(table_roots(source))


def rewrite(folder: Path, name: str, table: pa.Table) -> None:
    pq.write_table(table, folder / f"{name}.parquet")


@pytest.mark.parametrize(("column", "value", "parts"), [
    ("score", None, ("column score", "float, no value missing")), ("item_id", None, ("column item_id", "string, no value missing")),
    ("score", "x", ("column score", "float", "to do:")),
])  # fmt: skip
def test_a_value_that_does_not_fit_is_told_with_its_column(column: str, value: object, parts: tuple[str, ...]) -> None:
    table, schema = tiny().tables["task"], TABLES["task"].arrow_schema(tiny().dims)
    at = table.schema.get_field_index(column)
    changed = table.set_column(at, column, pa.array([value] * table.num_rows, pa.string()))
    with pytest.raises(RowsError) as caught:
        conform(changed, schema, "table task")
    assert str(caught.value).startswith(
        "A value is missing or does not fit its column.\n  where:    table task, column "
    )
    for part in parts:
        assert part in str(caught.value)


def test_export_import_export_keeps_the_content(bundle: Path, tmp_path: Path) -> None:
    assert roots(ParquetBundle(bundle)) == tiny().evidence_root()
    database, again = tmp_path / "imported.duckdb", tmp_path / "again"
    import_bundle(bundle, database, tiny().preregistration_digest())
    with EvidenceStore.open_existing(database) as store:
        assert roots(store) == tiny().evidence_root()
        assert store.preregistration_digest == tiny().preregistration_digest()
        export_bundle(store, again)
    assert roots(ParquetBundle(again)) == tiny().evidence_root()
    for name in STUDY_TABLES:
        assert (again / f"{name}.parquet").read_bytes() == (bundle / f"{name}.parquet").read_bytes()


@settings(max_examples=settings().max_examples // 5)
@given(
    codec=st.sampled_from(["none", "snappy", "zstd", "gzip"]), size=st.integers(20, 200), dictionary=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_content_survives_row_order_row_groups_and_compression(
    codec: str, size: int, dictionary: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as scratch:
        for name in STUDY_TABLES:
            table = tiny().tables[name]
            shuffled = table.take(pa.array(rng.permutation(table.num_rows)))
            pq.write_table(shuffled, Path(scratch) / f"{name}.parquet", compression=codec, row_group_size=size,
                           use_dictionary=dictionary)  # fmt: skip
        assert roots(ParquetBundle(Path(scratch))) == tiny().evidence_root()


def test_a_bundle_reads_the_rows_that_were_written(bundle: Path) -> None:
    source, memory = ParquetBundle(bundle), tiny().source()
    for name in STUDY_TABLES:
        assert source.partitions(name) == memory.partitions(name)
        assert source.rows(name) == tiny().tables[name].num_rows
        for partition in memory.partitions(name):
            ours, theirs = source.read(name, partition), memory.read(name, partition)
            for column in TABLES[name].columns:
                assert (ours[column.name] == theirs[column.name]).all()
                assert (ours.valid(column.name) == theirs.valid(column.name)).all()


@pytest.mark.parametrize("name", STUDY_TABLES)
def test_a_missing_table_is_refused(bundle: Path, name: str) -> None:
    (bundle / f"{name}.parquet").unlink()
    with pytest.raises(EvidenceError, match="not exactly the declared tables") as caught:
        ParquetBundle(bundle)
    assert f"missing {name}.parquet" in caught.value.found
    assert caught.value.todo


def test_an_extra_file_is_refused(bundle: Path) -> None:
    (bundle / "readme.txt").write_text("hello")
    with pytest.raises(EvidenceError, match="not exactly the declared tables") as caught:
        ParquetBundle(bundle)
    assert "extra readme.txt" in caught.value.found


def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.parquet"
    shutil.move(bundle / "task.parquet", outside)
    (bundle / "task.parquet").symlink_to(outside)
    with pytest.raises(EvidenceError, match="regular files"):
        ParquetBundle(bundle)


def test_a_folder_in_place_of_a_table_is_refused(bundle: Path) -> None:
    (bundle / "task.parquet").unlink()
    (bundle / "task.parquet").mkdir()
    with pytest.raises(EvidenceError, match="regular files"):
        ParquetBundle(bundle)


def test_an_absent_folder_and_a_database_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evidence bundle"):
        ParquetBundle(tmp_path / "absent")
    database = tmp_path / "evidence.duckdb"
    database.write_bytes(b"anything")
    with pytest.raises(UsageError, match="folder of Parquet files or one DuckDB file"):
        ParquetBundle(database)


@pytest.mark.parametrize("keep", [0, 3, 4, 100, -1, -4, -100])
def test_a_truncated_file_is_refused(bundle: Path, keep: int) -> None:
    path = bundle / "state.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EvidenceError, match="cannot be read"):
        ParquetBundle(bundle)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_the_root_or_nothing_at_all(at: float, bit: int) -> None:
    """No flipped bit gives other values under the same root, and none raises anything but an evidence error."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = _flat_bundle(Path(scratch))
        path = folder / "output.parquet"
        content = bytearray(path.read_bytes())
        content[int(at * len(content))] ^= 1 << bit
        path.write_bytes(bytes(content))
        try:
            found = ParquetBundle(folder)
            same = roots(found) == tiny().evidence_root()
            rows = pa.concat_tables([found._group("output", g) for g in range(found._files["output"].num_row_groups)])
        except EvidenceError:
            return
        assert same == rows.equals(tiny().tables["output"].cast(rows.schema))


def _flat_bundle(folder: Path) -> Path:
    for name in STUDY_TABLES:
        pq.write_table(tiny().tables[name], folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("name", STUDY_TABLES)
def test_undeclared_columns_types_and_orders_are_refused(bundle: Path, name: str) -> None:
    table = tiny().tables[name]
    first = table.schema.field(0)
    numeric = next(f for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type))
    at = table.schema.get_field_index(numeric.name)
    wider = table.column(at).cast(pa.float64() if numeric.type != pa.float64() else pa.float32())
    for changed in (
        table.drop_columns([first.name]),
        table.append_column("extra", pa.array([0] * table.num_rows)),
        table.select([*table.column_names[1:], first.name]),
        table.rename_columns(["renamed", *table.column_names[1:]]),
        table.set_column(at, numeric.name, wider),
    ):
        rewrite(bundle, name, changed)
        with pytest.raises(EvidenceError, match="declared columns"):
            ParquetBundle(bundle)


def test_lists_of_another_size_are_refused(bundle: Path) -> None:
    table = tiny().tables["layer"]
    at = table.schema.get_field_index("gain")
    short = pa.array([row[:-1] for row in table.column("gain").to_pylist()], pa.list_(pa.float32(), tiny().dims.d - 1))
    rewrite(bundle, "layer", table.set_column(at, "gain", short))
    with pytest.raises(EvidenceError, match="another length") as caught:
        roots(ParquetBundle(bundle))
    assert "layer.parquet, row group 0, column gain, row 0" in caught.value.where
    assert (caught.value.expected, caught.value.found) == (f"{tiny().dims.d} values", str(tiny().dims.d - 1))


def test_limits_hold_before_decoding(bundle: Path) -> None:
    for limits in (Limits(table_rows=5), Limits(row_groups=0), Limits(row_group_bytes=100)):
        with pytest.raises(EvidenceError, match="larger than the limits"):
            ParquetBundle(bundle, limits)
    with pytest.raises(EvidenceError, match="out of bounds"):
        ParquetBundle(bundle, Limits(dimension=2))


def test_a_null_key_is_refused(bundle: Path) -> None:
    rows = tiny().rows("output")
    schema = pa.schema([f.with_nullable(True) for f in tiny().tables["output"].schema])
    rewrite(bundle, "output", pa.Table.from_pylist([{**rows[0], "run_id": None}, *rows[1:]], schema=schema))
    with pytest.raises(EvidenceError, match="key is missing"):
        ParquetBundle(bundle)


def test_duplicate_rows_nulls_and_nan_are_refused_on_reading(bundle: Path) -> None:
    rows = tiny().rows("output")
    schema = pa.schema([f.with_nullable(True) for f in tiny().tables["output"].schema])
    for first, fault in (
        ([rows[0], rows[0]], "same key"), ([{**rows[0], "nll": None}], "value is missing"),
        ([{**rows[0], "nll": float("nan")}], "not finite"),
    ):  # fmt: skip
        rewrite(bundle, "output", pa.Table.from_pylist([*first, *rows[1:]], schema=schema))
        with pytest.raises(EvidenceError, match=fault):
            roots(ParquetBundle(bundle))


def test_duplicate_rows_in_different_row_groups_are_refused(bundle: Path) -> None:
    table = tiny().tables["output"]
    pq.write_table(
        pa.concat_tables([table, table.slice(0, 1)]), bundle / "output.parquet", row_group_size=table.num_rows
    )
    with pytest.raises(EvidenceError, match="same key"):
        roots(ParquetBundle(bundle))


def test_export_refuses_a_folder_that_is_not_empty(bundle: Path, tmp_path: Path) -> None:
    with tiny().store(tmp_path / "s.duckdb") as store, pytest.raises(UsageError, match="not empty"):
        export_bundle(store, bundle)


def test_import_refuses_an_existing_file(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "present.duckdb"
    target.write_bytes(b"")
    with pytest.raises(UsageError, match="already exists"):
        import_bundle(bundle, target, digest_bytes(b""))
    assert target.read_bytes() == b""
