"""A defect is found in whichever block of rows it stands, by one thread or two, and the rows are digested whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from simulator import MemorySource
from verify import finding_defects, row_defects
from verify.cases import CASES
from verify.forging import honest, reissued, study, verified
from verify.router_defects import grouped_receipt, grouped_world

from atlas_schema.evidence import streaming
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import Partition, table_roots
from atlas_schema.measures.collect import LayerBlock
from atlas_schema.verify import examine
from atlas_schema.verify.outcome import Channel, Code, Status, exit_code
from atlas_schema.verify.verifier import Options

MODULES = (row_defects, finding_defects)
"""Importing them registers their cases."""
CHOSEN = (
    "wrong_scale", "score_to_taste", "margin_negative", "unknown_flag", "expert_twice", "weights_to_taste", "same_state_scores",
    "members_copied", "forced_weight", "updates_swapped", "base_states_as_the_arms", "divergence_of_a_null_arm", "angle_left_out",
    "router_replaced", "no_drift_of_changed_tensors",
)  # fmt: skip


def cut(self: MemorySource, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
    """Give five windows at a time, as a large bundle would."""
    parts = [self.read(table, partition) for table, partition in wanted]
    names = sorted({str(w) for part in parts for w in part["window_id"]}) if "window_id" in parts[0].columns else []
    if not names:
        yield tuple(parts)
        return
    for start in range(0, len(names), 5):
        block = set(names[start : start + 5])
        yield tuple(p.take(np.flatnonzero([str(w) in block for w in p["window_id"]])) for p in parts)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemorySource, "blocks", cut)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("name", CHOSEN)
def test_a_defect_is_found_in_whichever_block_it_stands(name: str) -> None:
    case = CASES[name]
    report = case.make(Path())
    assert {p.rule for r in report.channels.values() for p in r.problems} == case.rules
    assert exit_code(report) is case.code


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("last", [False, True])
def test_rows_that_support_no_check_are_told_and_the_others_are_digested_all_the_same(last: bool) -> None:
    """A list that is too short ends the pass in its block; the roots are of all rows, so that binding blames nothing."""
    rows = study().rows("update")
    mine = [at for at, row in enumerate(rows) if row["run_id"] == "arm:close"]
    at = mine[-1 if last else 0]
    report = verified(*reissued(study().with_value("update", at, "rho1", rows[at]["rho1"][:-1])))
    assert {p.rule for r in report.channels.values() for p in r.problems} == {"ATL-A003"}
    assert report.status(Channel.BINDING) is Status.PASSED
    assert exit_code(report) is Code.INADMISSIBLE


@pytest.mark.parametrize("reproduce", [True, False])
def test_every_row_of_a_sound_study_is_decoded_once(reproduce: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    s, plain = study(), MemorySource.blocks
    asked: list[tuple[str, Partition]] = []

    def counted(self: MemorySource, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        asked.extend(wanted)
        return plain(self, wanted)

    monkeypatch.setattr(MemorySource, "blocks", counted)
    found = examine.examine(s.source(), s.preregistration, s.contract, reproduce=reproduce)
    monkeypatch.undo()
    assert found.roots == table_roots(s.source())
    for table in ("state", "routing", "update", "update_vector", "output"):
        assert sorted(p for t, p in asked if t == table) == sorted(s.source().partitions(table))


@pytest.mark.usefixtures("in_blocks")
def test_blocks_change_nothing_of_an_honest_report(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces = verified(study(), honest("close"))
    monkeypatch.undo()
    assert in_pieces == verified(study(), honest("close"))
    assert exit_code(in_pieces) is Code.VERIFIED


@pytest.mark.parametrize("pieces", [False, True])
def test_an_honest_receipt_of_a_router_with_groups_is_believed(pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if pieces:
        monkeypatch.setattr(MemorySource, "blocks", cut)
    report = verified(grouped_world(), grouped_receipt())
    assert exit_code(report) is Code.VERIFIED
    assert not [p for r in report.channels.values() for p in r.problems]


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("at", [0, 100, -1])
@pytest.mark.parametrize("profile", ["review", "offline"])
@pytest.mark.parametrize("table", ["routing", "state", "update", "output"])
def test_a_row_left_out_anywhere_is_missed_under_every_profile_that_reads_rows(
    table: str, profile: str, at: int
) -> None:
    rows = study().rows(table)
    del rows[at if at < 0 else at + study().find(table, run_id="arm:close")]
    report = verified(*reissued(study().with_rows(table, rows)), Options(profile=profile))
    assert {p.rule for r in report.channels.values() for p in r.problems} == {"ATL-C010"}
    assert exit_code(report) is Code.INADMISSIBLE or report.status(Channel.CONTRACT) is Status.UNPROVEN


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_threads_hash_the_same_rows(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "processors", lambda: count)
    monkeypatch.setattr(streaming, "processors", lambda: count)
    assert exit_code(verified(study(), honest())) is Code.VERIFIED
    assert examine.Digests(study().source()).roots(seen=False) == examine.Digests(study().source()).roots(seen=True)


@pytest.mark.parametrize("count", [1, 2])
def test_a_thread_is_there_where_there_is_a_processor_for_it(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "processors", lambda: count)
    before = threading.active_count()
    looked = examine.Digests(study().source())
    looked._add([("run", (), study().source().read("run", ()))])
    assert threading.active_count() == before + count - 1
    looked.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_shown_is_hashed_by_whoever_there_is(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "processors", lambda: count)
    looked = examine.Digests(study().source())
    examine.watch(study().source(), study().contract, study().preregistration, [looked])
    assert looked.roots(seen=True) == table_roots(study().source())


def test_what_was_not_shown_is_read_though_something_before_it_was() -> None:
    source = study().source()
    first, *rest = source.partitions("state")
    assert rest
    looked = examine.Digests(source)
    run, layer = first
    looked.layer_block(LayerBlock(int(layer), {str(run): source.read("state", first)}, {}, {}, {}))
    assert looked.roots(seen=True) == table_roots(source)
