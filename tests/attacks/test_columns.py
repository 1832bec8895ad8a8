"""No column can be changed unseen under old documents; what is believed of a producer is what the page lists, for the stated reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks.columns import NAME, REASONS, STUDIES, attacks, fits, tried, world
from attacks.edits import Attack, with_cell
from attacks.world import Strength, attacked, bundle_of, honest, issued, looked_at, outcome, report_bytes, shipped

from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.verify.loading import load
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.verifier import Options, verify
from benchmarks.page import section

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"


@cache
def drawn(name: str, seed: int) -> list[Attack]:
    """Return a study's attacks in an order that the seed draws."""
    every = list(attacks(name))
    return Random(seed).sample(every, len(every))


def amiss(name: str, seed: int, number: int) -> list[str]:
    """Make the first changes that change something, in the order drawn; return those neither caught nor explained."""
    made = ((attack, tried(attack, name)) for attack in drawn(name, seed))
    found = list(islice(((attack, what) for attack, what in made if what is not None), number))
    assert len(found) == number
    return [f"{attack.name}: {what}" for attack, what in found if not fits(attack, what)]


def test_changes_are_caught_or_explained() -> None:
    assert amiss("demo", 20261122, 3) == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(STUDIES))
def test_many_changes_are_caught_or_explained(name: str) -> None:
    assert amiss(name, 7, 40) == []


@pytest.mark.thorough
def test_what_is_remembered_between_strengths_changes_nothing() -> None:
    """The sweep reads rows once for three attackers; here each is verified by itself."""
    original, options = world("demo"), Options()
    study = with_cell(original.study, "output", 5, "top1", 200)
    found = attacked(study, original, "preserved", options)
    with bundle_of(study, original) as folder:
        assert outcome(original.receipt("preserved"), original.study, folder, options) == found[Strength.COURIER]
        made = looked_at(study, folder)
        assert not isinstance(made, EvidenceError)
        receipt = original.receipt("preserved")
        again, forged = issued(study, made, receipt, study.tables["run"], keep=True)
        assert outcome(forged, again, folder, options) == found[Strength.FORGER]


@pytest.mark.thorough
def test_nothing_changed_is_believed_of_everyone() -> None:
    original, options = world("demo"), Options()
    assert honest(original, "preserved", options).code is Code.VERIFIED
    assert all(o.believed for o in attacked(original.study, original, "preserved", options).values())


# --- what changes nothing -----------------------------------------------------------------------------------------

Written = Callable[[pa.Table, str, Path], None]


def written(**options: Any) -> Written:
    return lambda table, _, path: pq.write_table(table, path, **options)


def shuffled(table: pa.Table, name: str, path: Path) -> None:
    order = np.random.default_rng(len(name)).permutation(table.num_rows)
    pq.write_table(table.take(pa.array(order)), path, row_group_size=997)


def turned(table: pa.Table, _: str, path: Path) -> None:
    pq.write_table(
        table.take(pa.array(np.arange(table.num_rows)[::-1])), path, compression="snappy", row_group_size=3001
    )


def rotated(table: pa.Table, name: str, path: Path) -> None:
    """Write every table in another way."""
    ways = (
        turned,
        shuffled,
        written(compression="none"),
        written(use_dictionary=False, compression="zstd"),
        written(data_page_size=512),
    )
    ways[STUDY_TABLES.index(name) % len(ways)](table, name, path)


WAYS: dict[str, Written] = {
    "each table another way": rotated,
    "snappy": written(compression="snappy"),
    "gzip": written(compression="gzip"),
    "zstd, level 19": written(compression="zstd", compression_level=19),
    "not compressed": written(compression="none"),
    "no dictionaries": written(use_dictionary=False),
    "dictionaries everywhere": written(use_dictionary=True),
    "small row groups": written(row_group_size=64),
    "one row group": written(row_group_size=2**20),
    "small pages": written(data_page_size=256),
    "no statistics": written(write_statistics=False),
    "pages of the second version": written(data_page_version="2.0"),
    "rows in reverse": turned,
    "rows shuffled": shuffled,
}


def rewritten(way: Written, folder: Path) -> Iterator[str]:
    """Write the demo's bundle anew; yield the tables whose files have other bytes."""
    original = shipped("demo")
    for name in STUDY_TABLES:
        path = folder / f"{name}.parquet"
        way(original.study.tables[name].cast(TABLES[name].arrow_schema(original.study.dims)), name, path)
        if path.read_bytes() != (original.folder / "evidence" / path.name).read_bytes():
            yield name


def reports_of(way: Written, tmp_path: Path) -> list[bytes]:
    """Return the reports of the demo with its rows stored otherwise, and as it ships; without their paths."""
    folder = shutil.copytree(shipped("demo").folder, tmp_path / "study", ignore=shutil.ignore_patterns("evidence"))
    (folder / "evidence").mkdir()
    assert set(rewritten(way, folder / "evidence")) == set(STUDY_TABLES)
    submission = load(folder / "receipt-preserved.json")
    before = load(shipped("demo").folder / "receipt-preserved.json")
    reports = [report_bytes(verify(s, Options())) for s in (submission, before)]
    paths = [str(folder).encode(), str(shipped("demo").folder).encode()]
    assert b'"exit_code": 0' in reports[0]
    return [report.replace(path, b"") for report, path in zip(reports, paths, strict=True)]


def test_how_rows_are_stored_changes_nothing_in_the_report(tmp_path: Path) -> None:
    stored, shipped_so = reports_of(rotated, tmp_path)
    assert stored == shipped_so


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(WAYS))
def test_no_way_of_storing_rows_changes_the_report(name: str, tmp_path: Path) -> None:
    stored, shipped_so = reports_of(WAYS[name], tmp_path)
    assert stored == shipped_so


# --- the page -----------------------------------------------------------------------------------------------------


def test_reasons_are_of_columns_that_there_are() -> None:
    for name in REASONS:
        table, _, column = name.partition(".")
        assert column == "*" or column in {c.name for c in TABLES[table].columns}, name
        assert table in (*STUDY_TABLES, "all"), name


def test_the_page_counts_every_table_and_gives_every_reason() -> None:
    lines = [
        [c.strip() for c in line.strip("|").split("|")]
        for line in section(PAGE, NAME).splitlines()
        if line.startswith("| `")
    ]
    counted = {row[0].strip("`"): row for row in lines if len(row) > 4}
    assert set(STUDY_TABLES) <= set(counted)
    assert sum(int(row[1]) for row in counted.values()) >= 900
    assert {row[0].strip("`"): row[-1] for row in lines if len(row) <= 4} == dict(REASONS)
