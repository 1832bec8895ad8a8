"""The technician's store as an extraction uses it: windows of runs in any order, failures, crashes, resuming, exchange.

The model is a set of parts. `tests/evidence/test_store.py` has a machine over arbitrary rows of arbitrary tables; here the rows
are those of a study, so that what is complete must have the study's root.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from documents.examples import study
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from properties.contract import THOROUGH, holds, machine
from simulator import MemorySource

from atlas_schema.errors import AtlasError, EvidenceError, UsageError
from atlas_schema.evidence.bundle import ParquetBundle, export_bundle, import_bundle
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import EvidenceSource, table_roots
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES

Part = tuple[str, str]
"""What an extraction commits together: a run's rows of one window, a run's rows without windows, or the windows themselves."""


@cache
def parts() -> dict[Part, dict[str, pa.Table]]:
    """Cut the study's tables into parts."""
    found: dict[Part, dict[str, list[int]]] = {}
    for name in STUDY_TABLES:
        for at, row in enumerate(study().tables[name].select(list(TABLES[name].key)).to_pylist()):
            part = (row.get("run_id", ""), row.get("window_id", ""))
            found.setdefault(part, {}).setdefault(name, []).append(at)
    whole = study().tables
    return {p: {name: whole[name].take(pa.array(rows)) for name, rows in tables.items()} for p, tables in found.items()}


def together(chosen: set[Part]) -> dict[str, pa.Table]:
    """Return the tables that hold exactly the chosen parts."""
    whole = {}
    for name in STUDY_TABLES:
        held = [parts()[part][name] for part in sorted(chosen) if name in parts()[part]]
        whole[name] = pa.concat_tables(held) if held else study().tables[name].slice(0, 0)
    return whole


def root(source: EvidenceSource) -> str:
    return evidence_root(table_roots(source))


def model_root(chosen: set[Part]) -> str:
    return root(MemorySource(together(chosen), study().dims))


def opened(path: Path) -> EvidenceStore:
    return EvidenceStore.open(path, preregistration_digest=study().preregistration_digest(), dims=study().dims)


def put(store: EvidenceStore, part: Part) -> None:
    for name, rows in parts()[part].items():
        store.append(name, rows)


OTHER = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from atlas_schema.errors import UsageError
from atlas_schema.evidence.store import EvidenceStore
path, digest, how, rows = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
try:
    with EvidenceStore.open_existing(path) as store:
        dims = store.dims
    store = EvidenceStore.open(path, preregistration_digest=digest, dims=dims)
except UsageError as error:
    sys.exit(str(error))
with store.transaction():
    for file in sorted(rows.iterdir()):
        store.append(file.stem, pa.ipc.open_file(file.read_bytes()).read_all())
    if how == "before":
        os.kill(os.getpid(), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def other_process(path: Path, part: Part, how: str) -> subprocess.CompletedProcess[str]:
    """Let another process write a part and be killed before or after its commit."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, rows in parts()[part].items():
            with pa.ipc.new_file(Path(scratch) / f"{name}.arrow", rows.schema) as writer:
                writer.write_table(rows)
        return subprocess.run([sys.executable, "-c", OTHER, str(path), study().preregistration_digest(), how, scratch],
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip


@machine(
    "evidence store",
    "Windows of runs in any order, failures, crashes, torn logs, resuming: what was committed is there, whole.",
    3,
    40,
    12,
)
class Extraction(RuleBasedStateMachine):
    """The store holds exactly the parts that were committed, and has their root."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "evidence.duckdb"
        self.done: set[Part] = set()
        self.history: list[frozenset[Part]] = [frozenset()]
        self.store: EvidenceStore

    @initialize()
    def start(self) -> None:
        self.store = opened(self.path)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.require_model(self.store, self.done)
            self.store.close()
        shutil.rmtree(self.folder)

    def require_model(self, source: EvidenceSource, chosen: set[Part]) -> None:
        assert root(source) == model_root(chosen)
        if chosen == set(parts()):
            assert root(source) == study().evidence_root()

    def left(self) -> list[Part]:
        return sorted(set(parts()) - self.done)

    def draw(self, data: st.DataObject, from_: list[Part]) -> list[Part]:
        return data.draw(st.lists(st.sampled_from(from_), min_size=1, max_size=6, unique=True))

    @precondition(lambda self: self.left())
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        chosen = self.draw(data, self.left())
        with self.store.transaction():
            for part in chosen:
                put(self.store, part)
        self.done |= set(chosen)
        self.history.append(frozenset(self.done))

    @precondition(lambda self: self.left())
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """Write what is not there, as an extraction that starts again does: it asks the store, not its memory."""
        wanted = self.draw(data, sorted(parts()))
        for part in wanted:
            table = next(iter(parts()[part]))
            key: dict[str, Any] = {
                name: value for name, value in zip(("run_id", "window_id"), part, strict=True) if value
            }
            there = self.store.has_cell(table, **key) if part in self.done else bool(self.count(table, part))
            assert there == (part in self.done)
            if not there:
                with self.store.transaction():
                    put(self.store, part)
                self.done.add(part)
                self.history.append(frozenset(self.done))

    def count(self, table: str, part: Part) -> int:
        """Return how many of a part's rows are there."""
        columns = list(TABLES[table].key)
        there = {tuple(row.values()) for row in self.store.arrow(table).select(columns).to_pylist()}
        return sum(tuple(row.values()) in there for row in parts()[part][table].select(columns).to_pylist())

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def refuse_what_is_there(self, data: st.DataObject) -> None:
        chosen = [data.draw(st.sampled_from(sorted(self.done)))]
        if self.left():
            chosen.insert(data.draw(st.integers(0, 1)), data.draw(st.sampled_from(self.left())))
        with pytest.raises(EvidenceError, match="committed before is kept") as caught, self.store.transaction():  # noqa: PT012
            for part in chosen:
                put(self.store, part)
        assert caught.value.todo

    @precondition(lambda self: self.left())
    @rule(data=st.data())
    def fail_half_way(self, data: st.DataObject) -> None:
        chosen = self.draw(data, self.left())
        with pytest.raises(ZeroDivisionError), self.store.transaction():  # noqa: PT012
            for part in chosen:
                put(self.store, part)
            raise ZeroDivisionError

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = opened(self.path)

    @precondition(lambda self: self.left())
    @rule(data=st.data(), torn=st.integers(0, 400))
    def lose_power(self, data: st.DataObject, torn: int) -> None:
        """Copy the files as they are on disk in the midst of a transaction; the log's end may not have reached the disk."""
        copy = self.folder / "copy.duckdb"
        with pytest.raises(ZeroDivisionError), self.store.transaction():  # noqa: PT012
            put(self.store, data.draw(st.sampled_from(self.left())))
            for end in ("", ".wal"):
                source = Path(f"{self.path}{end}")
                if source.exists():
                    Path(f"{copy}{end}").write_bytes(source.read_bytes())
            raise ZeroDivisionError
        log = Path(f"{copy}.wal")
        if torn and log.exists():
            log.write_bytes(log.read_bytes()[: -min(torn, log.stat().st_size)])
        possible = self.history if torn else self.history[-1:]
        found = self.root_of(copy)
        assert found in {model_root(set(state)) for state in possible} or (torn and not found)
        for end in ("", ".wal"):
            Path(f"{copy}{end}").unlink(missing_ok=True)

    def root_of(self, path: Path) -> str:
        """Return the root of a store, or nothing where it is refused."""
        try:
            with opened(path) as store:
                return root(store)
        except AtlasError:
            return ""

    @rule()
    def exchange(self) -> None:
        """Export, read, import: the same root at every station."""
        expected = model_root(self.done)
        with tempfile.TemporaryDirectory() as scratch:
            export_bundle(self.store, Path(scratch) / "evidence")
            bundle = ParquetBundle(Path(scratch) / "evidence")
            assert root(bundle) == expected
            rows = {name: bundle.rows(name) for name in ("window", "state", "layer", "routing")}
            if not (rows["window"] and (rows["state"] or (rows["layer"] and rows["routing"]))):
                with pytest.raises(UsageError, match="sizes of a model"):
                    import_bundle(
                        Path(scratch) / "evidence", Path(scratch) / "again.duckdb", study().preregistration_digest()
                    )
                return
            import_bundle(Path(scratch) / "evidence", Path(scratch) / "again.duckdb", study().preregistration_digest())
            with EvidenceStore.open_existing(Path(scratch) / "again.duckdb") as again:
                assert root(again) == expected

    @precondition(lambda self: THOROUGH and self.left())
    @rule(data=st.data(), how=st.sampled_from(["before", "after"]))
    def be_killed(self, data: st.DataObject, how: str) -> None:
        self.store.close()
        part = data.draw(st.sampled_from(self.left()))
        assert other_process(self.path, part, how).returncode == -9
        self.store = opened(self.path)
        if how == "after":
            self.done.add(part)
            self.history.append(frozenset(self.done))
        self.require_model(self.store, self.done)


TestExtraction = Extraction.TestCase


@holds(
    "evidence store",
    "A second process is refused while the first has the file open, and a killed one leaves what it committed.",
)
def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path, part = tmp_path / "evidence.duckdb", min(parts())
    with opened(path):
        refused = other_process(path, part, "after")
        assert refused.returncode == 1
        assert "no other process has the file open" in refused.stderr
    assert other_process(path, part, "after").returncode == -9
    with opened(path) as store:
        assert root(store) == model_root({part})


def test_the_parts_make_up_the_study() -> None:
    assert model_root(set(parts())) == study().evidence_root()
    assert len(parts()) > 30
