"""Channel contract: do the parts agree with each other, the contract, the pre-registration and the log?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from atlas_schema.canonical import digest_document
from atlas_schema.documents.base import Document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.receipt import Receipt
from atlas_schema.documents.run_log import RunLog, Step
from atlas_schema.measures.definitions import DAMAGE, DEFINITIONS, SUCCESS
from atlas_schema.protocol.log import chain_faults
from atlas_schema.study.plan import planned_rows, planned_runs
from atlas_schema.verify.outcome import ChannelResult, Problem


def digest_of(document: Document) -> str:
    """Return the digest by which a document is cited."""
    return digest_document(document.model_dump(mode="json"))


def check_contract(contract: Contract, result: ChannelResult) -> None:
    """Check that all it gates is what this version can recompute, in its forms, once each (C001), with tolerances of rounding (C162)."""
    result.check()
    for stated, known_id in ((contract.damage.definition, DAMAGE), (contract.success.definition, SUCCESS)):
        if stated != known_id:
            result.report(Problem("ATL-C001", "The contract gates something that this version cannot recompute.",
                                  document="contract", stated=stated, recomputed=known_id,
                                  todo="use a newer atlas-verify"))  # fmt: skip
    if contract.bootstrap.batches > contract.bootstrap.resamples:
        result.report(Problem("ATL-C001", "The contract asks for more batches than resamples.", document="contract",
                              path=("bootstrap", "batches"), stated=str(contract.bootstrap.batches),
                              recomputed=f"at most {contract.bootstrap.resamples}"))  # fmt: skip
    _check_tolerances(contract, result)
    named = [(c.definition, t.form) for c in contract.channels for t in c.thresholds]
    for definition, form in named:
        known = DEFINITIONS.get(definition)
        if known is None or form not in known.forms:
            result.report(Problem("ATL-C001", "The contract gates something that this version cannot recompute.",
                                  document="contract", stated=f"{definition} {form}",
                                  recomputed=", ".join(DEFINITIONS), todo="use a newer atlas-verify"))  # fmt: skip
    if len(set(named)) != len(named) or len({n.id for n in contract.nuisances}) != len(contract.nuisances):
        result.report(Problem("ATL-C001", "The contract names a cell or a nuisance twice.", document="contract"))


WIDEST = {
    ("tolerances", "float32_unit"): 2.0**-20, ("tolerances", "accumulation"): 100, ("tolerances", "float64_relative"): 1e-6,
    ("tolerances", "reconstruction"): 0.01, ("numbers", "relative_tolerance"): 1e-6,
}  # fmt: skip
"""How far a contract's tolerances may exceed rounding. Beyond, rows and numbers of any kind would pass as reproduced."""


def _check_tolerances(contract: Contract, result: ChannelResult) -> None:
    """Check that what passes for rounding is rounding (C162)."""
    for (part, name), widest in WIDEST.items():
        value = getattr(getattr(contract, part), name)
        if value > widest:
            result.report(Problem("ATL-C162", "A tolerance of the contract is wider than any rounding.", document="contract",
                                  path=(part, name), stated=str(value), recomputed=f"at most {widest:g}",
                                  todo="nothing is reproduced by this contract; ask for a narrower one"))  # fmt: skip


def check_familiar(contract: Contract, built_in: Mapping[str, Contract], result: ChannelResult) -> None:
    """Check that a contract from a file does not bear the id of a built-in one with other content (C001)."""
    result.check()
    known = built_in.get(contract.id)
    if known is not None and digest_of(known) != digest_of(contract):
        result.report(Problem("ATL-C001", "The contract bears the id of a built-in one and has other content.",
                              document="contract", path=("id",), stated=digest_of(contract), recomputed=digest_of(known),
                              todo="a contract with other thresholds needs another id"))  # fmt: skip


def check_preregistration(plan: Preregistration, contract: Contract, result: ChannelResult) -> None:
    """Check the plan against itself and what the contract admits (C003, C008, C012, C160)."""
    result.check(3)
    cited = digest_of(contract)
    if plan.contract.id != contract.id or plan.contract.digest != cited:
        result.report(Problem("ATL-C003", "The pre-registration cites another contract.", document="preregistration",
                              path=("contract",), stated=f"{plan.contract.id} {plan.contract.digest}",
                              recomputed=f"{contract.id} {cited}", todo="give the cited contract with --contract"))  # fmt: skip
    for path, what, stated, expected in _plan_faults(plan, contract):
        result.report(
            Problem("ATL-C008", what, document="preregistration", path=path, stated=stated, recomputed=expected)
        )
    if plan.task.target <= plan.task.tolerance:
        result.report(Problem("ATL-C160", "Any score reaches the task's target.", document="preregistration",
                              path=("task", "target"), stated=str(plan.task.target), recomputed=f"above {plan.task.tolerance}, its tolerance",
                              todo="a study that asks for no success shows no matched success: ask for a plan that does"))  # fmt: skip
    clusters = {w.cluster_id for w in plan.windows}
    shared = sorted(clusters & set(plan.pilot.clusters)) if plan.pilot else []
    if shared:
        result.report(Problem("ATL-C012", "The pilot and the study share text.", document="preregistration",
                              path=("pilot", "clusters"), stated=f"{len(shared)} clusters, first {shared[0]}",
                              recomputed="none"))  # fmt: skip


def check_citations(receipt: Receipt, plan: Preregistration, result: ChannelResult) -> None:
    """Check, where the contract itself is absent, that receipt and plan cite one contract all the same (C003)."""
    result.check()
    if receipt.contract != plan.contract:
        result.report(Problem("ATL-C003", "The pre-registration cites another contract.", document="preregistration",
                              path=("contract",), stated=f"{plan.contract.id} {plan.contract.digest}",
                              recomputed=f"{receipt.contract.id} {receipt.contract.digest}",
                              todo="one of the two was changed: obtain both as they were issued"))  # fmt: skip


def _plan_faults(plan: Preregistration, contract: Contract) -> Iterator[tuple[tuple[str | int, ...], str, str, str]]:
    limits = (
        (("damage_tolerance_nats",), plan.damage_tolerance_nats, contract.damage.max_tolerance_nats),
        (("task", "tolerance"), plan.task.tolerance, contract.success.max_tolerance),
    )
    for path, value, limit in limits:
        if value > limit:
            yield path, "A tolerance is wider than the contract admits.", str(value), f"at most {limit}"
    if plan.positions_per_window < contract.min_positions_per_window:
        yield (("positions_per_window",), "Too few positions per window.", str(plan.positions_per_window),
               f"at least {contract.min_positions_per_window}")  # fmt: skip
    unique = (
        (("windows",), [w.window_id for w in plan.windows]), (("task", "items"), [i.item_id for i in plan.task.items]),
        (("arms",), [a.name for a in plan.arms]), (("protected_layers",), list(plan.protected_layers)),
    )  # fmt: skip
    for at, names in unique:
        if (names != sorted(set(names), key=lambda n: (str(type(n)), n)) and at != ("arms",)) or len(set(names)) != len(
            names
        ):
            yield (
                at,
                "Entries are not unique and in order.",
                f"{len(names)} entries",
                f"{len(set(names))} distinct, sorted",
            )
    windows, items = [w.token_digest for w in plan.windows], [i.digest for i in plan.task.items]
    for at, digests in ((("windows",), windows), (("task", "items"), items)):
        if len(set(digests)) != len(digests):
            # One text under many names would count as many clusters or items, and every interval would be too narrow.
            yield (at, "The same tokens stand under several names.", f"{len(digests)} entries",
                   f"{len(set(digests))} distinct")  # fmt: skip
    domain: dict[str, str] = {}
    for i, w in enumerate(plan.windows):
        if w.predicted_bytes > w.n_bytes:
            yield (("windows", i, "predicted_bytes"), "A window predicts more bytes than it has.", str(w.predicted_bytes),
                   f"at most {w.n_bytes}")  # fmt: skip
        if domain.setdefault(w.cluster_id, w.domain) != w.domain:
            yield ("windows", i, "domain"), "One document stands in two domains.", w.domain, domain[w.cluster_id]
    if min(w.n_tokens for w in plan.windows) - plan.first_allowed_position < plan.positions_per_window:
        yield (("windows",), "A window is too short for its sampled positions.", "", str(plan.positions_per_window))
    expected, stated = planned_rows(plan, contract).model_dump(), plan.expected_rows.model_dump()
    for name, count in expected.items():
        if stated[name] != count:
            yield (
                ("expected_rows", name),
                "The expected rows do not follow from the plan.",
                str(stated[name]),
                str(count),
            )


def check_log(log: RunLog, result: ChannelResult) -> None:
    """Check the hash chain (C004)."""
    result.check()
    for index, fault in chain_faults(log):
        result.report(Problem("ATL-C004", f"The run log was altered at step {index}: {fault}.", document="run_log",
                              path=("steps", index)))  # fmt: skip


def check_receipt(
    receipt: Receipt, plan: Preregistration, contract: Contract, log: RunLog, result: ChannelResult
) -> None:
    """Check what the receipt cites (C001, C002, C009) and its place in the log (C005 to C007)."""
    result.check(3)
    cited = digest_of(contract)
    if receipt.contract.id != contract.id or receipt.contract.digest != cited:
        result.report(Problem("ATL-C001", "The receipt cites another contract.", document="receipt", path=("contract",),
                              stated=f"{receipt.contract.id} {receipt.contract.digest}", recomputed=f"{contract.id} {cited}",
                              todo="give the cited contract with --contract, or ask why it is not the published one"))  # fmt: skip
    digest = digest_of(plan)
    if receipt.preregistration.digest != digest:
        result.report(Problem("ATL-C002", "The receipt cites another pre-registration.", document="receipt",
                              path=("preregistration", "digest"), stated=receipt.preregistration.digest,
                              recomputed=digest, todo="give the cited one with --preregistration"))  # fmt: skip
    runs = [s.run_id for s in receipt.subjects]
    if runs != sorted(planned_runs(plan, contract)):
        lacking, extra = set(planned_runs(plan, contract)) - set(runs), set(runs) - set(planned_runs(plan, contract))
        result.report(Problem("ATL-C009", "The subjects are not the planned runs.", document="receipt", path=("subjects",),
                              stated=f"without {', '.join(sorted(lacking)) or 'none'}; beyond {', '.join(sorted(extra)) or 'none'}",
                              recomputed="every planned run once, in order of run_id",
                              todo="a receipt reports every planned arm and only those"))  # fmt: skip
    if receipt.claim.arm not in [a.name for a in plan.arms]:
        result.report(Problem("ATL-C009", "The claim is about an arm that was not planned.", document="receipt",
                              path=("claim", "arm"), stated=receipt.claim.arm, recomputed=", ".join(a.name for a in plan.arms)))  # fmt: skip
    _check_history(receipt, plan, log, digest, result)


def _check_history(receipt: Receipt, plan: Preregistration, log: RunLog, digest: str, result: ChannelResult) -> None:
    result.check(3)
    count = receipt.run_log.steps
    before = log.steps[:count]
    if count > len(log.steps) or log.steps[count - 1].hash != receipt.run_log.head:
        result.report(Problem("ATL-C005", "The receipt's place in the run log does not exist.", document="receipt",
                              path=("run_log",), stated=f"step {count} with hash {receipt.run_log.head}",
                              recomputed=f"{len(log.steps)} steps", todo="give the log that the receipt was issued with"))  # fmt: skip
        return
    declared = next((s for s in before if s.step == "declare" and _has(s, outputs=digest)), None)
    extracted = [s for s in before if s.step == "extract"]
    early = [s for s in extracted if declared is None or s.index < declared.index or s.time < plan.created]
    if declared is None or early or declared.time < plan.created:
        result.report(Problem("ATL-C006", "The pre-registration was not declared before the first extraction.",
                              document="run_log", path=("steps", early[0].index if early else 0),
                              stated=f"created {plan.created}; extraction {early[0].time if early else 'none'}",
                              recomputed="created, then declared, then extracted",
                              todo="results that came first cannot be pre-registered: start a new study"))  # fmt: skip
    for at, subject in enumerate(receipt.subjects):
        made = [s for s in extracted if any(a.name == subject.run_id for a in s.outputs)]
        read = {a.digest for s in made for a in s.inputs if a.name == "weights"}
        if read and subject.weights_digest not in read:
            result.report(Problem("ATL-C130", "The log records the extraction of other weights.", document="receipt",
                                  path=("subjects", at, "weights_digest"), stated=subject.weights_digest, recomputed=", ".join(sorted(read)),
                                  todo="one of the two was changed: ask for the log that the extraction wrote"))  # fmt: skip
    if not any(_has(s, inputs=digest) and _has(s, outputs=receipt.evidence.root) for s in extracted):
        result.report(Problem("ATL-C007", "No extraction of this pre-registration in the log produced this evidence.",
                              document="run_log", path=("steps",), stated=f"evidence root {receipt.evidence.root}",
                              recomputed="; ".join(a.digest for s in extracted for a in s.outputs if a.name == "evidence") or "none",
                              todo="the evidence was changed after extraction, or the log is of another study"))  # fmt: skip


def repeated_extractions(log: RunLog, runs: Collection[str]) -> tuple[str, ...]:
    """Return the planned ``runs`` that the log shows extracted more than once, with different models or settings.

    Names are given by who wrote the log; those that are no planned run would be free text in a report.
    """
    seen: dict[str, set[str]] = {}
    for step in log.steps:
        for artefact in step.outputs if step.step == "extract" else ():
            if artefact.name in runs:
                seen.setdefault(artefact.name, set()).add(artefact.digest)
    return tuple(sorted(name for name, digests in seen.items() if len(digests) > 1))


def _has(step: Step, *, inputs: str = "", outputs: str = "") -> bool:
    return all(
        not wanted or any(a.digest == wanted for a in group)
        for wanted, group in ((inputs, step.inputs), (outputs, step.outputs))
    )
