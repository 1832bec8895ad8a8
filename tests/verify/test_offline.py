"""Verification without a network: in a namespace that has no interface up, and with no network code loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from verify.forging import honest, study

from atlas_schema.files import document_text

VERIFY = """
import json, socket, sys
up = []
for address in (("1.1.1.1", 53), ("127.0.0.1", 9)):
    try:
        socket.create_connection(address, 2).close()
        up.append(address[0])
    except ConnectionRefusedError:
        up.append(address[0])
    except OSError:
        pass
from atlas_schema.cli import verify
sys.argv = ["atlas-verify", *sys.argv[1:]]
try:
    verify.main()
except SystemExit as ended:
    print(json.dumps({"code": ended.code, "reached": up, "modules": sorted(sys.modules)}))
"""
NETWORK = ("http", "urllib3", "requests", "httpx", "aiohttp", "asyncio", "ftplib", "smtplib", "xmlrpc", "duckdb")


def namespace() -> list[str]:
    """Return the command that runs another without a network, or skip with the reason."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("no 'unshare' on this system")
    for options in (["-rn"], ["-n"]):
        tried = subprocess.run([program, *options, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return [program, *options]
    pytest.skip(f"this system lets no process give up its network: {tried.stderr.strip()}")


@pytest.mark.parametrize("form", ["bundle", "database"])
def test_a_verification_needs_no_network_and_loads_no_network_code(tmp_path: Path, form: str) -> None:
    folder = study().write(tmp_path / "study")
    (folder / "receipt.json").write_text(document_text(honest()), encoding="utf-8")
    options: list[Any] = [folder / "receipt.json", "--contract", folder / "contract.json"]
    if form == "database":
        study().store(tmp_path / "evidence.duckdb").close()
        options += ["--evidence", tmp_path / "evidence.duckdb"]
    command = [*namespace(), sys.executable, "-c", VERIFY, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["reached"] == [], "the namespace has a network after all"
    assert found["code"] == 0, done.stdout
    loaded = {m for m in found["modules"] if m.split(".")[0] in NETWORK}
    assert loaded == set()
    assert "urllib.request" not in found["modules"]
