"""The wheel, installed in a clean environment outside the checkout, verifies its demo without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel and its dependencies, nothing of the checkout."""
    place = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    python = place / "venv" / "bin" / "python"
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
        str(wheel),
    ]
    subprocess.run(install, check=True)
    return place


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    program = str(place / "venv" / "bin" / command[0])
    return subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, cwd=place, env=environment, check=False
    )


def test_demo_comes_out_as_expected_in_about_a_second(installed: Path) -> None:
    run(installed, "atlas-verify", "--demo")  # the first run compiles bytecode
    started = time.perf_counter()
    done = run(installed, "atlas-verify", "--demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED (0)" in done.stdout
    assert "DIVERGED (5)" in done.stdout
    assert time.perf_counter() - started < 15, "a second on an idle machine; the bound leaves room for a busy one"


def test_wheel_needs_no_torch_and_says_what_extraction_needs(installed: Path) -> None:
    assert run(installed, "python", "-c", "import torch").returncode != 0
    done = run(installed, "atlas", "extract", "--prereg", "p.json", "--base", "b", "--evidence", "e.duckdb")
    assert done.returncode == 2
    assert "atlas-schema[extract]" in done.stderr


def test_wheel_prints_schemas_and_rules(installed: Path) -> None:
    assert '"$defs"' in run(installed, "atlas", "schema", "receipt").stdout
    assert "ATL-R013" in run(installed, "atlas", "explain", "ATL-R013").stdout


def test_wheel_holds_its_vocabulary(installed: Path) -> None:
    done = run(installed, "atlas", "vocab", "check")
    assert (done.returncode, "66 terms in 12 layers" in done.stdout) == (0, True), done.stderr


def test_wheel_lists_its_predictions(installed: Path) -> None:
    assert run(installed, "atlas", "prediction", "list").stdout.count("not_run") == 18


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"atlas_schema", "atlas_extractors", "atlas_contracts"} <= tops
    assert all(top.startswith(("atlas_schema", "atlas_extractors", "atlas_contracts")) for top in tops), tops
    assert "atlas_contracts/schema.json" in names
    assert not [n for n in names if n.endswith("expected.json") or (n.endswith(".parquet") and "/demo/" not in n)]


def test_wheel_says_where_the_conformance_corpus_is(installed: Path) -> None:
    done = run(installed, "atlas", "conformance", "run", "--verifier", "atlas-verify")
    assert done.returncode == 2
    assert "contracts/vectors of the source repository" in done.stderr
