"""The worst inputs through the real command: a few of each part here, all of them in `make hostile`."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacks.hostile import ROOT, SECTION, Cost, run, table, tried, wrong
from attacks.inputs import INPUTS, MEMORY, RECEIPT, template

from benchmarks.page import section

FEW = (
    "a receipt that states a fidelity tier 190,000 times", "rows of 200,000 runs, scattered",
    "a file of 1 TiB, all holes, in signed evidence",
)  # fmt: skip
ELSEWHERE = ("states of", "20,000,000 rows", "100,000 files", "5,000", "256 MiB", "a document of", "Parquet:")
"""Parts of names of inputs that take long to make, or that tests of the reader and of the preflight have; `make hostile` has all."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FEW)
def test_the_dearest_inputs_are_refused_within_bounds(source: Path, tmp_path: Path, name: str) -> None:
    assert wrong(INPUTS[name], tried(INPUTS[name], source, tmp_path)) == ""


@pytest.mark.thorough
@pytest.mark.parametrize("name", [n for n in INPUTS if n not in FEW and not any(part in n for part in ELSEWHERE)])
def test_every_input_is_refused_within_bounds(source: Path, tmp_path: Path, name: str) -> None:
    assert wrong(INPUTS[name], tried(INPUTS[name], source, tmp_path)) == ""


@pytest.mark.thorough
def test_the_study_that_they_are_made_from_is_sound(source: Path) -> None:
    study = source / "study"
    cost = run([str(study / RECEIPT), "--contract", str(study / "contract.json")], study)
    assert (cost.code, cost.rules, cost.fault) == (6, (), "")


def test_a_cost_beyond_its_bound_or_another_answer_is_wanting() -> None:
    made = INPUTS[FEW[0]]
    fine = Cost(3, (), 1.0, 1.0, 1, 1, "")
    assert wrong(made, fine) == ""
    for code, seconds, memory, said in ((0, 1.0, 1, ""), (70, 1.0, 1, ""), (-9, 1.0, 1, ""), (3, 31.0, 1, ""),
                                        (3, 1.0, MEMORY + 1, ""), (3, 1.0, 1, "Traceback")):  # fmt: skip
        assert wrong(made, Cost(code, (), 1.0, seconds, memory, 1, said))
    assert "1 beyond a bound" in table({made.name: Cost(70, (), 1.0, 1.0, 1, 1, "")}, fine)


def test_the_page_counts_inputs_and_none_wanting() -> None:
    assert ", 0 beyond a bound or answered otherwise than documented." in section(ROOT / "docs/attacks.md", SECTION)
