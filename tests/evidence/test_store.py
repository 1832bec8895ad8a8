"""The technician's store: transactions, belonging to one study, and a model-based test against a dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from evidence.strategies import DIMS, Row, arrow, naive_root, rows_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atlas_schema.canonical import digest_bytes
from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.source import table_root
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims

STUDY = digest_bytes(b"one study")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence.duckdb"


def task_row(item: str, run: str = "base") -> Row:
    return {"run_id": run, "item_id": item, "score": 1.0}


def opened(path: Path, study: str = STUDY, dims: Dims = DIMS) -> EvidenceStore:
    return EvidenceStore.open(path, preregistration_digest=study, dims=dims)


def items(store: EvidenceStore) -> list[str]:
    found: list[str] = store.arrow("task").column("item_id").to_pylist()
    return found


def test_what_was_committed_is_there_after_reopening(path: Path) -> None:
    with opened(path) as store, store.transaction():
        store.append("task", arrow("task", [task_row("b"), task_row("a")]))
    with opened(path) as store:
        assert items(store) == ["a", "b"]
    with EvidenceStore.open_existing(path) as store:
        assert (items(store), store.dims, store.preregistration_digest) == (["a", "b"], DIMS, STUDY)


def test_an_exception_rolls_back_its_transaction_only(path: Path) -> None:
    with opened(path) as store:
        with store.transaction():
            store.append("task", arrow("task", [task_row("kept")]))
        with pytest.raises(KeyboardInterrupt), store.transaction():  # noqa: PT012
            store.append("task", arrow("task", [task_row("lost")]))
            raise KeyboardInterrupt
        assert items(store) == ["kept"]
        with store.transaction():
            store.append("task", arrow("task", [task_row("later")]))
    with opened(path) as store:
        assert items(store) == ["kept", "later"]


def test_a_duplicate_key_rolls_back_its_whole_batch(path: Path) -> None:
    with opened(path) as store:
        with store.transaction():
            store.append("task", arrow("task", [task_row("kept")]))
        with pytest.raises(EvidenceError, match="committed before is kept") as caught, store.transaction():  # noqa: PT012
            store.append("task", arrow("task", [task_row("new")]))
            store.append("task", arrow("task", [task_row("kept")]))
        assert str(path) in caught.value.where
        assert caught.value.todo
        assert items(store) == ["kept"]


def test_another_study_is_refused(path: Path) -> None:
    opened(path).close()
    with pytest.raises(UsageError, match="another study") as caught:
        opened(path, study=digest_bytes(b"other"))
    assert STUDY in caught.value.found
    assert digest_bytes(b"other") in caught.value.expected
    with pytest.raises(UsageError, match="other sizes"):
        opened(path, dims=Dims(9, 4, 2, 2))
    opened(path).close()


def test_a_file_that_is_no_store_is_refused(path: Path) -> None:
    import duckdb

    connection = duckdb.connect(str(path))
    connection.execute("CREATE TABLE other (a INTEGER)")
    connection.close()
    for attempt in (opened, EvidenceStore.open_existing):
        with pytest.raises(UsageError, match="not an evidence store"):
            attempt(path)
    path.unlink()
    path.write_bytes(b"not a database at all" * 1000)
    for attempt in (opened, EvidenceStore.open_existing):
        with pytest.raises(UsageError, match="cannot be opened"):
            attempt(path)


@pytest.mark.parametrize(
    "planted",
    [
        "DROP TABLE task; CREATE VIEW task AS SELECT 'base' AS run_id, content AS item_id, 1.0::FLOAT AS score "
        "FROM read_text('{secret}')",
        "CREATE MACRO duckdb_tables() AS TABLE SELECT 'atlas_study' AS table_name",
    ],
)
def test_a_store_that_would_read_other_files_is_not_opened(path: Path, tmp_path: Path, planted: str) -> None:
    """Exporting somebody else's store would otherwise put a file of this machine into the bundle."""
    import duckdb

    (tmp_path / "secret").write_text("nobody's business", encoding="utf-8")
    opened(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute(planted.format(secret=tmp_path / "secret"))
    with pytest.raises(EvidenceError, match="holds more than tables"):
        EvidenceStore.open_existing(path)


def test_an_absent_store_is_refused_for_reading(path: Path) -> None:
    with pytest.raises(UsageError, match="no evidence file"):
        EvidenceStore.open_existing(path)
    assert not path.exists()


def test_undeclared_columns_are_refused(path: Path) -> None:
    table = arrow("task", [task_row("a")])
    with opened(path) as store:
        for wrong in (
            table.drop_columns(["score"]),
            table.append_column("more", pa.array([1])),
            table.select([1, 0, 2]),
        ):
            with pytest.raises(EvidenceError, match="other columns"), store.transaction():
                store.append("task", wrong)
        assert items(store) == []


def test_an_unknown_key_column_is_refused(path: Path) -> None:
    with opened(path) as store:
        for call in (store.has_cell, store.count, store.arrow):
            with pytest.raises(EvidenceError, match="no key column score"):
                call("task", score=1)


@pytest.mark.parametrize("name", STUDY_TABLES)
def test_reading_follows_looking(path: Path, name: str) -> None:
    """Every kind of reading may follow every other on one connection."""
    with opened(path) as store:
        for _ in range(2):
            assert not store.has_cell(name)
            assert store.arrow(name).num_rows == 0
            assert store.count(name) == 0
            assert store.partitions(name) == []
            assert store.arrow(name).num_rows == 0


MODELLED = ("task", "window", "state", "routing", "layer")


class Store(RuleBasedStateMachine):
    """The store behaves like a dictionary of dictionaries whose transactions are kept whole or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "evidence.duckdb"
        self.model: dict[str, dict[tuple[Any, ...], Row]] = {name: {} for name in MODELLED}
        self.store: EvidenceStore

    @initialize()
    def start(self) -> None:
        self.store = opened(self.path)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def _key(self, name: str, row: Row) -> tuple[Any, ...]:
        return tuple(row[key] for key in TABLES[name].key)

    @rule(data=st.data(), name=st.sampled_from(MODELLED), fail=st.booleans())
    def append(self, data: st.DataObject, name: str, fail: bool) -> None:
        rows = data.draw(rows_of(name, min_size=1, max_size=4))
        clash = any(self._key(name, row) in self.model[name] for row in rows)
        if clash or fail:
            with pytest.raises((EvidenceError, ZeroDivisionError)), self.store.transaction():  # noqa: PT012
                self.store.append(name, arrow(name, rows))
                raise ZeroDivisionError
        else:
            with self.store.transaction():
                self.store.append(name, arrow(name, rows))
            self.model[name].update({self._key(name, row): row for row in rows})

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = opened(self.path)

    @rule()
    def refuse_another_study(self) -> None:
        self.store.close()
        with pytest.raises(UsageError, match="another study"):
            opened(self.path, study=digest_bytes(b"other"))
        self.store = opened(self.path)

    @rule(data=st.data(), name=st.sampled_from(MODELLED))
    def look(self, data: st.DataObject, name: str) -> None:
        spec = TABLES[name]
        probe = data.draw(rows_of(name, min_size=1, max_size=1))[0]
        depth = data.draw(st.integers(0, len(spec.key)))
        key = {part: probe[part] for part in spec.key[:depth]}
        matching = [row for row in self.model[name].values() if all(row[k] == v for k, v in key.items())]
        assert self.store.has_cell(name, **key) == bool(matching)
        assert self.store.count(name, **key) == len(matching)
        expected = sorted(matching, key=lambda row: [str(p).encode() for p in self._key(name, row)])
        assert self.store.arrow(name, **key).equals(arrow(name, expected))

    @invariant()
    def roots_are_those_of_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in MODELLED:
            rows = list(self.model[name].values())
            found = table_root(self.store, name)
            assert (found.rows, found.root) == (len(rows), naive_root(name, rows))
            parts = {tuple(row[p] for p in TABLES[name].partition) for row in rows}
            assert self.store.partitions(name) == sorted(parts)


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=max(1, settings().max_examples // 8), stateful_step_count=10)
