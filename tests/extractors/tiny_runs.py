"""Whole extractions in one process, and what they wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from atlas_extractors.models.loading import Execution
from atlas_extractors.routing import extract as extraction
from atlas_extractors.routing.channel import Frame, unpack
from atlas_extractors.routing.extract import Request
from atlas_extractors.routing.worker import Job, Worker
from tiny_world import Folders, StudyFolder

from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import STUDY_TABLES

EXECUTION = Execution(batch_size=3)


class LocalWorker:
    """A worker in this process: the same requests and replies without starting an interpreter each time."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> Self:
        self._worker = Worker(self.job)
        self.hello = self._worker.hello()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def ask(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        self._asked = header, blobs

    def take(self) -> Any:
        return self.call(*self._asked)

    def call(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> Any:
        reply, tables = self._worker.answer(Frame(json.loads(json.dumps(header)), tuple(blobs)))
        return reply, [(name, unpack(blob)) for name, blob in zip(reply.get("tables", []), tables, strict=True)]


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "WorkerProcess", LocalWorker)


class Silent:
    """Progress for nobody; interrupts after a number of batches."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.left = interrupt_after
        self.resumed: list[str] = []
        self.done: dict[str, int] = {}

    def run_started(self, run_id: str, batches: int, done: int) -> None:
        self.done[run_id] = done

    def batch_done(self, run_id: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def run_finished(self, run_id: str, *, resumed: bool) -> None:
        if resumed:
            self.resumed.append(run_id)


def request(study: StudyFolder, folders: Folders, **changes: Any) -> Request:
    arms = {"near": folders.near, "same": folders.same}
    return replace(
        Request(study.preregistration, folders.base, arms, study.evidence, EXECUTION, study.contract), **changes
    )


def content(path: Path) -> dict[str, pa.Table]:
    with EvidenceStore.open_existing(path) as store:
        return {name: store.arrow(name) for name in STUDY_TABLES}


def same_content(one: Path, other: Path) -> bool:
    ours, theirs = content(one), content(other)
    return all(ours[name].equals(theirs[name]) for name in STUDY_TABLES)


def of(table: pa.Table, run_id: str) -> pa.Table:
    return table.filter(pc.equal(table.column("run_id"), run_id))
