"""Everything that is reported beside the gated cells, from plain rows: one token at a time, one cluster at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import bootstrap
from .measures import combination_norm, members, norm, transition_token, unpack_gram
from .routers import Rule, combine, gates, ranked, scores_of, strengths
from .rows import Row

Pair = tuple[float, float]
Tokens = list[tuple[str, float, float]]
"""(cluster, numerator, denominator) of every token that counts."""


@dataclass(frozen=True)
class Number:
    """A value with its standard error, and the tokens behind it."""

    value: float | None
    error: float | None = None
    count: int = 0


@dataclass
class Rows:
    """The rows of a study, and where its windows belong."""

    tables: Mapping[str, Sequence[Row]]
    k: int
    experts: int
    d: int
    merge_below: int
    cluster: dict[str, str] = field(default_factory=dict)
    domain: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.tables["window"]:
            self.cluster[row["window_id"]] = row["cluster_id"]
            self.domain[row["cluster_id"]] = row["domain"]

    def of(self, table: str, run: str, layer: int | None = None) -> list[Row]:
        """Rows of one run, and of one layer where the table has layers."""
        return [r for r in self.tables[table] if r["run_id"] == run and (layer is None or r["layer"] == layer)]

    def rule(self, run: str, layer: int) -> Rule:
        return Rule.of(self.of("layer", run, layer)[0])

    def ratio(self, tokens: Tokens, domain: str | None = None, bytes_of: Mapping[str, float] | None = None) -> Number:
        """Ratio of sums with its error: merged strata, or one domain as its only stratum."""
        sums: dict[str, list[list[float]]] = {c: [[], []] for c in self.domain if domain in (None, self.domain[c])}
        count = 0
        for cluster, n, d in tokens:
            if cluster in sums:
                sums[cluster][0].append(n)
                sums[cluster][1].append(d)
                count += 1
        totals = {c: (math.fsum(n), math.fsum(d)) for c, (n, d) in sums.items()}
        if bytes_of is not None:
            totals = {c: (n, bytes_of[c]) for c, (n, _) in totals.items()}
        sizes: dict[str, int] = {}
        for c in totals:
            sizes[self.domain[c]] = sizes.get(self.domain[c], 0) + 1
        merged = bootstrap.merge_strata(sizes, self.merge_below)
        strata = [
            [totals[c] for c in totals if merged[self.domain[c]] == name] for name in sorted(set(merged.values()))
        ]
        value, error = bootstrap.ratio_and_se(strata)
        return Number(value, None if value is None or all(len(s) < 2 for s in strata) else error, count)

    # --- tokens -----------------------------------------------------------------------------------------------

    def paired(self, table: str, run: str, layer: int | None, take: Callable[[Row, Row], Pair | None]) -> Tokens:
        """Tokens of a quantity of base and run, row by row."""
        base = {(r["window_id"], r["position"]): r for r in self.of(table, "base", layer)}
        found = []
        for row in self.of(table, run, layer):
            pair = take(base[row["window_id"], row["position"]], row)
            if pair is not None:
                found.append((self.cluster[row["window_id"]], *pair))
        return found

    def single(self, table: str, run: str, layer: int, take: Callable[[Row], Pair | None]) -> Tokens:
        """Tokens of a quantity of one run."""
        pairs = [(self.cluster[r["window_id"]], take(r)) for r in self.of(table, run, layer)]
        return [(cluster, *pair) for cluster, pair in pairs if pair is not None]


# --- layers ---------------------------------------------------------------------------------------------------------


def update_sizes(row: Row) -> tuple[list[float], list[float]]:
    """Norms of the base's updates and of their changes, over the listed experts."""
    n = len(row["experts"])
    gram = unpack_gram(row["gram"], 2 * n)
    return [math.sqrt(max(0.0, gram[i][i])) for i in range(n)], [
        math.sqrt(max(0.0, gram[n + i][n + i])) for i in range(n)
    ]


def router_term(row: Row) -> Pair:
    sizes, _ = update_sizes(row)
    moved = math.fsum(abs(b - a) * s for a, b, s in zip(row["rho0"], row["rho1"], sizes, strict=True))
    return moved, math.fsum(a * s for a, s in zip(row["rho0"], sizes, strict=True))


def tightness(row: Row) -> Pair:
    _, changes = update_sizes(row)
    return row["dV_norm"], router_term(row)[0] + math.fsum(b * s for b, s in zip(row["rho1"], changes, strict=True))


def router_shift(rules: tuple[Rule, Rule], row: Row) -> Pair | None:
    """Sum of log ratios of gate values over the base's set; experts without a positive value on both sides leave it."""
    p0, p1 = (gates(rule, row[f"dispatch{side}"]) for side, rule in enumerate(rules))
    chosen = [row["experts"][i] for i in members(row["in0"], len(row["experts"]))]
    logs = [math.log(p1[e] / p0[e]) for e in chosen if p0[e] > 0 and p1[e] > 0]
    return (math.fsum(logs), float(len(logs))) if logs else None


def certified(rule: Rule, row: Row) -> Pair | None:
    """Whether the change of scores is too small to change the set."""
    if row["pair_in"] is None:
        return None
    before, after = row["dispatch0"], row["dispatch1"]
    left = set(ranked(rule, before))
    change = [b - a for a, b in zip(before, after, strict=True)]
    spread = max(change[e] for e in left) - min(change[e] for e in left)
    holds = spread < before[row["pair_out"]] - before[row["pair_in"]]
    if rule.mode != "none":
        ordered = sorted(strengths(rule, before), reverse=True)
        gap = ordered[rule.kept - 1] - ordered[rule.kept] - 2.0**-20 * max(abs(x) for x in before)
        holds = holds and max(change) - min(change) < (gap / 2 if rule.mode == "top2_sum" else gap)
    return float(holds), 1.0


def one_swap(rule: Rule, k: int, row: Row) -> Pair | None:
    """(||V(R') - V(R) - rho_b (v_b' - v_b)||, ||V(R') - V(R)||) of the base, weights recomputed for both forced sets."""
    if row["pair_in"] is None:
        return None
    scores, places = row["dispatch0"], {e: i for i, e in enumerate(row["experts"])}
    base = ranked(rule, scores)[:k]
    before, after = combine(rule, scores, base), combine(rule, scores, [*base[:-1], row["pair_in"]])
    gram = unpack_gram(row["gram"], 2 * len(places))
    jump = {places[e]: after.get(e, 0.0) - before.get(e, 0.0) for e in {*before, *after}}
    rest = dict(jump)
    rest[places[row["pair_in"]]] = rest.get(places[row["pair_in"]], 0.0) - before[base[-1]]
    rest[places[base[-1]]] = rest.get(places[base[-1]], 0.0) + before[base[-1]]
    return combination_norm(gram, rest), combination_norm(gram, jump)


def tangent(row: Row, of_base: bool) -> Pair:
    n = len(row["experts"])
    gram = unpack_gram(row["gram"], 2 * n)
    visible = [combination_norm(gram, {i: 1.0} if of_base else {i: 1.0, n + i: 1.0}) for i in range(n)]
    return math.fsum(visible), math.fsum(math.sqrt(max(0.0, u)) for u in row["uu0" if of_base else "uu1"])


def angular_holds(layer: Row, rule: Rule, k: int, state: Row) -> Pair:
    """Whether the set of the stored router at sqrt(d) z/||z|| is that at z."""
    d, z = len(state["z"]), state["z"]
    convention = layer["gain_convention"]
    factor = [1.0 if convention == "none" else x + 1.0 if convention == "1+w" else x for x in layer["gain"]]
    bias = layer["router_bias"] or [0.0] * (len(layer["router_weight"]) // d)

    def routed(point: Sequence[float]) -> set[int]:
        g = [f * x for f, x in zip(factor, point, strict=True)]
        rows = [layer["router_weight"][e * d : (e + 1) * d] for e in range(len(bias))]
        logits = [math.fsum(w * x for w, x in zip(row, g, strict=True)) + bias[e] for e, row in enumerate(rows)]
        return set(ranked(rule, scores_of(rule, logits))[:k])

    stretch = math.sqrt(d) / norm(z)
    return float(routed(z) == routed([stretch * x for x in z])), 1.0


def norm_change(eps: tuple[float, float], d: int, base: Row, arm: Row) -> Pair | None:
    before, after = (math.sqrt(max(0.0, d * (row["r"] ** 2 - e))) for row, e in zip((base, arm), eps, strict=True))
    return (abs(after - before) / before, 1.0) if before > 0 else None


def margin_shift(base: Row, arm: Row) -> Pair | None:
    return None if base["margin"] is None or arm["margin"] is None else (arm["margin"] - base["margin"], 1.0)


def layer_ratios(rows: Rows, run: str, layer: int) -> dict[str, Number]:
    """Reported ratios of one arm in one layer."""
    rules = rows.rule("base", layer), rows.rule(run, layer)
    eps = rows.of("layer", "base", layer)[0]["eps"], rows.of("layer", run, layer)[0]["eps"]
    same = rules[0].space == rules[1].space
    tokens: dict[str, Tokens | None] = {
        "native.turnover/1": rows.paired(
            "routing", run, layer, lambda a, b: (1 - len(set(a["experts"]) & set(b["experts"])) / rows.k, 1.0)),
        "margin.shift/1": rows.paired("routing", run, layer, margin_shift) if same else None,
        "baseline.norm/1": rows.paired("state", run, layer, lambda a, b: norm_change(eps, rows.d, a, b)),
        "router.term/1": rows.single("update", run, layer, router_term),
        "bound.tightness/1": rows.single("update", run, layer, tightness),
        "router.shift/1": rows.single("update", run, layer, lambda r: router_shift(rules, r)),
        "certificate.share/1": rows.single("update", run, layer, lambda r: certified(rules[0], r)) if same else None,
        "transport_local/1": rows.single(
            "update", run, layer, lambda r: None if r["transport_angle"] is None else (r["transport_angle"], 1.0)),
    }  # fmt: skip
    return {name: Number(None) if t is None else rows.ratio(t) for name, t in tokens.items()}


def base_ratios(rows: Rows, layer: int, first_arm: str) -> dict[str, Number]:
    """Reported ratios of the base in one layer."""
    rule = rows.rule("base", layer)
    executed = {(r["window_id"], r["position"]): set(r["experts"]) for r in rows.of("routing", "base", layer)}

    def agrees(row: Row) -> Pair:
        return float(executed[row["window_id"], row["position"]] == set(ranked(rule, row["dispatch0"])[: rows.k])), 1.0

    return {
        "same_state.agreement/1": rows.ratio(rows.single("update", first_arm, layer, agrees)),
        "one_swap.residual/1": rows.ratio(rows.single("update", first_arm, layer, lambda r: one_swap(rule, rows.k, r))),
    }


def assumptions(rows: Rows, run: str, layer: int, update_run: str) -> dict[str, Number]:
    """Measured assumptions; ``update_run`` names the update rows that hold the run's updates."""
    row, rule = rows.of("layer", run, layer)[0], rows.rule(run, layer)
    return {
        "assumption.rank/1": Number(float(row["w1_rank_min"]), None, rows.experts),
        "assumption.angular/1": rows.ratio(
            rows.single("state", run, layer, lambda r: angular_holds(row, rule, rows.k, r))
        ),
        "assumption.tangent/1": rows.ratio(
            rows.single("update", update_run, layer, lambda r: tangent(r, run == "base"))
        ),
    }


# --- overlap --------------------------------------------------------------------------------------------------------


def overlap(rows: Rows, run: str, layer: int) -> dict[str, Number]:
    """Drift, residual and condition over the visited pairs."""
    seen = [r for r in rows.of("overlap", run, layer) if r["visits"] > 0]
    if not seen:
        return {name: Number(None) for name in ("overlap.drift/1", "overlap.residual/1", "overlap.condition/1")}
    size = math.fsum(r["drift_den"] for r in seen)
    conditions = sorted(r["cond"] for r in seen if r["cond"] is not None and r["rank"] == rows.d)
    half = len(conditions) // 2
    median = conditions[half] if len(conditions) % 2 else sum(conditions[half - 1 : half + 1]) / 2
    residual = math.fsum(r["visits"] * r["residual"] for r in seen) / sum(r["visits"] for r in seen)
    return {
        "overlap.drift/1": Number(
            math.fsum(r["drift_num"] for r in seen) / size if size > 0 else None, None, len(seen)
        ),
        "overlap.residual/1": Number(residual, None, len(seen)),
        "overlap.condition/1": Number(median if len(conditions) == len(seen) else None, None, len(seen)),
    }


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def rank_correlation(rows: Rows, run: str, layer: int) -> Number:
    """Spearman's correlation of the base's condition numbers with the pairs' transition drift."""
    drift: dict[tuple[int, int], list[Pair]] = {}
    for row in rows.of("update", run, layer):
        token = transition_token(row)
        if token is not None:
            drift.setdefault((row["pair_out"], row["pair_in"]), []).append(token)
    points = []
    for row in rows.of("overlap", "base", layer):
        tokens = drift.get((row["expert_a"], row["expert_b"]), [])
        size = math.fsum(d for _, d in tokens)
        if len(tokens) >= 5 and size > 0 and row["cond"] is not None:
            points.append((row["cond"], math.fsum(n for n, _ in tokens) / size))
    if len(points) < 5:
        return Number(None, None, len(points))
    x, y = (ranks([p[i] for p in points]) for i in (0, 1))
    middle = (len(points) + 1) / 2
    top = math.fsum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    size = math.sqrt(math.fsum((a - middle) ** 2 for a in x) * math.fsum((b - middle) ** 2 for b in y))
    return Number(top / size if size > 0 else None, None, len(points))


# --- occupancy ------------------------------------------------------------------------------------------------------


def loads(rows: Rows, run: str, layer: int) -> list[float]:
    """Load fractions of all experts, from every token."""
    counts = [0] * rows.experts
    for row in rows.of("routing", run, layer):
        for e in row["experts"]:
            counts[e] += 1
    return [c / sum(counts) for c in counts]


def entropy(load: Iterable[float]) -> float:
    return -math.fsum(x * math.log(x) for x in load if x > 0)


def occupancy(rows: Rows, run: str, layer: int, rarefied: int) -> dict[str, float | int | list[float] | None]:
    """One layer's occupancy by name."""
    load = loads(rows, run, layer)
    mean = math.fsum(load) / len(load)
    sets: dict[frozenset[int], int] = {}
    for row in rows.of("routing", run, layer):
        sets[frozenset(row["experts"])] = sets.get(frozenset(row["experts"]), 0) + 1
    return {
        "layer": layer, "tokens": sum(sets.values()), "pi": [rows.k * x for x in load],
        "cv_percent": 100 * math.sqrt(math.fsum((x - mean) ** 2 for x in load) / len(load)) / mean,
        "entropy_nats": entropy(load), "max_load_percent": 100 * max(load), "experts_active": sum(x > 0 for x in load),
        "effective_experts": math.exp(entropy(load)), "distinct_sets": expected_distinct(list(sets.values()), rarefied),
    }  # fmt: skip


def expected_distinct(counts: Sequence[int], drawn: int) -> float | None:
    """Hurlbert's expectation by exact binomial coefficients."""
    total = sum(counts)
    if drawn > total:
        return None
    return math.fsum(1 - math.comb(total - n, drawn) / math.comb(total, drawn) for n in counts)


def distinct_by_enumeration(counts: Sequence[int], drawn: int) -> float:
    """The same by drawing every possible sample."""
    tokens = [kind for kind, n in enumerate(counts) for _ in range(n)]
    samples = [len(set(chosen)) for chosen in itertools.combinations(tokens, drawn)]
    return sum(samples) / len(samples)


def shifts(rows: Rows, run: str, layer: int) -> dict[str, Number]:
    """Cross-fitted and plug-in distances of the marginal and of swap adjacency."""

    def counted(of: str, kind: str, half: int | None) -> dict[object, int]:
        found: dict[object, int] = {}
        for row in rows.of("routing", of, layer):
            if half is not None and int(rows.cluster[row["window_id"]][-1], 16) % 2 != half:
                continue
            swap = [(row["competitor_out"], row["competitor_in"])] if row["competitor_in"] is not None else []
            for item in row["experts"] if kind == "pi" else swap:
                found[item] = found.get(item, 0) + 1
        return found

    def shares(of: str, kind: str, half: int | None) -> dict[object, float]:
        found = counted(of, kind, half)
        total = sum(found.values())
        return {item: n / total for item, n in found.items()} if total else {}

    made: dict[str, Number] = {}
    for kind in ("pi", "adjacency"):
        whole = [shares(of, kind, None) for of in ("base", run)]
        plugin = sum(abs(whole[1].get(i, 0.0) - whole[0].get(i, 0.0)) for i in {*whole[0], *whole[1]}) / 2
        count = sum(counted(run, kind, None).values())
        made[f"{kind}.shift_plugin/1"] = Number(plugin if count else None, None, count)
        halves = [[shares(of, kind, half) for of in ("base", run)] for half in (0, 1)]
        if not all(p for half in halves for p in half):
            made[f"{kind}.shift/1"] = Number(None, None, count)
            continue
        judged = []
        for half in (0, 1):
            (p0, p1), (q0, q1) = halves[half], halves[1 - half]
            chosen = [i for i in p1 if p1[i] > p0.get(i, 0.0)]
            judged.append(math.fsum(q1.get(i, 0.0) - q0.get(i, 0.0) for i in chosen))
        made[f"{kind}.shift/1"] = Number(sum(judged) / 2, None, count)
    return made


# --- outputs and scores ---------------------------------------------------------------------------------------------


def domain_numbers(rows: Rows, run: str, domain: str) -> dict[str, Number]:
    """Losses of one run in one domain."""
    bytes_of: dict[str, float] = {}
    for row in rows.tables["window"]:
        bytes_of[row["cluster_id"]] = bytes_of.get(row["cluster_id"], 0.0) + row["predicted_bytes"]
    loss = rows.paired("output", run, None, lambda _, b: (b["nll"], 1.0))
    bits = [(cluster, n / math.log(2), d) for cluster, n, d in loss]
    mean = rows.ratio(loss, domain)
    found = {
        "damage.bits_per_byte/1": rows.ratio(bits, domain, bytes_of),
        "damage.perplexity/1": Number(None if mean.value is None else math.exp(mean.value), None, mean.count),
    }
    if run != "base":
        kl = rows.paired("output", run, None, lambda _, b: (b["kl_from_base"], 1.0))
        top = rows.paired("output", run, None, lambda a, b: (float(a["top1"] == b["top1"]), 1.0))
        found["damage.kl/1"] = rows.ratio(kl, domain)
        found["damage.top1_agreement/1"] = rows.ratio(top, domain)
    return found


def matched(
    a: Mapping[str, float], b: Mapping[str, float], seeds: Sequence[bytes], resamples: int, alpha: float, tolerance: float,
    rare: int,
) -> tuple[float, float | None, float | None, str]:  # fmt: skip
    """(difference, lower, upper, state) of two arms' scores over the same items."""
    change = {item: a[item] - b[item] for item in sorted(a)}
    difference = math.fsum(change.values()) / len(change)
    differing = sum(x != 0 for x in change.values())
    if not differing:
        return 0.0, 0.0, 0.0, "matched"
    if differing < rare:
        up, down = (sum(s * x > 0 for x in change.values()) for s in (1, -1))
        bounds = [
            -bootstrap.clopper_pearson_upper(down, len(change), alpha),
            bootstrap.clopper_pearson_upper(up, len(change), alpha),
        ]
        return difference, bounds[0], bounds[1], verdict_of([(bounds[0], bounds[1], 0.0)], tolerance)
    found = []
    for seed in seeds:
        clusters = [("all", item, x, 1.0) for item, x in change.items()]
        interval = bootstrap.point_and_interval(clusters, seed, resamples, alpha, nonnegative=False)
        if interval.lower is None or interval.upper is None:
            return difference, None, None, "undetermined"
        worst = max(interval.mc_lower, interval.mc_upper, interval.mc_simultaneous_lower)
        found.append((interval.lower, interval.upper, bootstrap.MC_MULTIPLE * worst))
    return difference, found[0][0], found[0][1], verdict_of(found, tolerance)


def verdict_of(intervals: Sequence[tuple[float, float, float]], tolerance: float) -> str:
    """matched or different where every interval says so beyond its margin."""
    if all(low - m >= -tolerance and up + m <= tolerance for low, up, m in intervals):
        return "matched"
    if all(low - m > tolerance or up + m < -tolerance for low, up, m in intervals):
        return "different"
    return "undetermined"
