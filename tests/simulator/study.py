"""The study as a whole: `StudySimulator` holds rows and documents in memory, changes one thing, and writes a folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from atlas_schema.canonical import digest_document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.evidence.bundle import export_bundle
from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import Partition, table_roots, whole
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES, Dims
from atlas_schema.files import document_text, read_document
from simulator.documents import contract_json, make_log, preregistration_json
from simulator.probe import probe_files
from simulator.rows import World
from simulator.settings import Settings, small


class MemorySource:
    """An `EvidenceSource` over Arrow tables in memory."""

    def __init__(self, tables: Mapping[str, pa.Table], dims: Dims) -> None:
        self.dims = dims
        self.tables = tables
        self._rows: dict[str, Rows] = {}
        self._index: dict[str, dict[Partition, list[int]]] = {}

    def _load(self, name: str) -> tuple[Rows, dict[Partition, list[int]]]:
        if name not in self._rows:
            rows = from_arrow(TABLES[name], self.dims, self.tables[name])
            keys = [rows[column].tolist() for column in TABLES[name].partition]
            index: dict[Partition, list[int]] = {}
            for at in range(rows.n):
                index.setdefault(tuple(key[at] for key in keys), []).append(at)
            self._rows[name], self._index[name] = rows, index
        return self._rows[name], self._index[name]

    def partitions(self, table: str) -> list[Partition]:
        return sorted(self._load(table)[1])

    def read(self, table: str, partition: Partition) -> Rows:
        rows, index = self._load(table)
        found = [at for key, part in sorted(index.items()) if key[: len(partition)] == partition for at in part]
        return rows.take(np.array(found, dtype=np.int64))

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        return whole(self, wanted)


@dataclass(frozen=True)
class StudySimulator:
    """A study: settings, tables, documents. Methods named ``with_...`` return a changed copy; nothing else changes."""

    settings: Settings
    tables: dict[str, pa.Table]
    contract: Contract
    preregistration: Preregistration
    run_log: RunLog
    files: dict[str, str]

    @classmethod
    def make(cls, settings: Settings | None = None) -> StudySimulator:
        """Simulate a study."""
        s = settings or Settings()
        files = probe_files(s)
        contract = Contract.model_validate_json(json.dumps(contract_json(s)))
        plan = Preregistration.model_validate_json(json.dumps(preregistration_json(s, contract, files)))
        tables = World(s).tables()
        dims = Dims(s.d, s.experts, s.top_k, s.positions)
        root = evidence_root(table_roots(MemorySource(tables, dims)))
        return cls(s, tables, contract, plan, make_log(plan, root), files)

    @property
    def dims(self) -> Dims:
        return Dims(self.settings.d, self.settings.experts, self.settings.top_k, self.settings.positions)

    def source(self) -> MemorySource:
        """Return the evidence for reading."""
        return MemorySource(self.tables, self.dims)

    def counts(self) -> dict[str, int]:
        """Return the rows of every table."""
        return {name: table.num_rows for name, table in self.tables.items()}

    def evidence_root(self) -> str:
        return evidence_root(table_roots(self.source()))

    def receipt(self, arm: str) -> Receipt:
        """Return the receipt about an arm that its technician would issue."""
        from atlas_schema.study.issue import build_receipt

        return build_receipt(self.source(), self.preregistration, self.contract, self.run_log, arm)

    def preregistration_digest(self) -> str:
        return digest_document(self.preregistration.model_dump(mode="json"))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return rows as plain dictionaries."""
        found: list[dict[str, Any]] = self.tables[table].to_pylist()
        return found

    def find(self, table: str, **key: str | int) -> int:
        """Return the position of the first row with these values."""
        for at, row in enumerate(self.tables[table].select(list(key)).to_pylist()):
            if row == key:
                return at
        raise KeyError(f"{table} has no row {key}")

    # changes

    def with_table(self, table: str, rows: pa.Table) -> StudySimulator:
        return replace(self, tables={**self.tables, table: rows})

    def with_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> StudySimulator:
        """Replace all rows of a table by dictionaries."""
        schema = TABLES[table].arrow_schema(self.dims)
        return self.with_table(table, pa.Table.from_pylist([dict(row) for row in rows], schema=schema))

    def with_value(self, table: str, row: int, column: str, value: Any) -> StudySimulator:
        """Replace one value."""
        at = self.tables[table].schema.get_field_index(column)
        values = self.tables[table].column(column).to_pylist()
        values[row] = value
        schema = TABLES[table].arrow_schema(self.dims)
        changed = self.tables[table].set_column(at, schema.field(column), pa.array(values, schema.field(column).type))
        return self.with_table(table, changed.cast(schema))

    def without_row(self, table: str, row: int) -> StudySimulator:
        keep = np.arange(self.tables[table].num_rows) != row
        return self.with_table(table, self.tables[table].filter(pa.array(keep)))

    def with_contract(self, changes: Mapping[str, Any], *, relink: bool = True) -> StudySimulator:
        """Merge changes into the contract; with ``relink`` the pre-registration and the log cite the new one."""
        made = Contract.model_validate_json(json.dumps(merged(self.contract.model_dump(mode="json"), changes)))
        changed = replace(self, contract=made)
        if not relink:
            return changed
        digest = digest_document(made.model_dump(mode="json"))
        return changed.with_preregistration({"contract": {"id": made.id, "digest": digest}})

    def with_preregistration(self, changes: Mapping[str, Any], *, relink: bool = True) -> StudySimulator:
        """Merge changes into the pre-registration; with ``relink`` the log is written anew for it."""
        old = self.preregistration.model_dump(mode="json")
        made = Preregistration.model_validate_json(json.dumps(merged(old, changes)))
        log = make_log(made, self.evidence_root()) if relink else self.run_log
        return replace(self, preregistration=made, run_log=log)

    def with_run_log(self, log: RunLog) -> StudySimulator:
        return replace(self, run_log=log)

    def relogged(self) -> StudySimulator:
        """Return the study with a run log that cites the evidence and the pre-registration as they are now."""
        return replace(self, run_log=make_log(self.preregistration, self.evidence_root()))

    # on disk

    def store(self, path: Path) -> EvidenceStore:
        """Write the evidence into a new store and return it open."""
        store = EvidenceStore.open(path, preregistration_digest=self.preregistration_digest(), dims=self.dims)
        with store.transaction():
            for name in STUDY_TABLES:
                store.append(name, self.tables[name])
        return store

    def issue(self, folder: Path, arm: str) -> Path:
        """Issue the receipt of one arm into a folder that `write` made, extend its log, and return the receipt's path."""
        from atlas_schema.study.issue import issue

        log, target = folder / "run_log.json", folder / f"receipt-{arm}.json"
        steps = read_document(log, RunLog, "run log")
        issue(self.source(), self.preregistration, self.contract, log, steps, arm, target)
        return target

    def write(self, folder: Path) -> Path:
        """Write a complete study folder, without a receipt, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        documents = {"contract": self.contract, "preregistration": self.preregistration, "run_log": self.run_log}
        for name, document in documents.items():
            (folder / f"{name}.json").write_text(document_text(document), encoding="utf-8")
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        with tempfile.TemporaryDirectory() as scratch, self.store(Path(scratch) / "evidence.duckdb") as store:
            export_bundle(store, folder / "evidence")
        return folder


def merged(value: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with changes merged in: objects member by member, anything else replaced."""
    out = dict(value)
    for name, change in changes.items():
        inner = out.get(name)
        out[name] = merged(inner, change) if isinstance(change, Mapping) and isinstance(inner, dict) else change
    return out


@cache
def default_study() -> StudySimulator:
    """The default world, made once per process."""
    return StudySimulator.make()


@cache
def small_study() -> StudySimulator:
    """The smaller world of `small`, made once per process."""
    return StudySimulator.make(small())
