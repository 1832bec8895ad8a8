"""The denominators of a report are what was looked at: documents, tables, cells, rows and stated numbers, counted here by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verify.forging import as_json, honest, reissued, study, verified
from verify.test_authenticity import FILES, REVIEW, by, plain, signed

from atlas_schema.signing.sigstore_bundle import SigstoreTrust
from atlas_schema.verify.binding import check_binding
from atlas_schema.verify.outcome import Channel, ChannelResult, Code, Report, Status, exit_code
from atlas_schema.verify.verifier import Options, verify

DOCUMENTS = ("receipt", "pre-registration", "run log", "contract")


def counted(report: Report) -> dict[str, tuple[int, str]]:
    assert all(r.checked == r.total for r in report.channels.values())
    return {c.value: (r.checked, r.unit) for c, r in report.channels.items()}


def stated_values(value: Any) -> int:
    if isinstance(value, (dict, list)):
        return sum(stated_values(v) for v in (value.values() if isinstance(value, dict) else value))
    return 1


def expected() -> dict[str, tuple[int, str]]:
    s = study()
    runs, layers, rows = 8, 1, s.counts()
    assert (len(s.preregistration.arms), len(s.contract.nuisances)) == (3, 4)
    documents = (
        1 + 1 + 1 + 5 + 3 + 3 + 3
    )  # contract, its id, chain, protocol, plan, what the receipt cites, its place in the log
    # Windows; runs of five tables by layer or alone, of two tables without the base, and of overlap for base and arms.
    cells = 1 + 6 * runs * layers + 2 * (runs - 1) * layers + (1 + 3) * layers
    looked = sum(rows[t] for t in ("layer", "overlap", "routing", "update", "update_vector", "output", "task"))
    looked += 2 * rows["state"]  # in themselves, and against the routing rows of the same positions
    physics = 3 + looked + runs  # run table against receipt, plan and contract; the tensor digests of every run
    numbers = stated_values(as_json(honest())["findings"])
    return {
        "admission": (len(DOCUMENTS) + len(s.tables), "checks"), "schema": (len(DOCUMENTS), "checks"),
        "contract": (documents + cells, "checks"), "binding": (len(s.tables) + 1, "tables"),
        "reproduction": (physics + numbers, "rows and numbers"), "decision": (1, "checks"),
    }  # fmt: skip


def test_every_document_table_cell_row_and_number_is_counted_once() -> None:
    assert counted(verified(study(), honest())) == expected()


def test_files_and_signatures_are_counted_beside_them() -> None:
    # Threshold, type and statement, a signature, four documents; then every file, and that there are no more.
    assert counted(verify(signed(by(1)), REVIEW)) == {
        **expected(), "authenticity": (8, "checks"), "binding": (len(study().tables) + 1 + len(FILES) + 1, "tables and files"),
    }  # fmt: skip


def test_a_pin_is_one_check_more() -> None:
    pin = study().preregistration_digest()
    found, plain_ones = counted(verified(study(), honest(), Options(pin=pin))), expected()
    assert found["binding"][0] == plain_ones["binding"][0] + 1
    assert {**found, "binding": plain_ones["binding"]} == plain_ones


def test_a_second_seed_is_one_decision_more() -> None:
    assert counted(verified(study(), honest(), Options(seed=b"\x07" * 32)))["decision"] == (2, "checks")


def test_what_is_absent_is_a_gap_in_the_denominator() -> None:
    for change, channel in (
        ({"run_log": None}, Channel.CONTRACT), ({"preregistration": None}, Channel.CONTRACT), ({"contract": None}, Channel.CONTRACT),
        ({"open_evidence": None}, Channel.BINDING),
    ):  # fmt: skip
        report = verified(study(), honest(), **change)
        result = report.channels[channel]
        assert (result.total - result.checked, result.status) == (1, Status.UNPROVEN), change
        assert exit_code(report) is Code.UNPROVEN


def test_a_bundle_that_is_asked_for_and_absent_is_one_gap() -> None:
    asked = Options(
        sigstore=SigstoreTrust(Path("trusted_root.json"), "technician@example.org", "https://accounts.example.org")
    )
    report = verify(plain(), asked)
    result = report.channels[Channel.AUTHENTICITY]
    assert (result.checked, result.total, [p.rule for p in result.problems]) == (0, 1, ["ATL-K007"])
    assert exit_code(report) is Code.UNPROVEN


def test_files_that_cannot_be_compared_are_a_gap_each() -> None:
    whole = plain()
    report = verify(signed(by(1), manifest=None), REVIEW)
    assert whole.manifest is not None
    result = report.channels[Channel.BINDING]
    assert (result.total - result.checked, result.status) == (len(FILES), Status.UNPROVEN)


def test_a_table_left_out_of_the_receipt_hides_no_other() -> None:
    from atlas_schema.documents.receipt import Receipt
    from atlas_schema.evidence.source import table_roots

    _, receipt = reissued(study())
    tables = receipt["evidence"]["tables"]
    tables[2]["rows"] += 1
    tables[3]["root"] = tables[4]["root"]
    receipt["evidence"]["tables"] = tables[1:]
    result = ChannelResult(Channel.BINDING)
    check_binding(Receipt.model_validate(receipt, strict=False), table_roots(study().source()), result)
    assert [(p.rule, p.path[-2:]) for p in result.problems] == [
        ("ATL-B001", ("evidence", "tables")), ("ATL-B002", (2, "rows")), ("ATL-B003", (3, "root")),
    ]  # fmt: skip
    assert result.checked == result.total == len(tables) + 1
    assert result.unit == "tables"
    beside_files = ChannelResult(Channel.BINDING, unit="tables and files")
    check_binding(honest(), table_roots(study().source()), beside_files)
    assert (beside_files.unit, beside_files.problems) == ("tables and files", [])
