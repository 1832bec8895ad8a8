"""Defects of routers, vectors, overlap maps, transport and divergence, under re-issued documents. `test_rules` runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from simulator import GROUPED, PRESERVED, StudySimulator
from verify.cases import altered, defect, first, forged, place, route, valued
from verify.forging import FROZEN, Json, mapped, only, reissued, study, tiny, verified
from verify.row_defects import updated

from atlas_schema.verify.outcome import Code, Report

# --- reproduction: routers, vectors, overlap maps, transport, divergence -------------------------------------------


@cache
def grouped_world() -> StudySimulator:
    """A tiny study whose router adds a selection bias and keeps the best groups, with a shared expert."""
    return StudySimulator.make(tiny(**GROUPED, arms=(FROZEN, replace(PRESERVED, name="close"))))


@cache
def grouped_receipt() -> Any:
    return grouped_world().receipt("frozen")


def changed_grouped(table: str, column: str, change: Callable[[Json], Any], run_id: str = "arm:close") -> Report:
    """Change one value in the grouped study and re-issue everything; a row with full objects."""
    s = grouped_world()
    at = s.find(table, run_id=run_id)
    if table == "routing":
        at = route(s, s.rows("state")[s.find("state", run_id=run_id)])
    return verified(*reissued(valued(s, table, at, column, change), "frozen", receipt=grouped_receipt()))


@defect("R020", "An arm without groups claims to have kept two of them.", Code.DIVERGED)
def groups_of_nothing() -> Report:
    return forged(altered("layer", "arm:close", "kept_groups", lambda _: 2))


@defect("R020", "An arm's weights and its scores come from different gates.", Code.DIVERGED)
def two_gates() -> Report:
    return forged(altered("layer", "arm:close", "score_space", lambda _: "sigmoid+bias"))


@defect("R020", "An arm keeps more groups than its base, and so chooses from more experts.", Code.DIVERGED)
def more_groups_than_there_are() -> Report:
    return changed_grouped("layer", "kept_groups", lambda row: row["n_groups"])


@defect("R021", "A margin between groups was inflated.", Code.DIVERGED)
def group_margin_inflated() -> Report:
    return changed_grouped("routing", "group_margin", lambda row: row["group_margin"] + 0.5)


@defect("R021", "Admissible experts are half a group.", Code.DIVERGED)
def half_a_group() -> Report:
    def shrunk(row: Json) -> list[bool]:
        routed = grouped_world().rows("routing")[route(grouped_world(), row)]
        used = {*routed["experts"], routed["competitor_in"]}
        free = next(e for e, there in enumerate(row["admissible"]) if there and e not in used)
        return [there and e != free for e, there in enumerate(row["admissible"])]

    return changed_grouped("state", "admissible", shrunk)


@defect("R021", "A margin between groups is negative at a token whose scores nobody keeps.", Code.DIVERGED)
def negative_group_margin() -> Report:
    s = grouped_world()
    kept = {(r["window_id"], r["position"]) for r in s.rows("state")}
    at = place(s, "routing", lambda r: r["run_id"] == "arm:close" and (r["window_id"], r["position"]) not in kept)
    changed = s.with_value("routing", at, "group_margin", -1.0)
    return verified(*reissued(changed, "frozen", receipt=grouped_receipt()))


@defect("R022", "An arm with the base's tensors moved by less than the Gram matrix resolves.", Code.DIVERGED)
def moved_by_a_rounding() -> Report:
    return updated("dV_norm", lambda _: 1e-9, "arm:frozen")


@defect("R023", "A stored vector is not the one whose inner products were recorded.", Code.DIVERGED)
def other_vector() -> Report:
    return forged(altered("update_vector", "arm:close", "v1", lambda v: [v[0] + 0.01, *v[1:]]))


@defect("R023", "Stored vectors of an arm with the base's tensors differ in their last bit.", Code.DIVERGED)
def vector_moved_by_a_bit() -> Report:
    return forged(
        altered(
            "update_vector",
            "arm:frozen",
            "v1",
            lambda v: [float(np.nextafter(np.float32(v[0]), np.float32(9))), *v[1:]],
        )
    )


@defect("A003", "A list of vectors is shorter than its experts need.", Code.INADMISSIBLE)
def short_vectors() -> Report:
    return forged(altered("update_vector", "arm:close", "v0", lambda v: v[:-1]))


@defect("R024", "A pair was visited more often than the base's sets say.", Code.DIVERGED)
def visits_inflated() -> Report:
    return forged(altered("overlap", "arm:close", "visits", lambda n: n + 1))


@defect("R024", "A pair that drifts little stands in the place of one of the most visited.", Code.DIVERGED)
def chosen_pair() -> Report:
    rows = [r for r in study().rows("overlap") if r["run_id"] == "arm:close"]
    taken = {(r["expert_a"], r["expert_b"]) for r in rows}
    experts = range(study().settings.experts)
    a, b = next((a, b) for a in experts for b in experts if a != b and (a, b) not in taken)
    s = altered("overlap", "arm:close", "expert_a", lambda _: a)
    return forged(s.with_value("overlap", first("overlap", "arm:close"), "expert_b", b))


@defect("R024", "A pair names an expert that does not exist.", Code.DIVERGED)
def pair_out_of_range() -> Report:
    return forged(altered("overlap", "arm:close", "expert_b", lambda _: 60_000))


@defect("R025", "The base's maps drift from themselves.", Code.DIVERGED)
def base_drifts() -> Report:
    return forged(altered("overlap", "base", "drift_num", lambda _: 0.1))


@defect(
    "R025", "The size of the base's maps is larger in one arm's rows, so that its drift looks small.", Code.DIVERGED
)
def maps_inflated() -> Report:
    return forged(altered("overlap", "arm:rewritten", "drift_den", lambda size: 10 * size))


@defect("R025", "A condition number is below one.", Code.DIVERGED)
def better_than_perfect() -> Report:
    return forged(altered("overlap", "arm:close", "cond", lambda _: 0.5))


@defect("R026", "An angle is larger than half a turn.", Code.DIVERGED)
def more_than_opposite() -> Report:
    return updated("transport_angle", lambda _: 1.5)


@defect("R026", "An arm whose attention is the base's turns a state.", Code.DIVERGED)
def turned_by_nothing() -> Report:
    return updated("transport_angle", lambda _: 1e-6, "arm:frozen")


@defect("R026", "An arm whose attention changed claims to turn no state.", Code.DIVERGED)
def turned_nowhere() -> Report:
    return forged(mapped(study(), "update", only("arm:close", lambda _: {"transport_angle": 0.0})))


@defect("R027", "A divergence is smaller than the two losses allow.", Code.DIVERGED)
def divergence_understated() -> Report:
    return forged(mapped(study(), "output", only("arm:rewritten", lambda _: {"kl_from_base": 0.0})))


@defect("R027", "A divergence is negative.", Code.DIVERGED)
def negative_divergence() -> Report:
    return forged(altered("output", "arm:frozen", "kl_from_base", lambda _: -0.1))


@defect("R027", "An arm with the base's weights diverges from it.", Code.DIVERGED)
def divergence_of_equal_weights() -> Report:
    return forged(altered("output", "arm:frozen", "kl_from_base", lambda _: 0.1))


@defect("R028", "The token that followed is called the most likely one, to raise agreement.", Code.DIVERGED)
def called_most_likely() -> Report:
    tokens = {w["window_id"]: w["tokens"] for w in study().rows("window")}

    def hit(row: Json) -> Json:
        return {"top1": tokens[row["window_id"]][row["position"] + 1]}

    return forged(mapped(study(), "output", only("arm:rewritten", hit)))


@defect("R028", "A token that is predicted almost surely is not the most likely one.", Code.DIVERGED)
def sure_and_not_first() -> Report:
    at = place(study(), "output", lambda r: r["run_id"] == "null:batch" and r["nll"] > 1.0)
    return forged(study().with_value("output", at, "nll", 0.01))
