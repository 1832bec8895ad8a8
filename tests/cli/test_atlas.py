"""``atlas`` as a technician meets it: what it writes, what it refuses, and what it leaves behind when a disk is full."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cli.commands import Command
from simulator import StudySimulator
from verify.forging import OTHER_PLAN, as_json, study

from atlas_schema.canonical import digest_bytes
from atlas_schema.cli.atlas import explain
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.run_log import RunLog
from atlas_schema.documents.schema import MODELS, schema_errors
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.files import document_text
from atlas_schema.protocol.log import chain_faults
from atlas_schema.study.contracts import load_contract
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.consistency import check_preregistration
from atlas_schema.verify.outcome import Channel, ChannelResult
from atlas_schema.verify.protocol import TYPED_TIER
from atlas_schema.verify.rules import RULES

CLUSTERS = [digest_bytes(f"document {i}".encode()) for i in range(4)]


def lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def window(i: int, **changes: str) -> dict[str, str]:
    text = f"The {i}th clause of the agreement binds both parties."
    return {"window_id": f"w{i}", "cluster_id": CLUSTERS[i % 4], "domain": "legal", "source": "made up", "licence": "CC0-1.0",
            "text": text, **changes}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint folder with a byte-level tokenizer, a configuration and an empty safetensors file."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tmp_path / "base"
    made.mkdir()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "config.json").write_text('{"model_type": "olmoe"}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (made / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    return made


@pytest.fixture
def arguments(model: Path, tmp_path: Path) -> dict[str, str | Path]:
    """Arguments of ``atlas prereg new`` that are accepted."""
    items = [{"item_id": f"i{n}", "prompt": f"{n} plus 1 is ", "answer": str(n + 1)} for n in range(3)]
    return {
        "--study": "trial", "--base": model, "--windows": lines(tmp_path / "windows.jsonl", [window(i) for i in range(3)]),
        "--task": lines(tmp_path / "task.jsonl", items), "--arm": "tuned=lora:preserving", "--layers": "0,2",
        "--target": "0.9", "--output": tmp_path / "study" / "preregistration.json",
    }  # fmt: skip


def flat(arguments: dict[str, str | Path], **changes: str | Path) -> list[str]:
    merged = {**arguments, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    return ["prereg", "new", *(str(part) for pair in merged.items() for part in pair)]


# --- pre-registration ---------------------------------------------------------------------------------------------


def test_a_preregistration_is_complete_and_admitted(atlas_command: Command, arguments: dict[str, str | Path]) -> None:
    ended = atlas_command(*flat(arguments))
    assert ended.code == 0
    # Three documents and three items can decide nothing, and are told so.
    assert {line.partition(":")[0] for line in ended.err.splitlines()} == {"warning"}
    assert "3 documents: the contract decides no drift with fewer than 50" in ended.err
    target = Path(arguments["--output"])
    assert schema_errors(json.loads(target.read_text()), "preregistration") == []
    plan = Preregistration.model_validate_json(target.read_bytes())
    assert digest_of(plan) in ended.out
    result = ChannelResult(Channel.CONTRACT)
    check_preregistration(plan, load_contract("chart-preserving.v1"), result)
    assert result.problems == []
    log = RunLog.model_validate_json((target.parent / "run_log.json").read_bytes())
    assert chain_faults(log) == []
    assert [(s.step, s.outputs[0].digest) for s in log.steps] == [("declare", digest_of(plan))]
    assert plan.created <= log.steps[0].time
    assert {p.name for p in target.parent.iterdir()} == {
        "preregistration.json",
        "run_log.json",
        "windows.jsonl",
        "task.jsonl",
    }
    assert digest_bytes((target.parent / "windows.jsonl").read_bytes()) == plan.probe.digest
    assert plan.arms[0].chart_preserving
    assert [w.n_tokens for w in plan.windows] == [w.n_bytes for w in plan.windows]


def test_a_preregistration_is_never_overwritten(atlas_command: Command, arguments: dict[str, str | Path]) -> None:
    assert atlas_command(*flat(arguments)).code == 0
    before = Path(arguments["--output"]).read_bytes()
    ended = atlas_command(*flat(arguments, target="0.1"))
    assert ended.code == 2
    assert "never overwritten" in ended.err
    assert Path(arguments["--output"]).read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "parts"),
    [
        ("layers", "0;1", ("--layers", "0;1", "such as 0,1,2")), ("layers", "2,0", ("ascending",)),
        ("layers", "0,0", ("twice",)), ("arm", "tuned", ("--arm", "tuned", "NAME=POLICY")),
        ("arm", "a b=lora", ("a b",)), ("contract", "chart-preserving.v9", ("chart-preserving.v9", "chart-preserving.v1")),
        ("tolerance", "0.9", ("success tolerance", "at most", "0.9")),
        ("damage_tolerance", "5", ("damage tolerance", "at most", "5")), ("positions", "0", ("positions", "0")),
        ("positions", "500", ("too short", "at least 500", "longer windows")), ("base", "nowhere", ("no model folder", "nowhere")),
        ("windows", "nowhere.jsonl", ("cannot be read", "nowhere.jsonl")), ("target", "2", ("target", "2")),
        ("study", "my study!", ("study", "my study!")),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_carried_out_is_refused(
    atlas_command: Command, arguments: dict[str, str | Path], option: str, value: str, parts: tuple[str, ...]
) -> None:
    ended = atlas_command(*flat(arguments, **{option: value}))
    assert (ended.code, ended.out) == (2, "")
    assert all(part in ended.err for part in parts), ended.err
    assert "Traceback" not in ended.err
    assert not Path(arguments["--output"]).exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "empty"), (b"{]\n", "not JSON"), (b"[]\n", "lacks a field"), (b'{"window_id": "w"}\n', "lacks a field"),
     (b"\xff\xfe\n", "UTF-8")],
)  # fmt: skip
def test_a_probe_file_that_cannot_be_used_is_named_with_its_line(
    atlas_command: Command, arguments: dict[str, str | Path], content: bytes, part: str
) -> None:
    path = Path(arguments["--windows"])
    path.write_bytes(content)
    ended = atlas_command(*flat(arguments))
    assert ended.code == 2
    assert part in ended.err
    assert str(path) in ended.err


def test_probe_rows_that_nobody_reads_or_that_stand_twice(
    atlas_command: Command, arguments: dict[str, str | Path]
) -> None:
    for rows, part in (
        ([window(0, note="x")], "note"),
        ([window(0), window(0)], "w0"),
        ([window(0, split="train")], "train"),
    ):
        lines(Path(arguments["--windows"]), rows)
        ended = atlas_command(*flat(arguments))
        assert ended.code == 2
        assert part in ended.err


def test_a_pilot_that_shares_text_with_the_study(
    atlas_command: Command, arguments: dict[str, str | Path], tmp_path: Path
) -> None:
    apart = lines(tmp_path / "pilot.jsonl", [window(3)])
    assert atlas_command(*flat(arguments, pilot=apart)).code == 0
    shared = lines(tmp_path / "shared.jsonl", [window(0)])
    ended = atlas_command(*flat(arguments, pilot=shared, output=tmp_path / "second" / "preregistration.json"))
    assert ended.code == 2
    assert "share" in ended.err


@pytest.mark.parametrize(("option", "key"), [("--windows", "window_id"), ("--task", "item_id")])
def test_text_that_would_count_twice(
    atlas_command: Command, arguments: dict[str, str | Path], option: str, key: str
) -> None:
    path = Path(arguments[option])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines(path, [*rows, {**rows[0], key: "again"}])
    ended = atlas_command(*flat(arguments))
    assert ended.code == 2
    assert "again" in ended.err
    assert "under two names" in ended.err


def test_a_plan_that_no_receipt_could_be_accepted_under(
    atlas_command: Command, arguments: dict[str, str | Path], tmp_path: Path
) -> None:
    """It would be found out by the reviewer, when everything is extracted."""
    split = [window(0), window(4, domain="medical")]
    ended = atlas_command(*flat(arguments, windows=lines(tmp_path / "split.jsonl", split)))
    assert ended.code == 2
    for part in ("ATL-C008 One document stands in two domains.", "/windows/1/domain", "Nothing was pre-registered"):
        assert part in ended.err
    assert not Path(arguments["--output"]).parent.exists()


def test_a_model_without_what_is_needed(atlas_command: Command, arguments: dict[str, str | Path], model: Path) -> None:
    for name, part in (
        ("model.safetensors", "pytorch_model.bin"),
        ("tokenizer.json", "tokenizer.json"),
        ("config.json", "config.json"),
    ):
        kept = (model / name).read_bytes()
        (model / name).unlink()
        if name == "model.safetensors":
            (model / "pytorch_model.bin").write_bytes(b"pickle")
        ended = atlas_command(*flat(arguments))
        assert ended.code == 2
        assert part in ended.err
        (model / name).write_bytes(kept)


def test_a_tokenizer_that_cannot_be_read(atlas_command: Command, arguments: dict[str, str | Path], model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    ended = atlas_command(*flat(arguments))
    assert ended.code == 2
    assert str(model / "tokenizer.json") in ended.err


# --- evidence -----------------------------------------------------------------------------------------------------


def root_of(path: Path) -> str:
    with EvidenceStore.open_existing(path) as store:
        return evidence_root(table_roots(store))


def test_export_and_import_keep_the_root(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    ended = atlas_command("evidence", "import", folder / "evidence", tmp_path / "evidence.duckdb")
    assert ended.code == 0, ended.err
    assert root_of(tmp_path / "evidence.duckdb") == study().evidence_root()
    ended = atlas_command("evidence", "export", tmp_path / "evidence.duckdb", tmp_path / "bundle")
    assert ended.code == 0, ended.err
    assert study().evidence_root() in ended.out
    assert atlas_command("evidence", "import", tmp_path / "bundle", tmp_path / "again.duckdb", "--prereg",
                         folder / "preregistration.json").code == 0  # fmt: skip
    assert root_of(tmp_path / "again.duckdb") == study().evidence_root()


def test_nothing_is_overwritten(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    study().store(tmp_path / "evidence.duckdb").close()
    ended = atlas_command("evidence", "import", folder / "evidence", tmp_path / "evidence.duckdb")
    assert ended.code == 2
    assert "already exists" in ended.err
    ended = atlas_command("evidence", "export", tmp_path / "evidence.duckdb", folder / "evidence")
    assert ended.code == 2
    assert "not empty" in ended.err


def test_what_is_not_evidence(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.duckdb").write_text("not a database")
    for name in ("absent.duckdb", "text.duckdb"):
        ended = atlas_command("evidence", "export", tmp_path / name, tmp_path / "bundle")
        assert ended.code == 2
        assert name in ended.err
        assert not (tmp_path / "bundle").exists()
    (folder / "evidence" / "task.parquet").unlink()
    ended = atlas_command("evidence", "import", folder / "evidence", tmp_path / "evidence.duckdb")
    assert ended.code == 2
    assert "task.parquet" in ended.err


# --- issuing ------------------------------------------------------------------------------------------------------


def issue(folder: Path, evidence: Path, output: Path, arm: str = "frozen") -> list[str | Path]:
    return ["issue", "--prereg", folder / "preregistration.json", "--evidence", evidence, "--arm", arm, "--contract",
            folder / "contract.json", "--output", output]  # fmt: skip


def test_store_and_bundle_give_the_same_receipt(
    atlas_command: Command, atlas_verify: Command, folder: Path, tmp_path: Path
) -> None:
    study().store(tmp_path / "evidence.duckdb").close()
    made = []
    for name, evidence in (("a", tmp_path / "evidence.duckdb"), ("b", folder / "evidence")):
        ended = atlas_command(*issue(folder, evidence, folder / f"{name}.json"))
        assert ended.code == 0, ended.err
        assert "arm 'frozen' is preserved" in ended.out
        made.append(json.loads((folder / f"{name}.json").read_text()))
        assert atlas_verify(folder / f"{name}.json", "--contract", folder / "contract.json").code == 0
    places = [receipt.pop("run_log")["steps"] for receipt in made]
    assert made[0] == made[1]
    assert places == [2, 3]
    log = RunLog.model_validate_json((folder / "run_log.json").read_bytes())
    assert [s.step for s in log.steps] == ["declare", "extract", "issue", "issue"]
    assert chain_faults(log) == []


def test_an_arm_that_was_not_planned(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    ended = atlas_command(*issue(folder, folder / "evidence", tmp_path / "r.json", arm="lucky"))
    assert ended.code == 2
    for part in ("lucky", "frozen, close, rewritten", "pre-register it"):
        assert part in ended.err
    assert not (tmp_path / "r.json").exists()


def test_evidence_that_is_not_complete(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    study().without_row("task", 3).store(tmp_path / "evidence.duckdb").close()
    ended = atlas_command(*issue(folder, tmp_path / "evidence.duckdb", tmp_path / "r.json"))
    assert ended.code == 2
    for part in ("not complete", "table task", "atlas extract"):
        assert part in ended.err
    assert not (tmp_path / "r.json").exists()


def test_an_evidence_file_of_another_study(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    other: StudySimulator = study().with_preregistration(OTHER_PLAN)
    other.store(tmp_path / "evidence.duckdb").close()
    ended = atlas_command(*issue(folder, tmp_path / "evidence.duckdb", tmp_path / "r.json"))
    assert ended.code == 2
    for part in ("another study", other.preregistration_digest(), study().preregistration_digest()):
        assert part in ended.err
    assert not (tmp_path / "r.json").exists()


def test_documents_that_do_not_belong_together(atlas_command: Command, folder: Path, tmp_path: Path) -> None:
    contract = as_json(study().contract)
    contract["title"] = "another"
    (folder / "contract.json").write_text(json.dumps(contract))
    ended = atlas_command(*issue(folder, folder / "evidence", tmp_path / "r.json"))
    assert ended.code == 2
    assert "cites another contract" in ended.err
    (folder / "contract.json").write_text("{}")
    ended = atlas_command(*issue(folder, folder / "evidence", tmp_path / "r.json"))
    assert ended.code == 2
    assert "declared shape" in ended.err


def test_a_log_that_was_altered_is_not_added_to(atlas_command: Command, folder: Path) -> None:
    text = (folder / "run_log.json").read_text().replace('"tool": "simulator"', '"tool": "by hand"')
    (folder / "run_log.json").write_text(text)
    ended = atlas_command(*issue(folder, folder / "evidence", folder / "r.json"))
    assert ended.code == 2
    assert "altered" in ended.err
    assert (folder / "run_log.json").read_text() == text


def test_a_receipt_of_any_verdict_is_issued(atlas_command: Command, atlas_verify: Command, folder: Path) -> None:
    """Nothing decided, and a rewrite, are as honest as what somebody may require."""
    made = study().with_contract({"bootstrap": {"min_clusters": 1000}})
    for name, text in (
        ("contract", made.contract),
        ("preregistration", made.preregistration),
        ("run_log", made.run_log),
    ):
        (folder / f"{name}.json").write_text(document_text(text))
    made.store(folder / "evidence.duckdb").close()
    ended = atlas_command(*issue(folder, folder / "evidence.duckdb", folder / "none.json", "close"))
    assert (ended.code, ended.out) == (0, f"{folder / 'none.json'}: arm 'close' is undetermined\n"), ended.err
    assert atlas_verify(folder / "none.json", "--contract", folder / "contract.json").code == 6


def refused(atlas_command: Command, folder: Path, made: StudySimulator, arm: str = "frozen") -> str:
    """Issue from changed evidence; return what is said. Nothing may be written, no step recorded."""
    (folder / "run_log.json").write_text(document_text(made.relogged().run_log))
    made.store(folder / "changed.duckdb").close()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    ended = atlas_command(*issue(folder, folder / "changed.duckdb", folder / "r.json", arm))
    assert ended.code == 2
    assert "Nothing was issued: atlas-verify would not accept this receipt." in ended.err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    return ended.err


@pytest.mark.parametrize("key", TYPED_TIER)
def test_what_verification_refuses_is_not_issued(atlas_command: Command, folder: Path, key: str) -> None:
    """A fingerprint may hold any keys, but a receipt no field of this name."""
    rows = [{**r, "fingerprint": json.dumps({**json.loads(r["fingerprint"]), key: "A"})} for r in study().rows("run")]
    told = refused(atlas_command, folder, study().with_rows("run", rows))
    for part in ("ATL-C045 A fidelity tier is typed in.", f"/extraction/fingerprint/{key}", "the tier follows from the steps",
                 "remove the field", "r.json (not written):"):  # fmt: skip
        assert part in told


def test_rows_that_no_layer_gives_are_not_issued(atlas_command: Command, folder: Path) -> None:
    at = study().find("state", run_id="arm:close")
    told = refused(atlas_command, folder, study().with_value("state", at, "r", 5.0), "close")
    for part in ("ATL-R004", "at         table state, run_id=arm:close", "recomputed ", "DIVERGED (5)"):
        assert part in told


# --- full disks ---------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from atlas_schema.cli.atlas import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["atlas", *sys.argv[2:]]
main()
"""


def on_a_full_disk(size: int, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``atlas`` where no file may grow beyond a size."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", LIMITED, str(size), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_full_disk_while_exporting(tmp_path: Path) -> None:
    study().store(tmp_path / "evidence.duckdb").close()
    done = on_a_full_disk(10_000, "evidence", "export", tmp_path / "evidence.duckdb", tmp_path / "bundle")
    assert done.returncode == 2
    for part in ("could not be written", str(tmp_path / "bundle"), "free space"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert root_of(tmp_path / "evidence.duckdb") == study().evidence_root()


def test_a_full_disk_while_importing(folder: Path, tmp_path: Path) -> None:
    done = on_a_full_disk(20_000, "evidence", "import", folder / "evidence", tmp_path / "evidence.duckdb")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "evidence.duckdb") in done.stderr


def test_a_full_disk_while_issuing_leaves_no_receipt(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    done = on_a_full_disk(2_000, *issue(folder, folder / "evidence", folder / "r.json"))
    assert done.returncode == 2
    for part in ("could not be written", str(folder / "r.json"), "space"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


# --- a reader that has gone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "code"), [
    (["vocab", "list"], 0), (["schema", "all"], 0), (["--help"], 0), (["explain", "ATL-R013"], 0), (["explain", "x"], 2), (["--bogus"], 2),
])  # fmt: skip
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_has_gone_changes_no_exit_code(args: list[str], code: int, buffered: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    env = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [sys.executable, "-m", "atlas_schema.cli.atlas", *args]
    done = subprocess.run(command, stdout=writing, stderr=writing, timeout=120, check=False, env=env)
    os.close(writing)
    assert done.returncode == code


def test_output_that_was_closed_from_the_start_changes_no_exit_code() -> None:
    command = f"'{sys.executable}' -m atlas_schema.cli.atlas explain ATL-R013 >&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is full")
@pytest.mark.parametrize("args", ["schema all", "vocab list", "--help"])
def test_output_that_finds_no_room_is_told_and_is_no_fault(args: str) -> None:
    command = f"'{sys.executable}' -m atlas_schema.cli.atlas {args} > /dev/full"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False, text=True)
    assert (ended.returncode, ended.stderr) == (2, "The output could not be written: No space left on device\n")


# --- reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*MODELS, "all"])
def test_schema_prints_json_schema(atlas_command: Command, kind: str) -> None:
    ended = atlas_command("schema", kind)
    assert ended.code == 0
    assert json.loads(ended.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_of_nothing(atlas_command: Command) -> None:
    ended = atlas_command("schema", "poem")
    assert ended.code == 2
    assert "receipt" in ended.err


def test_explain_says_what_and_why(atlas_command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert atlas_command("explain", "atl-r013").out.startswith("ATL-R013 (reproduction)\n")
    for rule, known in RULES.items():
        explain(rule.lower())
        shown = capsys.readouterr().out
        assert shown.startswith(f"{rule} ({known.channel.value})\n")
        assert re.search(r"^Why: \S.*$", shown, re.MULTILINE)


def test_explain_of_nothing(atlas_command: Command) -> None:
    ended = atlas_command("explain", "ATL-X999")
    assert ended.code == 2
    assert "ATL-X999" in ended.err
