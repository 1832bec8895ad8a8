"""``atlas vocab``, ``log``, ``judge`` and ``transcribe``, from a newcomer's terminal to a log of tier A.

What asks a person is run at a pseudo-terminal, in a process of its own: there is no other way to answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli.commands import Command
from cli.terminal import at_terminal
from transcription.test_transcription import ONE, RUN, TWO, lines

from atlas_schema.canonical import digest_bytes
from atlas_schema.cli import vocab
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.read import Read
from atlas_schema.documents.run_log import RunLog
from atlas_schema.files import read_document
from atlas_schema.vocabulary import load_vocabulary

STIMULUS = b"What is the capital?\nAnd now?\n"


@pytest.fixture
def place(tmp_path: Path, atlas_command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a declared study and a registered stimulus."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.txt").write_text("the capital will be named")
    (tmp_path / "prompts.txt").write_bytes(STIMULUS)
    assert atlas_command("log", "declare", "plan.txt", "--party", "Lab A").code == 0
    assert atlas_command("log", "stimulus", "prompts.txt", "--name", "capitals", "--version", "1").code == 0
    return tmp_path


def write_raw(folder: Path, **changes: object) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stimulus = {"name": "capitals", "version": "1", "digest": digest_bytes(STIMULUS)}
    run = {**RUN, "started": now, "ended": now, "stimulus": stimulus, **changes}
    (folder / "raw.jsonl").write_bytes(lines(run, ONE, TWO))


FIELD = "/judgements/0/answer"
READ = ["A. Person", "It will hedge.", "A refusal.", "y"]
JUDGEMENT = ["calm", "slept well", "A. Person", "y"]


def test_every_step_of_the_protocol_gives_tier_a(place: Path, atlas_command: Command, atlas_verify: Command) -> None:
    assert at_terminal(place, READ, "log", "read0").code == 0
    write_raw(place)
    assert "judgements left blank" in atlas_command("transcribe", "raw.jsonl").out
    assert at_terminal(place, READ, "log", "read1").code == 0
    assert atlas_command("log", "issue", "measurement.json", "--party", "Lab A").code == 0
    same = atlas_command("log", "verify", "measurement.json", "--party", "lab a")
    assert (same.code, "The verifying party is the extracting one." in same.err) == (2, True)
    assert "tier B: no verification; no judgement" in atlas_command("log", "show").out
    assert atlas_command("log", "verify", "measurement.json", "--party", "Lab B").code == 0
    ended = at_terminal(place, JUDGEMENT, "judge", "measurement.json", FIELD)
    assert "How are you?" in ended.out
    assert ended.code == 0
    checked = atlas_command("log", "check")
    assert "tier A: every step of the protocol is there" in checked.out
    for file in ("measurement.json", "run_log.json", "read0.json", "read1.json"):
        shown = atlas_verify(file, "--profile", "offline")
        assert (shown.code, "tier A" in shown.out) == (0, True), shown.out
    made = read_document(place / "measurement.json", Measurement, "measurement").judgements[0].answer
    assert made is not None
    assert (made.value, made.basis, made.author) == ("calm", "slept well", "A. Person")
    step = read_document(place / "run_log.json", RunLog, "log").steps[-1]
    assert (step.step, step.actor, step.time) == ("judge", "technician", made.time)


@pytest.mark.parametrize("words", [("log", "read0"), ("judge", "measurement.json", FIELD)])
def test_what_asks_a_person_refuses_where_nobody_can_answer(
    words: tuple[str, ...], place: Path, atlas_command: Command
) -> None:
    write_raw(place)
    if words[0] == "judge":
        atlas_command("transcribe", "raw.jsonl")
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    ended = atlas_command(*words)
    assert ended.code == 2
    assert "asks a person, and nobody can be asked here" in ended.err
    assert {p.name: p.read_bytes() for p in place.iterdir()} == before


def test_no_option_answers_for_a_person() -> None:
    for words in (["judge"], ["log", "read0"], ["log", "read1"]):
        shown = subprocess.run(
            [sys.executable, "-m", "atlas_schema.cli.atlas", *words, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        options = {word.strip(",") for word in shown.stdout.split() if word.startswith("-")}
        assert {o for o in options if o.startswith("--")} <= {"--log", "--output", "--help"}


@pytest.mark.parametrize("answers", [[*JUDGEMENT[:3], "n"], ["", " ", *JUDGEMENT[:3], "n"]])
def test_a_no_at_the_end_writes_nothing(answers: list[str], place: Path, atlas_command: Command) -> None:
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    ended = at_terminal(place, answers, "judge", "measurement.json", FIELD)
    assert ended.code == 2
    assert "Nothing was written." in ended.out
    assert ("An answer is needed" in ended.out) == (len(answers) > 4)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == before


def test_a_judgement_is_made_once_and_in_a_field_for_it(place: Path, atlas_command: Command) -> None:
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    assert at_terminal(place, JUDGEMENT, "judge", "measurement.json", FIELD).code == 0
    again = atlas_command("judge", "measurement.json", FIELD)
    assert "never overwritten" in again.err
    elsewhere = atlas_command("judge", "measurement.json", "/title")
    assert "no judgement field" in elsewhere.err
    assert FIELD in elsewhere.err
    listed = atlas_command("judge", "measurement.json").out.splitlines()
    assert ["judged by A. Person" in listed[0], "blank" in listed[1]] == [True, True]


def test_a_judgement_needs_a_log_with_a_run(place: Path, atlas_command: Command) -> None:
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    assert "no run log" in atlas_command("judge", "measurement.json", FIELD, "--log", "absent.json").err
    atlas_command("log", "declare", "plan.txt", "--party", "Lab A", "--log", "other.json")
    assert "nothing to judge yet" in atlas_command("judge", "measurement.json", FIELD, "--log", "other.json").err
    for file, words in (("plan.txt", "is not JSON"), ("absent.json", "cannot be read")):
        assert words in atlas_command("judge", file).err
    (place / "odd.json").write_text('{"kind": "letter"}')
    assert "of no known kind" in atlas_command("judge", "odd.json").err


def test_reads_are_refused_out_of_their_time(place: Path, atlas_command: Command) -> None:
    early = atlas_command("log", "read1")
    assert "There is no run yet" in early.err
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    late = atlas_command("log", "read0")
    assert "would be a reconstruction" in late.err
    assert "tier says that it is missing" in late.err
    assert "would be a reconstruction" in atlas_command("log", "declare", "plan.txt", "--party", "Lab A").err
    atlas_command("log", "issue", "measurement.json", "--party", "Lab A")
    assert "would know it" in atlas_command("log", "read1").err
    assert "tier C: no Read #0" in atlas_command("log", "show").out


def test_a_read_is_a_document_bound_to_its_place(place: Path, atlas_verify: Command, atlas_command: Command) -> None:
    assert at_terminal(place, READ, "log", "read0").code == 0
    read = read_document(place / "read0.json", Read, "Read")
    log = read_document(place / "run_log.json", RunLog, "log")
    assert (read.author, read.text, read.surprise, read.log_head) == (
        "A. Person",
        "It will hedge.",
        "A refusal.",
        log.steps[1].hash,
    )
    altered = (place / "read0.json").read_text().replace("It will hedge.", "It will not hedge.")
    (place / "read0.json").write_text(altered)
    assert "ATL-C047" in atlas_verify("read0.json", "--profile", "offline").out
    assert "never overwritten" in at_terminal(place, READ, "log", "read0").out
    assert atlas_command("log", "check").code == 0


DAMAGE = {
    "removed": lambda steps: steps[:1] + steps[2:],
    "reordered": lambda steps: [steps[1], steps[0], *steps[2:]],
    "re-timed": lambda steps: [{**steps[0], "time": "2020-01-01T00:00:00Z"}, *steps[1:]],
    "re-attributed": lambda steps: [{**steps[0], "actor": "automation"}, *steps[1:]],
}


@pytest.mark.parametrize("how", list(DAMAGE))
def test_a_damaged_log_is_refused_by_every_command(
    how: str, place: Path, atlas_command: Command, atlas_verify: Command
) -> None:
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    log = json.loads((place / "run_log.json").read_text())
    log["steps"] = DAMAGE[how](log["steps"])
    (place / "run_log.json").write_text(json.dumps(log))
    checked = atlas_command("log", "check")
    assert checked.code == 1
    assert "ATL-C004" in checked.err
    assert "step" in checked.err
    assert "no tier" in atlas_command("log", "show").out
    assert atlas_verify("run_log.json", "--profile", "offline").code == 3
    for words in (
        ("log", "stimulus", "plan.txt", "--name", "x", "--version", "1"),
        ("judge", "measurement.json", FIELD),
    ):
        assert "has been altered" in atlas_command(*words).err


def test_a_log_that_was_cut_is_found_by_a_known_head(place: Path, atlas_command: Command) -> None:
    log = json.loads((place / "run_log.json").read_text())
    head = log["steps"][-1]["hash"]
    assert atlas_command("log", "check", "--head", head).code == 0
    log["steps"] = log["steps"][:1]
    (place / "run_log.json").write_text(json.dumps(log))
    assert atlas_command("log", "check").code == 0
    ended = atlas_command("log", "check", "--head", head)
    assert (ended.code, "no step has the hash" in ended.err) == (1, True)


def test_check_names_rule_and_remedy(place: Path, atlas_command: Command) -> None:
    from atlas_schema.protocol.log import append_step

    append_step(place / "run_log.json", step="judge", actor="model", inputs={}, outputs={"it": digest_bytes(b"")})
    ended = atlas_command("log", "check")
    assert ended.code == 1
    assert "step 2: ATL-C041 The step 'judge' was taken by model." in ended.err
    assert "ATL-C040" in ended.err
    assert "to do:" in ended.err


def test_a_log_of_something_else_lends_no_tier(place: Path, atlas_command: Command, atlas_verify: Command) -> None:
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    value = json.loads((place / "measurement.json").read_text())
    (place / "measurement.json").write_text(json.dumps({**value, "title": "Another"}))
    assert "no tier: the log beside it" in atlas_verify("measurement.json", "--profile", "offline").out


def test_a_typed_in_tier_is_refused_by_name(place: Path, atlas_command: Command, atlas_verify: Command) -> None:
    write_raw(place)
    atlas_command("transcribe", "raw.jsonl")
    value = json.loads((place / "measurement.json").read_text())
    value["series"][0]["tier"] = "A"
    (place / "measurement.json").write_text(json.dumps(value))
    shown = atlas_verify("measurement.json", "--profile", "offline")
    assert shown.code == 3
    assert "ATL-C045 A fidelity tier is typed in." in shown.out
    assert "/series/0/tier" in shown.out


def test_odd_raw_output_ends_with_its_line(place: Path, atlas_command: Command) -> None:
    (place / "raw.jsonl").write_bytes(lines(RUN, ONE, ONE))
    ended = atlas_command("transcribe", "raw.jsonl")
    assert (ended.code, "raw.jsonl, line 3" in ended.err) == (2, True)
    assert not (place / "measurement.json").exists()


# --- vocab ----------------------------------------------------------------------------------------------------------


def test_the_vocabulary_is_listed_shown_and_checked(atlas_command: Command) -> None:
    listed = atlas_command("vocab", "list").out
    assert [i for i in load_vocabulary().terms if i not in listed] == []
    # A quarter of them: each call starts an interpreter.
    for term in list(load_vocabulary().terms.values())[::4]:
        shown = atlas_command("vocab", "show", term.id)
        assert shown.code == 0
        assert all(c.id in shown.out for c in term.conventions)
    checked = atlas_command("vocab", "check")
    assert checked.code == 0
    assert "perplexity, probability, viscosity, memory rest on density, coupling, elasticity" in checked.out
    assert "WORKING HYPOTHESIS, untested" in checked.out


def test_a_word_with_several_meanings_shows_them_all(atlas_command: Command) -> None:
    shown = atlas_command("vocab", "show", "tier").out
    assert [i in shown for i in ("record.fidelity_tier/1", "record.stimulus_tier/1", "record.evidence_tier/1")] == [
        True
    ] * 3
    assert "may mean 2 terms" in atlas_command("vocab", "show", "tension").out
    unknown = atlas_command("vocab", "show", "viscocity")
    assert (unknown.code, "navigator.viscosity/1" in unknown.err) == (2, True)
    assert "no such layer" in atlas_command("vocab", "list", "--layer", "sea").err


def test_hypotheses_are_listed_with_their_tests(atlas_command: Command) -> None:
    shown = atlas_command("vocab", "list", "--hypotheses").out
    statements = [s for t in load_vocabulary().terms.values() for s in t.statements]
    assert [s.id for s in statements if s.id not in shown or s.test not in shown] == []


def test_check_ends_with_1_and_names_entry_and_remedy(atlas_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    v = load_vocabulary()
    broken = v.with_term(replace(v.terms["navigator.density/1"], references=("nobody1900",)))
    monkeypatch.setattr("atlas_schema.vocabulary.load_vocabulary", lambda: broken)
    ended = atlas_command("vocab", "check")
    assert ended.code == 1
    assert "navigator.density/1: reference: reference 'nobody1900' does not resolve" in ended.err
    assert "references.toml" in ended.err
    assert vocab.WIDTH == 100
