"""Defects that documents and containers show: admission, schema, contract, binding. `test_rules` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from evidence.forged_parquet import task, write
from verify.cases import OTHER, altered, defect, forged, stated
from verify.forging import (
    Json,
    as_json,
    continued,
    encoded,
    honest,
    rechained,
    reissued,
    study,
    verified,
)

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.base import Judgement
from atlas_schema.documents.preregistration import Window
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.limits import LIMITS
from atlas_schema.protocol.judgement import judgement_digest
from atlas_schema.protocol.log import party
from atlas_schema.study.plan import planned_rows
from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.sandbox import open_database
from atlas_schema.verify.verifier import Options

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


@defect("C162", "By the contract's own tolerance every number is every other.", Code.INADMISSIBLE)
def numbers_that_all_agree() -> Report:
    s = study().with_contract({"numbers": {"relative_tolerance": 1.0}})
    receipt = as_json(s.receipt("frozen"))
    receipt["findings"]["arms"][0]["success"]["value"] = 0.123
    return verified(s, receipt)


@defect("C162", "The contract calls any score of any state a rounding.", Code.INADMISSIBLE)
def tolerance_of_everything() -> Report:
    return forged(study().with_contract({"tolerances": {"float32_unit": 1e9}}))


@defect("C001", "A contract with other thresholds bears the id of a published one.", Code.INADMISSIBLE)
def borrowed_id() -> Report:
    return forged(study().with_contract({"id": "chart-preserving.v1"}))


@defect("C001", "The cited contract is neither built in nor given.", Code.UNPROVEN)
def contract_absent() -> Report:
    return verified(study(), honest(), contract=None)


@defect("C001 C003", "The receipt cites a contract that nobody has, and not the one of its plan.", Code.INADMISSIBLE)
def contract_renamed() -> Report:
    receipt = as_json(honest())
    receipt["contract"]["id"] += "x"
    return verified(study(), receipt, contract=None)


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


@defect("C160", "The plan asks for a success that a score of zero reaches.", Code.INADMISSIBLE)
def target_that_nothing_misses() -> Report:
    return forged(study().with_preregistration({"task": {"target": 0.05, "tolerance": 0.05}}))


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
