"""A small, complete, valid study in memory: `StudySimulator`.

A tiny routed model (NumPy only, float32) is run under the base's weights, under the contract's nuisances, and under the
perturbed weights of each arm. Every row of every table follows from that model, so that the physics that verification
checks holds: states from inputs, gate coordinates from states, scores from gate coordinates, sets from scores, Gram
matrices from vectors. Documents cite each other by their true digests.

Tests change one thing at a time: the ``with_...`` methods return a modified copy, and nothing else follows the change.

    study = StudySimulator.make(Settings(seed=7))
    findings = summarise(study.source(), study.contract, study.preregistration, study.evidence_root())
    forged = study.with_value("update", 3, "dy_norm", 0.0)
    forged.write(tmp_path)

`settings` says what all depends on; `arithmetic`, `probe` and `model` run it; `tables`, `same_state` and `rows` write down
what happened; `documents` cite it; `study` holds the whole. Each module imports only from those named before it.
"""

from __future__ import annotations

from simulator.documents import contract_json, make_log, make_step
from simulator.settings import (
    CHANGES,
    COLLAPSED,
    DAMAGED,
    EPS,
    GROUPED,
    IDENTICAL,
    PRESERVED,
    REWRITTEN,
    THRESHOLDS,
    UNMATCHED,
    Settings,
    SimulatedArm,
    grouped,
    small,
)
from simulator.study import MemorySource, StudySimulator, default_study, merged, small_study

__all__ = [
    "CHANGES", "COLLAPSED", "DAMAGED", "EPS", "GROUPED", "IDENTICAL", "PRESERVED", "REWRITTEN", "THRESHOLDS", "UNMATCHED",
    "MemorySource", "Settings", "SimulatedArm", "StudySimulator", "contract_json", "default_study", "grouped", "make_log",
    "make_step", "merged", "small", "small_study",
]  # fmt: skip
