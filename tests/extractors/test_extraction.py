"""Whole extractions: exactly the planned rows, null arms at exact zero, the same content after any interruption."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from atlas_extractors.models.errors import ModelRefused
from atlas_extractors.models.loading import Execution
from atlas_extractors.routing import extract as extraction
from atlas_extractors.routing.channel import receive, send
from atlas_extractors.routing.extract import extract, null_execution
from atlas_extractors.routing.interrupt import Interruptible
from atlas_extractors.routing.plan import plan_batches
from atlas_extractors.routing.worker import Job, serve
from tiny_runs import EXECUTION, LocalWorker, Silent, content, of, request, same_content
from tiny_world import Folders, MakeStudy, byte_tokenizer, save, tiny_model

from atlas_schema.documents.contract import Nuisance
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.run_log import RunLog
from atlas_schema.errors import AtlasError, UsageError
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import Dims
from atlas_schema.files import read_document
from atlas_schema.protocol.log import chain_faults
from atlas_schema.protocol.sequence import processes, protocol_faults

ALL_NUISANCES = {"batch": "batch_size", "attention": "attention", "experts": "experts", "dtype": "dtype"}


@pytest.mark.usefixtures("local")
def test_a_study_gives_exactly_the_expected_rows(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study(nuisances=ALL_NUISANCES)
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    planned = read_document(study.preregistration, Preregistration, "pre-registration")
    assert {name: table.num_rows for name, table in found.items()} == planned.expected_rows.model_dump()
    runs = {row["run_id"]: row for row in found["run"].to_pylist()}
    assert list(runs) == sorted(["base", *(f"null:{name}" for name in ALL_NUISANCES), "arm:near", "arm:same"])
    assert runs["arm:near"]["param_distance"] == pytest.approx(0.05, rel=0.2)
    assert runs["arm:same"]["param_distance"] == 0.0
    reference = json.loads(runs["base"]["fingerprint"])
    for name, key in ALL_NUISANCES.items():
        other = json.loads(runs[f"null:{name}"]["fingerprint"])
        assert {k for k in reference if other[k] != reference[k]} == {key}
    log = read_document(study.root / "run_log.json", RunLog, "run log")
    assert not chain_faults(log)
    assert [step.step for step in log.steps] == ["declare"] + ["extract"] * 8
    assert log.steps[-1].outputs[0].name == "evidence", "the root of the whole evidence, once it is complete"
    assert [step.outputs[0].name for step in log.steps[1:3]] == ["base", "null:batch"]


def test_every_run_names_a_process_of_its_own(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study(nuisances={"batch": "batch_size"})
    extract(request(study, folders), Silent())
    log = read_document(study.root / "run_log.json", RunLog, "run log")
    assert len({process for step in log.steps for process in processes(step)}) == 4, "a fresh process for every run"
    assert protocol_faults(log.steps) == []


@pytest.mark.usefixtures("local")
def test_equal_weights_give_exactly_zero_same_state_drift(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study(nuisances=ALL_NUISANCES)
    extract(request(study, folders), Silent())
    update, layer = (content(study.evidence)[name] for name in ("update", "layer"))
    for run_id in ("arm:same", *(f"null:{name}" for name in ALL_NUISANCES)):
        rows = of(update, run_id)
        assert rows.num_rows
        assert pc.max(rows.column("dV_norm")).as_py() == 0.0
        assert pc.max(rows.column("dy_norm")).as_py() == 0.0
        for zero, one in (("in0", "in1"), ("rho0", "rho1"), ("dispatch0", "dispatch1"), ("uu0", "uu1"), ("uz0", "uz1")):
            assert rows.column(zero).equals(rows.column(one))
    assert pc.min(of(update, "arm:near").column("dV_norm")).as_py() > 0.0
    digests = {(row["run_id"], row["layer"]): row["tensor_digests"] for row in layer.to_pylist()}
    for at in (0, 2):
        assert digests["base", at] == digests["arm:same", at] == digests["null:dtype", at]
        assert digests["base", at] != digests["arm:near", at]
    worst = {row["run_id"]: row["reconstruction_error"] for row in layer.to_pylist()}
    assert max(error for run_id, error in worst.items() if run_id != "null:dtype") < 1e-6
    assert set(layer.column("identity_permutation").to_pylist()[0]) == set(range(8))


@pytest.mark.usefixtures("local")
def test_native_rows_of_an_equal_arm_equal_the_base(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    for name in ("routing", "state", "output", "task"):
        unlike = ["run_id", *(["kl_from_base"] if name == "output" else [])]
        base, same = (of(found[name], run).drop_columns(unlike) for run in ("base", "arm:same"))
        assert base.equals(same), name


@pytest.mark.usefixtures("local")
def test_same_state_set_agrees_with_the_executed_one(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    extract(request(study, folders), Silent())
    found = content(study.evidence)
    routing = {(r["layer"], r["window_id"], r["position"]): r for r in of(found["routing"], "base").to_pylist()}
    for row in of(found["update"], "arm:near").to_pylist():
        chosen = [e for at, e in enumerate(row["experts"]) if row["in0"] >> at & 1]
        native = routing[row["layer"], row["window_id"], row["position"]]
        assert sorted(native["experts"]) == chosen
        assert (native["competitor_out"], native["competitor_in"]) == (row["pair_out"], row["pair_in"])


@pytest.mark.usefixtures("local")
def test_task_scores_are_greedy_exactness(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    extract(request(study, folders), Silent())
    model = tiny_model(1).half().float()
    scores = {row["item_id"]: row["score"] for row in of(content(study.evidence)["task"], "base").to_pylist()}
    for line in (study.root / "task.jsonl").read_text().splitlines():
        item = json.loads(line)
        prompt, answer = item["prompt"].encode(), item["answer"].encode()
        guesses = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].argmax(-1)
        assert scores[item["item_id"]] == float(guesses[len(prompt) - 1 : -1].tolist() == list(answer))


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_an_interrupted_extraction_ends_with_the_same_content(
    cut: int, make_study: MakeStudy, folders: Folders
) -> None:
    study = make_study()
    whole = request(study, folders, evidence=study.root / "whole.duckdb")
    extract(whole, Silent())
    steps = (study.root / "run_log.json").read_text()
    with pytest.raises(KeyboardInterrupt):
        extract(request(study, folders), Silent(interrupt_after=cut))
    second = Silent()
    extract(request(study, folders), second)
    assert sum(second.done.values()) + 3 * len(second.resumed) == cut, "what was committed is not computed again"
    assert same_content(whole.evidence, study.evidence)
    assert (study.root / "run_log.json").read_text() == steps, "each completed run is logged once"
    assert not list(study.root.glob("*.selfcheck.jsonl"))
    third = Silent()
    extract(request(study, folders), third)
    assert len(third.resumed) == 4


@pytest.mark.usefixtures("local")
def test_a_lost_journal_changes_nothing(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    whole = request(study, folders, evidence=study.root / "whole.duckdb")
    extract(whole, Silent())
    with pytest.raises(KeyboardInterrupt):
        extract(request(study, folders), Silent(interrupt_after=5))
    journal = next(study.root.glob("*.selfcheck.jsonl"))
    journal.write_text(journal.read_text().splitlines()[-1][:20])
    extract(request(study, folders), Silent())
    assert same_content(whole.evidence, study.evidence)


@pytest.mark.usefixtures("local")
def test_a_failed_write_keeps_what_was_committed(
    make_study: MakeStudy, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    whole = request(study, folders, evidence=study.root / "whole.duckdb")
    extract(whole, Silent())
    append, calls = EvidenceStore.append, [0]

    def failing(store: EvidenceStore, table: str, rows: pa.Table) -> None:
        calls[0] += 1
        if calls[0] == 14:
            import duckdb

            raise duckdb.IOException("IO Error: could not write: No space left on device")
        append(store, table, rows)

    monkeypatch.setattr(EvidenceStore, "append", failing)
    with pytest.raises(AtlasError, match="No space left") as failure:
        extract(request(study, folders), Silent())
    assert "kept" in str(failure.value)
    monkeypatch.undo()
    monkeypatch.setattr(extraction, "WorkerProcess", LocalWorker)
    assert content(study.evidence)["output"].num_rows > 0
    extract(request(study, folders), Silent())
    assert same_content(whole.evidence, study.evidence)


@pytest.mark.usefixtures("local")
def test_a_run_begun_otherwise_is_not_continued(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    with pytest.raises(KeyboardInterrupt):
        extract(request(study, folders), Silent(interrupt_after=1))
    with pytest.raises(UsageError, match="begun with another fingerprint"):
        extract(request(study, folders, execution=Execution(batch_size=2)), Silent())
    extract(request(study, folders, arms={"near": folders.near}), Silent())
    with pytest.raises(UsageError, match="begun with another weights digest"):
        extract(request(study, folders, arms={"near": folders.same}), Silent())


def test_evidence_of_another_study_is_refused(make_study: MakeStudy, folders: Folders) -> None:
    one, other = make_study("one", windows=3), make_study("other", windows=4)
    with EvidenceStore.open(
        one.evidence, preregistration_digest="sha256:" + "0" * 64, dims=extraction.prepare(request(one, folders))[2]
    ):
        pass
    with pytest.raises(UsageError, match="another study"):
        extract(request(other, folders, evidence=one.evidence), Silent())


def test_unplanned_arms_and_another_base_are_refused(make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    with pytest.raises(UsageError, match="not planned"):
        extraction.prepare(request(study, folders, arms={"other": folders.near}))
    with pytest.raises(UsageError, match="base is not the pre-registered one"):
        extraction.prepare(request(study, folders, base=folders.near))
    assert not study.evidence.exists()


def test_arms_of_another_shape_or_tokenizer_are_refused(
    make_study: MakeStudy, folders: Folders, tmp_path: Path
) -> None:
    study = make_study()
    wide = save(tiny_model(1, hidden_size=64), tmp_path / "wide")
    with pytest.raises(ModelRefused, match="hidden_size"):
        extraction.prepare(request(study, folders, arms={"near": wide}))
    renamed = tmp_path / "renamed"
    shutil.copytree(folders.near, renamed)
    byte_tokenizer(extra=("lorem",)).save_pretrained(renamed)
    with pytest.raises(ModelRefused, match="tokenizer"):
        extraction.prepare(request(study, folders, arms={"near": renamed}))


@pytest.mark.parametrize("file", ["windows.jsonl", "task.jsonl", "contract.json", "run_log.json"])
def test_changed_or_missing_study_files_are_refused(file: str, make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    path = study.root / file
    if file == "run_log.json":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("a test", "another").replace("say", "tell").replace("lorem", "dolor"))
    with pytest.raises(UsageError) as refusal:
        extraction.prepare(request(study, folders))
    assert str(study.root) in str(refusal.value)


def test_a_null_arm_that_cannot_be_run_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run"):
        null_execution(EXECUTION, Nuisance(id="kernel", changes="libraries", rationale="a test"))


@pytest.mark.parametrize(
    "execution", [Execution(), Execution(batch_size=1, threads=2, attention="sdpa", dtype="bfloat16")]
)
def test_every_nuisance_changes_exactly_its_key(execution: Execution) -> None:
    for key in ("batch_size", "attention", "experts", "dtype", "threads"):
        other = null_execution(execution, Nuisance(id="x", changes=key, rationale="a test")).fingerprint()
        reference = execution.fingerprint()
        assert {name for name in reference if reference[name] != other[name]} == {key}


def test_batches_are_a_function_of_the_plan_alone() -> None:
    batches = plan_batches(["aa", "b", "cc", "dd", "e"], len, 2)
    assert [batch.members for batch in batches] == [(0, 2), (3,), (1, 4)]
    assert [batch.index for batch in batches] == [0, 1, 2]


def test_a_refusal_in_the_worker_arrives_as_its_own_message(folders: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(folders.base, folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    requests, replies = io.BytesIO(), io.BytesIO()
    send(requests, Job("arm:near", folder, folders.base, EXECUTION, (0,), 1, Dims(32, 8, 2, 4)).to_json())
    requests.seek(0)
    serve(requests, replies)
    replies.seek(0)
    reply = receive(replies)
    assert reply is not None
    assert "cannot be loaded" in reply.header["error"]["what"]
    assert reply.header["error"]["where"] == str(folder)
    assert receive(replies) is None


COMMAND = """
import typer
from atlas_extractors.cli import register
app = typer.Typer()
app.callback()(lambda: None)
register(app)
app()
"""


def test_a_killed_process_resumes_to_the_same_content(
    make_study: MakeStudy, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command in real processes, killed in the middle, finished in this one."""
    study = make_study(windows=12, arms=("near",))
    arguments = [
        "extract", "--prereg", str(study.preregistration), "--base", str(folders.base), "--arm", f"near={folders.near}",
        "--evidence", str(study.evidence), "--contract", str(study.contract), "--batch-size", "1",
    ]  # fmt: skip
    path = os.pathsep.join(part for part in sys.path if part)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    journal = study.evidence.with_name("evidence.duckdb.selfcheck.jsonl")
    while process.poll() is None and not (journal.is_file() and len(journal.read_text().splitlines()) >= 3):
        time.sleep(0.02)
    process.kill()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, stderr.decode()
    monkeypatch.setattr(extraction, "WorkerProcess", LocalWorker)
    arms, execution = {"near": folders.near}, Execution(batch_size=1)
    second = Silent()
    extract(request(study, folders, arms=arms, execution=execution), second)
    assert second.done["base"] >= 2
    whole = request(study, folders, arms=arms, execution=execution, evidence=study.root / "whole.duckdb")
    extract(whole, Silent())
    assert same_content(study.evidence, whole.evidence)


def test_an_interruption_waits_for_the_commit() -> None:
    done: list[str] = []
    before = signal.getsignal(signal.SIGINT)  # a shell's background job starts with the signal ignored

    def commit() -> None:
        with Interruptible() as interrupt:
            with interrupt.shield():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("committed")
            done.append("went on")

    def wait() -> None:
        with Interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
            done.append("waited")

    for action in (commit, wait):
        with pytest.raises(KeyboardInterrupt):
            action()
    assert done == ["committed"]
    assert signal.getsignal(signal.SIGINT) is before


def test_sampled_positions_are_never_masked_ones(make_study: MakeStudy, folders: Folders) -> None:
    study, _, _ = extraction.prepare(request(make_study(), folders))
    assert np.array(study.positions).min() >= 1
