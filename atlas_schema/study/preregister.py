"""Making a pre-registration: everything that could be tuned afterwards is read, digested and fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atlas_schema.canonical import digest_bytes, digest_document
from atlas_schema.documents.base import Document, DocumentReference
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import (
    BaseModelIdentity,
    Item,
    Pilot,
    PlannedArm,
    Preregistration,
    ProbeFile,
    Task,
    Window,
)
from atlas_schema.errors import UsageError
from atlas_schema.files import document_text, read_bytes, write_atomically
from atlas_schema.protocol.log import LOG_NAME, append_step, now
from atlas_schema.study.contracts import contract_digest
from atlas_schema.study.identity import config_digest, read_config, tokenizer_digest, weights_digest
from atlas_schema.study.plan import expected_rows
from atlas_schema.study.probe import (
    encode,
    item_digest,
    load_items,
    load_tokenizer,
    load_windows,
    positions_for,
    predicted_bytes,
    token_digest,
)

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""How configurations name the number of routed experts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a technician decides; everything else in a pre-registration follows from files."""

    study: str
    base: Path
    base_name: str
    windows: Path
    task: Path
    contract: Contract
    protected_layers: tuple[int, ...]
    positions_per_window: int
    first_allowed_position: int
    overlap_pairs: int
    target: float
    tolerance: float
    damage_tolerance_nats: float
    arms: tuple[PlannedArm, ...]
    pilot: Pilot | None
    notes: str


def digest_of(document: Document) -> str:
    """Return the digest by which a document is cited."""
    return digest_document(document.model_dump(mode="json"))


def preregister(plan: Plan) -> Preregistration:
    """Build the pre-registration. Raises `UsageError` for a plan that the contract does not admit."""
    _require_admitted(plan)
    config = read_config(plan.base)
    architecture, layers = str(config.get("model_type", "unknown")), config.get("num_hidden_layers")
    if isinstance(layers, int) and max(plan.protected_layers) >= layers:
        raise UsageError("A protected layer does not exist.", where=str(plan.base / "config.json"),
                         expected=f"0 to {layers - 1}", found=str(max(plan.protected_layers)))  # fmt: skip
    tokenizer = load_tokenizer(plan.base)
    windows = []
    for w in load_windows(plan.windows):
        tokens = encode(tokenizer, w.text)
        digest = token_digest(tokens)
        positions_for(digest, len(tokens), plan.positions_per_window, plan.first_allowed_position)
        windows.append(Window(window_id=w.window_id, cluster_id=w.cluster_id, domain=w.domain, split=_split(w.split),
                              n_bytes=len(w.text.encode()),
                              predicted_bytes=predicted_bytes(tokenizer, w.text), n_tokens=len(tokens), token_digest=digest))  # fmt: skip
    items = tuple(
        Item(item_id=i.item_id, digest=item_digest(encode(tokenizer, i.prompt), encode(tokenizer, i.answer)))
        for i in load_items(plan.task)
    )
    _require_distinct(plan, windows, items)
    return Preregistration(
        kind="preregistration", schema_version="1.0", study=plan.study, created=now(),
        contract=DocumentReference(id=plan.contract.id, digest=contract_digest(plan.contract)),
        base=BaseModelIdentity(
            name=plan.base_name, architecture=architecture,
            weights_digest=weights_digest(plan.base), config_digest=config_digest(plan.base),
            tokenizer_digest=tokenizer_digest(plan.base)),
        protected_layers=plan.protected_layers, positions_per_window=plan.positions_per_window,
        first_allowed_position=plan.first_allowed_position, overlap_pairs=plan.overlap_pairs,
        probe=ProbeFile(file=plan.windows.name, digest=digest_bytes(read_bytes(plan.windows, "probe file"))),
        windows=tuple(windows), damage_tolerance_nats=plan.damage_tolerance_nats,
        task=Task(file=plan.task.name, digest=digest_bytes(read_bytes(plan.task, "task file")), scoring="greedy_exact",
                  target=plan.target, tolerance=plan.tolerance, items=items),
        arms=plan.arms, pilot=plan.pilot, expected_rows=expected_rows(
            windows, nulls=len(plan.contract.nuisances), arms=len(plan.arms), layers=len(plan.protected_layers),
            positions=plan.positions_per_window, overlap_pairs=plan.overlap_pairs, items=len(items)), notes=plan.notes,
    )  # fmt: skip


def _require_distinct(plan: Plan, windows: Sequence[Window], items: Sequence[Item]) -> None:
    """Refuse text that would count twice, and text that thresholds were already tuned on."""
    shared = {w.cluster_id for w in windows} & set(plan.pilot.clusters if plan.pilot else ())
    if shared:
        raise UsageError("The pilot and the study share text.", where=str(plan.windows), expected="no document in both",
                         found=f"{len(shared)} documents, first {min(shared)}",
                         todo="calibrate on other documents than the study measures")  # fmt: skip
    named = (
        (plan.windows, [(w.token_digest, w.window_id) for w in windows]),
        (plan.task, [(i.digest, i.item_id) for i in items]),
    )
    for path, entries in named:
        first: dict[str, str] = {}
        for digest, name in entries:
            if first.setdefault(digest, name) != name:
                raise UsageError("The same tokens stand under two names.", where=str(path), found=f"{first[digest]} and {name}",
                                 todo="remove one: text that counts twice makes every interval too narrow")  # fmt: skip


def write_preregistration(
    plan: Plan, target: Path, accept: Callable[[Preregistration], None] | None = None
) -> Preregistration:
    """Write the pre-registration with its probe files beside it, and the first step of the run log.

    ``accept`` is called before anything is written; what it raises leaves nothing behind.
    """
    log = target.parent / LOG_NAME
    for path in (target, log):
        if path.exists():
            raise UsageError("This file already exists; a pre-registration is never overwritten.", where=str(path),
                             todo="start a new study in a new folder")  # fmt: skip
    _require_places(plan, target)
    made = preregister(plan)
    if accept is not None:
        accept(made)
    target.parent.mkdir(parents=True, exist_ok=True)
    for source in (plan.windows, plan.task):
        beside = target.parent / source.name
        if beside.resolve() != source.resolve():
            write_atomically(beside, read_bytes(source, "probe file").decode("utf-8"))
    write_atomically(target, document_text(made))
    append_step(log, step="declare", actor="technician", outputs={"preregistration": digest_of(made)},
                inputs={"probe": made.probe.digest, "task": made.task.digest, "contract": made.contract.digest,
                        "base": made.base.weights_digest})  # fmt: skip
    return made


def _require_places(plan: Plan, target: Path) -> None:
    """Refuse probe files that would overwrite each other, or other files, beside the pre-registration."""
    if plan.windows.name == plan.task.name and plan.windows.resolve() != plan.task.resolve():
        raise UsageError("Windows and task items have the same file name; one would overwrite the other.",
                         found=plan.windows.name, todo="rename one of them: both are kept beside the pre-registration")  # fmt: skip
    for source in (plan.windows, plan.task):
        beside = target.parent / source.name
        if beside.exists() and beside.read_bytes() != read_bytes(source, "probe file"):
            raise UsageError("Another file of this name lies beside the pre-registration.", where=str(beside),
                             todo="nothing is overwritten: rename the probe file, or start in a new folder")  # fmt: skip


def _split(value: str) -> Literal["probe", "evaluation"]:
    if value == "probe":
        return "probe"
    if value == "evaluation":
        return "evaluation"
    raise UsageError("A window belongs to no known split.", found=value, expected="probe or evaluation")


def _require_admitted(plan: Plan) -> None:
    contract = plan.contract
    for value, limit, name in (
        (plan.damage_tolerance_nats, contract.damage.max_tolerance_nats, "damage tolerance"),
        (plan.tolerance, contract.success.max_tolerance, "success tolerance"),
    ):
        if value > limit:
            raise UsageError(f"The contract does not admit this {name}.", expected=f"at most {limit}", found=str(value))
    if plan.target <= plan.tolerance:
        raise UsageError("Any score would reach this target.", expected=f"a target above its tolerance, {plan.tolerance}",
                         found=str(plan.target), todo="ask for a success that an arm can miss")  # fmt: skip
    if plan.positions_per_window < contract.min_positions_per_window:
        raise UsageError("The contract needs more positions per window.",
                         expected=f"at least {contract.min_positions_per_window}", found=str(plan.positions_per_window))  # fmt: skip
    config = read_config(plan.base)
    experts = next((n for name in EXPERT_COUNTS if isinstance(n := config.get(name), int)), None)
    if experts is not None and plan.overlap_pairs > experts * (experts - 1):
        raise UsageError("There are not so many pairs of experts.", expected=f"at most {experts * (experts - 1)} overlap pairs",
                         found=str(plan.overlap_pairs))  # fmt: skip
    names = [arm.name for arm in plan.arms]
    if len(set(names)) != len(names) or len(set(plan.protected_layers)) != len(plan.protected_layers):
        raise UsageError("An arm or a protected layer is named twice.", found=", ".join(names))
    if list(plan.protected_layers) != sorted(plan.protected_layers):
        raise UsageError("Protected layers must be ascending.", found=str(plan.protected_layers))
