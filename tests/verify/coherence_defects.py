"""Defects between the rows of several runs, and between rows that nothing but their agreement binds. `test_rules` runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
from verify.cases import OTHER, altered, copied, defect, first, forged, place
from verify.forging import Json, mapped, only, rechained, reissued, study, verified
from verify.router_defects import changed_grouped

from atlas_schema.verify.outcome import Code, Report


@defect("R130", "One arm's rows enlarge the output of the base's block, which a shared expert hides.", Code.DIVERGED)
def hidden_base_inflated() -> Report:
    return changed_grouped("update", "y0_norm", lambda row: 2 * row["y0_norm"])


@defect(
    "R130", "One arm's rows turn the base's updates of every pair apart, so that its jumps are longer.", Code.DIVERGED
)
def jumps_lengthened() -> Report:
    s = study()
    with_vectors = {w["window_id"] for w in s.rows("window") if w["split"] == "evaluation"}

    def apart(row: Json) -> Json | None:
        n, upper = len(row["experts"]), np.triu_indices(2 * len(row["experts"]))
        if row["window_id"] in with_vectors:
            return None
        gram = np.zeros((2 * n, 2 * n))
        gram[upper] = row["gram"]
        assert not gram[
            :, n:
        ].any()  # of an arm with the base's weights: nothing changed, and only the base's updates are there
        size = np.sqrt(np.diagonal(gram)[:n])
        out, into = (row["experts"].index(row[f"pair_{name}"]) for name in ("out", "in"))
        along = np.triu(gram, 1)[:n, :n] + gram[:n, :n].T
        # The competitor's update becomes that of the pair's member, backwards, at its own length.
        along[into] = along[:, into] = -along[out] * size[into] / size[out]
        along[into, into] = size[into] ** 2
        gram[:n, :n] = along
        return {"gram": [float(x) for x in gram[upper]]}

    return forged(mapped(s, "update", only("arm:frozen", apart)))


@defect(
    "R130",
    "One arm's rows turn every update by one rotation about the state, which keeps all inner products.",
    Code.DIVERGED,
)
def vectors_turned() -> Report:
    s = study()
    states = {(r["layer"], r["window_id"], r["position"]): np.array(r["z"], dtype=np.float64)
              for r in s.rows("state") if r["run_id"] == "base"}  # fmt: skip

    def turned(row: Json) -> Json:
        z = states[row["layer"], row["window_id"], row["position"]]
        frame = np.linalg.qr(np.c_[z, np.eye(len(z))[:, :2]])[0]
        across = frame[:, 1]  # orthogonal to the state: a reflection leaves what is along it

        def mirrored(values: list[float]) -> list[float]:
            v = np.array(values).reshape(-1, len(z))
            return [float(x) for x in (v - 2 * np.outer(v @ across, across)).reshape(-1)]

        return {"v0": mirrored(row["v0"]), "v1": mirrored(row["v1"])}

    return forged(mapped(s, "update_vector", only("arm:rewritten", turned)))


@defect(
    "R131", "A token is predicted with near half, and the entropy says that another is all but certain.", Code.DIVERGED
)
def entropy_lowered() -> Report:
    at = place(study(), "output", lambda r: r["run_id"] == "arm:close" and r["top1"] != _next(r) and r["nll"] < 3)
    return forged(study().with_value("output", at, "entropy", 0.01))


def _next(row: Json) -> int:
    window = next(w for w in study().rows("window") if w["window_id"] == row["window_id"])
    token: int = window["tokens"][row["position"] + 1]
    return token


@defect("R132", "A map and the one back have different condition numbers.", Code.DIVERGED)
def one_way_condition() -> Report:
    return forged(altered("overlap", "arm:close", "cond", lambda cond: 1.1 * cond))


@defect("R132", "A layer claims full rank, and one of its maps has less.", Code.DIVERGED)
def rank_overstated() -> Report:
    at = first("layer", "arm:close")
    lowest = study().rows("layer")[at]["w1_rank_min"]
    s = study().with_value("layer", at, "w1_rank_min", lowest)
    return forged(mapped(s, "overlap", only("arm:close", lambda _: {"rank": lowest - 1, "cond": None})))


@defect("R132", "An arm with the base's experts claims a lower rank than the base's.", Code.DIVERGED)
def rank_of_equal_experts() -> Report:
    return forged(altered("layer", "null:batch", "w1_rank_min", lambda rank: rank - 1))


@defect("R133", "The losses of one arm are another's, although their weights differ.", Code.DIVERGED)
def losses_of_another_arm() -> Report:
    return forged(copied("output", "arm:rewritten", "arm:close"))


@defect("C130", "The log records that a run read other weights than the receipt states.", Code.INADMISSIBLE)
def weights_of_another_history() -> Report:
    s, receipt = reissued(study())

    def other(steps: list[Json]) -> list[Json]:
        extraction: dict[str, Any] = {**steps[-1], "outputs": [{"name": "arm:close", "digest": OTHER}]}
        extraction["inputs"] = [*steps[-1]["inputs"], {"name": "weights", "digest": OTHER}]
        return [*steps[:-1], extraction, steps[-1]]

    s = s.with_run_log(rechained(s.run_log, other))
    receipt["run_log"] = {"head": s.run_log.steps[-1].hash, "steps": len(s.run_log.steps)}
    return verified(s, receipt)
