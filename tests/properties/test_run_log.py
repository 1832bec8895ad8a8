"""The run log as a person uses it: appended by the tools, cut, and tampered with. The model is a plain list of steps."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documents.records import measurement
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from properties.contract import holds, machine
from verify.forging import rechained

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.documents.schema import MODELS
from atlas_schema.errors import AtlasError
from atlas_schema.files import document_text
from atlas_schema.protocol.fidelity import fidelity
from atlas_schema.protocol.filling import fill
from atlas_schema.protocol.judgement import judgement_doubts, subject_digest
from atlas_schema.protocol.log import append_step, chain_faults, next_step, party, read_log
from atlas_schema.protocol.process import process_digest
from atlas_schema.protocol.sequence import MAY, PARTIES, protocol_faults
from atlas_schema.protocol.steps import (
    record_issue,
    record_verification,
    register_stimulus,
    require_before_run,
    require_between,
    write_read,
)

RANK = {None: 0, "C": 1, "B": 2, "A": 3}
PROMPTS = {"stimulus prompts@1": digest_bytes(b"prompts")}
WORKS = {name: digest_bytes(name.encode()) for name in ("one", "two")}
"""Two documents that one log speaks of."""
WHO = ("", "Lab A", "Lab B", "lab  b")


def log_of(steps: tuple[Step, ...]) -> RunLog:
    return RunLog(kind="run_log", schema_version="1.0", steps=steps)


@st.composite
def next_steps(draw: st.DrawFn, before: tuple[Step, ...], names: tuple[str, ...] = tuple(MAY)) -> Step:
    """Draw a step after others: mostly as the protocol has it, by mostly those who may take it."""
    name: Any = draw(st.sampled_from(names))
    actors = MAY[name] if draw(st.integers(0, 9)) else ("model", "automation")
    inputs = dict(PROMPTS) if name == "extract" else {}
    if name in ("extract", "verify") and draw(st.integers(0, 3)):
        process = str(len(before)) if draw(st.integers(0, 4)) else "shared"
        inputs["process"] = digest_bytes(process.encode())
    who = draw(st.sampled_from(WHO))
    inputs |= party(who) if who and name != "judge" else {}
    work = WORKS[draw(st.sampled_from(sorted(WORKS)))]
    outputs = {"document": work} if name == "issue" else {"made": digest_bytes(str(len(before)).encode())}
    if name == "stimulus":
        outputs = dict(PROMPTS)
    if name in ("verify", "judge"):
        inputs["document"] = work
    minute = len(before) + draw(st.integers(0, 1))
    return next_step(before, step=name, actor=draw(st.sampled_from(actors)), inputs=inputs, outputs=outputs, tool="tests",
                     time=f"2026-01-01T00:{minute:02d}:00Z")  # fmt: skip


START = ("declare", "stimulus", "read0", "extract", "read1")


@st.composite
def sound_logs(draw: st.DrawFn) -> tuple[Step, ...]:
    """Draw logs that keep the protocol: what would break it is left out. Half of them begin as a good study does."""
    steps: tuple[Step, ...] = ()
    opening = START if draw(st.booleans()) else ("stimulus",)
    for names in (*((name,) for name in opening), *(tuple(MAY) for _ in range(draw(st.integers(0, 10))))):
        step = draw(next_steps(steps, names))
        steps = (*steps, step) if not protocol_faults((*steps, step)) else steps
    return steps or (draw(next_steps((), ("stimulus",))),)


@holds("run log", "Cutting a sound log at its end never raises its tier, nor that of any document in it.", 60, 500)
@given(sound_logs(), st.data())
def test_a_cut_never_raises_the_tier(steps: tuple[Step, ...], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(steps)))
    for subject in (None, *WORKS.values()):
        whole, cut = fidelity(log_of(steps), subject), fidelity(log_of(steps[:kept]), subject)
        assert RANK[cut.tier] <= RANK[whole.tier], (whole.lacking, cut.lacking)


@holds(
    "run log",
    "Whether a step is a fault depends on the steps before it alone; no later step makes or mends one.",
    60,
    500,
)
@given(st.data())
def test_faults_depend_on_what_was_before(data: st.DataObject) -> None:
    steps: tuple[Step, ...] = ()
    for _ in range(data.draw(st.integers(1, 10))):
        steps = (*steps, data.draw(next_steps(steps)))
    kept = data.draw(st.integers(0, len(steps)))
    found = [f for f in protocol_faults(steps) if f.index < kept]
    assert found == protocol_faults(steps[:kept])


@holds("run log", "A run after the issue neither lends a document anything nor takes anything from it.", 30, 300)
@given(sound_logs(), st.data())
def test_a_run_after_the_issue_changes_no_tier_of_the_document(steps: tuple[Step, ...], data: st.DataObject) -> None:
    later = data.draw(next_steps(steps, ("extract",)))
    if protocol_faults((*steps, later)):
        return
    for subject in WORKS.values():
        if any(a.digest == subject for s in steps if s.step == "issue" for a in s.outputs):
            before, after = fidelity(log_of(steps), subject), fidelity(log_of((*steps, later)), subject)
            assert after == before or after.tier == before.tier is None


def test_a_verification_before_the_issue_is_none_of_the_document() -> None:
    """Else whoever verified something else first could make the document afterwards."""

    def grown(steps: tuple[Step, ...], name: Any, who: str = "", **parts: dict[str, str]) -> tuple[Step, ...]:
        inputs = {**(party(who) if who else {}), **parts.get("inputs", {})}
        outputs = parts.get("outputs", {"made": digest_bytes(name.encode())})
        return (*steps, next_step(steps, step=name, actor=MAY[name][0], inputs=inputs, outputs=outputs, tool="tests",  # type: ignore[index]
                                  time=f"2026-01-01T00:{len(steps):02d}:00Z"))  # fmt: skip

    def run(steps: tuple[Step, ...], who: str, process: bytes) -> tuple[Step, ...]:
        return grown(steps, "extract", who, inputs={**PROMPTS, "process": digest_bytes(process)})

    one, two = ({"document": WORKS[name]} for name in ("one", "two"))
    steps = grown(grown(grown((), "declare"), "stimulus", outputs=dict(PROMPTS)), "read0")
    steps = grown(grown(run(steps, "Lab A", b"1"), "read1"), "issue", "Lab A", outputs=one)
    steps = grown(steps, "verify", "Lab B", inputs=two)
    steps = grown(grown(run(steps, "Lab B", b"2"), "issue", "Lab B", outputs=two), "judge", inputs=two)
    assert protocol_faults(steps) == []
    assert fidelity(log_of(steps), WORKS["two"]).lacking == ("no verification",)
    again = grown(steps, "verify", "Lab B", inputs=two)
    assert [f.rule for f in protocol_faults(again)] == [PARTIES]
    assert fidelity(log_of(grown(steps, "verify", "Lab C", inputs=two)), WORKS["two"]).tier == "A"


def test_a_run_that_names_no_process_counts_for_what_is_issued_after_it() -> None:
    """Before the mend, whoever cut the late run off raised the first document from B to A."""

    def put(steps: tuple[Step, ...], name: Any, inputs: dict[str, str], outputs: dict[str, str]) -> tuple[Step, ...]:
        made = next_step(steps, step=name, actor=MAY[name][0], inputs=inputs, outputs=outputs, tool="tests",  # type: ignore[index]
                         time=f"2026-01-01T00:{len(steps):02d}:00Z")  # fmt: skip
        return (*steps, made)

    one, two, some = {"document": WORKS["one"]}, {"document": WORKS["two"]}, {"made": digest_bytes(b"made")}
    steps = put(put(put((), "declare", {}, some), "stimulus", {}, PROMPTS), "read0", {}, some)
    steps = put(steps, "extract", {**PROMPTS, **party("Lab A"), "process": digest_bytes(b"1")}, some)
    steps = put(put(steps, "read1", {}, some), "issue", party("Lab A"), one)
    good = put(put(steps, "verify", {**party("Lab B"), **one}, some), "judge", one, some)
    late = put(good, "extract", {**PROMPTS, **party("Lab A")}, some)
    again = put(
        put(put(late, "issue", party("Lab A"), two), "verify", {**party("Lab B"), **two}, some), "judge", two, some
    )
    assert [fidelity(log_of(x), WORKS["one"]).tier for x in (good, late, again)] == ["A", "A", "A"]
    assert fidelity(log_of(again), WORKS["two"]).lacking == ("isolation is not shown: a run names no process",)


def test_a_document_that_was_issued_before_any_run_has_no_tier() -> None:
    steps: tuple[Step, ...] = ()
    for name in ("declare", "stimulus", "read0", "issue", "extract"):
        inputs = dict(PROMPTS) if name == "extract" else {}
        outputs = dict(PROMPTS) if name == "stimulus" else {"document": WORKS["one"]}
        step: Any = name
        steps = (*steps, next_step(steps, step=step, actor=MAY[step][0], inputs=inputs, outputs=outputs, tool="tests",
                                   time=f"2026-01-01T00:{len(steps):02d}:00Z"))  # fmt: skip
    assert protocol_faults(steps) == []
    assert fidelity(log_of(steps), WORKS["one"]).words == "no tier: no run stands before the issue"
    assert fidelity(log_of(steps)).tier == "B"


# --- the log on disk, by the tools' own functions -------------------------------------------------------------------


def altered_field(steps: list[Any], at: int) -> list[Any]:
    return [*steps[:at], {**steps[at], "tool": steps[at]["tool"] + "x"}, *steps[at + 1 :]]


def renamed_output(steps: list[Any], at: int) -> list[Any]:
    step = steps[at]
    return [*steps[:at], {**step, "outputs": [{"name": "other", "digest": digest_bytes(b"other")}]}, *steps[at + 1 :]]


def retimed(steps: list[Any], at: int) -> list[Any]:
    return [*steps[:at], {**steps[at], "time": "2020-01-01T00:00:00Z"}, *steps[at + 1 :]]


TAMPERINGS: dict[str, Callable[[list[Any], int], list[Any]]] = {
    "altered": altered_field,
    "renamed": renamed_output,
    "retimed": retimed,
    "taken out": lambda steps, at: [*steps[:at], *steps[at + 1 :]],
    "doubled": lambda steps, at: [*steps[:at], steps[at], *steps[at:]],
    "swapped": lambda steps, at: [*steps[:at], *steps[at : at + 2][::-1], *steps[at + 2 :]],
    "cut": lambda steps, at: steps[:at],
}


@machine(
    "run log",
    "Appending, judging and tampering in any order: the file holds what was appended, a change is found.",
    12,
    80,
    14,
)
class Log(RuleBasedStateMachine):
    """What the tools wrote is in the file, chained and sound; what they refuse leaves the file as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "run_log.json"
        self.plan = self.folder / "plan.txt"
        self.plan.write_text("what will be done", encoding="utf-8")
        self.model: list[tuple[str, str]] = []
        self.runs = self.documents = 0
        self.tier: str | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def bytes_now(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def attempt(self, name: str, actor: str, allowed: bool, act: Callable[[], object]) -> bool:
        """Take a step that the model allows or refuses. What is refused leaves the bytes as they were."""
        before = self.bytes_now()
        if not allowed:
            with pytest.raises(AtlasError) as caught:
                act()
            assert caught.value.todo
            assert self.bytes_now() == before
            return False
        act()
        self.model.append((name, actor))
        return True

    def has(self, *names: str) -> bool:
        return any(step in names for step, _ in self.model)

    @rule(who=st.sampled_from(["Lab A", "Lab B"]))
    def declare(self, who: str) -> None:
        def act() -> None:
            require_before_run(self.path, "declaration")
            made = {"plan.txt": digest_bytes(b"plan")}
            append_step(self.path, step="declare", actor="technician", inputs=party(who), outputs=made)

        self.attempt("declare", "technician", not self.has("extract"), act)

    @rule(version=st.sampled_from(["1", "2", "a/b", ""]), text=st.sampled_from(["prompts", "others"]))
    def stimulus(self, version: str, text: str) -> None:
        file = self.folder / "stimulus.txt"
        file.write_text(text, encoding="utf-8")
        label = f"stimulus prompts@{version}"
        known = {a.name: a.digest for s in self.steps() for a in s.outputs if s.step == "stimulus"}
        allowed = version in ("1", "2") and known.get(label, digest_bytes(text.encode())) == digest_bytes(text.encode())
        self.attempt("stimulus", "technician", allowed, lambda: register_stimulus(self.path, file, "prompts", version))

    @rule()
    def expect(self) -> None:
        def act() -> None:
            require_before_run(self.path, "Read #0")
            write_read(
                self.path, self.folder / "read0.json", "before_first_run", "A. Person", "It will rise.", "A fall."
            )

        self.attempt("read0", "technician", not self.has("extract"), act)

    @precondition(lambda self: self.has("stimulus"))
    @rule(who=st.sampled_from(["Lab A", "Lab B"]), named=st.booleans())
    def run(self, who: str, named: bool) -> None:
        cited = next(a for s in self.steps() if s.step == "stimulus" for a in s.outputs)
        self.runs += 1
        process = {"process": digest_bytes(f"process {self.runs}".encode())} if named else {}
        inputs = {**party(who), **process, cited.name: cited.digest}
        outputs = {"raw.jsonl": digest_bytes(str(self.runs).encode())}
        self.attempt("extract", "automation", True, lambda: append_step(
            self.path, step="extract", actor="automation", inputs=inputs, outputs=outputs))  # fmt: skip

    @rule()
    def see(self) -> None:
        def act() -> None:
            require_between(self.path)
            write_read(self.path, self.folder / "read1.json", "after_first_run", "A. Person", "It rose.", "Nothing.")

        self.attempt("read1", "technician", self.has("extract") and not self.has("issue"), act)

    @rule(who=st.sampled_from(["Lab A", "Lab B"]))
    def issue(self, who: str) -> None:
        path = self.folder / f"measurement{self.documents}.json"
        named = measurement(lambda m: m.update(id=f"m{self.documents}"))
        path.write_text(document_text(Measurement.model_validate_json(json.dumps(named))), encoding="utf-8")
        if self.attempt("issue", "automation", self.has("extract"), lambda: record_issue(self.path, path, who)):
            self.documents += 1

    @precondition(lambda self: self.documents > 0)
    @rule(who=st.sampled_from(["Lab A", "Lab B", "Lab C"]), data=st.data())
    def verify(self, who: str, data: st.DataObject) -> None:
        path = self.folder / f"measurement{data.draw(st.integers(0, self.documents - 1))}.json"
        makers = {a.name for s in self.steps() if s.step in ("extract", "issue") for a in s.inputs}
        self.attempt("verify", "automation", f"party: {who}" not in makers,
                     lambda: record_verification(self.path, path, who, "report"))  # fmt: skip

    @precondition(lambda self: self.documents > 0)
    @rule(data=st.data(), basis=st.sampled_from(["the numbers", ""]))
    def judge(self, data: st.DataObject, basis: str) -> None:
        path = self.folder / f"measurement{data.draw(st.integers(0, self.documents - 1))}.json"
        document = Measurement.model_validate_json(path.read_text(encoding="utf-8"))
        blank = document.judgements[0].answer is None
        before = path.read_bytes()
        judged = self.attempt("judge", "technician", blank and bool(basis), lambda: fill(
            path, document, "/judgements/0/answer", self.path, "it holds", basis, "A. Person"))  # fmt: skip
        assert (path.read_bytes() != before) == judged
        after = Measurement.model_validate_json(path.read_text(encoding="utf-8"))
        assert list(judgement_doubts(after, self.steps())) == []
        assert subject_digest(after) == subject_digest(document)
        if judged:
            without = [s for s in self.steps() if s.step != "judge"]
            assert list(judgement_doubts(after, without))

    def steps(self) -> tuple[Step, ...]:
        return read_log(self.path).steps if self.path.exists() else ()

    @precondition(lambda self: self.model)
    @rule(how=st.sampled_from(sorted(TAMPERINGS)), data=st.data(), rehashed=st.booleans())
    def tamper(self, how: str, data: st.DataObject, rehashed: bool) -> None:
        """Change the file, see it found or, where the end was cut or all was written anew, the known head gone; put it back."""
        honest = self.path.read_bytes()
        steps = json.loads(honest)["steps"]
        at = data.draw(st.integers(0, len(steps) - 1))
        changed = TAMPERINGS[how](steps, at)
        if not changed or changed[: len(steps)] == steps:  # no change, or one more step at the end: an appended log
            return
        forged = {"kind": "run_log", "schema_version": "1.0", "steps": changed}
        if rehashed:
            forged = json.loads(document_text(rechained(log_of(self.steps()), lambda _: [dict(s) for s in changed])))
        self.path.write_text(json.dumps(forged), encoding="utf-8")
        model = MODELS["run_log"].model_validate_json(self.path.read_bytes())
        assert isinstance(model, RunLog)
        head = steps[-1]["hash"]
        if chain_faults(model):
            tampered = self.path.read_bytes()
            for act in (lambda: read_log(self.path), lambda: append_step(
                self.path, step="declare", actor="technician", inputs={}, outputs={"x": digest_bytes(b"x")})):  # fmt: skip
                with pytest.raises(AtlasError, match="altered"):
                    act()
            assert self.path.read_bytes() == tampered
            assert fidelity(model).tier is None
        else:
            cut = changed == steps[: len(changed)]
            assert rehashed or cut
            assert head not in [s.hash for s in model.steps]
            if cut:
                assert RANK[fidelity(model).tier] <= RANK[self.tier]
        self.path.write_bytes(honest)

    @invariant()
    def the_file_holds_what_was_appended(self) -> None:
        if not self.model:
            assert not self.path.exists()
            return
        log = read_log(self.path)
        assert [(s.step, s.actor) for s in log.steps] == self.model
        assert chain_faults(log) == []
        assert protocol_faults(log.steps) == []
        self.tier = fidelity(log).tier
        assert process_digest() not in [a.digest for s in log.steps if s.step == "extract" for a in s.inputs]


TestLog = Log.TestCase
