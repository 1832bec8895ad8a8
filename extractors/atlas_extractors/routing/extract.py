"""The extraction: every planned run of a study, streamed batch by batch into one evidence file.

    1. read and check the pre-registration, contract, probe and models
    2. `window` rows
    3. base, then null arms, then arms: one fresh worker process per run; each batch is one transaction
    4. `task` rows, then `layer` rows, which mark a run complete; one step of the run log

What is committed is never computed again, and batches are a pure function of the plan, so an interrupted extraction
that is run again ends with the same content. Memory holds one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from atlas_extractors.models.loading import Execution, check_same_sizes, check_same_tokenizer, read_sizes
from atlas_extractors.routing.interrupt import Interruptible
from atlas_extractors.routing.journal import Errors, Journal
from atlas_extractors.routing.plan import Batch, plan_batches
from atlas_extractors.routing.process import WorkerProcess
from atlas_extractors.routing.rows import run_row, window_rows
from atlas_extractors.routing.states import BaseStates
from atlas_extractors.routing.study import Study, TaskItem, open_study
from atlas_extractors.routing.worker import Job
from atlas_schema.canonical import canonical_json, digest_document
from atlas_schema.documents.contract import Nuisance
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import Dims
from atlas_schema.files import read_document
from atlas_schema.protocol.log import LOG_NAME, PROCESS, append_step, party
from atlas_schema.study.identity import config_digest, tokenizer_digest, weights_digest

WINDOW_CHUNK = 1024


class Progress(Protocol):
    """Told what happens; shows it to a person or to nobody."""

    def run_started(self, run_id: str, batches: int, done: int) -> None: ...

    def batch_done(self, run_id: str) -> None: ...

    def run_finished(self, run_id: str, *, resumed: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """An extraction as asked for: paths, arm folders by name, and how the base is run."""

    preregistration: Path
    base: Path
    arms: Mapping[str, Path]
    evidence: Path
    execution: Execution
    contract: Path | None = None
    party: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: which weights, executed how, compared with what."""

    run_id: str
    role: str
    arm: str | None
    policy: str | None
    name: str
    folder: Path
    execution: Execution
    base: Path | None
    identity: dict[str, str]


def extract(request: Request, progress: Progress) -> None:
    """Carry out an extraction, or the rest of one.

    Raises:
        AtlasError: anything a person can mend; what was committed stays.
        KeyboardInterrupt: interrupted; what was committed stays.
    """
    study, runs, dims = prepare(request)
    with (
        Interruptible() as interrupt,
        EvidenceStore.open(request.evidence, preregistration_digest=study.digest, dims=dims) as store,
        BaseStates(request.evidence.absolute().parent, len(study.tokens), dims.P, dims.d) as states,
    ):
        extraction = _Extraction(
            study, dims, store, states, interrupt, progress, Journal(request.evidence), request.party
        )
        extraction.windows()
        for run in runs:
            extraction.run(run)
        extraction.log_evidence()
        extraction.journal.remove()


def prepare(request: Request) -> tuple[Study, list[Run], Dims]:
    """Check everything that can be checked before a model is loaded.

    Raises:
        UsageError, ModelRefused, UnsupportedArchitecture: what is wrong, where, and what to do.
    """
    sizes, _ = read_sizes(request.base)
    study = open_study(request.preregistration, request.base, request.contract)
    planned = study.preregistration
    if not request.preregistration.with_name(LOG_NAME).is_file():
        raise UsageError(
            "There is no run log beside the pre-registration.", where=str(request.preregistration.with_name(LOG_NAME)),
            expected="the log that the pre-registration started", todo="keep run_log.json beside the pre-registration",
        )  # fmt: skip
    if planned.expected_rows.update_vector or planned.expected_rows.overlap:
        raise UsageError(
            "The pre-registration expects tables that this extractor does not write.", where=str(study.path),
            expected="no rows of update_vector and overlap", found="expected rows of one of them",
        )  # fmt: skip
    deepest = max(planned.protected_layers)
    if deepest >= sizes.n_layers:
        raise UsageError(
            "A protected layer does not exist.", where=str(study.path), expected=f"0 to {sizes.n_layers - 1}",
            found=str(deepest),
        )  # fmt: skip
    _require_planned_base(study, request.base)
    dims = Dims(sizes.hidden_size, sizes.n_experts, sizes.top_k, planned.positions_per_window)
    return study, _runs(study, request), dims


def null_execution(execution: Execution, nuisance: Nuisance) -> Execution:
    """The base's execution with exactly the nuisance's fingerprint key changed.

    Raises:
        UsageError: this extractor cannot vary that key.
    """
    match nuisance.changes:
        case "batch_size":
            return replace(execution, batch_size=2 if execution.batch_size == 1 else execution.batch_size // 2)
        case "attention":
            return replace(execution, attention="sdpa" if execution.attention == "eager" else "eager")
        case "experts":
            return replace(execution, experts="eager" if execution.experts == "grouped_mm" else "grouped_mm")
        case "dtype":
            return replace(execution, dtype="float32" if execution.dtype == "bfloat16" else "bfloat16")
        case "threads":
            return replace(execution, threads=2 if execution.threads == 1 else 1)
    raise UsageError(
        "The contract asks for a null arm that this extractor cannot run.", where=f"nuisance {nuisance.id}",
        expected="a change of batch_size, attention, experts, dtype or threads", found=nuisance.changes,
    )  # fmt: skip


def _require_planned_base(study: Study, base: Path) -> None:
    planned = study.preregistration.base
    for what, found, expected in (
        ("weights", weights_digest(base), planned.weights_digest),
        ("configuration", config_digest(base), planned.config_digest),
        ("tokenizer", tokenizer_digest(base), planned.tokenizer_digest),
    ):
        if found != expected:
            raise UsageError(
                f"The base is not the pre-registered one: its {what} differs.", where=str(base), expected=expected,
                found=found, todo="give the base that was pre-registered, or start a new study",
            )  # fmt: skip


def _runs(study: Study, request: Request) -> list[Run]:
    """Base, null arms in the contract's order, arms in the pre-registration's order."""
    planned = {arm.name: arm for arm in study.preregistration.arms}
    for name in request.arms:
        if name not in planned:
            raise UsageError(
                "This arm is not planned in the pre-registration.", found=name, expected="one of " + ", ".join(planned),
                todo="only planned arms are extracted; a further arm needs a new pre-registration",
            )  # fmt: skip
    identity = _identity(request.base)
    name = study.preregistration.base.name
    runs = [Run("base", "base", None, None, name, request.base, request.execution, None, identity)]
    for nuisance in study.contract.nuisances:
        execution = null_execution(request.execution, nuisance)
        run_id = f"null:{nuisance.id}"
        runs.append(Run(run_id, "null", None, None, name, request.base, execution, request.base, identity))
    for arm in (planned[given] for given in planned if given in request.arms):
        folder = request.arms[arm.name]
        check_same_sizes(request.base, folder)
        found = _identity(folder)
        check_same_tokenizer(identity["tokenizer_digest"], found["tokenizer_digest"], where=folder)
        run_id = f"arm:{arm.name}"
        runs.append(Run(run_id, "arm", arm.name, arm.policy, arm.name, folder, request.execution, request.base, found))
    return runs


def _identity(folder: Path) -> dict[str, str]:
    return {
        "weights_digest": weights_digest(folder),
        "config_digest": config_digest(folder),
        "tokenizer_digest": tokenizer_digest(folder),
    }


@dataclass(frozen=True, slots=True)
class _Extraction:
    """An open extraction: the study, its store, and how it is shown and interrupted."""

    study: Study
    dims: Dims
    store: EvidenceStore
    states: BaseStates
    interrupt: Interruptible
    progress: Progress
    journal: Journal
    party: str

    def windows(self) -> None:
        """Table `window`, in chunks, each one transaction; a chunk that is there is skipped."""
        windows = self.study.preregistration.windows
        for start in range(0, len(windows), WINDOW_CHUNK):
            part = slice(start, start + WINDOW_CHUNK)
            if self.store.has_cell("window", window_id=windows[start].window_id):
                continue
            rows = window_rows(self.dims, windows[part], self.study.tokens[part], self.study.positions[part])
            self._commit([("window", rows)])

    def run(self, run: Run) -> None:
        """One run, or the rest of one."""
        layers = self.study.preregistration.protected_layers
        present = self._require_same_run(run)
        batches = plan_batches(self.study.tokens, len, run.execution.batch_size)
        if all(self.store.has_cell("layer", run_id=run.run_id, layer=layer) for layer in layers):
            self._log_once(run)
            self.progress.run_finished(run.run_id, resumed=True)
            return
        done = {batch.index for batch in batches if self._has_batch(run, batch)}
        self.progress.run_started(run.run_id, len(batches), len(done))
        first = self.study.preregistration.first_allowed_position
        job = Job(run.run_id, run.folder, run.base, run.execution, layers, first, self.dims)
        with WorkerProcess(job) as worker:
            if not present:
                self._commit([("run", run_row(self.dims, _run_facts(run, worker.hello)))])
            errors = self._batches(run, worker, batches, done)
            self._tasks(run, worker)
            worst = {str(layer): max(found[str(layer)] for found in errors) for layer in layers}
            _, tables = worker.call({"op": "finish", "errors": worst})
            self._commit(tables)
        self._log_once(run, {PROCESS: worker.hello["process"]})
        self.progress.run_finished(run.run_id, resumed=False)

    def _batches(self, run: Run, worker: WorkerProcess, batches: Sequence[Batch], done: set[int]) -> list[Errors]:
        """Extract what is missing; return the self-check errors of every batch."""
        key = digest_document(_expected_facts(run))
        known = self.journal.entries(key)
        errors = []
        for batch in batches:
            if batch.index in done:
                errors.append(known.get(batch.index) or self._check_again(worker, batch))
                continue
            header, tables = worker.call(*self._batch_request(run, batch))
            self.journal.record(key, batch.index, header["errors"])
            self._commit(tables)
            if run.run_id == "base":
                for place, rows in enumerate(rows for name, rows in tables if name == "state"):
                    self._keep_states(place, batch.members, rows)
            errors.append(header["errors"])
            self.progress.batch_done(run.run_id)
        return errors

    def _check_again(self, worker: WorkerProcess, batch: Batch) -> Errors:
        tokens = [self.study.tokens[member].tolist() for member in batch.members]
        header, _ = worker.call({"op": "check", "tokens": tokens})
        errors: Errors = header["errors"]
        return errors

    def _batch_request(self, run: Run, batch: Batch) -> tuple[dict[str, Any], list[bytes]]:
        windows = [self.study.preregistration.windows[member] for member in batch.members]
        header = {
            "op": "batch",
            "ids": [window.window_id for window in windows],
            "tokens": [self.study.tokens[member].tolist() for member in batch.members],
            "positions": [list(self.study.positions[member]) for member in batch.members],
            "vectors": [False] * len(windows),
        }
        return header, [] if run.base is None else self._base_states(batch)

    def _base_states(self, batch: Batch) -> list[bytes]:
        """The base's states at the batch's sampled positions, per protected layer: float32 `[B * P, d]`."""
        blobs = []
        for place, layer in enumerate(self.study.preregistration.protected_layers):
            for member in batch.members:
                if not self.states.has(place, member):
                    self._keep_states(place, [member], self._stored_states(layer, member))
            blobs.append(b"".join(self.states.get(place, member) for member in batch.members))
        return blobs

    def _stored_states(self, layer: int, member: int) -> pa.Table:
        """The base's `state` rows of one window, from an earlier run of the command."""
        window = self.study.preregistration.windows[member].window_id
        rows = self.store.arrow("state", run_id="base", layer=layer, window_id=window)
        found, expected = rows.column("position").to_pylist(), list(self.study.positions[member])
        if found != expected:
            raise EvidenceError(
                "The base's states are not at the pre-registered positions.",
                where=f"{self.store.path}, table state, layer {layer}, window {window}",
                expected=str(expected), found=str(found), todo="delete the evidence file and extract again",
            )  # fmt: skip
        return rows

    def _keep_states(self, place: int, members: Sequence[int], rows: pa.Table) -> None:
        """Copy column `z` of some windows' rows, in the order of the members, to the scratch file."""
        z = rows.column("z").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for member, part in zip(members, np.split(z, len(members)), strict=True):
            self.states.put(place, member, part)

    def _tasks(self, run: Run, worker: WorkerProcess) -> None:
        def shape(item: TaskItem) -> tuple[int, int]:
            return len(item.tokens), item.answer_length

        for batch in plan_batches(self.study.items, shape, run.execution.batch_size):
            items = [self.study.items[member] for member in batch.members]
            if self.store.has_cell("task", run_id=run.run_id, item_id=items[0].item_id):
                continue
            header = {
                "op": "task",
                "ids": [item.item_id for item in items],
                "tokens": [item.tokens.tolist() for item in items],
                "answer_length": items[0].answer_length,
            }
            _, tables = worker.call(header)
            self._commit(tables)

    def _has_batch(self, run: Run, batch: Batch) -> bool:
        """Whether the batch was committed. `output` rows come with all its other rows, in one transaction."""
        windows = self.study.preregistration.windows
        found = {
            self.store.has_cell("output", run_id=run.run_id, window_id=windows[member].window_id)
            for member in batch.members
        }
        if len(found) == 2:
            raise EvidenceError(
                "The evidence holds half a batch: it was made with other batches.",
                where=f"{self.store.path}, {run.run_id}", todo="delete the evidence file and extract again",
            )  # fmt: skip
        return found == {True}

    def _require_same_run(self, run: Run) -> bool:
        """Whether the run was begun before; refuses one begun with other weights or another execution."""
        rows = self.store.arrow("run", run_id=run.run_id).to_pylist()
        if not rows:
            return False
        for name, expected in _expected_facts(run).items():
            value = canonical_json(expected).decode() if name == "fingerprint" else expected
            if rows[0][name] != value:
                raise UsageError(
                    f"Run {run.run_id} was begun with another {name.replace('_', ' ')}.", where=str(self.store.path),
                    expected=str(rows[0][name]), found=str(value),
                    todo="use the options and models it was begun with, or name a new evidence file",
                )  # fmt: skip
        return True

    def _commit(self, tables: Sequence[tuple[str, pa.Table]]) -> None:
        """One transaction, one insertion per table."""
        parts: dict[str, list[pa.Table]] = {}
        for name, rows in tables:
            parts.setdefault(name, []).append(rows)
        with self.interrupt.shield(), self.store.transaction():
            for name, pieces in parts.items():
                self.store.append(name, pa.concat_tables(pieces))

    def log_evidence(self) -> None:
        """Record the evidence root once every planned run is complete: what a receipt must then be about."""
        expected = self.study.preregistration.expected_rows.model_dump()
        if any(self.store.count(table) != rows for table, rows in expected.items()):
            return
        path, root = self.study.path.with_name(LOG_NAME), evidence_root(table_roots(self.store))
        steps = read_document(path, RunLog, "run log").steps
        if not any(artefact.digest == root for step in steps for artefact in step.outputs):
            with self.interrupt.shield():
                append_step(path, step="extract", actor="automation", inputs={"preregistration": self.study.digest},
                            outputs={"evidence": root})  # fmt: skip

    def _log_once(self, run: Run, process: Mapping[str, str] = MappingProxyType({})) -> None:
        """One `extract` step per completed run, also where the extraction stopped before it could be written."""
        path = self.study.path.with_name(LOG_NAME)
        facts = _expected_facts(run)
        outputs = {run.run_id: digest_document(facts)}
        steps = read_document(path, RunLog, "run log").steps
        written = [{artefact.name: artefact.digest for artefact in step.outputs} for step in steps]
        if outputs in written:
            return
        inputs = {
            "preregistration": self.study.digest,
            "weights": run.identity["weights_digest"],
            "fingerprint": digest_document(facts["fingerprint"]),
            **process, **(party(self.party) if self.party else {}),
        }  # fmt: skip
        with self.interrupt.shield():
            append_step(path, step="extract", actor="automation", inputs=inputs, outputs=outputs)


def _expected_facts(run: Run) -> dict[str, Any]:
    """What the `run` row says that is known before the model is loaded."""
    return {
        "run_id": run.run_id, "role": run.role, "arm": run.arm, "policy": run.policy, **run.identity,
        "fingerprint": run.execution.fingerprint(),
    }  # fmt: skip


def _run_facts(run: Run, hello: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_expected_facts(run),
        "model": f"{run.name} ({hello['architecture']}, {hello['parameters']} parameters)",
        "adapter": hello["adapter"],
        "param_distance": float(hello["param_distance"]),
    }


__all__ = ["Progress", "Request", "Run", "extract", "null_execution", "prepare"]
