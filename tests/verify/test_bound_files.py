"""Channel binding on lists small enough to read: what is compared, what is said, and how much of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from signing.material import sha

from atlas_schema.signing.statement import UNREAD, File
from atlas_schema.verify.binding import SHOWN, check_files
from atlas_schema.verify.outcome import Channel, ChannelResult, Status

A, B, C = (File(f"{name}.parquet", size, sha(name)) for name, size in (("a", 10), ("b", 20), ("c", 30)))


def compared(signed: tuple[File, ...], found: tuple[File, ...] | None) -> ChannelResult:
    result = ChannelResult(Channel.BINDING)
    check_files(signed, found, result)
    assert result.unit == "tables and files"
    assert {p.rule for p in result.problems} <= {"ATL-B010"}
    return result


def test_the_same_files_in_any_order_are_bound() -> None:
    result = compared((A, B), (B, A))
    assert (result.problems, result.status) == ([], Status.PASSED)
    assert (result.checked, result.total) == (3, 3)


def test_files_that_cannot_be_listed_prove_nothing() -> None:
    result = compared((A, B), None)
    assert [p.unproven for p in result.problems] == [True]
    assert (result.checked, result.total) == (0, 2)


def test_a_missing_a_changed_and_an_added_file_are_each_named() -> None:
    other = replace(B, sha256=sha("other"))
    result = compared((A, B), (other, C))
    assert [p.where for p in result.problems] == ["a.parquet", "b.parquet", "c.parquet"]
    assert ["missing" in result.problems[0].what, "not signed" in result.problems[2].what] == [True, True]
    changed = result.problems[1]
    assert changed.stated == f"20 bytes, sha256:{B.sha256}"
    assert changed.recomputed == f"20 bytes, sha256:{other.sha256}"


def test_a_file_of_another_size_need_not_be_read_and_those_beside_it_are_not_blamed() -> None:
    result = compared((B, A), (replace(A, size=11, sha256=UNREAD), replace(B, sha256=UNREAD)))
    assert [(p.where, p.recomputed) for p in result.problems] == [("a.parquet", "11 bytes")]


@pytest.mark.parametrize("count", [0, 1, SHOWN - 1, SHOWN, SHOWN + 1, SHOWN + 5])
def test_as_many_added_files_are_listed_as_a_reader_can_use_and_the_rest_is_counted(count: int) -> None:
    added = tuple(File(f"x{at:02}.parquet", 1, sha(str(at))) for at in range(count))
    result = compared((A,), (A, *reversed(added)))
    listed = [p.where for p in result.problems if p.where]
    assert listed == [f.name for f in added[:SHOWN]]
    assert [p.what for p in result.problems if not p.where] == (
        [f"The evidence holds {count} files that were not signed."] if count > SHOWN else []
    )
