"""What may not matter: order of rows, row groups, codecs, encodings, blocks, threads, and where the rows are kept.

What is compared is all that verification takes from the rows, bit for bit: roots, findings to their last digit, and every
problem of a study in which something is wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measures.worlds import CutSource
from properties.contract import holds
from simulator import PRESERVED, REWRITTEN, MemorySource, StudySimulator
from verify.forging import reissued, tiny

from atlas_schema.canonical import canonical_json, digest_bytes
from atlas_schema.evidence import bundle, streaming
from atlas_schema.evidence.bundle import ParquetBundle, export_bundle
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import EvidenceSource, Partition, whole
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.measures import bootstrap
from atlas_schema.measures.summarise import conclude
from atlas_schema.verify.examine import examine

ROOT = Path(__file__).parents[2]


FAULTS: tuple[tuple[str, str, float], ...] = (
    ("update", "dy_norm", 2.0), ("state", "r", 1.5), ("output", "entropy", -3.0), ("routing", "margin", 4.0),
)  # fmt: skip


@cache
def small() -> StudySimulator:
    """A study of few windows in which all kinds of bounds occur; its arms 'close' and 'rewritten'."""
    few = tiny(clusters=(("code", 5), ("legal", 5)), items=24, arms=(replace(PRESERVED, name="close"), REWRITTEN),
               bootstrap={"resamples": 200, "min_clusters": 5, "rare_event_clusters": 3})  # fmt: skip
    return StudySimulator.make(few)


@cache
def faulty() -> StudySimulator:
    """The study with one value wrong in each of four tables, in different windows."""
    made = small()
    for at, (table, column, factor) in enumerate(FAULTS):
        rows = made.rows(table)
        row = (at + 1) * len(rows) // 6
        made = made.with_value(table, row, column, rows[row][column] * factor)
    return made


WORLDS = {"honest": small, "faulty": faulty}


def said(source: EvidenceSource, made: StudySimulator) -> bytes:
    """Return all that is said of the rows: roots, counted checks, problems and, where there are any, unrounded findings."""
    found = examine(source, made.preregistration, made.contract, reproduce=True)
    root = made.evidence_root()
    findings = None if found.sums is None else conclude(found.sums, made.contract, made.preregistration, root)
    return canonical_json({
        "roots": [[r.name, r.rows, r.root] for r in found.roots],
        "checks": [[c.checked, c.total, [str(p) for p in c.problems]] for c in (found.contract, found.physics)],
        "findings": None if findings is None else findings.model_dump(mode="json"),
    })  # fmt: skip


@cache
def expected(world: str) -> bytes:
    made = WORLDS[world]()
    return said(made.source(), made)


def permuted(made: StudySimulator, seed: int) -> dict[str, pa.Table]:
    """Return the tables with their rows in other orders."""
    rng = np.random.default_rng(seed)
    return {name: table.take(pa.array(rng.permutation(table.num_rows))) for name, table in made.tables.items()}


class Cut(CutSource):
    """A source cut after some windows; tables without windows, which digests read, come whole."""

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        by_window = all("window_id" in TABLES[table].leaf for table, _ in wanted)
        return super().blocks(wanted) if by_window else whole(self, wanted)


def test_the_faulty_study_has_problems_and_the_honest_one_findings() -> None:
    """Else the comparison below would compare nothing with nothing."""
    assert b'"findings":{' in expected("honest")
    assert b'"findings":null' in expected("faulty")
    assert expected("faulty").count(b"ATL-R") >= 3


@holds(
    "invariance", "Rows in any order, in any chunks, give the same roots, findings and problems.", 3, 40, costly=True
)
@given(world=st.sampled_from(sorted(WORLDS)), seed=st.integers(0, 2**32 - 1), cuts=st.integers(0, 8))
def test_order_and_blocks_of_rows_do_not_matter(world: str, seed: int, cuts: int) -> None:
    made = WORLDS[world]()
    windows = sorted({row["window_id"] for row in made.rows("window")})
    chosen = np.random.default_rng(seed).choice(len(windows), size=cuts, replace=False)
    shuffled = StudySimulator(
        made.settings, permuted(made, seed), made.contract, made.preregistration, made.run_log, {}
    )
    assert said(Cut(shuffled, [windows[at] for at in chosen]), made) == expected(world)


writers = st.fixed_dictionaries({
    "compression": st.sampled_from(["none", "snappy", "zstd", "gzip", "lz4", "brotli"]),
    "row_group_size": st.sampled_from([7, 20, 64, 300, 2**20]),
    "use_dictionary": st.booleans(), "write_statistics": st.booleans(),
    "data_page_version": st.sampled_from(["1.0", "2.0"]), "version": st.sampled_from(["2.4", "2.6"]),
    "data_page_size": st.sampled_from([64, 1024, 2**20]), "write_page_checksum": st.booleans(),
})  # fmt: skip


@contextmanager
def written(tables: Mapping[str, pa.Table], how: Mapping[str, Any]) -> Iterator[ParquetBundle]:
    """Write a bundle as another tool would, and open it."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in STUDY_TABLES:
            pq.write_table(tables[name], Path(scratch) / f"{name}.parquet", **how)
        yield ParquetBundle(Path(scratch))


@holds(
    "invariance",
    "A bundle of any codec, encoding, page and row group size says what the rows in memory say.",
    4,
    30,
    costly=True,
)
@given(world=st.sampled_from(sorted(WORLDS)), seed=st.none() | st.integers(0, 2**32 - 1), how=writers)
def test_how_a_bundle_is_written_does_not_matter(world: str, seed: int | None, how: Mapping[str, Any]) -> None:
    made = WORLDS[world]()
    tables = {name: made.tables[name] for name in STUDY_TABLES} if seed is None else permuted(made, seed)
    with written(tables, how) as source:
        assert said(source, made) == expected(world)


@holds("invariance", "Threads, reading ahead, and the sizes of blocks change no bit.", 2, 24, costly=True)
@given(
    world=st.sampled_from(sorted(WORLDS)), cpus=st.integers(1, 4), processors=st.integers(1, 2),
    group_bytes=st.sampled_from([4096, 16384, 2**21]), block=st.sampled_from([1, 2**12, 2**19]),
    together=st.sampled_from([64, 100, 512]), kept=st.sampled_from([0, 32 * 2**20]),
)  # fmt: skip
def test_threads_and_sizes_of_blocks_do_not_matter(
    world: str, cpus: int, processors: int, group_bytes: int, block: int, together: int, kept: int
) -> None:
    made = WORLDS[world]()
    before = pa.cpu_count(), pa.io_thread_count()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(bundle, "GROUP_BYTES", group_bytes)
        patch.setattr(streaming, "processors", lambda: processors)
        patch.setattr(bootstrap, "BLOCK", block)
        patch.setattr(bootstrap, "DRAWN_TOGETHER", together)
        patch.setattr(bootstrap.Draws, "KEPT", kept)
        try:
            pa.set_cpu_count(cpus)
            pa.set_io_thread_count(cpus)
            with made.store(Path(scratch) / "evidence.duckdb") as store:
                export_bundle(store, Path(scratch) / "evidence")
            assert said(ParquetBundle(Path(scratch) / "evidence"), made) == expected(world)
        finally:
            pa.set_cpu_count(before[0])
            pa.set_io_thread_count(before[1])


CODE = """
import sys
from pathlib import Path
import pyarrow as pa
from atlas_schema.reports.json import render
from atlas_schema.verify.loading import load
from atlas_schema.verify.verifier import Options, verify
pa.set_cpu_count(int(sys.argv[2]))
folder = Path(sys.argv[1])
for name in ("honest", "faulty"):
    report = verify(load(folder / name / "receipt.json", None, folder / name / "contract.json", None, None), Options())
    report.document = "receipt.json"
    sys.stdout.write(render(report))
"""


@pytest.mark.thorough
@holds("invariance", "A fresh process says the same under any number of threads of OpenMP, OpenBLAS, MKL and Arrow.")
def test_threads_of_libraries_do_not_matter(tmp_path: Path) -> None:
    for name, make in WORLDS.items():
        s = small()
        honest = s.receipt("close")
        again, receipt = reissued(make(), "close", receipt=honest)
        again.write(tmp_path / name)
        (tmp_path / name / "receipt.json").write_bytes(canonical_json(receipt))
    said_by = {}
    for threads in (1, 2, 3, 8):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        done = subprocess.run([sys.executable, "-B", "-c", CODE, str(tmp_path), str(threads)], capture_output=True, text=True,
                              env={**os.environ, **dict.fromkeys(names, str(threads))}, timeout=300, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        said_by[threads] = digest_bytes(done.stdout.encode())
        assert '"UNPROVEN"' in done.stdout  # ten clusters decide little, and say so
        assert '"DIVERGED"' in done.stdout
    assert len(set(said_by.values())) == 1, said_by


def test_rows_in_memory_and_in_reverse_are_the_same() -> None:
    """The plainest case, without Hypothesis: a source that yields rows backwards."""
    made = small()
    backwards = {name: table.take(pa.array(np.arange(table.num_rows)[::-1])) for name, table in made.tables.items()}
    assert said(MemorySource(backwards, made.dims), made) == expected("honest")


def test_the_technicians_store_says_the_same(tmp_path: Path) -> None:
    with small().store(tmp_path / "evidence.duckdb") as store:
        assert said(store, small()) == expected("honest")
