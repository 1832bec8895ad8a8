"""``atlas conformance run``: what it says of verifiers that are right, wrong, broken or absent, and of corpora that lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cli.commands import Command
from conformance.replay import answer

from atlas_schema.conformance.corpus import lay_out, read_corpus
from atlas_schema.conformance.drive import command_of
from atlas_schema.errors import UsageError

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "contracts" / "vectors"
OURS = f"{sys.executable} -m atlas_schema.cli.verify"


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Copy some cases and their base into a corpus that a test may change."""

    def copy(*names: str) -> Path:
        for name in ("base", *names):
            shutil.copytree(VECTORS / name, tmp_path / "corpus" / name, symlinks=True)
        return tmp_path / "corpus"

    return copy


@pytest.fixture
def judged(atlas_command: Command) -> Command:
    """Hold a verifier to a corpus."""
    return lambda verifier, corpus, *more: atlas_command(
        "conformance", "run", "--verifier", verifier, "--corpus", corpus, *more
    )


def edit(case: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a case expects."""
    path = case / "expected.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def script(folder: Path, body: str) -> str:
    """Write a verifier."""
    path = folder / "verifier.sh"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


# --- the real verifier ---------------------------------------------------------------------------------------------


def test_our_own_verifier_answers_some_cases_as_expected(judged: Command, copied: Callable[..., Path]) -> None:
    corpus = copied("claim_twice", "rewritten_and_says_so")
    done = judged(OURS, corpus)
    assert (done.code, done.err) == (0, "")
    assert done.out == "2 cases: all as expected (exit codes, verdicts, channels and rules compared)\n"


@pytest.mark.thorough
def test_our_own_verifier_answers_every_case_as_expected() -> None:
    call = [
        sys.executable,
        "-m",
        "atlas_schema.cli.atlas",
        "conformance",
        "run",
        "--verifier",
        OURS,
        "--report",
        "json",
    ]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, timeout=3000, check=False)
    said = json.loads(done.stdout)
    assert [r for r in said["results"] if not r["passed"]] == []
    assert (done.returncode, said["failed"], said["left_out"]) == (0, 0, [])
    assert said["cases"] == len(read_corpus(VECTORS)[0])


# --- what is compared ----------------------------------------------------------------------------------------------


@cache
def our_report() -> bytes:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "case"
        folder.mkdir()
        lay_out(read_corpus(VECTORS, "claim_twice")[0][0], folder)
        code, output = answer(folder, ["receipt.json", "--contract", "contract.json"])
    assert code == 3
    return output


def no_rule(expected: dict[str, Any]) -> None:
    expected["rules"] = []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda e: e.update(exit_code=4), "exit code: expected 4, found 3"),
        (lambda e: e.update(verdict="preserved"), "verdict: expected preserved, found none"),
        (lambda e: e["channels"].update(schema="passed"), "channel schema: expected passed, found unproven"),
        (no_rule, "rules: expected none, found ATL-A001"),
        (lambda e: e["rules"].append("ATL-S001"), "rules: expected ATL-A001 ATL-S001, found ATL-A001"),
    ],
)
def test_a_tampered_expectation_is_told(
    judged: Command,
    copied: Callable[..., Path],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
    line: str,
) -> None:
    """The verifier says again what ours says of the case."""
    corpus, said = copied("claim_twice"), tmp_path / "said.json"
    edit(corpus / "claim_twice", change)
    said.write_bytes(our_report())
    done = judged(script(tmp_path, f"cat '{said}'; exit 3"), corpus)
    assert done.code == 1
    assert line in done.out
    assert f"to do: read {corpus / 'claim_twice' / 'README.md'}" in done.out
    assert "1 case: 1 not as expected" in done.out


def test_exit_codes_alone(judged: Command, copied: Callable[..., Path], tmp_path: Path) -> None:
    corpus = copied("claim_twice", "preserved_by_identity")
    edit(corpus / "claim_twice", lambda e: e.update(rules=[]))
    wary = script(tmp_path, '[ "$#" = 3 ] || exit 70; grep -q \'}, "claim"\' receipt.json && exit 3; exit 0')
    done = judged(wary, corpus, "--exit-code-only")
    assert (done.code, done.out) == (0, "2 cases: all as expected (exit codes compared)\n")


@pytest.mark.parametrize("code", [0, 3, 7])
def test_a_verifier_that_looks_at_nothing_fails(judged: Command, code: int) -> None:
    verifier = f"sh -c 'exit {code}'"
    done = judged(verifier, VECTORS, "--case", "n*side", "--exit-code-only")
    assert done.code == 1
    assert "not as expected" in done.out


def test_the_report_for_machines(judged: Command, copied: Callable[..., Path]) -> None:
    corpus = copied("claim_twice", "preserved_by_identity")
    done = judged("sh -c 'echo no >&2; exit 3'", corpus, "--exit-code-only", "--report", "json")
    said = json.loads(done.out)
    assert (done.code, said["cases"], said["failed"], said["compared"]) == (1, 2, 1, "exit_code")
    wrong = next(r for r in said["results"] if not r["passed"])
    assert wrong == {"case": "preserved_by_identity", "passed": False, "said": "no",
                     "differences": [{"what": "exit code", "expected": "0", "found": "3"}]}  # fmt: skip


# --- verifiers that break ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("kill -SEGV $$", "exit code: expected 0, found ended by signal 11 (SIGSEGV)"),
        ("sleep 60", "exit code: expected 0, found no answer within 0.5 seconds"),
        ("echo '{}'; exit 0", "report: expected the fields of a verification report, found KeyError 'channels'"),
        ("echo '[1]'; exit 0", "report: expected the fields of a verification report, found TypeError"),
        ("echo hello; exit 0", "report: expected one JSON report on standard output, found The document is not JSON."),
        ("echo out of memory >&2; exit 9", "it said: out of memory"),
    ],
)
def test_a_verifier_that_breaks_is_told_as_that(
    judged: Command,
    copied: Callable[..., Path],
    tmp_path: Path,
    body: str,
    line: str,
) -> None:
    corpus, began = copied("preserved_by_identity"), time.monotonic()
    done = judged(script(tmp_path, body), corpus, "--timeout", "0.5")
    assert done.code == 1
    assert line in done.out
    assert time.monotonic() - began < 20


def test_what_a_verifier_started_ends_with_it(copied: Callable[..., Path], judged: Command, tmp_path: Path) -> None:
    left = tmp_path / "left"
    body = f"(sleep 2; touch {left}) & sleep 60"
    judged(
        script(tmp_path, body),
        copied("preserved_by_identity"),
        "--timeout",
        "0.3",
    )
    time.sleep(2.2)
    assert not left.exists()


def test_what_a_verifier_prints_cannot_drive_a_terminal(
    judged: Command, copied: Callable[..., Path], tmp_path: Path
) -> None:
    body = "printf 'red \\033[31m' >&2; exit 1"
    done = judged(script(tmp_path, body), copied("preserved_by_identity"))
    assert "\x1b" not in done.out
    assert "red \\x1b[31m" in done.out


@pytest.mark.parametrize("verifier", ["", "no-such-verifier", "'unbalanced", "./absent.sh --strict"])
def test_a_verifier_that_is_not_there_is_a_matter_of_the_call(judged: Command, verifier: str) -> None:
    done = judged(verifier, VECTORS)
    assert (done.code, done.out) == (2, "")
    assert "verifier" in done.err.lower()


def test_a_verifier_that_cannot_start_is_a_matter_of_the_call(judged: Command, tmp_path: Path) -> None:
    path = tmp_path / "verifier"
    path.write_bytes(b"\x7fELF no program")
    path.chmod(0o755)
    done = judged(path, VECTORS, "--case", "claim_twice")
    assert done.code == 2
    assert "The verifier could not be started." in done.err


def test_words_that_name_files_here_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verifier.py").write_text("")
    monkeypatch.chdir(tmp_path)
    words = command_of("python3 verifier.py --strict 'two words'")
    assert Path(words[0]).is_absolute()
    assert words[1:] == (str(tmp_path / "verifier.py"), "--strict", "two words")


# --- corpora that lie ----------------------------------------------------------------------------------------------


def test_no_corpus_says_where_to_get_one(judged: Command, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        done = judged("true", folder)
        assert done.code == 2
        assert "contracts/vectors of the source repository" in done.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.update(removed=["../outside"]), "/removed/0"),
        (lambda e: e.update(removed=["/etc/passwd"]), "/removed/0"),
        (lambda e: e.update(removed=["absent.json"]), "removes what is not there"),
        (lambda e: e.update(links={"a": "../../outside"}), "/links/a"),
        (lambda e: e.update(links={"../a": "receipt.json"}), "/links"),
        (lambda e: e.update(base="../corpus"), "/base"),
        (lambda e: e.update(base="elsewhere"), "names a base world that is not there"),
        (lambda e: e.update(exit_code=300), "/exit_code"),
        (lambda e: e.update(exit_code="3"), "/exit_code"),
        (lambda e: e.update(comment="x"), "/comment"),
        (lambda e: e["channels"].pop("replay"), "status of every channel"),
        (lambda e: e["channels"].update(replay="green"), "/channels/replay"),
        (lambda e: e.update(rules=["anything"]), "/rules/0"),
    ],
)
def test_a_damaged_case_is_refused(
    judged: Command,
    copied: Callable[..., Path],
    change: Callable[[dict[str, Any]], Any],
    words: str,
) -> None:
    corpus = copied("claim_twice")
    edit(corpus / "claim_twice", change)
    done = judged("true", corpus)
    assert done.code == 2
    assert "This case cannot be used" in done.err
    assert words in done.err


def test_an_expectation_with_a_key_twice_is_refused(copied: Callable[..., Path]) -> None:
    corpus = copied("claim_twice")
    path = corpus / "claim_twice" / "expected.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"exit_code": 3', '"exit_code": 3, "exit_code": 0'), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="cannot be used"):
        read_corpus(corpus)


@pytest.mark.parametrize("place", ["files/receipt.json", "files/evidence", "files", "expected.json"])
def test_links_of_a_corpus_are_refused(copied: Callable[..., Path], tmp_path: Path, place: str) -> None:
    corpus, secret = copied("claim_twice"), tmp_path / "secret"
    secret.mkdir()
    (secret / "receipt.json").write_text("secret")
    path = corpus / "claim_twice" / place
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    path.symlink_to(secret / "receipt.json" if place.endswith("json") else secret)
    target = tmp_path / "laid"
    target.mkdir()
    with pytest.raises(UsageError, match="cannot be used"):
        lay_out(read_corpus(corpus)[0][0], target)
    assert not any("secret" in p.read_text() for p in target.rglob("receipt.json"))


def test_a_corpus_cannot_fill_the_disk_or_the_stack(copied: Callable[..., Path], tmp_path: Path) -> None:
    corpus = copied("claim_twice")
    large = corpus / "claim_twice" / "files" / "large"
    with large.open("wb") as stream:
        stream.truncate(2**40)
    (tmp_path / "laid").mkdir()
    with pytest.raises(UsageError, match="larger than"):
        lay_out(read_corpus(corpus)[0][0], tmp_path / "laid")
    large.unlink()
    (corpus / "claim_twice" / "files" / "/".join(["deep"] * 100)).mkdir(parents=True)
    with pytest.raises(UsageError, match="too deep"):
        lay_out(read_corpus(corpus)[0][0], tmp_path / "laid")


def test_a_pipe_in_a_corpus_stops_nothing(copied: Callable[..., Path], tmp_path: Path) -> None:
    corpus = copied("claim_twice")
    os.mkfifo(corpus / "claim_twice" / "files" / "pipe")
    (tmp_path / "laid").mkdir()
    with pytest.raises(UsageError, match="not a regular file"):
        lay_out(read_corpus(corpus)[0][0], tmp_path / "laid")


# --- laying out ----------------------------------------------------------------------------------------------------


def test_a_case_is_its_base_with_its_files_removals_and_links(tmp_path: Path) -> None:
    def laid(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lay_out(read_corpus(VECTORS, name)[0][0], folder)
        return folder

    base = {
        p.relative_to(VECTORS / "base").as_posix(): p.read_bytes() for p in (VECTORS / "base").rglob("*") if p.is_file()
    }
    absent = laid("evidence_absent")
    assert {p.name for p in absent.iterdir()} == {
        "receipt.json",
        "preregistration.json",
        "run_log.json",
        "contract.json",
    }
    linked = laid("linked_table")
    link = linked / "evidence" / "task.parquet"
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.read_bytes() == base["evidence/task.parquet"]
    altered = laid("margin_inflated")
    changed = {name for name, content in base.items() if (altered / name).read_bytes() != content}
    assert changed == {"receipt.json", "run_log.json", "evidence/routing.parquet"}
    assert {p.name for p in laid("label_twice").iterdir()} == {"record.json"}


def test_lay_prints_the_call(atlas_command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "by hand"
    done = atlas_command("conformance", "lay", "wrong_pin", folder, "--corpus", VECTORS)
    assert done.code == 0
    assert done.out.startswith(f"cd '{folder}'; VERIFIER receipt.json --contract contract.json --pin sha256:")
    assert "expected: exit code 4; rules ATL-B005; verdict none" in done.out
    assert (folder / "evidence" / "state.parquet").is_file()
    again = atlas_command("conformance", "lay", "wrong_pin", folder, "--corpus", VECTORS)
    assert (again.code, "not empty" in again.err) == (2, True)
    many = atlas_command("conformance", "lay", "wrong_*", tmp_path / "many", "--corpus", VECTORS)
    assert (many.code, "more than one" in many.err) == (2, True)


def test_what_a_verifier_lacks_is_left_out_and_said(judged: Command) -> None:
    cases, out = read_corpus(VECTORS, without=frozenset({"sigstore", "duckdb"}))
    assert {"sigstore_genuine", "macro_in_database"} <= set(out)
    assert not {c.name for c in cases} & set(out)
    call = ("true", VECTORS, "--case", "sigstore_*", "--exit-code-only")
    assert judged(*call, "--without", "sigstore").code == 2
    assert "unknown value" in judged(*call, "--without", "patience").err
    done = judged("true", VECTORS, "--case", "s*_genuine*", "--exit-code-only", "--without", "sigstore")
    assert (done.code, "1 left out" in done.out) == (0, True)
