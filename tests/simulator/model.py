"""The tiny model: its parameters, an arm's, their digests, and one native run over all windows.

Three decoder layers, each a running mean as attention and a routed block. Equal settings give equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlas_schema.canonical import digest_bytes
from simulator.arithmetic import (
    F32,
    Ints,
    Weights,
    bfloat16,
    combine_weights,
    factor,
    normalise,
    router_logits,
    selection_order,
    selection_scores,
    shared_output,
    updates,
)
from simulator.probe import Probe
from simulator.settings import MODEL_LAYERS, VOCABULARY, Settings, SimulatedArm


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


# --- digests ------------------------------------------------------------------------------------------------------


def tensor_encoding(values: F32) -> bytes:
    """Return tag, number of dimensions, dimensions and row-major little-endian float32 values."""
    shape = struct.pack(f"<{values.ndim + 1}I", values.ndim, *values.shape)
    return b"atlas-tensor/1\0" + shape + np.ascontiguousarray(values, dtype="<f4").tobytes()


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


# --- a run --------------------------------------------------------------------------------------------------------


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
