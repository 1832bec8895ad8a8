"""Parquet files made to exhaust, crash or mislead their reader: each is refused, in bounded memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence.forged_parquet import RAW, ZSTD, Column, task, thrift, write
from evidence.test_bundle import roots, tiny
from hypothesis import given
from hypothesis import strategies as st

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.pages import Chunk, PageError, walk
from atlas_schema.evidence.tables import TABLES
from atlas_schema.evidence.thrift import ThriftError, read_struct
from atlas_schema.limits import LIMITS

MEMORY = 200 * 2**20
"""What refusing a file may take beyond the loaded libraries, bytes."""
SECONDS = 10.0
"""Processor time that refusing a file may take."""

READ = """
import json, resource, sys, time
import numpy, pyarrow.parquet, pyarrow.compute
from pathlib import Path
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.source import table_roots
ParquetBundle(Path(sys.argv[2])).read("task", ("base",))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
try:
    table_roots(ParquetBundle(Path(sys.argv[1])))
    rule, what = "", "accepted"
except EvidenceError as error:
    rule, what = error.rule, str(error)
print(json.dumps([rule, what, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, time.process_time() - start]))
"""


def one_long_list(values: int, rows: int = 0) -> bytes:
    """Return table `window` with one list of zeros that is ``values`` long, and ``rows`` honest rows."""
    table = tiny().tables["window"]
    at = table.schema.get_field_index("tokens")
    lists = pa.ListArray.from_arrays(pa.array([0, values], pa.int32()), pa.array(np.zeros(values, dtype=np.uint32)))
    long = table.slice(0, 1).set_column(at, table.schema.field(at).name, lists)
    return parquet(pa.concat_tables([long.cast(loose(table.schema)), *([table.cast(loose(table.schema))] * rows)]))


def one_long_text(size: int) -> bytes:
    table = tiny().tables["run"]
    at = table.schema.get_field_index("fingerprint")
    return parquet(table.set_column(at, "fingerprint", pa.array(["x" * size] * table.num_rows)))


def loose(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_nullable(True) for f in schema])


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", **options)
    return bytes(sink.getvalue())


def schema_only(elements: list[dict[int, Any]]) -> bytes:
    end = thrift({1: ("i32", 1), 2: ("list", ("struct", elements)), 3: ("i64", 0), 4: ("list", ("struct", []))})
    return b"PAR1" + end + len(end).to_bytes(4, "little") + b"PAR1"


def nested(depth: int) -> bytes:
    inner = [{3: ("i32", 1), 4: ("binary", b"a"), 5: ("i32", 1)}] * depth
    return schema_only(
        [{4: ("binary", b"s"), 5: ("i32", 1)}, *inner, {1: ("i32", 1), 3: ("i32", 1), 4: ("binary", b"x")}]
    )


def hollow() -> bytes:
    """Return a file whose last column is a group of no columns: a field, and no leaf."""
    text = {1: ("i32", 6), 3: ("i32", 0), 6: ("i32", 0)}
    names = [{**text, 4: ("binary", name)} for name in (b"run_id", b"item_id")]
    return schema_only(
        [{4: ("binary", b"s"), 5: ("i32", 3)}, *names, {3: ("i32", 0), 4: ("binary", b"score"), 5: ("i32", 0)}]
    )


def wide(columns: int) -> bytes:
    leaf = {1: ("i32", 1), 3: ("i32", 1), 4: ("binary", b"x")}
    return schema_only([{4: ("binary", b"s"), 5: ("i32", columns)}, *([leaf] * columns)])


def runs_as(change: Callable[[pa.Array], pa.Array]) -> pa.Table:
    """Return table `task` whose column ``run_id`` has another type."""
    table = tiny().tables["task"]
    return table.set_column(0, "run_id", change(table.column("run_id").combine_chunks()))


def encoded(**encodings: str) -> bytes:
    return parquet(tiny().tables["task"], use_dictionary=False, column_encoding=encodings)


def sized_numbers() -> list[Column]:
    """The columns of `task`, of which the last, numbers, states how many bytes its texts take."""
    columns = task(10)
    columns[2].footer = {16: ("struct", {1: ("i64", 40)})}
    return columns


ATTACKS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "few bytes declare 2e8 rows": ("ATL-A002", "task", lambda: write(task(200_000_000))),
    "few bytes declare 2e9 rows": ("ATL-A002", "task", lambda: write(task(2_000_000_000))),
    "the footer says ten rows, the pages 2e8": (
        "ATL-A020", "task",
        lambda: write([replace(c, footer={5: ("i64", 10)}) for c in task(200_000_000)], group_rows=10),
    ),
    "pages claim more values than the footer": ("ATL-A020", "task", lambda: write(task(10, page_values=2_000_000_000))),
    "row groups share their bytes": ("ATL-A020", "task", lambda: write(task(5_000_000), groups=20, share=True)),
    "the footer counts other rows than its groups": ("ATL-A020", "task", lambda: write(task(10), footer={3: ("i64", 11)})),
    "a negative number of rows": ("ATL-A020", "task", lambda: write(task(10), group_rows=-10)),
    "one text of a dictionary repeated": ("ATL-A002", "task", lambda: write(task(10_000_000, b"x" * 100_000, codec=ZSTD))),
    "a dictionary of 2e9 entries in eight bytes": ("ATL-A020", "task", lambda: write(task(10, dictionary_entries=2**31 - 1))),
    "a page that says it unpacks to 2 GiB": ("ATL-A002", "task", lambda: write(task(10, page_size=2**31 - 1, codec=ZSTD))),
    "a page of negative size": ("ATL-A020", "task", lambda: write(task(10, page_size=-1))),
    "an index page": ("ATL-A020", "task", lambda: write(task(10, page_kind=1))),
    "an unknown encoding": ("ATL-A020", "task", lambda: write(task(10, data_encoding=4))),
    "texts that repeat each other's prefix": ("ATL-A020", "task", lambda: encoded(item_id="DELTA_BYTE_ARRAY")),
    "a column in another file": ("ATL-A020", "task", lambda: write(task(10, chunk={1: ("binary", b"/etc/passwd")}))),
    "a column beyond the file": ("ATL-A020", "task", lambda: write(task(10, footer={9: ("i64", 2**40), 11: ("i64", 2**41)}))),
    "a column of negative length": ("ATL-A020", "task", lambda: write(task(10, footer={7: ("i64", -1)}))),
    "a column that ends inside a page": ("ATL-A020", "task", lambda: write(task(10, footer={7: ("i64", 20)}))),
    "an encrypted footer": ("ATL-A002", "task", lambda: write(task(10))[:-4] + b"PARE"),
    "encrypted columns": ("ATL-A020", "task", lambda: write(task(10, chunk={8: ("struct", {1: ("struct", {})})}))),
    # The next three ended the whole process, or the reader with a fault, when pyarrow was asked about the column.
    "a column encrypted with a key of its own": ("ATL-A020", "task", lambda: write(task(10, chunk={8: ("struct", {2: ("struct", {
        1: ("list", ("binary", [b"item_id"]))})})}))),
    "sizes of more levels than there are": ("ATL-A020", "task", lambda: write(task(10, footer={16: ("struct", {
        3: ("list", ("i64", [1, 2]))})}))),
    "sizes of texts where none are": ("ATL-A020", "task", lambda: write(sized_numbers())),
    "a row group without columns": ("ATL-A020", "task", lambda: write(task(10), footer={4: ("list", ("struct", [
        {1: ("list", ("struct", [])), 2: ("i64", 100), 3: ("i64", 10)}]))})),
    "a footer of more values than one has": ("ATL-A020", "task", lambda: write(task(10, footer={
        16: ("struct", {3: ("list", ("i64", [1] * 100_000))})}))),
    "a schema 100,000 levels deep": ("ATL-A002", "task", lambda: nested(100_000)),
    "100,000 columns": ("ATL-A002", "task", lambda: wide(100_000)),
    "a footer larger than the limit": ("ATL-A002", "task", lambda: wide(2_500_000)),
    "a footer longer than the file": ("ATL-A002", "task", lambda: b"PAR1\xff\xff\xff\x7fPAR1"),
    "a million row groups": ("ATL-A002", "task", lambda: write(task(1), groups=20_000, share=True)),
    "a column twice": ("ATL-A002", "task", lambda: write([*task(10), task(10)[0]])),
    "an extension type": ("ATL-A002", "task", lambda: parquet(runs_as(lambda runs: runs.cast(pa.json_())))),
    "a categorical column": ("ATL-A002", "task", lambda: parquet(runs_as(lambda runs: runs.cast(pa.binary()).dictionary_encode()))),
    # Nobody looks at that schema; what is wrong with the file is one key ten times.
    "a schema in metadata that is none": ("ATL-A003", "task", lambda: write(task(10), footer={5: ("list", ("struct", [
        {1: ("binary", b"ARROW:schema"), 2: ("binary", b"/////" * 1000)}]))})),
    "many small row groups of one run": ("ATL-A021", "task", lambda: write(task(2_000_000), groups=8)),
    "a row group of 1e7 rows": ("ATL-A002", "task", lambda: write(task(10_000_000))),
    "one list of 2e7 values": ("ATL-A020", "window", lambda: one_long_list(20_000_000)),
    "one long list among short ones": ("ATL-A021", "window", lambda: one_long_list(LIMITS.list_values + 1, rows=1)),
    "one text of two megabytes": ("ATL-A021", "run", lambda: one_long_text(2 * 2**20)),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bomb_is_refused_in_bounded_memory_and_time(written: Path, bundle: Path, name: str) -> None:
    rule, table, make = ATTACKS[name]
    content = make()
    (bundle / f"{table}.parquet").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", READ, str(bundle), str(written)], capture_output=True, text=True, timeout=120,
                          check=True)  # fmt: skip
    found, what, memory, seconds = json.loads(done.stdout)
    assert found == rule, what
    assert f"{table}.parquet" in what or f"table {table}," in what
    assert memory < MEMORY
    assert seconds < SECONDS


TOLD: dict[str, tuple[str, ...]] = {
    "an unknown encoding": ("column item_id (string)", "encoding BIT_PACKED", "PLAIN, PLAIN_DICTIONARY", "in one of these encodings"),
    "texts that repeat each other's prefix": ("column item_id (string)", "encoding DELTA_BYTE_ARRAY", "in one of these encodings"),
    "an index page": ("column item_id (string)", "kind 1", "data pages", "without index pages"),
    "a page of negative size": ("column item_id (string)", "a page of -1 bytes", "no negative numbers"),
    "a dictionary of 2e9 entries in eight bytes": ("column item_id (string)", "2147483647 entries in 8 bytes", "4 bytes or more"),
    "pages claim more values than the footer": ("column item_id (string)", "2000000000 values", "10 values, as the footer says"),
    "a negative number of rows": ("column run_id (string)", "10 values in -10 rows", "one a row"),
    "a column in another file": ("column item_id (string)", "another file", "all of a table in one file"),
    "a column beyond the file": ("column item_id (string)", "bytes from 1099511627776 on", "bytes of the file, which ends at"),
    "encrypted columns": ("column item_id", "the column is encrypted", "without encryption"),
    "sizes of more levels than there are": ("column item_id", "count 2 levels", "none, or 1", "without statistics of sizes"),
    "sizes of texts where none are": ("column score", "state the bytes of texts", "none of FLOAT", "without statistics of sizes"),
    "a footer of more values than one has": ("column item_id", "more than 256 fields and elements"),
    "one list of 2e7 values": ("column tokens (list<", "uint32>)", "20000000 values in 1 rows", "262144 or fewer a row"),
    "the footer counts other rows than its groups": ("row groups hold 10 rows", "11, as the footer says", "the file is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_a_refusal_names_the_column_and_what_to_do(bundle: Path, name: str) -> None:
    """What cannot be known, such as that no Parquet writer wrote it, is not said."""
    _, table, make = ATTACKS[name]
    (bundle / f"{table}.parquet").write_bytes(make())
    with pytest.raises(EvidenceError) as caught:
        ParquetBundle(bundle)
    assert caught.value.rule == "ATL-A020"
    told = str(caught.value)
    for part in (f"{table}.parquet", *TOLD[name], "to do:"):
        assert part in told
    assert ("row group 0, column" in told) == ("column" in TOLD[name][0])


def test_a_column_without_a_leaf_is_refused(bundle: Path) -> None:
    (bundle / "task.parquet").write_bytes(hollow())
    with pytest.raises(EvidenceError, match="declared columns") as caught:
        ParquetBundle(bundle)
    assert "column 3" in caught.value.where
    assert "score" in caught.value.found


def test_admitted_rows_are_decoded_in_six_times_their_size(written: Path, bundle: Path) -> None:
    """Rows in no order, each with a text of its own: sorting and numbering them costs most."""
    table, n = tiny().tables["state"], 400_000
    rows = table.take(pa.array(np.arange(n) % table.num_rows))
    windows = pa.array([f"{i:08x}" for i in np.random.default_rng(0).permutation(n)])
    for at, values in ((0, pa.array(["base"] * n)), (1, pa.array(np.zeros(n, np.uint16))), (2, windows)):
        rows = rows.set_column(at, table.schema.field(at).name, values)
    pq.write_table(rows, bundle / "state.parquet", row_group_size=n)
    code = READ.replace(
        "table_roots(ParquetBundle(Path(sys.argv[1])))", "ParquetBundle(Path(sys.argv[1])).read('state', ('base', 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle), str(written)], capture_output=True, text=True, timeout=300,
                          check=True)  # fmt: skip
    _, what, memory, _ = json.loads(done.stdout)
    assert what == "accepted"
    assert memory < 6 * rows.nbytes


def test_the_forging_writer_writes_what_is_read(bundle: Path) -> None:
    """Otherwise its attacks would be refused for its own mistakes."""
    for codec in (RAW, ZSTD):
        (bundle / "task.parquet").write_bytes(write(task(1, b"item", codec=codec)))
        rows = ParquetBundle(bundle).read("task", ("base",))
        assert (rows.n, rows["item_id"][0], rows["score"][0]) == (1, "item", 1.0)


@pytest.mark.parametrize("number", [32767, -16384, 101])
def test_fields_that_nobody_asks_for_are_passed_over(bundle: Path, number: int) -> None:
    """Parquet keeps id 32767 of every structure for extensions; the example of its page writes the bytes of -16384."""
    more = {number: ("binary", b"x" * 300)}
    columns = [replace(c, footer=more, chunk=more, header=more) for c in task(1, b"item")]
    (bundle / "task.parquet").write_bytes(write(columns, footer=more))
    rows = ParquetBundle(bundle).read("task", ("base",))
    assert (rows.n, rows["item_id"][0], rows["score"][0]) == (1, "item", 1.0)


def test_bombs_are_what_they_say(tmp_path: Path) -> None:
    """A decoder without the preflight really expands them."""
    (tmp_path / "bomb.parquet").write_bytes(write(task(2_000_000, b"x" * 100, codec=ZSTD)))
    assert (tmp_path / "bomb.parquet").stat().st_size < 1000
    assert pq.read_table(tmp_path / "bomb.parquet").nbytes > 200_000_000


def test_files_of_other_writers_are_read(bundle: Path) -> None:
    for name in ("task", "output"):
        path, table = bundle / f"{name}.parquet", tiny().tables[name]
        for version in ("v1", "v2"):
            with duckdb.connect() as connection:
                connection.register("rows", table)
                connection.execute(f"COPY rows TO '{path}' (PARQUET_VERSION {version})")
            assert roots(ParquetBundle(bundle)) == tiny().evidence_root()
        for version in ("1.0", "2.0"):
            pq.write_table(
                table, path, data_page_version=version, write_page_index=True, write_batch_size=7, data_page_size=64
            )
            assert roots(ParquetBundle(bundle)) == tiny().evidence_root()


def test_many_items_with_long_names_are_not_taken_for_a_bomb(bundle: Path) -> None:
    """The dictionary times the rows exceeds the bound; the texts themselves do not."""
    table = pa.table({"run_id": ["base"] * 40_000, "item_id": [f"item-{i:060d}" for i in range(40_000)],
                      "score": pa.array([1.0] * 40_000, pa.float32())}, schema=TABLES["task"].arrow_schema(tiny().dims))  # fmt: skip
    pq.write_table(table, bundle / "task.parquet", dictionary_pagesize_limit=2**24)
    limits = replace(LIMITS, row_group_bytes=32 * 2**20)
    assert ParquetBundle(bundle, limits).read("task", ("base",)).n == 40_000
    with pytest.raises(EvidenceError, match="row group is larger"):
        ParquetBundle(bundle, replace(LIMITS, row_group_bytes=3 * 2**20))


def test_too_many_pages_are_told_by_the_limit_whichever_column_holds_the_last(bundle: Path) -> None:
    ParquetBundle(bundle)
    for most in (1, 2, 4):
        with pytest.raises(EvidenceError, match=f"more than {most} pages in one file"):
            ParquetBundle(bundle, replace(LIMITS, pages=most))


def test_limits_of_pages_footer_and_table_hold(bundle: Path) -> None:
    for limits in (replace(LIMITS, pages=1), replace(LIMITS, footer_bytes=100), replace(LIMITS, table_bytes=1000),
                   replace(LIMITS, router_values=3), replace(LIMITS, footer_values=10), replace(LIMITS, column_values=10),
                   replace(LIMITS, footer_values=90, group_values=0)):  # fmt: skip
        with pytest.raises(EvidenceError):
            ParquetBundle(bundle, limits)


# --- files and folders --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_devices_and_links_are_refused_without_waiting(bundle: Path) -> None:
    path = bundle / "task.parquet"
    for make in (os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.symlink_to("state.parquet"), Path.mkdir):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)
        with pytest.raises(EvidenceError, match="regular files") as caught:
            ParquetBundle(bundle)
        assert caught.value.rule == "ATL-A022"


def test_a_file_exchanged_after_it_was_opened_is_not_read(bundle: Path) -> None:
    """What was checked is what is decoded: the path is not looked up again."""
    source = ParquetBundle(bundle)
    other = tiny().with_value("task", 0, "score", 0.0 if tiny().rows("task")[0]["score"] else 1.0).tables["task"]
    pq.write_table(other, bundle / "new.parquet")
    (bundle / "new.parquet").rename(bundle / "task.parquet")
    (bundle / "state.parquet").unlink()
    assert roots(source) == tiny().evidence_root()


def test_a_folder_of_many_files_is_refused_without_listing_them_all(bundle: Path) -> None:
    for i in range(500):
        (bundle / f"{i}.txt").touch()
    with pytest.raises(EvidenceError, match="not exactly the declared tables") as caught:
        ParquetBundle(bundle)
    assert len(str(caught.value)) < 1000


# --- headers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "why"),
    [(b"", "end inside"), (b"\x15", "end inside"), (b"\x15\x00\x05\x02\x00\x00", "twice"), (b"\x05\x00\x00\x05\x00\x00\x00", "twice"),
     (b"\x05\xfe\xff\x03\x00\x15\x00\x00", "out of place"), (b"\x05\x80\x80\x04\x00\x00", "larger"),
     (b"\x15\xff\xff\xff\xff\x1f\x00", "larger"),
     (b"\x15\x80\x80\x80\x80\x80\x80\x00", "longer"), (b"\x18\xff\xff\xff\xff\x0f", "end inside"), (b"\x19\x00\x00", "no place"),
     (b"\x1c" * 20, "too deeply")],
)  # fmt: skip
def test_structures_that_two_readers_could_read_differently_are_refused(raw: bytes, why: str) -> None:
    with pytest.raises(ThriftError, match=why):
        read_struct(raw)


@given(
    st.dictionaries(
        st.integers(-(2**15), 2**15 - 1), st.tuples(st.just("i32"), st.integers(-(2**31), 2**31 - 1)), max_size=6
    ),
    st.binary(),
)
def test_structures_are_read_as_written(fields: dict[int, tuple[str, int]], rest: bytes) -> None:
    raw = thrift(fields)
    found, end = read_struct(raw + rest)
    assert {n: value for n, (_, value) in found.items()} == {n: value for n, (_, value) in fields.items()}
    assert end == len(raw)


@given(st.binary(max_size=200))
def test_arbitrary_headers_give_pages_or_a_page_error(raw: bytes) -> None:
    descriptor = os.memfd_create("pages") if hasattr(os, "memfd_create") else pytest.skip("no files in memory here")
    try:
        os.write(descriptor, raw)
        with pytest.raises(PageError):
            walk(descriptor, Chunk(0, len(raw), 1), 10)
    finally:
        os.close(descriptor)
