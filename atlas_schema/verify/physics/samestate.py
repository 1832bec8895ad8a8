"""Same-state evaluation of one layer at the base's states: scores, sets, weights, Gram matrices (R008 to R011, R016, R022, R130)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas_schema.documents.contract import Tolerances
from atlas_schema.evidence.columns import Array, Rows
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures.drift import Group, row_name
from atlas_schema.measures.geometry import F64, Ints, tangent_squared
from atlas_schema.measures.routers import Mask, RouterRule
from atlas_schema.verify.physics.layers import LayerFacts
from atlas_schema.verify.physics.native import States, admitted
from atlas_schema.verify.physics.vectors import base_vectors
from atlas_schema.verify.physics.violations import Violation, by_slot, first_false, first_wrong

ROUNDING = 2.0**-40
"""What sums of vectors in float64 may lose of the sizes added, where an exact bound is compared."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What scores ``[T, E]`` decide: the best ``k + 1`` ids in order, members, and their weights over all experts."""

    scores: Array
    top: Ints
    member: Mask
    weights: F64

    @classmethod
    def of(cls, scores: Array, facts: LayerFacts, k: int) -> Choice:
        """Apply a router's rule to stored float32 scores."""
        wide = scores.astype(np.float64)
        top = leading(facts.rule, wide, k)
        member, weights = np.zeros(scores.shape, dtype=np.bool_), np.zeros(scores.shape)
        np.put_along_axis(member, top[:, :k], True, axis=1)
        np.put_along_axis(weights, top[:, :k], facts.rule.weights(wide, top[:, :k]), axis=1)
        return cls(scores, top, member, weights)


def leading(rule: RouterRule, scores: F64, k: int) -> Ints:
    """Return the first ``k + 1`` (or all) ids of the rule's order ``[T, k + 1]``; sorts only what it returns."""
    free = np.where(rule.admissible(scores), scores, -np.inf) if rule.group_mode != "none" else scores
    experts = scores.shape[1]
    if k + 1 >= experts:
        return rule.order(scores)
    part = np.sort(np.argpartition(-free, k, axis=1)[:, : k + 1], axis=1)
    values = np.take_along_axis(free, part, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    top = np.take_along_axis(part, order, axis=1).astype(np.int64)
    # Where the last one chosen ties with one left out, the partition chose arbitrarily.
    tied = np.flatnonzero((free >= values.min(axis=1, keepdims=True)).sum(axis=1) > k + 1)
    if len(tied):
        top[tied] = rule.order(scores[tied])[:, : k + 1]
    return top


class BaseSide:
    """What is the same for every run of a block: the base's states, choice, and updates as the first run states them."""

    def __init__(self, states: States, facts: LayerFacts, tolerances: Tolerances, dims: Dims) -> None:
        self.states, self.facts, self.tolerances, self.dims = states, facts, tolerances, dims
        self.choice: Choice | None = None
        self.uu0, self.uz0 = np.zeros((0, 0)), np.zeros((0, 0))
        self.inner, self.y0 = np.zeros((0, 0, 0)), np.zeros(0)
        self.vectors: F64 | None = None

    def check(self, update: Rows, arm: LayerFacts, groups: list[Group]) -> list[Violation]:
        """Check one run's rows. Rows whose scores or lists are wrong are not looked at further."""
        found = self._check_scores(update, arm)
        first = self.choice
        choice0 = first if first is not None and _equal(first.scores, update["dispatch0"]) else None
        choice0 = choice0 or Choice.of(update["dispatch0"], self.facts, self.dims.k)
        same = arm.identity == self.facts.identity and _equal(update["dispatch0"], update["dispatch1"])
        choice1 = choice0 if same else Choice.of(update["dispatch1"], arm, self.dims.k)
        found += self._check_sets(update, choice0, choice1)
        if found:
            return found
        found += self._check_weights(update, arm, choice0, choice1)
        for group in groups:
            found += _check_gram(update, group, self, self._adds_unseen(arm))
        if first is None:
            self.choice = choice0
            self.uu0, self.uz0 = (_dense(update, name, choice0.scores.shape) for name in ("uu0", "uz0"))
            self.inner, self.y0 = _inner(update, groups, choice0.top), update["y0_norm"]
            return found
        found += self._check_same_base(update)
        return found or self._check_same_field(update, groups)

    def _adds_unseen(self, arm: LayerFacts) -> tuple[bool, bool]:
        """Return whether the base's block adds what no row holds, and whether the change of the block may hold some of it.

        A shared expert with the base's tensors adds the same at the same state, and leaves the change alone.
        """
        names = ("shared", "norm.gain")
        same = all(arm.digests.get(name) == self.facts.digests.get(name) for name in names)
        return self.facts.shared, (arm.shared or self.facts.shared) and not same

    def check_same_vectors(self, vectors: Rows, update: Rows) -> list[Violation]:
        """Check that the base's stored vectors are the same in every run's rows (R130); both tables' rows passed their checks."""
        if self.choice is None or not vectors.n:
            return []
        found = base_vectors(vectors, update, self.choice.top)
        if self.vectors is None:
            self.vectors = found
            return []
        size = np.linalg.norm(self.vectors, axis=2, keepdims=True)
        allowed = self.tolerances.accumulation * self.dims.d * self.tolerances.float32_unit * size + 1e-300
        return first_wrong("ATL-R130", "the base's vectors differ between runs", vectors, found, self.vectors, allowed)

    def _check_same_field(self, update: Rows, groups: list[Group]) -> list[Violation]:
        """Check that inner products of the base's updates, and its block's output, are the same in every run's rows (R130).

        Looks at the base's set and competitor, which every run's rows list; values agree within the bound of R016.
        """
        if self.choice is None:
            return []
        relative = self.tolerances.accumulation * self.dims.d * self.tolerances.float32_unit
        size = np.sqrt(np.maximum(np.take_along_axis(self.uu0, self.choice.top, axis=1), 0.0))
        found = first_wrong(
            "ATL-R130", "inner products of the base's updates differ between runs", update,
            _inner(update, groups, self.choice.top), self.inner, relative * size[:, :, None] * size[:, None, :] + 1e-300,
        )  # fmt: skip
        scale = self.y0 + (np.take_along_axis(self.choice.weights, self.choice.top, axis=1) * size).sum(axis=1)
        return found + first_wrong("ATL-R130", "the output of the base's block differs between runs", update, update["y0_norm"],
                                   self.y0, relative * scale + 1e-300)  # fmt: skip

    def _check_scores(self, update: Rows, arm: LayerFacts) -> list[Violation]:
        found: list[Violation] = []
        for side, facts in (("0", self.facts), ("1", arm)):
            stated = update[f"dispatch{side}"]
            if side == "0" and self.choice is not None and _equal(self.choice.scores, stated):
                continue  # the same bits were compared in an earlier run's rows
            known = facts.identity == self.facts.identity
            scores = facts.rule.dispatch(self.states.logits if known else facts.logits(self.states.z))
            bound = facts.logit_bound(self.states.size, self.tolerances.float32_unit, self.tolerances)
            bound = facts.score_bound(bound, scores, self.tolerances.float32_unit, self.tolerances)
            found += first_wrong("ATL-R008", f"dispatch{side} does not follow from the base's state", update,
                                 stated.astype(np.float64), scores, bound)  # fmt: skip
        return found

    def _check_sets(self, update: Rows, zero: Choice, one: Choice) -> list[Violation]:
        """Check pair, member bits and the list of experts, which follow exactly from the stored scores (R008)."""
        k, u, row = self.dims.k, update, np.arange(update.n)
        rivals = k < admitted(self.facts.rule, self.dims)
        found = first_false("ATL-R008", "pair_out is not the base's k-th expert", u, u["pair_out"] == zero.top[:, k - 1],
                            u["pair_out"], zero.top[:, k - 1])  # fmt: skip
        has_pair = u.valid("pair_in")
        found += first_false(
            "ATL-R008", "pair_in is missing, or there without a competitor", u, has_pair == rivals, has_pair
        )
        listed = zero.member | one.member
        if rivals:
            found += first_false("ATL-R008", "pair_in is not the base's next expert", u, u["pair_in"] == zero.top[:, k],
                                 u["pair_in"], zero.top[:, k])  # fmt: skip
            listed[row, zero.top[:, k]] = True
        lengths, expected = np.diff(u.offsets("experts")), listed.sum(axis=1)
        what = "experts are not those of both sets and the pair"
        found += first_false("ATL-R008", what, u, lengths == expected, lengths, expected)
        if found:
            return found
        at, expert = np.nonzero(listed)
        differs = np.flatnonzero(u["experts"] != expert)
        if len(differs):
            rows = np.unique(at[differs])
            return [Violation("ATL-R008", what, row_name(u, int(rows[0])), "", "", wrong=len(rows))]
        slot = np.arange(len(at)) - u.offsets("experts")[:-1][at]
        for name, choice in (("in0", zero), ("in1", one)):
            # Bits of distinct slots add without carrying; doubles hold 32 of them exactly.
            bits = np.bincount(at, weights=choice.member[at, expert] * np.exp2(slot), minlength=u.n).astype(np.int64)
            found += first_false(
                "ATL-R008", f"{name} does not mark the members of R{name[2]}", u, u[name] == bits, u[name], bits
            )
        return found

    def _check_weights(self, update: Rows, arm: LayerFacts, zero: Choice, one: Choice) -> list[Violation]:
        """Check rho of both models and the forced weight of the pair's member (R008)."""
        found: list[Violation] = []
        at, experts, k = by_slot(update, "experts"), update["experts"].astype(np.int64), self.dims.k
        forced = zero.top[:, :k]
        for side, facts, choice, name in (("0", self.facts, zero, "rho0_b"), ("1", arm, one, "rho1_b_forced")):
            wide = choice.scores.astype(np.float64)
            unit = 4 * self.tolerances.accumulation * self.tolerances.float32_unit
            allowed = unit * facts.weight_slack(wide, choice.top[:, :k]).max(axis=1)
            off = np.abs(update[f"rho{side}"] - choice.weights[at, experts]) > allowed[at]
            worst = np.flatnonzero(off)
            if len(worst):
                slot, rows = int(worst[0]), np.unique(at[worst])
                found.append(Violation("ATL-R008", f"rho{side} does not follow from the scores", row_name(update, int(rows[0])),
                                       f"{update[f'rho{side}'][slot]:.9g}", f"{choice.weights[at, experts][slot]:.9g}",
                                       f"{allowed[at[slot]]:.3g} from the contract", len(rows)))  # fmt: skip
            expected = facts.rule.weights(wide, forced)[:, k - 1]
            allowed = unit * facts.weight_slack(wide, forced).max(axis=1)
            found += first_wrong("ATL-R008", f"{name} is not the weight of the pair's member", update,
                                 update[name].astype(np.float64), expected, allowed)  # fmt: skip
        return found

    def _check_same_base(self, update: Rows) -> list[Violation]:
        """Check that the base's own updates at its own states are the same in every run's rows (R016).

        Kernels see other batch shapes per run, so values agree within the float32 bound of an inner product, not bitwise.
        """
        at, expert = by_slot(update, "experts"), update["experts"].astype(np.int64)
        size = self.uu0[at, expert]
        relative = self.tolerances.accumulation * self.dims.d * self.tolerances.float32_unit
        found: list[Violation] = []
        for name, known, scale in (
            ("uu0", size, size),
            ("uz0", self.uz0[at, expert], np.sqrt(np.maximum(size, 0.0) * self.dims.d)),
        ):
            stated = update[name]
            wrong = np.flatnonzero(~((np.abs(stated - known) <= relative * scale) | np.isnan(size)))
            if len(wrong):
                slot, rows = int(wrong[0]), np.unique(at[wrong])
                found.append(Violation("ATL-R016", f"the base's {name} differs between runs", row_name(update, int(rows[0])),
                                       f"{stated[slot]:.9g}", f"{known[slot]:.9g}",
                                       f"{relative * scale[slot]:.3g} from the contract", len(rows)))  # fmt: skip
        return found


def _equal(a: Array, b: Array) -> bool:
    return a is b or bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))


def _dense(update: Rows, name: str, shape: tuple[int, ...]) -> F64:
    """Spread a list over ``experts`` to ``[T, E]``, NaN where an expert is not listed."""
    out = np.full(shape, np.nan)
    out[by_slot(update, "experts"), update["experts"].astype(np.int64)] = update[name]
    return out


def _inner(update: Rows, groups: list[Group], top: Ints) -> F64:
    """Return the inner products ``[T, n, n]`` of the base's tangent updates of the experts ``top`` ``[T, n]``, all listed."""
    out = np.zeros((update.n, top.shape[1], top.shape[1]))
    for group in groups:
        slot = (group.experts[:, None, :] == top[group.rows][:, :, None]).argmax(axis=2)
        row = np.arange(len(slot))[:, None, None]
        out[group.rows] = group.gram[row, slot[:, :, None], slot[:, None, :]]
    return out


def _check_gram(update: Rows, group: Group, base: BaseSide, unseen: tuple[bool, bool]) -> list[Violation]:
    """Check the Gram matrix against norms kept beside it (R009) and the recorded field norms against it (R010, R022)."""
    rows, n = update.take(group.rows), group.experts.shape[1]
    d, relative, zz = base.dims.d, base.tolerances.float64_relative, base.states.squared[group.rows]
    diagonal = np.diagonal(group.gram, axis1=1, axis2=2)
    norm0, change = diagonal[:, :n], diagonal[:, n:]
    cross = np.diagonal(group.gram[:, :n, n:], axis1=1, axis2=2)
    norm1 = norm0 + 2.0 * cross + change
    found: list[Violation] = []
    for side, uu, uz, vv in (("0", group.uu0, group.uz0, norm0), ("1", group.uu1, group.uz1, norm1)):
        expected, scale = tangent_squared(uu, uz, zz[:, None], d), relative * (uu + norm0 + change) + 1e-300
        what = f"||v{side}||² in the Gram matrix is not that of uu{side} and uz{side}"
        found += first_wrong("ATL-R009", what, rows, vv, expected, scale)
        cauchy = uz**2 <= uu * zz[:, None] * (1.0 + relative)
        found += first_false("ATL-R009", f"uz{side} exceeds ||u|| ||z||", rows, cauchy.all(axis=1), uz)
    root = np.sqrt(np.maximum(diagonal, 0.0))
    scaled = group.gram / np.maximum(root[:, :, None] * root[:, None, :], 1e-300)
    slack = 2 * n * max(relative, 1e-12)
    # Cauchy-Schwarz first: it keeps what follows finite, whatever is stored.
    largest = np.abs(scaled).max(axis=(1, 2))
    fine = (largest <= 1.0 + slack) & (diagonal >= 0).all(axis=1)
    found += first_false("ATL-R009", "inner products exceed the norms in the Gram matrix", rows, fine, largest)
    if found:
        return found
    lowest = _lowest_eigenvalues(scaled, slack)
    found += first_false("ATL-R009", "the Gram matrix is not positive semidefinite", rows, lowest >= -slack, lowest)
    return found + _check_fields(rows, group, root, zz, base, unseen)


def _lowest_eigenvalues(scaled: F64, slack: float) -> F64:
    """Return lowest eigenvalues ``[G]``, or zeros where a Cholesky factorisation shows that all are above ``-slack``."""
    try:
        np.linalg.cholesky(scaled + slack * np.eye(scaled.shape[1]))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.eigvalsh(scaled)[:, 0], dtype=np.float64)
    return np.zeros(len(scaled))


def _check_fields(
    rows: Rows, group: Group, root: F64, zz: F64, base: BaseSide, unseen: tuple[bool, bool]
) -> list[Violation]:
    """Recompute ``||ΔV||``, ``||y0||`` and ``||Δy||`` from Gram matrix and inner products (R010), and bound ``||ΔV||`` (R022).

    With ``u = v + z <u,z>/d`` and ``<v,z> = <u,z> (1 - ||z||²/d)``, a field's norm needs only its tangent part and the
    scalar ``a = sum rho <u,z>``. A shared expert adds what no row holds; then ``||y0||`` does not follow, and ``||Δy||`` only
    where that expert is the base's.
    """
    d, relative, n = base.dims.d, base.tolerances.float64_relative, group.rho0.shape[1]
    both = np.concatenate([group.rho1 - group.rho0, group.rho1], axis=1)

    def quadratic(gram: F64, c: F64) -> F64:
        out: F64 = ((gram @ c[:, :, None])[:, :, 0] * c).sum(axis=1)
        return out

    tangent, tangent0 = quadratic(group.gram, both), quadratic(group.gram[:, :n, :n], group.rho0)
    radial0 = (group.rho0 * group.uz0).sum(axis=1)
    radial = (group.rho1 * group.uz1).sum(axis=1) - radial0

    def whole(part: F64, a: F64) -> F64:
        return part + 2.0 * a**2 / d * (1.0 - zz / d) + a**2 * zz / d**2

    sizes = (group.rho0 * np.sqrt(group.uu0)).sum(axis=1) + (group.rho1 * np.sqrt(group.uu1)).sum(axis=1)
    found: list[Violation] = []
    for name, expected, hidden in (
        ("dV_norm", tangent, False),
        ("y0_norm", whole(tangent0, radial0), unseen[0]),
        ("dy_norm", whole(tangent, radial), unseen[1]),
    ):
        found += first_false("ATL-R010", f"{name} is negative", rows, rows[name] >= 0, rows[name])
        if not hidden:
            found += first_wrong("ATL-R010", f"{name}² does not agree with the Gram matrix", rows, rows[name] ** 2, expected,
                                 relative * sizes**2 + 1e-300)  # fmt: skip
    bound = (np.abs(both[:, :n]) * root[:, :n]).sum(axis=1) + (np.abs(group.rho1) * root[:, n:]).sum(axis=1)
    fits = rows["dV_norm"] <= bound * (1.0 + relative) + ROUNDING * sizes
    # Nothing changed at all: then nothing may have moved, not even by a rounding.
    fits &= (bound > 0) | (rows["dV_norm"] == 0)
    return found + first_false(
        "ATL-R022", "the field changed by more than weights and updates allow", rows, fits, rows["dV_norm"], bound
    )
