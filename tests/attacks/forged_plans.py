"""Forgeries of plans, receipts and intervals: what is chosen, left out, edited, ground, or handed over in a receipt's place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import Any

from attacks.forged_rows import ARM, REPLAY, alone, another_digest, demo, kept, one_arm, rewrote
from attacks.forgeries import Forged, forgery, receipt_for
from attacks.replanned import replanned, under
from attacks.rewrites import rewritten
from attacks.world import report_bytes, shipped
from simulator import StudySimulator
from verify.forging import Json, as_json, encoded

from atlas_schema.documents.contract import Contract
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_root, table_roots
from atlas_schema.measures.collect import collect
from atlas_schema.measures.summarise import conclude
from atlas_schema.reports.text import render as render_text
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.loading import load
from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.verifier import Options, verify

PIN = "a pin, if the digest was known before results existed"


# --- what is planned after the fact -------------------------------------------------------------------------------


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


def chosen() -> StudySimulator:
    """Leave out the two worst windows of each domain, of an arm whose honest verdict is 'undetermined': rows and plan alike."""
    s = shipped("deepseek").study
    bad = worst_windows(s, "arm:preserved", 2)
    return replanned(s, windows=[w["window_id"] for w in s.rows("window") if w["window_id"] not in bad])


def second(study: StudySimulator, **more: Any) -> Forged:
    """Hand over a receipt about the preserved arm of the second fixture."""
    return Forged("deepseek", study, "preserved", **more)


@forgery("windows in which an arm drifts left out of base and arm alike, under the published plan", "deepseek", rules="C011",
         code=Code.INADMISSIBLE)  # fmt: skip
def windows_left_out() -> Forged:
    return second(replace(chosen(), preregistration=shipped("deepseek").study.preregistration), keep=True)


@forgery("the worst windows left out of base and arm alike, planned after the fact: as many as may be", "deepseek",
         verdict="undetermined", code=Code.UNPROVEN, left_to=PIN)  # fmt: skip
def windows_chosen() -> Forged:
    return second(chosen())


@forgery("the worst windows left out; changes of the block, hidden by a shared expert, a tenth less", "deepseek", verdict="preserved",
         left_to=f"{PIN}; {REPLAY}")  # fmt: skip
def windows_chosen_and_guard_lowered() -> Forged:
    return second(rewritten(chosen(), "update", "arm:preserved", lambda r: {"dy_norm": 0.9 * r["dy_norm"]}))


@forgery(
    "windows left out after the fact, and the reviewer pinned the published plan",
    "deepseek",
    rules="B005",
    code=Code.TAMPERED,
)
def windows_chosen_and_pinned() -> Forged:
    return second(
        windows_chosen_and_guard_lowered().study,
        options=Options(pin=digest_of(shipped("deepseek").study.preregistration)),
    )


@forgery(
    "an arm with an unwelcome result left out of the receipt's subjects", "demo", rules="C009", code=Code.INADMISSIBLE
)
def arm_left_out() -> Forged:
    def without(receipt: Json) -> None:
        receipt["subjects"] = [x for x in receipt["subjects"] if x["run_id"] != ARM]

    return kept(demo(), keep=True, edit=without)


@forgery(
    "an arm with an unwelcome result left out of plan, log, rows and receipt", "demo", verdict="preserved", left_to=PIN
)
def arm_never_planned() -> Forged:
    return kept(replanned(demo(), arms=["preserved"]))


@forgery(
    "an arm left out of plan, log, rows and receipt, and the reviewer pinned the published plan",
    "demo",
    rules="B005",
    code=Code.TAMPERED,
)
def arm_never_planned_and_pinned() -> Forged:
    return kept(replanned(demo(), arms=["preserved"]), options=Options(pin=digest_of(demo().preregistration)))


@forgery(
    "layers in which an arm drifts no longer protected",
    "study",
    verdict="unmatched",
    code=Code.NOT_PRESERVED,
    left_to=PIN,
)
def layers_left_out() -> Forged:
    return alone("unmatched", one_arm("unmatched"))


@forgery("only the items that were solved, planned after the fact", "study", verdict="preserved", left_to=PIN)
def items_chosen() -> Forged:
    s = one_arm("unmatched")
    solved = [r["item_id"] for r in s.rows("task") if r["run_id"] == "arm:unmatched" and r["score"] == 1]
    return alone("unmatched", replanned(s, items=solved))


@forgery("the target lowered after the result, the receipt still citing the published plan and its log", "study", rules="C002 C005",
         code=Code.INADMISSIBLE)  # fmt: skip
def target_lowered() -> Forged:
    s = one_arm("unmatched")

    def published(receipt: Json) -> None:
        receipt["preregistration"] = {"digest": digest_of(s.preregistration)}

    lowered = replanned(s, changes={"task": {"target": 0.4}})
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


@forgery(
    "the target lowered after the result, and the reviewer pinned the published plan",
    "study",
    rules="B005",
    code=Code.TAMPERED,
)
def plan_after_the_fact_and_pinned() -> Forged:
    return replace(plan_after_the_fact(), options=Options(pin=digest_of(one_arm("unmatched").preregistration)))


@forgery("the documents of one domain under the name of another", "demo", rules="C011", code=Code.INADMISSIBLE)
def domains_relabelled() -> Forged:
    rows = demo().rows("window")
    names = sorted({r["domain"] for r in rows})[:2]
    other = dict(zip(names, names[::-1], strict=True))
    return kept(
        demo().with_rows("window", [{**r, "domain": other.get(r["domain"], r["domain"])} for r in rows]), keep=True
    )


@forgery("another model's weights' digest over the arm's rows, with a log written anew", "demo", verdict="preserved",
         left_to="digests of the released tensors, compared by hand; replay")  # fmt: skip
def weights_of_another_model_logged() -> Forged:
    return kept(another_digest())


# --- thresholds and intervals -------------------------------------------------------------------------------------


def generous(name: str) -> Contract:
    """Return the built-in contract with every threshold at 0.9."""
    document = json.loads(built_in_contracts()["chart-preserving.v1"].model_dump_json())
    for channel in document["channels"]:
        for threshold in channel["thresholds"]:
            threshold["value"] = 0.9
    return Contract.model_validate_json(json.dumps({**document, "id": name}))


@forgery("thresholds raised in a contract of the published id", "demo", rules="C001", code=Code.INADMISSIBLE)
def thresholds_raised() -> Forged:
    made = generous("chart-preserving.v1")
    return rewrote(under(demo(), made), changes={"contract": encoded(as_json(made))})


@forgery("thresholds raised in a contract of another id, which the reviewer takes from the author", "demo", verdict="preserved",
         left_to="reading the contract, whose id and digest the report prints", by="author of a contract")  # fmt: skip
def generous_contract() -> Forged:
    made = generous("chart-preserving.v2")
    return rewrote(under(demo(), made), changes={"contract": encoded(as_json(made))})


@forgery("intervals of no width in the receipt", "demo", rules="R013", code=Code.DIVERGED)
def intervals_closed() -> Forged:
    def closed(receipt: Json) -> None:
        for cell in (c for arm in receipt["findings"]["arms"] for c in arm["cells"]):
            cell["upper"] = cell["value"]
            cell["simultaneous"] = {"lower": cell["value"], "upper": cell["value"]} if cell["simultaneous"] else None

    return kept(demo(), keep=True, edit=closed)


@cache
def ground() -> tuple[StudySimulator, Contract, bytes]:
    """Grind the evidence root: change a bit that decides nothing until both seeds give the wanted state.

    The contract has one threshold at the very bound that the honest root gives, so that resampling decides. Returns also a
    seed that a reviewer may have, under which the decision does not hold.
    """
    s = demo()
    arm = next(a for a in receipt_for("demo", "preserved").findings.arms if a.arm == "preserved")
    cell = next(c for c in arm.cells if c.definition == "drift.chart_content/1" and c.form == "ratio_of_sums")
    edge = float(cell.upper or 0.0) + s.contract.bootstrap.monte_carlo_errors * float(cell.monte_carlo_error or 0.0)
    document = json.loads(s.contract.model_dump_json()) | {"id": "at-the-edge"}
    next(c for c in document["channels"] if c["definition"] == cell.definition)["thresholds"][0]["value"] = edge
    contract = Contract.model_validate_json(json.dumps(document))
    plan = under(s, contract).preregistration
    sums = collect(s.source(), contract, plan)
    other = [r for r in table_roots(s.source()) if r.name != "overlap"]

    def verdict(study: StudySimulator, seed: bytes | None = None) -> str:
        root = evidence_root([*other, table_root(study.source(), "overlap")])
        return next(a.verdict for a in conclude(sums, contract, plan, root, seed).arms if a.arm == "preserved")

    for tries in range(60):
        turned = s.with_value("overlap", 0, "residual", s.rows("overlap")[0]["residual"] * (1 + tries * 1e-12))
        if verdict(turned) == "preserved":
            seeds = (hashlib.sha256(str(i).encode()).digest() for i in range(60))
            return (
                under(turned, contract),
                contract,
                next(seed for seed in seeds if verdict(turned, seed) != "preserved"),
            )
    raise ValueError("sixty roots, and none gave the wanted verdict")


def edged(**more: Any) -> Forged:
    study, contract, _ = ground()
    return kept(study, changes={"contract": encoded(as_json(contract))}, **more)


@forgery("a bit that decides nothing changed until the seed that follows from the rows decides a cell whose bound is its threshold", "demo",
         verdict="preserved", left_to="a seed of the reviewer's own")  # fmt: skip
def seed_ground() -> Forged:
    return edged()


@forgery(
    "the seed ground until it decides, and the reviewer brings another",
    "demo",
    rules="D002",
    code=Code.UNPROVEN,
)
def seed_ground_and_replaced() -> Forged:
    return edged(options=Options(seed=ground()[2]))


# --- in a receipt's place -----------------------------------------------------------------------------------------


@cache
def green() -> Report:
    """Return the report of an honest receipt."""
    return verify(load(shipped("demo").folder / "receipt-preserved.json"), Options())


@forgery(
    "a JSON report that says VERIFIED, in a receipt's place", "demo", rules="S001", code=Code.INADMISSIBLE, by="courier"
)
def json_report_in_a_receipts_place() -> Forged:
    return kept(demo(), raw=report_bytes(green()))


@forgery(
    "a text report that says VERIFIED, in a receipt's place", "demo", rules="A001", code=Code.INADMISSIBLE, by="courier"
)
def text_report_in_a_receipts_place() -> Forged:
    return kept(demo(), raw=render_text(green()).encode())
