"""``atlas-verify`` as a reviewer meets it: exit codes, streams, formats, and what it says when it cannot go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pytest
from cli.commands import Command
from documents.records import measurement
from typer.testing import CliRunner
from verify.forging import study

from atlas_schema import __version__
from atlas_schema.cli.verify import app
from atlas_schema.limits import LIMITS, listed
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify import verifier

ENTRY = [sys.executable, "-m", "atlas_schema.cli.verify"]


def shell(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as its own process."""
    return subprocess.run(
        [*ENTRY, *map(str, args)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def cited(folder: Path) -> tuple[str, str]:
    return "--contract", str(folder / "contract.json")


# --- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arm", "code", "word"), [("frozen", 0, "VERIFIED"), ("rewritten", 1, "NOT_PRESERVED")])
def test_a_receipt_beside_its_study_needs_no_options_but_its_contract(
    atlas_verify: Command, written_study: Path, arm: str, code: int, word: str
) -> None:
    ended = atlas_verify(written_study / f"receipt-{arm}.json", *cited(written_study))
    assert (ended.code, ended.err) == (code, "")
    assert ended.out.startswith(f"{word} ({code}) ")


def test_the_id_of_a_built_in_contract_never_means_a_file(
    atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody who packs a study can put a file of any name where the reviewer will stand."""
    (tmp_path / "chart-preserving.v1").write_bytes((written_study / "contract.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    receipt = written_study / "receipt-frozen.json"
    assert atlas_verify(receipt, "--contract", "chart-preserving.v1").code == 3
    assert atlas_verify(receipt, "--contract", "./chart-preserving.v1").code == 0


@pytest.mark.parametrize("name", ["nosuch", "x" * 5000, ""])
def test_a_contract_that_is_not_there_is_a_matter_of_the_call(
    atlas_verify: Command, written_study: Path, name: str
) -> None:
    ended = atlas_verify(written_study / "receipt-frozen.json", "--contract", name)
    assert ended.code == 2
    assert "chart-preserving.v1" in ended.out


def test_a_required_verdict_decides_the_code(atlas_verify: Command, written_study: Path) -> None:
    ended = atlas_verify(written_study / "receipt-rewritten.json", *cited(written_study), "--require", "rewritten")
    assert ended.code == 0


def test_profiles_that_recompute_nothing_say_consistent(atlas_verify: Command, written_study: Path) -> None:
    for profile in ("schema", "offline"):
        ended = atlas_verify(written_study / "receipt-rewritten.json", *cited(written_study), "--profile", profile)
        assert ended.code == 0
        assert ended.out.startswith("CONSISTENT (0)")
        assert "VERIFIED" not in ended.out


def test_a_process_of_its_own_gives_the_same(written_study: Path) -> None:
    done = shell(written_study / "receipt-frozen.json", *cited(written_study), "--report", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["outcome"] == "VERIFIED"


def test_missing_documents_beside_the_receipt_are_unproven(atlas_verify: Command, folder: Path) -> None:
    (folder / "run_log.json").unlink()
    ended = atlas_verify(folder / "receipt-frozen.json", *cited(folder))
    assert ended.code == 6
    assert "run_log.json beside the receipt" in ended.out


def test_missing_evidence_is_unproven(atlas_verify: Command, folder: Path) -> None:
    (folder / "evidence").rename(folder / "elsewhere")
    ended = atlas_verify(folder / "receipt-frozen.json", *cited(folder))
    assert ended.code == 6
    assert "--evidence" in ended.out
    assert atlas_verify(folder / "receipt-frozen.json", *cited(folder), "--evidence", folder / "elsewhere").code == 0


def test_the_contract_that_is_not_built_in_must_be_given(atlas_verify: Command, written_study: Path) -> None:
    ended = atlas_verify(written_study / "receipt-frozen.json")
    assert ended.code == 6
    assert "--contract" in ended.out


def test_a_pin_is_compared(atlas_verify: Command, written_study: Path) -> None:
    receipt = (written_study / "receipt-frozen.json", *cited(written_study))
    assert atlas_verify(*receipt, "--pin", digest_of(study().preregistration)).code == 0
    assert atlas_verify(*receipt, "--pin", "sha256:" + "0" * 64).code == 4


def test_a_seed_is_any_text(atlas_verify: Command, written_study: Path) -> None:
    assert atlas_verify(written_study / "receipt-frozen.json", *cited(written_study), "--seed", "reviewer 7").code == 0


# --- usage --------------------------------------------------------------------------------------------------------


def test_no_receipt(atlas_verify: Command) -> None:
    ended = atlas_verify()
    assert ended.code == 2
    assert "atlas-verify receipt.json" in ended.out


def test_a_missing_file(atlas_verify: Command, tmp_path: Path) -> None:
    ended = atlas_verify(tmp_path / "receipt.json")
    assert ended.code == 2
    for part in ("cannot be read", str(tmp_path / "receipt.json"), "No such file", "check the path"):
        assert part in ended.out


def test_a_folder_in_place_of_a_receipt(atlas_verify: Command, tmp_path: Path) -> None:
    ended = atlas_verify(tmp_path)
    assert ended.code == 2
    assert str(tmp_path) in ended.out


def test_a_named_document_must_exist(atlas_verify: Command, written_study: Path, tmp_path: Path) -> None:
    for option in ("--preregistration", "--run-log", "--evidence"):
        ended = atlas_verify(written_study / "receipt-frozen.json", option, tmp_path / "absent")
        assert ended.code == 2
        assert "absent" in ended.out


def test_a_database_is_verified_like_its_bundle(atlas_verify: Command, written_study: Path, tmp_path: Path) -> None:
    database = tmp_path / "evidence.duckdb"
    study().store(database).close()
    receipt = (written_study / "receipt-frozen.json", *cited(written_study))
    ended = atlas_verify(*receipt, "--evidence", database)
    assert (ended.code, ended.out) == (0, atlas_verify(*receipt).out)


def test_a_database_with_code_in_it_is_refused_by_name(
    atlas_verify: Command, written_study: Path, tmp_path: Path
) -> None:
    database = tmp_path / "evidence.duckdb"
    study().store(database).close()
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE MACRO avg(a) AS 42")
    ended = atlas_verify(written_study / "receipt-frozen.json", *cited(written_study), "--evidence", database)
    assert ended.code == 3
    for part in ("ATL-A023", "macro avg", str(database), "Parquet bundle"):
        assert part in ended.out


def test_another_file_in_place_of_evidence(atlas_verify: Command, written_study: Path) -> None:
    ended = atlas_verify(
        written_study / "receipt-frozen.json", *cited(written_study), "--evidence", written_study / "run_log.json"
    )
    assert ended.code == 2
    assert "a folder of Parquet files or one DuckDB file" in ended.out


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("--profile", "strict", "review"), ("--require", "fine", "preserved"), ("--pin", "latest", "sha256:"),
     ("--contract", "no-such-contract", "chart-preserving.v1")],
)  # fmt: skip
def test_an_unknown_value_names_the_known_ones(
    atlas_verify: Command, written_study: Path, option: str, value: str, known: str
) -> None:
    ended = atlas_verify(written_study / "receipt-frozen.json", option, value)
    assert ended.code == 2
    assert value in ended.out
    assert known in ended.out
    assert ended.out.startswith("USAGE (2)")


@pytest.mark.parametrize("profile", ["schema", "offline"])
@pytest.mark.parametrize(
    ("option", "value"), [("--require", "rewritten"), ("--require", "preserved"), ("--seed", "mine")]
)
def test_a_demand_that_a_profile_never_looks_at_is_refused(
    atlas_verify: Command, written_study: Path, profile: str, option: str, value: str
) -> None:
    call = (written_study / "receipt-frozen.json", *cited(written_study), "--profile", profile)
    assert atlas_verify(*call).code == 0
    ended = atlas_verify(*call, option, value)
    assert ended.code == 2
    assert ended.out.startswith("USAGE (2)")
    for part in (f"Profile {profile} recomputes no verdict", option, "--profile review or release or replay"):
        assert part in ended.out


@pytest.mark.parametrize(
    ("document", "require", "known"),
    [("receipt-frozen.json", "supported", "preserved, rewritten, damaged, unmatched"), ("m.json", "rewritten", "supported"),
     ("m.json", "damaged", "supported"), ("m.json", "unmatched", "supported"),
     *((f"{name}.json", require, "--profile offline") for name in ("contract", "preregistration", "run_log")
       for require in ("supported", "rewritten"))],
)  # fmt: skip
def test_a_requirement_that_a_kind_of_document_can_never_meet_is_refused(
    atlas_verify: Command, folder: Path, document: str, require: str, known: str
) -> None:
    (folder / "m.json").write_text(json.dumps(measurement()), encoding="utf-8")
    (folder / "evidence" / "task.parquet").unlink()  # nothing is read to find it out
    call = (folder / document, *(cited(folder) if document != "m.json" else ()))
    assert atlas_verify(*call).code not in (0, 1, 2)
    ended = atlas_verify(*call, "--require", require)
    assert ended.code == 2
    for part in (
        "USAGE (2)",
        f"can be '{require}'",
        known,
        f"found:    --require {require}",
        "check that this is the document you mean",
    ):
        assert part in ended.out
    for profile in ("schema", "offline"):
        assert "recomputes no verdict" in atlas_verify(*call, "--require", require, "--profile", profile).out


def test_who_requires_nothing_asks_about_a_receipt(atlas_verify: Command, folder: Path) -> None:
    """Another document in its place is no matter of the call: said or not, the demand is the same."""
    (folder / "m.json").write_text(json.dumps(measurement()), encoding="utf-8")
    for name in ("m", "contract", "preregistration", "run_log"):
        call = (folder / f"{name}.json", *(cited(folder) if name != "m" else ()))
        assert atlas_verify(*call).code == atlas_verify(*call, "--require", "preserved").code == 6


def test_a_call_that_was_not_carried_out_looked_at_nothing(atlas_verify: Command, written_study: Path) -> None:
    receipt = written_study / "receipt-frozen.json"
    for call in ((written_study / "absent.json",), (receipt, "--require", "supported"), (receipt, "--profile", "strict"),
                 (receipt, "--profile", "release", "--seed", "")):  # fmt: skip
        report = json.loads(atlas_verify(*call, "--report", "json").out)
        assert (report["exit_code"], report["verdict"], report["does_not_establish"]) == (2, None, [])
        for entry in report["channels"]:
            assert (entry["status"], entry["checked"], entry["total"], entry["problems"]) == ("not_checked", 0, 0, [])
            assert entry["skipped"] == "the call was refused: nothing was looked at"


def test_a_seed_for_what_has_no_bootstrap_is_refused(atlas_verify: Command, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(measurement()), encoding="utf-8")
    call = (tmp_path / "m.json", "--require", "supported")
    assert atlas_verify(*call).code == 0
    ended = atlas_verify(*call, "--seed", "mine")
    assert (ended.code, "A measurement has no bootstrap" in ended.out) == (2, True)


def test_an_unknown_format_and_an_unknown_option(atlas_verify: Command, written_study: Path) -> None:
    ended = atlas_verify(written_study / "receipt-frozen.json", "--report", "pdf")
    assert (ended.code, ended.out) == (2, "")
    assert "text, json" in ended.err
    ended = atlas_verify(written_study / "receipt-frozen.json", "--believe")
    assert (ended.code, ended.out) == (2, "")
    assert "--believe" in ended.err


def test_a_file_far_too_large_is_not_read(atlas_verify: Command, tmp_path: Path) -> None:
    huge = tmp_path / "receipt.json"
    with huge.open("wb") as stream:
        stream.truncate(5 * LIMITS.document_bytes)
    ended = atlas_verify(huge)
    assert ended.code == 2
    assert "too large" in ended.out


def test_a_link_out_of_the_study_is_not_followed(atlas_verify: Command, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    for name in ("run_log.json", "evidence"):
        kept = (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(secret if name.endswith("json") else kept)
        ended = atlas_verify(folder / "receipt-frozen.json", *cited(folder))
        assert ended.code == 2
        assert "beside the receipt is a link" in ended.out
        assert "password" not in ended.out
        (folder / name).unlink()
        kept.rename(folder / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_beside_the_receipt_does_not_hang(atlas_verify: Command, folder: Path) -> None:
    (folder / "run_log.json").unlink()
    os.mkfifo(folder / "run_log.json")
    assert atlas_verify(folder / "receipt-frozen.json", *cited(folder)).code == 2


def test_an_inadmissible_receipt_is_a_verdict_on_the_receipt_not_on_the_call(
    atlas_verify: Command, tmp_path: Path
) -> None:
    (tmp_path / "receipt.json").write_bytes(b'{"kind": "receipt", "kind": "contract"}')
    assert atlas_verify(tmp_path / "receipt.json").code == 3


# --- reports ------------------------------------------------------------------------------------------------------


def test_reports_to_files_leave_the_terminal_alone(atlas_verify: Command, written_study: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    ended = atlas_verify(written_study / "receipt-frozen.json", *cited(written_study), "--report", f"json={target}")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    report = json.loads(target.read_text())
    assert report["exit_code"] == 0
    assert [c["status"] for c in report["channels"] if c["required"]] == ["passed"] * 6


def test_several_reports_at_once(atlas_verify: Command, written_study: Path, tmp_path: Path) -> None:
    receipt = (written_study / "receipt-rewritten.json", *cited(written_study))
    ended = atlas_verify(*receipt, "--report", "text", "--report", f"json={tmp_path / 'r.json'}")
    assert ended.code == json.loads((tmp_path / "r.json").read_text())["exit_code"] == 1
    assert ended.out.startswith("NOT_PRESERVED (1)")


def test_json_is_json_whatever_happens(atlas_verify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = atlas_verify(tmp_path / "absent.json", "--report", "json")
    assert json.loads(ended.out)["exit_code"] == ended.code == 2
    (tmp_path / "bad.json").write_bytes(b"\xff")
    ended = atlas_verify(tmp_path / "bad.json", "--report", "json")
    assert json.loads(ended.out)["exit_code"] == ended.code == 3
    monkeypatch.setattr(verifier, "verify", _broken)
    ended = atlas_verify(tmp_path / "bad.json", "--report", "json")
    assert json.loads(ended.out)["exit_code"] == ended.code == 70


def test_a_report_that_cannot_be_written(atlas_verify: Command, written_study: Path, tmp_path: Path) -> None:
    target = tmp_path / "no" / "such" / "folder.json"
    ended = atlas_verify(written_study / "receipt-frozen.json", "--profile", "schema", "--report", f"json={target}")
    assert ended.code == 2
    assert str(target) in ended.err


# --- faults -------------------------------------------------------------------------------------------------------


def _broken(*_: object) -> NoReturn:
    raise RuntimeError("boom")


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_fault_of_the_verifier_is_never_a_verdict(
    atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "verify", _broken)
    ended = atlas_verify(written_study / "receipt-frozen.json")
    assert ended.code == 70
    assert ended.out.startswith("INTERNAL (70)")
    assert "RuntimeError: boom" in ended.out
    assert "Traceback" not in ended.out + ended.err


class Panic(BaseException):
    """What a library in Rust raises when it panics: no `Exception`, so that it passes most nets."""


@pytest.mark.parametrize("where", ["atlas_schema.verify.verifier.verify", "atlas_schema.reports.text.render"])
def test_a_panic_of_a_library_is_never_a_verdict(
    atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def panic(*_: object, **__: object) -> None:
        raise Panic("out of range")

    monkeypatch.setattr(where, panic)
    ended = atlas_verify(written_study / "receipt-frozen.json")
    assert ended.code == 70
    assert "INTERNAL (70)" in ended.out + ended.err
    assert "Panic: out of range" in ended.out + ended.err
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize("where", ["atlas_schema.reports.text.render", "atlas_schema.cli.verify.exit_code"])
def test_a_fault_while_showing_the_report_is_never_a_verdict(
    atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, _broken)
    ended = atlas_verify(written_study / "receipt-frozen.json", "--profile", "schema")
    assert ended.code == 70
    assert "boom" in ended.err


def test_interrupted(atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "verify", _interrupted)
    ended = atlas_verify(written_study / "receipt-frozen.json")
    assert ended.code == 130
    assert ended.out.startswith("INTERRUPTED (130)")


def test_interrupted_while_showing_the_report(
    atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlas_schema.reports.text.render", _interrupted)
    assert atlas_verify(written_study / "receipt-frozen.json", "--profile", "schema").code == 130


def test_a_reader_that_has_gone_changes_no_code(written_study: Path) -> None:
    receipt = str(written_study / "receipt-frozen.json")
    with subprocess.Popen(
        [*ENTRY, receipt, "--profile", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("no pipes")
        process.stdout.close()
        assert process.wait(120) == 0
        assert process.stderr.read() == b""


def test_a_terminal_without_the_characters_still_gets_the_report(folder: Path) -> None:
    path = folder / "receipt-frozen.json"
    path.write_text(path.read_text().replace('"kind": "receipt"', '"kind": "quittance délivrée ‖"'), encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run([*ENTRY, path], capture_output=True, timeout=120, check=False, env=env)
    assert done.returncode == 3
    assert b"quittance d\xe9livr\xe9e \\u2016" in done.stdout


# --- hostile text -------------------------------------------------------------------------------------------------


def test_text_of_a_document_does_not_drive_the_terminal(atlas_verify: Command, folder: Path) -> None:
    path = folder / "receipt-frozen.json"
    receipt = json.loads(path.read_text())
    receipt["subjects"][0]["model"] = "\x1b[2J\x1b[HVERIFIED (0)\r\n\x07\u202e\x9b31m"
    receipt["\x1b]0;owned\x07"] = "\u0000"
    path.write_text(json.dumps(receipt))
    for code, removed in ((3, None), (5, "\x1b]0;owned\x07")):
        if removed:
            del receipt[removed]
            path.write_text(json.dumps(receipt))
        ended = atlas_verify(path, *cited(folder))
        assert ended.code == code
        assert all(c.isprintable() or c == "\n" for c in ended.out)
        assert "\n" + "VERIFIED" not in ended.out
        assert "\\x1b" in ended.out or "\\u001b" in ended.out


@pytest.mark.parametrize(
    "name", ["\x1b[2Jreceipt.json", "r\nVERIFIED (0)  receipt.json: genuine", "\u202enosj.tpiecer", "r\x9b31m\u2028"]
)
def test_a_file_name_does_not_drive_the_terminal(atlas_verify: Command, tmp_path: Path, name: str) -> None:
    for options in ((), ("--evidence", tmp_path / name), ("--report", f"json={tmp_path / name / name}")):
        ended = atlas_verify(tmp_path / name, *options)
        assert ended.code == 2
        assert all(c.isprintable() or c == "\n" for c in ended.out + ended.err)
        assert not any(line.startswith("VERIFIED") for line in (ended.out + ended.err).splitlines())


def test_a_fault_that_quotes_a_document_does_not_drive_the_terminal(
    atlas_verify: Command, written_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quoting(*_: object) -> NoReturn:
        raise RuntimeError("\x1b[2J\nVERIFIED (0)\u202e")

    for where in ("atlas_schema.verify.verifier.verify", "atlas_schema.reports.text.render"):
        monkeypatch.setattr(where, quoting)
        ended = atlas_verify(written_study / "receipt-frozen.json", "--profile", "schema")
        assert ended.code == 70
        assert all(c.isprintable() or c == "\n" for c in ended.out + ended.err)
        assert "\nVERIFIED" not in ended.out + ended.err


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_devices_and_pipes_are_not_read(atlas_verify: Command, written_study: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        for options in ((path,), (written_study / "receipt-frozen.json", "--run-log", path)):
            ended = atlas_verify(*options)
            assert ended.code == 2
            assert "not a regular file" in ended.out
    assert (
        atlas_verify(written_study / "receipt-frozen.json", *cited(written_study), "--evidence", "/dev/zero").code == 2
    )


# --- information --------------------------------------------------------------------------------------------------


def test_version_limits_and_help() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).output == f"atlas-verify {__version__}\n"
    limits = runner.invoke(app, ["--limits"])
    assert limits.exit_code == 0
    for name, value in asdict(LIMITS).items():
        assert f"{name} " in limits.output
        assert f" {value:,} " in limits.output
    assert all(f" {unit} " in limits.output for _, _, unit, _ in listed())
    text = runner.invoke(app, ["--help"])
    assert text.exit_code == 0
    for part in ("6 UNPROVEN", "70 INTERNAL", "--pin", "--seed", "--profile"):
        assert part in text.output


def test_the_demo_comes_out_as_expected(atlas_verify: Command) -> None:
    assert atlas_verify("--demo").code == 0


# --- a reader that has gone, and calls that stand alone --------------------------------------------------------------


@pytest.mark.parametrize(("args", "code"), [
    (["--limits"], 0), (["--version"], 0), (["--help"], 0), (["x.json", "--report", "nope"], 2), (["--bogus"], 2), (["absent.json"], 2),
])  # fmt: skip
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_has_gone_changes_no_exit_code(args: list[str], code: int, buffered: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    env = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    done = subprocess.run([*ENTRY, *args], stdout=writing, stderr=writing, timeout=120, check=False, env=env)
    os.close(writing)
    assert done.returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is full")
@pytest.mark.parametrize("args", [["--limits"], ["--version"], ["--help"]])
def test_output_that_cannot_be_written_is_said(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*ENTRY, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (2, "The output could not be written: No space left on device\n")


@pytest.mark.parametrize(("args", "found"), [
    (["--demo", "--require", "damaged"], "--require"), (["--demo", "--profile", "release", "--pin", "x"], "--pin, --profile"),
    (["--demo", "--report", "json"], "--report"), (["receipt.json", "--limits"], "a receipt"), (["receipt.json", "--version"], "a receipt"),
    (["--demo", "--run-log", "x"], "--run-log"),
])  # fmt: skip
def test_what_stands_alone_takes_no_demand_in_silence(atlas_verify: Command, args: list[str], found: str) -> None:
    ended = atlas_verify(*args)
    assert ended.code == 2
    assert "stands alone" in ended.err
    told = next(line for line in ended.err.splitlines() if "found:" in line).split("found:")[1]
    assert sorted(told.strip().split(", ")) == sorted(found.split(", "))


def test_an_empty_seed_is_no_seed(atlas_verify: Command, written_study: Path) -> None:
    ended = atlas_verify(written_study / "receipt-frozen.json", "--seed", "")
    assert ended.code == 2
    assert "--seed is empty" in ended.out
