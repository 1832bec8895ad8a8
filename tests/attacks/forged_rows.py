"""Forgeries of rows: drift, routing, losses, scores, and studies that nobody ran. `forgeries.py` verifies them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from attacks.edits import exchanged_rows, flipped, rows_of, with_cell
from attacks.experts import Row
from attacks.forgeries import Forged, forgery, receipt_for
from attacks.replanned import replanned, under
from attacks.rewrites import (
    Key,
    content_as,
    copied,
    digests_of,
    redigested,
    rewritten,
    router_of_the_base,
    routing_elsewhere,
    smoothed,
    states_moved_to,
    token,
    turned_apart,
)
from attacks.world import shipped
from forge_demo import forge
from simulator import Settings, StudySimulator
from verify.forging import Json, as_json, encoded

from atlas_schema.canonical import canonical_json, digest_bytes
from atlas_schema.documents.run_log import RunLog
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.evidence.tables import TABLES
from atlas_schema.protocol.log import next_step
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.outcome import Code

ARM = "arm:rewritten"
REPLAY = "replay"
BY_HAND = "digests of the released tensors, compared by hand; replay"
IN_A_LAYER = ("layer", "state", "routing", "update", "update_vector", "overlap")


def demo() -> StudySimulator:
    return shipped("demo").study


def rewrote(study: StudySimulator, **more: Any) -> Forged:
    """Hand over a receipt about the demo's rewritten arm."""
    return Forged("demo", study, "rewritten", **more)


def kept(study: StudySimulator, arm: str = "preserved", **more: Any) -> Forged:
    """Hand over a receipt about the demo's preserved arm."""
    return Forged("demo", study, arm, **more)


def wished(study: StudySimulator) -> Forged:
    """Hand over a receipt about the rewritten arm that says 'preserved' wherever it did not."""
    return rewrote(study, keep=True, edit=lambda receipt: forge(receipt))


@cache
def one_arm(name: str) -> StudySimulator:
    """The large shipped study, cut down to one arm and one layer: what a producer may leave out is another forgery."""
    return replanned(shipped("study").study, arms=[name], layers=[0])


def alone(name: str, study: StudySimulator, **more: Any) -> Forged:
    """Hand over a receipt about the one arm of a cut study."""
    return Forged("study", study, name, **more)


# --- drift --------------------------------------------------------------------------------------------------------


@forgery(
    "the receipt's numbers made smaller until they say 'preserved'; rows as they are",
    "demo",
    rules="D001 R013",
    code=Code.DIVERGED,
)
def numbers_smoothed() -> Forged:
    return wished(demo())


@forgery(
    "changes in the Gram matrices a quarter of what they were, nothing else",
    "demo",
    rules="R009 R023",
    code=Code.DIVERGED,
)
def drift_smoothed_in_matrices() -> Forged:
    return wished(smoothed(demo(), ARM, 0.25, parts=("gram",)))


@forgery(
    "changes a quarter of what they were in Gram matrices and norms, but not in what was recorded of the field",
    "demo",
    rules="R010 R022 R023",
    code=Code.DIVERGED,
)
def drift_smoothed_in_norms() -> Forged:
    return wished(smoothed(demo(), ARM, 0.25, parts=("gram", "uz1", "uu1")))


@forgery(
    "changes a quarter of what they were in every column that follows; the router's own follow from its weights and stay",
    "demo", verdict="undetermined", code=Code.UNPROVEN, left_to=REPLAY,
)  # fmt: skip
def drift_smoothed_in_everything() -> Forged:
    return rewrote(smoothed(demo(), ARM, 0.25))


@forgery(
    "changes a quarter of what they were in every column that follows, and the base's router as the arm's",
    "demo",
    verdict="preserved",
    left_to=BY_HAND,
)
def drift_smoothed_under_the_bases_router() -> Forged:
    return rewrote(smoothed(router_of_the_base(demo(), ARM), ARM, 0.25))


@forgery(
    "the base's updates of every pair turned apart in one arm's rows, so that jumps are longer",
    "demo",
    rules="R130",
    code=Code.DIVERGED,
)
def base_turned_apart() -> Forged:
    return rewrote(turned_apart(demo(), [ARM]))


@forgery(
    "the base's updates of every pair turned apart in every run's rows, so that jumps are longer",
    "demo",
    verdict="rewritten",
    code=Code.NOT_PRESERVED,
    left_to=REPLAY,
)
def base_turned_apart_everywhere() -> Forged:
    return rewrote(turned_apart(demo(), sorted(set(demo().tables["update"].column("run_id").to_pylist()))))


@forgery("the base's states and routing as the arm's", "demo", rules="R005 R006 R011", code=Code.DIVERGED)
def base_rows_as_the_arms() -> Forged:
    return wished(copied(demo(), ("state", "routing"), ARM, "base"))


@forgery("the base's states as the arm's, one bit moved, routed by the arm's own router: no native drift", "demo", verdict="rewritten",
         code=Code.NOT_PRESERVED, left_to=REPLAY)  # fmt: skip
def base_states_under_the_arms_router() -> Forged:
    base = {token(r): r for r in demo().rows("state") if r["run_id"] == "base"}

    def of_base(key: Key, _: Row) -> tuple[np.ndarray, float]:
        z = np.array(base[key]["z"], dtype=np.float32)
        z[0] = np.nextafter(z[0], np.float32(0.0))
        return z, base[key]["r"]

    return rewrote(states_moved_to(demo(), ARM, of_base))


@forgery("a null arm's updates as the arm's, so that nothing drifts", "demo", rules="R008", code=Code.DIVERGED)
def null_updates_as_the_arms() -> Forged:
    return wished(copied(demo(), ("update", "update_vector"), ARM, "null:batch", transport_angle=0.1))


@forgery("the arm as frozen: the base's tensors and rows in the protected layer; its own losses, scores and weights' digest", "demo",
         verdict="preserved", left_to=BY_HAND)  # fmt: skip
def arm_as_frozen() -> Forged:
    s = copied(demo(), ("layer", "state", "routing", "overlap"), ARM, "base")
    return rewrote(copied(s, ("update", "update_vector"), ARM, "null:batch", transport_angle=0.0))


@forgery(
    "another arm's rows under this arm's name, weights' digest and policy", "demo", verdict="preserved", left_to=BY_HAND
)
def another_arms_rows() -> Forged:
    return rewrote(copied(demo(), (*IN_A_LAYER, "output"), ARM, "arm:preserved"))


@forgery(
    "another arm's rows, with the digests of this arm's own experts and of the layers before",
    "demo",
    rules="R133",
    code=Code.DIVERGED,
)
def another_arms_rows_under_own_digests() -> Forged:
    return rewrote(own_digests_over_another_arms_rows())


def own_digests_over_another_arms_rows() -> StudySimulator:
    """Put the preserved arm's rows under the rewritten arm's name and tensor digests."""
    own = {
        k: d for k, d in digests_of(demo(), ARM)[1].items() if k.startswith("experts.") or k in ("local", "upstream")
    }
    return redigested(copied(demo(), (*IN_A_LAYER, "output"), ARM, "arm:preserved"), ARM, lambda d: {**d, **own})


@forgery("another arm's rows under this arm's tensor digests, one bit of a state, an update and a loss changed", "demo",
         verdict="preserved", left_to=BY_HAND)  # fmt: skip
def another_arms_rows_off_by_a_bit() -> Forged:
    s = own_digests_over_another_arms_rows()
    for table, column in (("state", "z"), ("update", "gram"), ("output", "nll")):
        at = int(rows_of(s, table, ARM)[0])
        value = s.tables[table].column(column)[at].as_py()
        kind = TABLES[table].column(column).type
        other = flipped(value, kind, 0) if isinstance(value, float) else [flipped(value[0], kind, 0), *value[1:]]
        s = with_cell(s, table, at, column, other)
    return rewrote(s)


@forgery("a null arm and the arm in each other's place", "demo", rules="R001 R015 R017 R025", code=Code.DIVERGED)
def null_and_arm_exchanged() -> Forged:
    s = demo()
    for table in ("layer", "state", "routing", "update", "update_vector", "output"):
        mine, theirs = rows_of(s, table, ARM), rows_of(s, table, "null:attention")
        s = exchanged_rows(s, table, list(zip(mine.tolist(), theirs.tolist(), strict=True)))
    return wished(s)


@forgery("rows in which every token's content changes by the same share, so that intervals have no width", "demo", verdict="undetermined",
         code=Code.UNPROVEN, left_to=f"{REPLAY}; no spread decides nothing")  # fmt: skip
def rows_without_spread() -> Forged:
    s = router_of_the_base(demo(), ARM)
    return rewrote(smoothed(s, ARM, content_as(s, ARM, lambda _: 0.004)))


@forgery(
    "rows in which every token's content changes by the same share, a tenth up or down",
    "demo",
    verdict="preserved",
    left_to=REPLAY,
)
def rows_with_little_spread() -> Forged:
    s, rng = router_of_the_base(demo(), ARM), np.random.default_rng(1)
    return rewrote(smoothed(s, ARM, content_as(s, ARM, lambda _: 0.004 * float(rng.uniform(0.9, 1.1)))))


# --- margins and occupancy ----------------------------------------------------------------------------------------


@forgery("every margin three times as large", "demo", rules="R006", code=Code.DIVERGED)
def margins_inflated() -> Forged:
    return kept(rewritten(demo(), "routing", "arm:preserved", lambda r: {"margin": 3 * r["margin"]}))


@forgery(
    "margins three times as large away from sampled positions",
    "demo",
    verdict="preserved",
    left_to=f"{REPLAY}; decides no verdict",
)
def margins_inflated_elsewhere() -> Forged:
    return kept(routing_elsewhere(demo(), "arm:preserved", lambda r: {"margin": 3 * r["margin"]}))


@forgery("an arm that collapsed onto four experts while margins rose; the receipt says that its margins may be cited", "demo",
         rules="R013", code=Code.DIVERGED)  # fmt: skip
def collapse_denied() -> Forged:
    def few(row: Row) -> Row:
        pair = [0, 1] if row["position"] % 2 else [2, 3]
        return {
            "experts": pair,
            "competitor_out": pair[1],
            "competitor_in": 4,
            "margin": 2 * row["margin"] + 0.1,
            "flags": 0,
        }

    def citable(receipt: Json) -> None:
        before, arm = (next(a for a in r["findings"]["arms"] if a["arm"] == "preserved")
                       for r in (as_json(receipt_for("demo", "preserved")), receipt))  # fmt: skip
        if arm["margin_use"]["citable"]:
            raise ValueError("the collapse does not show")
        arm["margin_use"], arm["flags"] = before["margin_use"], before["flags"]

    return kept(routing_elsewhere(demo(), "arm:preserved", few), edit=citable)


@forgery("a collapse hidden: the base's routing away from sampled positions", "demo", verdict="preserved",
         left_to=f"{REPLAY}; decides no verdict")  # fmt: skip
def collapse_hidden() -> Forged:
    base = {token(r): r for r in demo().rows("routing") if r["run_id"] == "base"}
    return kept(routing_elsewhere(demo(), "arm:preserved", lambda r: {**base[token(r)], "run_id": r["run_id"]}))


# --- losses and scores --------------------------------------------------------------------------------------------


@forgery(
    "an arm that misses its task; score and claim edited in the receipt", "study", rules="D001 R013", code=Code.DIVERGED
)
def failed_task_edited() -> Forged:
    def passed(receipt: Json) -> None:
        arm = receipt["findings"]["arms"][0]
        arm["success"] |= {
            "value": 0.9,
            "lower": 0.87,
            "upper": 0.93,
            "state": "reached",
            "reason": "the lower bound reaches what is needed",
        }
        arm["verdict"], arm["flags"], receipt["claim"]["verdict"] = "preserved", [], "preserved"

    return alone("unmatched", one_arm("unmatched"), edit=passed)


@forgery("an arm that misses its task, its scores those of another arm", "study", verdict="preserved", left_to=REPLAY)
def scores_of_another_arm() -> Forged:
    theirs = {r["item_id"]: r["score"] for r in shipped("study").study.rows("task") if r["run_id"] == "arm:preserved"}
    return alone(
        "unmatched", rewritten(one_arm("unmatched"), "task", "arm:unmatched", lambda r: {"score": theirs[r["item_id"]]})
    )


@forgery("scores of items that were not planned", "demo", rules="C010", code=Code.UNPROVEN)
def scores_of_another_set() -> Forged:
    return kept(
        demo().with_rows("task", [{**r, "item_id": "x" + r["item_id"]} for r in demo().rows("task")]), keep=True
    )


def losses_copied() -> StudySimulator:
    """Put the base's losses in place of the damaged arm's."""
    s = one_arm("damaged")
    base = {token(r): r for r in s.rows("output") if r["run_id"] == "base"}
    return rewritten(
        s, "output", "arm:damaged", lambda r: {**base[token(r)], "run_id": "arm:damaged", "kl_from_base": 0.0}
    )


@forgery("a damaged arm's losses those of the base, copied", "study", rules="R133", code=Code.DIVERGED)
def losses_of_the_base() -> Forged:
    return alone("damaged", losses_copied())


@forgery("a damaged arm's losses those of the base, with one bit of one changed", "study", verdict="undetermined", code=Code.UNPROVEN,
         left_to=f"{REPLAY}; losses that change in one document only decide nothing")  # fmt: skip
def losses_near_the_base() -> Forged:
    s = losses_copied()
    at = int(rows_of(s, "output", "arm:damaged")[0])
    nll = np.float32(s.tables["output"].column("nll")[at].as_py())
    return alone("damaged", s.with_value("output", at, "nll", float(np.nextafter(nll, np.float32(100)))))


@forgery(
    "a damaged arm's losses those of the base, each up to a thousandth off",
    "study",
    verdict="preserved",
    left_to=REPLAY,
)
def losses_about_the_bases() -> Forged:
    rng = np.random.default_rng(1)
    near = rewritten(losses_copied(), "output", "arm:damaged",
                     lambda r: {"nll": r["nll"] * float(rng.uniform(0.999, 1.001)), "kl_from_base": 1e-4})  # fmt: skip
    return alone("damaged", near)


# --- inventions ---------------------------------------------------------------------------------------------------


@forgery("a whole study from a toy that never was a language model: the simulator of the tests, under the built-in contract", "simulator",
         verdict="preserved", left_to=REPLAY)  # fmt: skip
def invented() -> Forged:
    return kept(under(StudySimulator.make(Settings(items=200)), built_in_contracts()["chart-preserving.v1"]))


@forgery(
    "another model's weights' digest over the arm's rows, with the extraction's own log",
    "demo",
    rules="C130",
    code=Code.INADMISSIBLE,
)
def weights_of_another_model() -> Forged:
    s = another_digest()
    made = {"preregistration": digest_of(s.preregistration)}, {"evidence": evidence_root(table_roots(s.source()))}
    last = next_step(
        s.run_log.steps,
        step="extract",
        actor="automation",
        inputs=made[0],
        outputs=made[1],
        time=s.run_log.steps[-1].time,
    )
    log = RunLog(kind="run_log", schema_version="1.0", steps=(*s.run_log.steps, last))

    def cited(receipt: Json) -> None:
        receipt["run_log"] = {"head": last.hash, "steps": len(log.steps)}

    return kept(s, edit=cited, changes={"run_log": encoded(as_json(log))})


def another_digest() -> StudySimulator:
    """Name the weights of a model outside the study as what the preserved arm ran."""
    released = digest_bytes(b"the weights that were released under the arm's name")
    return rewritten(demo(), "run", "arm:preserved", lambda _: {"weights_digest": released})


@forgery("bfloat16 claimed of base and arms, for its wider tolerances: their lowest scores moved by a thousandth", "demo",
         verdict="preserved", left_to=f"{REPLAY}; decides no verdict")  # fmt: skip
def coarser_dtype_claimed() -> Forged:
    s, dtype = demo(), {"null:dtype": "float32"}

    def printed(row: Row) -> Row:
        return {
            "fingerprint": canonical_json(
                json.loads(row["fingerprint"]) | {"dtype": dtype.get(row["run_id"], "bfloat16")}
            ).decode()
        }

    def lower(row: Row) -> Row:
        least = min(row["dispatch"])
        return {"dispatch": [v - 1e-3 * abs(v) if v == least else v for v in row["dispatch"]]}

    for run in s.tables["run"].column("run_id").to_pylist():
        s = rewritten(s, "run", run, printed)
        s = rewritten(
            s,
            "layer",
            run,
            lambda r: {"executed_dtype": dtype.get(r["run_id"], "bfloat16"), "reconstruction_error": 1e-7},
        )
    s = copied(s, ("state", "routing"), "null:dtype", "null:batch")  # what ran in bfloat16 does not pass for float32
    return kept(rewritten(s, "state", "arm:preserved", lower))
