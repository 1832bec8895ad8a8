"""The forgeries themselves. Each returns what the forger hands over; `forgeries.py` verifies it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from attacks.edits import exchanged_rows, rows_of
from attacks.forgeries import Forged, forgery, receipt_for
from attacks.replanned import replanned, under
from attacks.rewrites import (
    Row,
    copied,
    digests_of,
    redigested,
    rewritten,
    routing_elsewhere,
    smoothed,
    states,
    states_moved_to,
    token,
    turned_apart,
)
from attacks.world import report_bytes, shipped
from forge_demo import forge
from simulator import Settings, StudySimulator
from verify.forging import Json, as_json, encoded

from atlas_schema.documents.contract import Contract
from atlas_schema.reports.text import render as render_text
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.loading import load
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.verifier import Options, verify

ARM = "arm:rewritten"
REPLAY = "replay"
PIN = "a pin, if the digest was known before results existed"


def demo() -> StudySimulator:
    return shipped("demo").study


def rewrote(study: StudySimulator, **more: Any) -> Forged:
    """Hand over a receipt about the demo's rewritten arm."""
    return Forged("demo", study, "rewritten", **more)


def wishes(receipt: Json) -> None:
    """Write 'preserved' over everything that stands against it."""
    forge(receipt)


# --- drift --------------------------------------------------------------------------------------------------------


@forgery(
    "numbers of the receipt smoothed until they say 'preserved'; rows as they are",
    "demo",
    rules="D001 R013",
    code=Code.DIVERGED,
)
def numbers_smoothed() -> Forged:
    return rewrote(demo(), keep=True, edit=wishes)


@forgery(
    "changes in the Gram matrices a quarter of what they were, nothing else",
    "demo",
    rules="R009 R023",
    code=Code.DIVERGED,
)
def drift_smoothed_in_matrices() -> Forged:
    return rewrote(smoothed(demo(), ARM, 0.25, parts=("gram",)), keep=True, edit=wishes)


@forgery(
    "the same in all norms, but not in what was recorded of the field",
    "demo",
    rules="R010 R022 R023",
    code=Code.DIVERGED,
)
def drift_smoothed_in_norms() -> Forged:
    return rewrote(smoothed(demo(), ARM, 0.25, parts=("gram", "uz1", "uu1")), keep=True, edit=wishes)


@forgery(
    "the same in every column that follows: matrices, norms, fields, vectors, maps",
    "demo",
    verdict="preserved",
    left_to=REPLAY,
)
def drift_smoothed_in_everything() -> Forged:
    return rewrote(smoothed(demo(), ARM, 0.25))


@forgery(
    "the base's updates of every pair turned apart in one arm's rows, so that jumps are longer",
    "demo",
    rules="R130",
    code=Code.DIVERGED,
)
def base_turned_apart() -> Forged:
    return rewrote(turned_apart(demo(), [ARM]))


@forgery("the same in every run's rows", "demo", verdict="rewritten", code=Code.NOT_PRESERVED, left_to=REPLAY)
def base_turned_apart_everywhere() -> Forged:
    runs = sorted(set(demo().tables["update"].column("run_id").to_pylist()))
    return rewrote(turned_apart(demo(), runs))


@forgery("the base's states and routing as the arm's", "demo", rules="R005 R006 R007 R011", code=Code.DIVERGED)
def base_rows_as_the_arms() -> Forged:
    return rewrote(copied(demo(), ("state", "routing"), ARM, "base"), keep=True, edit=wishes)


@forgery("a null arm's updates as the arm's, so that nothing drifts", "demo", rules="R008", code=Code.DIVERGED)
def null_updates_as_the_arms() -> Forged:
    return rewrote(
        copied(demo(), ("update", "update_vector"), ARM, "null:batch", transport_angle=0.1), keep=True, edit=wishes
    )


@forgery("the base's states as the arm's, one bit moved, routed by the arm's own router", "demo", verdict="rewritten",
         code=Code.NOT_PRESERVED, left_to=REPLAY)  # fmt: skip
def base_states_under_the_arms_router() -> Forged:
    at = states(demo())

    def of_base(key: tuple[Any, ...], _: np.ndarray) -> np.ndarray:
        z = at[key].astype(np.float32)
        z[0] = np.nextafter(z[0], np.float32(0.0))
        return z

    return rewrote(states_moved_to(demo(), ARM, of_base))


@forgery("the arm as frozen: the base's tensors and rows in the protected layer, its own losses, scores and weights' digest", "demo",
         verdict="preserved", left_to="tensor digests of the release, compared by hand; replay")  # fmt: skip
def arm_as_frozen() -> Forged:
    s = copied(demo(), ("layer", "state", "routing", "overlap"), ARM, "base")
    return rewrote(copied(s, ("update", "update_vector"), ARM, "null:batch", transport_angle=0.0))


@forgery("another arm's rows under this arm's name, weights' digest and policy", "demo", verdict="preserved",
         left_to="tensor digests of the release, compared by hand; replay")  # fmt: skip
def another_arms_rows() -> Forged:
    tables = ("layer", "state", "routing", "update", "update_vector", "output", "overlap")
    return rewrote(copied(demo(), tables, ARM, "arm:preserved"))


@forgery(
    "the same, with the digests of this arm's own experts and layers before", "demo", rules="R133", code=Code.DIVERGED
)
def another_arms_rows_under_own_digests() -> Forged:
    own = digests_of(demo(), ARM)[1]
    tables = ("layer", "state", "routing", "update", "update_vector", "output", "overlap")
    kept = {name: d for name, d in own.items() if name.startswith("experts.") or name in ("local", "upstream")}
    s = redigested(copied(demo(), tables, ARM, "arm:preserved"), ARM, lambda d: {**d, **kept})
    gain = digests_of(demo(), "arm:preserved")[1]["norm.gain"]
    return rewrote(redigested(s, ARM, lambda d: {**d, "norm.gain": gain}))


@forgery("a null arm and the arm in each other's place", "demo", rules="R001 R008 R011 R015 R017", code=Code.DIVERGED)
def null_and_arm_exchanged() -> Forged:
    s = demo()
    for table in ("layer", "state", "routing", "update", "update_vector", "output"):
        mine, theirs = rows_of(s, table, ARM), rows_of(s, table, "null:attention")
        s = exchanged_rows(s, table, list(zip(mine.tolist(), theirs.tolist(), strict=True)))
    return rewrote(s, keep=True, edit=wishes)


# --- margins and occupancy ----------------------------------------------------------------------------------------


@forgery("every margin three times as large", "demo", rules="R006", code=Code.DIVERGED)
def margins_inflated() -> Forged:
    return Forged(
        "demo", rewritten(demo(), "routing", "arm:preserved", lambda r: {"margin": 3 * r["margin"]}), "preserved"
    )


@forgery("margins three times as large away from sampled positions", "demo", verdict="preserved",
         left_to=f"{REPLAY}; decides no verdict")  # fmt: skip
def margins_inflated_elsewhere() -> Forged:
    return Forged(
        "demo", routing_elsewhere(demo(), "arm:preserved", lambda r: {"margin": 3 * r["margin"]}), "preserved"
    )


@forgery("an arm that collapsed onto four experts, margins risen; the receipt says that its margins may be cited", "demo", rules="R013",
         code=Code.DIVERGED)  # fmt: skip
def collapse_denied() -> Forged:
    return Forged("demo", collapsed(), "preserved", edit=_citable)


def collapsed() -> StudySimulator:
    """Put all unsampled tokens of the preserved arm onto four experts, with higher margins."""

    def few(row: Row) -> Row:
        pair = [0, 1] if row["position"] % 2 else [2, 3]
        return {
            "experts": pair,
            "competitor_out": pair[1],
            "competitor_in": 4,
            "margin": 2 * row["margin"] + 0.1,
            "flags": 0,
        }

    return routing_elsewhere(demo(), "arm:preserved", few)


def _citable(receipt: Json) -> None:
    honest_receipt = as_json(receipt_for("demo", "preserved"))
    arm = next(a for a in receipt["findings"]["arms"] if a["arm"] == "preserved")
    assert not arm["margin_use"]["citable"]
    before = next(a for a in honest_receipt["findings"]["arms"] if a["arm"] == "preserved")
    arm["margin_use"], arm["flags"] = before["margin_use"], before["flags"]


@forgery("the same collapse hidden: the base's routing away from sampled positions", "demo", verdict="preserved",
         left_to=f"{REPLAY}; decides no verdict")  # fmt: skip
def collapse_hidden() -> Forged:
    base = {token(r): r for r in demo().rows("routing") if r["run_id"] == "base"}
    return Forged(
        "demo",
        routing_elsewhere(demo(), "arm:preserved", lambda r: {**base[token(r)], "run_id": r["run_id"]}),
        "preserved",
    )


# --- losses and scores --------------------------------------------------------------------------------------------


@cache
def one_arm(name: str) -> StudySimulator:
    """The large shipped study, cut down to one arm and one layer: what a producer may leave out is another forgery."""
    return replanned(shipped("study").study, arms=[name], layers=[0])


def alone(name: str, study: StudySimulator, **more: Any) -> Forged:
    return Forged("study", study, name, **more)


@forgery(
    "an arm that misses its task; claim and score edited in the receipt", "study", rules="D001 R013", code=Code.DIVERGED
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


@forgery("the same, its scores those of another arm", "study", verdict="preserved", left_to=REPLAY)
def scores_of_another_arm() -> Forged:
    theirs = {r["item_id"]: r["score"] for r in shipped("study").study.rows("task") if r["run_id"] == "arm:preserved"}
    s = one_arm("unmatched")
    return alone("unmatched", rewritten(s, "task", "arm:unmatched", lambda r: {"score": theirs[r["item_id"]]}))


@forgery("scores of items that were not planned", "demo", rules="C010", code=Code.INADMISSIBLE)
def scores_of_another_set() -> Forged:
    s = demo()
    return Forged(
        "demo",
        s.with_rows("task", [{**r, "item_id": "x" + r["item_id"]} for r in s.rows("task")]),
        "preserved",
        keep=True,
    )


@forgery("only the items that were solved, planned after the fact", "study", verdict="preserved", left_to=PIN)
def items_chosen() -> Forged:
    s = one_arm("unmatched")
    solved = [r["item_id"] for r in s.rows("task") if r["run_id"] == "arm:unmatched" and r["score"] == 1]
    return alone("unmatched", replanned(s, items=solved))


@forgery("a damaged arm's losses those of the base, copied", "study", rules="R133", code=Code.DIVERGED)
def losses_of_the_base() -> Forged:
    s = one_arm("damaged")
    base = {(r["window_id"], r["position"]): r for r in s.rows("output") if r["run_id"] == "base"}
    nothing = {"run_id": "arm:damaged", "kl_from_base": 0.0}
    return alone(
        "damaged", rewritten(s, "output", "arm:damaged", lambda r: {**base[r["window_id"], r["position"]], **nothing})
    )


@forgery("the same with one bit of one loss changed", "study", verdict="preserved", left_to=REPLAY)
def losses_near_the_base() -> Forged:
    made = losses_of_the_base().study
    at = int(rows_of(made, "output", "arm:damaged")[0])
    row = made.tables["output"].slice(at, 1).to_pylist()[0]
    return alone(
        "damaged", made.with_value("output", at, "nll", float(np.nextafter(np.float32(row["nll"]), np.float32(100))))
    )


# --- plans --------------------------------------------------------------------------------------------------------


def worst_windows(s: StudySimulator, run: str, per_domain: int) -> set[str]:
    """Return the windows of each domain in which an arm leaves most of the base's sets, then those where its block changes most."""
    domain = {w["window_id"]: w["domain"] for w in s.rows("window")}
    drift: dict[str, tuple[int, float]] = {}
    for row in s.rows("update"):
        if row["run_id"] == run:
            left, change = drift.get(row["window_id"], (0, 0.0))
            drift[row["window_id"]] = (left + (row["in0"] != row["in1"]), change + row["dy_norm"] / row["y0_norm"])
    worst = sorted(drift, key=lambda w: drift[w], reverse=True)
    return {w for d in set(domain.values()) for w in [w for w in worst if domain[w] == d][:per_domain]}


def chosen(by: str) -> StudySimulator:
    """Leave out the worst windows of an arm whose honest verdict is 'undetermined', rows and plan alike."""
    s = shipped("deepseek").study
    bad = worst_windows(s, f"arm:{by}", 2)
    return replanned(s, windows=[w["window_id"] for w in s.rows("window") if w["window_id"] not in bad])


@forgery("windows in which an arm drifts left out of base and arm alike, under the published plan", "deepseek", rules="C010 C011",
         code=Code.INADMISSIBLE)  # fmt: skip
def windows_left_out() -> Forged:
    return Forged(
        "deepseek",
        replace(chosen("preserved"), preregistration=shipped("deepseek").study.preregistration),
        "preserved",
        keep=True,
    )


@forgery("the same under a plan that was written after the fact", "deepseek", verdict="preserved", left_to=PIN)
def windows_chosen() -> Forged:
    return Forged("deepseek", chosen("preserved"), "preserved")


@forgery("the same, and the reviewer pinned the plan", "deepseek", rules="B005", code=Code.TAMPERED)
def windows_chosen_and_pinned() -> Forged:
    pin = digest_of(shipped("deepseek").study.preregistration)
    return Forged("deepseek", chosen("preserved"), "preserved", options=Options(pin=pin))


@forgery(
    "an arm with an unwelcome result left out of the receipt's subjects", "demo", rules="C009", code=Code.INADMISSIBLE
)
def arm_left_out() -> Forged:
    def without(receipt: Json) -> None:
        receipt["subjects"] = [x for x in receipt["subjects"] if x["run_id"] != ARM]

    return Forged("demo", demo(), "preserved", keep=True, edit=without)


@forgery("the same arm left out of plan, log, rows and receipt", "demo", verdict="preserved", left_to=PIN)
def arm_never_planned() -> Forged:
    return Forged("demo", replanned(demo(), arms=["preserved"]), "preserved")


@forgery("the same, and the reviewer pinned the plan", "demo", rules="B005", code=Code.TAMPERED)
def arm_never_planned_and_pinned() -> Forged:
    return replace(arm_never_planned(), options=Options(pin=digest_of(demo().preregistration)))


@forgery("the target lowered after the result, the receipt still citing the published plan", "study", rules="C002 C006 C007",
         code=Code.INADMISSIBLE)  # fmt: skip
def target_lowered() -> Forged:
    s = one_arm("unmatched")
    lowered = replanned(s, changes={"task": {"target": 0.4}})

    def published(receipt: Json) -> None:
        receipt["preregistration"] = {"digest": digest_of(s.preregistration)}

    return alone("unmatched", lowered, edit=published, changes={"run_log": encoded(as_json(s.run_log))})


@forgery(
    "the target lowered after the result, everything issued anew with earlier times",
    "study",
    verdict="preserved",
    left_to=PIN,
)
def plan_after_the_fact() -> Forged:
    return alone(
        "unmatched",
        replanned(one_arm("unmatched"), changes={"task": {"target": 0.4}, "created": "2026-01-01T00:00:00Z"}),
    )


@forgery("two documents of each domain under the name of the other", "demo", rules="C011", code=Code.INADMISSIBLE)
def domains_relabelled() -> Forged:
    s = demo()
    rows = s.rows("window")
    names = sorted({r["domain"] for r in rows})[:2]
    other = dict(zip(names, names[::-1], strict=True))
    return Forged(
        "demo",
        s.with_rows("window", [{**r, "domain": other.get(r["domain"], r["domain"])} for r in rows]),
        "preserved",
        keep=True,
    )


@forgery("thresholds raised in a contract of the published id", "demo", rules="C001", code=Code.INADMISSIBLE)
def thresholds_raised() -> Forged:
    made = generous("chart-preserving.v1")
    return rewrote(under(demo(), made), changes={"contract": encoded(as_json(made))})


@forgery("thresholds raised in a contract of another id, which the reviewer names as the one to judge by", "demo", verdict="preserved",
         left_to="reading the contract, whose digest the report prints", by="author of a contract")  # fmt: skip
def generous_contract() -> Forged:
    made = generous("chart-preserving.v1-generous")
    return rewrote(under(demo(), made), changes={"contract": encoded(as_json(made))})


def generous(name: str) -> Contract:
    """Return the built-in contract with every threshold at 0.9."""
    document = json.loads(built_in_contracts()["chart-preserving.v1"].model_dump_json())
    for channel in document["channels"]:
        for threshold in channel["thresholds"]:
            threshold["value"] = 0.9
    return Contract.model_validate_json(json.dumps({**document, "id": name}))


# --- intervals ----------------------------------------------------------------------------------------------------


@forgery("intervals of no width in the receipt", "demo", rules="R013", code=Code.DIVERGED)
def intervals_closed() -> Forged:
    def closed(receipt: Json) -> None:
        for arm in receipt["findings"]["arms"]:
            for cell in arm["cells"]:
                cell["upper"] = cell["value"]
                cell["simultaneous"] = (
                    {"lower": cell["value"], "upper": cell["value"]} if cell["simultaneous"] else None
                )

    return Forged("demo", demo(), "preserved", keep=True, edit=closed)


# --- inventions ---------------------------------------------------------------------------------------------------


@forgery("a whole study from a toy that never was a language model: the test suite's simulator, under the built-in contract", "demo",
         verdict="preserved", left_to=REPLAY)  # fmt: skip
def invented() -> Forged:
    s = StudySimulator.make(Settings(items=200))
    return Forged("demo", under(s, built_in_contracts()["chart-preserving.v1"]), "preserved")


@forgery(
    "a JSON report that says VERIFIED, in a receipt's place", "demo", rules="S001", code=Code.INADMISSIBLE, by="courier"
)
def json_report_in_a_receipts_place() -> Forged:
    report = verify(load(shipped("demo").folder / "receipt-preserved.json"), Options())
    return Forged("demo", demo(), "preserved", raw=report_bytes(report))


@forgery(
    "a text report that says VERIFIED, in a receipt's place", "demo", rules="A001", code=Code.INADMISSIBLE, by="courier"
)
def text_report_in_a_receipts_place() -> Forged:
    report = verify(load(shipped("demo").folder / "receipt-preserved.json"), Options())
    return Forged("demo", demo(), "preserved", raw=render_text(report).encode())
