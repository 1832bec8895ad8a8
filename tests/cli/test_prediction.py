"""`atlas prediction` from a terminal: what it lists, shows, settles and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from documents.records import measurement, prediction

from atlas_schema.claims.library import built_in_predictions
from atlas_schema.cli import atlas, verify


class Terminal:
    """Runs commands in a folder and keeps what they say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", list(words))
        with pytest.raises(SystemExit) as ended:
            {"atlas": atlas.main, "atlas-verify": verify.main}[words[0]]()
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    (tmp_path / "m.json").write_text(json.dumps(measurement()), encoding="utf-8")
    (tmp_path / "p.json").write_text(json.dumps(prediction()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return Terminal(monkeypatch, capsys)


def test_list_names_every_prediction_with_its_status(terminal: Terminal) -> None:
    code, said = terminal("atlas", "prediction", "list")
    assert code == 0
    assert [line.split()[:2] for line in said.splitlines()] == [["not_run", name] for name in built_in_predictions()]


@pytest.mark.parametrize("name", built_in_predictions())
def test_show_says_when_it_would_be_wrong(terminal: Terminal, name: str) -> None:
    made = built_in_predictions()[name]
    code, said = terminal("atlas", "prediction", "show", name)
    assert code == 0
    for part in (made.statement, made.source, made.rule.rationale, *(r.instrument for r in made.requires),
                 *(c.says for c in (*made.rule.given, *made.rule.clauses))):  # fmt: skip
        assert part in said


def test_settle_writes_what_verification_derives_again(terminal: Terminal) -> None:
    code, said = terminal("atlas", "prediction", "settle", "p.json", "--with", "m.json", "-o", "settled.json")
    assert code == 0
    assert said.startswith("SUPPORTED  tiny-peak")
    offline = ("atlas-verify", "settled.json", "--profile", "offline")
    assert terminal(*offline, "--measurement", "m.json")[0] == 0
    assert terminal(*offline)[0] == 6
    assert terminal("atlas-verify", "settled.json", "--measurement", "m.json")[0] == 6
    text = Path("settled.json").read_text(encoding="utf-8").replace('"supported"', '"contradicted"')
    Path("settled.json").write_text(text, encoding="utf-8")
    assert terminal(*offline, "--measurement", "m.json")[0] == 3
    code, said = terminal("atlas", "prediction", "show", "settled.json")
    assert "Settled by" in said


def test_settle_overwrites_nothing(terminal: Terminal) -> None:
    code, said = terminal("atlas", "prediction", "settle", "p.json", "--with", "m.json", "-o", "p.json")
    assert code == 2
    assert "exists" in said
    assert json.loads(Path("p.json").read_text(encoding="utf-8")) == prediction()


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown": (("show", "p.jsn"), "There is no such prediction"),
    "nothing given": (("settle", "p.json"), "--with"),
    "no such file": (("settle", "p.json", "--with", "x.json"), "x.json"),
    "a prediction for a measurement": (("settle", "p.json", "--with", "p.json"), "declared shape"),
    "a measurement for a prediction": (("settle", "m.json", "--with", "m.json"), "declared shape"),
    "wrong instrument": (("settle", "probe-tracks-hessian", "--with", "m.json"), "not 'GPT-2 small'"),
    "role twice": (("settle", "p.json", "--with", "tiny=m.json", "--with", "tiny=m.json"), "given twice"),
    "same file twice": (("settle", "p.json", "--with", "m.json", "--with", "m.json"), "Several measurements"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(terminal: Terminal, name: str) -> None:
    words, says = REFUSED[name]
    code, said = terminal("atlas", "prediction", *words)
    assert code == 2
    assert says in said
    assert "Traceback" not in said


def test_the_json_report_lists_claims(terminal: Terminal) -> None:
    code, said = terminal("atlas-verify", "m.json", "--require", "supported", "--report", "json")
    report: dict[str, Any] = json.loads(said)
    assert code == 0
    assert [(c["id"], c["outcome"], c["strength"]) for c in report["claims"]] == [
        ("peak", "supported", "directional"), ("fourfold", "supported", "directional"),
    ]  # fmt: skip
    assert {c["channel"]: c["status"] for c in report["channels"]}["binding"] == "not_applicable"


def test_rows_are_read_from_a_folder(terminal: Terminal, tmp_path: Path) -> None:
    from verify.record_defects import LOSSES, bound, rows_of

    from atlas_schema.evidence.measured import write_measured

    write_measured(rows_of(LOSSES), tmp_path / "evidence")
    (tmp_path / "m.json").write_text(json.dumps(bound()), encoding="utf-8")
    assert terminal("atlas-verify", "m.json", "--require", "supported")[0] == 0
    (tmp_path / "evidence").rename(tmp_path / "rows")
    assert terminal("atlas-verify", "m.json", "--require", "supported")[0] == 6
    assert terminal("atlas-verify", "m.json", "--require", "supported", "--evidence", "rows")[0] == 0
    write_measured(rows_of([1.0]), tmp_path / "other")
    assert terminal("atlas-verify", "m.json", "--evidence", "other")[0] == 4
    (tmp_path / "other" / "extra").touch()
    assert terminal("atlas-verify", "m.json", "--evidence", "other")[0] == 4
    (tmp_path / "rows" / "measurement_row.parquet").write_bytes(b"PAR1")
    assert terminal("atlas-verify", "m.json", "--evidence", "rows")[0] == 3
