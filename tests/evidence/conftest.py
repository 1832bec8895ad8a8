"""The bundle that tests of evidence read and break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle on disk, not to be changed."""
    from evidence.test_bundle import tiny  # later than collection, which rewrites its assertions

    return tiny().write(tmp_path_factory.mktemp("study")) / "evidence"


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A valid bundle on disk, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "evidence"))
