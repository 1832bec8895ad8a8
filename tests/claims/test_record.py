"""A measurement by itself: what is found wrong with it, and what its claims come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from claims.worlds import Json, typed
from documents.records import measurement

from atlas_schema.claims.record import ClaimResult, judge_claims, licence_faults, record_faults
from atlas_schema.documents.measurement import Measurement
from atlas_schema.vocabulary import load_vocabulary

FIXTURES = Path(__file__).parents[2] / "fixtures" / "measurements"

PERPLEXITY = {
    "five-fold": "supported", "lowest": "supported", "highest": "supported", "academic-highest": "supported",
    "technical-laminar": "supported", "territory-order": "supported", "dense-coverage": "undetermined",
    "sparse-coverage": "undetermined", "paywalled": "undetermined", "fingerprint": "undetermined",
}  # fmt: skip
COUPLING = {
    "monotonic": "contradicted", "peak-9-10": "supported", "highest-10": "supported", "low-0": "supported", "dip-4": "supported",
    "below-trend-4": "supported", "jump-5": "supported", "drop-11": "supported", "anomalous-4": "undetermined",
    "early-independence": "undetermined", "mid-network": "undetermined", "ablation-resistance": "undetermined",
    "projection": "undetermined", "hessian-proxy": "undetermined",
}  # fmt: skip
OUTCOMES = {"gpt2-small-domain-perplexity": PERPLEXITY, "gpt2-small-head-coupling": COUPLING}


def recorded(name: str) -> Json:
    loaded: Json = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def outcomes(record: Measurement) -> dict[str, str]:
    return {r.claim.id: r.word for r in judge_claims(record) if isinstance(r, ClaimResult)}


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("reading", ["rounded", "truncated", "exact"])
def test_the_gpt2_claims_come_out_as_they_do_however_the_numbers_were_formed(name: str, reading: str) -> None:
    record = recorded(name)
    assert record["series"][0]["reading"] == "rounded"
    record["series"][0]["reading"] = reading
    expected = OUTCOMES[name] | ({"lowest": "supported", "highest": "supported"} if "lowest" in OUTCOMES[name] else {})
    if reading == "truncated":  # the numbers that the text repeats were then cut off too
        for claim in record["claims"]:
            if claim["id"] in ("lowest", "highest"):
                claim["statement"]["reading"] = "truncated"
    assert outcomes(typed(record)) == expected


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_gpt2_records_are_consistent(name: str) -> None:
    record = typed(recorded(name))
    assert list(record_faults(record, load_vocabulary())) == []
    assert list(licence_faults(record)) == []
    assert record.replication.runs == 1
    assert record.licence == "directional_only"


def test_the_coupling_falls_where_it_falls() -> None:
    (monotonic, *_) = judge_claims(typed(recorded("gpt2-small-head-coupling")))
    assert isinstance(monotonic, ClaimResult)
    assert [part.split(" ")[0] for part in monotonic.because.removeprefix("falls at ").split("; ")] == ["4", "6", "11"]


def statistical(m: Json) -> None:
    m["licence"] = "statistical"
    m["series"].pop(0)
    m["claims"] = [
        {"id": "more", "says": "Poetry surprises more.", "reading": "poetry above code", "strength": "statistical",
         "statement": {"operator": "greater_than", "left": "perplexity[poetry]", "right": "perplexity[code]"}}
    ]  # fmt: skip


def words(*changes: Any) -> dict[str, str]:
    return outcomes(typed(measurement(lambda m: [change(m) for change in changes])))


def test_a_statistical_claim_is_judged_by_uncertainty() -> None:
    assert words(statistical) == {"more": "supported"}

    def overlapping(m: Json) -> None:
        m["series"][0]["values"][0]["uncertainty"]["upper"] = "55.0"

    assert words(statistical, overlapping) == {"more": "undetermined"}
    assert words(statistical, overlapping, lambda m: m["claims"][0].update(strength="directional")) == {
        "more": "supported"
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(licence="directional_only"),
        lambda m: m["series"][0]["values"][0].update(n=1),
        lambda m: m["series"][0]["values"][0].update(uncertainty=None),
        lambda m: (m["series"][0]["values"][0].update(n=None), m["series"][0]["sample"].update(size=None)),
        lambda m: m["claims"][0].update(strength="replicated"),
        lambda m: (
            m["claims"][0].update(strength="replicated"),
            m["replication"].update(status="failed_replication", runs=3),
        ),
        lambda m: (m["claims"][0].update(strength="replicated"), m["replication"].update(status="replicated")),
    ],
)
def test_a_claim_stronger_than_its_data_is_unlicensed(change: Any) -> None:
    assert words(statistical, change) == {"more": "unlicensed"}


def test_a_replicated_record_licenses_a_replicated_claim() -> None:
    def replicated(m: Json) -> None:
        m["claims"][0]["strength"] = "replicated"
        m["replication"] = {"status": "replicated", "runs": 2}

    assert words(statistical, replicated) == {"more": "supported"}


def test_contradiction_counts_before_licence() -> None:
    def false(m: Json) -> None:
        m["claims"][0]["statement"]["operator"] = "less_than"
        m["claims"][0]["strength"] = "replicated"

    assert words(statistical, false) == {"more": "contradicted"}


def test_work_is_bounded_over_all_claims_of_a_record() -> None:
    """The bound is on the document, not on one claim: a thousand claims share it."""

    def many(m: Json) -> None:
        value = m["series"][0]["values"][0]
        m["series"][0]["values"] = [{**value, "at": str(i)} for i in range(5000)]
        claim = {
            **m["claims"][0],
            "statement": {"operator": "less_than", "left": "sum(coupling+coupling+coupling)", "right": "0"},
        }
        m["claims"] = [{**claim, "id": f"c{i}"} for i in range(100)]

    found = list(words(many).values())
    assert found[0] == "contradicted"
    assert found[-1] == "undetermined"
