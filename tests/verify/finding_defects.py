"""Defects of losses, scores, findings and the decision. `test_rules` runs them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
from simulator import StudySimulator
from verify.cases import altered, defect, forged, stated
from verify.forging import Json, study, tiny, verified

from atlas_schema.measures.summarise import summarise
from atlas_schema.verify.outcome import Code, Report, exit_code
from atlas_schema.verify.verifier import Options

# --- reproduction: losses, scores, findings -----------------------------------------------------------------------


@defect("R012", "A loss is negative.", Code.DIVERGED)
def negative_loss() -> Report:
    return forged(altered("output", "arm:close", "nll", lambda _: -1.0))


@defect("R012", "An entropy is negative.", Code.DIVERGED)
def negative_entropy() -> Report:
    return forged(altered("output", "arm:close", "entropy", lambda _: -1.0))


@defect("R012", "An item was half right.", Code.DIVERGED)
def half_a_score() -> Report:
    return forged(altered("task", "arm:close", "score", lambda _: 0.5))


@defect("R013", "The ninth digit of a bound was changed.", Code.DIVERGED)
def ninth_digit() -> Report:
    def change(receipt: Json) -> None:
        cell = next(a for a in receipt["findings"]["arms"] if a["arm"] == "close")["cells"][0]
        cell["upper"] = float(f"{cell['upper'] * (1 + 2e-8):.9g}")

    return stated(change)


@defect("R013", "A cell that is above its threshold is stated as below.", Code.DIVERGED)
def state_of_a_cell() -> Report:
    return stated(lambda r: r["findings"]["arms"][2]["cells"][0].update(state="below"), "rewritten")


@defect("R013", "A cell was left out of the findings.", Code.DIVERGED)
def cell_left_out() -> Report:
    return stated(lambda r: r["findings"]["arms"][2]["cells"].pop(0), "rewritten")


@defect("R014", "The receipt names another model than its evidence.", Code.DIVERGED)
def model_renamed() -> Report:
    return stated(lambda r: r["subjects"][0].update(model="a famous model"))


@defect("R014", "The receipt states another numerics fingerprint.", Code.DIVERGED)
def fingerprint_restated() -> Report:
    return stated(lambda r: r["extraction"]["fingerprint"].update(dtype="float64"))


# --- decision -----------------------------------------------------------------------------------------------------


@defect("D001", "The receipt of a rewritten arm claims that it was preserved.", Code.DIVERGED)
def claim_changed() -> Report:
    return stated(lambda r: r["claim"].update(verdict="preserved"), "rewritten")


@defect("D001", "The receipt of one arm was turned to another.", Code.DIVERGED)
def claim_of_another_arm() -> Report:
    return stated(lambda r: r["claim"].update(arm="rewritten"))


@cache
def edge() -> tuple[StudySimulator, bytes]:
    """Return a study whose verdict holds under its own seeds and changes under the reviewer's."""
    arm = replace(study().settings.arms[1], name="close")
    loose = {**study().settings.bootstrap, "resamples": 60, "batches": 2, "monte_carlo_errors": 0.0}
    wide = {"drift.chart_content/1": {"ratio_of_sums": 0.5}}
    s = StudySimulator.make(tiny(arms=(arm,), thresholds=wide, bootstrap=loose))
    near = s.receipt("close").findings.arms[0].cells[0].upper
    for factor in np.linspace(0.98, 1.06, 17):
        value = float(near or 0.0) * float(factor)
        channel = {
            "definition": "drift.chart_content/1",
            "rationale": "x",
            "thresholds": [{"form": "ratio_of_sums", "value": value}],
        }
        t = s.with_contract({"channels": [channel]})
        root = t.evidence_root()
        if summarise(t.source(), t.contract, t.preregistration, root).arms[0].verdict != "preserved":
            continue
        for seed in (hashlib.sha256(b"%d" % i).digest() for i in range(8)):  # those of --seed 0 to --seed 7
            if summarise(t.source(), t.contract, t.preregistration, root, seed).arms[0].verdict != "preserved":
                return t, seed
    raise AssertionError("no verdict at the edge")


@defect("D002", "The verdict holds under the producer's seeds and not under the reviewer's.", Code.UNPROVEN)
def lucky_resample() -> Report:
    s, seed = edge()
    receipt = s.receipt("close")
    assert exit_code(verified(s, receipt)) is Code.VERIFIED
    return verified(s, receipt, Options(seed=seed))
