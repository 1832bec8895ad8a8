"""Channel reproduction: do the rows obey the physics, and give these numbers?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Findings, Receipt
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.study.describe import extraction_of, subjects_of
from atlas_schema.verify.outcome import ChannelResult, Problem
from atlas_schema.verify.physics.layers import text_object
from atlas_schema.verify.reading import pointer

SHOWN = 20
"""How many findings that differ a report lists; the number of all is in its last line."""


def check_runs(
    receipt: Receipt, evidence: EvidenceSource, plan: Preregistration, contract: Contract, result: ChannelResult
) -> None:
    """Check table `run` against receipt, plan and contract (R001, R002, R014)."""
    runs = evidence.read("run", ())
    prints = fingerprints(runs)
    result.check(3)
    for what, where, stated, expected in (*_identity_faults(runs, plan), *_fingerprint_faults(prints, contract)):
        rule = "ATL-R002" if "fingerprint" in what else "ATL-R001"
        result.report(Problem(rule, what, where=f"table run, run_id={where}", stated=stated, recomputed=expected))
    try:
        subjects, extraction = (
            subjects_of(evidence),
            extraction_of(evidence, {t.name: t.rows for t in receipt.evidence.tables}),
        )
    except ValidationError as error:
        first = error.errors()[0]
        result.report(Problem("ATL-R014", "Table run holds what no receipt can repeat.", where="table run",
                              stated=f"{pointer(tuple(first['loc']))} {first['msg']}"))  # fmt: skip
        return
    pairs = ((("subjects",), [s.model_dump(mode="json") for s in receipt.subjects],
              [s.model_dump(mode="json") for s in subjects]),
             (("extraction",), receipt.extraction.model_dump(mode="json"), extraction.model_dump(mode="json")))  # fmt: skip
    for path, stated_value, found in pairs:
        for at, a, b in differences(stated_value, found, 0.0, 15):
            result.report(Problem("ATL-R014", "The receipt does not repeat table run.", document="receipt", path=path + at,
                                  stated=a, recomputed=b))  # fmt: skip


def fingerprints(runs: Rows) -> dict[str, dict[str, Any]]:
    """Return every run's numerics fingerprint. Raises `RowsError` where one is not a strict JSON object."""
    return {run_id: text_object(runs, "fingerprint", at) for at, run_id in enumerate(runs["run_id"])}


def _identity_faults(runs: Rows, plan: Preregistration) -> Iterator[tuple[str, str, str, str]]:
    policies = {a.name: a.policy for a in plan.arms}
    pinned = {"weights_digest": plan.base.weights_digest, "config_digest": plan.base.config_digest,
              "tokenizer_digest": plan.base.tokenizer_digest}  # fmt: skip
    for i, run_id in enumerate(runs["run_id"]):
        role, _, name = run_id.partition(":")
        expected: dict[str, str] = {
            "role": role,
            "adapter": plan.base.architecture,
            "tokenizer_digest": pinned["tokenizer_digest"],
        }
        expected |= (
            {**pinned, "arm": "", "policy": ""} if role != "arm" else {"arm": name, "policy": policies.get(name, "")}
        )
        for column, value in expected.items():
            if runs[column][i] != value:
                yield f"{column} is not the planned one.", run_id, str(runs[column][i]), value
        distance = float(runs["param_distance"][i])
        if distance < 0 or (role != "arm" and distance != 0) or (
            distance != 0 and runs["weights_digest"][i] == pinned["weights_digest"]
        ):  # fmt: skip
            yield (
                "param_distance contradicts the weights' digest.",
                run_id,
                str(distance),
                "0 for equal weights",
            )


def _fingerprint_faults(
    prints: Mapping[str, Mapping[str, Any]], contract: Contract
) -> Iterator[tuple[str, str, str, str]]:
    changes = {f"null:{n.id}": n.changes for n in contract.nuisances}
    base = prints.get("base", {})
    for run_id, found in prints.items():
        differing = sorted(k for k in set(base) | set(found) if base.get(k) != found.get(k))
        expected = [changes[run_id]] if run_id in changes else []
        if differing != expected:
            yield (
                "The numerics fingerprint differs from the base's in other keys than allowed.",
                run_id,
                str(differing),
                str(expected),
            )


def check_findings(receipt: Receipt, recomputed: Findings, contract: Contract, result: ChannelResult) -> None:
    """Compare every stated finding with the recomputed one (R013)."""
    stated, found = receipt.findings.model_dump(mode="json"), recomputed.model_dump(mode="json")
    digits, relative = contract.numbers.significant_digits, contract.numbers.relative_tolerance
    result.check(leaves(found))
    wrong = list(differences(stated, found, relative, digits))
    for at, a, b in wrong[:SHOWN]:
        result.report(Problem("ATL-R013", "A finding is not what the rows give.", document="receipt", path=("findings", *at),
                              stated=a, recomputed=b, tolerance=f"half a unit of {digits} digits, from the contract",
                              todo="the number was changed after it was computed, or computed from other rows"))  # fmt: skip
    if len(wrong) > SHOWN:
        result.report(
            Problem("ATL-R013", f"{len(wrong)} findings differ in all.", document="receipt", path=("findings",))
        )


def differences(
    stated: Any, found: Any, relative: float, digits: int
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Yield (path, stated, recomputed) for every leaf that differs; numbers may differ by half a unit of the last digit."""
    if isinstance(stated, dict) and isinstance(found, dict) and set(stated) == set(found):
        for key in found:
            for path, a, b in differences(stated[key], found[key], relative, digits):
                yield (key, *path), a, b
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for index, pair in enumerate(zip(stated, found, strict=True)):
            for path, a, b in differences(*pair, relative, digits):
                yield (index, *path), a, b
    elif not _same(stated, found, relative, digits):
        yield (), _show(stated), _show(found)


def _same(stated: Any, found: Any, relative: float, digits: int) -> bool:
    numbers = isinstance(stated, (int, float)) and isinstance(found, (int, float))
    if not numbers or isinstance(stated, bool) or isinstance(found, bool):
        return type(stated) is type(found) and bool(stated == found)
    if isinstance(found, int):
        return bool(stated == found)
    if stated == 0 or found == 0:
        return bool(stated == found)
    # The stated number was rounded once: half a unit of its last place, and what the order of additions may change.
    last_place = 10.0 ** (Decimal(repr(stated)).adjusted() - digits + 1)
    return bool(abs(stated - found) <= 0.5 * last_place + relative * max(abs(stated), abs(found)))


def _show(value: Any) -> str:
    text = json.dumps(float(f"{value:.9g}") if isinstance(value, float) else value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def leaves(value: Any) -> int:
    """Count the leaves of a JSON value."""
    if isinstance(value, dict):
        return sum(leaves(v) for v in value.values())
    if isinstance(value, list):
        return sum(leaves(v) for v in value)
    return 1
