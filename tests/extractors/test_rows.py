"""Captured rows obey the identities of `docs/measures.md`, section 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from atlas_extractors.models.binding import BoundModel, bind
from atlas_extractors.routing.capture import Captured, LayerCapture, capture
from atlas_extractors.routing.channel import pack, unpack
from atlas_extractors.routing.evaluator import evaluate
from atlas_extractors.routing.rows import (
    MASKED,
    SATURATED,
    TIE,
    Windows,
    build,
    executed_routing,
    output_rows,
    routing_rows,
    state_rows,
    update_rows,
    vector_rows,
)
from tiny_world import tiny_model

from atlas_schema.errors import AtlasError
from atlas_schema.evidence.tables import Dims

DIMS = Dims(32, 8, 2, 4)
POSITIONS = np.tile(np.array([1, 4, 9, 15]), (3, 1))


def _captured(dtype: torch.dtype = torch.float32, k: int = 2) -> tuple[BoundModel, Captured, Windows]:
    bound = bind(tiny_model(11, num_experts_per_tok=k).to(dtype), [1])
    tokens = torch.randint(0, 256, (3, 16), generator=torch.Generator().manual_seed(1))
    return bound, capture(bound, tokens), Windows(("wa", "wb", "wc"), tokens.numpy(), POSITIONS)


def _lists(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.array(column.to_pylist(), dtype=np.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_routing_rows_hold_the_executed_sets(dtype: torch.dtype) -> None:
    bound, captured, windows = _captured(dtype)
    layer = captured.layers[1]
    executed = executed_routing(layer, bound.layers[1].live)
    rows = routing_rows("base", 1, DIMS, windows, executed, first_allowed=2)
    assert rows.num_rows == 3 * 16
    experts = np.array(rows.column("experts").to_pylist())
    assert (np.sort(experts, 1) == np.sort(layer.experts.numpy(), 1)).all()
    dispatch = layer.logits.float().numpy()
    inside = np.zeros_like(dispatch, dtype=bool)
    np.put_along_axis(inside, experts, True, axis=1)
    lowest = np.where(inside, dispatch, np.inf).min(1)
    highest = np.where(inside, -np.inf, dispatch).max(1)
    flags = np.array(rows.column("flags").to_pylist())
    assert (np.array(rows.column("margin").to_pylist(), dtype=np.float32) == np.maximum(lowest - highest, 0)).all()
    assert ((flags & TIE > 0) == (lowest == highest)).all()
    assert ((flags & SATURATED > 0) == (lowest < highest)).all()
    assert ((flags & MASKED > 0) == (np.tile(np.arange(16), 3) < 2)).all()
    out, into = np.array(rows.column("competitor_out").to_pylist()), np.array(rows.column("competitor_in").to_pylist())
    assert (np.take_along_axis(dispatch, out[:, None], 1)[:, 0] == lowest).all()
    assert (np.take_along_axis(dispatch, into[:, None], 1)[:, 0] == highest).all()
    assert (np.diff(np.take_along_axis(dispatch, experts, 1), axis=1) <= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_rows_obey_the_norm_identity_and_the_rules(dtype: torch.dtype) -> None:
    bound, captured, windows = _captured(dtype)
    live = bound.layers[1].live
    stored = live.to(torch.float32)
    layer = captured.layers[1]
    executed = executed_routing(layer, live)
    rows = state_rows("base", 1, DIMS, windows, layer, executed, live, stored)
    z, r = _lists(rows.column("z")), np.array(rows.column("r").to_pylist())
    np.testing.assert_allclose((z**2).sum(1), 32 * (1 - live.eps / r**2), rtol=1e-5)
    assert rows.column("g").null_count == rows.num_rows, "g follows from z bit for bit and is not stored twice"
    g = live.gate(torch.from_numpy(z.astype(np.float32)))
    assert torch.equal(g, layer.g[torch.from_numpy(windows.sampled)])
    dispatch = _lists(rows.column("dispatch"))
    weights, experts = _lists(rows.column("weights")), executed.experts[torch.from_numpy(windows.sampled)].numpy()
    p = np.exp(dispatch - dispatch.max(1, keepdims=True))
    chosen = np.take_along_axis(p / p.sum(1, keepdims=True), experts, axis=1)
    unit = torch.finfo(dtype).eps
    np.testing.assert_allclose(weights, chosen / chosen.sum(1, keepdims=True), rtol=4 * unit)
    logits = g.double().numpy() @ stored.router_weight.double().numpy().T
    bound_ = 32 * unit * (np.abs(g.double().numpy()) @ np.abs(stored.router_weight.double().numpy()).T)
    assert (np.abs(dispatch - logits) <= unit * np.abs(dispatch) + bound_).all()


def test_saturation_is_flagged_and_its_margin_is_zero() -> None:
    """A softmax that merges two logits may execute the lower one."""
    bound, captured, windows = _captured()
    layer = captured.layers[1]
    order = layer.logits.sort(dim=1, descending=True).indices
    lower = torch.stack([order[:, 0], order[:, 2]], dim=1)
    odd = replace(layer, experts=lower)
    rows = routing_rows("base", 1, DIMS, windows, executed_routing(odd, bound.layers[1].live), first_allowed=1)
    assert all(flag & SATURATED for flag in rows.column("flags").to_pylist())
    assert set(rows.column("margin").to_pylist()) == {0.0}
    assert (np.array(rows.column("competitor_in").to_pylist()) == order[:, 1].numpy()).all()


def test_equal_scores_are_flagged_and_ordered_by_id() -> None:
    bound, captured, windows = _captured()
    logits = torch.zeros_like(captured.layers[1].logits)
    layer = replace(captured.layers[1], logits=logits, experts=torch.tensor([[5, 3]]).expand(48, 2))
    rows = routing_rows("base", 1, DIMS, windows, executed_routing(layer, bound.layers[1].live), first_allowed=0)
    assert rows.column("experts").to_pylist()[0] == [3, 5]
    assert rows.column("competitor_out").to_pylist()[0] == 5
    assert rows.column("competitor_in").to_pylist()[0] == 0
    assert set(rows.column("flags").to_pylist()) == {TIE}


def test_weights_follow_their_experts_when_the_order_changes() -> None:
    bound, captured, _ = _captured()
    layer: LayerCapture = captured.layers[1]
    flipped = replace(layer, experts=layer.experts.flip(1), weights=layer.weights.flip(1))
    plain, other = (executed_routing(each, bound.layers[1].live) for each in (layer, flipped))
    assert torch.equal(plain.experts, other.experts)
    assert torch.equal(plain.weights, other.weights)


def test_without_competitor_the_pair_is_null() -> None:
    dims = Dims(32, 8, 8, 4)
    bound, captured, windows = _captured(k=8)
    live = bound.layers[1].live
    layer = captured.layers[1]
    executed = executed_routing(layer, live)
    routing = routing_rows("base", 1, dims, windows, executed, first_allowed=1)
    state = state_rows("base", 1, dims, windows, layer, executed, live, live)
    same = evaluate(live, live, live.normalise(layer.x[torch.from_numpy(windows.sampled)])[0])
    update = update_rows("null:batch", 1, dims, windows, same)
    for column in (routing.column("competitor_in"), routing.column("margin"), state.column("margin_logit")):
        assert column.null_count == len(column)
    assert update.column("pair_in").null_count == update.num_rows
    assert not any(flag & (TIE | SATURATED) for flag in routing.column("flags").to_pylist())


def test_vectors_give_the_gram_matrix() -> None:
    bound, captured, windows = _captured()
    live = bound.layers[1].live
    arm = replace(live, down=live.down * 1.1)
    same = evaluate(live, arm, live.normalise(captured.layers[1].x[torch.from_numpy(windows.sampled)])[0])
    update = update_rows("arm:a", 1, DIMS, windows, same).to_pylist()[5]
    vectors = vector_rows("arm:a", 1, DIMS, windows, same, np.array([False, True, False])).to_pylist()
    assert [(row["window_id"], row["position"]) for row in vectors] == [("wb", p) for p in POSITIONS[1]]
    (row,) = (row for row in vectors if row["position"] == update["position"])
    v0, v1 = (np.array(row[name]).reshape(len(update["experts"]), DIMS.d) for name in ("v0", "v1"))
    stacked = np.concatenate([v0, v1 - v0])
    full = stacked @ stacked.T
    np.testing.assert_allclose(update["gram"], full[np.triu_indices(len(stacked))], rtol=1e-4, atol=1e-5)


def test_a_union_that_does_not_fit_the_bitmask_is_refused() -> None:
    model = tiny_model(11, num_experts=64, num_experts_per_tok=32)
    live = bind(model, [0]).layers[0].live
    same = evaluate(live, live, torch.randn(12, 32))
    windows = Windows(("wa", "wb", "wc"), np.zeros((3, 16), dtype=np.int64), POSITIONS)
    with pytest.raises(AtlasError, match="bitmask"):
        update_rows("arm:a", 0, Dims(32, 64, 32, 4), windows, same)


def test_output_rows_are_negative_log_likelihoods_in_nats() -> None:
    _, captured, windows = _captured()
    rows = output_rows("base", DIMS, windows, captured.logits)
    assert rows.num_rows == 3 * 15
    expected = torch.nn.functional.cross_entropy(
        captured.logits[:, :-1].reshape(-1, 256), torch.from_numpy(windows.tokens[:, 1:]).reshape(-1), reduction="none"
    )
    np.testing.assert_allclose(rows.column("nll").to_pylist(), expected.numpy(), rtol=1e-5)
    assert rows.column("top1").to_pylist() == captured.logits[:, :-1].argmax(-1).reshape(-1).tolist()
    entropy = torch.distributions.Categorical(logits=captured.logits[:, :-1].reshape(-1, 256)).entropy()
    np.testing.assert_allclose(rows.column("entropy").to_pylist(), entropy.numpy(), rtol=1e-4)


def test_tables_survive_the_pipe_unchanged() -> None:
    bound, captured, windows = _captured()
    rows = routing_rows(
        "base", 1, DIMS, windows, executed_routing(captured.layers[1], bound.layers[1].live), first_allowed=1
    )
    assert unpack(pack(rows)).equals(rows)


def test_undeclared_columns_and_forbidden_nulls_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match the declaration"):
        build("task", DIMS, 1, {"run_id": "base", "item_id": "i", "score": 1.0, "more": 1.0})
    with pytest.raises(ValueError, match="may not be null"):
        build("task", DIMS, 1, {"run_id": "base", "item_id": "i", "score": None})
