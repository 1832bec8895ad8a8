"""Evidence rows: what was captured and evaluated, as Arrow tables of the declared schemas.

`docs/format.md` lists the columns. Building is vectorised; nothing here decides what a number means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from atlas_extractors.models.adapters import RoutedLayer, ranked
from atlas_extractors.models.families import GroupMode
from atlas_extractors.routing.capture import LayerCapture
from atlas_extractors.routing.evaluator import SameState
from atlas_schema.canonical import canonical_json
from atlas_schema.errors import AtlasError
from atlas_schema.evidence.tables import ARROW, TABLES, ColumnSpec, Dims

NUMPY: dict[str, Any] = {
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "f32": np.float32, "f64": np.float64, "bool": np.bool_
}  # fmt: skip

TIE = 1  # the pair's scores are equal
SATURATED = 2  # the executed set is not the top-k of the logits
MASKED = 4  # the position is excluded by the token mask

SCORES_AT_A_TIME = 2**18  # of the vocabulary, float32: a megabyte
MASK_BITS = 32  # width of the set bitmasks `in0` and `in1`


@dataclass(frozen=True, slots=True)
class Ragged:
    """A variable list per row: concatenated values and per-row lengths."""

    values: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Nullable:
    """Values with a validity per row; what stands behind an invalid row does not count."""

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]


Value = str | int | float | None | Sequence[str] | npt.NDArray[Any] | Tensor | Ragged | Nullable


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch of windows of equal length: ids `[B]`, tokens `[B, S]`, sampled positions `[B, P]`."""

    ids: tuple[str, ...]
    tokens: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]

    @property
    def sampled(self) -> npt.NDArray[np.int64]:
        """Flat row of each sampled position among the `B * S` tokens, `[B * P]`."""
        starts = np.arange(len(self.ids))[:, None] * self.tokens.shape[1]
        flat: npt.NDArray[np.int64] = (starts + self.positions).reshape(-1)
        return flat

    def sampled_keys(self) -> dict[str, Value]:
        """`window_id` and `position` of the sampled rows."""
        return {
            "window_id": np.repeat(np.array(self.ids, dtype=object), self.positions.shape[1]),
            "position": self.positions.reshape(-1),
        }

    def token_keys(self, length: int) -> dict[str, Value]:
        """`window_id` and `position` of the first `length` tokens of every window."""
        return {
            "window_id": np.repeat(np.array(self.ids, dtype=object), length),
            "position": np.tile(np.arange(length), len(self.ids)),
        }


def build(name: str, dims: Dims, n: int, columns: Mapping[str, Value]) -> pa.Table:
    """A table of `n` rows in the declared column order; scalars are repeated, `None` is null everywhere.

    Raises:
        ValueError: columns are missing or extra, or null where the declaration allows none.
    """
    spec = TABLES[name]
    declared = [column.name for column in spec.columns]
    if set(declared) != set(columns):
        raise ValueError(f"table {name}: columns {sorted(set(declared) ^ set(columns))} do not match the declaration")
    schema = spec.arrow_schema(dims)
    arrays = [_array(column, dims, columns[column.name], n) for column in spec.columns]
    return pa.table(arrays, schema=schema)


def _array(column: ColumnSpec, dims: Dims, value: Value, n: int) -> pa.Array:
    kind = column.arrow_type(dims)
    if value is None:
        if not column.nullable:
            raise ValueError(f"column {column.name} may not be null")
        return pa.nulls(n, kind)
    if isinstance(value, str | int | float):
        return pa.repeat(pa.scalar(value, kind), n)
    if column.type == "str":
        return pa.array(list(value), kind)  # type: ignore[arg-type]
    if isinstance(value, Ragged):
        offsets = np.concatenate([[0], np.cumsum(value.lengths)]).astype(np.int32)
        flat = pa.array(value.values.astype(NUMPY[column.type]), ARROW[column.type])
        return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)
    valid = value.valid if isinstance(value, Nullable) else None
    values = value.values if isinstance(value, Nullable) else _numpy(value)
    values = np.ascontiguousarray(values).astype(NUMPY[column.type], copy=False)
    invalid = None if valid is None or valid.all() else ~valid
    if column.shape == "":
        return pa.array(values, kind, mask=invalid)
    flat = pa.array(values.reshape(-1), ARROW[column.type])
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=None if invalid is None else pa.array(invalid))


def _numpy(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()  # type: ignore[no-any-return]
    return np.asarray(value)


@dataclass(frozen=True, slots=True)
class Executed:
    """Executed routing of `N` tokens in canonical order: experts by descending dispatch, ties to the lower id.

    experts and weights `[N, k]`; dispatch `[N, E]` widened to float32; pair_out, pair_in `[N]` (-1: no competitor);
    margin `[N]`; tie and saturated `[N]`; admissible `[N, E]` and group_margin `[N]` where a group limit acts.
    """

    experts: Tensor
    weights: Tensor
    dispatch: Tensor
    pair_out: Tensor
    pair_in: Tensor
    margin: Tensor
    tie: Tensor
    saturated: Tensor
    admissible: Tensor | None
    group_margin: Tensor | None


def executed_routing(captured: LayerCapture, live: RoutedLayer) -> Executed:
    """Order the executed set by the executed scores and find its competitors."""
    routing = live.route_logits(captured.logits, forced=captured.experts)
    dispatch = routing.dispatch.to(torch.float32)
    scores = dispatch if live.row.monotone else routing.selection.to(torch.float32)
    n_experts, k = dispatch.shape[1], captured.experts.shape[1]
    inside = torch.zeros_like(dispatch, dtype=torch.bool).scatter_(1, captured.experts, True)
    # One stable sort puts members first by score, then the others by score; equal scores keep ascending id.
    by_score = ranked(scores)
    members_first = torch.sort((~inside).gather(1, by_score).to(torch.int8), dim=1, stable=True).indices
    order = by_score.gather(1, members_first)
    experts = order[:, :k]
    slot = (captured.experts.unsqueeze(1) == experts.unsqueeze(2)).int().argmax(dim=2)
    pair_out = experts[:, k - 1]
    pair_in = torch.full_like(pair_out, -1)
    if k < n_experts:
        none_left = torch.isneginf(scores.gather(1, order[:, k : k + 1])).squeeze(1)
        pair_in = order[:, k].masked_fill(none_left, -1)
    lowest = dispatch.gather(1, pair_out.unsqueeze(1)).squeeze(1)
    highest = dispatch.gather(1, pair_in.clamp_min(0).unsqueeze(1)).squeeze(1)
    raw = torch.where(pair_in >= 0, lowest - highest, torch.zeros_like(lowest))
    return Executed(
        experts=experts,
        weights=captured.weights.gather(1, slot),
        dispatch=dispatch,
        pair_out=pair_out,
        pair_in=pair_in,
        margin=raw.clamp_min(0.0),
        tie=(raw == 0) & (pair_in >= 0),
        saturated=raw < 0,
        admissible=None if live.group_mode is GroupMode.NONE else ~torch.isneginf(routing.selection),
        group_margin=routing.group_margin,
    )


def routing_rows(
    run_id: str, layer: int, dims: Dims, windows: Windows, executed: Executed, *, first_allowed: int
) -> pa.Table:
    """Table `routing`: one row per token of every window."""
    length = windows.tokens.shape[1]
    masked = torch.arange(length).repeat(len(windows.ids)) < first_allowed
    flags = executed.tie.int() * TIE + executed.saturated.int() * SATURATED + masked.int() * MASKED
    has_pair = _numpy(executed.pair_in >= 0)
    return build("routing", dims, len(windows.ids) * length, {
        "run_id": run_id, "layer": layer, **windows.token_keys(length),
        "experts": executed.experts,
        "competitor_in": Nullable(_numpy(executed.pair_in.clamp_min(0)), has_pair),
        "competitor_out": executed.pair_out,
        "margin": Nullable(_numpy(executed.margin), has_pair),
        "group_margin": executed.group_margin, "flags": flags,
    })  # fmt: skip


def state_rows(
    run_id: str, layer: int, dims: Dims, windows: Windows, captured: LayerCapture, executed: Executed,
    live: RoutedLayer, stored: RoutedLayer,
) -> pa.Table:  # fmt: skip
    """Table `state` at the sampled positions. `g` is null where the declared rule gives it bit for bit.

    `margin_logit`: the executed pair on float32 logits from `g` and the stored router map, signed.
    """
    rows = torch.from_numpy(windows.sampled)
    z, r = live.normalise(captured.x[rows])
    g = captured.g[rows]
    derived = _numpy((live.gate(z) == g).all(dim=1))
    logits = stored.logits(g.to(torch.float32))
    out, into = executed.pair_out[rows].unsqueeze(1), executed.pair_in[rows].unsqueeze(1)
    margin = (logits.gather(1, out) - logits.gather(1, into.clamp_min(0))).squeeze(1)
    monotone = stored.row.monotone
    return build("state", dims, len(rows), {
        "run_id": run_id, "layer": layer, **windows.sampled_keys(),
        "z": z, "r": r, "g": Nullable(_numpy(g), ~derived), "dispatch": executed.dispatch[rows],
        "admissible": None if executed.admissible is None else executed.admissible[rows], "weights": executed.weights[rows],
        "margin_logit": Nullable(_numpy(margin), _numpy(into.squeeze(1) >= 0)) if monotone else None,
    })  # fmt: skip


def update_rows(
    run_id: str, layer: int, dims: Dims, windows: Windows, same: SameState, angles: Tensor | None = None
) -> pa.Table:
    """Table `update` at the sampled positions: same-state evaluation of base and arm, and transport angles `[B * P]`.

    Raises:
        AtlasError: a token has more experts than the set bitmasks have bits.
    """
    if int(same.lengths.max()) > MASK_BITS:
        raise AtlasError(
            "the union of both routed sets does not fit the set bitmasks", where=f"{run_id}, layer {layer}",
            expected=f"at most {MASK_BITS} experts", found=str(int(same.lengths.max())),
            todo=f"this evidence format holds at most {MASK_BITS} experts in the union of two sets and a competitor",
        )  # fmt: skip
    used = same.experts >= 0
    lengths = _numpy(same.lengths).astype(np.int64)

    def listed(values: Tensor) -> Ragged:
        return Ragged(_numpy(values[used]), lengths)

    gram, sizes = same.packed_gram()
    return build("update", dims, len(lengths), {
        "run_id": run_id, "layer": layer, **windows.sampled_keys(),
        "experts": listed(same.experts), "in0": same.in0, "in1": same.in1, "pair_out": same.pair_out,
        "pair_in": Nullable(_numpy(same.pair_in.clamp_min(0)), _numpy(same.pair_in >= 0)),
        "rho0": listed(same.rho0), "rho1": listed(same.rho1),
        "rho0_b": same.rho0_b, "rho1_b_forced": same.rho1_b_forced,
        "dispatch0": same.dispatch0, "dispatch1": same.dispatch1,
        "uz0": listed(same.uz0), "uu0": listed(same.uu0), "uz1": listed(same.uz1), "uu1": listed(same.uu1),
        "gram": Ragged(_numpy(gram), _numpy(sizes).astype(np.int64)),
        "dV_norm": same.dV_norm, "y0_norm": same.y0_norm, "dy_norm": same.dy_norm, "transport_angle": angles,
    })  # fmt: skip


def vector_rows(
    run_id: str, layer: int, dims: Dims, windows: Windows, same: SameState, chosen: npt.NDArray[np.bool_]
) -> pa.Table:
    """Table `update_vector`: the vectors themselves, one expert after another, for the windows marked in `chosen` `[B]`."""
    wanted = np.repeat(chosen, windows.positions.shape[1])
    used = (same.experts >= 0) & torch.from_numpy(wanted).unsqueeze(1)
    lengths = _numpy(same.lengths).astype(np.int64)[wanted] * dims.d
    keys = windows.sampled_keys()
    return build("update_vector", dims, int(wanted.sum()), {
        "run_id": run_id, "layer": layer,
        "window_id": np.asarray(keys["window_id"])[wanted], "position": np.asarray(keys["position"])[wanted],
        "v0": Ragged(_numpy(same.v0[used]).reshape(-1), lengths), "v1": Ragged(_numpy(same.v1[used]).reshape(-1), lengths),
    })  # fmt: skip


def output_rows(run_id: str, dims: Dims, windows: Windows, logits: Tensor, base: Tensor | None = None) -> pa.Table:
    """Table `output` from logits `[B, S, V]`: position p predicts token p + 1. Nats, float32.

    `base` `[B, S, V]`: the base's logits, for `kl_from_base`, summed over the vocabulary in float64.
    """
    length = windows.tokens.shape[1] - 1
    step = max(1, SCORES_AT_A_TIME // logits.shape[-1])
    found: list[tuple[Tensor, ...]] = []
    for window in range(len(windows.ids)):
        for start in range(0, length, step):
            part = slice(start, min(start + step, length))
            target = torch.from_numpy(windows.tokens[window, part.start + 1 : part.stop + 1])
            reference = None if base is None else base[window, part]
            found.append(_outputs(logits[window, part], target.to(logits.device), reference))
    nll, top1, entropy, *divergence = (torch.cat(column) for column in zip(*found, strict=True))
    return build("output", dims, len(windows.ids) * length, {
        "run_id": run_id, **windows.token_keys(length), "nll": nll, "top1": top1, "entropy": entropy,
        "kl_from_base": divergence[0] if divergence else None,
    })  # fmt: skip


def _outputs(logits: Tensor, target: Tensor, base: Tensor | None) -> tuple[Tensor, ...]:
    """Loss of the target, most likely token, entropy and, with the base's logits, divergence from it; rows `[n, V]`."""
    scores = torch.log_softmax(logits.to(torch.float32), dim=-1)
    loss = -scores.gather(1, target.unsqueeze(1)).squeeze(1)
    # In place and on few rows at a time, the scores stay in the processor's cache; the values are the same.
    entropy = -scores.exp().mul_(scores).nan_to_num_(0.0).sum(dim=-1)
    if base is None:
        return loss, logits.argmax(dim=-1), entropy
    reference = torch.log_softmax(base.to(torch.float32), dim=-1)
    terms = reference.exp().mul_(reference.sub_(scores)).nan_to_num_(0.0)
    return loss, logits.argmax(dim=-1), entropy, terms.sum(dim=-1, dtype=torch.float64)


def window_rows(
    dims: Dims, windows: Sequence[Any], tokens: Sequence[npt.NDArray[np.uint32]], positions: Sequence[Sequence[int]]
) -> pa.Table:
    """Table `window` from pre-registered windows, their tokens and sampled positions."""
    lengths = np.array([len(part) for part in tokens], dtype=np.int64)
    return build("window", dims, len(windows), {
        "window_id": [w.window_id for w in windows], "cluster_id": [w.cluster_id for w in windows],
        "domain": [w.domain for w in windows], "split": [w.split for w in windows],
        "n_bytes": np.array([w.n_bytes for w in windows]),
        "predicted_bytes": np.array([w.predicted_bytes for w in windows]),
        "tokens": Ragged(np.concatenate(tokens), lengths),
        "positions": np.array(positions).reshape(len(windows), dims.P),
    })  # fmt: skip


def task_rows(run_id: str, dims: Dims, items: Sequence[str], scores: Sequence[float]) -> pa.Table:
    """Table `task`."""
    return build("task", dims, len(items), {"run_id": run_id, "item_id": list(items), "score": np.array(scores)})


def layer_row(
    run_id: str, dims: Dims, stored: RoutedLayer, *, executed_dtype: str, rank: int, digests: Mapping[str, str],
    reconstruction_error: float, permutation: npt.NDArray[np.uint16],
) -> pa.Table:  # fmt: skip
    """Table `layer`: one row. Tensors are the stored weights widened to float32."""
    gain = torch.ones(stored.width) if stored.gain is None else stored.gain
    return build("layer", dims, 1, {
        "run_id": run_id, "layer": stored.index, "d": stored.width, "n_experts": stored.n_experts,
        "top_k": stored.top_k, "eps": stored.eps, "norm_kind": stored.row.norm_kind.value,
        "gain": gain.unsqueeze(0), "gain_convention": stored.row.gain.value,
        "router_weight": stored.router_weight.reshape(1, -1),
        "router_bias": None if stored.router_bias is None else stored.router_bias.unsqueeze(0),
        "selection_bias": None if stored.selection_bias is None else stored.selection_bias.unsqueeze(0),
        "score_space": stored.row.score_space, "weight_rule": stored.weight_rule, "weight_scale": stored.scale,
        "group_mode": stored.group_mode.value, "n_groups": stored.n_groups, "kept_groups": stored.kept_groups,
        "executed_dtype": executed_dtype,
        "residual_path": stored.row.residual_path.value, "w1_kind": stored.row.w1_layout.value, "w1_rank_min": rank,
        "tensor_digests": canonical_json(dict(digests)).decode(),
        "reconstruction_error": reconstruction_error, "identity_permutation": permutation.reshape(1, -1),
    })  # fmt: skip


def overlap_rows(
    run_id: str, layer: int, dims: Dims, pairs: Sequence[tuple[int, int]], visits: npt.NDArray[np.int64],
    facts: Sequence[tuple[int, float | None]], sums: npt.NDArray[np.float64],
) -> pa.Table:  # fmt: skip
    """Table `overlap`: visits `[n]`, rank and condition number, and the sums `[n, 4]` of `OverlapMaps.sums`, per pair."""
    condition = np.array([np.nan if value is None else value for _, value in facts])
    residual, scale, drift, drift_scale = sums.T
    return build("overlap", dims, len(pairs), {
        "run_id": run_id, "layer": layer,
        "expert_a": np.array([a for a, _ in pairs]), "expert_b": np.array([b for _, b in pairs]), "visits": visits,
        "rank": np.array([rank for rank, _ in facts]), "cond": Nullable(np.nan_to_num(condition), ~np.isnan(condition)),
        "residual": np.divide(residual, scale, out=np.zeros_like(residual), where=scale > 0),
        "drift_num": drift, "drift_den": drift_scale,
    })  # fmt: skip


def run_row(dims: Dims, facts: Mapping[str, Value]) -> pa.Table:
    """Table `run`: one row; `fingerprint` is an object and is stored as canonical JSON."""
    columns = {**facts, "fingerprint": canonical_json(facts["fingerprint"]).decode()}
    return build("run", dims, 1, columns)
