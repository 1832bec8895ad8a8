"""Every tolerance of the invariants is the one that `docs/measures.md` states: what lies just within passes, just beyond does not.

Exact values and tolerances are computed here, number by number, from the text of the invariants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from simulator import PRESERVED, StudySimulator
from verify.forging import FROZEN, study, tiny
from verify.router_defects import grouped_world

from atlas_schema.evidence.columns import Rows
from atlas_schema.measures.drift import update_groups
from atlas_schema.verify.physics import native
from atlas_schema.verify.physics.layers import LayerFacts
from atlas_schema.verify.physics.native import States
from atlas_schema.verify.physics.samestate import BaseSide
from atlas_schema.verify.physics.vectors import check_vectors
from atlas_schema.verify.physics.violations import Violation

LAYER, ARM = 1, "arm:close"
WITHIN, BEYOND = 0.9999, 1.0001
UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8}
U, A, REL = 2.0**-24, 4.0, 1e-9
"""What the simulated contract states."""


@cache
def world(name: str) -> StudySimulator:
    if name in ("plain", "groups"):
        return study() if name == "plain" else grouped_world()
    arms = (FROZEN, replace(PRESERVED, name="close"))
    settings: dict[str, dict[str, Any]] = {
        "softmax and bias": {
            "experts": 8, "adapter": "deepseek_v3", "score_space": "softmax+bias", "selection_bias": 0.05,
            "weight_rule": "softmax_topk", "weight_scale": 1.5, "group_mode": "max", "n_groups": 4, "kept_groups": 2,
        },
        "router bias": {"router_bias": 0.3, "gain_convention": "1+w", "weight_rule": "softmax_topk", "weight_scale": 1.5},
    }  # fmt: skip
    return StudySimulator.make(tiny(arms=arms, **settings[name]))


WORLDS = ("plain", "groups", "softmax and bias", "router bias")


class Layer:
    """One run's rows of one layer, and its constants as plain numbers."""

    def __init__(self, name: str, run: str) -> None:
        s = world(name)
        source = s.source()
        self.dims, self.tolerances, self.run, self.study = s.dims, s.contract.tolerances, run, s
        assert (self.tolerances.float32_unit, self.tolerances.accumulation, self.tolerances.float64_relative) == (
            U,
            A,
            REL,
        )
        self.row = source.read("layer", (run, LAYER))
        self.facts = LayerFacts.of(self.row, self.dims)
        self.state, self.routing = source.read("state", (run, LAYER)), source.read("routing", (run, LAYER))
        plain = {n: self.row[n][0].tolist() for n in ("gain", "router_weight", "router_bias", "selection_bias")}
        convention = self.row["gain_convention"][0]
        self.gain = [1.0 if convention == "none" else g + 1.0 if convention == "1+w" else g for g in plain["gain"]]
        d = self.dims.d
        self.router = [plain["router_weight"][e * d : (e + 1) * d] for e in range(self.dims.E)]
        self.bias, self.selection = plain["router_bias"], plain["selection_bias"]
        self.space, self.rule = self.row["score_space"][0], self.row["weight_rule"][0]
        self.scale, self.unit = float(self.row["weight_scale"][0]), UNIT[self.row["executed_dtype"][0]]
        self.biased = bool(self.row.valid("selection_bias")[0])

    def logit(self, z: Any, e: int) -> float:
        return math.fsum(w * g * float(x) for w, g, x in zip(self.router[e], self.gain, z, strict=True)) + self.bias[e]

    def logit_bound(self, z: Any, e: int, unit: float) -> float:
        reach = math.sqrt(math.fsum((w * g) ** 2 for w, g in zip(self.router[e], self.gain, strict=True)))
        size = math.sqrt(math.fsum(float(x) ** 2 for x in z))
        return A * ((2 * unit + self.dims.d * U) * reach * size + unit * abs(self.bias[e]))

    def score(self, z: Any, e: int) -> float:
        logits = [self.logit(z, i) for i in range(self.dims.E)]
        if self.space == "logit":
            return logits[e]
        if self.space == "sigmoid+bias":
            return 1 / (1 + math.exp(-logits[e])) + self.selection[e]
        top = max(logits)
        return math.exp(logits[e] - top) / math.fsum(math.exp(v - top) for v in logits) + self.selection[e]

    def score_bound(self, z: Any, e: int, unit: float) -> float:
        if self.space == "logit":
            return self.logit_bound(z, e, unit)
        if self.space == "sigmoid+bias":
            worst = self.logit_bound(z, e, unit) / 4
        else:
            worst = max(self.logit_bound(z, i, unit) for i in range(self.dims.E)) / 2
        return worst + A * max(unit, U) * (abs(self.score(z, e)) + abs(self.selection[e]) + 1)

    def gates(self, scores: Any) -> list[float]:
        if self.space != "logit":
            return [float(s) - b for s, b in zip(scores, self.selection, strict=True)]
        top = max(scores)
        whole = math.fsum(math.exp(float(s) - top) for s in scores)
        return [math.exp(float(s) - top) / whole for s in scores]

    def weights(self, scores: Any, members: list[int]) -> list[float]:
        gates = self.gates(scores)
        total = math.fsum(gates[m] for m in members) if self.rule.endswith("renormalised") else 1.0
        return [gates[m] / total * self.scale for m in members]

    def slack(self, scores: Any, members: list[int]) -> list[float]:
        """The factor `c` of invariant 5, per member."""
        if not self.biased:
            return [self.scale] * len(members)
        sizes = [abs(float(scores[m])) + abs(self.selection[m]) for m in members]
        if not self.rule.endswith("renormalised"):
            return [self.scale * (1 + size) for size in sizes]
        gates = self.gates(scores)
        return [self.scale * (1 + 2 * sum(sizes) / sum(gates[m] for m in members))] * len(members)


@cache
def layer(name: str, run: str) -> Layer:
    return Layer(name, run)


def changed(rows: Rows, column: str, at: Any, value: float) -> Rows:
    """Return rows with one stored number replaced, in float64 whatever the column's type."""
    values = rows[column].astype(np.float64)
    values[at] = value
    return replace(rows, columns={**rows.columns, column: replace(rows.columns[column], values=values)})


def scored(rows: Rows, column: str, at: Any, value: float) -> Rows:
    """Replace one score, which stays float32: scores are compared bit by bit. A tolerance is many units of theirs."""
    values = rows[column].copy()
    values[at] = np.float32(value)
    return replace(rows, columns={**rows.columns, column: replace(rows.columns[column], values=values)})


def holds(exact: float, tolerance: float, check: Callable[[float], list[Violation]], rule: str, what: str) -> None:
    """A number just within its tolerance of the exact one passes on both sides, one just beyond is reported with both."""
    assert tolerance > 0
    for sign in (-1, 1):
        found = check(exact + sign * WITHIN * tolerance)
        assert not [v for v in found if v.rule == rule and what in v.what], (sign, "within", found)
        found = [v for v in check(exact + sign * BEYOND * tolerance) if v.rule == rule and what in v.what]
        assert [v.wrong for v in found] == [1], (sign, "beyond")
        assert float(found[0].recomputed) == pytest.approx(exact, rel=1e-6, abs=tolerance * 0.1)
        assert float(found[0].tolerance.split()[0]) == pytest.approx(tolerance, rel=6e-3)


where = pytest.mark.parametrize(
    ("name", "run"), [*((w, "arm:close") for w in WORLDS), *((w, "null:dtype") for w in WORLDS[:2])]
)


def states(x: Layer, state: Rows) -> list[Violation]:
    return native.check_state(state, States.of(state, x.facts), x.facts, x.tolerances, x.dims)


def against(x: Layer, state: Rows, routing: Rows) -> list[Violation]:
    return native.check_routing_against_state(state, States.of(state, x.facts), routing, x.facts, x.tolerances)


@where
def test_1_the_norm_of_a_state(name: str, run: str) -> None:
    x = layer(name, run)
    z, r = x.state["z"][3].astype(np.float64), float(x.state["r"][3])
    eps, d = float(x.row["eps"][0]), x.dims.d
    exact, tolerance = d * (1 - eps / r**2), 4 * A * d * U

    def check(squared: float) -> list[Violation]:
        values = x.state["z"].astype(np.float64)
        values[3] = z * math.sqrt(squared / float(z @ z))
        columns = {**x.state.columns, "z": replace(x.state.columns["z"], values=values)}
        return states(x, replace(x.state, columns=columns))

    for sign in (-1, 1):
        assert "ATL-R004" not in {v.rule for v in check(exact + sign * WITHIN * tolerance)}
        assert "ATL-R004" in {v.rule for v in check(exact + sign * BEYOND * tolerance)}


@where
def test_2_scores_follow_from_the_state(name: str, run: str) -> None:
    x = layer(name, run)
    z = x.state["z"][5].tolist()
    for e in (0, x.dims.E - 1):
        check = lambda v, e=e: states(x, changed(x.state, "dispatch", (5, e), v))  # noqa: E731
        holds(x.score(z, e), x.score_bound(z, e, x.unit), check, "ATL-R005", "dispatch")


@where
def test_2_gate_coordinates_are_state_times_gain(name: str, run: str) -> None:
    """They need not be stored; the simulator stores none. Where a row has them, they are held to its state."""
    x, at = layer(name, run), 2
    column = x.state.columns["g"]
    there = np.zeros(x.state.n, dtype=np.bool_)
    there[[at, at + 3]] = True
    values = x.state["z"].astype(np.float64) * np.array(x.gain) * there[:, None]
    stored = replace(x.state, columns={**x.state.columns, "g": replace(column, values=values, valid=there)})
    assert states(x, stored) == []
    exact = float(x.state["z"][at][2]) * x.gain[2]
    check = lambda v: states(x, changed(stored, "g", (at, 2), v))  # noqa: E731
    holds(exact, A * x.unit * abs(exact), check, "ATL-R005", "gate coordinates")


def routing_at(x: Layer, at: int) -> int:
    key = (x.state["window_id"][at], x.state["position"][at])
    return list(zip(x.routing["window_id"], x.routing["position"], strict=True)).index(key)


@where
def test_3_margins_are_differences_of_scores_and_of_logits(name: str, run: str) -> None:
    x = layer(name, run)
    for at in (0, 7):
        there = routing_at(x, at)
        scores = [float(v) for v in x.state["dispatch"][at]]
        out, into = int(x.routing["competitor_out"][there]), int(x.routing["competitor_in"][there])
        check = lambda v, there=there: against(x, x.state, changed(x.routing, "margin", there, v))  # noqa: E731
        tolerance = A * U * max(abs(s) for s in scores)
        holds(max(scores[out] - scores[into], 0.0), tolerance, check, "ATL-R006", "difference of the pair")
        if x.space == "logit":
            z = x.state["z"][at].tolist()
            exact = x.logit(z, out) - x.logit(z, into)
            tolerance = x.logit_bound(z, out, x.unit) + x.logit_bound(z, into, x.unit)
            check = lambda v, at=at: against(x, changed(x.state, "margin_logit", at, v), x.routing)  # noqa: E731
            holds(exact, tolerance, check, "ATL-R006", "margin_logit")


@pytest.mark.parametrize("name", ["groups", "softmax and bias"])
def test_3_the_group_margin_is_the_difference_of_strengths(name: str) -> None:
    x = layer(name, ARM)
    there, size = routing_at(x, 4), x.dims.E // 4
    scores, kept = x.state["dispatch"][4].astype(np.float32), x.state["admissible"][4].reshape(4, size).any(axis=1)
    taken = 1 if name != "groups" else 2
    strength = [float(np.float32(sum(sorted(scores[g * size : (g + 1) * size])[-taken:]))) for g in range(4)]
    exact = min(s for s, k in zip(strength, kept, strict=True) if k) - max(
        s for s, k in zip(strength, kept, strict=True) if not k
    )
    check = lambda v: against(x, x.state, changed(x.routing, "group_margin", there, v))  # noqa: E731
    holds(exact, A * U * max(abs(s) for s in strength), check, "ATL-R021", "group margin")


@where
def test_5_combine_weights_follow_from_scores(name: str, run: str) -> None:
    x = layer(name, run)
    members = [int(m) for m in x.routing["experts"][routing_at(x, 6)]]
    scores = [float(v) for v in x.state["dispatch"][6]]
    for slot in range(len(members)):
        check = lambda v, slot=slot: against(x, changed(x.state, "weights", (6, slot), v), x.routing)  # noqa: E731
        tolerance = A * (x.unit + 2 * U) * x.slack(scores, members)[slot]
        holds(x.weights(scores, members)[slot], tolerance, check, "ATL-R007", "combine weights")


class Same:
    """The rows of one arm's same-state evaluation, and the check of them."""

    def __init__(self, name: str) -> None:
        self.base, self.arm = layer(name, "base"), layer(name, ARM)
        self.update = self.arm.study.source().read("update", (ARM, LAYER))
        self.z = self.base.state["z"].astype(np.float64)
        self.starts = self.update.offsets("experts")

    def check(self, update: Rows, before: Rows | None = None) -> list[Violation]:
        side = BaseSide(
            States.of(self.base.state, self.base.facts), self.base.facts, self.base.tolerances, self.base.dims
        )
        if before is not None:
            assert side.check(before, self.arm.facts, update_groups(before)) == []
        return side.check(update, self.arm.facts, update_groups(update))

    def experts(self, at: int) -> list[int]:
        return [int(e) for e in self.update["experts"][self.starts[at] : self.starts[at + 1]]]

    def listed(self, column: str, at: int) -> list[float]:
        return [float(v) for v in self.update[column][self.starts[at] : self.starts[at + 1]]]

    def gram(self, at: int) -> list[list[float]]:
        n = 2 * len(self.experts(at))
        start = int(self.update.offsets("gram")[at])
        packed = iter(self.update["gram"][start : start + n * (n + 1) // 2].tolist())
        full = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i, n):
                full[i][j] = full[j][i] = next(packed)
        return full


@cache
def same(name: str) -> Same:
    return Same(name)


each = pytest.mark.parametrize("name", WORLDS)


@each
def test_8_same_state_scores_follow_from_the_bases_state(name: str) -> None:
    x, at = same(name), 9
    for side, model in (("0", x.base), ("1", x.arm)):
        z, e = x.z[at].tolist(), 1
        check = lambda v, column=f"dispatch{side}", e=e: x.check(scored(x.update, column, (at, e), v))  # noqa: E731
        exact, tolerance = model.score(z, e), model.score_bound(z, e, U)
        for sign in (-1, 1):
            within = [v for v in check(exact + sign * 0.9 * tolerance) if f"dispatch{side}" in v.what]
            beyond = [v for v in check(exact + sign * 1.1 * tolerance) if f"dispatch{side}" in v.what]
            assert (within, [v.wrong for v in beyond]) == ([], [1]), (side, sign)


@each
def test_8_weights_follow_from_same_state_scores(name: str) -> None:
    x, at = same(name), 11
    experts, k = x.experts(at), x.base.dims.k
    zero = [float(v) for v in x.update["dispatch0"][at]]
    for side, model in (("0", x.base), ("1", x.arm)):
        scores = [float(v) for v in x.update[f"dispatch{side}"][at]]
        bits = int(x.update[f"in{side}"][at])
        members = sorted((e for i, e in enumerate(experts) if bits >> i & 1), key=lambda e: -scores[e])
        slot = experts.index(members[0])
        check = lambda v, side=side, slot=slot: x.check(changed(x.update, f"rho{side}", x.starts[at] + slot, v))  # noqa: E731
        tolerance = 4 * A * U * max(model.slack(scores, members))
        holds(model.weights(scores, members)[0], tolerance, check, "ATL-R008", f"rho{side} does not follow")
        bits0 = int(x.update["in0"][at])
        forced = sorted((e for i, e in enumerate(experts) if bits0 >> i & 1), key=lambda e: -zero[e])
        column = "rho0_b" if side == "0" else "rho1_b_forced"
        of_pair = lambda v, column=column: x.check(changed(x.update, column, at, v))  # noqa: E731
        tolerance = 4 * A * U * max(model.slack(scores, forced))
        holds(model.weights(scores, forced)[k - 1], tolerance, of_pair, "ATL-R008", f"{column} is not")


@each
def test_4_the_diagonal_of_the_gram_matrix_follows_from_the_updates(name: str) -> None:
    x, at, slot = same(name), 4, 1
    n, d, gram = len(x.experts(at)), x.base.dims.d, x.gram(at)
    zz = math.fsum(v * v for v in x.z[at].tolist())
    for side in ("0", "1"):
        uu, uz = x.listed(f"uu{side}", at)[slot], x.listed(f"uz{side}", at)[slot]
        norm0, delta, cross = gram[slot][slot], gram[n + slot][n + slot], gram[slot][n + slot]
        stated = norm0 if side == "0" else norm0 + 2 * cross + delta
        exact = stated + uz**2 * (2 / d - zz / d**2)  # what ||u||² must be
        tolerance = REL * (uu + norm0 + delta)
        for sign in (-1, 1):
            for factor, wrong in ((WITHIN, []), (BEYOND, [1])):
                update = changed(x.update, f"uu{side}", x.starts[at] + slot, exact + sign * factor * tolerance)
                found = [v.wrong for v in x.check(update) if v.rule == "ATL-R009" and f"v{side}||" in v.what]
                assert found == wrong, (side, sign, factor)


@each
def test_9_recorded_norms_follow_from_the_gram_matrix(name: str) -> None:
    x, at = same(name), 8
    n, d, gram = len(x.experts(at)), x.base.dims.d, x.gram(at)
    rho0, rho1, uz0, uz1 = (x.listed(c, at) for c in ("rho0", "rho1", "uz0", "uz1"))
    zz = math.fsum(v * v for v in x.z[at].tolist())
    both = [b - a for a, b in zip(rho0, rho1, strict=True)] + rho1

    def quadratic(c: list[float]) -> float:
        return math.fsum(c[i] * gram[i][j] * c[j] for i in range(len(c)) for j in range(len(c)))

    def whole(tangent: float, a: float) -> float:
        """||v + z a / d||² with <v, z> = a (1 - ||z||²/d)."""
        return tangent + 2 * a * a / d * (1 - zz / d) + a * a * zz / d**2

    radial0 = math.fsum(r * u for r, u in zip(rho0, uz0, strict=True))
    radial1 = math.fsum(r * u for r, u in zip(rho1, uz1, strict=True))
    sizes = math.fsum(r * math.sqrt(u) for r, u in zip(rho0, x.listed("uu0", at), strict=True))
    sizes += math.fsum(r * math.sqrt(u) for r, u in zip(rho1, x.listed("uu1", at), strict=True))
    exact = {
        "dV_norm": quadratic(both), "y0_norm": whole(quadratic([*rho0, *[0.0] * n]), radial0),
        "dy_norm": whole(quadratic(both), radial1 - radial0),
    }  # fmt: skip
    for column, squared in exact.items():
        told = [BEYOND] if column == "dV_norm" or not x.base.facts.shared else []
        for sign in (-1, 1):
            for factor in (WITHIN, BEYOND):
                update = changed(x.update, column, at, math.sqrt(squared + sign * factor * REL * sizes**2))
                found = [v for v in x.check(update) if v.rule == "ATL-R010" and column in v.what]
                assert bool(found) == (factor in told), (column, sign, factor)


@pytest.mark.parametrize("column", ["uu0", "uz0"])
def test_the_bases_own_updates_agree_between_runs(column: str) -> None:
    """Within the float32 bound of an inner product, `A d u` of the sizes; of the first run's rows, whichever that is."""
    x, at = same("plain"), 4
    where_ = int(x.starts[at]) + 1
    size, stated, d = float(x.update["uu0"][where_]), float(x.update[column][where_]), x.base.dims.d
    tolerance = A * d * U * (size if column == "uu0" else math.sqrt(size * d))
    for sign in (-1, 1):
        for factor, wrong in ((WITHIN, []), (BEYOND, [1])):
            update = changed(x.update, column, where_, stated + sign * factor * tolerance)
            assert [v.wrong for v in x.check(update, before=x.update) if v.rule == "ATL-R016"] == wrong, (sign, factor)


def test_12_vectors_have_the_inner_products_of_the_gram_matrix() -> None:
    x, s = same("plain"), study()
    vectors = s.source().read("update_vector", (ARM, LAYER))
    key = (vectors["window_id"][0], vectors["position"][0])
    at = list(zip(x.update["window_id"], x.update["position"], strict=True)).index(key)
    n, d = len(x.experts(at)), x.base.dims.d
    flat = {name: vectors[name][: n * d].astype(np.float64).reshape(n, d) for name in ("v0", "v1")}
    both = [*flat["v0"], *(flat["v1"] - flat["v0"])]
    gram = x.gram(at)

    def error(i: int) -> float:
        a = float(np.linalg.norm(flat["v0"][i % n]))
        return A * U * (a if i < n else a + float(np.linalg.norm(flat["v1"][i % n])))

    start = int(x.update.offsets("gram")[at])
    for i, j in ((0, 0), (0, 1), (1, n), (n, n + 1)):
        packed = start + sum(2 * n - row for row in range(i)) + j - i
        a, b = math.sqrt(gram[i][i]), math.sqrt(gram[j][j])
        exact, tolerance = float(both[i] @ both[j]), error(i) * b + a * error(j) + error(i) * error(j)
        for sign in (-1, 1):
            for factor, wrong in ((WITHIN, []), (BEYOND, [1])):
                update = changed(x.update, "gram", packed, exact + sign * factor * tolerance)
                found = check_vectors(vectors, update, x.z, x.base.tolerances, equal=False)
                assert [v.wrong for v in found if "inner products" in v.what] == wrong, (i, j, sign, factor)
