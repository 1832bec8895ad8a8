"""Running the commands in this process, through their real entry points."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.commands import Command, Ended
from verify.forging import honest, study

from atlas_schema.cli import atlas, verify
from atlas_schema.files import document_text


def _command(
    main: Callable[[], None], name: str, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> Command:
    def run(*args: str | Path) -> Ended:
        patch.setattr("sys.argv", [name, *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0 if code is None else 1, shown.out, shown.err)

    return run


@pytest.fixture
def atlas_verify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``atlas-verify``."""
    return _command(verify.main, "atlas-verify", capsys, monkeypatch)


@pytest.fixture
def atlas_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``atlas``."""
    return _command(atlas.main, "atlas", capsys, monkeypatch)


@pytest.fixture(scope="session")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with a receipt per arm, for reading only."""
    folder = study().write(tmp_path_factory.mktemp("cli") / "study")
    for arm in ("frozen", "close", "rewritten"):
        (folder / f"receipt-{arm}.json").write_text(document_text(honest(arm)), encoding="utf-8")
    return folder


@pytest.fixture
def folder(written_study: Path, tmp_path: Path) -> Path:
    """A copy of the study folder that a test may change."""
    return Path(shutil.copytree(written_study, tmp_path / "study"))
