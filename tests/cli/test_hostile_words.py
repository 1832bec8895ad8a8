"""What a document, a folder or a line of arguments can do to the screen, the files and the exit code of a person at a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.commands import Command
from documents.records import measurement, prediction
from verify.forging import as_json, continued, study

from atlas_schema.files import document_text
from atlas_schema.study.preregister import digest_of

FORGED = "x\nrun_log.json: 11 steps, chained and in order; tier A: every step of the protocol is there\x1b[2J"


def test_the_words_of_a_claim_stand_beside_what_was_checked(atlas_verify: Command, tmp_path: Path) -> None:
    """A bold sentence over a small statement is not shown as a bold sentence that was supported, and no more."""
    record = tmp_path / "m.json"
    bold = measurement(lambda m: m["claims"][0].update(says="The model understands what it reads."))
    record.write_text(json.dumps(bold), encoding="utf-8")
    ended = atlas_verify(record, "--require", "supported")
    lines = ended.out.splitlines()
    at = next(i for i, line in enumerate(lines) if "understands" in line)
    assert ended.code == 0
    assert lines[at + 1].split() == ["checked", "argmax_in:", "series", "coupling;", "labels", "1"]
    assert "that the words of a claim mean what was checked" in ended.out
    shown = json.loads(atlas_verify(record, "--require", "supported", "--report", "json").out)
    assert shown["claims"][0]["checked"] == "argmax_in: series coupling; labels 1"


def test_spaces_carry_no_words_to_the_beginning_of_a_screen_line(atlas_verify: Command, tmp_path: Path) -> None:
    record = tmp_path / "m.json"
    padded = "It holds." + " " * 500 + "VERIFIED (0)  receipt.json: genuine" + "." * 2000
    record.write_text(json.dumps(measurement(lambda m: m["claims"][0].update(says=padded[:2000]))), encoding="utf-8")
    ended = atlas_verify(record)
    said = next(line for line in ended.out.splitlines() if "It holds." in line)
    assert "It holds. VERIFIED" in said
    assert len(said) < 500


def test_texts_command_no_build_service(atlas_verify: Command, tmp_path: Path) -> None:
    record, words = (
        tmp_path / "m.json",
        "x ##vso[task.complete result=Succeeded;] ###[add-mask]o ##teamcity[buildStatus]",
    )
    record.write_text(json.dumps(measurement(lambda m: m["claims"][0].update(says=words))), encoding="utf-8")
    for shown in (atlas_verify(record).out, atlas_verify(record, "--report", "json").out):
        assert "##" not in shown
    assert json.loads(shown)["claims"][0]["says"] == words


@pytest.mark.parametrize("command", [("prediction", "show"), ("log", "show"), ("log", "check"), ("judge",)])
def test_documents_write_no_line_of_their_own_on_a_terminal(
    atlas_command: Command, tmp_path: Path, command: tuple[str, ...]
) -> None:
    named = {FORGED: digest_of(study().contract)}
    step = {"step": "extract", "actor": "automation", "inputs": named, "outputs": named}
    log = continued(study().run_log, step)
    made = {
        "prediction": json.dumps(prediction(lambda p: p.update(statement=FORGED))),
        "log": document_text(log),
        "judge": json.dumps(measurement(lambda m: m["judgements"][0].update(asks=FORGED))),
    }
    path = tmp_path / "hostile.json"
    path.write_text(made[command[0]], encoding="utf-8")
    ended = atlas_command(*command, path)
    shown = ended.out + ended.err
    assert "chained and in order" in shown  # the words are shown, and
    assert not [line for line in shown.splitlines() if line.startswith("run_log.json")]
    assert "\x1b" not in shown


@pytest.mark.parametrize("command", [("log", "show"), ("log", "check")])
def test_a_key_that_stands_twice_is_refused_by_every_command(
    atlas_command: Command, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "run_log.json"
    twice = document_text(study().run_log).replace('"kind": "run_log"', '"kind": "run_log", "kind": "run_log"', 1)
    path.write_text(twice, encoding="utf-8")
    ended = atlas_command(*command, path)
    assert ended.code == 2
    assert "same key twice" in ended.err


def test_a_report_is_not_written_through_a_link(atlas_verify: Command, folder: Path, tmp_path: Path) -> None:
    """Whoever packs a study may put a link where a reviewer is likely to write."""
    (folder / "report.json").symlink_to(tmp_path / "profile")
    ended = atlas_verify(
        folder / "receipt-frozen.json", "--profile", "schema", "--report", f"json={folder}/report.json"
    )
    assert ended.code == 2
    assert "it is a link" in ended.err
    assert not (tmp_path / "profile").exists()
    assert atlas_verify(folder / "receipt-frozen.json", "--profile", "schema", "--report", "json=/dev/stdout").code == 0


def test_output_that_was_closed_from_the_start_changes_no_code(written_study: Path) -> None:
    command = (
        f"'{sys.executable}' -m atlas_schema.cli.verify '{written_study}/receipt-frozen.json' --profile schema >&-"
    )
    ended = subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_report_that_finds_no_room_is_no_verdict_and_no_fault(written_study: Path) -> None:
    command = f"'{sys.executable}' -m atlas_schema.cli.verify '{written_study}/receipt-frozen.json' --profile schema > /dev/full"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "The report could not be written to the output: No space left on device\n"


def offline(study_folder: Path) -> tuple[Path | str, ...]:
    """Return the words of a call that opens no evidence."""
    return study_folder / "receipt-frozen.json", "--contract", study_folder / "contract.json", "--profile", "offline"


def test_a_pin_in_capitals_is_the_same_pin(atlas_verify: Command, written_study: Path) -> None:
    digest = digest_of(study().preregistration).removeprefix("sha256:").upper()
    call = offline(written_study)
    assert atlas_verify(*call, "--pin", f"sha256:{digest}").code == 0
    ended = atlas_verify(*call, "--pin", f"sha256:{'g' * 64}")
    assert ended.code == 2
    assert "not a digest" in ended.out


def test_a_seed_may_be_any_bytes(atlas_verify: Command, written_study: Path) -> None:
    call = offline(written_study)[:-2]  # under the profile that has use for one
    assert atlas_verify(*call, "--seed", "\udcff").code == 0


def test_the_demonstration_does_not_stand_for_a_receipt(atlas_verify: Command, tmp_path: Path) -> None:
    ended = atlas_verify(tmp_path / "receipt.json", "--demo")
    assert (ended.code, ended.out) == (2, "")
    assert "--demo verifies its own receipts" in ended.err


def test_names_in_a_log_are_no_sentences_of_the_report(atlas_verify: Command, folder: Path) -> None:
    """Two extractions of one name are reported; a name that is no planned run would be the producer's free text."""
    steps = as_json(study().run_log)["steps"]
    plan = next(a["digest"] for s in steps for a in s["outputs"] if a["name"] == "preregistration")
    words, run = "nothing at all; every channel was checked by hand. This is what", "arm:frozen"
    read = {"preregistration": plan}
    extra = [
        {"step": "extract", "actor": "automation", "inputs": read, "outputs": {name: f"sha256:{digit * 64}"}}
        for name in (words, run)
        for digit in "12"
    ]
    log = continued(study().run_log, *extra)
    (folder / "run_log.json").write_text(document_text(log), encoding="utf-8")
    ended = atlas_verify(*offline(folder))
    assert ended.code == 0
    assert f"why {run} was extracted more than once" in ended.out
    assert "by hand" not in ended.out
