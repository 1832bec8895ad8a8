"""`conformance.md` is executed as it is printed: its wrapper, its commands, its table of options."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from docs.test_docs import commands, options, rows, section, text
from docs.test_signing_docs import CONSOLE, steps

ROOT = Path(__file__).parents[2]
JUDGE = """#!{python}
# A verifier with manners of its own: options with one dash, and a word for an answer.
import subprocess, sys
words = ["-" + w if w.startswith("-") else w for w in sys.argv[3:]]
code = subprocess.run([{python!r}, "-m", "atlas_schema.cli.verify", sys.argv[2], *words], stdout=subprocess.DEVNULL).returncode
print(["believed", "otherwise", "usage", "malformed", "changed", "wrong", "open"][code] if sys.argv[1] == "-receipt" else "what?")
"""


def test_every_option_is_described() -> None:
    table = next(part for part in text("docs/conformance.md").split("\n\n") if part.startswith("| option of"))
    stated = {row[0].strip("`") for row in rows(table)}
    assert stated == options(commands()["atlas conformance run"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wrapper of the page and the corpus, and a verifier `judge` to be found."""
    wrapper = re.findall(r"^```python\n(.*?)^```", text("docs/conformance.md"), flags=re.MULTILINE | re.DOTALL)
    assert len(wrapper) == 1
    (tmp_path / "wrapper.py").write_text(wrapper[0], encoding="utf-8")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "judge").write_text(JUDGE.format(python=sys.executable), encoding="utf-8")
    (tools / "judge").chmod(0o755)
    (tools / "python").symlink_to(sys.executable)
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "vectors").symlink_to(ROOT / "contracts" / "vectors")
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_the_examples_come_out_as_printed(place: Path) -> None:
    codes = []
    for block in CONSOLE.findall(text("docs/conformance.md")):
        for command, printed in steps(block):
            words = shlex.split(command)
            assert words[0] == "atlas"
            done = subprocess.run([sys.executable, "-m", "atlas_schema.cli.atlas", *words[1:]], cwd=place, capture_output=True,
                                  text=True, timeout=120, check=False)  # fmt: skip
            assert done.stdout.splitlines() == printed, done.stderr
            codes.append(done.returncode)
    assert codes == [0, 1]


def test_the_corpus_page_and_this_one_agree_on_the_layout() -> None:
    page = (ROOT / "contracts" / "vectors" / "README.md").read_text(encoding="utf-8")
    for need in ("signatures", "sigstore", "duckdb", "links"):
        assert f"`{need}`" in page
        assert f"`{need}`" in section("docs/conformance.md", "## Protocol")
    for field in ("base", "removed", "links", "arguments", "exit_code", "verdict", "rules"):
        assert f"`{field}`" in page
