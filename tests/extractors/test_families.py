"""Every family with a row: its true row binds and extracts, wrong ones are refused by the check they fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from atlas_extractors.models.binding import bind
from atlas_extractors.models.errors import ContractViolation
from atlas_extractors.models.families import FAMILIES, Activation, FamilyRow, GroupMode
from atlas_extractors.models.identity import Digester, layer_digests, parameter_distance
from atlas_extractors.routing.capture import capture
from atlas_extractors.routing.evaluator import evaluate
from atlas_extractors.routing.extract import Request, extract
from atlas_extractors.routing.rows import executed_routing
from atlas_extractors.routing.transport import carry
from tiny_families import DENSE, ROUTED, family_model, moved, save_family
from tiny_runs import EXECUTION, Silent, content, of
from tiny_world import MakeStudy

from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.tables import TABLES, Dims
from atlas_schema.files import read_document
from atlas_schema.measures.routers import RouterRule
from atlas_schema.study.preregister import EXPERT_COUNTS

ALL = sorted(FAMILIES)


def _tokens() -> torch.Tensor:
    return torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))


def test_every_family_is_tested_and_its_experts_are_counted() -> None:
    assert sorted(ROUTED) == ALL
    assert {row.n_experts for row in FAMILIES.values()} <= set(EXPERT_COUNTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ALL)
def test_true_rows_bind_and_capture_changes_no_bit(
    family: str, attention: str, experts: str, dtype: torch.dtype
) -> None:
    model = family_model(family, 3, experts=experts, attention=attention).to(dtype)
    bound = bind(model, ROUTED[family])
    with torch.inference_mode():
        before = model(input_ids=_tokens(), use_cache=False).logits
    captured = capture(bound, _tokens())
    assert torch.equal(before, captured.logits)
    for layer in captured.layers.values():
        assert layer.reconstruction_error < (1e-5 if dtype is torch.float32 else 3e-2)


CHANGES: dict[str, list[dict[str, Any]]] = {
    "qwen2_moe": [{"norm_topk_prob": True}, {"num_experts_per_tok": 8}],
    "qwen3_moe": [{"norm_topk_prob": False}],
    "mixtral": [{"num_experts_per_tok": 1}],
    "deepseek_v3": [{"norm_topk_prob": False}, {"n_group": 1, "topk_group": 1}, {"topk_group": 4}, {"q_lora_rank": None},
                    {"topk_group": 1}, {"num_experts_per_tok": 4}],
}  # fmt: skip


@pytest.mark.parametrize(("family", "changes"), [(name, one) for name, many in CHANGES.items() for one in many])
def test_what_a_configuration_decides_is_read_from_it(family: str, changes: dict[str, Any]) -> None:
    bound = bind(family_model(family, 4, **changes), ROUTED[family])
    assert max(layer.reconstruction_error for layer in capture(bound, _tokens()).layers.values()) < 1e-5


def _wrong(family: str, **changes: Any) -> FamilyRow:
    return replace(FAMILIES[family], **changes)


WRONG: dict[str, tuple[str, FamilyRow, str]] = {
    "shared expert forgotten": ("qwen2_moe", _wrong("qwen2_moe", shared=None, shared_gate=None), "residual"),
    "its gate forgotten": ("qwen2_moe", _wrong("qwen2_moe", shared_gate=None), "residual"),
    "weights renormalised": ("qwen2_moe", _wrong("qwen2_moe", renormalise=True), "weights"),
    "OLMoE's row for Qwen2": ("qwen2_moe", FAMILIES["olmoe"], "residual"),
    "weights not renormalised": ("qwen3_moe", _wrong("qwen3_moe", renormalise=False), "weights"),
    "a shared expert that is not there": ("qwen3_moe", _wrong("qwen3_moe", shared="shared_expert"), "structure"),
    "Mixtral without renormalisation": ("mixtral", _wrong("mixtral", renormalise=False), "weights"),
    "a field Mixtral has not": ("mixtral", _wrong("mixtral", renormalise="norm_topk_prob"), "structure"),
    "bias forgotten": ("deepseek_v3", _wrong("deepseek_v3", selection_bias=None), "selection_score"),
    "groups forgotten": ("deepseek_v3", _wrong("deepseek_v3", group_mode=GroupMode.NONE), "selection_score"),
    "groups by their best": ("deepseek_v3", _wrong("deepseek_v3", group_mode=GroupMode.MAX), "selection_score"),
    "softmax for sigmoid": ("deepseek_v3", _wrong("deepseek_v3", activation=Activation.SOFTMAX), "selection_score"),
    "scale forgotten": ("deepseek_v3", _wrong("deepseek_v3", weight_scale=None), "weights"),
    "another scale": ("deepseek_v3", _wrong("deepseek_v3", weight_scale="topk_group"), "weights"),
    "shared experts forgotten": ("deepseek_v3", _wrong("deepseek_v3", shared=None), "residual"),
    "bias in the wrong place": ("deepseek_v3", _wrong("deepseek_v3", selection_bias="bias"), "structure"),
    "raw logits and top-k": (
        "deepseek_v3", _wrong("deepseek_v3", selection_bias=None, group_mode=GroupMode.NONE), "selection_score"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_caught_by_its_check(case: str) -> None:
    family, row, check = WRONG[case]
    with pytest.raises(ContractViolation) as refusal:
        bind(family_model(family, 5), ROUTED[family], row)
    assert refusal.value.check == check


@pytest.mark.parametrize(("family", "change"), [("mixtral", "wide_weights"), ("deepseek_v3", "wide_logits"),
                                                ("olmoe", "wide_logits"), ("olmoe", "wide_weights")])  # fmt: skip
def test_a_wrong_precision_shows_where_it_matters(family: str, change: str) -> None:
    row = _wrong(family, **{change: not getattr(FAMILIES[family], change)})
    bind(family_model(family, 5), ROUTED[family], row)
    with pytest.raises(ContractViolation) as refusal:
        bind(family_model(family, 5).to(torch.bfloat16), ROUTED[family], row)
    assert refusal.value.check in ("logits", "weights")


@pytest.mark.parametrize("family", DENSE)
def test_a_dense_layer_is_refused_by_name_and_the_routed_ones_are_named(family: str) -> None:
    with pytest.raises(ContractViolation, match="dense layer") as refusal:
        bind(family_model(family, 5), [DENSE[family]])
    assert f"model.layers.{DENSE[family]}" in str(refusal.value)
    assert ", ".join(map(str, ROUTED[family])) in str(refusal.value)


def _row(layer: Any, dims: Dims) -> Rows:
    return from_arrow(TABLES["layer"], dims, layer)


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("family", ALL)
def test_a_study_of_the_family_extracts_and_its_rows_obey_the_declared_rule(
    family: str, make_study: MakeStudy, tmp_path: Path
) -> None:
    model = family_model(family, 6)
    base, same = (save_family(model, tmp_path / name) for name in ("base", "same"))
    near = save_family(moved(model, 7, 0.05), tmp_path / "near")
    study = make_study(base=base, layers=ROUTED[family], nuisances={"experts": "experts", "attention": "attention"})
    arms = {"near": near, "same": same}
    extract(Request(study.preregistration, base, arms, study.evidence, EXECUTION, study.contract), Silent())
    found = content(study.evidence)
    plan = read_document(study.preregistration, Preregistration, "pre-registration")
    assert {name: table.num_rows for name, table in found.items()} == plan.expected_rows.model_dump()
    dims = Dims(32, 8, 2, 4)
    for run in ("base", "arm:near", "null:experts"):
        for at in ROUTED[family]:
            rule = RouterRule.of(_row(_cell(found["layer"], run, at), dims))
            _check_native(rule, _rows("routing", _cell(found["routing"], run, at), dims),
                          _rows("state", _cell(found["state"], run, at), dims))  # fmt: skip
    for at in ROUTED[family]:
        zero, one = (_row(_cell(found["layer"], run, at), dims) for run in ("base", "arm:near"))
        _check_same_state(
            RouterRule.of(zero), RouterRule.of(one), _rows("update", _cell(found["update"], "arm:near", at), dims)
        )
    same_rows = of(found["update"], "arm:same").to_pylist()
    assert {row["transport_angle"] for row in same_rows} == {row["dV_norm"] for row in same_rows} == {0.0}
    assert {row["dy_norm"] for row in same_rows} == {0.0}
    assert min(row["dy_norm"] for row in of(found["update"], "arm:near").to_pylist()) > 0
    assert min(row["transport_angle"] for row in of(found["update"], "arm:near").to_pylist()) > 0


def _cell(table: Any, run: str, at: int) -> Any:
    rows = of(table, run)
    return rows.filter(pc.equal(rows.column("layer"), at))


def _rows(name: str, table: Any, dims: Dims) -> Rows:
    return from_arrow(TABLES[name], dims, table)


def _check_native(rule: RouterRule, routing: Rows, state: Rows) -> None:
    """Sets, competitors, margins, admissible experts and weights follow from the stored scores by the declared rule."""
    key = {(w, p): i for i, (w, p) in enumerate(zip(routing["window_id"], routing["position"], strict=True))}
    at = np.array([key[w, p] for w, p in zip(state["window_id"], state["position"], strict=True)])
    scores = state["dispatch"].astype(np.float64)
    order = rule.order(scores)
    assert np.isfinite(scores).all()
    assert (routing["experts"][at] == order[:, :2]).all()
    assert (routing["competitor_out"][at] == order[:, 1]).all()
    assert (routing["competitor_in"][at] == order[:, 2]).all()
    b, into = (np.take_along_axis(scores, order[:, i : i + 1], 1)[:, 0] for i in (1, 2))
    np.testing.assert_allclose(routing["margin"][at], (b - into).astype(np.float32), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(state["weights"], rule.weights(scores, order[:, :2]), rtol=1e-5)
    assert state.valid("margin_logit").all() == rule.monotone
    grouped = rule.group_mode != "none"
    assert state.valid("admissible").all() == routing.valid("group_margin").all() == grouped
    if grouped:
        assert (state["admissible"] == rule.admissible(scores)).all()
        assert (state["admissible"].sum(1) == 4).all()
        strengths = -np.sort(-rule.group_scores(scores), axis=1)
        kept = rule.kept_groups
        np.testing.assert_allclose(routing["group_margin"][at], strengths[:, kept - 1] - strengths[:, kept], atol=1e-6)


def _check_same_state(zero: RouterRule, one: RouterRule, update: Rows) -> None:
    offsets = update.offsets("experts")
    for at in range(update.n):
        part = slice(offsets[at], offsets[at + 1])
        experts = update["experts"][part].tolist()
        for rule, scores, mask, weights in ((zero, "dispatch0", "in0", "rho0"), (one, "dispatch1", "in1", "rho1")):
            row = update[scores][at : at + 1].astype(np.float64)
            order = rule.order(row)
            members = {e for i, e in enumerate(experts) if int(update[mask][at]) >> i & 1}
            assert members == set(order[0, :2].tolist())
            expected = dict(zip(order[0, :2].tolist(), rule.weights(row, order[:, :2])[0], strict=True))
            np.testing.assert_allclose(update[weights][part], [expected.get(e, 0.0) for e in experts], rtol=1e-5)
            if scores == "dispatch0":
                assert (update["pair_out"][at], update["pair_in"][at]) == (order[0, 1], order[0, 2])


def test_dispatch_and_logits_disagree_for_biased_routers_and_the_rows_follow_dispatch() -> None:
    bound = bind(family_model("deepseek_v3", 8), [1, 2])
    captured = capture(bound, _tokens())
    for index, layer in captured.layers.items():
        executed = executed_routing(layer, bound.layers[index].live)
        by_logits = layer.logits.topk(2, dim=1).indices.sort(dim=1).values
        agreement = (by_logits == executed.experts.sort(dim=1).values).all(dim=1).double().mean()
        assert float(agreement) < 0.9, "top-k of raw logits is another set for many tokens"
        assert torch.equal(executed.experts.sort(dim=1).values, layer.experts.sort(dim=1).values)
        assert not executed.saturated.any()


def test_no_competitor_is_left_where_the_kept_groups_hold_only_the_set() -> None:
    bound = bind(family_model("deepseek_v3", 8, topk_group=1), [1])
    executed = executed_routing(capture(bound, _tokens()).layers[1], bound.layers[1].live)
    assert (executed.pair_in == -1).all()
    assert not executed.tie.any()
    assert not executed.saturated.any()


@pytest.mark.parametrize("family", ["qwen2_moe", "deepseek_v3"])
def test_shared_experts_belong_to_the_block_and_have_a_digest(family: str) -> None:
    model = family_model(family, 9)
    at = ROUTED[family][0]
    live = bind(model, [at]).layers[at].live
    decoder = model.get_submodule(f"model.layers.{at}")
    x = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        own = decoder.mlp(decoder.post_attention_layernorm(x))[0]
        ours = live.block(live.normalise(x[0])[0])
    assert float((own - ours).norm() / own.norm()) < 1e-6
    before = layer_digests(Digester(model), live.row, live)
    for name, tensor in model.state_dict().items():
        if f"layers.{at}.mlp.shared" in name:
            tensor.view(-1)[0] += 1.0
            after = layer_digests(Digester(model), live.row, live)
            assert {key for key in after if after[key] != before[key]} == {"shared"}, name
            tensor.view(-1)[0] -= 1.0


def test_selection_biases_are_buffers_and_count_all_the_same() -> None:
    model = family_model("deepseek_v3", 9)
    live = {i: layer.live for i, layer in bind(model, [1, 2]).layers.items()}
    before = {i: layer_digests(Digester(model), layer.row, layer) for i, layer in live.items()}
    assert live[1].selection_bias is not None
    live[1].selection_bias[3] += 0.5
    after = {i: layer_digests(Digester(model), layer.row, layer) for i, layer in live.items()}
    assert {k for k in after[1] if after[1][k] != before[1][k]} == {"selection.bias"}
    assert {k for k in after[2] if after[2][k] != before[2][k]} == {"upstream"}
    assert parameter_distance(family_model("deepseek_v3", 9), model) > 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ALL)
def test_transport_works_for_every_attention(family: str, attention: str) -> None:
    model = family_model(family, 10, attention=attention)
    arm = family_model(family, 11, attention=attention)
    layers = ROUTED[family]
    base, same, other = (
        bind(model, layers),
        bind(family_model(family, 10, attention=attention), layers),
        bind(arm, layers),
    )
    chosen = torch.arange(0, 60, 7)
    assert all(not angles.any() for angles in carry(base, same, _tokens(), chosen).angles.values())
    assert all(bool((angles > 0.01).all()) for angles in carry(base, other, _tokens(), chosen).angles.values())


@pytest.mark.parametrize("family", ALL)
def test_block_norms_are_those_of_the_models_own_blocks(family: str) -> None:
    """`y0_norm` and `dy_norm` against the two blocks themselves, run at the base's states."""
    at = ROUTED[family][1]
    models = family_model(family, 12), moved(family_model(family, 12), 13, 0.1)
    base, arm = (bind(model, [at]).layers[at].live.to(torch.float32) for model in models)
    x = torch.randn(11, 32, generator=torch.Generator().manual_seed(5))
    z0, _ = base.normalise(x)
    same = evaluate(base, arm, z0)
    with torch.inference_mode():
        blocks = [model.get_submodule(f"model.layers.{at}.mlp") for model in models]
        y0, y1 = (
            block(layer.gate(z0).unsqueeze(0))[0].double() for block, layer in zip(blocks, (base, arm), strict=True)
        )
    np.testing.assert_allclose(same.y0_norm, y0.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(same.dy_norm, (y1 - y0).norm(dim=1), rtol=1e-4)


@pytest.mark.parametrize("changes", [{"n_group": 1, "topk_group": 1}, {"topk_group": 4}])
def test_a_limit_that_drops_no_group_is_none(changes: dict[str, Any]) -> None:
    live = bind(family_model("deepseek_v3", 8, **changes), [1]).layers[1].live
    assert (live.group_mode, live.n_groups, live.kept_groups) == (GroupMode.NONE, 1, 1)
    routing = live.route(torch.randn(5, 32))
    assert routing.group_margin is None
    assert torch.equal(routing.selection, routing.dispatch)
    assert live.row.score_space == "sigmoid+bias"


def test_the_documented_families_are_those_with_a_row() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "technician.md").read_text(encoding="utf-8")
    table = text.split("## Families")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    lines = cells[1:]
    assert {line[0].strip("`") for line in lines} == set(FAMILIES)
    for name, dispatch, groups, weights, block, _ in lines:
        row = FAMILIES[name.strip("`")]
        assert dispatch.startswith("logits") == row.monotone
        assert (groups == "none") == (row.group_mode is GroupMode.NONE)
        assert weights.startswith(row.activation.value)
        assert ("scaled" in weights, "configuration" in weights) == (
            bool(row.weight_scale),
            isinstance(row.renormalise, str),
        )
        assert ("shared" in block, "sigmoid" in block) == (row.shared is not None, row.shared_gate is not None)
