"""``atlas prereg plan``: how many documents and items a study needs, from a pilot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema.errors import UsageError

if TYPE_CHECKING:
    from atlas_schema.documents.contract import Contract
    from atlas_schema.documents.preregistration import Preregistration
    from atlas_schema.evidence.source import EvidenceSource


def plan(
    pilot: Annotated[
        Path, typer.Option(help="Folder of an extracted pilot study: preregistration.json and its evidence.")
    ],
    evidence: Annotated[
        Path | None,
        typer.Option(help="The pilot's bundle or store; default: evidence or evidence.duckdb in the folder."),
    ] = None,
    contract: Annotated[str, typer.Option(help="Id or file of the contract to plan for; default: the pilot's.")] = "",
    arm: Annotated[
        list[str] | None, typer.Option(help="Arm of the pilot to plan for, repeatable; default: all.")
    ] = None,
    power: Annotated[float, typer.Option(help="Wanted probability of a decision.")] = 0.8,
    jointly: Annotated[bool, typer.Option("--jointly", help="Ask it of all decisions of an arm together.")] = False,
    target: Annotated[float | None, typer.Option(help="Task score to reach; default: the pilot's.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Tolerance on it; default: the pilot's.")] = None,
    damage_tolerance: Annotated[float | None, typer.Option(help="Nats per token; default: the pilot's.")] = None,
    max_clusters: Annotated[int, typer.Option(help="Documents that can be had.")] = 100_000,
    max_items: Annotated[int, typer.Option(help="Items that can be had.")] = 100_000,
    studies: Annotated[int, typer.Option(help="Studies drawn from the pilot to check each plan.")] = 200,
    windows: Annotated[
        Path | None,
        typer.Option(help="Windows of the study: must share no document with the pilot; compared with the plan."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say how many documents and items a study needs, from a pilot, or that no size suffices (exit code 1)."""
    # Thousands of small products: threads inside each cost more than they gain. Read when numpy is first loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from atlas_schema.documents.preregistration import Preregistration
    from atlas_schema.evidence.digest import evidence_root
    from atlas_schema.evidence.source import table_roots
    from atlas_schema.files import read_document
    from atlas_schema.reports.plan import Source, plan_json, plan_text
    from atlas_schema.study.contracts import contract_digest
    from atlas_schema.study.pilot import Limits, read_pilot
    from atlas_schema.study.preregister import digest_of
    from atlas_schema.study.sizing import Aims, plan_sizes

    if not (0 < power < 1 and min(max_clusters, max_items, studies) > 0):
        raise UsageError("A number is out of range.", expected="0 < --power < 1, and positive counts")
    known = read_document(pilot / "preregistration.json", Preregistration, "pilot's pre-registration")
    counted = _disjoint(known, windows) if windows else None
    rules = _contract(contract or known.contract.id, known, explicit=bool(contract))
    source = _evidence(pilot, evidence)
    arms = _arms(known, arm or [])
    limits = Limits(*(b if a is None else a for a, b in (
        (target, known.task.target), (tolerance, known.task.tolerance), (damage_tolerance, known.damage_tolerance_nats))))  # fmt: skip
    found, domains = read_pilot(source, known, rules, arms, limits)
    aims = Aims(power, jointly, max_clusters, max_items, rules.success.min_items, studies)
    made = plan_sizes(found, domains, rules.bootstrap, aims, lambda line: typer.echo(line, err=True))
    origin = Source(known.study, digest_of(known), evidence_root(table_roots(source)), len(domains), len(known.windows),
                    len(known.task.items), rules.id, contract_digest(rules))  # fmt: skip
    typer.echo((plan_json if as_json else plan_text)(made, origin, aims))
    if counted is not None and not as_json:
        typer.echo(_compared(counted, made.clusters, windows or pilot))
    if not made.possible:
        raise typer.Exit(1)


def _contract(wanted: str, known: Preregistration, explicit: bool) -> Contract:
    """Return a contract by id or file; the pilot's own only where it is the one that the pilot cites."""
    from atlas_schema.documents.contract import Contract
    from atlas_schema.files import read_document
    from atlas_schema.study.contracts import built_in_contracts, contract_digest, load_contract

    # An id means the built-in contract, whatever file of that name lies in the folder.
    familiar = wanted in built_in_contracts() or not Path(wanted).is_file()
    found = load_contract(wanted) if familiar else read_document(Path(wanted), Contract, "contract")
    if not explicit and contract_digest(found) != known.contract.digest:
        raise UsageError("The pilot cites another contract of this id.", expected=known.contract.digest,
                         found=contract_digest(found), todo="name the contract to plan for with --contract")  # fmt: skip
    return found


def _evidence(pilot: Path, evidence: Path | None) -> EvidenceSource:
    from atlas_schema.evidence.bundle import ParquetBundle
    from atlas_schema.evidence.store import EvidenceStore

    beside = [p for p in (pilot / "evidence", pilot / "evidence.duckdb") if p.exists()]
    path = evidence or (beside[0] if beside else None)
    if path is None:
        raise UsageError("The pilot has no evidence.", where=str(pilot), expected="evidence or evidence.duckdb",
                         todo="extract the pilot, or name its evidence with --evidence")  # fmt: skip
    return ParquetBundle(path) if path.is_dir() else EvidenceStore.open_existing(path)


def _arms(known: Preregistration, wanted: list[str]) -> list[str]:
    names = [a.name for a in known.arms]
    strange = [name for name in wanted if name not in names]
    if strange:
        raise UsageError("The pilot has no such arm.", found=", ".join(strange), expected=", ".join(names))
    return list(dict.fromkeys(wanted)) or names


def _disjoint(known: Preregistration, windows: Path) -> dict[str, int]:
    """Return the study's documents per domain. Raises `UsageError` where the pilot has one of them."""
    from atlas_schema.study.probe import load_windows

    domain_of = {w.cluster_id: w.domain for w in load_windows(windows)}
    shared = sorted(set(domain_of) & {w.cluster_id for w in known.windows})
    if shared:
        raise UsageError("The pilot and the study share text.", where=str(windows), expected="no document in both",
                         found=f"{len(shared)} documents, first {shared[0]}",
                         todo="take other documents for the study: the plan was made from the pilot's")  # fmt: skip
    domains = list(domain_of.values())
    return {d: domains.count(d) for d in sorted(set(domains))}


def _compared(counted: dict[str, int], needed: dict[str, int], windows: Path) -> str:
    short = [f"{d}: {counted.get(d, 0)} of {n}" for d, n in needed.items() if counted.get(d, 0) < n]
    return f"windows   {windows}: " + (f"too few documents ({', '.join(short)})" if short else "enough documents")
