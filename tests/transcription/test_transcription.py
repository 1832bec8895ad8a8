"""Raw output in, a draft out: numbers against naive ones, judgements blank, and every odd line refused by its number."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.judgements import judgement_fields
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.run_log import RunLog
from atlas_schema.documents.schema import schema_errors
from atlas_schema.errors import UsageError
from atlas_schema.files import document_text, read_document
from atlas_schema.limits import LIMITS
from atlas_schema.protocol.fidelity import fidelity
from atlas_schema.protocol.log import append_step
from atlas_schema.protocol.steps import register_stimulus
from atlas_schema.transcription import raw as raw_module
from atlas_schema.transcription.compute import as_decimal, mean_log_likelihood, text, words
from atlas_schema.transcription.draft import draft, transcribe
from atlas_schema.transcription.raw import RawError, parse_raw, read_raw
from atlas_schema.vocabulary import load_vocabulary

Json = dict[str, Any]
PATTERN = r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?(e-?[1-9][0-9]?)?"
"""What a measurement admits as a number."""
PROMPTS = b"What is the capital?\n"
RUN: Json = {
    "record": "run", "format": "atlas-raw/1", "id": "capitals-1", "title": "Capitals",
    "instrument": {"id": "ecm", "version": "1.0", "description": "canary matrix"},
    "model": {"name": "tiny", "parameters": 1000, "training_corpus": None, "weights": "random", "weights_digest": None,
              "fine_tuning": None, "implementation": None, "runtime": "CPU"},
    "date": "2026-01", "conditions": [], "stimulus": {"name": "capitals", "version": "1", "digest": digest_bytes(PROMPTS)},
    "party": "Lab A", "process": digest_bytes(b"process"), "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:05:00Z",
    "scored": "output", "axis": "item",
    "questions": [{"field": "resolution_code", "asks": "Which code?", "per": "output"},
                  {"field": "state", "asks": "How are you?", "per": "run"}],
}  # fmt: skip
ONE: Json = {"record": "output", "id": "i1", "group": "geo", "input": "What is the capital?", "input_tokens": 5,
             "output": "It depends.", "output_tokens": 3, "logprobs": [-0.5, -1.25, -0.1]}  # fmt: skip
TWO: Json = {
    **ONE,
    "id": "i2",
    "input": "Now?",
    "input_tokens": 2,
    "output": "Paris",
    "output_tokens": 1,
    "logprobs": [-2.5],
}


def lines(*records: Json) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


def drafted(*records: Json) -> Measurement:
    return draft(parse_raw(lines(*(records or (RUN, ONE, TWO))), "raw.jsonl"), "raw.jsonl")


def values(made: Measurement, name: str) -> dict[str, str]:
    return {v.at: v.value for s in made.series if s.name == name for v in s.values}


# --- numbers --------------------------------------------------------------------------------------------------------


def test_counts_ratios_and_likelihoods() -> None:
    made = drafted()
    assert values(made, "output_characters") == {"i1": "11", "i2": "5"}
    assert values(made, "output_words") == {"i1": "2", "i2": "1"}
    assert values(made, "output_tokens") == {"i1": "3", "i2": "1"}
    assert values(made, "output_ratio_characters") == {"i1": "0.550000000", "i2": "1.25000000"}
    assert values(made, "output_ratio_tokens") == {"i1": "0.600000000", "i2": "0.500000000"}
    assert values(made, "log_likelihood") == {"i1": "-0.616666667", "i2": "-2.50000000"}
    assert values(made, "perplexity") == {"i1": f"{math.exp(1.85 / 3):.8f}", "i2": f"{math.exp(2.5):.7f}"}
    assert values(made, "group_perplexity") == {"geo": f"{math.exp(4.35 / 4):.8f}"}
    assert not schema_errors(json.loads(document_text(made)), "measurement")


def test_every_series_names_a_term_and_its_convention() -> None:
    vocabulary = load_vocabulary()
    for series in drafted().series:
        assert series.term is not None
        term, convention = vocabulary.cite(series.term, series.convention)
        assert convention is None or convention.unit == series.unit or term.name == "output_length"


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=30))
def test_likelihoods_agree_with_naive_ones(logprobs: list[float]) -> None:
    mean = mean_log_likelihood(logprobs)
    exact = sum(map(Fraction, logprobs), Fraction(0)) / len(logprobs)
    assert abs(mean - exact) <= abs(exact) * Fraction(1, 2**52)
    made = drafted(RUN, {**ONE, "output_tokens": len(logprobs), "logprobs": logprobs})
    naive = math.exp(-math.fsum(logprobs) / len(logprobs))
    assert float(values(made, "perplexity")["i1"]) == pytest.approx(naive, rel=1e-8)


@given(st.fractions(min_value=Fraction(-(10**25)), max_value=Fraction(10**25), max_denominator=10**12))
def test_numbers_are_written_to_nine_digits_and_no_further_off(number: Fraction) -> None:
    written = text(as_decimal(number))
    assert abs(Fraction(Decimal(written)) - number) <= abs(number) * Fraction(1, 2 * 10**8)
    assert re.fullmatch(PATTERN, written)
    digits = written.partition("e")[0].lstrip("-").replace(".", "").lstrip("0")
    assert len(digits) == (9 if number else 0)
    assert number or written.count("0") == 18, "a bare 0 stands for anything up to a half"


@given(st.text(max_size=40))
def test_words_are_runs_without_white_space(value: str) -> None:
    count, inside = 0, False
    for character in value:
        count += not inside and not character.isspace()
        inside = not character.isspace()
    assert words(value) == count


def test_what_the_runner_does_not_know_gives_no_series() -> None:
    bare = {**ONE, "group": None, "input_tokens": None, "output_tokens": None, "logprobs": None}
    made = drafted({**RUN, "scored": "none"}, bare)
    assert [s.name for s in made.series] == ["output_characters", "output_words", "output_ratio_characters"]
    empty = drafted({**RUN, "scored": "none"}, {**bare, "input": "", "output": ""})
    assert [s.name for s in empty.series] == ["output_characters", "output_words"]
    assert values(empty, "output_characters") == {"i1": "0"}
    silent = drafted({**RUN, "scored": "none"}, {**bare, "output": ""})
    assert values(silent, "output_ratio_characters") == {"i1": "0.00000000000000000"}


def test_a_group_says_how_many_outputs_stand_behind_it() -> None:
    def size(*records: Json) -> int | None:
        return next(s.sample.size for s in drafted(RUN, *records).series if s.name == "group_perplexity")

    other = {**ONE, "id": "i3", "group": "law"}
    assert (size(ONE, TWO), size(ONE, other), size(ONE, TWO, other)) == (2, 1, None)


def test_a_draft_claims_and_judges_nothing() -> None:
    made = drafted()
    assert made.claims == ()
    assert (made.licence, made.replication.status, made.replication.runs) == ("directional_only", "unreplicated", 1)
    assert [q.field for q in made.judgements] == ["state", "resolution_code-0", "resolution_code-1"]
    assert all(filled is None for _, filled in judgement_fields(made))
    assert made.judgements[1].asks == "output i1: Which code?"


# --- odd input ------------------------------------------------------------------------------------------------------


def without(record: Json, key: str) -> Json:
    return {k: v for k, v in record.items() if k != key}


ODD: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "nothing": (lambda: b"", "holds no output", "raw.jsonl"),
    "only the run": (lambda: lines(RUN), "holds no output", "raw.jsonl"),
    "empty line": (lambda: lines(RUN, ONE) + b"\n" + lines(TWO), "is empty", "line 3"),
    "not JSON": (lambda: lines(RUN, ONE) + b"{]\n", "is not JSON", "line 3:2"),
    "not UTF-8": (lambda: lines(RUN, ONE) + b'"\xff"\n', "is not UTF-8", "line 3"),
    "half a surrogate": (lambda: lines(RUN, ONE).replace(b"It depends.", b"\\ud800"), "surrogate", "line 2"),
    "a key twice": (lambda: lines(RUN, ONE).replace(b'"group"', b'"id": "i9", "group"'), "same key twice", "line 2"),
    "a list": (lambda: lines(RUN) + b"[1]\n", "does not have its shape", "line 2"),
    "outputs first": (lambda: lines(ONE, RUN), "the first line is the run", "line 1"),
    "two runs": (lambda: lines(RUN, RUN, ONE), "every line but the first", "line 2"),
    "another format": (lambda: lines({**RUN, "format": "atlas-raw/2"}, ONE), "does not have its shape", "line 1 at /format"),
    "a field missing": (lambda: lines(RUN, without(ONE, "output")), "does not have its shape", "line 2 at /output"),
    "a field too many": (lambda: lines(RUN, {**ONE, "resolution_code": "HOLD"}), "does not have its shape", "line 2 at /resolution_code"),
    "a judgement slipped in": (lambda: lines({**RUN, "judgements": []}, ONE), "does not have its shape", "line 1 at /judgements"),
    "a tier slipped in": (lambda: lines({**RUN, "fidelity_tier": "A"}, ONE), "does not have its shape", "line 1 at /fidelity_tier"),
    "an id twice": (lambda: lines(RUN, ONE, ONE), "stands twice", "line 3"),
    "an id of spaces": (lambda: lines(RUN, {**ONE, "id": "i 1"}), "does not have its shape", "line 2 at /id"),
    "NaN": (lambda: lines(RUN, ONE).replace(b"-1.25", b"NaN"), "is not finite", "line 2"),
    "infinity": (lambda: lines(RUN, ONE).replace(b"-1.25", b"-1e999"), "overflows", "line 2"),
    "a logit": (lambda: lines(RUN, {**ONE, "logprobs": [-1.0, 3.5, -1.0]}), "greater than 1", "line 2 at /logprobs/1"),
    "text for a number": (lambda: lines(RUN, {**ONE, "output_tokens": "3"}), "does not have its shape", "line 2 at /output_tokens"),
    "negative tokens": (lambda: lines(RUN, {**ONE, "output_tokens": -3}), "does not have its shape", "line 2 at /output_tokens"),
    "too few logprobs": (lambda: lines(RUN, {**ONE, "logprobs": [-1.0]}), "not one per token", "line 2"),
    "too many logprobs": (lambda: lines(RUN, {**ONE, "logprobs": [-1.0] * 4}), "not one per token", "line 2"),
    "no logprobs": (lambda: lines(RUN, {**ONE, "logprobs": None}), "do not agree", "line 2"),
    "unasked logprobs": (lambda: lines({**RUN, "scored": "none"}, ONE), "do not agree", "line 2"),
    "empty logprobs": (lambda: lines(RUN, {**ONE, "logprobs": []}), "does not have its shape", "line 2 at /logprobs"),
    "tokens now and then": (lambda: lines(RUN, ONE, {**TWO, "input_tokens": None}), "Some outputs have 'input_tokens'", "line 3"),
    "groups now and then": (lambda: lines(RUN, ONE, {**TWO, "group": None}), "Some outputs have 'group'", "line 3"),
    "ended before it began": (lambda: lines({**RUN, "ended": "2025-01-01T00:00:00Z"}, ONE), "before it began", "line 1"),
    "a question twice": (lambda: lines({**RUN, "questions": RUN["questions"][:1] * 2}, ONE), "question stands twice", "line 1 at /questions"),
    "nested too deeply": (lambda: lines(RUN) + b"[" * 40 + b"]" * 40 + b"\n", "nested too deeply", "line 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ODD))
def test_odd_input_is_refused_by_line(name: str) -> None:
    make, what, where = ODD[name]
    with pytest.raises(RawError, match=what) as caught:
        parse_raw(make(), "raw.jsonl")
    assert where in caught.value.where
    assert "document" not in caught.value.what


def test_a_perplexity_beyond_reason_is_refused() -> None:
    for low in (-208.0, -1e9):
        with pytest.raises(RawError, match="too large to be one"):
            drafted(RUN, {**ONE, "output_tokens": 1, "logprobs": [low]})
    assert "e" in values(drafted(RUN, {**ONE, "output_tokens": 1, "logprobs": [-200.0]}), "perplexity")["i1"]


def test_bounds_come_before_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "LIMITS", type(LIMITS)(raw_bytes=100, raw_outputs=1))
    with pytest.raises(RawError, match="too large"):
        parse_raw(lines(RUN, ONE), "raw.jsonl")
    monkeypatch.setattr(raw_module, "LIMITS", type(LIMITS)(raw_outputs=1))
    with pytest.raises(RawError, match="too many outputs"):
        parse_raw(lines(RUN, ONE, TWO), "raw.jsonl")


def test_a_long_line_is_refused() -> None:
    long = {**ONE, "output": "x" * LIMITS.raw_line_bytes}
    with pytest.raises(RawError, match="too large") as caught:
        parse_raw(lines(RUN, long), "raw.jsonl")
    assert "line 2" in caught.value.where


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(junk: bytes) -> None:
    for data in (junk, lines(RUN) + junk, lines(RUN, ONE) + junk):
        try:
            parsed = parse_raw(data, "raw.jsonl")
        except RawError:
            continue
        assert parsed == parse_raw(data, "raw.jsonl")


scalars = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False)
)
numbers = st.lists(st.floats(-1e300, 0), min_size=1, max_size=4)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
json_values = numbers | nested


@given(st.sampled_from(sorted(ONE)), json_values)
def test_no_value_of_any_field_breaks_the_draft(field: str, value: Any) -> None:
    try:
        draft = drafted(RUN, {**ONE, field: value})
    except RawError:
        return
    assert Measurement.model_validate_json(draft.model_dump_json()) == draft


# --- the log --------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a log in which the stimulus is registered, and raw output of a run after that."""
    (tmp_path / "prompts.txt").write_bytes(PROMPTS)
    log = tmp_path / "run_log.json"
    append_step(
        log,
        step="declare",
        actor="technician",
        inputs={},
        outputs={"plan": digest_bytes(b"plan")},
        time="2025-12-01T00:00:00Z",
    )
    append_step(log, step="stimulus", actor="technician", inputs={}, outputs={"stimulus capitals@1": digest_bytes(PROMPTS)},
                time="2025-12-01T00:00:00Z")  # fmt: skip
    (tmp_path / "raw.jsonl").write_bytes(lines(RUN, ONE, TWO))
    return tmp_path


def transcribed(place: Path, run: Json | None = None, target: str = "measurement.json") -> Measurement:
    if run is not None:
        (place / "raw.jsonl").write_bytes(lines(run, ONE, TWO))
    return transcribe(read_raw(place / "raw.jsonl"), "raw.jsonl", place / target, place / "run_log.json")


def test_run_and_transcription_are_logged(place: Path) -> None:
    made = transcribed(place)
    assert read_document(place / "measurement.json", Measurement, "measurement") == made
    log = read_document(place / "run_log.json", RunLog, "log")
    assert [(s.step, s.actor) for s in log.steps[2:]] == [("extract", "automation"), ("transcribe", "automation")]
    assert log.steps[2].time == RUN["ended"]
    assert fidelity(log).tier == "C"
    transcribed(place, target="again.json")
    again = read_document(place / "run_log.json", RunLog, "log")
    assert [s.step for s in again.steps[4:]] == ["transcribe"], "one run is logged once"


REFUSED: dict[str, tuple[Json, str]] = {
    "another version": ({"stimulus": {**RUN["stimulus"], "version": "2"}}, "no earlier step registers"),
    "other content": ({"stimulus": {**RUN["stimulus"], "digest": digest_bytes(b"x")}}, "no earlier step registers"),
    "run came first": ({"started": "2025-11-01T00:00:00Z"}, "began before the step"),
    "from the future": ({"ended": "2999-01-01T00:00:00Z"}, "in the future"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_run_that_the_log_contradicts_is_refused(name: str, place: Path) -> None:
    changes, what = REFUSED[name]
    before = (place / "run_log.json").read_bytes()
    with pytest.raises(UsageError, match=what) as caught:
        transcribed(place, {**RUN, **changes})
    assert caught.value.todo
    assert (place / "run_log.json").read_bytes() == before
    assert not (place / "measurement.json").exists()


def test_a_process_that_ran_before_is_refused(place: Path) -> None:
    transcribed(place)
    with pytest.raises(UsageError, match="share one process"):
        transcribed(place, {**RUN, "title": "Another run"}, "other.json")


def test_nothing_is_overwritten_and_no_log_is_made_up(place: Path) -> None:
    transcribed(place)
    with pytest.raises(UsageError, match="never overwritten"):
        transcribed(place)
    (place / "run_log.json").unlink()
    with pytest.raises(UsageError, match="no run log") as caught:
        transcribed(place, target="new.json")
    assert "atlas log stimulus" in caught.value.todo


def test_a_version_cannot_be_given_other_content(place: Path) -> None:
    log, prompts = place / "run_log.json", place / "prompts.txt"
    assert register_stimulus(log, prompts, "capitals", "1") == "stimulus capitals@1"
    prompts.write_text("other")
    with pytest.raises(UsageError, match="other content"):
        register_stimulus(log, prompts, "capitals", "1")
    assert register_stimulus(log, prompts, "capitals", "2") == "stimulus capitals@2"
    with pytest.raises(UsageError, match="needs a version"):
        register_stimulus(log, prompts, "capitals", "")


def test_raw_output_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_raw(tmp_path / "absent.jsonl")
