"""The simulator itself: a written study holds what it says, and a change changes one thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulator import StudySimulator, default_study, small_study

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.files import read_document
from atlas_schema.protocol.log import chain_faults


def test_a_written_study_is_the_study(tmp_path: Path) -> None:
    study = small_study()
    folder = study.write(tmp_path / "study")
    assert read_document(folder / "contract.json", Contract, "contract") == study.contract
    assert read_document(folder / "preregistration.json", Preregistration, "plan") == study.preregistration
    assert read_document(folder / "run_log.json", RunLog, "log") == study.run_log
    assert evidence_root(table_roots(ParquetBundle(folder / "evidence"))) == study.evidence_root()


@pytest.mark.parametrize("make", [default_study, small_study])
def test_receipts_claim_what_the_arms_are(tmp_path: Path, make: object) -> None:
    study: StudySimulator = make()  # type: ignore[operator]
    folder = study.write(tmp_path / "study")
    for arm, verdict in (("preserved", "preserved"), ("rewritten", "rewritten"), ("identical", "preserved")):
        receipt = read_document(study.issue(folder, arm), Receipt, "receipt")
        assert (receipt.claim.arm, receipt.claim.verdict) == (arm, verdict)
    log = read_document(folder / "run_log.json", RunLog, "log")
    assert [s.step for s in log.steps] == ["declare", "extract", "issue", "issue", "issue"]
    assert chain_faults(log) == []


def test_a_change_is_made_in_a_copy_and_nowhere_else() -> None:
    study = small_study()
    root = study.evidence_root()
    at = study.find("update", run_id="arm:preserved", layer=2)
    changed = study.with_value("update", at, "dy_norm", 7.0)
    assert changed.rows("update")[at]["dy_norm"] == 7.0
    assert study.rows("update")[at]["dy_norm"] != 7.0
    assert (study.evidence_root(), changed.evidence_root() == root) == (root, False)
    assert changed.run_log == study.run_log
    assert changed.relogged().run_log != study.run_log
    assert study.without_row("task", 0).tables["task"].num_rows == study.tables["task"].num_rows - 1
    stale = study.with_contract({"bootstrap": {"alpha": 0.05}}, relink=False)
    assert stale.preregistration == study.preregistration
    relinked = study.with_contract({"bootstrap": {"alpha": 0.05}})
    assert relinked.preregistration.contract.digest != study.preregistration.contract.digest
    assert relinked.run_log.steps[0].outputs[0].digest == relinked.preregistration_digest()
