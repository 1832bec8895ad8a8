"""The protocol's rules over made-up logs: the tier is a function of the steps, and nothing can be taken out, moved or re-timed."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from naive.tiers import Plain, naive_faultless, naive_tier
from verify.forging import as_json, honest

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.base import Judgement
from atlas_schema.documents.judgements import blank, judgement_fields, pointer, set_at
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.protocol.fidelity import fidelity
from atlas_schema.protocol.judgement import judgement_digest, judgement_doubts
from atlas_schema.protocol.log import chain_faults, next_step, party, step_hash
from atlas_schema.protocol.process import process_digest
from atlas_schema.protocol.sequence import ACTOR, ISOLATION, MAY, ORDER, PARTIES, STIMULUS, protocol_faults

NAMES = ("declare", "stimulus", "read0", "extract", "transcribe", "read1", "issue", "verify", "judge")
PROMPTS = {"stimulus prompts@1": digest_bytes(b"prompts")}
FULL = [Plain("declare"), Plain("stimulus"), Plain("read0"), Plain("extract", "p1", "Lab A"), Plain("transcribe"), Plain("read1"),
        Plain("issue", "", "Lab A"), Plain("verify", "p2", "Lab B"), Plain("judge")]  # fmt: skip
RANK = {None: 0, "C": 1, "B": 2, "A": 3}


def made(steps: list[Plain], begin: int = 0) -> RunLog:
    """Chain plain steps, a minute apart. Every run cites the stimulus, which counts as registered where a step registers it."""
    done: tuple[Step, ...] = ()
    for i, plain in enumerate(steps):
        inputs = dict(PROMPTS) if plain.step == "extract" else {}
        inputs |= {"process": digest_bytes(plain.process.encode())} if plain.process else {}
        inputs |= party(plain.who) if plain.who else {}
        outputs = dict(PROMPTS) if plain.step == "stimulus" else {"it": digest_bytes(bytes([i]))}
        done = (*done, next_step(done, step=plain.step, actor=MAY[plain.step][0], inputs=inputs, outputs=outputs,  # type: ignore[arg-type, index]
                                 tool="tests", time=f"2026-01-01T{begin + i // 60:02d}:{i % 60:02d}:00Z"))  # fmt: skip
    return RunLog(kind="run_log", schema_version="1.0", steps=done)


plain_steps = st.builds(
    Plain,
    st.sampled_from(NAMES),
    st.sampled_from(["", "p1", "p2", "p3", "p4"]),
    st.sampled_from(["", "Lab A", "Lab B"]),
)
any_steps = st.lists(plain_steps, min_size=1, max_size=12)


@st.composite
def mostly_orderly(draw: st.DrawFn) -> list[Plain]:
    """Logs near the full one: some steps out, some doubled, some of them changed."""
    kept = [s for s in FULL for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2])))]
    blurred = [Plain(s.step, "" if draw(st.integers(0, 9)) == 0 else s.process and f"{s.process}-{i}", s.who if draw(st.integers(0, 9)) else "")
               for i, s in enumerate(kept)]  # fmt: skip
    assume(blurred)
    return blurred


logs = any_steps | mostly_orderly()


# --- the tier -------------------------------------------------------------------------------------------------------


def test_the_full_log_is_tier_a() -> None:
    assert protocol_faults(made(FULL).steps) == []
    assert (fidelity(made(FULL)).tier, fidelity(made(FULL)).lacking) == ("A", ())


@given(logs)
def test_the_tier_is_that_of_the_definition(steps: list[Plain]) -> None:
    log = made(steps)
    registered = "stimulus" not in [s.step for s in steps]
    untraced = [f for f in protocol_faults(log.steps) if f.rule == STIMULUS]
    assert registered <= (bool(untraced) or "extract" not in [s.step for s in steps])
    others = [f for f in protocol_faults(log.steps) if f.rule != STIMULUS]
    assert (not others) == naive_faultless(steps)
    found = fidelity(log).tier
    if protocol_faults(log.steps):
        assert found is None
    else:
        assert (found or "none") == naive_tier(steps)


@given(logs, st.integers(0, 20))
def test_the_tier_depends_on_the_steps_alone(steps: list[Plain], hours: int) -> None:
    """Not on times, tools or hashes: the same steps give the same tier."""
    assert fidelity(made(steps)) == fidelity(made(steps, hours))


@given(mostly_orderly(), st.data())
def test_a_removed_step_never_raises_the_tier(steps: list[Plain], data: st.DataObject) -> None:
    """Over logs that keep the protocol. A run may be taken out with what it lacked; even then C does not rise."""
    assume(not protocol_faults(made(steps).steps))
    assume(len(steps) > 1)
    gone = data.draw(st.integers(0, len(steps) - 1))
    before, after = fidelity(made(steps)).tier, fidelity(made(steps[:gone] + steps[gone + 1 :])).tier
    if steps[gone].step != "extract":
        assert RANK[after] <= RANK[before]
    if before == "C":
        assert RANK[after] <= RANK["C"]


@pytest.mark.parametrize("name", [s.step for s in FULL if s.step != "transcribe"])
def test_every_step_counts(name: str) -> None:
    left = [s for s in FULL if s.step != name]
    expected = {"declare": "C", "read0": "C", "stimulus": None, "extract": None, "issue": None}.get(name, "B")
    assert fidelity(made(left)).tier == expected


def test_a_missing_read_lowers_the_tier_and_blocks_nothing() -> None:
    for name, tier in (("read0", "C"), ("read1", "B")):
        log = made([s for s in FULL if s.step != name])
        assert protocol_faults(log.steps) == []
        assert fidelity(log).tier == tier
        assert any(f"Read #{name[-1]}" in words for words in fidelity(log).lacking)


def test_what_was_done_for_another_document_lends_this_one_nothing() -> None:
    log = made(FULL)
    mine = log.steps[FULL.index(Plain("issue", "", "Lab A"))].outputs[0].digest
    assert fidelity(log).tier == "A"
    assert fidelity(log, mine).lacking == ("no verification", "no judgement")
    assert fidelity(log, digest_bytes(b"another")).lacking == ("nothing was issued", "no verification", "no judgement")


@given(logs, st.sampled_from([digest_bytes(bytes([i])) for i in range(12)]))
def test_a_document_never_has_a_higher_tier_than_its_log(steps: list[Plain], subject: str) -> None:
    log = made(steps)
    assert RANK[fidelity(log, subject).tier] <= RANK[fidelity(log).tier]


# --- the chain ------------------------------------------------------------------------------------------------------


@given(st.lists(plain_steps, min_size=2, max_size=8), st.data())
def test_what_is_taken_out_is_found(steps: list[Plain], data: st.DataObject) -> None:
    log = made(steps)
    gone = data.draw(st.integers(0, len(steps) - 2))
    assert chain_faults(log.model_copy(update={"steps": log.steps[:gone] + log.steps[gone + 1 :]}))


@given(st.lists(plain_steps, min_size=2, max_size=6), st.data())
def test_what_is_moved_is_found(steps: list[Plain], data: st.DataObject) -> None:
    log = made(steps)
    order = data.draw(st.permutations(range(len(steps))))
    faults = chain_faults(log.model_copy(update={"steps": tuple(log.steps[i] for i in order)}))
    assert bool(faults) == (order != sorted(order))


@given(st.lists(plain_steps, min_size=2, max_size=6), st.data(), st.booleans())
def test_what_is_re_timed_is_found(steps: list[Plain], data: st.DataObject, rehashed: bool) -> None:
    log = made(steps)
    at = data.draw(st.integers(0, len(steps) - 2 if rehashed else len(steps) - 1))
    time = data.draw(st.sampled_from(["2025-12-31T00:00:00Z", "2026-01-01T00:00:30Z", "2026-01-02T00:00:00Z"]))
    step = log.steps[at].model_copy(update={"time": time})
    step = step.model_copy(update={"hash": step_hash(step)}) if rehashed else step
    assert chain_faults(log.model_copy(update={"steps": (*log.steps[:at], step, *log.steps[at + 1 :])}))


def test_a_broken_log_has_no_tier() -> None:
    log = made(FULL)
    assert fidelity(log.model_copy(update={"steps": log.steps[1:]})).tier is None


# --- order, actors, isolation, parties, stimuli ---------------------------------------------------------------------


@given(st.sampled_from(NAMES), st.sampled_from(["automation", "technician", "model"]))
def test_only_who_may_take_a_step_does(name: str, actor: str) -> None:
    log = made(FULL)
    at = next(i for i, s in enumerate(log.steps) if s.step == name)
    steps = [*log.steps[:at], log.steps[at].model_copy(update={"actor": actor}), *log.steps[at + 1 :]]
    found = [f.index for f in protocol_faults(steps) if f.rule == ACTOR]
    assert found == ([] if actor in MAY[name] else [at])  # type: ignore[index]
    assert ("technician",) == MAY["read0"] == MAY["read1"] == MAY["judge"]


@given(st.lists(st.sampled_from(["", "p1", "p2", "p3", "p4", "p5"]), min_size=1, max_size=5))
def test_a_process_that_runs_twice_is_found(processes: list[str]) -> None:
    steps = made([Plain("stimulus"), *(Plain("extract", p) for p in processes)]).steps
    used = [p for p in processes if p]
    assert len([f for f in protocol_faults(steps) if f.rule == ISOLATION]) == len(used) - len(set(used))


@given(st.sampled_from(["Lab A", "lab a", " LAB  A ", "Lab B", "Lab AB"]))
def test_the_verifier_is_another_party_however_it_is_spelt(who: str) -> None:
    steps = made([*FULL[:-2], Plain("verify", "p9", who)]).steps
    same = " ".join(who.lower().split()) == "lab a"
    assert [f.rule for f in protocol_faults(steps)] == ([PARTIES] if same else [])


def test_a_version_names_one_content_and_comes_first() -> None:
    run = [Plain("declare"), Plain("read0"), Plain("extract", "p1")]
    assert [f.rule for f in protocol_faults(made([*run, Plain("stimulus")]).steps)] == [STIMULUS]
    assert protocol_faults(made([Plain("stimulus"), *run]).steps) == []


@pytest.mark.parametrize(
    ("steps", "index", "words"),
    [
        ([Plain("stimulus"), Plain("extract"), Plain("read0")], 2, "'read0' stands after the first run"),
        ([Plain("stimulus"), Plain("extract"), Plain("declare")], 2, "'declare' stands after the first run"),
        ([Plain("stimulus"), Plain("read1"), Plain("extract")], 1, "'read1' stands before the first run"),
        ([Plain("stimulus"), Plain("extract"), Plain("issue"), Plain("read1")], 3, "'read1' stands after issue"),
        ([Plain("stimulus"), Plain("extract"), Plain("verify")], 2, "'verify' stands before issue"),
        ([Plain("stimulus"), Plain("judge"), Plain("extract")], 1, "'judge' stands before the first run"),
        ([Plain("stimulus"), Plain("read1")], 1, "'read1' stands before the first run"),
    ],
)
def test_order_faults_say_where_and_what_to_do(steps: list[Plain], index: int, words: str) -> None:
    (fault,) = protocol_faults(made(steps).steps)
    assert (fault.rule, fault.index) == (ORDER, index)
    assert words in fault.what
    assert fault.todo
    assert fault.expected


def test_a_process_names_itself_and_its_forks_alike() -> None:
    """A fork carries its parent's memory over: it must not look fresh."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, process_digest().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() == process_digest() == process_digest()
    os.close(reader)
    os.close(writer)


# --- judgements -----------------------------------------------------------------------------------------------------

PLACE = ("judgement", "reading")


def judged() -> tuple[Receipt, list[Step]]:
    judgement = Judgement(value="holds", author="A. Person", time="2026-01-02T00:00:00Z", basis="the cells")
    log = made([Plain("stimulus"), Plain("extract")])
    outputs = {"judgement /judgement/reading": judgement_digest(honest(), PLACE, judgement)}
    step = next_step(log.steps, step="judge", actor="technician", inputs={}, outputs=outputs, time=judgement.time)
    value = set_at(as_json(honest()), PLACE, as_json(judgement))
    return Receipt.model_validate_json(json.dumps(value)), [*log.steps, step]


def test_a_logged_judgement_raises_no_doubt() -> None:
    assert list(judgement_doubts(*judged())) == []
    assert [pointer(path) for path, _ in judgement_fields(judged()[0])] == ["/judgement/reading"]
    assert blank(judged()[0]) == as_json(honest())


@given(st.sampled_from(["value", "author", "basis"]), st.text(min_size=1, max_size=20))
def test_any_other_words_are_doubted(name: str, words: str) -> None:
    document, steps = judged()
    value: Any = as_json(document)
    assume(value["judgement"]["reading"][name] != words)
    value["judgement"]["reading"][name] = words
    doubts = list(judgement_doubts(Receipt.model_validate_json(json.dumps(value)), steps))
    assert doubts
    assert all(d.path == PLACE and d.todo for d in doubts)


@given(st.integers(0, 2))
def test_a_judgement_without_its_step_is_doubted(gone: int) -> None:
    document, steps = judged()
    left = [s for i, s in enumerate(steps) if i != gone]
    assert bool(list(judgement_doubts(document, left))) == (gone == 2)


def test_a_judgement_by_automation_is_doubted() -> None:
    document, steps = judged()
    for actor in ("automation", "model"):
        (doubt,) = judgement_doubts(document, [*steps[:-1], steps[-1].model_copy(update={"actor": actor})])
        assert actor in doubt.what
