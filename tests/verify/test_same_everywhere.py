"""One answer on every machine: the same report on one and two processors, on every Python that is there, for any cutting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from verify.forging import honest, study

from atlas_schema.evidence import bundle
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.files import document_text

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
CODE = """
import json, os, sys
if sys.argv[1] != "all" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
from pathlib import Path
from atlas_schema.reports.json import render
from atlas_schema.verify.loading import load
from atlas_schema.verify.verifier import Options, verify
folder = Path(sys.argv[2])
report = verify(load(folder / sys.argv[3], None, folder / "contract.json", None, None), Options())
report.document = "receipt.json"
print(json.dumps(render(report)))
"""


def reported(python: str, processors: str, folder: Path, receipt: str) -> str:
    """Verify in a fresh interpreter and return the whole report; it holds every problem and no times."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} if processors == "one" else {}
    done = subprocess.run([python, "-B", "-c", CODE, processors, str(folder), receipt], capture_output=True, text=True,
                          env={**os.environ, **threads, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'contracts'}"},
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with an honest receipt and one whose numbers were changed, so that there are findings to compare."""
    made = study().write(tmp_path_factory.mktemp("everywhere") / "study")
    (made / "honest.json").write_text(document_text(honest("close")), encoding="utf-8")
    receipt: dict[str, Any] = json.loads(document_text(honest("rewritten")))
    receipt["claim"]["verdict"] = "preserved"
    for cell in receipt["findings"]["arms"][0]["cells"]:
        cell["value"] = 0.5
    (made / "forged.json").write_text(json.dumps(receipt), encoding="utf-8")
    return made


@pytest.mark.parametrize("receipt", ["honest.json", "forged.json"])
def test_one_and_two_processors_give_the_same_report(folder: Path, receipt: str) -> None:
    one, every = (reported(sys.executable, processors, folder, receipt) for processors in ("one", "all"))
    assert one == every
    assert ("VERIFIED" in one) == (receipt == "honest.json")


def interpreter(version: str) -> str | None:
    """Find a Python of this version in which the light core can be imported: on the path, or named by an environment variable."""
    named = os.environ.get(f"ATLAS_PYTHON_{version.replace('.', '_')}")
    for candidate in (named, f"python{version}", sys.executable):
        path = shutil.which(candidate) if candidate else None
        if path is None:
            continue
        probe = (
            "import sys, numpy, pyarrow, pydantic, rfc8785, jsonschema, typer; print('%d.%d' % sys.version_info[:2])"
        )
        done = subprocess.run([path, "-c", probe], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return path
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_gives_the_same_report(folder: Path, version: str) -> None:
    """Set ``ATLAS_PYTHON_3_13`` and the like to interpreters with the light core; what is not there is skipped by name."""
    python = interpreter(version)
    if python is None:
        pytest.skip(
            f"there is no Python {version} with the light core: install it, or name one in ATLAS_PYTHON_{version.replace('.', '_')}"
        )
    for receipt in ("honest.json", "forged.json"):
        assert reported(python, "all", folder, receipt) == reported(sys.executable, "all", folder, receipt)


def test_the_report_does_not_depend_on_row_groups_or_row_order(folder: Path, tmp_path: Path) -> None:
    """Exported in groups of a few windows, in one group per table, and shuffled: the same roots, the same findings."""
    expected = reported(sys.executable, "all", folder, "forged.json")
    rng = np.random.default_rng(7)
    for way in ("few windows", "one group", "shuffled"):
        again = Path(shutil.copytree(folder, tmp_path / way.replace(" ", "-")))
        for name in STUDY_TABLES:
            path = again / "evidence" / f"{name}.parquet"
            rows = pq.read_table(path)
            if way == "shuffled":
                rows = rows.take(pa.array(rng.permutation(rows.num_rows)))
            pq.write_table(rows, path, row_group_size=37 if way == "few windows" else 2**30)
        assert reported(sys.executable, "all", again, "forged.json") == expected


def test_blocks_of_few_windows_give_the_same_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are cut at windows, cover the same windows in every part, and add up to each partition."""
    monkeypatch.setattr(bundle, "GROUP_BYTES", 4096)
    again = study().write(tmp_path / "study")
    source = bundle.ParquetBundle(again / "evidence")
    assert pq.ParquetFile(again / "evidence" / "state.parquet").num_row_groups > 2 * len(source.partitions("state"))
    wanted = [(table, ("arm:close", 1)) for table in ("state", "routing", "update", "update_vector")]
    blocks = list(source.blocks(wanted))
    assert len(blocks) > 2
    for at, (table, partition) in enumerate(wanted):
        whole = source.read(table, partition)
        for column in (c.name for c in TABLES[table].columns):
            assert (np.concatenate([block[at][column] for block in blocks]) == whole[column]).all()
    seen = [{w for part in block for w in part["window_id"]} for block in blocks]
    assert all(max(a) < min(b) for a, b in pairwise(seen))
