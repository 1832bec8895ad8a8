"""``atlas prereg plan`` as a technician meets it, and what ``prereg new`` takes from a pilot and warns of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.commands import Command
from simulator import PRESERVED, REWRITTEN, StudySimulator, small

from atlas_schema.canonical import digest_bytes
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import UsageError
from atlas_schema.files import read_document
from atlas_schema.study.pilot import Limits, pilot_of, read_pilot, undecidable
from atlas_schema.study.preregister import digest_of

Json = dict[str, Any]


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = small(seed=3, clusters=(("code", 30), ("legal", 30)), protected=(1,), items=80,
                     arms=(PRESERVED, replace(REWRITTEN, name="rewritten")), bootstrap={"resamples": 200, "min_clusters": 20})  # fmt: skip
    return StudySimulator.make(settings).write(tmp_path_factory.mktemp("plan") / "pilot")


def call(pilot: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("prereg", "plan", "--pilot", pilot, "--contract", pilot / "contract.json", "--studies", "8", *more)


def windows(path: Path, clusters: dict[str, list[str]]) -> Path:
    rows = [
        {"window_id": f"{domain}{i}", "cluster_id": c, "domain": domain, "source": "s", "licence": "CC0-1.0", "text": f"{c}"}
        for domain, ids in clusters.items() for i, c in enumerate(ids)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_says_what_the_table_says(pilot: Path, atlas_command: Command) -> None:
    table, found = (
        atlas_command(*call(pilot, "--arm", "preserved")),
        atlas_command(*call(pilot, "--arm", "preserved", "--json")),
    )
    assert table.code == found.code == 0
    made: Json = json.loads(found.out)
    plan = read_document(pilot / "preregistration.json", Preregistration, "plan")
    assert made["pilot"]["preregistration"] == digest_of(plan)
    assert made["pilot"]["clusters"] == 60
    assert digest_of(plan) in table.out
    assert made["pilot"]["evidence"] in table.out
    assert made["possible"]
    total = sum(made["needed"]["clusters"].values())
    assert f"{total} documents" in table.out
    assert f"{made['needed']['items']} items" in table.out
    assert [a["arm"] for a in made["arms"]] == ["preserved"]
    decisions = made["arms"][0]["decisions"]
    assert {d["kind"] for d in decisions} == {"drift", "damage", "success"}
    for d in decisions:
        row = next(line for line in table.out.splitlines() if line.strip().startswith((d["name"], f"damage in {d['name']}"))
                   or (d["kind"] == "success" and line.startswith("  success")))  # fmt: skip
        assert f" {d['size']} " in row
        assert f"{d['power']:.2f}" in row
        assert d["why"] in row
    assert "rehearsing 8 studies" in found.err


def test_an_arm_that_drifted_has_no_size_and_the_exit_code_says_so(pilot: Path, atlas_command: Command) -> None:
    ended = atlas_command(*call(pilot, "--json"))
    assert ended.code == 1
    made = json.loads(ended.out)
    assert not made["possible"]
    by_arm = {a["arm"]: a for a in made["arms"]}
    assert by_arm["rewritten"]["together"] is None
    assert by_arm["preserved"]["together"] is not None
    assert any(d["size"] is None and "not below" in d["why"] for d in by_arm["rewritten"]["decisions"])
    assert "no arm that needs them" in atlas_command(*call(pilot)).out


def test_stricter_wishes_need_more(pilot: Path, atlas_command: Command) -> None:
    def needed(*more: str) -> Json:
        found: Json = json.loads(atlas_command(*call(pilot, "--arm", "preserved", "--json", *more)).out)["needed"]
        return found

    usual, strict = (
        needed(),
        needed("--target", "0.97", "--tolerance", "0.08", "--damage-tolerance", "0.005", "--power", "0.95"),
    )
    assert strict["items"] > usual["items"]
    assert sum(strict["clusters"].values()) > sum(usual["clusters"].values())


def test_the_study_may_not_share_a_document_with_its_pilot(pilot: Path, tmp_path: Path, atlas_command: Command) -> None:
    plan = read_document(pilot / "preregistration.json", Preregistration, "plan")
    fresh = [digest_bytes(f"fresh {i}".encode()) for i in range(200)]
    few = windows(tmp_path / "few.jsonl", {"code": fresh[:100], "legal": fresh[100:103]})
    ended = atlas_command(*call(pilot, "--arm", "preserved", "--windows", few))
    assert "too few documents (legal: 3 of " in ended.out
    ample = windows(tmp_path / "ample.jsonl", {"code": fresh[:100], "legal": fresh[100:]})
    assert "enough documents" in atlas_command(*call(pilot, "--arm", "preserved", "--windows", ample)).out
    shared = windows(tmp_path / "shared.jsonl", {"code": [*fresh, plan.windows[0].cluster_id]})
    ended = atlas_command(*call(pilot, "--windows", shared))
    assert ended.code == 2
    assert "share text" in ended.err
    assert plan.windows[0].cluster_id in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--arm", "nobody"), "no such arm"),
        (("--power", "1"), "out of range"),
        (("--max-items", "0"), "out of range"),
        (("--contract", "nothing.v9"), "no built-in contract"),
        (("--evidence", "/nowhere"), "/nowhere"),
    ],
)
def test_calls_that_cannot_be_carried_out(
    pilot: Path, atlas_command: Command, more: tuple[str, str], says: str
) -> None:
    ended = atlas_command(*call(pilot, *more))
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_a_pilot_under_another_contract_needs_its_nuisances(pilot: Path) -> None:
    from atlas_schema.evidence.bundle import ParquetBundle

    plan = read_document(pilot / "preregistration.json", Preregistration, "plan")
    contract = read_document(pilot / "contract.json", Contract, "contract")
    extra = contract.nuisances[0].model_copy(update={"id": "unheard"})
    other = contract.model_copy(update={"nuisances": (*contract.nuisances, extra)})
    with pytest.raises(UsageError, match="lacks runs") as caught:
        read_pilot(ParquetBundle(pilot / "evidence"), plan, other, ["preserved"], Limits(0.9, 0.1, 0.1))
    assert "null:unheard" in caught.value.found


def test_a_study_folder_is_a_pilot(pilot: Path, tmp_path: Path) -> None:
    plan = read_document(pilot / "preregistration.json", Preregistration, "plan")
    found = pilot_of(pilot, "")
    assert set(found.clusters) == {w.cluster_id for w in plan.windows}
    assert digest_of(plan) in found.description
    ids = [digest_bytes(b"one"), digest_bytes(b"two")]
    by_file = pilot_of(windows(tmp_path / "w.jsonl", {"code": ids}), "what was used")
    assert by_file.clusters == tuple(sorted(ids))
    assert by_file.description == "what was used"


def test_a_plan_that_can_decide_nothing_is_told_so(pilot: Path) -> None:
    plan = read_document(pilot / "preregistration.json", Preregistration, "plan")
    contract = read_document(pilot / "contract.json", Contract, "contract")
    assert undecidable(plan, contract) == []
    first = {w.cluster_id: w for w in plan.windows}
    few = plan.model_copy(update={"windows": tuple(first.values())[:5]})
    found = undecidable(few, contract)
    assert any("5 documents: the contract decides no drift" in line for line in found)
    assert any(line.startswith("domain ") for line in found)
    # 0 of 5 is bounded by 0.52: above every threshold of a share.
    assert any("drift.boundary/1" in line and "0.522" in line for line in found)
    few = plan.model_copy(update={"task": plan.task.model_copy(update={"items": plan.task.items[:3]})})
    assert any("3 items: success is undetermined" in line for line in undecidable(few, contract))
    hard = plan.model_copy(update={"task": plan.task.model_copy(update={"target": 1.0, "tolerance": 0.001})})
    assert any("even a perfect score" in line for line in undecidable(hard, contract))
