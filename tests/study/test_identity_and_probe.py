"""What a study is made of: identities of checkpoints, tokens, positions, and receipts repeating their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import small_study
from verify.forging import honest, study

from atlas_schema.errors import UsageError
from atlas_schema.study.contracts import built_in_contracts, contract_digest, load_contract
from atlas_schema.study.describe import extraction_of, subjects_of
from atlas_schema.study.identity import config_digest, read_config, tokenizer_digest, weights_digest
from atlas_schema.study.issue import build_receipt, issue
from atlas_schema.study.plan import planned_rows, planned_runs
from atlas_schema.study.probe import item_digest, positions_for, token_digest
from atlas_schema.verify.consistency import digest_of
from atlas_schema.verify.rules import RULES

tokens = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in (("a.safetensors", b"one"), ("b.safetensors", b"two"), ("config.json", b'{"model_type": "olmoe"}'),
                          ("tokenizer.json", b"{}")):  # fmt: skip
        (tmp_path / name).write_bytes(content)
    return tmp_path


# --- identities ---------------------------------------------------------------------------------------------------


def test_identities_follow_from_the_files_that_matter(model: Path) -> None:
    before = weights_digest(model), config_digest(model), tokenizer_digest(model)
    (model / "README.md").write_text("notes")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert (weights_digest(model), config_digest(model), tokenizer_digest(model)) == before


@pytest.mark.parametrize("change", ["content", "name", "swapped", "added", "removed"])
def test_any_change_of_the_weights_is_another_identity(model: Path, change: str) -> None:
    before = weights_digest(model)
    a, b = model / "a.safetensors", model / "b.safetensors"
    match change:
        case "content":
            a.write_bytes(b"onf")
        case "name":
            a.rename(model / "c.safetensors")
        case "swapped":
            a.write_bytes(b"two")
            b.write_bytes(b"one")
        case "added":
            (model / "c.safetensors").write_bytes(b"")
        case _:
            b.unlink()
    assert weights_digest(model) != before


def test_pickled_weights_are_named_and_never_loaded(model: Path) -> None:
    for file in model.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(UsageError, match="safetensors") as caught:
        weights_digest(model)
    assert "a.bin" in caught.value.found
    assert "never loaded" in caught.value.todo


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_configuration_that_cannot_be_read(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.json"):
        read_config(model)


# --- tokens and positions -----------------------------------------------------------------------------------------


@given(tokens, tokens)
def test_token_digests_tell_sequences_apart(a: list[int], b: list[int]) -> None:
    assert (token_digest(a) == token_digest(b)) == (a == b)
    assert (item_digest(a, b) == item_digest(b, a)) == (a == b)


def test_items_with_the_boundary_elsewhere_are_other_items() -> None:
    assert item_digest([1, 2], [3]) != item_digest([1], [2, 3])


@given(tokens, st.integers(0, 5), st.integers(0, 20), st.integers(1, 200))
def test_positions_are_distinct_ascending_and_allowed(of: list[int], first: int, count: int, spare: int) -> None:
    n_tokens = first + count + spare
    positions = positions_for(token_digest(of), n_tokens, count, first)
    assert len(positions) == count
    assert positions == sorted(set(positions))
    assert all(first <= p < n_tokens for p in positions)
    assert positions == positions_for(token_digest(of), n_tokens, count, first)


@given(tokens, st.integers(1, 10))
def test_all_positions_are_drawn_where_all_are_asked_for(of: list[int], n_tokens: int) -> None:
    assert positions_for(token_digest(of), n_tokens, n_tokens, 0) == list(range(n_tokens))
    with pytest.raises(UsageError, match="too short"):
        positions_for(token_digest(of), n_tokens, n_tokens + 1, 0)


def test_every_position_is_equally_likely() -> None:
    counts = [0] * 10
    for i in range(4000):
        for position in positions_for(token_digest([i]), 10, 3, 0):
            counts[position] += 1
    assert all(abs(count - 1200) < 6 * (1200 * 0.7) ** 0.5 for count in counts)


# --- plans and receipts -------------------------------------------------------------------------------------------


def test_built_in_contracts_are_cited_by_the_digest_of_their_content() -> None:
    for name, contract in built_in_contracts().items():
        assert load_contract(name).id == name
        assert contract_digest(contract) == digest_of(contract)
    with pytest.raises(UsageError, match="no built-in contract"):
        load_contract("chart-preserving.v0")


def test_planned_rows_are_the_rows_of_a_complete_study() -> None:
    s = study()
    planned = planned_rows(s.preregistration, s.contract).model_dump()
    assert planned == {name: table.num_rows for name, table in s.tables.items()}
    assert sorted(planned_runs(s.preregistration, s.contract)) == [r["run_id"] for r in s.rows("run")]


def test_a_receipt_repeats_table_run() -> None:
    receipt, rows = honest(), study().rows("run")
    assert list(receipt.subjects) == subjects_of(study().source())
    assert [(x.run_id, x.model, x.weights_digest) for x in receipt.subjects] == [
        (r["run_id"], r["model"], r["weights_digest"]) for r in rows
    ]
    assert receipt.extraction == extraction_of(study().source(), study().counts())
    assert receipt.extraction.fingerprint["dtype"] == "float32"


@pytest.mark.parametrize("libraries", ['["torch"]', '"torch"', "null", "{}", '{"atlas-schema": ["1"]}'])
def test_odd_fingerprints_are_described_and_not_trusted(libraries: str) -> None:
    at = study().find("run", run_id="base")
    text = '{"dtype": "float32", "libraries": ' + libraries + "}"
    described = extraction_of(study().with_value("run", at, "fingerprint", text).source(), study().counts())
    assert described.extractor.startswith("atlas-schema ")


def test_issuing_twice_gives_the_same_receipt() -> None:
    s = study()
    assert build_receipt(s.source(), s.preregistration, s.contract, s.run_log, "close") == honest("close")


def test_incomplete_evidence_is_not_issued() -> None:
    s = study().without_row("output", 0)
    with pytest.raises(UsageError, match="not complete") as caught:
        build_receipt(s.source(), s.preregistration, s.contract, s.run_log, "close")
    assert caught.value.where == "table output"


def test_rules_are_complete_sentences_with_sources() -> None:
    for rule in RULES.values():
        assert rule.statement.endswith(".")
        assert rule.rationale.endswith(".")
        assert rule.source


def test_a_receipt_overwrites_nothing(tmp_path: Path) -> None:
    made = small_study()
    made.write(tmp_path)
    log, before = tmp_path / "run_log.json", (tmp_path / "preregistration.json").read_bytes()
    for name in ("preregistration.json", "run_log.json"):
        with pytest.raises(UsageError, match="already exists"):
            issue(made.source(), made.preregistration, made.contract, log, made.run_log, "preserved", tmp_path / name)
    assert (tmp_path / "preregistration.json").read_bytes() == before


def test_an_altered_log_leaves_no_receipt_behind(tmp_path: Path) -> None:
    made = small_study()
    made.write(tmp_path)
    steps = [step.model_copy(update={"tool": "another"}) for step in made.run_log.steps]
    altered = made.run_log.model_copy(update={"steps": tuple(steps)})
    target = tmp_path / "receipt-new.json"
    with pytest.raises(UsageError, match="altered"):
        issue(
            made.source(), made.preregistration, made.contract, tmp_path / "run_log.json", altered, "preserved", target
        )
    assert not target.exists()
