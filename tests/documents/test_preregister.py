"""Pre-registering: what the contract does not admit is refused; positions are deterministic and in range."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import StudySimulator, small_study

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.preregistration import PlannedArm, Preregistration
from atlas_schema.errors import UsageError
from atlas_schema.files import read_document
from atlas_schema.protocol.log import chain_faults
from atlas_schema.study.preregister import Plan, digest_of, preregister, write_preregistration
from atlas_schema.study.probe import load_items, load_windows, positions_for, token_digest

tokenizers = pytest.importorskip("tokenizers", reason="pre-registering tokenizes; it needs the [extract] extra")

TEXT = "the quick brown fox jumps over the lazy dog again and again"


# --- positions --------------------------------------------------------------------------------------------------

tokens_strategy = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40)


@given(tokens_strategy, st.integers(0, 10), st.integers(0, 3))
def test_positions_are_distinct_ascending_in_range_and_deterministic(tokens: list[int], count: int, first: int) -> None:
    digest = token_digest(tokens)
    if max(0, len(tokens) - first) < count:
        with pytest.raises(UsageError, match="too short"):
            positions_for(digest, len(tokens), count, first)
        return
    found = positions_for(digest, len(tokens), count, first)
    assert found == positions_for(digest, len(tokens), count, first)
    assert found == sorted(set(found))
    assert len(found) == count
    assert all(first <= p < len(tokens) for p in found)


def test_positions_depend_on_the_tokens_and_reach_every_place() -> None:
    seen = {tuple(positions_for(token_digest([i] * 6), 6, 2, 1)) for i in range(200)}
    assert seen == {(a, b) for a in range(1, 6) for b in range(a + 1, 6)}


def test_all_eligible_positions_are_taken_where_there_are_no_more() -> None:
    assert positions_for(token_digest([1, 2, 3]), 3, 2, 1) == [1, 2]
    assert positions_for(token_digest([1, 2, 3]), 3, 3, 0) == [0, 1, 2]


@given(tokens_strategy, tokens_strategy)
def test_token_digests_differ_where_tokens_do(one: list[int], other: list[int]) -> None:
    assert (token_digest(one) == token_digest(other)) == (one == other)


# --- plans ------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint folder: word-level tokenizer, config and (empty) weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    words = {word: i for i, word in enumerate(["[UNK]", *sorted(set(TEXT.split()))])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "olmoe"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def window(name: str, text: str = TEXT) -> dict[str, Any]:
    return {"window_id": name, "cluster_id": digest_bytes(name.encode()), "domain": "legal", "source": "s",
            "licence": "CC0-1.0", "text": text}  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path, model: Path) -> Plan:
    """A plan that the simulated contract admits."""
    return Plan(
        study="a-study", base=model, base_name="tiny",
        windows=write_lines(tmp_path / "windows.jsonl", [window("b"), window("a", TEXT + " fox")]),
        task=write_lines(tmp_path / "task.jsonl", [{"item_id": "i", "prompt": "the quick", "answer": "brown"}]),
        contract=small_study().contract, protected_layers=(0, 2), positions_per_window=3, first_allowed_position=1,
        overlap_pairs=4, target=0.9, tolerance=0.1, damage_tolerance_nats=0.05,
        arms=(PlannedArm(name="one", policy="lora", chart_preserving=True),), pilot=None, notes="none",
    )  # fmt: skip


def test_a_pre_registration_fixes_windows_items_and_expected_rows(plan: Plan) -> None:
    made = preregister(plan)
    assert [w.window_id for w in made.windows] == ["a", "b"]
    assert [w.n_tokens for w in made.windows] == [13, 12]
    assert made.contract.digest == digest_document(plan.contract.model_dump(mode="json"))
    assert made.probe.digest == digest_bytes(plan.windows.read_bytes())
    rows = made.expected_rows
    runs, layers = 1 + 4 + 1, 2
    assert (rows.run, rows.layer, rows.window, rows.task) == (runs, runs * layers, 2, runs)
    assert (rows.routing, rows.output) == (runs * layers * 25, runs * 23)
    assert (rows.state, rows.update) == (runs * layers * 6, (runs - 1) * layers * 6)
    assert replace(plan) == plan
    again = preregister(plan)
    assert again.model_copy(update={"created": made.created}) == made


def test_expected_rows_are_those_of_a_simulated_study() -> None:
    study: StudySimulator = small_study()
    for name, table in study.tables.items():
        assert table.num_rows == getattr(study.preregistration.expected_rows, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"damage_tolerance_nats": 0.1001}, "damage tolerance"),
        ({"tolerance": 0.2001}, "success tolerance"),
        ({"positions_per_window": 0}, "more positions"),
        ({"positions_per_window": 13}, "too short"),
        ({"protected_layers": (2, 0)}, "ascending"),
        ({"protected_layers": (0, 0)}, "named twice"),
        ({"arms": (PlannedArm(name="a", policy="x", chart_preserving=True),) * 2}, "named twice"),
    ],
)
def test_what_the_contract_does_not_admit_is_refused(plan: Plan, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preregister(replace(plan, **change))


def test_what_the_contract_just_admits_is_accepted(plan: Plan) -> None:
    made = preregister(replace(plan, damage_tolerance_nats=0.1, tolerance=0.2, positions_per_window=11))
    assert (made.damage_tolerance_nats, made.task.tolerance, made.positions_per_window) == (0.1, 0.2, 11)


def test_missing_model_parts_are_named(plan: Plan) -> None:
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        path = plan.base / name
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(UsageError) as caught:
            preregister(plan)
        assert name in str(caught.value) or "safetensors" in str(caught.value)
        path.write_bytes(content)
    with pytest.raises(UsageError):
        preregister(replace(plan, base=plan.base / "absent"))


def test_a_pre_registration_is_written_once_with_its_log(plan: Plan, tmp_path: Path) -> None:
    target = tmp_path / "study" / "preregistration.json"
    target.parent.mkdir()
    made = write_preregistration(plan, target)
    assert read_document(target, Preregistration, "pre-registration") == made
    log = json.loads((target.parent / "run_log.json").read_bytes())
    assert [step["step"] for step in log["steps"]] == ["declare"]
    assert log["steps"][0]["outputs"] == [{"name": "preregistration", "digest": digest_of(made)}]
    from atlas_schema.documents.run_log import RunLog

    assert chain_faults(read_document(target.parent / "run_log.json", RunLog, "run log")) == []
    for source in (plan.windows, plan.task):
        assert (target.parent / source.name).read_bytes() == source.read_bytes()
    before = target.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        write_preregistration(plan, target)
    assert target.read_bytes() == before


def test_a_pre_registration_makes_its_folder(plan: Plan, tmp_path: Path) -> None:
    write_preregistration(plan, tmp_path / "new" / "folder" / "preregistration.json")
    assert (tmp_path / "new" / "folder" / "run_log.json").is_file()


# --- probe files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "not JSON"),
        (["[]"], "lacks a field"),
        (['{"window_id": "a"}'], "lacks a field"),
        ([json.dumps({**window("a"), "text": ""})], "lacks a field"),
        ([json.dumps({**window("a"), "text": 3})], "lacks a field"),
        ([json.dumps({**window("a"), "extra": 1})], "nobody reads"),
        ([json.dumps(window("a"))] * 2, "same id"),
        ([], "empty"),
    ],
)
def test_faulty_windows_are_refused_with_their_line(lines: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text("\n".join(["", *lines]))
    with pytest.raises(UsageError, match=message) as caught:
        load_windows(path)
    assert f"{path}" in caught.value.where
    assert not lines or f":{1 + len(lines)}" in caught.value.where


def test_items_are_read_sorted_by_id(tmp_path: Path) -> None:
    rows = [{"item_id": name, "prompt": "p", "answer": "a", "source": "s"} for name in ("b", "a")]
    assert [i.item_id for i in load_items(write_lines(tmp_path / "t.jsonl", rows))] == ["a", "b"]


@pytest.mark.parametrize("split", ["evaluation", "train", ""])
def test_a_window_of_no_known_split_is_refused(plan: Plan, split: str) -> None:
    write_lines(plan.windows, [{**window("a"), "split": split}])
    if split == "evaluation":
        assert preregister(plan).windows[0].split == split
    else:
        with pytest.raises(UsageError, match="split"):
            preregister(plan)


def test_probe_files_of_one_name_do_not_overwrite_each_other(plan: Plan, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / plan.windows.name
    other.parent.mkdir()
    other.write_bytes(plan.task.read_bytes())
    with pytest.raises(UsageError, match="same file name"):
        write_preregistration(replace(plan, task=other), tmp_path / "new" / "preregistration.json")
    assert not (tmp_path / "new").exists()


def test_another_file_beside_the_pre_registration_is_kept(plan: Plan, tmp_path: Path) -> None:
    precious = tmp_path / "study-of-mine" / plan.windows.name
    precious.parent.mkdir()
    precious.write_text("precious\n")
    with pytest.raises(UsageError, match="lies beside"):
        write_preregistration(plan, precious.parent / "preregistration.json")
    assert precious.read_text() == "precious\n"


def test_a_layer_that_the_base_lacks_is_refused(plan: Plan) -> None:
    config = json.loads((plan.base / "config.json").read_text()) | {"num_hidden_layers": 2}
    (plan.base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="does not exist"):
        preregister(replace(plan, protected_layers=(0, 2)))
