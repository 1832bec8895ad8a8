"""The generated evidence obeys every rule, in a size for a quick look; `make bench` measures it in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from atlas_schema.verify.loading import load
from atlas_schema.verify.outcome import Channel, Status
from atlas_schema.verify.verifier import Options, verify
from benchmarks.run import in_process, study
from benchmarks.world import Size

QUICK = Size(windows=60, d=64, experts=16, top_k=4, positions=2, tokens=24, evaluated=2, overlap_pairs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("bench") / "study", QUICK)


def test_generated_evidence_obeys_every_rule(folder: Path) -> None:
    report = verify(load(folder / "receipt.json", None, None, None, None), Options())
    assert [p for result in report.channels.values() for p in result.problems] == []
    assert all(report.status(c) is Status.PASSED for c in (Channel.CONTRACT, Channel.BINDING, Channel.REPRODUCTION))


def test_a_written_study_is_used_again(folder: Path) -> None:
    before = (folder / "evidence" / "state.parquet").stat().st_mtime_ns
    assert study(folder, QUICK) == folder
    assert (folder / "evidence" / "state.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize("task", ["binding", "verify", "openssl"])
def test_every_task_runs_and_is_measured(folder: Path, task: str) -> None:
    found = in_process(task, folder, 1)
    assert found.seconds > 0
    assert found.memory > 2**20
