"""`atlas extract` refuses what cannot be carried out with exit code 2 and a message for a person."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from atlas_extractors.cli import register
from atlas_extractors.cli.register import parse_arms
from atlas_extractors.routing import extract as extraction
from tiny_world import Folders, MakeStudy
from typer.testing import CliRunner

from atlas_schema.errors import UsageError


def _app() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


@pytest.mark.parametrize("given", ["near", "=path", "near=", "="])
def test_arms_are_given_as_name_and_folder(given: str) -> None:
    with pytest.raises(UsageError, match="NAME=FOLDER"):
        parse_arms([given])


def test_an_arm_may_be_given_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_arms(["a=x", "a=y"])
    assert parse_arms(["a=x=y"]) == {"a": Path("x=y")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--arm", "near"], "NAME=FOLDER"),
        (["--arm", "other=near"], "not planned"),
        (["--base", "nowhere"], "nowhere"),
        (["--prereg", "nowhere.json"], "nowhere.json"),
        (["--contract", "nowhere.json"], "nowhere.json"),
        (["--dtype", "int8"], "float32"),
        (["--experts", "batched_mm"], "grouped_mm"),
        (["--arm", "near=nowhere"], "nowhere"),
    ],
)
def test_usage_errors_exit_2(change: list[str], message: str, make_study: MakeStudy, folders: Folders) -> None:
    study = make_study()
    options = {
        "--prereg": str(study.preregistration), "--base": str(folders.base), "--contract": str(study.contract),
        "--evidence": str(study.evidence),
    } | dict([change])  # fmt: skip
    result = CliRunner().invoke(_app(), ["extract", *(part for pair in options.items() for part in pair)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not study.evidence.exists()


def test_an_interruption_exits_130_and_says_how_to_resume(
    make_study: MakeStudy, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "extract", interrupted)
    study = make_study()
    arguments = ["--prereg", study.preregistration, "--base", folders.base, "--evidence", study.evidence]
    result = CliRunner().invoke(_app(), ["extract", *map(str, arguments)])
    assert result.exit_code == 130
    assert "run the same command again to resume" in result.stderr


def test_registering_the_command_does_not_import_torch() -> None:
    code = (
        "import sys, typer; from atlas_extractors.cli import register; register(typer.Typer());"
        "print('torch' in sys.modules)"
    )
    path = {"PYTHONPATH": ":".join(part for part in sys.path if part)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path, check=True)
    assert done.stdout.strip() == "False"
