"""The corpus is what its generator makes of the test suite's cases, says what it holds, and is small."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conformance.capture import files_of
from conformance.catalogue import catalogue
from conformance.generate import MARK, VECTORS, Corpus, make, write_page

from atlas_schema.conformance.corpus import Case, read_corpus
from atlas_schema.verify.rules import RULES
from benchmarks.page import section

BASES = ("base", "base-grouped")
PAGE = VECTORS / "README.md"


@cache
def cases() -> dict[str, Case]:
    return {case.name: case for case in read_corpus(VECTORS)[0]}


def gaps() -> dict[str, str]:
    lines = PAGE.read_text(encoding="utf-8").split("## Not in the corpus")[1].splitlines()
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", "\n".join(lines), flags=re.MULTILINE))


def test_every_case_of_the_suite_is_there_or_said_to_be_absent() -> None:
    assert set(cases()) | set(gaps()) == set(catalogue())
    assert set(cases()) & set(gaps()) == set()
    assert len(gaps()) < 10


def test_a_gap_names_what_stands_in_its_place() -> None:
    for why in gaps().values():
        named = re.findall(r"in its place: `(\w+)`", why)
        assert named, why
        assert set(named) <= set(cases()), why


def test_expected_is_what_the_suite_demands() -> None:
    demanded = {name: (int(entry.code), set(entry.rules)) for name, entry in catalogue().items()}
    for name, case in cases().items():
        assert (case.expected.exit_code, set(case.expected.rules)) == demanded[name], name


def test_every_rule_fires_in_some_case() -> None:
    assert {rule for case in cases().values() for rule in case.expected.rules} == set(RULES)


def test_cases_are_believed_and_refused_with_every_code() -> None:
    codes = Counter(case.expected.exit_code for case in cases().values())
    assert set(codes) == set(range(7))
    assert min(codes.values()) >= 5
    assert {c.expected.verdict for c in cases().values()} >= {
        "preserved",
        "rewritten",
        "damaged",
        "unmatched",
        "undetermined",
    }


def test_boundaries_come_in_pairs_that_differ() -> None:
    ends = {name.rsplit("_", 1)[0] for name in cases() if name.endswith(("_inside", "_outside"))} - {"lucky_seed"}
    assert len(ends) >= 12
    for pair in ends:
        inside, outside = (cases()[f"{pair}_{end}"].expected for end in ("inside", "outside"))
        assert (inside.exit_code, inside.rules) != (outside.exit_code, outside.rules), pair
    assert cases()["lucky_seed_inside"].expected.exit_code == 0
    assert cases()["lucky_resample"].expected.exit_code == 6


def test_every_case_has_a_page_that_says_why_and_how() -> None:
    for name, case in cases().items():
        page = (case.folder / "README.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {name}\n")
        assert f"(exit code {case.expected.exit_code}, " in page
        assert set(re.findall(r"^- `(ATL-\w+)`", page, flags=re.MULTILINE)) == set(case.expected.rules)
        assert all(
            part in page
            for part in ("Why it exists:", "Who would do it: ", "How it was made: ", "What to do with it: ")
        )


def test_nothing_else_lies_in_the_corpus() -> None:
    assert {p.name for p in VECTORS.iterdir()} == {*cases(), *BASES, "README.md"}
    for case in cases().values():
        assert {p.name for p in case.folder.iterdir()} <= {"README.md", "expected.json", "files"}


def test_the_corpus_is_small() -> None:
    assert sum(p.stat().st_size for p in VECTORS.rglob("*") if p.is_file()) < 25 * 2**20


def test_the_page_counts_what_is_there(tmp_path: Path) -> None:
    expected = {name: case.expected for name, case in cases().items()}
    made = Corpus(tmp_path, expected, list(gaps().items()))
    write_page(made)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert section(PAGE, MARK) != "not measured yet"


# --- made again ----------------------------------------------------------------------------------------------------


def differing(folder: Path, names: list[str]) -> list[str]:
    """Return the files of some folders that are not what is committed, and those that are there too many or too few."""
    found = []
    for name in names:
        before, now = files_of(VECTORS / name), files_of(folder / name)
        found += [f"{name}/{part}" for part in sorted({*before, *now}) if before.get(part) != now.get(part)]
    return found


def require_same_simulation(folder: Path) -> None:
    """Skip where this processor simulates other last bits than the one that made the corpus; fail for any other difference."""
    bases = [name for name in BASES if (folder / name).exists()]
    for name in differing(folder, bases):
        assert name.endswith((".parquet", "receipt.json", "run_log.json", "preregistration.json")), name
        if name.endswith(".parquet"):
            before, now = pq.read_table(VECTORS / name), pq.read_table(folder / name)
            assert before.schema == now.schema
            for column in before.column_names:
                a, b = before[column].combine_chunks(), now[column].combine_chunks()
                flat = [x.flatten() if "list" in str(x.type) else x for x in (a, b)]
                if "float" in str(flat[0].type) or "double" in str(flat[0].type):
                    np.testing.assert_allclose(
                        flat[0].to_numpy(zero_copy_only=False), flat[1].to_numpy(zero_copy_only=False), rtol=1e-3
                    )
    if differing(folder, bases):
        pytest.skip("the simulator gives other last bits on this processor; the corpus itself does not depend on it")


def test_some_cases_are_made_again_without_a_difference(tmp_path: Path) -> None:
    """A few of every kind, the same every time; the whole is made again by the thorough test."""
    kinds = ("claim_twice", "margin_inflated", "unpinned_key", "label_twice", "linked_table")
    names = [*kinds, *random.Random(5).sample(sorted(n for n in cases() if not cases()[n].expected.needs), 2)]
    make(tmp_path, names)
    require_same_simulation(tmp_path)
    assert differing(tmp_path, names) == [], "run `make vectors`, and look at what it changes"


@pytest.mark.thorough
def test_every_case_is_made_again_without_a_difference(tmp_path: Path) -> None:
    made = make(tmp_path)
    require_same_simulation(tmp_path)
    assert dict(made.gaps) == gaps()
    assert differing(tmp_path, sorted({*cases(), *made.expected})) == [], (
        "run `make vectors`, and look at what it changes"
    )
