"""Every rule fires on the defect it names, alone, on its channel, with its exit code.

Each case changes one thing in a valid study. Where a forger could have re-issued roots, receipt and log, the case does,
so that only the rule under test stands between the forgery and belief.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from documents.records import measurement
from evidence.forged_parquet import task, write
from simulator import CHANGES, PRESERVED, StudySimulator, grouped
from verify.forging import (
    FROZEN,
    Json,
    as_json,
    continued,
    counting,
    encoded,
    honest,
    mapped,
    rechained,
    reissued,
    study,
    tiny,
    verified,
)
from verify.record_defects import CASES as RECORD_CASES
from verify.record_defects import told, with_rows
from verify.test_authenticity import CASES as SIGNED

from atlas_schema.canonical import canonical_json, digest_bytes, digest_document
from atlas_schema.documents.base import Judgement
from atlas_schema.documents.preregistration import Window
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.limits import LIMITS
from atlas_schema.measures.summarise import summarise
from atlas_schema.protocol.judgement import judgement_digest
from atlas_schema.protocol.log import party
from atlas_schema.study.issue import build_receipt
from atlas_schema.study.plan import planned_rows
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.outcome import Channel, Code, Report, Status, exit_code, headline
from atlas_schema.verify.physics.layers import check_digests
from atlas_schema.verify.rules import RULES
from atlas_schema.verify.sandbox import open_database
from atlas_schema.verify.verifier import Options

OTHER = "sha256:" + "ab" * 32


@dataclass(frozen=True)
class Case:
    """One defect: what is wrong, the rules that must fire (no others), the exit code, and how to make it."""

    rules: frozenset[str]
    defect: str
    code: Code
    make: Callable[[Path], Report]


CASES: dict[str, Case] = {}


def defect(rules: str, sentence: str, code: Code) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Register a case; its function may take the folder of a written study."""

    def register(make: Callable[..., Report]) -> Callable[..., Report]:
        takes_folder = make.__code__.co_argcount > 0
        made = frozenset(f"ATL-{rule}" for rule in rules.split())
        CASES[make.__name__] = Case(made, sentence, code, make if takes_folder else lambda _: make())
        return make

    return register


def forged(s: StudySimulator, arm: str = "frozen", options: Options | None = None) -> Report:
    """Re-issue everything over a changed study, and verify that."""
    again, receipt = reissued(s, arm)
    return verified(again, receipt, options)


def stated(change: Callable[[Json], Any], arm: str = "frozen") -> Report:
    """Change only the receipt."""
    receipt = as_json(honest(arm))
    change(receipt)
    return verified(study(), receipt)


def row_of(s: StudySimulator, table: str, **key: str | int) -> int:
    return s.find(table, **key)


def first(table: str, run_id: str) -> int:
    return row_of(study(), table, run_id=run_id)


def altered(table: str, run_id: str, column: str, change: Callable[[Any], Any]) -> StudySimulator:
    """Change one value in the first row of a run."""
    at = first(table, run_id)
    return study().with_value(table, at, column, change(study().rows(table)[at][column]))


# --- admission and schema -----------------------------------------------------------------------------------------


@defect("A001", "The receipt states its claim twice, once for each reader.", Code.INADMISSIBLE)
def claim_twice() -> Report:
    raw = encoded(as_json(honest()))
    return verified(
        study(), raw.replace(b'"claim": {', b'"claim": {"arm": "rewritten", "verdict": "preserved"}, "claim": {', 1)
    )


@defect("A001", "The run log beside the receipt is not JSON.", Code.INADMISSIBLE)
def log_is_not_json() -> Report:
    return verified(study(), honest(), run_log=b"{]")


@defect("A002", "A Parquet file was cut off.", Code.INADMISSIBLE)
def truncated_file(folder: Path) -> Report:
    path = folder / "evidence" / "state.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


@defect("A002", "A table has a column that nobody declared.", Code.INADMISSIBLE)
def extra_column(folder: Path) -> Report:
    import pyarrow.parquet as pq

    path = folder / "evidence" / "task.parquet"
    pq.write_table(pq.read_table(path).append_column("note", pa.array(["x"] * study().tables["task"].num_rows)), path)
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


def with_task(folder: Path, content: bytes) -> Report:
    """Put other bytes in the place of table `task`."""
    (folder / "evidence" / "task.parquet").write_bytes(content)
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


@defect("A020", "A dictionary of eight bytes claims two billion entries.", Code.INADMISSIBLE)
def dictionary_of_claims(folder: Path) -> Report:
    return with_task(folder, write(task(10, dictionary_entries=2**31 - 1)))


@defect("A020", "The footer states fewer values than the pages hold.", Code.INADMISSIBLE)
def footer_understates(folder: Path) -> Report:
    return with_task(folder, write(task(10, page_values=2_000_000_000)))


@defect("A021", "One window has more tokens than the limits allow.", Code.INADMISSIBLE)
def endless_window(folder: Path) -> Report:
    import pyarrow.parquet as pq

    rows = study().rows("window")
    rows[0]["tokens"] = [1] * (LIMITS.list_values + 1)
    pq.write_table(study().with_rows("window", rows).tables["window"], folder / "evidence" / "window.parquet")
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


@defect("A022", "A table of the bundle is a link to a file elsewhere.", Code.INADMISSIBLE)
def linked_table(folder: Path) -> Report:
    path = folder / "evidence" / "task.parquet"
    path.rename(folder / "elsewhere.parquet")
    path.symlink_to(folder / "elsewhere.parquet")
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


def database(folder: Path, *statements: str) -> Report:
    """Verify from a DuckDB file that was changed by SQL."""
    path = folder / "evidence.duckdb"
    study().store(path).close()
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return verified(study(), honest(), open_evidence=lambda: open_database(path))


@defect("A023", "The DuckDB file brings a macro that shadows avg.", Code.INADMISSIBLE)
def macro_in_database(folder: Path) -> Report:
    return database(folder, "CREATE MACRO avg(a) AS 42")


@defect("A024", "A column of the DuckDB file fills itself with random numbers.", Code.INADMISSIBLE)
def default_in_database(folder: Path) -> Report:
    return database(folder, "ALTER TABLE task ALTER score SET DEFAULT random()")


@defect("A025", "The DuckDB file is none.", Code.INADMISSIBLE)
def no_database(folder: Path) -> Report:
    (folder / "evidence.duckdb").write_bytes(b"SQLite format 3\0" * 100)
    return verified(study(), honest(), open_evidence=lambda: open_database(folder / "evidence.duckdb"))


@defect("A026", "Changes that are not in the DuckDB file lie beside it.", Code.INADMISSIBLE)
def log_beside_database(folder: Path) -> Report:
    study().store(folder / "evidence.duckdb").close()
    (folder / "evidence.duckdb.wal").write_bytes(b"changes")
    return verified(study(), honest(), open_evidence=lambda: open_database(folder / "evidence.duckdb"))


@defect("A003", "A loss is not a number.", Code.INADMISSIBLE)
def nan_in_a_row() -> Report:
    return verified(study().with_value("output", 5, "nll", float("nan")), honest())


@defect("A003", "A task item is counted twice.", Code.INADMISSIBLE)
def key_twice() -> Report:
    rows = study().rows("task")
    return verified(study().with_rows("task", [*rows, rows[0]]), honest())


@defect("A003", "A Gram matrix has fewer entries than its experts need.", Code.INADMISSIBLE)
def short_gram() -> Report:
    return forged(altered("update", "arm:close", "gram", lambda gram: gram[:-1]))


@defect("A003", "The tensor digests of a layer are not a JSON object.", Code.INADMISSIBLE)
def digests_are_not_json() -> Report:
    return forged(altered("layer", "arm:close", "tensor_digests", lambda _: "{" * 50_000))


@defect("S001", "The receipt has a field that nobody reads.", Code.INADMISSIBLE)
def unknown_field() -> Report:
    return stated(lambda r: r["findings"].update(reviewed="yes"))


@defect("S001", "The pre-registration was created on the 31st of February.", Code.INADMISSIBLE)
def impossible_day() -> Report:
    plan = {**as_json(study().preregistration), "created": "2025-02-31T08:00:00Z"}
    return verified(study(), honest(), preregistration=encoded(plan))


@defect("S001", "A document of another kind stands where the pre-registration belongs.", Code.INADMISSIBLE)
def wrong_kind() -> Report:
    return verified(study(), honest(), preregistration=encoded(as_json(study().contract)))


# --- contract -----------------------------------------------------------------------------------------------------


@defect("C001", "The receipt cites another contract than the one it is judged by.", Code.INADMISSIBLE)
def other_contract_cited() -> Report:
    return stated(lambda r: r["contract"].update(digest=OTHER))


@defect("C001 C003", "A threshold of the contract was raised after the study.", Code.INADMISSIBLE)
def contract_edited() -> Report:
    contract = as_json(study().contract)
    contract["channels"][0]["thresholds"][0]["value"] *= 10
    return verified(study(), honest(), contract=encoded(contract))


@defect("C001", "The contract gates a channel that this version cannot recompute.", Code.INADMISSIBLE)
def unknown_definition() -> Report:
    channels = as_json(study().contract)["channels"]
    channels[0]["definition"] = "drift.flattering/1"
    return forged(study().with_contract({"channels": channels}))


@defect("C001", "The contract gates damage by a definition of its own.", Code.INADMISSIBLE)
def unknown_damage() -> Report:
    return forged(study().with_contract({"damage": {"definition": "damage.kinder/1"}}))


@defect("C001", "The contract asks for a Monte-Carlo error that no resamples can give.", Code.INADMISSIBLE)
def more_batches_than_resamples() -> Report:
    return forged(study().with_contract({"bootstrap": {"resamples": 10, "batches": 20}}))


@defect("C001", "A contract with other thresholds bears the id of a published one.", Code.INADMISSIBLE)
def borrowed_id() -> Report:
    return forged(study().with_contract({"id": "chart-preserving.v1"}))


@defect("C001", "The cited contract is neither built in nor given.", Code.UNPROVEN)
def contract_absent() -> Report:
    return verified(study(), honest(), contract=None)


@defect("C002", "The target was lowered after the receipt was issued.", Code.INADMISSIBLE)
def preregistration_edited() -> Report:
    s, receipt = reissued(study().with_preregistration({"task": {"target": 0.5}}))
    receipt["preregistration"] = as_json(honest())["preregistration"]
    return verified(s, receipt)


@defect("C002", "The pre-registration is absent.", Code.UNPROVEN)
def preregistration_absent() -> Report:
    return verified(study(), honest(), preregistration=None)


@defect("C003", "The pre-registration was written for another contract than the receipt cites.", Code.INADMISSIBLE)
def plan_of_another_contract() -> Report:
    return forged(study().with_preregistration({"contract": {"digest": OTHER}}))


@defect("C004", "The tool of a logged step was changed.", Code.INADMISSIBLE)
def log_altered() -> Report:
    log = as_json(study().run_log)
    log["steps"][0]["tool"] = "by hand"
    return verified(study(), honest(), run_log=encoded(log))


@defect("C004", "A step of the log claims to be before the one it follows.", Code.INADMISSIBLE)
def log_goes_back() -> Report:
    def later(steps: list[Json]) -> list[Json]:
        return [*steps, {**steps[1], "step": "issue", "time": "2026-01-01T00:00:01Z"}]

    return verified(study().with_run_log(rechained(study().run_log, later)), honest())


@defect("C005", "The receipt's place in the log does not exist.", Code.INADMISSIBLE)
def no_such_head() -> Report:
    return stated(lambda r: r["run_log"].update(steps=1))


@defect("C005", "The receipt was issued with a longer log than the one shown.", Code.INADMISSIBLE)
def log_cut() -> Report:
    return stated(lambda r: r["run_log"].update(steps=7))


@defect("C005", "The run log is absent.", Code.UNPROVEN)
def log_absent() -> Report:
    return verified(study(), honest(), run_log=None)


@defect("C006", "The pre-registration was created after the extraction that it was to precede.", Code.INADMISSIBLE)
def created_afterwards() -> Report:
    return forged(study().with_preregistration({"created": "2026-01-01T02:00:00Z"}))


@defect("C006 C040 C044", "The extraction was logged before the pre-registration was declared.", Code.INADMISSIBLE)
def declared_afterwards() -> Report:
    def swapped(steps: list[Json]) -> list[Json]:
        return [{**steps[1], "time": steps[0]["time"]}, {**steps[0], "time": steps[1]["time"]}]

    s, receipt = reissued(study())
    log = rechained(s.run_log, swapped)
    receipt["run_log"]["head"] = log.steps[-1].hash
    return verified(s.with_run_log(log), receipt)


def logged(*steps: Json, receipt: Json | None = None) -> Report:
    """Verify over a log with more steps, as its technician's tools would chain them."""
    return verified(study().with_run_log(continued(study().run_log, *steps)), receipt or honest())


def took(step: str, actor: str = "automation", inputs: Json | None = None, outputs: Json | None = None) -> Json:
    return {"step": step, "actor": actor, "inputs": inputs or {}, "outputs": outputs or {"it": OTHER}}


@defect("C040", "Read #0 was written after the run.", Code.INADMISSIBLE)
def expectation_after_the_fact() -> Report:
    return logged(took("read0", "technician"))


@defect("C040", "Read #1 was written after a receipt was issued.", Code.INADMISSIBLE)
def reading_after_the_issue() -> Report:
    return logged(took("issue"), took("read1", "technician"))


@defect("C041", "A model wrote Read #1.", Code.INADMISSIBLE)
def reading_by_a_model() -> Report:
    return logged(took("read1", "model"))


@defect("C042", "One process ran two models.", Code.INADMISSIBLE)
def process_used_twice() -> Report:
    plan = {"preregistration": study().preregistration_digest(), "process": OTHER}
    return logged(took("extract", inputs=plan), took("extract", inputs=plan))


@defect("C043", "The extracting party verified its own work.", Code.INADMISSIBLE)
def own_work_verified() -> Report:
    plan = {"preregistration": study().preregistration_digest()}
    return logged(
        took("extract", inputs={**plan, **party("Lab A")}), took("issue"), took("verify", inputs=party("lab  a"))
    )


@defect("C043", "The extracting process verified its own work.", Code.INADMISSIBLE)
def own_process_verified() -> Report:
    plan = {"preregistration": study().preregistration_digest(), "process": OTHER}
    return logged(took("extract", inputs=plan), took("issue"), took("verify", inputs={**party("B"), "process": OTHER}))


@defect("C043", "The verifier's name was changed and its digest kept.", Code.INADMISSIBLE)
def verifier_renamed() -> Report:
    return logged(took("issue"), took("verify", inputs={"party: Lab B": next(iter(party("Lab A").values()))}))


@defect("C044", "A run read a stimulus that nobody registered.", Code.INADMISSIBLE)
def stimulus_of_no_version() -> Report:
    return logged(took("extract", inputs={"stimulus prompts@1": OTHER}))


@defect("C044", "A version of a stimulus was given other content.", Code.INADMISSIBLE)
def stimulus_exchanged() -> Report:
    return logged(
        took("stimulus", outputs={"stimulus p@1": OTHER}), took("stimulus", outputs={"stimulus p@1": digest_bytes(b"")})
    )


@defect("C045 S001", "The producer typed the tier in.", Code.INADMISSIBLE)
def tier_typed_in() -> Report:
    return stated(lambda r: r.update(fidelity_tier="A"))


def judged(**changes: Any) -> tuple[Json, Judgement]:
    made = Judgement(
        **{"value": "holds", "author": "A. Person", "time": "2026-01-02T00:00:00Z", "basis": "the cells", **changes}
    )
    receipt = as_json(honest())
    receipt["judgement"]["reading"] = as_json(made)
    return receipt, made


def judging(
    made: Judgement, actor: str = "technician", step: str = "judge", time: str = "2026-01-02T00:00:00Z"
) -> Json:
    about = {"judgement /judgement/reading": judgement_digest(honest(), ("judgement", "reading"), made)}
    return {**took(step, actor, outputs=about), "time": time}


@defect("C046", "A judgement stands in the receipt, and no person made it.", Code.INADMISSIBLE)
def judgement_from_nowhere() -> Report:
    return logged(receipt=judged()[0])


@defect("C041 C046", "Automation made the judgement.", Code.INADMISSIBLE)
def judgement_by_automation() -> Report:
    receipt, made = judged()
    return logged(judging(made, "automation"), receipt=receipt)


@defect("C046", "The judgement has no author.", Code.INADMISSIBLE)
def judgement_by_nobody() -> Report:
    receipt, made = judged(author=" ")
    return logged(judging(made), receipt=receipt)


@defect("C046", "A person's judgement was turned round afterwards.", Code.INADMISSIBLE)
def judgement_turned_round() -> Report:
    receipt, made = judged()
    receipt["judgement"]["reading"]["value"] = "does not hold"
    return logged(judging(made), receipt=receipt)


@defect("C046", "A judgement of one receipt was put into another.", Code.INADMISSIBLE)
def judgement_moved() -> Report:
    receipt, made = judged()
    receipt["notes"] = "another receipt"
    return logged(judging(made), receipt=receipt)


@defect("C046", "The judgement was backdated.", Code.INADMISSIBLE)
def judgement_backdated() -> Report:
    receipt, made = judged()
    return logged(judging(made, time="2026-01-03T00:00:00Z"), receipt=receipt)


@defect("C046", "The judgement is logged as another step.", Code.INADMISSIBLE)
def judgement_as_an_issue() -> Report:
    receipt, made = judged()
    return logged(judging(made, step="issue"), receipt=receipt)


def test_a_judgement_that_a_person_made_is_accepted() -> None:
    receipt, made = judged()
    assert exit_code(logged(judging(made), receipt=receipt)) is Code.VERIFIED


def a_read(**changes: Any) -> Json:
    return {"kind": "read", "schema_version": "1.0", "moment": "after_first_run", "author": "A. Person", "text": "It rose.",
            "time": "2026-01-02T00:00:00Z", "log_head": study().run_log.steps[-1].hash, "surprise": "nothing", **changes}  # fmt: skip


def read_verified(read: Json, logged_read: Json) -> Report:
    step = {
        **took("read1", "technician", outputs={"read1.json": digest_document(logged_read)}),
        "time": "2026-01-02T00:00:00Z",
    }
    log = continued(study().run_log, step)
    return verified(study(), read, Options(profile="offline"), run_log=encoded(as_json(log)))


def test_a_read_that_is_logged_is_accepted() -> None:
    assert exit_code(read_verified(a_read(), a_read())) is Code.VERIFIED


@defect("C047", "A Read was rewritten after it was logged.", Code.INADMISSIBLE)
def read_rewritten() -> Report:
    return read_verified(a_read(text="It fell."), a_read())


@defect("C047", "A Read claims to have been written at another place of the log.", Code.INADMISSIBLE)
def read_out_of_place() -> Report:
    return read_verified(a_read(log_head=OTHER), a_read(log_head=OTHER))


@defect("C047", "A Read bears another time than its step.", Code.INADMISSIBLE)
def read_backdated() -> Report:
    return read_verified(a_read(time="2026-01-01T12:00:00Z"), a_read(time="2026-01-01T12:00:00Z"))


@defect("C047", "Nobody signed the Read.", Code.INADMISSIBLE)
def read_by_nobody() -> Report:
    return read_verified(a_read(author=" "), a_read(author=" "))


@defect("C047", "A Read without a log.", Code.UNPROVEN)
def read_without_a_log() -> Report:
    return verified(study(), a_read(), Options(profile="offline"), run_log=None)


@defect("C007", "No logged extraction produced these rows.", Code.INADMISSIBLE)
def rows_of_no_extraction() -> Report:
    changed = altered("run", "arm:close", "model", lambda name: name + " v2")
    _, receipt = reissued(changed)
    receipt["run_log"]["head"] = study().run_log.steps[-1].hash
    return verified(changed.with_run_log(study().run_log), receipt)


@defect("C008", "The tolerated damage is wider than the contract admits.", Code.INADMISSIBLE)
def wide_tolerance() -> Report:
    return forged(study().with_preregistration({"damage_tolerance_nats": 0.5}))


@defect("C008", "The expected rows were reduced to what was extracted.", Code.INADMISSIBLE)
def expected_rows_edited() -> Report:
    expected = study().preregistration.expected_rows.state
    return forged(study().with_preregistration({"expected_rows": {"state": expected - 2}}))


@defect("C008", "A window predicts more bytes than it has, so that bits per byte look few.", Code.INADMISSIBLE)
def more_bytes_than_there_are() -> Report:
    windows = as_json(study().preregistration)["windows"]
    windows[0]["predicted_bytes"] = windows[0]["n_bytes"] + 1
    return forged(study().with_preregistration({"windows": windows}))


@defect("C008", "A window stands twice in the plan.", Code.INADMISSIBLE)
def window_twice() -> Report:
    windows = as_json(study().preregistration)["windows"]
    return forged(study().with_preregistration({"windows": [windows[0], *windows]}))


@defect("C008", "One window's text is counted as two documents.", Code.INADMISSIBLE)
def window_under_two_names() -> Report:
    windows = as_json(study().preregistration)["windows"]
    again = {**windows[-1], "window_id": "zzz", "cluster_id": OTHER}
    expected = planned_rows_of([*windows, again])
    return forged(study().with_preregistration({"windows": [*windows, again], "expected_rows": expected}))


@defect("C008", "One task item is counted twice.", Code.INADMISSIBLE)
def item_under_two_names() -> Report:
    items = as_json(study().preregistration)["task"]["items"]
    items[1]["digest"] = items[0]["digest"]
    return forged(study().with_preregistration({"task": {"items": items}}))


@defect("C008", "One document stands in two domains.", Code.INADMISSIBLE)
def document_in_two_domains() -> Report:
    windows = as_json(study().preregistration)["windows"]
    windows[-1]["cluster_id"] = windows[0]["cluster_id"]
    return forged(study().with_preregistration({"windows": windows}))


@defect("C009", "An arm with an unwelcome result was dropped from the receipt.", Code.INADMISSIBLE)
def arm_dropped() -> Report:
    def drop(receipt: Json) -> None:
        receipt["subjects"] = [s for s in receipt["subjects"] if s["run_id"] != "arm:rewritten"]
        receipt["findings"]["arms"] = [a for a in receipt["findings"]["arms"] if a["arm"] != "rewritten"]

    return stated(drop)


@defect("C009", "The claim is about an arm that nobody planned.", Code.INADMISSIBLE)
def arm_not_planned() -> Report:
    return stated(lambda r: r["claim"].update(arm="lucky"))


@defect("C010", "One window of one run was never extracted.", Code.UNPROVEN)
def missing_cell() -> Report:
    s = study()
    window = s.rows("state")[0]["window_id"]
    kept = [r for r in s.rows("state") if (r["run_id"], r["window_id"]) != ("arm:close", window)]
    return forged(s.with_rows("state", kept))


@defect("C010", "A whole run is missing from the losses.", Code.UNPROVEN)
def missing_run() -> Report:
    s = study()
    return forged(s.with_rows("output", [r for r in s.rows("output") if r["run_id"] != "arm:close"]))


@defect("C010", "There are rows of a run that nobody planned.", Code.INADMISSIBLE)
def unplanned_rows() -> Report:
    s = study()
    extra = [{**r, "run_id": "arm:lucky"} for r in s.rows("task") if r["run_id"] == "arm:close"]
    return forged(s.with_rows("task", [*s.rows("task"), *extra]))


@defect("C011", "The tokens of two windows changed places.", Code.INADMISSIBLE)
def windows_swapped() -> Report:
    rows = study().rows("window")
    a, b = 0, next(i for i, r in enumerate(rows) if len(r["tokens"]) == len(rows[0]["tokens"]) and i > 0)
    rows[a]["tokens"], rows[b]["tokens"] = rows[b]["tokens"], rows[a]["tokens"]
    return forged(study().with_rows("window", rows))


@defect("C011", "The sampled positions were chosen, not drawn.", Code.INADMISSIBLE)
def chosen_positions() -> Report:
    rows = study().rows("window")
    rows[0]["positions"] = [p + 1 if p < 5 else p - 1 for p in rows[0]["positions"]]
    return forged(study().with_rows("window", rows))


@defect("C011", "A window was moved to another domain.", Code.INADMISSIBLE)
def window_in_another_domain() -> Report:
    return forged(study().with_value("window", 0, "domain", "legal"))


@defect("C012", "Thresholds were tuned on a document of the study.", Code.INADMISSIBLE)
def pilot_overlaps() -> Report:
    shared = study().preregistration.windows[0].cluster_id
    return forged(study().with_preregistration({"pilot": {"description": "pilot", "clusters": [OTHER, shared]}}))


def planned_rows_of(windows: list[Json]) -> Json:
    plan = study().preregistration.model_copy(update={"windows": tuple(Window.model_validate(w) for w in windows)})
    return planned_rows(plan, study().contract).model_dump()


# --- binding ------------------------------------------------------------------------------------------------------


@defect("B001", "A table's file is missing.", Code.TAMPERED)
def missing_table(folder: Path) -> Report:
    (folder / "evidence" / "task.parquet").unlink()
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


@defect("B001", "The bundle holds a file beyond the tables.", Code.TAMPERED)
def extra_file(folder: Path) -> Report:
    (folder / "evidence" / "notes.txt").write_text("trust me")
    return verified(study(), honest(), open_evidence=lambda: ParquetBundle(folder / "evidence"))


@defect("B001", "The receipt does not list a table.", Code.TAMPERED)
def table_not_listed() -> Report:
    return stated(lambda r: r["evidence"]["tables"].pop())


@defect("B001", "There is no evidence.", Code.UNPROVEN)
def evidence_absent() -> Report:
    return verified(study(), honest(), open_evidence=None)


@defect("B002", "The receipt states one row fewer than there are.", Code.TAMPERED)
def row_count_stated() -> Report:
    return stated(lambda r: r["evidence"]["tables"][3].update(rows=r["evidence"]["tables"][3]["rows"] - 1))


@defect("B003", "The receipt states another root of a table.", Code.TAMPERED)
def table_root_stated() -> Report:
    return stated(lambda r: r["evidence"]["tables"][0].update(root=OTHER))


@defect("B003 B004", "One bit of one number changed after the receipt was issued.", Code.TAMPERED)
def one_float_changed() -> Report:
    return verified(
        altered("state", "arm:close", "r", lambda r: float(np.nextafter(np.float32(r), np.float32(9)))), honest()
    )


@defect("B002 B003 B004", "A row was removed after the receipt was issued.", Code.TAMPERED)
def one_row_removed() -> Report:
    return verified(study().without_row("task", 7), honest())


@defect("B003 B004", "The evidence is that of another study with the same plan.", Code.TAMPERED)
def evidence_of_another_study() -> Report:
    rows = [{**r, "score": 1.0 - r["score"]} for r in study().rows("task")]
    return verified(study().with_rows("task", rows), honest())


@defect("B004", "Receipt and log agree on a root that the tables do not have.", Code.TAMPERED)
def root_of_nothing() -> Report:
    s, receipt = reissued(study())

    def other_root(steps: list[Json]) -> list[Json]:
        steps[1]["outputs"][0]["digest"] = OTHER
        return steps

    log = rechained(s.run_log, other_root)
    receipt["evidence"]["root"] = OTHER
    receipt["run_log"]["head"] = log.steps[-1].hash
    return verified(s.with_run_log(log), receipt)


@defect("B005", "The plan is not the one that the reviewer knew beforehand.", Code.TAMPERED)
def wrong_pin() -> Report:
    return verified(study(), honest(), Options(pin=OTHER))


# --- reproduction: runs and layers --------------------------------------------------------------------------------


@defect("R001", "A null arm ran other weights than the base.", Code.DIVERGED)
def null_of_other_weights() -> Report:
    return forged(altered("run", "null:batch", "weights_digest", lambda _: OTHER))


@defect("R001", "The base is not the checkpoint that was pre-registered.", Code.DIVERGED)
def other_base() -> Report:
    return forged(study().with_preregistration({"base": {"weights_digest": OTHER}}))


@defect("R001", "An arm was trained under another policy than planned.", Code.DIVERGED)
def other_policy() -> Report:
    return forged(altered("run", "arm:close", "policy", lambda _: "full"))


@defect("R001", "An arm with the base's weights claims to have moved.", Code.DIVERGED)
def moved_without_moving() -> Report:
    return forged(altered("run", "arm:frozen", "param_distance", lambda _: 0.1))


@defect("R001", "The base carries the policy of an arm.", Code.DIVERGED)
def base_with_a_policy() -> Report:
    return forged(altered("run", "base", "policy", lambda _: "certified"))


@defect("R001 R017", "A null arm has other tensors than the base.", Code.DIVERGED)
def null_of_other_tensors() -> Report:
    return forged(_digests(study(), "null:batch", lambda d: {**d, "upstream": OTHER}))


@defect("R001", "A null arm normalises by another constant than the base.", Code.DIVERGED)
def null_of_another_constant() -> Report:
    return forged(altered("layer", "null:batch", "eps", lambda eps: eps * (1 + 1e-9)))


@defect("R002", "An arm ran with another attention kernel than the base.", Code.DIVERGED)
def fingerprint_differs() -> Report:
    return forged(altered("run", "arm:close", "fingerprint", lambda f: f.replace('"eager"', '"sdpa"', 1)))


@defect("R002", "A null arm differs from the base in nothing.", Code.DIVERGED)
def null_of_nothing() -> Report:
    base = study().rows("run")[first("run", "base")]["fingerprint"]
    return forged(altered("run", f"null:{next(iter(CHANGES))}", "fingerprint", lambda _: base))


@defect("R002", "A layer claims a coarser dtype than the run, for its wider tolerances.", Code.DIVERGED)
def borrowed_tolerance() -> Report:
    return forged(altered("layer", "arm:close", "executed_dtype", lambda _: "bfloat16"))


@defect("R003", "The stored router is not the one whose digest is stated.", Code.DIVERGED)
def router_replaced() -> Report:
    return forged(altered("layer", "arm:close", "router_weight", lambda w: [w[0] + 1e-3, *w[1:]]))


@defect("R003", "Two experts changed places.", Code.DIVERGED)
def experts_swapped() -> Report:
    return forged(altered("layer", "arm:close", "identity_permutation", lambda p: [p[1], p[0], *p[2:]]))


@defect("R003", "The block was not what its experts add up to.", Code.DIVERGED)
def not_reconstructed() -> Report:
    return forged(altered("layer", "base", "reconstruction_error", lambda _: 0.5))


@defect("R003", "The layer follows a weight rule that this version does not know.", Code.DIVERGED)
def unknown_rule() -> Report:
    return forged(altered("layer", "base", "weight_rule", lambda _: "softmax_whatever"))


@defect("R003", "The router has a bias that no rule of this version applies.", Code.DIVERGED)
def unknown_bias() -> Report:
    return forged(altered("layer", "base", "router_bias", lambda _: [0.0] * study().dims.E))


def _digests(s: StudySimulator, run_id: str, change: Callable[[Json], Json]) -> StudySimulator:
    import json

    at = row_of(s, "layer", run_id=run_id)
    digests = json.loads(s.rows("layer")[at]["tensor_digests"])
    return s.with_value("layer", at, "tensor_digests", canonical_json(change(digests)).decode())


# --- reproduction: native rows ------------------------------------------------------------------------------------


@defect("R004", "A state does not have the norm that its normalisation gives.", Code.DIVERGED)
def wrong_scale() -> Report:
    return forged(altered("state", "arm:close", "r", lambda r: 10 * r))


@defect("R005", "A dispatch score was written to taste.", Code.DIVERGED)
def score_to_taste() -> Report:
    def lower_the_last(scores: list[float]) -> list[float]:
        at = scores.index(min(scores))
        return [s - 0.01 if i == at else s for i, s in enumerate(scores)]

    return forged(altered("state", "arm:close", "dispatch", lower_the_last))


@defect(
    "R005 R006 R007 R011", "The states of the base were copied as those of an arm with another router.", Code.DIVERGED
)
def base_states_as_the_arms() -> Report:
    s = study()
    base = {(r["window_id"], r["position"]): r for r in s.rows("state") if r["run_id"] == "base"}

    def copied(row: Json) -> Json | None:
        if row["run_id"] != "arm:rewritten":
            return None
        return {**base[row["window_id"], row["position"]], "run_id": row["run_id"]}

    return forged(mapped(s, "state", copied))


def _sampled_route(run_id: str) -> int:
    """Return the routing row of the first sampled position of a run."""
    state = study().rows("state")[first("state", run_id)]
    return row_of(study(), "routing", run_id=run_id, window_id=state["window_id"], position=state["position"])


def _routed(column: str, change: Callable[[Json], Any], run_id: str = "arm:close") -> Report:
    at = _sampled_route(run_id)
    return forged(study().with_value("routing", at, column, change(study().rows("routing")[at])))


@defect("R006", "A margin was inflated.", Code.DIVERGED)
def margin_inflated() -> Report:
    return _routed("margin", lambda row: 2 * row["margin"] + 0.1)


@defect("R006", "A margin is negative.", Code.DIVERGED)
def margin_negative() -> Report:
    return _routed("margin", lambda row: -0.5)


@defect("R006", "A margin is missing though there is a competitor.", Code.DIVERGED)
def margin_missing() -> Report:
    at = next(i for i, r in enumerate(study().rows("routing")) if r["position"] == 0)  # never sampled
    return forged(study().with_value("routing", at, "margin", None))


@defect("R006", "A token flies a flag that nobody knows.", Code.DIVERGED)
def unknown_flag() -> Report:
    return _routed("flags", lambda row: 8)


@defect("R006", "A token with a margin is flagged as a tie, which excuses its set.", Code.DIVERGED)
def excused_set() -> Report:
    return _routed("flags", lambda row: row["flags"] | 3)


@defect("R015", "A router without groups claims a margin between them.", Code.DIVERGED)
def margin_of_no_groups() -> Report:
    return _routed("group_margin", lambda row: 0.5)


@defect("R015", "A null arm claims a divergence from the base that nothing measures.", Code.DIVERGED)
def divergence_of_a_null_arm() -> Report:
    return forged(altered("output", "null:batch", "kl_from_base", lambda _: 0.0))


@defect("R015", "An arm's transport angle is missing on one token, to leave it out of the mean.", Code.DIVERGED)
def angle_left_out() -> Report:
    return _updated("transport_angle", lambda _: None)


@defect("R006", "An expert was executed twice.", Code.DIVERGED)
def expert_twice() -> Report:
    return _routed("experts", lambda row: [row["experts"][1]] * 2)


@defect("R006", "An expert was executed that does not exist.", Code.DIVERGED)
def expert_out_of_range() -> Report:
    return _routed("experts", lambda row: [60_000, row["experts"][1]])


@defect("R006", "The competitor is not the best of those that were not executed.", Code.DIVERGED)
def weak_competitor() -> Report:
    def another(row: Json) -> int:
        return next(e for e in range(study().dims.E) if e not in (*row["experts"], row["competitor_in"]))

    return _routed("competitor_in", another)


@defect("R006", "A token without margin claims to have a competitor's place free.", Code.DIVERGED)
def competitor_hidden() -> Report:
    return _routed("competitor_in", lambda row: None)


@defect("R007", "Combine weights are not those of the scores.", Code.DIVERGED)
def weights_to_taste() -> Report:
    return forged(altered("state", "arm:close", "weights", lambda w: [0.5] * len(w)))


# --- reproduction: same-state rows --------------------------------------------------------------------------------


def _updated(column: str, change: Callable[[Any], Any], run_id: str = "arm:close") -> Report:
    """Change one value in a row whose vectors are not kept, so that what they would say does not mix in."""
    kept = {w["window_id"] for w in study().rows("window") if w["split"] == "evaluation"}
    rows = study().rows("update")
    at = next(i for i, row in enumerate(rows) if row["run_id"] == run_id and row["window_id"] not in kept)
    return forged(study().with_value("update", at, column, change(rows[at][column])), "frozen")


@defect("R008", "Same-state scores are not those of the arm's router at the base's state.", Code.DIVERGED)
def same_state_scores() -> Report:
    return _updated("dispatch1", lambda s: [v - 0.01 * (v == min(s)) for v in s])


@defect("R008", "The pair is not the base's k-th and next expert.", Code.DIVERGED)
def other_pair() -> Report:
    at = first("update", "arm:close")
    row = study().rows("update")[at]
    return forged(study().with_value("update", at, "pair_in", row["pair_out"]))


@defect("R008", "The base's set is marked as the arm's set.", Code.DIVERGED)
def members_copied() -> Report:
    at = next(
        i for i, r in enumerate(study().rows("update")) if r["run_id"] == "arm:rewritten" and r["in0"] != r["in1"]
    )
    return forged(study().with_value("update", at, "in1", study().rows("update")[at]["in0"]))


@defect("R008", "The forced weight of the pair's member was written to taste.", Code.DIVERGED)
def forced_weight() -> Report:
    return _updated("rho1_b_forced", lambda w: w / 2)


@defect("R008", "The updates of two windows changed places.", Code.DIVERGED)
def updates_swapped() -> Report:
    s, keys = study(), ("run_id", "layer", "window_id", "position")
    rows = s.rows("update")
    a = first("update", "arm:close")
    b = next(i for i, r in enumerate(rows) if r["run_id"] == "arm:close" and r["window_id"] != rows[a]["window_id"])
    swapped = {a: {**rows[b], **{k: rows[a][k] for k in keys}}, b: {**rows[a], **{k: rows[b][k] for k in keys}}}
    return forged(s.with_rows("update", [swapped.get(i, r) for i, r in enumerate(rows)]))


def _scaled(gram: list[float], n: int, factor: float) -> list[float]:
    """Scale the changes of a packed Gram matrix of ``n`` base updates and ``n`` changes."""
    full = np.zeros((2 * n, 2 * n))
    full[np.triu_indices(2 * n)] = gram
    weights = np.array([1.0] * n + [factor] * n)
    return [float(v) for v in (full * np.outer(weights, weights))[np.triu_indices(2 * n)]]


@defect(
    "R009 R023", "The drift was smoothed: changes in the Gram matrix are a hundredth of what they were.", Code.DIVERGED
)
def drift_smoothed() -> Report:
    def smooth(row: Json) -> Json | None:
        if row["run_id"] != "arm:rewritten":
            return None
        return {"gram": _scaled(row["gram"], len(row["experts"]), 0.01)}

    return forged(mapped(study(), "update", smooth))


@defect(
    "R010 R022 R023",
    "The drift was smoothed in every norm, but the field was recorded from the vectors.",
    Code.DIVERGED,
)
def drift_smoothed_in_all_norms() -> Report:
    def smooth(row: Json) -> Json | None:
        if row["run_id"] != "arm:close":
            return None
        n, c = len(row["experts"]), 0.01
        gram = np.zeros((2 * n, 2 * n))
        gram[np.triu_indices(2 * n)] = _scaled(row["gram"], n, c)
        uz0, uz1 = np.array(row["uz0"]), np.array(row["uz1"])
        uz = uz0 + c * (uz1 - uz0)
        norm = np.diagonal(gram)[:n] + 2 * np.diagonal(gram[:n, n:]) + np.diagonal(gram)[n:]
        zz = _state_norm(row)
        d = study().dims.d
        return {"gram": list(gram[np.triu_indices(2 * n)]), "uz1": list(uz),
                "uu1": list(norm + uz**2 * (2 / d - zz / d**2))}  # fmt: skip

    return forged(mapped(study(), "update", smooth))


@cache
def _state_norms() -> dict[tuple[str, int], float]:
    return {(r["window_id"], r["position"]): float((np.array(r["z"], dtype=np.float64) ** 2).sum())
            for r in study().rows("state") if r["run_id"] == "base"}  # fmt: skip


def _state_norm(row: Json) -> float:
    return _state_norms()[row["window_id"], row["position"]]


@defect(
    "R016 R023",
    "One arm's rows inflate the base's own updates, so that its drift looks small beside them.",
    Code.DIVERGED,
)
def base_inflated() -> Report:
    factor, d = 4.0, study().dims.d

    def inflate(row: Json) -> Json | None:
        if row["run_id"] != "arm:rewritten":
            return None
        n, zz = len(row["experts"]), _state_norm(row)
        upper = np.triu_indices(2 * n)
        gram = np.zeros((2 * n, 2 * n))
        gram[upper] = row["gram"]
        gram = gram + np.triu(gram, 1).T
        scale = np.r_[np.full(n, factor), np.ones(n)]
        gram = gram * scale[:, None] * scale[None, :]
        uz0 = np.array(row["uz0"]) * factor
        uz1 = uz0 + np.array(row["uz1"]) - np.array(row["uz0"])
        norm0, change, cross = np.diagonal(gram)[:n], np.diagonal(gram)[n:], np.diagonal(gram[:n, n:])
        radial = 2 / d - zz / d**2
        rho0, rho1 = np.array(row["rho0"]), np.array(row["rho1"])
        both = np.r_[rho1 - rho0, rho1]
        tangent, tangent0 = both @ gram @ both, rho0 @ gram[:n, :n] @ rho0
        a0 = rho0 @ uz0
        a = rho1 @ uz1 - a0

        def whole(part: Any, along: Any) -> float:
            return float(np.sqrt(part + 2 * along**2 / d * (1 - zz / d) + along**2 * zz / d**2))

        return {"gram": list(gram[upper]), "uz0": list(uz0), "uz1": list(uz1), "uu0": list(norm0 + uz0**2 * radial),
                "uu1": list(norm0 + 2 * cross + change + uz1**2 * radial), "dV_norm": float(np.sqrt(tangent)),
                "y0_norm": whole(tangent0, a0), "dy_norm": whole(tangent, a)}  # fmt: skip

    return forged(mapped(study(), "update", inflate))


@defect("R017 R027", "An arm claims the base's weights, and its layer has other tensors.", Code.DIVERGED)
def borrowed_weights() -> Report:
    base = study().rows("run")[first("run", "base")]
    s = altered("run", "arm:rewritten", "weights_digest", lambda _: base["weights_digest"])
    return forged(s.with_value("run", row_of(s, "run", run_id="arm:rewritten"), "param_distance", 0.0))


def test_upstream_must_differ_where_an_earlier_layer_does() -> None:
    base = [{"upstream": "a", "experts.0": "x"}, {"upstream": "b", "experts.0": "y"}]
    honest_arm = [{"upstream": "a", "experts.0": "z"}, {"upstream": "c", "experts.0": "y"}]
    forged_arm = [{"upstream": "a", "experts.0": "z"}, {"upstream": "b", "experts.0": "y"}]
    weights = {"base": ("w0", 0.0), "arm:x": ("w1", 0.5)}
    assert check_digests({"base": base, "arm:x": honest_arm}, weights) == []
    assert [v.rule for v in check_digests({"base": base, "arm:x": forged_arm}, weights)] == ["ATL-R017"]


@defect("R009", "An expert's update is longer than the Gram matrix says.", Code.DIVERGED)
def update_norm() -> Report:
    return _updated("uu1", lambda uu: [uu[0] * 1.001, *uu[1:]])


@defect("R009", "Inner products exceed what the norms allow.", Code.DIVERGED)
def gram_not_of_vectors() -> Report:
    return _updated("gram", lambda gram: [gram[0], 100 * gram[0], *gram[2:]])


@defect("R009", "A Gram matrix is too large to be compared.", Code.DIVERGED)
def gram_overflows() -> Report:
    return _updated("gram", lambda gram: [1.7e308] * len(gram))


@defect("R010", "The change of the field is not that of its vectors.", Code.DIVERGED)
def field_change() -> Report:
    return _updated("dV_norm", lambda norm: 0.0)


@defect("R010", "A change of the block is negative, to cancel the others in a sum.", Code.DIVERGED)
def negative_change() -> Report:
    return _updated("dy_norm", lambda norm: -norm)


@defect("R010", "The base's block output is larger than it was, so that changes look small.", Code.DIVERGED)
def large_base() -> Report:
    return _updated("y0_norm", lambda norm: 100 * norm)


@defect("R011 R023", "An arm with the base's tensors shows drift.", Code.DIVERGED)
def drift_of_equal_tensors() -> Report:
    def moved(row: Json) -> Json | None:
        if row["run_id"] != "arm:frozen":
            return None
        n, c = len(row["experts"]), 0.25  # every expert's update grows by a quarter
        base = np.zeros((2 * n, 2 * n))
        base[np.triu_indices(2 * n)] = row["gram"]
        inner = base[:n, :n] + np.triu(base[:n, :n], 1).T
        gram = np.block([[inner, c * inner], [c * inner, c * c * inner]])
        field = float(np.sqrt(np.array(row["rho0"]) @ inner @ np.array(row["rho0"])))
        return {"gram": list(gram[np.triu_indices(2 * n)]), "uz1": [(1 + c) * v for v in row["uz0"]],
                "uu1": [(1 + c) ** 2 * v for v in row["uu0"]], "dV_norm": c * field, "dy_norm": c * row["y0_norm"]}  # fmt: skip

    return forged(mapped(study(), "update", moved))


@defect("R011", "The base's rows were copied as those of an arm whose experts all changed.", Code.DIVERGED)
def no_drift_of_changed_tensors() -> Report:
    s = altered("run", "arm:frozen", "weights_digest", lambda _: OTHER)
    s = s.with_value("run", first("run", "arm:frozen"), "param_distance", 0.2)
    return forged(
        _digests(
            s, "arm:frozen", lambda d: {k: digest_bytes(v.encode()) if "experts" in k else v for k, v in d.items()}
        )
    )


# --- reproduction: routers, vectors, overlap maps, transport, divergence -------------------------------------------


@cache
def grouped_world() -> StudySimulator:
    """A tiny study whose router adds a selection bias and keeps the best groups, with a shared expert."""
    groups = grouped(noise=0.0)
    names = ("experts", "adapter", "score_space", "selection_bias", "weight_rule", "weight_scale", "group_mode", "n_groups",
             "kept_groups", "shared")  # fmt: skip
    return StudySimulator.make(
        tiny(**{name: getattr(groups, name) for name in names}, arms=(FROZEN, replace(PRESERVED, name="close")))
    )


@cache
def grouped_receipt() -> Any:
    s = grouped_world()
    return build_receipt(s.source(), s.preregistration, s.contract, s.run_log, "frozen")


def _grouped(table: str, column: str, change: Callable[[Json], Any], run_id: str = "arm:close") -> Report:
    """Change one value in the grouped study and re-issue everything; a row with full objects."""
    s = grouped_world()
    at = s.find(table, run_id=run_id)
    if table == "routing":
        state = s.rows("state")[s.find("state", run_id=run_id)]
        at = s.find(table, **{name: state[name] for name in ("run_id", "layer", "window_id", "position")})
    changed = s.with_value(table, at, column, change(s.rows(table)[at]))
    return verified(*reissued(changed, "frozen", receipt=grouped_receipt()))


@defect("R020", "An arm without groups claims to have kept two of them.", Code.DIVERGED)
def groups_of_nothing() -> Report:
    return forged(altered("layer", "arm:close", "kept_groups", lambda _: 2))


@defect("R020", "An arm's weights and its scores come from different gates.", Code.DIVERGED)
def two_gates() -> Report:
    return forged(altered("layer", "arm:close", "score_space", lambda _: "sigmoid+bias"))


@defect("R020", "An arm keeps more groups than its base, and so chooses from more experts.", Code.DIVERGED)
def more_groups_than_there_are() -> Report:
    return _grouped("layer", "kept_groups", lambda row: row["n_groups"])


@defect("R021", "A margin between groups was inflated.", Code.DIVERGED)
def group_margin_inflated() -> Report:
    return _grouped("routing", "group_margin", lambda row: row["group_margin"] + 0.5)


@defect("R021", "Admissible experts are half a group.", Code.DIVERGED)
def half_a_group() -> Report:
    def shrunk(row: Json) -> list[bool]:
        s = grouped_world()
        route = s.rows("routing")[
            s.find("routing", **{k: row[k] for k in ("run_id", "layer", "window_id", "position")})
        ]
        used = {*route["experts"], route["competitor_in"]}
        free = next(e for e, there in enumerate(row["admissible"]) if there and e not in used)
        return [there and e != free for e, there in enumerate(row["admissible"])]

    return _grouped("state", "admissible", shrunk)


@defect("R021", "A margin between groups is negative at a token whose scores nobody keeps.", Code.DIVERGED)
def negative_group_margin() -> Report:
    return verified(*reissued(_unsampled("group_margin", -1.0), "frozen", receipt=grouped_receipt()))


def _unsampled(column: str, value: Any) -> StudySimulator:
    s = grouped_world()
    sampled = {(r["window_id"], r["position"]) for r in s.rows("state")}
    at = next(
        i
        for i, r in enumerate(s.rows("routing"))
        if r["run_id"] == "arm:close" and (r["window_id"], r["position"]) not in sampled
    )
    return s.with_value("routing", at, column, value)


@defect("R022", "An arm with the base's tensors moved by less than the Gram matrix resolves.", Code.DIVERGED)
def moved_by_a_rounding() -> Report:
    return _updated("dV_norm", lambda _: 1e-9, "arm:frozen")


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
    return _updated("transport_angle", lambda _: 1.5)


@defect("R026", "An arm whose attention is the base's turns a state.", Code.DIVERGED)
def turned_by_nothing() -> Report:
    return _updated("transport_angle", lambda _: 1e-6, "arm:frozen")


@defect("R026", "An arm whose attention changed claims to turn no state.", Code.DIVERGED)
def turned_nowhere() -> Report:
    return forged(mapped(study(), "update", lambda r: {"transport_angle": 0.0} if r["run_id"] == "arm:close" else None))


@defect("R027", "A divergence is smaller than the two losses allow.", Code.DIVERGED)
def divergence_understated() -> Report:
    quiet = mapped(study(), "output", lambda r: {"kl_from_base": 0.0} if r["run_id"] == "arm:rewritten" else None)
    return forged(quiet)


@defect("R027", "A divergence is negative.", Code.DIVERGED)
def negative_divergence() -> Report:
    return forged(altered("output", "arm:frozen", "kl_from_base", lambda _: -0.1))


@defect("R027", "An arm with the base's weights diverges from it.", Code.DIVERGED)
def divergence_of_equal_weights() -> Report:
    return forged(altered("output", "arm:frozen", "kl_from_base", lambda _: 0.1))


@defect("R028", "The token that followed is called the most likely one, to raise agreement.", Code.DIVERGED)
def called_most_likely() -> Report:
    tokens = {w["window_id"]: w["tokens"] for w in study().rows("window")}

    def hit(row: Json) -> Json | None:
        return {"top1": tokens[row["window_id"]][row["position"] + 1]} if row["run_id"] == "arm:rewritten" else None

    return forged(mapped(study(), "output", hit))


@defect("R028", "A token that is predicted almost surely is not the most likely one.", Code.DIVERGED)
def sure_and_not_first() -> Report:
    at = next(i for i, r in enumerate(study().rows("output")) if r["run_id"] == "null:batch" and r["nll"] > 1.0)
    return forged(study().with_value("output", at, "nll", 0.01))


# --- reproduction: losses, scores, findings -----------------------------------------------------------------------


@defect("R012", "A loss is negative.", Code.DIVERGED)
def negative_loss() -> Report:
    return forged(altered("output", "arm:close", "nll", lambda _: -1.0))


@defect("R012", "An entropy is negative.", Code.DIVERGED)
def negative_entropy() -> Report:
    return forged(altered("output", "arm:close", "entropy", lambda _: -1.0))


@defect("R012", "An item was half right.", Code.DIVERGED)
def half_a_score() -> Report:
    return forged(altered("task", "arm:close", "score", lambda _: 0.5))


@defect("R013", "The ninth digit of a bound was changed.", Code.DIVERGED)
def ninth_digit() -> Report:
    def change(receipt: Json) -> None:
        cell = next(a for a in receipt["findings"]["arms"] if a["arm"] == "close")["cells"][0]
        cell["upper"] = float(f"{cell['upper'] * (1 + 2e-8):.9g}")

    return stated(change)


@defect("R013", "A cell that is above its threshold is stated as below.", Code.DIVERGED)
def state_of_a_cell() -> Report:
    return stated(lambda r: r["findings"]["arms"][2]["cells"][0].update(state="below"), "rewritten")


@defect("R013", "A cell was left out of the findings.", Code.DIVERGED)
def cell_left_out() -> Report:
    return stated(lambda r: r["findings"]["arms"][2]["cells"].pop(0), "rewritten")


@defect("R014", "The receipt names another model than its evidence.", Code.DIVERGED)
def model_renamed() -> Report:
    return stated(lambda r: r["subjects"][0].update(model="a famous model"))


@defect("R014", "The receipt states another numerics fingerprint.", Code.DIVERGED)
def fingerprint_restated() -> Report:
    return stated(lambda r: r["extraction"]["fingerprint"].update(dtype="float64"))


# --- decision -----------------------------------------------------------------------------------------------------


@defect("D001", "The receipt of a rewritten arm claims that it was preserved.", Code.DIVERGED)
def claim_changed() -> Report:
    return stated(lambda r: r["claim"].update(verdict="preserved"), "rewritten")


@defect("D001", "The receipt of one arm was turned to another.", Code.DIVERGED)
def claim_of_another_arm() -> Report:
    return stated(lambda r: r["claim"].update(arm="rewritten"))


@cache
def edge() -> tuple[StudySimulator, bytes]:
    """Return a study whose verdict holds under its own seeds and changes under the reviewer's."""
    arm = replace(study().settings.arms[1], name="close")
    loose = {"resamples": 60, "batches": 2, "monte_carlo_errors": 0.0, "min_clusters": 10, "rare_event_clusters": 3}
    wide = {"drift.chart_content/1": {"ratio_of_sums": 0.5}}
    s = StudySimulator.make(tiny(arms=(arm,), thresholds=wide, bootstrap=loose))
    near = build_receipt(s.source(), s.preregistration, s.contract, s.run_log, "close").findings.arms[0].cells[0].upper
    for factor in np.linspace(0.98, 1.06, 17):
        value = float(near or 0.0) * float(factor)
        channel = {
            "definition": "drift.chart_content/1",
            "rationale": "x",
            "thresholds": [{"form": "ratio_of_sums", "value": value}],
        }
        t = s.with_contract({"channels": [channel]})
        root = t.evidence_root()
        if summarise(t.source(), t.contract, t.preregistration, root).arms[0].verdict != "preserved":
            continue
        for seed in (bytes([i] * 32) for i in range(8)):
            if summarise(t.source(), t.contract, t.preregistration, root, seed).arms[0].verdict != "preserved":
                return t, seed
    raise AssertionError("no verdict at the edge")


@defect("D002", "The verdict holds under the producer's seeds and not under the reviewer's.", Code.UNPROVEN)
def lucky_resample() -> Report:
    s, seed = edge()
    receipt = build_receipt(s.source(), s.preregistration, s.contract, s.run_log, "close")
    assert exit_code(verified(s, receipt)) is Code.VERIFIED
    return verified(s, receipt, Options(seed=seed))


def adopted(rules: str, sentence: str, code: Code, make: Callable[[], Report]) -> Case:
    return Case(frozenset(f"ATL-{rule}" for rule in rules.split()), sentence, code, lambda _: make())


CASES |= {name: adopted(*parts) for name, parts in RECORD_CASES.items()}


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study().write(tmp_path_factory.mktemp("written") / "study")


@pytest.mark.parametrize("name", CASES)
def test_the_defect_is_caught_by_its_rule(name: str, written: Path, tmp_path: Path) -> None:
    case, folder = CASES[name], tmp_path / "study"
    if case.make.__code__.co_argcount and case.make.__name__ == name:
        shutil.copytree(written, folder)
    report = case.make(folder)
    fired = {p.rule for result in report.channels.values() for p in result.problems}
    assert fired == case.rules, case.defect
    assert exit_code(report) is case.code, case.defect
    for channel, result in report.channels.items():
        assert all(RULES[p.rule].channel is channel for p in result.problems)
        assert all(p.what and (p.path or p.where or p.document or p.stated) for p in result.problems)


def test_every_rule_has_a_case() -> None:
    """Replay (P) is not part of this version; every rule must be shown to fire, those of signatures in `test_authenticity`."""
    fired = {rule for case in CASES.values() for rule in case.rules} | {
        r for case in SIGNED.values() for r in case.rules
    }
    assert set(RULES) - fired == set()


def test_cases_have_their_own_sentences() -> None:
    assert len({case.defect for case in CASES.values()}) == len(CASES)
    assert all(case.defect.endswith(".") for case in CASES.values())


@pytest.mark.parametrize(("arm", "code"), [("frozen", 0), ("close", 0), ("rewritten", 1)])
def test_honest_receipts_are_believed(arm: str, code: int, written: Path) -> None:
    in_memory = verified(study(), honest(arm))
    from_files = verified(study(), honest(arm), open_evidence=lambda: ParquetBundle(written / "evidence"))
    assert int(exit_code(in_memory)) == int(exit_code(from_files)) == code
    assert not [p for result in in_memory.channels.values() for p in result.problems]
    assert in_memory == from_files


def test_an_honest_measurement_with_rows_is_believed() -> None:
    report = with_rows()
    assert exit_code(report) is Code.VERIFIED
    assert report.verdict == "supported"
    assert report.channels[Channel.REPRODUCTION].checked == 4
    assert [c.outcome for c in report.claims] == ["supported", "supported"]


def test_a_measurement_in_a_receipts_place_is_never_green() -> None:
    for verdict in ("preserved", "rewritten"):
        assert exit_code(told(measurement(), Options(require=verdict))) is Code.UNPROVEN
    assert exit_code(told(measurement(), Options(require="supported"))) is Code.VERIFIED
    assert exit_code(told(measurement(lambda m: m.update(claims=[])), Options(require="supported"))) is Code.UNPROVEN
    offline = told(measurement(), Options(profile="offline"))
    assert (exit_code(offline), headline(offline)) == (Code.VERIFIED, "CONSISTENT")


def test_a_coherent_reissue_of_honest_rows_is_believed() -> None:
    assert exit_code(forged(study())) is Code.VERIFIED


def test_a_contract_that_is_not_built_in_is_said_to_be_the_reviewers_own() -> None:
    assert any("--contract" in line for line in verified(study(), honest()).establishes_not)


def test_the_right_pin_is_recorded_as_checked() -> None:
    pinned = verified(study(), honest(), Options(pin=digest_of(study().preregistration)))
    assert exit_code(pinned) is Code.VERIFIED
    assert not any("--pin" in line for line in pinned.establishes_not)
    assert any("--pin" in line for line in verified(study(), honest()).establishes_not)


def test_a_seed_of_the_reviewer_is_recorded_as_checked() -> None:
    report = verified(study(), honest(), Options(seed=b"\x07" * 32))
    assert exit_code(report) is Code.VERIFIED
    assert report.channels[Channel.DECISION].checked == 2


@pytest.mark.parametrize("profile", ["schema", "offline"])
def test_profiles_without_reproduction_leave_the_rows_alone(profile: str) -> None:
    opened: list[str] = []
    report = verified(study(), honest(), Options(profile=profile), open_evidence=counting(study().source(), opened))
    assert exit_code(report) is Code.VERIFIED
    assert report.verdict is None
    assert Channel.REPRODUCTION not in report.channels
    assert bool(opened) is (profile == "offline")


@pytest.mark.parametrize("profile", ["release", "replay"])
def test_profiles_that_need_more_than_this_version_has_are_unproven(profile: str) -> None:
    assert exit_code(verified(study(), honest(), Options(profile=profile))) is Code.UNPROVEN


def test_a_pin_is_compared_under_every_profile() -> None:
    for profile in ("schema", "offline", "review"):
        assert exit_code(verified(study(), honest(), Options(profile=profile, pin=OTHER))) is not Code.VERIFIED


@pytest.mark.parametrize("kind", ["contract", "preregistration", "run_log"])
def test_other_documents_are_consistent_never_verified(kind: str) -> None:
    document = as_json(getattr(study(), kind))
    report = verified(study(), document, Options(profile="offline"))
    assert not report.decides
    if kind == "preregistration":  # its contract is not a built-in one
        assert exit_code(report) is Code.UNPROVEN
    else:
        assert exit_code(report) is Code.VERIFIED
    assert exit_code(verified(study(), document, Options(profile="offline", pin=OTHER))) is not Code.VERIFIED


@pytest.mark.parametrize("kind", ["contract", "preregistration", "run_log"])
@pytest.mark.parametrize("profile", ["review", "release", "replay"])
def test_another_document_in_a_receipts_place_is_never_green(kind: str, profile: str) -> None:
    report = verified(study(), as_json(getattr(study(), kind)), Options(profile=profile))
    assert exit_code(report) is Code.UNPROVEN


def test_problems_name_line_and_column_of_the_receipt() -> None:
    receipt = as_json(honest())
    receipt["subjects"][0]["model"] = "a famous model"
    raw = encoded(receipt)
    report = verified(study(), raw)
    (problem,) = report.channels[Channel.REPRODUCTION].problems
    assert problem.position is not None
    line, column = problem.position
    assert raw.decode().splitlines()[line - 1][column - 1 :].startswith('"a famous model"')


def test_later_channels_are_not_checked_after_a_failure() -> None:
    report = CASES["one_float_changed"].make(Path())
    assert report.status(Channel.REPRODUCTION) is Status.NOT_CHECKED
    assert report.verdict is None


def test_the_arm_under_test_is_frozen() -> None:
    assert study().settings.arms[0] == FROZEN
