"""What every measure must obey whatever the rows are: its range, its zero, its symmetry, its scale, its blindness to names.

Rows come from simulated models drawn at random: sizes, router families, how far the arms moved. `LAWS` has a line for every
definition of the registry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from properties.contract import holds
from simulator import PRESERVED, REWRITTEN, Settings, StudySimulator
from verify.forging import tiny

from atlas_schema.documents.receipt import Findings
from atlas_schema.evidence.columns import Rows, from_arrow
from atlas_schema.evidence.tables import TABLES
from atlas_schema.measures import definitions as ids
from atlas_schema.measures.drift import TokenValues, coordinate, in_form, same_state
from atlas_schema.measures.occupancy import Assignments, entropy_change, layer_occupancy, shift
from atlas_schema.measures.reported import Native, native, outputs
from atlas_schema.measures.summarise import summarise

INF = math.inf
NOISE = 1e-6
"""What float32 rows may add to a number that is bounded by theory."""


@dataclass(frozen=True)
class Law:
    """The range of a definition's value; ``still`` is what it is where the arm has the base's weights, None where it need not be."""

    low: float
    high: float
    still: float | None = None


SHARE, SIZE = Law(0, 1, 0), Law(0, INF, 0)
LAWS: Mapping[str, Law] = {
    ids.COORDINATE: SHARE, ids.BOUNDARY: SHARE, ids.TRANSITION: SIZE, ids.CONTENT: SIZE, ids.GUARD: SIZE,
    ids.DAMAGE: Law(-INF, INF, 0), ids.SUCCESS: Law(0, 1), ids.MATCHED: Law(-1, 1), ids.OCCUPANCY: SIZE,
    ids.RANK: Law(0, INF), ids.ANGULAR: Law(0, 1), ids.TANGENT: Law(0, 1), ids.TRANSPORT_LOCAL: SHARE, ids.TURNOVER: SHARE,
    ids.ROUTER_TERM: SIZE, ids.TIGHTNESS: Law(0, 1), ids.MARGIN_SHIFT: Law(-INF, INF, 0), ids.ROUTER_SHIFT: Law(-INF, INF, 0),
    ids.CERTIFICATE: Law(0, 1, 1), ids.OVERLAP_DRIFT: SIZE, ids.OVERLAP_RESIDUAL: Law(0, 1), ids.OVERLAP_CONDITION: Law(1, INF),
    ids.OVERLAP_CORRELATION: Law(-1, 1), ids.PI_SHIFT: Law(-1, 1, 0), ids.PI_PLUGIN: SHARE, ids.ADJACENCY_SHIFT: Law(-1, 1, 0),
    ids.ADJACENCY_PLUGIN: SHARE, ids.BASELINE_NORM: SIZE, ids.BASELINE_TELEMETRY: SIZE, ids.BASELINE_PARAMETERS: SIZE,
    ids.RECONSTRUCTION: Law(0, INF), ids.AGREEMENT: Law(0, 1), ids.ONE_SWAP: Law(0, INF), ids.BITS: Law(0, INF),
    ids.PERPLEXITY: Law(1, INF), ids.KL: SIZE, ids.TOP1: Law(0, 1, 1),
}  # fmt: skip

STILL = replace(PRESERVED, name="still", size=0.0, upstream=0.0)
ROUTERS: tuple[dict[str, Any], ...] = (
    {}, {"experts": 8, "adapter": "deepseek_v3", "score_space": "sigmoid+bias", "selection_bias": 0.05,
         "weight_rule": "sigmoid_topk_renormalised", "weight_scale": 2.5, "group_mode": "top2_sum", "n_groups": 4,
         "kept_groups": 2, "shared": True},
    {"gain_convention": "1+w", "router_bias": 0.3, "weight_rule": "softmax_topk", "weight_scale": 1.5},
    {"top_k": 1, "gain_convention": "none"}, {"experts": 3, "top_k": 3, "overlap_pairs": 3},
)  # fmt: skip


@lru_cache(maxsize=4)
def world(seed: int, router: int, size: float) -> StudySimulator:
    """Simulate a small study: an arm that moved by ``size``, one rewritten, one with the base's weights."""
    moved = replace(PRESERVED, name="moved", size=size, upstream=size)
    return StudySimulator.make(tiny(
        seed=seed, clusters=(("code", 4), ("legal", 4)), items=12, arms=(moved, REWRITTEN, STILL),
        bootstrap={"resamples": 100, "min_clusters": 4, "rare_event_clusters": 2}, **ROUTERS[router],
    ))  # fmt: skip


worlds = st.builds(
    world, st.integers(0, 2**16), st.integers(0, len(ROUTERS) - 1), st.sampled_from([1e-6, 1e-3, 0.05, 0.5, 3.0])
)


def findings(made: StudySimulator) -> Findings:
    return summarise(made.source(), made.contract, made.preregistration, made.evidence_root())


def values(found: Findings) -> Iterator[tuple[str, str, float | None]]:
    """Yield (arm or base, definition, value) of everything that findings state."""
    for arm in found.arms:
        for cell in arm.cells:
            yield arm.arm, cell.definition, cell.value
        for domain in arm.damage:
            yield arm.arm, domain.definition, domain.delta_nll_nats
        yield arm.arm, arm.success.definition, arm.success.value
        yield from ((arm.arm, r.definition, r.value) for r in arm.reported)
        yield from ((arm.arm, a.definition, a.value) for a in arm.assumptions)
    for pair in found.matched_success:
        yield "", pair.definition, pair.difference
    yield from (("", r.definition, r.value) for r in found.base.reported)
    yield from (("", a.definition, a.value) for a in found.base.assumptions)
    for run in found.occupancy:
        yield "", run.definition, run.mean_cv_percent


def test_every_definition_has_a_law() -> None:
    assert set(LAWS) == set(ids.REGISTRY)


@holds(
    "measures",
    "Every stated value lies in its definition's range; an arm with the base's weights has exactly the still value.",
    3,
    50,
    costly=True,
)
@given(worlds)
def test_ranges_and_still_values(made: StudySimulator) -> None:
    found = findings(made)
    seen = set()
    for arm, definition, value in values(found):
        law = LAWS[definition]
        seen.add(definition)
        if value is None:
            continue
        assert law.low - NOISE <= value <= law.high + NOISE, (arm, definition, value)
        if arm == "still" and law.still is not None:
            assert value == law.still, (definition, value)
    assert seen == set(LAWS)


@holds(
    "measures",
    "Standard errors are not negative; pointwise bounds lie inside simultaneous ones; floors and shares keep their range.",
    3,
    50,
    costly=True,
)
@given(worlds)
def test_bounds_are_in_order(made: StudySimulator) -> None:
    found = findings(made)
    for arm in found.arms:
        for cell in arm.cells:
            ends = cell.simultaneous
            if cell.upper is not None and ends is not None and ends.upper is not None:
                assert ends.lower <= ends.upper
                assert cell.upper <= ends.upper
            assert cell.monte_carlo_error is None or cell.monte_carlo_error >= 0
            assert cell.top_percent_share is None or 0 <= cell.top_percent_share <= 1 + NOISE
            assert 0 <= cell.nonzero_clusters <= cell.clusters
            assert cell.upper is None or cell.upper >= 0
        assert all(r.standard_error is None or r.standard_error >= 0 for r in arm.reported)
        if arm.success.lower is not None and arm.success.upper is not None:
            assert 0 <= arm.success.lower <= arm.success.value <= arm.success.upper <= 1
    for run in found.occupancy:
        for layer in run.layers:
            experts = len(layer.pi)
            assert abs(sum(layer.pi) - made.settings.top_k) < 1e-9
            assert 0 <= layer.entropy_nats <= math.log(experts) + 1e-12
            assert 1 <= layer.effective_experts <= experts + 1e-9
            assert made.settings.top_k <= layer.experts_active <= experts
            assert 100 / experts - 1e-9 <= layer.max_load_percent <= 100 + 1e-9


# --- token by token -------------------------------------------------------------------------------------------------


def partition(made: StudySimulator, table: str, *key: str | int) -> Rows:
    return made.source().read(table, key)


def equal(a: TokenValues, b: TokenValues, sign: float = 1.0) -> bool:
    return bool((a.present == b.present).all() and (a.numerator[a.present] == sign * b.numerator[b.present]).all()
                and (a.denominator[a.present] == b.denominator[b.present]).all())  # fmt: skip


@holds(
    "measures",
    "Angle, turnover and top-1 agreement are the same with base and arm exchanged; margin shift and loss change turn their sign.",
    3,
    50,
    costly=True,
)
@given(worlds)
def test_symmetric_measures_are_symmetric(made: StudySimulator) -> None:
    base, arm = (partition(made, "state", run, 1) for run in ("base", "arm:rewritten"))
    there, back = coordinate(base, arm), coordinate(arm, base)
    assert equal(there, back)
    size = made.dims.E
    routed = [Native.of(partition(made, "routing", run, 1), size) for run in ("base", "arm:rewritten")]
    forth, around = native(routed[0], routed[1], True), native(routed[1], routed[0], True)
    assert equal(forth[ids.TURNOVER], around[ids.TURNOVER])
    assert equal(forth[ids.MARGIN_SHIFT], around[ids.MARGIN_SHIFT], -1.0)
    told = [partition(made, "output", run) for run in ("base", "arm:rewritten")]
    one, other = outputs(told[0], told[1]), outputs(told[1], told[0])
    assert equal(one[ids.TOP1], other[ids.TOP1])
    assert equal(one[ids.DAMAGE], other[ids.DAMAGE], -1.0)
    counts = [assigned(made, run, None) for run in ("base", "arm:rewritten")]
    assert shift(counts[0].loads, counts[1].loads).plugin == shift(counts[1].loads, counts[0].loads).plugin
    assert math.isclose(entropy_change(*counts), entropy_change(*counts[::-1]), rel_tol=1e-9, abs_tol=1e-12)


def assigned(made: StudySimulator, run: str, names: np.ndarray[Any, Any] | None) -> Assignments:
    """Count a run's assignments, with experts renamed where ``names`` are given."""
    table = made.tables["routing"].filter(pa.compute.equal(made.tables["routing"]["run_id"], run))
    rows = table.to_pylist()
    if names is not None:
        rows = [{**row, "experts": [int(names[e]) for e in row["experts"]],
                 "competitor_in": None if row["competitor_in"] is None else int(names[row["competitor_in"]]),
                 "competitor_out": None if row["competitor_out"] is None else int(names[row["competitor_out"]])} for row in rows]  # fmt: skip
    renamed = from_arrow(TABLES["routing"], made.dims, pa.Table.from_pylist(rows, schema=table.schema))
    found = Assignments(made.dims.E)
    found.add(renamed, np.arange(renamed.n) % 2)
    return found


@holds("measures", "Occupancy and its shifts do not depend on which number an expert bears.", 3, 50, costly=True)
@given(worlds, st.integers(0, 2**32 - 1))
def test_names_of_experts_do_not_matter(made: StudySimulator, seed: int) -> None:
    names = np.random.default_rng(seed).permutation(made.dims.E)
    runs = ("base", "arm:rewritten")
    plain, renamed = ([assigned(made, run, n) for run in runs] for n in (None, names))
    for before, after in zip(plain, renamed, strict=True):
        a, b = (layer_occupancy(1, found, made.dims.k, 10) for found in (before, after))
        assert [b.pi[int(names[e])] for e in range(made.dims.E)] == list(a.pi)
        for name in ("cv_percent", "max_load_percent", "experts_active", "distinct_sets", "tokens"):
            assert getattr(a, name) == getattr(b, name)
        assert math.isclose(a.entropy_nats, b.entropy_nats, rel_tol=1e-12, abs_tol=1e-12)
    for counts in ("loads", "swaps"):
        assert shift(*(getattr(x, counts) for x in plain)) == shift(*(getattr(x, counts) for x in renamed))


def scaled(made: StudySimulator, factor: float) -> StudySimulator:
    """Return the study as if every expert's update were ``factor`` times as long; a power of two, so that nothing is rounded."""
    by = {
        "gram": factor**2,
        "uu0": factor**2,
        "uu1": factor**2,
        "y0_norm": factor,
        "dy_norm": factor,
        "dV_norm": factor,
    }

    def times(value: Any, of: float) -> Any:
        return [x * of for x in value] if isinstance(value, list) else value * of

    rows = [{n: times(v, by[n]) if n in by else v for n, v in row.items()} for row in made.rows("update")]
    return made.with_rows("update", rows)


@holds(
    "measures",
    "Drift of transitions, contents and blocks does not change where all updates grow alike, nor does a boundary.",
    3,
    50,
    costly=True,
)
@given(worlds, st.sampled_from([0.25, 2.0, 1024.0]))
def test_drift_has_no_unit(made: StudySimulator, factor: float) -> None:
    key = ("arm:rewritten", 1)
    before, after = (same_state(partition(m, "update", *key), made.dims.k) for m in (made, scaled(made, factor)))
    for definition, forms in ((d.id, d.forms) for d in ids.DEFINITIONS.values() if d.id in before):
        for form in forms:
            a, b = in_form(before[definition], form), in_form(after[definition], form)
            grown = factor if form == ids.SUMS and definition != ids.BOUNDARY else 1.0
            assert (a.numerator * grown == b.numerator).all(), (definition, form)
            assert (a.denominator * grown == b.denominator).all() or definition == ids.BOUNDARY


@holds(
    "measures",
    "Leaving a set by one expert costs at least 1/k and at most 1 of the boundary; no change costs nothing.",
    3,
    50,
    costly=True,
)
@given(worlds)
def test_boundary_flips_are_counted(made: StudySimulator) -> None:
    k = made.dims.k
    for run in ("arm:moved", "arm:rewritten", "arm:still"):
        rows = partition(made, "update", run, 1)
        share = same_state(rows, k)[ids.BOUNDARY].numerator
        left = np.array([k - (int(a) & int(b)).bit_count() for a, b in zip(rows["in0"], rows["in1"], strict=True)])
        assert (share == 1.0 - (k - left) / k).all()
        assert (share[left > 0] >= 1.0 / k - 1e-12).all()
        assert share.max(initial=0.0) <= 1.0
        assert run != "arm:still" or not left.any()


def test_worlds_are_of_every_router() -> None:
    assert len({Settings(**router).weight_rule for router in ROUTERS}) == 3
