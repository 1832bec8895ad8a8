"""The shipped study is real, says what its receipts say, and fits its budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from naive.measures import cluster_sums, damage_sums
from naive.rows import read_rows

from atlas_schema.demo import CASES, demo_folder
from atlas_schema.study.identity import config_digest, tokenizer_digest, weights_digest
from atlas_schema.verify.loading import load
from atlas_schema.verify.outcome import exit_code
from atlas_schema.verify.verifier import Options, verify

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))


def tracked(folder: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


BY_A_COMMAND = [n for n in EXPECTED if n.startswith("study/") and n != "study/receipt-preserved.json"]
"""`test_newcomer_sees_the_study_verified` verifies every receipt by a command of its own; these take long once more."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.thorough if n in BY_A_COMMAND else ()) for n in EXPECTED]
)
def test_each_receipt_comes_out_as_the_table_says(name: str) -> None:
    report = verify(load(FIXTURES / name), Options())
    assert (int(exit_code(report)), report.verdict) == (EXPECTED[name]["exit_code"], EXPECTED[name]["verdict"]), [
        (p.rule, p.what, p.where) for c in report.channels.values() for p in c.problems
    ]


def test_the_study_has_every_verdict() -> None:
    assert {e["verdict"] for e in EXPECTED.values()} == {
        "preserved",
        "rewritten",
        "damaged",
        "unmatched",
        "undetermined",
    }


@pytest.mark.parametrize(("name", "code"), [(case[0], case[1]) for case in CASES])
def test_demo_pair(name: str, code: int) -> None:
    assert exit_code(verify(load(demo_folder() / name), Options())) == code


@pytest.mark.parametrize("folder", [demo_folder(), FIXTURES / "study-few"])
def test_naive_loops_give_the_stated_sums_on_real_evidence(folder: Path) -> None:
    receipt = json.loads((folder / "receipt-preserved.json").read_text(encoding="utf-8"))
    rows = {
        name: read_rows(folder / "evidence" / f"{name}.parquet") for name in ("state", "update", "window", "output")
    }
    for arm in receipt["findings"]["arms"]:
        run = f"arm:{arm['arm']}"
        for cell in arm["cells"]:
            sums = cluster_sums(rows["state"], rows["update"], rows["window"], run, cell["layer"])[
                cell["definition"], cell["form"]
            ]
            numerator, denominator = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
            assert cell["numerator"] == pytest.approx(numerator, rel=1e-8, abs=1e-12)
            assert cell["denominator"] == pytest.approx(denominator, rel=1e-8)
            assert cell["value"] == pytest.approx(numerator / denominator, rel=1e-8, abs=1e-12)
        for domain, clusters in damage_sums(rows["output"], rows["window"], run).items():
            stated = next(d for d in arm["damage"] if d["domain"] == domain)
            mean = sum(n for n, _ in clusters.values()) / sum(d for _, d in clusters.values())
            assert stated["delta_nll_nats"] == pytest.approx(mean, rel=1e-8, abs=1e-12)


def test_preserved_drifts_in_every_channel_and_identical_in_none() -> None:
    receipt = json.loads((FIXTURES / "study" / "receipt-preserved.json").read_text(encoding="utf-8"))
    arms = {a["arm"]: a["cells"] for a in receipt["findings"]["arms"]}
    assert {c["state"] for c in arms["identical"]} == {"identical"}
    moved = {c["definition"] for c in arms["preserved"] if c["value"] > 0}
    assert moved == {c["definition"] for c in arms["preserved"]}


def test_models_are_the_ones_of_the_receipts() -> None:
    receipt = json.loads((FIXTURES / "study" / "receipt-preserved.json").read_text(encoding="utf-8"))
    for subject in receipt["subjects"]:
        role, _, name = subject["run_id"].partition(":")
        folder = FIXTURES / "models" / (name if role == "arm" else "base")
        assert subject["weights_digest"] == weights_digest(folder)
        assert subject["config_digest"] == config_digest(folder)
        assert subject["tokenizer_digest"] == tokenizer_digest(folder)


def test_base_has_clearly_learned() -> None:
    curve = json.loads((FIXTURES / "models" / "base" / "curve.json").read_text(encoding="utf-8"))
    held_out = [point["bits_per_byte"]["mean"] for point in curve["curve"]]
    assert held_out[0] > 7.5, "an untrained byte model needs about 8 bits per byte"
    assert curve["after_rounding_to_float16"]["mean"] < 2.0


def test_sizes_fit_the_budget() -> None:
    if not tracked("fixtures"):
        pytest.skip("sizes are those of tracked files; this is not a git checkout")
    assert sum(p.stat().st_size for p in tracked("fixtures")) <= 40 * 2**20
    assert sum(p.stat().st_size for p in tracked("atlas_schema/demo/study")) <= 2 * 2**20


def test_study_page_is_current() -> None:
    command = [sys.executable, "-c", "import study_page, sys; sys.stdout.write(study_page.page())"]
    done = subprocess.run(command, cwd=FIXTURES / "scripts", capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


def test_newcomer_sees_the_study_verified() -> None:
    program = Path(sys.executable).with_name("atlas-verify")
    command = [sys.executable, str(FIXTURES / "scripts" / "show_study.py"), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All receipts came out as expected" in done.stdout
