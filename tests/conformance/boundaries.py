"""Pairs at a boundary: the name ends in ``_inside`` for what is just within a rule, in ``_outside`` for what is just beyond."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import numpy as np
from conformance.accepted import issued
from conformance.own import case
from simulator import StudySimulator
from verify.cases import altered, forged
from verify.finding_defects import edge
from verify.forging import Json, as_json, encoded, honest, mapped, study, verified

from atlas_schema.measures.summarise import summarise
from atlas_schema.verify.outcome import Code, Report

# --- documents -----------------------------------------------------------------------------------------------------


def _number(characters: int) -> Report:
    """Write the first value of a finding with zeros behind it: the same number in so many characters."""
    raw = encoded(as_json(honest("close"))).decode()
    found = next(m for m in re.finditer(r'"value": (0\.\d+),', raw))
    return verified(study(), (raw[: found.start(1)] + found[1].ljust(characters, "0") + raw[found.end(1) :]).encode())


@case("A number is written with 40 characters.")
def number_length_inside() -> Report:
    return _number(40)


@case("A number is written with 41 characters.", Code.INADMISSIBLE, "A001")
def number_length_outside() -> Report:
    return _number(41)


@case("Notes of 20,000 characters.")
def notes_length_inside() -> Report:
    return verified(study(), {**as_json(honest()), "notes": "n" * 20_000})


@case("Notes of 20,001 characters.", Code.INADMISSIBLE, "S001")
def notes_length_outside() -> Report:
    return verified(study(), {**as_json(honest()), "notes": "n" * 20_001})


def _nested(levels: int) -> Report:
    notes: Any = "deep"
    for _ in range(levels - 1):
        notes = [notes]
    return verified(study(), {**as_json(honest()), "notes": notes})


@case("Nested 32 levels: read, and refused for its shape.", Code.INADMISSIBLE, "S001")
def nesting_inside() -> Report:
    return _nested(32)


@case("Nested 33 levels: not even read.", Code.INADMISSIBLE, "A001")
def nesting_outside() -> Report:
    return _nested(33)


# --- contract ------------------------------------------------------------------------------------------------------


@case("The tolerated damage is the most that the contract admits.")
def tolerated_damage_inside() -> Report:
    return issued(study().with_preregistration({"damage_tolerance_nats": 0.1}))


@case("The tolerated damage is a little more than the contract admits.", Code.INADMISSIBLE, "C008")
def tolerated_damage_outside() -> Report:
    return forged(study().with_preregistration({"damage_tolerance_nats": 0.1 + 1e-9}))


@case("The pre-registration was declared in the second in which it was created.")
def created_inside() -> Report:
    return issued(study().with_preregistration({"created": "2026-01-01T00:00:00Z"}))


@case("The pre-registration was created a second after it was declared.", Code.INADMISSIBLE, "C006")
def created_outside() -> Report:
    return forged(study().with_preregistration({"created": "2026-01-01T00:00:01Z"}))


# --- rows ----------------------------------------------------------------------------------------------------------


def _conditioned(value: float) -> StudySimulator:
    """Change the condition number of one map and of the one back."""
    first = next(r for r in study().rows("overlap") if r["run_id"] == "arm:close")
    pair = {first["expert_a"], first["expert_b"]}

    def change(row: Json) -> Json | None:
        return {"cond": value} if row["run_id"] == "arm:close" and {row["expert_a"], row["expert_b"]} == pair else None

    return mapped(study(), "overlap", change)


@case("A condition number is below one by what rounding may do, half a millionth.")
def condition_inside() -> Report:
    return issued(_conditioned(1 - 0.5e-6))


@case("A condition number is below one by two millionths.", Code.DIVERGED, "R025")
def condition_outside() -> Report:
    return forged(_conditioned(1 - 2e-6))


def _turned(value: float) -> StudySimulator:
    return altered("update", "arm:close", "transport_angle", lambda _: value)


@case("An angle is half a turn.")
def angle_inside() -> Report:
    return issued(_turned(1.0))


@case("An angle is the first one beyond half a turn.", Code.DIVERGED, "R026")
def angle_outside() -> Report:
    return forged(_turned(float(np.nextafter(np.float32(1), np.float32(2)))))


def _weighed(by: float) -> StudySimulator:
    return altered("state", "arm:close", "weights", lambda w: [float(np.float32(w[0] * (1 + by))), *w[1:]])


@case("A combine weight is off by what rounding may do.")
def weight_inside() -> Report:
    return issued(_weighed(2.0**-23))


@case("A combine weight is off by a little more than rounding may do.", Code.DIVERGED, "R007")
def weight_outside() -> Report:
    return forged(_weighed(2.0**-16))


# --- findings and decision -----------------------------------------------------------------------------------------


def _stated(by: float) -> Report:
    """State a finding off its unrounded value by a share of a unit in its ninth digit."""
    s = study()
    exact = summarise(s.source(), s.contract, s.preregistration, s.evidence_root())
    receipt = as_json(honest("close"))
    at = [a.arm for a in exact.arms].index("close")
    cells = exact.arms[at].cells
    cell = next(i for i, c in enumerate(cells) if c.value and Decimal(repr(c.value)).as_tuple().digits[0] not in (1, 9))
    value = cells[cell].value or 0.0
    unit = 10.0 ** (Decimal(repr(value)).adjusted() - 8)
    receipt["findings"]["arms"][at]["cells"][cell]["value"] = value + by * unit
    return verified(s, receipt)


@case("A finding is stated off by a little less than half a unit of its ninth digit.")
def ninth_digit_inside() -> Report:
    return _stated(0.49)


@case("A finding is stated off by a little more than half a unit of its ninth digit.", Code.DIVERGED, "R013")
def ninth_digit_outside() -> Report:
    return _stated(0.51)


def _above(share: float) -> Report:
    """Move one threshold to an exact upper bound, times a share: nothing changed in it, so it is the bound of rare events."""
    cell = next(c for c in honest("close").findings.arms[1].cells if c.definition == "drift.boundary/1" and c.upper)
    channels = as_json(study().contract)["channels"]
    for channel in channels:
        for threshold in channel["thresholds"]:
            if (channel["definition"], threshold["form"]) == (cell.definition, cell.form):
                threshold["value"] = (cell.upper or 0.0) * share
    return issued(study().with_contract({"channels": channels}), "close")


@case("A threshold lies just above the upper bound: preserved.")
def threshold_inside() -> Report:
    return _above(1 + 1e-6)


@case("A threshold lies just below the upper bound: undetermined, and never preserved.", Code.UNPROVEN)
def threshold_outside() -> Report:
    return _above(1 - 1e-6)


@case("As many documents as the contract needs: decided.")
def clusters_inside() -> Report:
    return issued(study().with_contract({"bootstrap": {"min_clusters": 11}}), "close")


@case("One document fewer than the contract needs: undetermined.", Code.UNPROVEN)
def clusters_outside() -> Report:
    return issued(study().with_contract({"bootstrap": {"min_clusters": 12}}), "close")


@case("A verdict at the edge, under the producer's own seeds; `lucky_resample` is the same under the reviewer's.")
def lucky_seed_inside() -> Report:
    s, _ = edge()
    return verified(s, s.receipt("close"))
