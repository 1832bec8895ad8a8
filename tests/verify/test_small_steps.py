"""Steps of verification on their own: what they say, how much of it, and what they make of the edge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from documents.records import Json, measurement, prediction
from measures.by_hand import V0, V1, at, pair, rows, update
from signing.material import key, written
from simulator import IDENTICAL, PRESERVED, StudySimulator
from verify.forging import as_json, honest, reissued, study, submission, verified
from verify.record_defects import CASES as RECORD_CASES
from verify.record_defects import told, with_rows

from atlas_schema.claims.record import Fault
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import ArmFindings
from atlas_schema.errors import EvidenceError, RowsError, UsageError
from atlas_schema.limits import LIMITS
from atlas_schema.signing.envelope import PAYLOAD_TYPE, Envelope, Signature, pae
from atlas_schema.signing.sigstore_bundle import SigstoreTrust
from atlas_schema.signing.statement import File
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.verify import authenticity
from atlas_schema.verify.authenticity import Signed, check_keys, check_sigstore
from atlas_schema.verify.consistency import WIDEST, _check_tolerances
from atlas_schema.verify.documents import parse
from atlas_schema.verify.loading import _bytes, _contract, load, load_signatures
from atlas_schema.verify.outcome import Channel, ChannelResult, Code, Report, Status, exit_code
from atlas_schema.verify.physics.overlap import _check_returns
from atlas_schema.verify.physics.vectors import check_vectors
from atlas_schema.verify.protocol import typed_tiers
from atlas_schema.verify.records import _record
from atlas_schema.verify.rows import _window_faults
from atlas_schema.verify.sandbox import _answer, _copy, _require_no_log, _run, open_database
from atlas_schema.verify.verifier import Options, _found, _reasons


@pytest.mark.parametrize("gain", ["w", "none"])
def test_arms_that_move_by_little_or_by_nothing_break_no_rule(gain: str) -> None:
    """Two arms of the same weights share their rows, and a change far below one is a change."""
    arms = (IDENTICAL, replace(IDENTICAL, name="again"), replace(PRESERVED, name="little", size=1e-6, upstream=1e-6))
    made = StudySimulator.make(replace(study().settings, arms=arms, gain_convention=gain))
    report = verified(made, made.receipt("little"))
    assert [p.rule for r in report.channels.values() for p in r.problems] == []


@pytest.mark.parametrize("towards", [0.0, 1.0])
def test_an_arm_of_another_constant_is_told_which_whichever_sorts_first(towards: float) -> None:
    s = study()
    place = s.find("layer", run_id="arm:close")
    eps = float(s.rows("layer")[place]["eps"])
    other = float(np.nextafter(eps, towards))
    report = verified(*reissued(s.with_value("layer", place, "eps", other)))
    (found,) = (p for r in report.channels.values() for p in r.problems)
    assert found.rule == "ATL-R020"
    assert (str(other) in found.stated, str(eps) in found.recomputed) == (True, True)
    assert "sha256" not in found.stated + found.recomputed


# --- records ------------------------------------------------------------------------------------------------------


def test_a_fault_of_a_record_is_told_in_four_hundred_characters() -> None:
    result = ChannelResult(Channel.CONTRACT)
    _record(result, [Fault("ATL-C060", "x", ("id",), "s" * 500, "e" * 500)])
    (found,) = result.problems
    assert (found.stated, found.recomputed) == ("s" * 400, "e" * 400)


def test_a_claim_is_told_with_its_reason_and_only_a_refuted_one_with_its_own_record() -> None:
    """The largest value stands at 1; the second claim counts as statistics what was observed once."""

    def both(m: Json) -> None:
        m["claims"][0]["statement"]["labels"] = ["2"]
        m["claims"][1]["strength"] = "statistical"

    report = told(measurement(both))
    peak, fourfold = report.claims
    assert (peak.outcome, fourfold.outcome) == ("contradicted", "unlicensed")
    refuted, unlicensed = report.channels[Channel.DECISION].problems
    assert (refuted.what, refuted.recomputed) == ("A claim is contradicted by its own record: peak.", peak.because)
    assert (unlicensed.what, unlicensed.recomputed) == ("A claim is unlicensed: fourfold.", fourfold.because)
    assert "1" in peak.because
    assert (
        peak.because == told(measurement(lambda m: m["claims"][0]["statement"].update(labels=["2"]))).claims[0].because
    )
    assert "4" not in fourfold.because  # not what its numbers come to, but what it may not say
    (sound, _) = told(measurement()).claims
    assert sound.because


def test_a_demand_that_could_never_be_met_is_told_what_could() -> None:
    """Of a record one verdict may be required; a prediction has none."""
    record = told(measurement(), Options(require="rewritten"))
    forecast = told(prediction(), Options(require="supported"))
    assert ("expected: supported\n" in record.usage, "expected: a document that has a verdict\n" in forecast.usage) == (
        True,
        True,
    )


def test_a_record_whose_rows_fail_comes_to_no_verdict() -> None:
    for report in (RECORD_CASES[name][3]() for name in ("rows_absent", "row_added", "mean_edited")):
        assert (report.verdict, report.claims) == (None, ())
        assert report.status(Channel.DECISION) is Status.NOT_CHECKED


def test_the_binding_of_a_record_is_of_one_table_and_one_root() -> None:
    result = with_rows().channels[Channel.BINDING]
    assert (result.checked, result.total, result.unit) == (2, 2, "tables")


@pytest.mark.parametrize("kind", ["contract", "preregistration", "run_log"])
def test_a_document_that_supports_no_verdict_says_so_of_every_channel_that_asks_for_one(kind: str) -> None:
    report = verified(study(), as_json(getattr(study(), kind)))
    for channel in (Channel.BINDING, Channel.REPRODUCTION, Channel.DECISION):
        assert report.channels[channel].skipped == f"a {kind} supports no verdict; --profile offline checks its form"


# --- rows ---------------------------------------------------------------------------------------------------------


def faults(*names: str) -> tuple[str, ...]:
    planned = cast(Preregistration, SimpleNamespace(windows=[SimpleNamespace(window_id=f"w{i}") for i in range(6)]))
    (fault,) = _window_faults(rows("window", *({"window_id": n} for n in names)), planned)
    return fault


def test_missing_and_extra_windows_are_named_three_of_each() -> None:
    assert faults("w0")[2:] == ("1 windows; extra none", "6; missing w1, w2, w3")
    assert faults("w0", "w1", "w2", "w3", "w4", "x1", "x2", "x3", "x4")[2:] == (
        "9 windows; extra x1, x2, x3",
        "6; missing w5",
    )


def test_missing_cells_are_named_three_at_most() -> None:
    kept = [row for row in study().rows("state") if row["run_id"] == "base"]
    report = verified(*reissued(study().with_rows("state", kept)))
    found = next(p for p in report.channels[Channel.CONTRACT].problems if p.where == "table state")
    missing = sorted(
        {(r["run_id"], r["layer"]) for r in study().rows("state")} - {(r["run_id"], r["layer"]) for r in kept}
    )
    assert len(missing) > 3
    assert found.stated == f"without {missing[:3]}; beyond none"
    extra = [*study().rows("state"), {**study().rows("state")[0], "run_id": "arm:zz"}]
    report = verified(*reissued(study().with_rows("state", extra)))
    found = next(p for p in report.channels[Channel.CONTRACT].problems if p.where == "table state")
    assert found.stated == f"without none; beyond {[('arm:zz', study().rows('state')[0]['layer'])]}"


# --- documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "expected"), [("receipt", "receipt"), (None, "one of contract, ")])
def test_another_kind_of_document_is_told_what_is_expected(kind: Any, expected: str) -> None:
    report = Report("x")
    assert parse("x", b'{"kind": "novel"}', kind, report) is None
    (found,) = report.channels[Channel.SCHEMA].problems
    assert found.stated == "novel"
    assert found.recomputed.startswith(expected)


def test_a_tier_of_many_words_is_quoted_in_part() -> None:
    (found,) = typed_tiers({"a": [{"fidelity_tier": "é" * 200}]})
    assert (found.stated, found.path) == ("é" * 80, ("a", 0, "fidelity_tier"))


def test_a_tolerance_may_be_as_wide_as_rounding_and_no_wider() -> None:
    contract = next(iter(built_in_contracts().values()))
    for (part, name), widest in WIDEST.items():
        for value, wrong in ((widest, 0), (np.nextafter(widest, 1e9), 1)):
            inner = getattr(contract, part).model_copy(update={name: float(value)})
            result = ChannelResult(Channel.CONTRACT)
            _check_tolerances(contract.model_copy(update={part: inner}), result)
            assert [p.path for p in result.problems] == [(part, name)] * wrong


# --- maps and vectors ---------------------------------------------------------------------------------------------


def test_both_of_two_maps_that_disagree_are_counted() -> None:
    maps = rows("overlap", pair(0, 1, cond=2.0), pair(0, 3, cond=77.0), pair(1, 0, cond=9.0))
    assert [(v.stated, v.recomputed, v.wrong) for v in _check_returns(maps)] == [("2.0", "9.0", 2)]


def vectored(*positions: int, v: Any = V1, z: tuple[float, float] = (0.0, 0.0), **more: Any) -> list[Any]:
    tokens = [update(p, [0, 1, 2], V0 if v is V1 else v, v, **more) for p in (0, 1)]
    first = V0 if v is V1 else v
    kept = [
        {**at("w", p, run_id="arm:x"), "v0": first.reshape(-1).tolist(), "v1": v.reshape(-1).tolist()}
        for p in positions
    ]
    tolerances = next(iter(built_in_contracts().values())).tolerances
    return check_vectors(
        rows("update_vector", *kept), rows("update", *tokens), np.array([z, z]), tolerances, equal=False
    )


def test_vectors_of_nothing_agree_with_themselves() -> None:
    assert vectored(0, 1) == []
    assert vectored(0, 1, v=np.zeros((3, 2))) == []


@pytest.mark.parametrize("side", ["0", "1"])
def test_each_side_is_tangent_but_for_what_its_update_says(side: str) -> None:
    found = vectored(0, 1, **cast(Any, {f"uz{side}": [0.0, 0.5, 0.0]}))
    assert [v.what for v in found] == [f"v{side} is not tangent as its update's part along the state says"]
    turned = vectored(0, 1, z=(1.0, 0.0))
    assert [v.what[:2] for v in turned] == ["v0", "v1"]


def test_the_vector_without_a_row_is_named_not_the_first() -> None:
    (found,) = vectored(0, 1, 7)
    assert found.where.endswith("position=7")


@pytest.mark.parametrize("name", ["v0", "v1"])
def test_the_first_list_of_vectors_that_is_too_short_is_named(name: str) -> None:
    kept = [
        {**at("w", p, run_id="arm:x"), "v0": V0.reshape(-1).tolist(), "v1": V1.reshape(-1).tolist()} for p in range(3)
    ]
    for row in kept[1:]:
        row[name] = row[name][:-2]
    tokens = rows("update", *(update(p, [0, 1, 2], V0, V1) for p in range(3)))
    tolerances = next(iter(built_in_contracts().values())).tolerances
    with pytest.raises(RowsError) as error:
        check_vectors(rows("update_vector", *kept), tokens, np.zeros((3, 2)), tolerances, equal=False)
    assert (error.value.expected, error.value.found) == ("6", "4")
    assert str(error.value.where).endswith("position=1")


# --- signatures -------------------------------------------------------------------------------------------------

NOTHING: dict[str, str | None] = {}
TRUST = SigstoreTrust(Path("trusted_root.json"), "technician@example.org", "https://accounts.example.org")


def of_channel(check: Callable[[ChannelResult], Any]) -> ChannelResult:
    result = ChannelResult(Channel.AUTHENTICITY)
    assert check(result) is None
    return result


def enveloped(kind: str) -> Signed:
    """Return an envelope of no payload that key 1 signed as of some type."""
    made = Envelope(kind, b"{}", (Signature(key(1).sign(pae(kind, b"{}")), key(1).public.fingerprint),))
    return Signed("receipt.dsse.json", written(made))


def test_an_absent_signature_and_an_absent_bundle_are_one_gap_each() -> None:
    for result in (
        of_channel(lambda r: check_keys(None, (key(1).public,), 1, NOTHING, r)),
        of_channel(lambda r: check_sigstore(None, TRUST, NOTHING, r)),
    ):
        assert (result.checked, result.total, result.status) == (0, 1, Status.UNPROVEN)


@pytest.mark.parametrize("kind", ["a", "zzz", PAYLOAD_TYPE + "x"])
def test_signed_bytes_of_another_type_are_refused_whichever_sorts_first(kind: str) -> None:
    result = of_channel(lambda r: check_keys(enveloped(kind), (key(1).public,), 1, NOTHING, r))
    assert [(p.rule, p.stated, p.recomputed) for p in result.problems] == [("ATL-K004", f"'{kind}'", PAYLOAD_TYPE)]


@pytest.mark.parametrize("kind", ["a", "z" * 200])
def test_a_bundle_of_another_type_is_refused_before_its_payload_is_read(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticity, "verify_bundle", lambda *_: (kind, b"no JSON"))
    result = of_channel(lambda r: check_sigstore(Signed("b.json", b"{}"), TRUST, NOTHING, r))
    assert [(p.rule, p.stated) for p in result.problems] == [("ATL-K004", f"'{kind}'"[:120])]
    assert (result.checked, result.total) == (2, 2)


def test_a_signature_file_that_cannot_be_read_is_told_with_what_to_do() -> None:
    """The reader's own advice where it has one, else to obtain the file again."""
    for raw, todo in ((b'{"a": 1, "a": 2}', "no reader can know"), (b"{]", "obtain the signature file")):
        result = of_channel(lambda r, raw=raw: check_keys(Signed("x", raw), (key(1).public,), 1, NOTHING, r))  # type: ignore[misc]
        (found,) = result.problems
        assert found.rule == "ATL-K002"
        assert found.todo.startswith(todo)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_document_above_its_bound_is_read_so_that_the_verifier_can_say_so(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    with path.open("wb") as stream:
        stream.truncate(LIMITS.document_bytes + 1024)
    assert len(load(path).raw) == LIMITS.document_bytes + 1024
    with path.open("wb") as stream:
        stream.truncate(4 * LIMITS.document_bytes + 1)
    with pytest.raises(UsageError, match="far too large"):
        load(path)


def test_a_document_of_four_times_its_bound_is_still_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    with path.open("wb") as stream:
        stream.truncate(4 * LIMITS.document_bytes)
    assert len(load(path).raw) == 4 * LIMITS.document_bytes


def test_what_is_no_document_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, found in (
        ("absent", "No such file or directory"),
        ("folder", "a folder"),
        ("pipe", "a pipe or a device"),
    ):
        with pytest.raises(UsageError) as error:
            load(tmp_path / name)
        assert error.value.found == found


def test_the_contract_that_is_asked_for_is_quoted_in_part() -> None:
    with pytest.raises(UsageError) as error:
        _contract("x" * 300)
    assert error.value.found == "x" * 200


def test_a_link_is_followed_where_the_reviewer_named_it_and_nowhere_else(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "receipt.json").write_bytes(b"{}")
    (there / "receipt.dsse.json").write_bytes(b"signed")
    named = tmp_path / "named.json"
    named.symlink_to(there / "receipt.json")
    assert load(named).raw == b"{}"
    assert load(named, preregistration=named).preregistration == b"{}"
    signed = tmp_path / "signed.json"
    signed.symlink_to(there / "receipt.dsse.json")
    plain = submission(study(), honest())
    found = load_signatures(plain, None, signed, signed)
    assert (found.signature, found.bundle) == (Signed("signed.json", b"signed"),) * 2
    (here / "receipt.json").write_bytes(b"{}")
    for beside in ("receipt.dsse.json", "preregistration.json", "run_log.json", "evidence"):
        (here / beside).symlink_to(there / "receipt.json")
        with pytest.raises(UsageError, match="is a link"):
            load_signatures(load(here / "receipt.json"), here / "receipt.json", None, None)
        (here / beside).unlink()
    with pytest.raises(UsageError, match="cannot be read"):  # one that slips in after the folder was looked at
        _bytes(signed, follow=False)


def test_a_signature_beside_the_receipt_is_taken_unless_another_is_named(tmp_path: Path) -> None:
    plain, receipt = submission(study(), honest()), tmp_path / "receipt.json"
    assert load_signatures(plain, receipt, None, None).signature is None
    (tmp_path / "receipt.dsse.json").write_bytes(b"beside")
    (tmp_path / "other.json").write_bytes(b"named")
    beside, named = (load_signatures(plain, receipt, n, None).signature for n in (None, tmp_path / "other.json"))
    assert beside is not None
    assert (beside.name, beside.raw) == ("receipt.dsse.json", b"beside")
    assert named is not None
    assert (named.name, named.raw) == ("other.json", b"named")
    bundle = load_signatures(plain, None, None, tmp_path / "other.json")
    assert (bundle.signature, bundle.bundle and bundle.bundle.raw) == (None, b"named")


def test_what_is_no_database_or_too_large_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(b"not a database")
    with pytest.raises(EvidenceError) as error:
        open_database(path)
    assert error.value.found == "no DuckDB header"
    path.write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 100)
    with pytest.raises(EvidenceError) as error:
        open_database(path, replace(LIMITS, database_bytes=100))
    assert error.value.found == "112 bytes"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(UsageError) as failed:
        open_database(path)
    assert failed.value.found == "No such file or directory"


def test_a_worker_that_cannot_start_is_the_callers_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 100)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="cannot start here") as error:
        open_database(path)
    assert error.value.found == "exit status 1"


@pytest.mark.parametrize("size", [0, 1, 5, 2**20 - 1, 2**20, 2**20 + 1, 2**21 + 1])
def test_a_file_is_copied_to_its_last_byte(size: int, tmp_path: Path) -> None:
    content = bytes(at % 251 for at in range(size))
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("wb") as target:
        _copy(source, target)
    assert (tmp_path / "target").read_bytes() == content


def test_a_log_of_changes_beside_a_database_is_refused_if_it_holds_anything_or_points_anywhere(tmp_path: Path) -> None:
    path, log = tmp_path / "x.duckdb", tmp_path / "x.duckdb.wal"
    _require_no_log(path)
    log.write_bytes(b"")
    _require_no_log(path)
    log.write_bytes(b"1")
    with pytest.raises(EvidenceError) as error:
        _require_no_log(path)
    assert error.value.rule == "ATL-A026"
    for target in ("empty", "absent"):
        log.unlink()
        (tmp_path / "empty").write_bytes(b"")
        log.symlink_to(tmp_path / target)
        with pytest.raises(EvidenceError):
            _require_no_log(path)


def test_an_absent_database_is_told_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        open_database(tmp_path / "absent.duckdb")
    assert error.value.found == "No such file or directory"


@pytest.mark.parametrize(("answer", "fine"), [
    ('{"what": "x"}', True), ("{}", True), ('["x"]', False), ('{"what": 1}', False), ('{"a": "x", "b": null}', False), ("{", False),
    ('{"what": "' + "x" * (65_536 - 12) + '"}', True), ('{"what": "' + "x" * (65_537 - 12) + '"}', False),
])  # fmt: skip
def test_an_answer_is_of_texts_and_short(answer: str, fine: bool, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(answer)
    found = _answer(tmp_path / "result.json")
    assert (found == json.loads(answer)) if fine else (found is None)


@pytest.mark.parametrize(("number", "how"), [(1, "signal 1"), (9, "signal 9")])
def test_a_worker_that_is_ended_has_the_file_to_blame(
    number: int, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had begun to read: the system ended it for what it did with the file."""
    (tmp_path / "opening").write_bytes(b"")
    ended = SimpleNamespace(returncode=-number)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(EvidenceError) as error:
        _run(tmp_path, tmp_path / "x.duckdb", LIMITS)
    assert (error.value.rule, error.value.found) == ("ATL-A025", how)
    ended.returncode = 1
    with pytest.raises(RuntimeError):
        _run(tmp_path, tmp_path / "x.duckdb", LIMITS)


@pytest.mark.parametrize(("where", "shown"), [("", "x.duckdb"), ("table state", "x.duckdb, table state")])
def test_what_a_worker_refuses_is_told_of_the_file_that_was_named(
    where: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "submitted.duckdb"
    refusal = {"what": f"no {copy}", "where": where, "rule": "ATL-A023"}
    (tmp_path / "result.json").write_text(json.dumps(refusal))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    with pytest.raises(EvidenceError) as error:
        _run(tmp_path, Path("x.duckdb"), LIMITS)
    assert (error.value.what, error.value.where, error.value.rule) == ("no x.duckdb", shown, "ATL-A023")
    (tmp_path / "result.json").write_text(json.dumps({**refusal, "rule": "ATL-R001"}))
    with pytest.raises(EvidenceError) as error:
        _run(tmp_path, Path("x.duckdb"), LIMITS)
    assert (error.value.rule, error.value.found) == ("ATL-A025", "an answer that is none")


def test_an_answer_behind_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text('{"what": "x"}')
    assert _answer(tmp_path / "real.json") == {"what": "x"}
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert _answer(tmp_path / "link.json") is None
    assert _answer(tmp_path / "absent.json") is None


def test_a_receipt_without_evidence_has_no_files_to_list(tmp_path: Path) -> None:
    folder = study().write(tmp_path / "study")
    (folder / "receipt.json").write_bytes(b"{}")
    whole = load(folder / "receipt.json")
    assert None not in (whole.open_evidence, whole.open_rows, whole.manifest, whole.files)
    (tmp_path / "receipt.json").write_bytes(b"{}")
    alone = load(tmp_path / "receipt.json")
    assert (alone.open_evidence, alone.open_rows, alone.manifest, alone.files) == (None,) * 4


def test_files_are_hashed_only_where_their_names_and_sizes_are_the_signed_ones() -> None:
    """Others can be of any size, and nobody vouches for them."""
    a, b, longer = File("a", 1, "x"), File("b", 2, "y"), File("b", 3, "?")

    def found(*here: File, listed: bool = True) -> tuple[tuple[File, ...] | None, bool]:
        hashed: list[bool] = []
        given = replace(
            submission(study(), honest()),
            files=(lambda: here) if listed else None,
            manifest=lambda: (hashed.append(True), (a, b))[1],  # type: ignore[func-returns-value]
        )
        return _found(given, (a, b)), bool(hashed)

    assert found(replace(b, sha256="?"), replace(a, sha256="?")) == ((a, b), True)
    for here in ((a,), (a, longer), (a, b, File("c", 1, "?")), (), (a, replace(b, size=1)), (File("A", 1, "x"), b)):
        assert found(*here) == (here, False)
    assert found(listed=False) == ((a, b), True)
    assert _found(submission(study(), honest()), (a, b)) is None


def test_what_speaks_against_preserved_is_listed_and_nothing_else() -> None:
    """What is above or undetermined, and a task that was not reached; with their sentences."""
    cell = SimpleNamespace(layer=3, definition="d", form="f", reason="because")
    states = ("below", "above", "identical", "undetermined", "not_applicable")
    cells = [SimpleNamespace(**{**vars(cell), "layer": at, "state": s}) for at, s in enumerate(states)]
    domains = [SimpleNamespace(domain=f"d{at}", state=s, reason="so") for at, s in enumerate(states)]
    expected = (
        "layer 1 d f: above, because", "layer 3 d f: undetermined, because", "domain d1: above, so", "domain d3: undetermined, so",
    )  # fmt: skip
    for state, task in (("reached", ()), ("missed", ("task score 0.250: missed, too few",))):
        success = SimpleNamespace(state=state, value=0.25, reason="too few")
        arm = cast(ArmFindings, SimpleNamespace(cells=cells, damage=domains, success=success))
        assert _reasons(arm) == (*expected, *task)


def test_a_receipt_without_its_documents_lacks_them_and_is_no_fault_of_the_verifier() -> None:
    report = verified(study(), honest(), contract=None, preregistration=None, run_log=None)
    found = report.channels[Channel.CONTRACT]
    assert sorted(p.rule for p in found.problems) == ["ATL-C001", "ATL-C002", "ATL-C005"]
    assert (found.checked, found.total, exit_code(report)) == (0, 3, Code.UNPROVEN)


def test_a_missing_signature_is_asked_for_and_a_strangers_is_not_believed() -> None:
    from verify.test_authenticity import by, signed

    from atlas_schema.verify.verifier import verify

    two = Options(profile="offline", keys=(key(1).public, key(2).public), threshold=2)
    (missing,) = verify(signed(by(1)), two).channels[Channel.AUTHENTICITY].problems
    (stranger,) = (
        verify(signed(by(2)), Options(profile="offline", keys=(key(1).public,))).channels[Channel.AUTHENTICITY].problems
    )
    assert missing.todo == "ask for the missing signature, or lower --threshold"
    assert stranger.todo.startswith("the bytes were changed after signing")
    assert exit_code(verify(signed(by(1)), two)) is Code.UNPROVEN
