"""Content digests against the oracle, and what they do and do not depend on."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evidence.strategies import DIMS, FEWER, Row, arrow, naive_columns, naive_root, root, rows_of, value_of
from hypothesis import assume, given
from hypothesis import strategies as st
from naive import merkle
from simulator import MemorySource, StudySimulator, small_study

from atlas_schema.canonical import digest_bytes
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.columns import from_arrow
from atlas_schema.evidence.digest import TableRoot, evidence_root, leaf_hashes, merkle_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES

EVERY_TABLE = pytest.mark.parametrize("name", sorted(TABLES))


def _bits(column_type: str, value: Any) -> Any:
    """Return a value so that values with different bytes compare as different (-0.0 and 0.0)."""
    if isinstance(value, list):
        return [_bits(column_type, v) for v in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_leaves_and_roots_equal_the_oracle(name: str, data: st.DataObject) -> None:
    rows = data.draw(rows_of(name))
    spec = TABLES[name]
    expected = merkle.table_leaves(name, naive_columns(name), spec.key, spec.leaf, rows)
    assert leaf_hashes(from_arrow(spec, DIMS, arrow(name, rows)), DIMS) == [digest for _, digest in expected]
    assert root(name, arrow(name, rows)) == naive_root(name, rows)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40))
def test_merkle_tree_is_that_of_rfc_6962(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == merkle.tree_root(leaves)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65])
def test_merkle_tree_at_the_edges_of_powers_of_two(count: int) -> None:
    leaves = [bytes([i]) * 32 for i in range(count)]
    assert merkle_root(leaves) == merkle.tree_root(leaves)


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_root_does_not_depend_on_order_or_chunks(name: str, data: st.DataObject) -> None:
    rows = data.draw(rows_of(name, min_size=1))
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    # A chunk that is a slice of a longer array has an offset, which lists of fixed size handle apart.
    padded = arrow(name, [rows[0], *shuffled]).slice(1)
    chunks = pa.concat_tables([padded.slice(0, cut), arrow(name, []), padded.slice(cut)])
    assert root(name, chunks) == root(name, arrow(name, rows))


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_any_changed_value_changes_the_root(name: str, data: st.DataObject) -> None:
    rows: list[Row] = data.draw(rows_of(name, min_size=1, max_size=3))
    at = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from([c for c in TABLES[name].columns if c.name not in TABLES[name].key]))
    value = data.draw(value_of(column))
    if column.type == "f32":
        value = arrow(name, [{**rows[at], column.name: value}]).column(column.name).to_pylist()[0]
    assume(_bits(column.type, value) != _bits(column.type, rows[at][column.name]))
    changed = [*rows[:at], {**rows[at], column.name: value}, *rows[at + 1 :]]
    assert root(name, arrow(name, changed)) != root(name, arrow(name, rows))


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_any_missing_or_renamed_row_changes_the_root(name: str, data: st.DataObject) -> None:
    rows: list[Row] = data.draw(rows_of(name, min_size=2))
    at = data.draw(st.integers(0, len(rows) - 1))
    others = [*rows[:at], *rows[at + 1 :]]
    assert root(name, arrow(name, others)) != root(name, arrow(name, rows))
    renamed = {**rows[at], TABLES[name].key[0]: "another"}
    assert root(name, arrow(name, [*others, renamed])) != root(name, arrow(name, rows))


PREDICTED: Row = {
    "run_id": "base",
    "window_id": "w",
    "position": 0,
    "nll": 1.0,
    "top1": 0,
    "entropy": 2.0,
    "kl_from_base": None,
}
"""A row of table `output`."""


def test_a_value_moved_to_another_column_changes_the_root() -> None:
    swapped = {**PREDICTED, "nll": 2.0, "entropy": 1.0}
    assert root("output", arrow("output", [PREDICTED])) != root("output", arrow("output", [swapped]))


def test_null_is_not_zero() -> None:
    assert root("output", arrow("output", [PREDICTED])) != root(
        "output", arrow("output", [{**PREDICTED, "kl_from_base": 0.0}])
    )


def test_what_lies_behind_a_null_list_does_not_count() -> None:
    study = small_study()
    state = study.tables["state"]
    at = state.schema.get_field_index("g")
    g = state.column("g").combine_chunks()
    assert 0 < g.null_count < len(g)
    mask = np.asarray(g.is_null())
    values = np.where(
        np.repeat(mask, study.dims.d), np.float32(np.nan), g.values.fill_null(0).to_numpy(zero_copy_only=False)
    )
    noisy = pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), type=g.type, mask=pa.array(mask))
    changed = state.set_column(at, state.schema.field("g"), noisy)
    assert root("state", changed, study.dims) == root("state", state, study.dims)


def test_a_study_has_the_oracles_roots_and_evidence_root() -> None:
    study = small_study()
    found = table_roots(study.source())
    expected = [TableRoot(n, len(study.rows(n)), naive_root(n, study.rows(n), study.dims)) for n in STUDY_TABLES]
    assert found == expected
    tables = sorted(({"name": r.name, "rows": r.rows, "root": r.root} for r in expected), key=lambda t: str(t["name"]))
    text = json.dumps({"evidence": "atlas-evidence/1", "tables": tables}, separators=(",", ":"), sort_keys=True)
    assert evidence_root(found) == digest_bytes(text.encode()) == study.evidence_root()


def test_evidence_root_depends_on_names_rows_and_roots_and_not_on_order() -> None:
    roots = [TableRoot(n, i, digest_bytes(n.encode())) for i, n in enumerate(STUDY_TABLES)]
    usual = evidence_root(roots)
    assert evidence_root(reversed(roots)) == usual
    first = roots[0]
    for other in (
        TableRoot("other", first.rows, first.root), TableRoot(first.name, 99, first.root),
        TableRoot(first.name, first.rows, digest_bytes(b"")),
    ):  # fmt: skip
        assert evidence_root([other, *roots[1:]]) != usual
    assert evidence_root(roots[1:]) != usual


def test_equal_settings_give_equal_studies() -> None:
    again = StudySimulator.make(small_study().settings)
    assert again.evidence_root() == small_study().evidence_root()
    assert again.preregistration == small_study().preregistration
    assert again.run_log == small_study().run_log


# --- refusals ---------------------------------------------------------------------------------------------------


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_duplicate_keys_are_refused_and_named(name: str, data: st.DataObject) -> None:
    rows: list[Row] = data.draw(rows_of(name, min_size=1))
    twice = data.draw(st.permutations([*rows, rows[data.draw(st.integers(0, len(rows) - 1))]]))
    with pytest.raises(EvidenceError, match="same key") as caught:
        root(name, arrow(name, twice))
    assert f"table {name}" in caught.value.where
    assert all(key in caught.value.where for key in TABLES[name].key)


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_nulls_are_refused_where_none_may_stand(name: str, data: st.DataObject) -> None:
    rows: list[Row] = data.draw(rows_of(name, min_size=1, max_size=3))
    column = data.draw(st.sampled_from([c for c in TABLES[name].columns if not c.nullable]))
    table = arrow(name, [{**rows[0], column.name: None}, *rows[1:]])
    with pytest.raises(EvidenceError, match="value is missing") as caught:
        root(name, table)
    assert column.name in caught.value.where


@EVERY_TABLE
@FEWER
@given(data=st.data())
def test_nulls_inside_lists_are_refused(name: str, data: st.DataObject) -> None:
    lists = [c for c in TABLES[name].columns if c.shape]
    if not lists:
        return
    rows: list[Row] = data.draw(rows_of(name, min_size=1, max_size=3))
    column = data.draw(st.sampled_from(lists))
    holed = [None] * (DIMS.of(column.shape) or 2)
    with pytest.raises(EvidenceError, match="missing value") as caught:
        root(name, arrow(name, [{**rows[0], column.name: holed}, *rows[1:]]))
    assert column.name in caught.value.where


@EVERY_TABLE
@FEWER
@given(data=st.data(), bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_numbers_that_are_not_finite_are_refused(name: str, data: st.DataObject, bad: float) -> None:
    floats = [c for c in TABLES[name].columns if c.type in ("f32", "f64")]
    if not floats:
        return
    rows: list[Row] = data.draw(rows_of(name, min_size=1, max_size=3))
    column = data.draw(st.sampled_from(floats))
    value = bad if not column.shape else [bad] * (DIMS.of(column.shape) or 2)
    with pytest.raises(EvidenceError, match="not finite") as caught:
        root(name, arrow(name, [{**rows[0], column.name: value}, *rows[1:]]))
    assert column.name in caught.value.where
    assert caught.value.todo


def test_reading_an_absent_partition_gives_no_rows() -> None:
    study = small_study()
    source: MemorySource = study.source()
    assert source.read("state", ("arm:absent", 0)).n == 0
    assert source.read("state", ("base",)).n == 2 * source.read("state", ("base", 0)).n
