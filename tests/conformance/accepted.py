"""What must be believed, or judged as it is: honest receipts of every verdict, other encodings of the same rows, other writings
of the same documents, and documents that are no receipts."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conformance.own import case
from documents.records import measurement, prediction
from evidence.writers import WRITERS
from simulator import DAMAGED, UNMATCHED, StudySimulator
from verify.document_defects import a_read, judged, judging, logged, read_verified
from verify.forging import FROZEN, as_json, encoded, honest, reissued, study, tiny, verified
from verify.record_defects import SUPPORTED, foreseen, settled, told, with_rows
from verify.router_defects import grouped_receipt, grouped_world

from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.verifier import Options

OFFLINE = Options(profile="offline")


def issued(s: StudySimulator, arm: str = "frozen", options: Options | None = None) -> Report:
    """Issue an honest receipt over a study as it is, and verify that."""
    s = s.relogged()
    return verified(s, s.receipt(arm), options)


# --- verdicts ------------------------------------------------------------------------------------------------------


@case("An arm with the base's own weights: preserved.")
def preserved_by_identity() -> Report:
    return verified(study(), honest())


@case("An arm that moved a little: preserved, by the bootstrap and by exact bounds.")
def preserved_by_bounds() -> Report:
    return verified(study(), honest("close"))


@case("A receipt that honestly says that its arm was rewritten.", Code.NOT_PRESERVED)
def rewritten_and_says_so() -> Report:
    return verified(study(), honest("rewritten"))


@case("The same receipt for a reviewer who requires just that verdict.")
def rewritten_as_required() -> Report:
    return verified(study(), honest("rewritten"), Options(require="rewritten"))


@case("A preserved arm for a reviewer who requires a rewritten one.", Code.NOT_PRESERVED)
def preserved_but_rewritten_required() -> Report:
    return verified(study(), honest(), Options(require="rewritten"))


@cache
def other_arms() -> StudySimulator:
    """A study with an arm that damaged the model's language and one that failed its task."""
    return StudySimulator.make(tiny(arms=(FROZEN, DAMAGED, UNMATCHED)))


@case("A receipt that honestly says that its arm was damaged.", Code.NOT_PRESERVED)
def damaged_and_says_so() -> Report:
    return issued(other_arms(), "damaged")


@case("A receipt that honestly says that its arm failed its task.", Code.NOT_PRESERVED)
def unmatched_and_says_so() -> Report:
    return issued(other_arms(), "unmatched")


@case("The same receipt for a reviewer who requires just that verdict.")
def unmatched_as_required() -> Report:
    return issued(other_arms(), "unmatched", Options(require="unmatched"))


@case("A router with selection bias, group limits and a shared expert: preserved.")
def grouped_router() -> Report:
    return verified(grouped_world(), grouped_receipt())


@case("A study under the built-in contract: too small to decide anything.", Code.UNPROVEN)
def built_in_contract() -> Report:
    contract = built_in_contracts()["chart-preserving.v1"]
    s = study()
    cited = {"contract": {"id": contract.id, "digest": digest_of(contract)}, "damage_tolerance_nats": contract.damage.max_tolerance_nats,
             "task": {"tolerance": contract.success.max_tolerance}}  # fmt: skip
    return issued(replace(s, contract=contract).with_preregistration(cited))


@case("Everything re-issued over the honest rows.")
def reissued_honestly() -> Report:
    return verified(*reissued(study()))


# --- options -------------------------------------------------------------------------------------------------------


@case("Profile offline: documents and roots agree, and no verdict is given.")
def profile_offline() -> Report:
    return verified(study(), honest(), OFFLINE)


@case("Profile schema: the shape alone, and no verdict is given.")
def profile_schema() -> Report:
    return verified(study(), honest(), Options(profile="schema"))


@case("Profile schema of a false receipt: its shape is right, and nobody may read more into exit code 0.")
def profile_schema_of_a_forgery() -> Report:
    receipt = as_json(honest("rewritten"))
    receipt["claim"]["verdict"] = "preserved"
    return verified(study(), receipt, Options(profile="schema"))


@case("Profile release without a key: nobody vouches.", Code.UNPROVEN)
def profile_release_unsigned() -> Report:
    return verified(study(), honest(), Options(profile="release"))


@case("Profile replay, which no verifier of this version can pass.", Code.UNPROVEN)
def profile_replay() -> Report:
    return verified(study(), honest(), Options(profile="replay"))


@case("The reviewer's pin is the digest of the pre-registration.")
def right_pin() -> Report:
    return verified(study(), honest(), Options(pin=digest_of(study().preregistration)))


@case("Profile offline with a pin of another plan.", Code.TAMPERED, "B005")
def wrong_pin_offline() -> Report:
    return verified(study(), honest(), Options(profile="offline", pin="sha256:" + "ab" * 32))


# --- other encodings of the same rows ------------------------------------------------------------------------------


@case("The same rows, compressed by gzip, by a writer without unsigned integers and without a schema of its own.")
def encoded_gzip(folder: Path) -> Report:
    for path in sorted((folder / "evidence").iterdir()):
        WRITERS["no unsigned integers"](pq.read_table(path), path)
    return verified(study(), honest())


@case("The same rows, compressed by Snappy with dictionaries, texts and lists with offsets of 64 bits.")
def encoded_snappy(folder: Path) -> Report:
    for path in sorted((folder / "evidence").iterdir()):
        WRITERS["large lists"](pq.read_table(path), path)
    return verified(study(), honest())


@case("The same rows, in row groups of a handful each.")
def encoded_in_small_groups(folder: Path) -> Report:
    for name, rows in (("state", 40), ("output", 119), ("task", 50), ("window", 7)):
        path = folder / "evidence" / f"{name}.parquet"
        pq.write_table(pq.read_table(path), path, row_group_size=rows, compression="zstd", write_statistics=False)
    return verified(study(), honest())


@case("The same rows in another order: a table is a set of rows, its root does not depend on their order.")
def rows_in_another_order(folder: Path) -> Report:
    for name in ("state", "output", "task"):
        path = folder / "evidence" / f"{name}.parquet"
        table = pq.read_table(path)
        order = np.random.default_rng(1).permutation(table.num_rows)
        pq.write_table(table.take(pa.array(order)), path, compression="zstd", write_statistics=False)
    return verified(study(), honest())


@case("The same rows as a DuckDB file.", needs="duckdb")
def evidence_in_a_database(folder: Path) -> Report:
    study().store(folder / "evidence.duckdb").close()
    return verified(study(), honest())


# --- other writings of the same documents --------------------------------------------------------------------------


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _reversed(value[name]) for name in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@case("Every object of every document has its members in reverse order.")
def members_reordered() -> Report:
    s = study()
    plan, log, contract = (encoded(_reversed(as_json(d))) for d in (s.preregistration, s.run_log, s.contract))
    return verified(s, _reversed(as_json(honest())), preregistration=plan, run_log=log, contract=contract)


@case("Strings of the receipt are written with escapes.")
def escaped_strings() -> Report:
    raw = encoded(as_json(honest())).replace(b'"preserved"', b'"\\u0070reserved"')
    return verified(study(), raw)


@case("Free text of the receipt was changed: notes say nothing that is verified.")
def free_text_changed() -> Report:
    return verified(study(), {**as_json(honest()), "notes": "typed up again"})


@case("The receipt is written with tabs, and line ends of another system.")
def white_space() -> Report:
    return verified(study(), json.dumps(as_json(honest()), indent="\t", separators=(" ,", "\t:\r\n")).encode())


# --- the protocol --------------------------------------------------------------------------------------------------


@case("A judgement that a technician made and the log holds.")
def judgement_by_a_person() -> Report:
    receipt, made = judged()
    return logged(judging(made), receipt=receipt)


@case("A Read that the log holds.")
def read_as_logged() -> Report:
    return read_verified(a_read(), a_read())


@case("The contract by itself.")
def contract_alone() -> Report:
    return verified(study(), as_json(study().contract), OFFLINE)


@case("The run log by itself.")
def run_log_alone() -> Report:
    return verified(study(), as_json(study().run_log), OFFLINE)


@case("The pre-registration by itself, with its contract.")
def preregistration_alone() -> Report:
    return verified(study(), as_json(study().preregistration), OFFLINE)


@case("The pre-registration by itself, under a contract that is neither built in nor given.", Code.UNPROVEN, "C001")
def preregistration_without_contract() -> Report:
    return verified(study(), as_json(study().preregistration), OFFLINE, contract=None)


@case("A contract stands where a receipt was asked for.", Code.UNPROVEN)
def contract_for_a_receipt() -> Report:
    return verified(study(), as_json(study().contract))


@case("A run log stands where a receipt was asked for.", Code.UNPROVEN)
def run_log_for_a_receipt() -> Report:
    return verified(study(), as_json(study().run_log))


# --- measurements and predictions ----------------------------------------------------------------------------------


@case("A measurement whose claims its own values support.")
def measurement_supported() -> Report:
    return told(measurement())


@case("The same measurement where a receipt was asked for.", Code.UNPROVEN)
def measurement_for_a_receipt() -> Report:
    return told(measurement(), Options())


@case("A measurement without claims: there is nothing to support.", Code.UNPROVEN)
def measurement_without_claims() -> Report:
    return told(measurement(lambda m: m.update(claims=[])), SUPPORTED)


@case("A measurement's shape, under profile offline.")
def measurement_offline() -> Report:
    return told(measurement(), OFFLINE)


@case("A measurement whose values are those of the rows that it cites.")
def measurement_with_rows() -> Report:
    return with_rows()


@case("A prediction that nobody has settled.")
def prediction_open() -> Report:
    return foreseen(lambda p: None)


@case("A prediction whose outcome is what the cited measurement gives.")
def prediction_settled() -> Report:
    return settled("supported", measurement(), measurement())


@case("A prediction where a receipt was asked for.", Code.UNPROVEN)
def prediction_for_a_receipt() -> Report:
    return told(prediction(), Options())
