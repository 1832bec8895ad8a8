"""A small, complete, valid study in memory: `StudySimulator`.

A tiny routed model (NumPy only, float32) is run under the base's weights, under the contract's nuisances, and under the
perturbed weights of each arm. Every row of every table follows from that model, so that the physics that verification
checks holds: states from inputs, gate coordinates from states, scores from gate coordinates, sets from scores, Gram
matrices from vectors. Documents cite each other by their true digests.

Tests change one thing at a time: the ``with_...`` methods return a modified copy, and nothing else follows the change.

    study = StudySimulator.make(Settings(seed=7))
    findings = summarise(study.source(), study.contract, study.preregistration, study.evidence_root())
    forged = study.with_value("update", 3, "dy_norm", 0.0)
    forged.write(tmp_path)
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas_schema.canonical import canonical_json, digest_bytes, digest_document
from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.documents.run_log import Artefact, RunLog, Step
from atlas_schema.evidence.bundle import export_bundle
from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import Partition, table_roots, whole
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.tables import ARROW, STUDY_TABLES, TABLES, ColumnSpec, Dims
from atlas_schema.files import document_text, read_document
from atlas_schema.protocol.log import step_hash
from atlas_schema.study.probe import item_digest, positions_for, token_digest

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Weights = dict[str, F32]

EPS = 1e-5
VOCABULARY = 19
MODEL_LAYERS = 3
NUISANCES = ("batch", "attention", "experts", "dtype")
CHANGES = {"batch": "batch_size", "attention": "attention", "experts": "experts", "dtype": "dtype"}
FINGERPRINT: dict[str, Any] = {
    "attention": "eager", "batch_size": 8, "device": "cpu", "dtype": "float32", "experts": "eager",
    "libraries": {"torch": "2.13.0", "transformers": "5.18.0"}, "threads": 1,
}  # fmt: skip
NULL_VALUES: dict[str, Any] = {"batch_size": 1, "attention": "sdpa", "experts": "grouped_mm", "dtype": "bfloat16"}
THRESHOLDS: dict[str, dict[str, float]] = {
    "drift.coordinate/1": {"ratio_of_sums": 0.1},
    "drift.boundary/1": {"ratio_of_sums": 0.15},
    "drift.transition/1": {"ratio_of_sums": 0.2, "mean_bounded": 0.2},
    "drift.chart_content/1": {"ratio_of_sums": 0.2, "mean_bounded": 0.2},
    "guard.block/1": {"ratio_of_sums": 0.2},
}


@dataclass(frozen=True, slots=True)
class SimulatedArm:
    """An arm: relative size of the random change of the routed blocks' and other weights, and what it achieves.

    ``collapse`` replaces its routers by ones that know a few experts only and are that sure of them: margins rise while
    occupancy degenerates.
    """

    name: str
    policy: str
    chart_preserving: bool
    size: float
    upstream: float = 0.0
    head_scale: float = 1.0
    success: float = 0.95
    collapse: float = 0.0


PRESERVED = SimulatedArm("preserved", "lora+penalty", True, 0.002, upstream=0.002)
REWRITTEN = SimulatedArm("rewritten", "full", False, 1.0, upstream=1.0)
IDENTICAL = SimulatedArm("identical", "frozen", True, 0.0)
DAMAGED = SimulatedArm("damaged", "lora", True, 0.002, upstream=0.002, head_scale=3.0)
UNMATCHED = SimulatedArm("unmatched", "lora+penalty", True, 0.002, upstream=0.002, success=0.3)
COLLAPSED = SimulatedArm("collapsed", "full", False, 0.002, upstream=0.002, collapse=4.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a simulated study depends on. Equal settings give equal studies, byte for byte."""

    seed: int = 1
    d: int = 8
    experts: int = 6
    top_k: int = 2
    inner: int = 5
    positions: int = 2
    first_allowed: int = 1
    protected: tuple[int, ...] = (0, 2)
    window_tokens: tuple[int, int] = (6, 10)
    clusters: tuple[tuple[str, int], ...] = (("legal", 52), ("medical", 52))
    double_windows: int = 3
    items: int = 120
    target: float = 0.9
    tolerance: float = 0.1
    damage_tolerance_nats: float = 0.05
    arms: tuple[SimulatedArm, ...] = (PRESERVED, REWRITTEN, IDENTICAL)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: THRESHOLDS)
    bootstrap: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 1e-6
    evaluation: int = 1
    overlap_pairs: int = 6
    adapter: str = "olmoe"
    gain_convention: str = "w"
    score_space: str = "logit"
    weight_rule: str = "softmax_topk_renormalised"
    weight_scale: float = 1.0
    selection_bias: float = 0.0
    router_bias: float = 0.0
    group_mode: str = "none"
    n_groups: int = 1
    kept_groups: int = 1
    shared: bool = False

    @property
    def admitted(self) -> int:
        """Experts that the group limit leaves per token."""
        return self.experts if self.group_mode == "none" else self.experts // self.n_groups * self.kept_groups


def small(**changes: Any) -> Settings:
    """Return settings of a smaller world: 60 clusters in three domains, enough of them for decisions."""
    defaults: dict[str, Any] = {
        "clusters": (("code", 20), ("legal", 20), ("medical", 20)), "items": 60, "double_windows": 2,
        "damage_tolerance_nats": 0.1,
        "bootstrap": {"resamples": 400, "min_clusters": 20},
    }  # fmt: skip
    return Settings(**{**defaults, **changes})


def grouped(**changes: Any) -> Settings:
    """Return settings of a small world whose router adds a selection bias and keeps the best groups, as DeepSeek-V3's does."""
    return small(**{
        "experts": 8, "adapter": "deepseek_v3", "score_space": "sigmoid+bias", "selection_bias": 0.05,
        "weight_rule": "sigmoid_topk_renormalised", "weight_scale": 2.5, "group_mode": "top2_sum", "n_groups": 4,
        "kept_groups": 2, "shared": True, **changes,
    })  # fmt: skip


# --- arithmetic ---------------------------------------------------------------------------------------------------


def bfloat16(values: F32) -> F32:
    """Round float32 values to the nearest bfloat16, ties to even, and widen again."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def normalise(x: F32) -> tuple[F32, F32]:
    """Return ``z = x / r`` and ``r = sqrt(||x||^2 / d + eps)`` in float32, ``[..., d]`` and ``[...]``."""
    r = np.sqrt(np.mean(x * x, axis=-1, dtype=np.float32) + np.float32(EPS))
    return (x / r[..., None]).astype(np.float32), r.astype(np.float32)


def order_of(scores: F32) -> Ints:
    """Return expert ids by descending score, equal scores by ascending id, ``[T, E]``."""
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable").astype(np.int64)


def softmax32(logits: F32) -> F32:
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
    out: F32 = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def sigmoid32(logits: F32) -> F32:
    out: F32 = (1.0 / (1.0 + np.exp(-logits.astype(np.float32)))).astype(np.float32)
    return out


def gates(s: Settings, logits: F32) -> F32:
    """Return the gate's values before selection, float32 ``[T, E]``."""
    return softmax32(logits) if s.weight_rule.startswith("softmax") else sigmoid32(logits)


def selection_scores(s: Settings, weights: Weights, i: int, logits: F32) -> F32:
    """Return what top-k sees, before a group limit: the logits, or gates plus the selection bias."""
    if s.score_space == "logit":
        return logits
    bias = weights.get(f"layers.{i}.selection_bias", np.float32(0.0))
    out: F32 = (gates(s, logits) + bias).astype(np.float32)
    return out


def group_strengths(s: Settings, scores: F32) -> F32:
    """Return the strength of every group ``[T, n_groups]``: its best score, or the float32 sum of its two best."""
    parts = np.sort(scores.reshape(len(scores), s.n_groups, -1), axis=2)
    best: F32 = parts[:, :, -1]
    return best if s.group_mode == "max" else (parts[:, :, -1] + parts[:, :, -2]).astype(np.float32)


def admitted_experts(s: Settings, scores: F32) -> npt.NDArray[np.bool_]:
    """Return which experts a group limit leaves ``[T, E]``; equal strengths keep the lower group."""
    if s.group_mode == "none":
        return np.ones(scores.shape, dtype=np.bool_)
    kept = np.zeros((len(scores), s.n_groups), dtype=np.bool_)
    for t, order in enumerate(order_of(group_strengths(s, scores))):
        kept[t, order[: s.kept_groups]] = True
    return np.repeat(kept, s.experts // s.n_groups, axis=1)


def group_margins(s: Settings, scores: F32) -> F32:
    """Return the weakest kept group's strength less the strongest dropped one's, float32 ``[T]``."""
    ordered = -np.sort(-group_strengths(s, scores), axis=1)
    out: F32 = (ordered[:, s.kept_groups - 1] - ordered[:, s.kept_groups]).astype(np.float32)
    return out


def selection_order(s: Settings, scores: F32) -> Ints:
    """Return expert ids by descending score, those that a group limit drops last."""
    return order_of(np.where(admitted_experts(s, scores), scores, np.float32(-np.inf)))


def combine_weights(s: Settings, logits: F32, members: Ints) -> F32:
    """Return the members' combine weights under the weight rule, float32 ``[T, k]``."""
    chosen = np.take_along_axis(gates(s, logits), members, axis=1)
    if s.weight_rule.endswith("_renormalised"):
        chosen = chosen / chosen.sum(axis=1, keepdims=True)
    out: F32 = (chosen * np.float32(s.weight_scale)).astype(np.float32)
    return out


def factor(s: Settings, weights: Weights, i: int) -> F32:
    """Return the factor on the normalised state that the family's gain convention declares, float32 ``[d]``."""
    gain = weights[f"layers.{i}.norm"]
    if s.gain_convention == "none":
        return np.ones_like(gain)
    return gain if s.gain_convention == "w" else (np.float32(1.0) + gain).astype(np.float32)


def router_logits(weights: Weights, i: int, g: F32) -> F32:
    """Return float32 logits ``[T, E]``, the router's own bias included."""
    out: F32 = (g @ weights[f"layers.{i}.router"].T).astype(np.float32)
    bias = weights.get(f"layers.{i}.router_bias")
    return out if bias is None else (out + bias).astype(np.float32)


def shared_output(weights: Weights, i: int, g: F32) -> F32:
    """Return what the block adds beside its routed experts ``[T, d]``; zeros where there is no shared expert."""
    if f"layers.{i}.shared_in" not in weights:
        return np.zeros_like(g)
    hidden = g @ weights[f"layers.{i}.shared_in"].T
    out: F32 = ((hidden / (1.0 + np.exp(-hidden))) @ weights[f"layers.{i}.shared_out"].T).astype(np.float32)
    return out


def updates(weights: Weights, layer: int, g: F32) -> F32:
    """Return every expert's update at gate coordinates ``g`` ``[T, d]``: gated SiLU MLPs, float32 ``[T, E, d]``."""
    both = np.einsum("td,emd->tem", g, weights[f"layers.{layer}.gate_up"], dtype=np.float32)
    gate, up = np.split(both, 2, axis=2)
    hidden = (gate / (1.0 + np.exp(-gate)) * up).astype(np.float32)
    out: F32 = np.einsum("tem,edm->ted", hidden, weights[f"layers.{layer}.down"], dtype=np.float32)
    return out


def tensor_encoding(values: F32) -> bytes:
    """Return tag, number of dimensions, dimensions and row-major little-endian float32 values."""
    shape = struct.pack(f"<{values.ndim + 1}I", values.ndim, *values.shape)
    return b"atlas-tensor/1\0" + shape + np.ascontiguousarray(values, dtype="<f4").tobytes()


# --- the model ----------------------------------------------------------------------------------------------------


def base_weights(s: Settings) -> Weights:
    """Draw the base model's parameters."""
    rng = np.random.default_rng([s.seed, 1])

    def normal(*shape: int, scale: float) -> F32:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    weights = {"embed": normal(VOCABULARY, s.d, scale=1.0), "head": normal(VOCABULARY, s.d, scale=0.5)}
    for i in range(MODEL_LAYERS):
        weights[f"layers.{i}.attention"] = normal(s.d, s.d, scale=0.3)
        weights[f"layers.{i}.input_norm"] = (1.0 + normal(s.d, scale=0.1)).astype(np.float32)
        gain = normal(s.d, scale=0.1)
        weights[f"layers.{i}.norm"] = {"w": (1.0 + gain).astype(np.float32), "1+w": gain}.get(
            s.gain_convention, np.ones_like(gain)
        )
        weights[f"layers.{i}.router"] = normal(s.experts, s.d, scale=0.6)
        weights[f"layers.{i}.gate_up"] = normal(s.experts, 2 * s.inner, s.d, scale=0.4)
        weights[f"layers.{i}.down"] = normal(s.experts, s.d, s.inner, scale=0.5)
        if s.router_bias:
            weights[f"layers.{i}.router_bias"] = normal(s.experts, scale=s.router_bias)
        if s.selection_bias:
            weights[f"layers.{i}.selection_bias"] = normal(s.experts, scale=s.selection_bias)
        if s.shared:
            weights[f"layers.{i}.shared_in"] = normal(s.inner, s.d, scale=0.4)
            weights[f"layers.{i}.shared_out"] = normal(s.d, s.inner, scale=0.4)
    return weights


def arm_weights(s: Settings, arm: SimulatedArm, base: Weights) -> Weights:
    """Return the base's parameters moved by noise relative to each tensor's spread."""
    rng = np.random.default_rng([s.seed, 2, *arm.name.encode()])
    moved = {}
    for name in sorted(base):
        size = arm.size if name.rpartition(".")[2] in ROUTED else arm.upstream
        if name.endswith(".norm") and s.gain_convention == "none":
            size = 0.0
        noise = (rng.standard_normal(base[name].shape) * size * float(base[name].std())).astype(np.float32)
        moved[name] = base[name] + noise if size else base[name].copy()
        if arm.collapse and name.endswith(".router"):
            moved[name] = _collapsed(base[name], arm.collapse)
    moved["head"] = (moved["head"] * np.float32(arm.head_scale)).astype(np.float32)
    return moved


ROUTED = ("norm", "router", "router_bias", "selection_bias", "gate_up", "down", "shared_in", "shared_out")
"""The parameters of a routed block; the others of a layer stand before it."""


def _collapsed(router: F32, size: float) -> F32:
    """Return a router of one direction: experts 0 and 1 on its one side, 2 and 3 on the other, nothing for the others."""
    out = np.zeros_like(router)
    for e, side in enumerate((1.0, 1.01, -1.0, -1.01)):
        out[e] = router[0] * np.float32(side * size)
    return out


def tensor_digest_of(*tensors: F32) -> str:
    return digest_bytes(b"".join(tensor_encoding(t) for t in tensors))


def parameters_digest(weights: Weights, names: Sequence[str]) -> str:
    """Return the digest over names and digests of parameters, in order of name."""
    parts = [n.encode() + b"\0" + bytes.fromhex(tensor_digest_of(weights[n])[7:]) for n in sorted(names)]
    return digest_bytes(b"".join(parts))


def layer_digests(weights: Weights, layer: int) -> dict[str, str]:
    """Return the digests of the tensors behind one routed layer."""
    here, below = f"layers.{layer}.", tuple(f"layers.{i}." for i in range(layer))
    own = [here + "attention", here + "input_norm"]
    lower = [name for name in weights if name == "embed" or name.startswith(below)]
    digests = {
        "norm.gain": tensor_digest_of(weights[here + "norm"]), "router.weight": tensor_digest_of(weights[here + "router"]),
        "local": parameters_digest(weights, own), "upstream": parameters_digest(weights, [*lower, *own]),
    }  # fmt: skip
    for name, parameter in (("router.bias", "router_bias"), ("selection.bias", "selection_bias")):
        if here + parameter in weights:
            digests[name] = tensor_digest_of(weights[here + parameter])
    if here + "shared_in" in weights:
        digests["shared"] = parameters_digest(weights, [here + "shared_in", here + "shared_out"])
    gate_up, down = weights[here + "gate_up"], weights[here + "down"]
    for e in range(len(gate_up)):
        digests[f"experts.{e}"] = tensor_digest_of(gate_up[e], down[e])
    return digests


def model_digest(weights: Weights) -> str:
    return digest_bytes(b"".join(name.encode() + b"\0" + tensor_encoding(weights[name]) for name in sorted(weights)))


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a run executes: relative noise on the block norm's input, bfloat16 storage, and other roundings of ``g``."""

    run_id: str
    noise: float = 0.0
    half: bool = False
    odd_gate: bool = False


@dataclass(frozen=True, slots=True)
class Executed:
    """Native execution of one routed layer on all ``T`` tokens of all windows; ``entering`` is the decoder layer's padded input."""

    z: F32
    r: F32
    g: F32
    derived: npt.NDArray[np.bool_]
    dispatch: F32
    logits: F32
    order: Ints
    weights: F32
    reconstruction_error: float
    entering: F32


@dataclass(frozen=True, slots=True)
class Probe:
    """The windows: ids, clusters, domains, tokens and sampled positions, in order of window id."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    domains: tuple[str, ...]
    texts: tuple[str, ...]
    splits: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]

    @property
    def lengths(self) -> Ints:
        return np.array([len(t) for t in self.tokens], dtype=np.int64)

    @property
    def token_rows(self) -> tuple[list[str], Ints]:
        """Window id and position of every token."""
        ids = [w for w, t in zip(self.ids, self.tokens, strict=True) for _ in t]
        return ids, np.concatenate([np.arange(n) for n in self.lengths])

    @property
    def sampled(self) -> tuple[list[str], Ints, Ints]:
        """Window id and position of every sampled token, and its row among all tokens."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        ids = [w for w, p in zip(self.ids, self.positions, strict=True) for _ in p]
        rows = np.concatenate([start + np.array(p) for start, p in zip(starts, self.positions, strict=True)])
        return ids, np.concatenate([np.array(p) for p in self.positions]), rows.astype(np.int64)


def make_probe(s: Settings) -> Probe:
    """Draw windows; the first clusters of each domain own two windows each."""
    rng = np.random.default_rng([s.seed, 3])
    entries = []
    for domain, count in s.clusters:
        for c in range(count):
            cluster = digest_bytes(f"{s.seed} {domain} {c}".encode())
            for w in range(2 if c < s.double_windows else 1):
                length = int(rng.integers(s.window_tokens[0], s.window_tokens[1] + 1))
                tokens = tuple(int(t) for t in rng.integers(0, VOCABULARY, length))
                entries.append((f"{domain}-{c:03d}-{w}", cluster, domain, tokens))
    entries.sort()
    positions = [tuple(positions_for(token_digest(t), len(t), s.positions, s.first_allowed)) for *_, t in entries]
    ids, clusters, domains, tokens_of = zip(*entries, strict=True)
    texts = tuple(" ".join(f"t{t}" for t in tokens) for tokens in tokens_of)
    splits = tuple("evaluation" if domains[:at].count(d) < s.evaluation else "probe" for at, d in enumerate(domains))
    return Probe(ids, clusters, domains, texts, splits, tokens_of, tuple(positions))


def predicted_bytes(text: str) -> int:
    """Return the bytes of a text from its second token on."""
    return len(text.encode()) - len(text.split(" ")[0]) - 1


def _seeded(*words: int | str) -> np.random.Generator:
    return np.random.default_rng([x for w in words for x in (w.encode() if isinstance(w, str) else [w])])


def execute(s: Settings, probe: Probe, weights: Weights, how: Numerics) -> tuple[dict[int, Executed], F32]:
    """Run the whole model natively; return every routed layer's execution and the next-token logits ``[T, V]``."""
    longest = int(probe.lengths.max())
    valid = np.arange(longest) < probe.lengths[:, None]
    tokens = np.zeros(valid.shape, dtype=np.int64)
    tokens[valid] = np.concatenate([np.array(t) for t in probe.tokens])
    x = weights["embed"][tokens]
    layers = {}
    for i in range(MODEL_LAYERS):
        entering = x.copy()
        x = attended(weights, i, x)
        if how.noise:
            rng = _seeded(s.seed, 4, how.run_id, i)
            x = (x * (1.0 + how.noise * rng.standard_normal(x.shape))).astype(np.float32)
        x = bfloat16(x) if how.half else x.astype(np.float32)
        layers[i], y = _execute_block(s, weights, i, x[valid], entering, how)
        x[valid] = x[valid] + y
    logits = (normalise(x)[0] @ weights["head"].T).astype(np.float32)
    return layers, logits[valid]


def attended(weights: Weights, i: int, x: F32) -> F32:
    """Return a decoder layer's input ``[W, L, d]`` after its own norm and attention: a running mean of what came before."""
    h = normalise(x)[0] * weights[f"layers.{i}.input_norm"]
    mean = (np.cumsum(h, axis=1) / np.arange(1, x.shape[1] + 1)[None, :, None]).astype(np.float32)
    out: F32 = (x + mean @ weights[f"layers.{i}.attention"].T).astype(np.float32)
    return out


def _execute_block(s: Settings, weights: Weights, i: int, x: F32, entering: F32, how: Numerics) -> tuple[Executed, F32]:
    cast = bfloat16 if how.half else (lambda values: values)
    z, r = normalise(x)
    rule = cast(cast(factor(s, weights, i)) * cast(z)).astype(np.float32)
    g = rule.copy()
    if how.odd_gate:
        # Another kernel may round the last bit otherwise; such gate coordinates are stored, not derived.
        odd = _seeded(s.seed, 5, how.run_id, i).random(len(g)) < 0.3
        g[odd, 0] = np.nextafter(g[odd, 0], np.float32(np.inf))
    executed = {name: cast(w) if name.endswith(".router") else w for name, w in weights.items() if f".{i}." in name}
    scores = cast(router_logits(executed, i, g))
    dispatch = selection_scores(s, weights, i, scores)
    order = selection_order(s, dispatch)
    members = order[:, : s.top_k]
    combine = cast(combine_weights(s, scores, members))
    u = np.take_along_axis(updates(weights, i, g), members[:, :, None], axis=1)
    rest = shared_output(weights, i, g)
    y = (np.einsum("tk,tkd->td", combine, u, dtype=np.float32) + rest).astype(np.float32)
    exact = np.einsum("tk,tkd->td", combine.astype(np.float64), u.astype(np.float64)) + rest
    error = float((np.linalg.norm(y - exact, axis=1) / np.linalg.norm(exact, axis=1)).max())
    derived = (g == rule).all(axis=1)
    logits = router_logits(weights, i, g)
    return Executed(z, r, g, derived, dispatch, logits, order, combine, error, entering), y


# --- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Masked:
    """Values with a validity per row."""

    values: Array
    valid: npt.NDArray[np.bool_]


Value = Any
"""What `table` takes per column: an array, `Masked`, a list of lists or of strings, a scalar to repeat, or None."""


def table(name: str, dims: Dims, n: int, columns: Mapping[str, Value]) -> pa.Table:
    """Build an evidence table of ``n`` rows of the declared schema."""
    spec = TABLES[name]
    if set(columns) != {c.name for c in spec.columns}:
        raise ValueError(f"{name}: {sorted(set(columns) ^ {c.name for c in spec.columns})}")
    return pa.table([_arrow(c, dims, columns[c.name], n) for c in spec.columns], schema=spec.arrow_schema(dims))


def _arrow(column: ColumnSpec, dims: Dims, value: Value, n: int) -> pa.Array:
    kind = column.arrow_type(dims)
    if value is None:
        return pa.nulls(n, kind)
    if isinstance(value, str | int | float):
        return pa.array([value] * n, kind)
    if column.type == "str" or column.shape == "*":
        return pa.array(list(value), kind)
    values, valid = (value.values, value.valid) if isinstance(value, Masked) else (np.asarray(value), None)
    dtype = ARROW[column.type].to_pandas_dtype()
    values = np.ascontiguousarray(values, dtype=dtype)
    mask = None if valid is None or valid.all() else ~valid
    if column.shape == "":
        return pa.array(values, kind, mask=mask)
    flat = pa.array(values.reshape(-1), ARROW[column.type])
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=None if mask is None else pa.array(mask))


@dataclass(frozen=True, slots=True)
class _Run:
    """One run and everything computed for it."""

    run_id: str
    arm: SimulatedArm | None
    weights: Weights
    fingerprint: dict[str, Any]
    layers: dict[int, Executed]
    next_token: F32


class _World:
    """Computes runs and turns them into tables."""

    def __init__(self, s: Settings) -> None:
        self.s, self.probe = s, make_probe(s)
        self.dims = Dims(s.d, s.experts, s.top_k, s.positions)
        self._same_state: dict[tuple[int, int], dict[str, Value]] = {}
        base = base_weights(s)
        self.runs = [self._run("base", None, base, Numerics("base"), {})]
        for nuisance in NUISANCES:
            how = Numerics(f"null:{nuisance}", s.noise, nuisance == "dtype", nuisance == "attention")
            key = CHANGES[nuisance]
            self.runs.append(self._run(how.run_id, None, base, how, {key: NULL_VALUES[key]}))
        for arm in s.arms:
            name = f"arm:{arm.name}"
            self.runs.append(self._run(name, arm, arm_weights(s, arm, base), Numerics(name), {}))

    def _run(
        self, run_id: str, arm: SimulatedArm | None, weights: Weights, how: Numerics, changed: dict[str, Any]
    ) -> _Run:
        layers, next_token = execute(self.s, self.probe, weights, how)
        return _Run(run_id, arm, weights, {**FINGERPRINT, **changed}, layers, next_token)

    @property
    def base(self) -> _Run:
        return self.runs[0]

    def tables(self) -> dict[str, pa.Table]:
        """Return every table of the study, rows in key order."""
        made: dict[str, list[pa.Table]] = {name: [] for name in STUDY_TABLES}
        made["window"].append(self._windows())
        for run in sorted(self.runs, key=lambda run: run.run_id):
            made["run"].append(self._run_row(run))
            made["output"].append(self._output(run))
            made["task"].append(self._task(run))
            for i in self.s.protected:
                made["layer"].append(self._layer(run, i))
                made["routing"].append(self._routing(run, i))
                made["state"].append(self._state(run, i))
                if run.run_id != "base":
                    made["update"].append(self._update(run, i))
                    made["update_vector"].append(self._vectors(run, i))
                if not run.run_id.startswith("null:"):
                    made["overlap"].append(self._overlap(run, i))
        empty = {name: TABLES[name].arrow_schema(self.dims).empty_table() for name in STUDY_TABLES}
        return {name: pa.concat_tables([empty[name], *parts]).combine_chunks() for name, parts in made.items()}

    def _run_row(self, run: _Run) -> pa.Table:
        parameters = sum(w.size for w in run.weights.values())
        moved = sum(float(((run.weights[n].astype(np.float64) - w) ** 2).sum()) for n, w in self.base.weights.items())
        total = sum(float((w.astype(np.float64) ** 2).sum()) for w in self.base.weights.values())
        return table("run", self.dims, 1, {
            "run_id": run.run_id, "role": "arm" if run.arm else run.run_id.partition(":")[0],
            "arm": run.arm.name if run.arm else None, "policy": run.arm.policy if run.arm else None,
            "model": f"{run.arm.name if run.arm else 'tiny'} (TinyMoe, {parameters} parameters)",
            "weights_digest": model_digest(run.weights), "config_digest": digest_bytes(b"config"),
            "tokenizer_digest": digest_bytes(b"tokenizer"), "adapter": self.s.adapter,
            "fingerprint": canonical_json(run.fingerprint).decode(), "param_distance": (moved / total) ** 0.5,
        })  # fmt: skip

    def _layer(self, run: _Run, i: int) -> pa.Table:
        s, gate_up = self.s, run.weights[f"layers.{i}.gate_up"]

        def row(name: str) -> F32 | None:
            found = run.weights.get(f"layers.{i}.{name}")
            return None if found is None else found.reshape(1, -1)

        return table("layer", self.dims, 1, {
            "run_id": run.run_id, "layer": i, "d": s.d, "n_experts": s.experts, "top_k": s.top_k,
            "eps": EPS, "norm_kind": "rms", "gain": row("norm"), "gain_convention": s.gain_convention,
            "router_weight": row("router"), "router_bias": row("router_bias"), "selection_bias": row("selection_bias"),
            "score_space": s.score_space, "weight_rule": s.weight_rule, "weight_scale": s.weight_scale,
            "group_mode": s.group_mode, "n_groups": s.n_groups, "kept_groups": s.kept_groups,
            "executed_dtype": run.fingerprint["dtype"], "residual_path": "experts+shared" if s.shared else "experts",
            "w1_kind": "gate_up_stacked", "w1_rank_min": min(int(np.linalg.matrix_rank(w.astype(np.float64))) for w in gate_up),
            "tensor_digests": canonical_json(layer_digests(run.weights, i)).decode(),
            "reconstruction_error": run.layers[i].reconstruction_error,
            "identity_permutation": np.arange(s.experts)[None],
        })  # fmt: skip

    def _windows(self) -> pa.Table:
        p = self.probe
        return table("window", self.dims, len(p.ids), {
            "window_id": p.ids, "cluster_id": p.clusters, "domain": p.domains, "split": p.splits,
            "n_bytes": np.array([len(t.encode()) for t in p.texts]),
            "predicted_bytes": np.array([predicted_bytes(t) for t in p.texts]), "tokens": p.tokens,
            "positions": np.array(p.positions),
        })  # fmt: skip

    def _pairs(self, order: Ints) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        k = self.s.top_k
        has = np.full(len(order), k < self.s.admitted)
        return order[:, k - 1], order[:, k] if k < self.s.admitted else np.zeros(len(order), dtype=np.int64), has

    def _routing(self, run: _Run, i: int) -> pa.Table:
        done = run.layers[i]
        ids, positions = self.probe.token_rows
        leaving, entering, has = self._pairs(done.order)
        at = np.arange(len(ids))
        margin = done.dispatch[at, leaving] - done.dispatch[at, entering]
        flags = ((margin == 0) & has) * 1 + (positions < self.s.first_allowed) * 4
        return table("routing", self.dims, len(ids), {
            "run_id": run.run_id, "layer": i, "window_id": ids, "position": positions,
            "experts": done.order[:, : self.s.top_k], "competitor_in": Masked(entering, has),
            "competitor_out": leaving, "margin": Masked(margin, has),
            "group_margin": None if self.s.group_mode == "none" else group_margins(self.s, done.dispatch), "flags": flags,
        })  # fmt: skip

    def _state(self, run: _Run, i: int) -> pa.Table:
        s, done = self.s, run.layers[i]
        ids, positions, rows = self.probe.sampled
        leaving, entering, has = self._pairs(done.order[rows])
        at = np.arange(len(rows))
        logits = done.logits[rows]
        has = has & (s.score_space == "logit") & (s.group_mode == "none")
        return table("state", self.dims, len(rows), {
            "run_id": run.run_id, "layer": i, "window_id": ids, "position": positions, "z": done.z[rows],
            "r": done.r[rows], "g": Masked(done.g[rows], ~done.derived[rows]), "dispatch": done.dispatch[rows],
            "admissible": None if s.group_mode == "none" else admitted_experts(s, done.dispatch[rows]),
            "weights": done.weights[rows],
            "margin_logit": Masked(logits[at, leaving] - logits[at, entering], has),
        })  # fmt: skip

    def _evaluated(self, run: _Run, i: int) -> dict[str, Value]:
        """Return the same-state columns; runs of the same weights have the same."""
        key = (id(run.weights), i)
        if key not in self._same_state:
            z0 = self.base.layers[i].z[self.probe.sampled[2]]
            self._same_state[key] = same_state_columns(self.s, self.base.weights, run.weights, i, z0)
        return self._same_state[key]

    def _update(self, run: _Run, i: int) -> pa.Table:
        ids, positions, rows = self.probe.sampled
        columns = {name: v for name, v in self._evaluated(run, i).items() if name not in ("v0", "v1")}
        angle = self._transported(run, i)[rows] if run.arm else None
        return table("update", self.dims, len(rows), {
            "run_id": run.run_id, "layer": i, "window_id": ids, "position": positions, "transport_angle": angle, **columns,
        })  # fmt: skip

    def _transported(self, run: _Run, i: int) -> F64:
        """Return, per token, the angle over pi between the base's state and the one that the run makes of the same input."""
        base = self.base.layers[i]
        longest = int(self.probe.lengths.max())
        valid = np.arange(longest) < self.probe.lengths[:, None]
        z = normalise(attended(run.weights, i, base.entering).astype(np.float32)[valid])[0].astype(np.float64)
        z0 = base.z.astype(np.float64)
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (z0, z))
        out: F64 = 2.0 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)) / np.pi
        return out

    def _vectors(self, run: _Run, i: int) -> pa.Table:
        ids, positions, _ = self.probe.sampled
        split = dict(zip(self.probe.ids, self.probe.splits, strict=True))
        kept = [at for at, w in enumerate(ids) if split[w] == "evaluation"]
        columns = self._evaluated(run, i)
        return table("update_vector", self.dims, len(kept), {
            "run_id": run.run_id, "layer": i, "window_id": [ids[at] for at in kept], "position": positions[kept],
            "v0": [columns["v0"][at] for at in kept], "v1": [columns["v1"][at] for at in kept],
        })  # fmt: skip

    def _overlap(self, run: _Run, i: int) -> pa.Table:
        z0 = self.base.layers[i].z[self.probe.sampled[2]]
        rows = overlap_rows(self.s, self.base.weights, run.weights, i, z0)
        columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
        spec = TABLES["overlap"].arrow_schema(self.dims)
        return (
            pa.table({"run_id": [run.run_id] * len(rows), "layer": [i] * len(rows), **columns}, schema=spec)
            if rows
            else spec.empty_table()
        )

    def _output(self, run: _Run) -> pa.Table:
        ids, positions = self.probe.token_rows
        predicts = positions < np.repeat(self.probe.lengths, self.probe.lengths) - 1
        scores, logits = log_softmax(run.next_token[predicts]), run.next_token[predicts]
        base = log_softmax(self.base.next_token[predicts])
        target = np.concatenate([np.array(t[1:]) for t in self.probe.tokens])
        kl = (np.exp(base.astype(np.float64)) * (base.astype(np.float64) - scores)).sum(axis=1) if run.arm else None
        return table("output", self.dims, len(target), {
            "run_id": run.run_id, "window_id": [w for w, p in zip(ids, predicts, strict=True) if p],
            "position": positions[predicts], "nll": -scores[np.arange(len(target)), target],
            "top1": logits.argmax(axis=1), "entropy": -(np.exp(scores) * scores).sum(axis=1), "kl_from_base": kl,
        })  # fmt: skip

    def _task(self, run: _Run) -> pa.Table:
        s = self.s
        easy = np.argsort(np.random.default_rng([s.seed, 6]).random(s.items))
        score = np.zeros(s.items)
        score[easy[: round((run.arm.success if run.arm else 0.2) * s.items)]] = 1.0
        return table("task", self.dims, s.items, {"run_id": run.run_id, "item_id": item_names(s), "score": score})


def item_names(s: Settings) -> list[str]:
    return [f"item-{i:04d}" for i in range(s.items)]


def log_softmax(logits: F32) -> F32:
    """Return float32 log-probabilities ``[T, V]``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    out: F32 = (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)
    return out


def same_state_columns(s: Settings, base: Weights, arm: Weights, i: int, z0: F32) -> dict[str, Value]:
    """Evaluate both models at the base's states ``[N, d]``: the columns of table `update` but the key, and ``v0``, ``v1``."""
    k = s.top_k
    g0, g1 = ((factor(s, weights, i) * z0).astype(np.float32) for weights in (base, arm))
    logits0, logits1 = router_logits(base, i, g0), router_logits(arm, i, g1)
    dispatch0, dispatch1 = selection_scores(s, base, i, logits0), selection_scores(s, arm, i, logits1)
    order0, order1 = selection_order(s, dispatch0), selection_order(s, dispatch1)
    rho0, rho1 = combine_weights(s, logits0, order0[:, :k]), combine_weights(s, logits1, order1[:, :k])
    forced = combine_weights(s, logits1, order0[:, :k])
    u0, u1 = updates(base, i, g0).astype(np.float64), updates(arm, i, g1).astype(np.float64)
    rest0, rest1 = (shared_output(w, i, g).astype(np.float64) for w, g in ((base, g0), (arm, g1)))
    columns: dict[str, list[Any]] = {}
    for t in range(len(z0)):
        set0, set1 = order0[t, :k], order1[t, :k]
        listed = np.array(sorted({*set0.tolist(), *set1.tolist(), *order0[t, : k + (k < s.admitted)].tolist()}))
        z = z0[t].astype(np.float64)
        full0, full1 = np.zeros(s.experts), np.zeros(s.experts)
        full0[set0], full1[set1] = rho0[t], rho1[t]
        a, b = u0[t, listed], u1[t, listed]
        v0, v1 = a - np.outer(a @ z, z) / s.d, b - np.outer(b @ z, z) / s.d
        vectors = np.concatenate([v0, v1 - v0])
        w0, w1 = full0[listed], full1[listed]
        y0, y1 = w0 @ a + rest0[t], w1 @ b + rest1[t]
        row = {
            "experts": listed, "in0": _bits(listed, set0), "in1": _bits(listed, set1), "rho0": w0, "rho1": w1,
            "uz0": a @ z, "uu0": (a * a).sum(axis=1), "uz1": b @ z, "uu1": (b * b).sum(axis=1),
            "gram": (vectors @ vectors.T)[np.triu_indices(len(vectors))],
            "dV_norm": float(np.linalg.norm(w1 @ v1 - w0 @ v0)),
            "y0_norm": float(np.linalg.norm(y0)), "dy_norm": float(np.linalg.norm(y1 - y0)),
            "v0": v0.reshape(-1).astype(np.float32), "v1": v1.reshape(-1).astype(np.float32),
        }  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    has = np.full(len(z0), k < s.admitted)
    entering = order0[:, k] if k < s.admitted else np.zeros(len(z0), dtype=np.int64)
    return {
        **columns, "pair_out": order0[:, k - 1], "pair_in": Masked(entering, has), "rho0_b": rho0[:, k - 1],
        "rho1_b_forced": forced[:, k - 1], "dispatch0": dispatch0, "dispatch1": dispatch1,
    }  # fmt: skip


def overlap_rows(s: Settings, base: Weights, run: Weights, i: int, z0: F32) -> list[dict[str, Any]]:
    """Return the overlap maps of one run: the pairs most visited by the base's same-state sets."""
    g = (factor(s, base, i) * z0).astype(np.float32)
    order = selection_order(s, selection_scores(s, base, i, router_logits(base, i, g)))
    together = np.zeros((s.experts, s.experts), dtype=np.int64)
    for members in order[:, : s.top_k]:
        for a in members:
            together[a, members[members != a]] += 1
    pairs = [(a, b) for a in range(s.experts) for b in range(s.experts) if a != b]
    chosen = sorted(sorted(pairs, key=lambda p: (-together[p], p))[: s.overlap_pairs])
    first, now = (w[f"layers.{i}.gate_up"].astype(np.float64) for w in (base, run))
    rows = []
    for a, b in chosen:
        visits = (order[:, : s.top_k] == a).any(axis=1) & (order[:, : s.top_k] == b).any(axis=1)
        seen = g[visits].astype(np.float64)
        t0, t1 = (w[b] @ np.linalg.pinv(w[a]) for w in (first, now))
        target, from_a, from_a0 = seen @ now[b].T, seen @ now[a].T, seen @ first[a].T
        rank = min(int(np.linalg.matrix_rank(now[e])) for e in (a, b))
        spectrum = np.linalg.eigvals(np.linalg.pinv(now[a].T @ now[a]) @ (now[b].T @ now[b])).real
        moved = from_a0 @ t1.T - from_a0 @ t0.T

        def length(vectors: F64) -> float:
            return float(np.linalg.norm(vectors, axis=1).sum())

        rows.append({
            "expert_a": a, "expert_b": b, "visits": int(visits.sum()), "rank": rank,
            "cond": float(np.sqrt(spectrum.max() / spectrum.min())) if rank == s.d else None,
            "residual": length(target - from_a @ t1.T) / length(target) if visits.any() else 0.0,
            "drift_num": length(moved), "drift_den": length(from_a0 @ t0.T),
        })  # fmt: skip
    return rows


def _bits(listed: Ints, members: Ints) -> int:
    return sum(1 << int(place) for place in np.searchsorted(listed, members))


# --- documents ----------------------------------------------------------------------------------------------------


def contract_json(s: Settings) -> dict[str, Any]:
    """Return the contract of a simulated study as JSON."""
    bootstrap = {
        "resamples": 1000, "alpha": 0.025, "batches": 20, "monte_carlo_errors": 4.0, "min_clusters": 50,
        "min_clusters_per_stratum": 5, "rare_event_clusters": 10, "rare_event_resolution": 1e-6,
        "rationale": "small enough for tests", **s.bootstrap,
    }  # fmt: skip
    return {
        "kind": "contract", "schema_version": "1.0", "id": "simulated.v1", "title": "A contract for simulated studies",
        "channels": [
            {"definition": definition, "rationale": "a round number",
             "thresholds": [{"form": form, "value": value} for form, value in forms.items()]}
            for definition, forms in s.thresholds.items()
        ],
        "nuisances": [{"id": n, "changes": CHANGES[n], "rationale": "other arithmetic"} for n in NUISANCES],
        "max_missing_competitor_share": 0.05, "min_positions_per_window": 1, "bootstrap": bootstrap,
        "tolerances": {"float32_unit": 2.0**-24, "accumulation": 4, "float64_relative": 1e-9, "reconstruction": 1e-3,
                       "rationale": "the arithmetic of the simulator"},
        "numbers": {"significant_digits": 9, "relative_tolerance": 1e-12, "rationale": "more than anyone reads"},
        "damage": {"definition": "damage.delta_nll/1", "max_tolerance_nats": 0.1, "rationale": "a round number"},
        "success": {"definition": "success.mean_score/1", "max_tolerance": 0.2, "min_items": 50,
                    "rationale": "a round number"},
        "occupancy": {"min_effective_ratio": 0.8, "max_lost_experts": 0, "rarefied_tokens": 100,
                      "rationale": "round numbers"},
        "notes": "for tests",
    }  # fmt: skip


def preregistration_json(s: Settings, contract: Contract, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the pre-registration of a simulated study as JSON."""
    probe = make_probe(s)
    runs, layers, windows = 1 + len(NUISANCES) + len(s.arms), len(s.protected), len(probe.ids)
    tokens, evaluated = int(probe.lengths.sum()), probe.splits.count("evaluation")
    expected = {
        "run": runs, "layer": runs * layers, "window": windows, "routing": runs * layers * tokens,
        "state": runs * layers * windows * s.positions, "update": (runs - 1) * layers * windows * s.positions,
        "update_vector": (runs - 1) * layers * evaluated * s.positions, "output": runs * (tokens - windows),
        "task": runs * s.items, "overlap": (1 + len(s.arms)) * layers * s.overlap_pairs,
    }  # fmt: skip
    return {
        "kind": "preregistration", "schema_version": "1.0", "study": "simulated", "created": "2026-01-01T00:00:00Z",
        "contract": {"id": contract.id, "digest": digest_document(contract.model_dump(mode="json"))},
        "base": {"name": "tiny", "architecture": s.adapter, "weights_digest": model_digest(base_weights(s)),
                 "config_digest": digest_bytes(b"config"), "tokenizer_digest": digest_bytes(b"tokenizer")},
        "protected_layers": list(s.protected), "positions_per_window": s.positions,
        "first_allowed_position": s.first_allowed, "overlap_pairs": s.overlap_pairs,
        "probe": {"file": "windows.jsonl", "digest": digest_bytes(files["windows.jsonl"].encode())},
        "windows": [
            {"window_id": w, "cluster_id": c, "domain": d, "split": split, "n_bytes": len(text.encode()),
             "predicted_bytes": predicted_bytes(text), "n_tokens": len(t), "token_digest": token_digest(t)}
            for w, c, d, text, split, t in zip(
                probe.ids, probe.clusters, probe.domains, probe.texts, probe.splits, probe.tokens, strict=True)
        ],
        "damage_tolerance_nats": s.damage_tolerance_nats,
        "task": {"file": "task.jsonl", "digest": digest_bytes(files["task.jsonl"].encode()), "scoring": "greedy_exact",
                 "target": s.target, "tolerance": s.tolerance,
                 "items": [{"item_id": name, "digest": item_digest([i], [i + 1])}
                           for i, name in enumerate(item_names(s))]},
        "arms": [{"name": a.name, "policy": a.policy, "chart_preserving": a.chart_preserving} for a in s.arms],
        "pilot": None, "expected_rows": expected, "notes": "simulated",
    }  # fmt: skip


def probe_files(s: Settings) -> dict[str, str]:
    """Return the texts of the probe and task files."""
    probe = make_probe(s)
    windows = [
        {
            "window_id": w,
            "cluster_id": c,
            "domain": d,
            "split": split,
            "source": "simulated",
            "licence": "CC0-1.0",
            "text": text,
        }
        for w, c, d, split, text in zip(
            probe.ids, probe.clusters, probe.domains, probe.splits, probe.texts, strict=True
        )
    ]
    items = [{"item_id": name, "prompt": f"t{i}", "answer": f"t{i + 1}"} for i, name in enumerate(item_names(s))]
    return {
        "windows.jsonl": "".join(json.dumps(row) + "\n" for row in windows),
        "task.jsonl": "".join(json.dumps(row) + "\n" for row in items),
    }


def make_log(preregistration: Preregistration, root: str, since: str = "2026-01-01T00:00:00Z") -> RunLog:
    """Return the run log of a study that was declared, then extracted, not before a time."""
    declared = digest_document(preregistration.model_dump(mode="json"))
    plan = preregistration
    inputs = {"base": plan.base.weights_digest, "contract": plan.contract.digest, "probe": plan.probe.digest,
              "task": plan.task.digest}  # fmt: skip
    times = [max(time, since) for time in ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")]
    first = make_step(None, "declare", "technician", times[0], inputs, {"preregistration": declared})
    second = make_step(first, "extract", "automation", times[1], {"preregistration": declared},
                       {"evidence": root})  # fmt: skip
    return RunLog(kind="run_log", schema_version="1.0", steps=(first, second))


def make_step(
    before: Step | None, name: str, actor: str, time: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> Step:
    """Return a step chained to the one before."""
    step = Step.model_validate({
        "index": before.index + 1 if before else 0, "step": name, "actor": actor, "tool": "simulator", "time": time,
        "inputs": tuple(Artefact(name=n, digest=d) for n, d in sorted(inputs.items())),
        "outputs": tuple(Artefact(name=n, digest=d) for n, d in sorted(outputs.items())),
        "previous": before.hash if before else None, "hash": "sha256:" + "0" * 64,
    })  # fmt: skip
    return step.model_copy(update={"hash": step_hash(step)})


# --- the study ----------------------------------------------------------------------------------------------------


class MemorySource:
    """An `EvidenceSource` over Arrow tables in memory."""

    def __init__(self, tables: Mapping[str, pa.Table], dims: Dims) -> None:
        self.dims = dims
        self._tables = tables
        self._rows: dict[str, Rows] = {}
        self._index: dict[str, dict[Partition, list[int]]] = {}

    def _load(self, name: str) -> tuple[Rows, dict[Partition, list[int]]]:
        if name not in self._rows:
            rows = from_arrow(TABLES[name], self.dims, self._tables[name])
            keys = [rows[column].tolist() for column in TABLES[name].partition]
            index: dict[Partition, list[int]] = {}
            for at in range(rows.n):
                index.setdefault(tuple(key[at] for key in keys), []).append(at)
            self._rows[name], self._index[name] = rows, index
        return self._rows[name], self._index[name]

    def partitions(self, table: str) -> list[Partition]:
        return sorted(self._load(table)[1])

    def read(self, table: str, partition: Partition) -> Rows:
        rows, index = self._load(table)
        found = [at for key, part in sorted(index.items()) if key[: len(partition)] == partition for at in part]
        return rows.take(np.array(found, dtype=np.int64))

    def blocks(self, wanted: Sequence[tuple[str, Partition]]) -> Iterator[tuple[Rows, ...]]:
        return whole(self, wanted)


@dataclass(frozen=True)
class StudySimulator:
    """A study: settings, tables, documents. Methods named ``with_...`` return a changed copy; nothing else changes."""

    settings: Settings
    tables: dict[str, pa.Table]
    contract: Contract
    preregistration: Preregistration
    run_log: RunLog
    files: dict[str, str]

    @classmethod
    def make(cls, settings: Settings | None = None) -> StudySimulator:
        """Simulate a study."""
        s = settings or Settings()
        files = probe_files(s)
        contract = Contract.model_validate_json(json.dumps(contract_json(s)))
        plan = Preregistration.model_validate_json(json.dumps(preregistration_json(s, contract, files)))
        tables = _World(s).tables()
        dims = Dims(s.d, s.experts, s.top_k, s.positions)
        root = evidence_root(table_roots(MemorySource(tables, dims)))
        return cls(s, tables, contract, plan, make_log(plan, root), files)

    @property
    def dims(self) -> Dims:
        return Dims(self.settings.d, self.settings.experts, self.settings.top_k, self.settings.positions)

    def source(self) -> MemorySource:
        """Return the evidence for reading."""
        return MemorySource(self.tables, self.dims)

    def counts(self) -> dict[str, int]:
        """Return the rows of every table."""
        return {name: table.num_rows for name, table in self.tables.items()}

    def evidence_root(self) -> str:
        return evidence_root(table_roots(self.source()))

    def preregistration_digest(self) -> str:
        return digest_document(self.preregistration.model_dump(mode="json"))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return rows as plain dictionaries."""
        found: list[dict[str, Any]] = self.tables[table].to_pylist()
        return found

    def find(self, table: str, **key: str | int) -> int:
        """Return the position of the first row with these values."""
        for at, row in enumerate(self.tables[table].select(list(key)).to_pylist()):
            if row == key:
                return at
        raise KeyError(f"{table} has no row {key}")

    # changes

    def with_table(self, table: str, rows: pa.Table) -> StudySimulator:
        return replace(self, tables={**self.tables, table: rows})

    def with_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> StudySimulator:
        """Replace all rows of a table by dictionaries."""
        schema = TABLES[table].arrow_schema(self.dims)
        return self.with_table(table, pa.Table.from_pylist([dict(row) for row in rows], schema=schema))

    def with_value(self, table: str, row: int, column: str, value: Any) -> StudySimulator:
        """Replace one value."""
        at = self.tables[table].schema.get_field_index(column)
        values = self.tables[table].column(column).to_pylist()
        values[row] = value
        schema = TABLES[table].arrow_schema(self.dims)
        changed = self.tables[table].set_column(at, schema.field(column), pa.array(values, schema.field(column).type))
        return self.with_table(table, changed.cast(schema))

    def without_row(self, table: str, row: int) -> StudySimulator:
        keep = np.arange(self.tables[table].num_rows) != row
        return self.with_table(table, self.tables[table].filter(pa.array(keep)))

    def with_contract(self, changes: Mapping[str, Any], *, relink: bool = True) -> StudySimulator:
        """Merge changes into the contract; with ``relink`` the pre-registration and the log cite the new one."""
        made = Contract.model_validate_json(json.dumps(merged(self.contract.model_dump(mode="json"), changes)))
        changed = replace(self, contract=made)
        if not relink:
            return changed
        digest = digest_document(made.model_dump(mode="json"))
        return changed.with_preregistration({"contract": {"id": made.id, "digest": digest}})

    def with_preregistration(self, changes: Mapping[str, Any], *, relink: bool = True) -> StudySimulator:
        """Merge changes into the pre-registration; with ``relink`` the log is written anew for it."""
        old = self.preregistration.model_dump(mode="json")
        made = Preregistration.model_validate_json(json.dumps(merged(old, changes)))
        log = make_log(made, self.evidence_root()) if relink else self.run_log
        return replace(self, preregistration=made, run_log=log)

    def with_run_log(self, log: RunLog) -> StudySimulator:
        return replace(self, run_log=log)

    def relogged(self) -> StudySimulator:
        """Return the study with a run log that cites the evidence and the pre-registration as they are now."""
        return replace(self, run_log=make_log(self.preregistration, self.evidence_root()))

    # on disk

    def store(self, path: Path) -> EvidenceStore:
        """Write the evidence into a new store and return it open."""
        store = EvidenceStore.open(path, preregistration_digest=self.preregistration_digest(), dims=self.dims)
        with store.transaction():
            for name in STUDY_TABLES:
                store.append(name, self.tables[name])
        return store

    def issue(self, folder: Path, arm: str) -> Path:
        """Issue the receipt of one arm into a folder that `write` made, extend its log, and return the receipt's path."""
        from atlas_schema.study.issue import issue

        log, target = folder / "run_log.json", folder / f"receipt-{arm}.json"
        steps = read_document(log, RunLog, "run log")
        issue(self.source(), self.preregistration, self.contract, log, steps, arm, target)
        return target

    def write(self, folder: Path) -> Path:
        """Write a complete study folder, without a receipt, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        documents = {"contract": self.contract, "preregistration": self.preregistration, "run_log": self.run_log}
        for name, document in documents.items():
            (folder / f"{name}.json").write_text(document_text(document), encoding="utf-8")
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        with tempfile.TemporaryDirectory() as scratch, self.store(Path(scratch) / "evidence.duckdb") as store:
            export_bundle(store, folder / "evidence")
        return folder


def merged(value: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with changes merged in: objects member by member, anything else replaced."""
    out = dict(value)
    for name, change in changes.items():
        inner = out.get(name)
        out[name] = merged(inner, change) if isinstance(change, Mapping) and isinstance(inner, dict) else change
    return out


@cache
def default_study() -> StudySimulator:
    """The default world, made once per process."""
    return StudySimulator.make()


@cache
def small_study() -> StudySimulator:
    """The smaller world of `small`, made once per process."""
    return StudySimulator.make(small())
