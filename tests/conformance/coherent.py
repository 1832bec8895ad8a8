"""Forgeries whose findings were recomputed over the forged rows: no stated number gives them away, only what rows must obey.

The cases of rows in the test suite keep the honest findings, which contradict the forged rows once nothing else stops them. Here the forger
has issued the receipt anew, as the technician's own command would, so that a verifier without the rule believes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from conformance.own import case
from simulator import StudySimulator
from verify import cases, coherence_defects, forging, router_defects, row_defects
from verify.cases import CASES, OTHER
from verify.forging import Json, mapped, study, verified

from atlas_schema.canonical import canonical_json
from atlas_schema.study.issue import build_receipt
from atlas_schema.verify.outcome import Code, Report

RECOMPUTED = (
    "null_of_other_weights", "moved_without_moving", "borrowed_tolerance", "fingerprint_differs", "experts_swapped", "not_reconstructed",
    "wrong_scale", "score_to_taste", "base_states_as_the_arms", "margin_inflated", "weights_to_taste", "members_copied", "forced_weight",
    "drift_smoothed", "drift_smoothed_in_all_norms", "update_norm", "gram_not_of_vectors", "large_base", "negative_change",
    "no_drift_of_changed_tensors", "negative_loss", "half_a_score", "angle_left_out", "base_inflated", "groups_of_nothing",
    "group_margin_inflated", "half_a_group", "moved_by_a_rounding", "other_vector", "visits_inflated", "chosen_pair", "maps_inflated",
    "turned_nowhere", "divergence_understated", "called_most_likely", "hidden_base_inflated", "vectors_turned", "entropy_lowered",
    "one_way_condition", "rank_overstated", "rank_of_equal_experts", "losses_of_another_arm",
)  # fmt: skip
"""Cases of `tests/verify` that are made here with findings of their own rows."""
REGISTERED = (coherence_defects, router_defects, row_defects)
"""Importing them registers these cases."""


def reissued(s: StudySimulator, arm: str = "frozen", *, receipt: Any = None) -> tuple[StudySimulator, Json]:
    """Issue a receipt over the rows as they are."""
    s = s.relogged()
    made = build_receipt(s.source(), s.preregistration, s.contract, s.run_log, arm)
    return forging.reissued(s, arm, receipt=made)


def recomputing(make: Callable[[], Report]) -> Report:
    """Make a case whose forger issues findings of the forged rows."""
    with mock.patch.object(cases, "reissued", reissued), mock.patch.object(router_defects, "reissued", reissued):
        return make()


def _of(name: str) -> None:
    known = CASES[name]

    def made() -> Report:
        return recomputing(lambda: known.make(Path()))

    made.__name__ = f"{name}_recomputed"
    rules = " ".join(sorted(rule.removeprefix("ATL-") for rule in known.rules))
    case(f"{known.defect} The findings are those of these rows.", known.code, rules)(made)


for _name in RECOMPUTED:
    _of(_name)


@case(
    "One arm's rows inflate the base's own updates, where no vectors are kept. The findings are those of these rows.",
    Code.DIVERGED,
    "R016",
)
def base_inflated_beside_vectors_recomputed() -> Report:
    kept = {w["window_id"] for w in study().rows("window") if w["split"] == "evaluation"}

    def mapped(s: StudySimulator, table: str, change: Callable[[Json], Any]) -> StudySimulator:
        return forging.mapped(s, table, lambda row: None if row["window_id"] in kept else change(row))

    with mock.patch.object(row_defects, "mapped", mapped):
        return recomputing(row_defects.base_inflated)


@case(
    "An arm with the base's weights states another tensor. The findings are those of these rows.", Code.DIVERGED, "R017"
)
def other_tensor_of_equal_weights_recomputed() -> Report:
    return recomputing(
        lambda: cases.forged(row_defects.redigested(study(), "arm:frozen", lambda d: {**d, "experts.0": OTHER}))
    )


@case(
    "The tier is typed in where a document may name what it likes: among what every run's rows say of the machine.",
    Code.INADMISSIBLE,
    "C045",
)
def tier_among_the_fingerprint() -> Report:
    def boast(row: Json) -> Json:
        return {"fingerprint": canonical_json({**json.loads(row["fingerprint"]), "fidelity_tier": "A"}).decode()}

    return verified(*reissued(mapped(study(), "run", boast)))
