"""The oracle against closed forms, published answers and simulations with a known truth."""

from __future__ import annotations

import hashlib
import importlib
import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from .bootstrap import (
    CellInput,
    ClusterEntry,
    Interval,
    bootstrap_seeds,
    clopper_pearson_upper,
    draw_indices,
    entries,
    merge_strata,
    point_and_interval,
    rare_upper,
    ratio_and_se,
    raw_words,
    simultaneous_intervals,
    studentised,
    success_interval,
    success_state,
)
from .decisions import (
    ArmOutcome,
    CellState,
    Kleene,
    Verdict,
    cell_state,
    kleene_and,
    kleene_not,
    kleene_or,
    knowledge_expansive,
    protected_atlas_rewrite,
    under_both_seeds,
    verdict_and_flags,
)
from .measures import (
    BLOCK,
    BOUNDARY,
    CELLS,
    CONTENT,
    COORDINATE,
    MEAN,
    RATIO,
    TRANSITION,
    cluster_domains,
    cluster_sums,
    coordinate_angle,
    damage_sums,
    missing_pair_share,
    norm,
    unpack_gram,
)
from .merkle import (
    ColumnSpec,
    audit_path,
    leaf_bytes,
    leaf_hash,
    node_hash,
    resolve_shape,
    root_from_path,
    table_leaves,
    table_root,
    tree_root,
)
from .rows import read_rows

SEED = hashlib.sha256(b"self test").digest()


# --- generator ----------------------------------------------------------------------------------------------


def philox_block(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 as published, on one 256-bit counter."""
    mask = 2**64 - 1
    words = [(counter >> (64 * place)) & mask for place in range(4)]
    first, second = key
    for turn in range(10):
        if turn:
            first = (first + 0x9E3779B97F4A7C15) & mask
            second = (second + 0xBB67AE8584CAA73B) & mask
        product0 = 0xD2E7470EE14C6C93 * words[0]
        product1 = 0xCA5A826395121157 * words[2]
        words = [
            (product1 >> 64) ^ words[1] ^ first,
            product1 & mask,
            (product0 >> 64) ^ words[3] ^ second,
            product0 & mask,
        ]
    return words


def test_philox_known_answer() -> None:
    assert philox_block(0, (0, 0)) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_raw_words_start_after_the_first_increment() -> None:
    key = struct.unpack("<QQ", SEED[:16])
    expected = [word for counter in (1, 2, 3) for word in philox_block(counter, key)]
    assert raw_words(SEED, 12) == expected


def test_draws_fill_stratum_after_stratum() -> None:
    words = raw_words(SEED, 3 * 5 + 3 * 2)
    drawn = draw_indices(SEED, 3, [5, 2])
    assert drawn[0][1] == [math.floor((word >> 11) / 2**53 * 5) for word in words[5:10]]
    assert drawn[1][2] == [math.floor((word >> 11) / 2**53 * 2) for word in words[19:21]]
    assert {index for row in draw_indices(SEED, 200, [7])[0] for index in row} == set(range(7))


def test_seeds_differ_and_follow_from_both_digests() -> None:
    first, second = bootstrap_seeds(b"\1" * 32, b"\2" * 32)
    assert first == hashlib.sha256(b"atlas-bootstrap/1\0" + b"\1" * 32 + b"\2" * 32).digest()
    assert second == hashlib.sha256(b"atlas-second-seed/1\0" + first).digest()


# --- statistics ---------------------------------------------------------------------------------------------


def test_ratio_and_se_by_hand() -> None:
    # theta = 6/8 = 0.75. Stratum 1 residuals 0.25, -0.5, deviations +-0.375; stratum 2: -0.75, 1, +-0.875.
    # se^2 = (2 * 2 * 0.140625 + 2 * 2 * 0.765625) / 64 = 3.625 / 64.
    theta, se = ratio_and_se([[(1.0, 1.0), (1.0, 2.0)], [(0.0, 1.0), (4.0, 4.0)]])
    assert theta == 0.75
    assert se == pytest.approx(math.sqrt(3.625) / 8.0, rel=1e-15)


def test_ratio_with_equal_weights_is_the_mean() -> None:
    values = [0.3, 0.1, 0.7, 0.4, 0.9]
    theta, se = ratio_and_se([[(value, 1.0) for value in values]])
    mean = sum(values) / 5
    variance = sum((value - mean) ** 2 for value in values) / 4
    assert theta == pytest.approx(mean, rel=1e-15)
    assert se == pytest.approx(math.sqrt(variance / 5), rel=1e-14)


def test_ratio_degenerate() -> None:
    assert ratio_and_se([[(0.0, 0.0), (0.0, 0.0)]]) == (None, 0.0)
    assert ratio_and_se([[(0.1, 0.3)] * 7]) == (0.1 * 7 / (0.3 * 7), 0.0)
    assert ratio_and_se([[(1.0, 2.0)]]) == (0.5, 0.0)


def test_studentised_edges() -> None:
    assert studentised(0.5, None, 0.0) == (-math.inf, math.inf)
    assert studentised(0.5, 0.5, 0.0) == (0.0, 0.0)
    assert studentised(0.5, 0.4, 0.0) == (-math.inf, -math.inf)
    assert studentised(0.5, 0.75, 0.125) == (2.0, 2.0)


def test_strata_merge_smallest_into_next_smallest() -> None:
    assert merge_strata({"a": 5, "b": 9}) == {"a": "a", "b": "b"}
    assert merge_strata({"c": 2, "b": 2, "a": 9, "d": 3}) == {
        "b": "b+c+d",
        "c": "b+c+d",
        "d": "b+c+d",
        "a": "a",
    }
    assert merge_strata({"x": 1, "y": 30}) == {"x": "x+y", "y": "x+y"}
    assert merge_strata({"x": 1}) == {"x": "x"}


# --- rare events --------------------------------------------------------------------------------------------


def test_clopper_pearson_known_values() -> None:
    assert clopper_pearson_upper(0, 100, 0.025) == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-12)
    assert clopper_pearson_upper(1, 10, 0.025) == pytest.approx(0.44501612, abs=5e-9)
    assert clopper_pearson_upper(5, 10, 0.025) == pytest.approx(0.8129, abs=5e-5)
    assert clopper_pearson_upper(9, 10, 0.025) == pytest.approx(0.975 ** (1 / 10), rel=1e-2)
    assert clopper_pearson_upper(9, 10, 0.025) == pytest.approx((1 - 0.025) ** (1 / 10), rel=1e-12)
    assert clopper_pearson_upper(7, 7, 0.025) == 1.0
    assert clopper_pearson_upper(0, 368, 0.025) < 0.01 < clopper_pearson_upper(0, 365, 0.025)


def test_rare_upper_scales_with_the_largest_share() -> None:
    plain = clopper_pearson_upper(2, 60, 0.025)
    assert rare_upper([3.0] * 60, 2, 0.025) == pytest.approx(plain, rel=1e-14)
    assert rare_upper([1.0] * 59 + [2.0], 2, 0.025) == pytest.approx(plain * 60 * 2 / 61, rel=1e-14)
    assert rare_upper([1.0] * 59 + [1000.0], 2, 0.025) == 1.0


def spread_clusters(count: int, nonzero: int, *, denominator: float = 4.0) -> list[ClusterEntry]:
    return [
        ("s", f"c{place:03d}", 0.1 + 0.01 * place if place < nonzero else 0.0, denominator) for place in range(count)
    ]


def test_rules_for_zeros_and_rare_events() -> None:
    def interval(clusters: list[ClusterEntry], **options: bool) -> Interval:
        return point_and_interval(clusters, SEED, 40, 0.1, **options)

    zero = spread_clusters(60, 0)
    identical = interval(zero, bounded=True, identical=True)
    assert (identical.rule, identical.lower, identical.upper, identical.simultaneous_upper) == (
        "identical",
        0.0,
        0.0,
        0.0,
    )
    assert interval(zero, bounded=True, zero_impossible=True).rule == "contradiction"
    rare = interval(spread_clusters(60, 9), bounded=True)
    assert rare.rule == "rare_bounded"
    assert rare.upper == pytest.approx(clopper_pearson_upper(9, 60, 0.1), rel=1e-13)
    assert interval(spread_clusters(60, 9)).rule == "rare_unbounded"
    assert interval(spread_clusters(60, 10)).rule == "bootstrap"
    assert interval(spread_clusters(60, 0, denominator=0.0), identical=True).rule == "zero_denominator"
    flat: list[ClusterEntry] = [("s", f"c{place:02d}", 1.0, 2.0) for place in range(60)]
    assert interval(flat).rule == "zero_width"
    assert interval(flat).upper is None
    assert interval(flat).theta == 0.5


# --- intervals ----------------------------------------------------------------------------------------------


def simulated(generator: random.Random, strata: int = 2, per_stratum: int = 25) -> list[ClusterEntry]:
    """Clusters with true ratio 0.3: D uniform on 4..8, N a sum of D draws that share a cluster effect."""
    clusters: list[ClusterEntry] = []
    for stratum in range(strata):
        for place in range(per_stratum):
            denominator = generator.randint(4, 8)
            effect = generator.uniform(0.0, 0.3)
            numerator = sum(effect + generator.uniform(0.0, 0.3) for _ in range(denominator))
            clusters.append((f"s{stratum}", f"c{stratum}-{place:02d}", numerator, float(denominator)))
    return clusters


def test_coverage_is_nominal() -> None:
    generator = random.Random(20240611)
    alpha = 0.1
    replicates = 200
    above_lower = 0
    below_upper = 0
    inside_family = 0
    for replicate in range(replicates):
        seed = hashlib.sha256(struct.pack("<I", replicate)).digest()
        one = simulated(generator)
        other = simulated(generator)
        family = simultaneous_intervals({"one": CellInput(one), "other": CellInput(other)}, seed, 100, alpha)
        result = family["one"]
        assert result.lower is not None
        assert result.upper is not None
        above_lower += result.lower <= 0.3
        below_upper += result.upper >= 0.3
        inside_family += all(
            cell.simultaneous_lower is not None and cell.simultaneous_lower <= 0.3 for cell in family.values()
        )
    # Binomial standard deviation of each share: 0.021.
    assert 0.83 <= above_lower / replicates <= 0.97
    assert 0.83 <= below_upper / replicates <= 0.97
    assert 0.83 <= inside_family / replicates <= 0.97


def test_bounds_are_order_statistics_of_the_resamples() -> None:
    clusters = simulated(random.Random(3), strata=1)
    result = point_and_interval(clusters, SEED, 400, 0.025)
    values = [(numerator, denominator) for _, _, numerator, denominator in sorted(clusters, key=lambda c: c[1])]
    theta, se = ratio_and_se([values])
    assert theta is not None
    statistics = []
    for indices in draw_indices(SEED, 400, [len(values)])[0]:
        again, se_again = ratio_and_se([[values[index] for index in indices]])
        assert again is not None
        statistics.append((again - theta) / se_again)
    statistics.sort()
    assert result.upper == theta - statistics[9] * se
    assert result.lower == theta - statistics[-10] * se
    # A family of one: simultaneous and pointwise bounds agree.
    assert result.simultaneous_upper == pytest.approx(result.upper, rel=1e-15)
    assert result.simultaneous_lower == result.lower
    assert 0.0 < result.mc_upper < result.upper - theta


def test_simultaneous_bounds_are_wider_and_input_order_is_irrelevant() -> None:
    generator = random.Random(5)
    cells = {name: CellInput(simulated(generator), bounded=True) for name in ("a", "b", "c")}
    results = simultaneous_intervals(cells, SEED, 200, 0.05)
    shuffled = {}
    for name in ("c", "a", "b"):
        clusters = list(cells[name].clusters)
        generator.shuffle(clusters)
        shuffled[name] = CellInput(clusters, bounded=True)
    assert simultaneous_intervals(shuffled, SEED, 200, 0.05) == results
    for result in results.values():
        assert result.upper is not None
        assert result.lower is not None
        assert result.simultaneous_upper is not None
        assert result.simultaneous_lower is not None
        assert result.simultaneous_lower <= result.lower < result.upper <= result.simultaneous_upper


def test_padding_with_foreign_strata_changes_no_point_and_no_width() -> None:
    generator = random.Random(8)
    both = simulated(generator)
    first = [entry for entry in both if entry[0] == "s0"]
    second = [entry for entry in both if entry[0] == "s1"]
    family = simultaneous_intervals({"s0": CellInput(first), "s1": CellInput(second)}, SEED, 100, 0.05)
    alone = point_and_interval(first, SEED, 100, 0.05)
    assert (family["s0"].theta, family["s0"].se) == (alone.theta, alone.se)
    # The first stratum is drawn first, so its pointwise bounds are the same too.
    assert (family["s0"].lower, family["s0"].upper) == (alone.lower, alone.upper)
    assert family["s1"].clusters == 25


def test_signed_cells_keep_negative_bounds() -> None:
    clusters: list[ClusterEntry] = [("s", f"c{place:02d}", math.sin(place) - 2.0, 5.0) for place in range(60)]
    result = point_and_interval(clusters, SEED, 100, 0.05, nonnegative=False)
    assert result.upper is not None
    assert result.upper < 0.0


# --- success ------------------------------------------------------------------------------------------------


def test_success() -> None:
    scores = {f"item{place:03d}": 1.0 if place % 10 else 0.0 for place in range(200)}
    result = success_interval(scores, SEED, 400, 0.025)
    assert result.theta == 0.9
    assert result.se == pytest.approx(math.sqrt(0.9 * 0.1 / 199), rel=1e-13)
    assert result.lower is not None
    assert result.upper is not None
    assert 0.8 < result.lower < 0.9 < result.upper < 1.0
    assert success_state(result, 0.80, 0.02) == "reached"
    assert success_state(result, 0.99, 0.02) == "missed"
    assert success_state(result, 0.91, 0.01) == "undetermined"
    full = success_interval({f"item{place}": 1.0 for place in range(50)}, SEED, 400, 0.025)
    assert (full.rule, full.lower, success_state(full, 0.5, 0.0)) == ("zero_width", None, "undetermined")


# --- decisions ----------------------------------------------------------------------------------------------


def test_kleene() -> None:
    values: tuple[Kleene, ...] = ("TRUE", "FALSE", "UNDETERMINED")
    for a in values:
        assert kleene_not(kleene_not(a)) == a
        for b in values:
            assert kleene_and([a, b]) == kleene_not(kleene_or([kleene_not(a), kleene_not(b)]))
    assert kleene_or(["UNDETERMINED", "TRUE"]) == "TRUE"
    assert kleene_and(["UNDETERMINED", "FALSE"]) == "FALSE"
    assert kleene_or(["UNDETERMINED", "FALSE"]) == "UNDETERMINED"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["below", "identical", "not_applicable"], "FALSE"),
        (["below", "undetermined"], "UNDETERMINED"),
        (["undetermined", "above"], "TRUE"),
        (["not_applicable"], "UNDETERMINED"),
        ([], "UNDETERMINED"),
    ],
)
def test_rewrite(states: list[CellState], expected: Kleene) -> None:
    assert protected_atlas_rewrite(states) == expected


def test_cell_states() -> None:
    def interval(lower: float, upper: float, error: float = 0.0, clusters: int = 60) -> Interval:
        return Interval(
            theta=0.05,
            se=0.01,
            numerator=3.0,
            denominator=60.0,
            clusters=clusters,
            nonzero_clusters=30,
            rule="bootstrap",
            upper=upper,
            simultaneous_lower=lower,
            mc_upper=error,
            mc_simultaneous_lower=error,
        )

    assert cell_state(interval(0.03, 0.07), 0.1) == "below"
    assert cell_state(interval(0.03, 0.07), 0.02) == "above"
    assert cell_state(interval(0.03, 0.07), 0.05) == "undetermined"
    assert cell_state(interval(0.03, 0.07), 0.07) == "undetermined"
    assert cell_state(interval(0.03, 0.07, error=0.01), 0.1) == "undetermined"
    assert cell_state(interval(0.03, 0.07, clusters=49), 0.1) == "undetermined"
    assert cell_state(interval(0.03, 0.07), 0.1, floor=0.1) == "undetermined"
    assert cell_state(interval(0.03, 0.07), 0.1, missing_share=0.06) == "undetermined"
    assert cell_state(interval(0.03, 0.07), 0.1, applicable=False) == "not_applicable"
    assert under_both_seeds("below", "undetermined") == "undetermined"
    assert under_both_seeds("above", "above") == "above"


def test_knowledge_expansive() -> None:
    frozen = ArmOutcome("frozen", "lora", True, True, "FALSE", "missed")
    full = ArmOutcome("full", "full", True, True, "TRUE", "reached")
    assert knowledge_expansive([frozen, full], ["lora"]) == "TRUE"
    assert knowledge_expansive([frozen, full], ["lora", "penalty"]) == "UNDETERMINED"
    assert knowledge_expansive([frozen], ["lora"]) == "UNDETERMINED"
    late = ArmOutcome("late", "lora", True, False, "UNDETERMINED", "undetermined")
    assert knowledge_expansive([frozen, full, late], ["lora"]) == "UNDETERMINED"
    open_arm = ArmOutcome("open", "lora", True, True, "UNDETERMINED", "reached")
    assert knowledge_expansive([frozen, full, open_arm], ["lora"]) == "UNDETERMINED"
    counter = ArmOutcome("counter", "lora", True, True, "FALSE", "reached")
    assert knowledge_expansive([frozen, full, counter], ["lora"]) == "FALSE"
    weak = ArmOutcome("weak", "lora", True, True, "FALSE", "reached", family_rewrite="UNDETERMINED")
    assert knowledge_expansive([frozen, full, weak], ["lora"]) == "UNDETERMINED"


def test_verdicts() -> None:
    expected: list[tuple[Kleene, Kleene, Any, Verdict, list[Verdict]]] = [
        ("FALSE", "FALSE", "reached", "preserved", []),
        ("TRUE", "TRUE", "missed", "rewritten", ["rewritten", "damaged", "unmatched"]),
        ("UNDETERMINED", "TRUE", "reached", "damaged", ["damaged", "undetermined"]),
        ("FALSE", "UNDETERMINED", "missed", "unmatched", ["unmatched", "undetermined"]),
        ("FALSE", "FALSE", "undetermined", "undetermined", ["undetermined"]),
    ]
    for rewrite, damage, success, verdict, flags in expected:
        assert verdict_and_flags(rewrite, damage, success) == (verdict, flags)


# --- measures -----------------------------------------------------------------------------------------------


def test_coordinate_angle_closed_forms() -> None:
    assert coordinate_angle([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 0.0
    assert coordinate_angle([1.0, 0.0], [0.0, 7.0]) == pytest.approx(0.5, rel=1e-15)
    assert coordinate_angle([1.0, 0.0], [-3.0, 0.0]) == 1.0
    assert coordinate_angle([1.0, 0.0], [1.0, 1.0]) == pytest.approx(0.25, rel=1e-15)
    assert coordinate_angle([1.0, 0.0], [1.0, 1e-12]) == pytest.approx(1e-12 / math.pi, rel=1e-6)


def test_unpack_gram() -> None:
    assert unpack_gram([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3) == [
        [1.0, 2.0, 3.0],
        [2.0, 4.0, 5.0],
        [3.0, 5.0, 6.0],
    ]
    with pytest.raises(ValueError, match="packed Gram"):
        unpack_gram([1.0], 2)


class Token:
    """One update row made from explicit vectors, with its channels computed from those vectors."""

    def __init__(self, generator: random.Random, window_id: str, position: int, *, competitor: bool = True) -> None:
        self.experts = [1, 4, 6, 9]
        size = 5
        self.v0 = [[generator.gauss(0.0, 1.0) for _ in range(size)] for _ in self.experts]
        self.v1 = [[value + generator.gauss(0.0, 0.1) for value in vector] for vector in self.v0]
        delta = [[b - a for a, b in zip(v0, v1, strict=True)] for v0, v1 in zip(self.v0, self.v1, strict=True)]
        both = self.v0 + delta
        gram = []
        for i in range(8):
            for j in range(i, 8):
                gram.append(math.fsum(a * b for a, b in zip(both[i], both[j], strict=True)))
        # R0 = {4, 6}, R1 = {6, 9}; the base's pair is 6 out, 9 in.
        self.rho0 = [0.0, 0.7, 0.3, 0.0]
        self.rho1 = [0.0, 0.0, 0.6, 0.4]
        self.rho0_b, self.rho1_b = 0.3, 0.35
        jump0 = [self.rho0_b * (self.v0[3][i] - self.v0[2][i]) for i in range(size)]
        jump1 = [self.rho1_b * (self.v1[3][i] - self.v1[2][i]) for i in range(size)]
        self.transition = (norm([b - a for a, b in zip(jump0, jump1, strict=True)]), norm(jump0))
        self.content = (
            math.fsum(rho * norm(vector) for rho, vector in zip(self.rho1, delta, strict=True)),
            math.fsum(rho * norm(vector) for rho, vector in zip(self.rho0, self.v0, strict=True)),
        )
        self.block = (0.25 + position, 2.0 + position)
        self.row: dict[str, Any] = {
            "run_id": "arm:x",
            "layer": 2,
            "window_id": window_id,
            "position": position,
            "experts": self.experts,
            "in0": 0b0110,
            "in1": 0b1100,
            "pair_out": 6,
            "pair_in": 9 if competitor else None,
            "rho0": self.rho0,
            "rho1": self.rho1,
            "rho0_b": self.rho0_b,
            "rho1_b_forced": self.rho1_b,
            "gram": gram,
            "y0_norm": self.block[1],
            "dy_norm": self.block[0],
        }


def window_table() -> list[dict[str, Any]]:
    return [
        {"window_id": "w1", "cluster_id": "c1", "domain": "law", "split": "probe"},
        {"window_id": "w2", "cluster_id": "c1", "domain": "law", "split": "evaluation"},
        {"window_id": "w3", "cluster_id": "c2", "domain": "code", "split": "probe"},
        {"window_id": "w4", "cluster_id": "c3", "domain": "code", "split": "probe"},
    ]


def test_cluster_sums_against_the_vectors() -> None:
    generator = random.Random(1)
    tokens = [
        Token(generator, "w1", 3),
        Token(generator, "w1", 5),
        Token(generator, "w2", 4),
        Token(generator, "w3", 2, competitor=False),
    ]
    foreign = {**tokens[0].row, "layer": 3}
    states: list[dict[str, Any]] = []
    for place, token in enumerate(tokens):
        key = {"layer": 2, "window_id": token.row["window_id"], "position": token.row["position"]}
        states.append({"run_id": "base", "z": [1.0, 0.0], **key})
        states.append({"run_id": "arm:x", "z": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]][place], **key})
    rows = [token.row for token in tokens]
    sums = cluster_sums(states, [*reversed(rows), foreign], window_table(), "arm:x", 2)
    assert tuple(sums) == CELLS
    assert all(list(cell) == ["c1", "c2", "c3"] and cell["c3"] == (0.0, 0.0) for cell in sums.values())
    assert sums[(COORDINATE, RATIO)]["c1"] == pytest.approx((0.75, 3.0), rel=1e-15)
    assert sums[(COORDINATE, RATIO)]["c2"] == (1.0, 1.0)
    assert sums[(BOUNDARY, RATIO)] == {"c1": (1.5, 3.0), "c2": (0.5, 1.0), "c3": (0.0, 0.0)}
    for definition, parts in (
        (TRANSITION, [token.transition for token in tokens[:3]]),
        (CONTENT, [token.content for token in tokens[:3]]),
    ):
        expected = (sum(n for n, _ in parts), sum(d for _, d in parts))
        assert sums[(definition, RATIO)]["c1"] == pytest.approx(expected, rel=1e-12)
        assert sums[(definition, MEAN)]["c1"] == pytest.approx((sum(n / (n + d) for n, d in parts), 3.0), rel=1e-12)
    assert sums[(TRANSITION, RATIO)]["c2"] == (0.0, 0.0)
    assert sums[(TRANSITION, MEAN)]["c2"] == (0.0, 0.0)
    assert sums[(CONTENT, MEAN)]["c2"][1] == 1.0
    assert sums[(BLOCK, RATIO)]["c1"] == (12.75, 18.0)
    assert missing_pair_share(rows, window_table(), "arm:x", 2) == (1, 4)
    probe_only = cluster_sums(states, rows, window_table(), "arm:x", 2, splits=["probe"])
    assert probe_only[(BOUNDARY, RATIO)]["c1"] == (1.0, 2.0)
    listed = entries(sums[(BOUNDARY, RATIO)], cluster_domains(window_table()))
    assert listed[0] == ("law", "c1", 1.5, 3.0)


def test_unpaired_states_are_refused() -> None:
    states = [{"run_id": "base", "layer": 2, "window_id": "w1", "position": 1, "z": [1.0]}]
    with pytest.raises(ValueError, match="different tokens"):
        cluster_sums(states, [], window_table(), "arm:x", 2)


def test_base_against_itself_does_not_drift() -> None:
    generator = random.Random(2)
    row = Token(generator, "w1", 3).row
    row["in1"], row["rho1"], row["rho1_b_forced"], row["dy_norm"] = (
        row["in0"],
        row["rho0"],
        row["rho0_b"],
        0.0,
    )
    full = unpack_gram(row["gram"], 8)
    row["gram"] = [full[i][j] if j < 4 else 0.0 for i in range(8) for j in range(i, 8)]
    states = [
        {"run_id": run, "layer": 2, "window_id": "w1", "position": 3, "z": [0.1, 0.7]} for run in ("base", "arm:x")
    ]
    sums = cluster_sums(states, [row], window_table(), "arm:x", 2)
    assert all(cell["c1"][0] == 0.0 and cell["c1"][1] > 0.0 for cell in sums.values())


def test_damage_sums() -> None:
    rows = []
    for window_id, before, after in (("w1", 2.0, 2.5), ("w2", 1.0, 0.75), ("w3", 3.0, 3.0)):
        for position in range(2):
            rows.append({"run_id": "base", "window_id": window_id, "position": position, "nll": before})
            rows.append({"run_id": "arm:x", "window_id": window_id, "position": position, "nll": after})
    assert damage_sums(rows, window_table(), "arm:x") == {
        "code": {"c2": (0.0, 2.0), "c3": (0.0, 0.0)},
        "law": {"c1": (0.5, 4.0)},
    }


# --- trees --------------------------------------------------------------------------------------------------

PUBLISHED_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
PUBLISHED_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_published_tree_roots() -> None:
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in PUBLISHED_LEAVES]
    for count, root in enumerate(PUBLISHED_ROOTS):
        assert tree_root(hashes[:count]).hex() == root


def test_audit_paths_lead_to_the_root() -> None:
    hashes = [leaf_hash(struct.pack("<I", place)) for place in range(13)]
    for count in range(1, 14):
        root = tree_root(hashes[:count])
        for index in range(count):
            path = audit_path(hashes[:count], index)
            assert root_from_path(hashes[index], index, count, path) == root
    assert root_from_path(hashes[0], 1, 2, [hashes[1]]) != tree_root(hashes[:2])


def test_leaf_bytes_by_hand() -> None:
    columns: list[ColumnSpec] = [
        ("id", "str", "", False),
        ("n", "u16", "", True),
        ("flag", "bool", "", False),
        ("z", "f32", 2, True),
        ("xs", "f64", "*", True),
        ("note", "str", "", True),
    ]
    rows: list[dict[str, Any]] = [
        {"id": "a", "n": 258, "flag": True, "z": [1.0, -0.0], "xs": [0.5], "note": None},
        {"id": "é", "n": None, "flag": False, "z": None, "xs": None, "note": "ok"},
    ]
    expected = (
        b"atlas-evidence/1\0t\0\x02\0\0\0"
        b"id\0str\0\x01\0\0\0" + b"\x01\0\0\0\x02\0\0\0" + b"a\xc3\xa9"
        b"n\0u16\0\x01\0\0\0" + b"\x01\x00" + b"\x02\x01\0\0"
        b"flag\0bool\0\x01\0\0\0" + b"\x01\x00"
        b"z\0f32\0\x02\0\0\0" + b"\x01\x00" + b"\0\0\x80\x3f\0\0\0\x80" + b"\0" * 8
        + b"xs\0f64\0\xff\xff\xff\xff" + b"\x01\x00" + b"\x01\0\0\0\0\0\0\0" + struct.pack("<d", 0.5)
        + b"note\0str\0\x01\0\0\0" + b"\x00\x01" + b"\0\0\0\0\x02\0\0\0" + b"ok"
    )  # fmt: skip
    assert leaf_bytes("t", columns, rows) == expected
    with pytest.raises(ValueError, match="null"):
        leaf_bytes("t", [("n", "u16", "", False)], rows)


def test_table_root_groups_by_leaf_key_in_key_order() -> None:
    columns: list[ColumnSpec] = [("run", "str", "", False), ("i", "u32", "", False)]
    rows = [{"run": run, "i": i} for run in ("b", "a") for i in (10, 9)]
    first = leaf_hash(leaf_bytes("t", columns, [{"run": "a", "i": 9}, {"run": "a", "i": 10}]))
    second = leaf_hash(leaf_bytes("t", columns, [{"run": "b", "i": 9}, {"run": "b", "i": 10}]))
    assert table_leaves("t", columns, ["run", "i"], ["run"], rows) == [(("a",), first), (("b",), second)]
    assert table_root("t", columns, ["run", "i"], ["run"], rows) == node_hash(first, second)
    assert len(table_leaves("t", columns, ["run", "i"], [], rows)) == 1
    assert table_root("t", columns, ["run", "i"], ["run"], []) == hashlib.sha256(b"").digest()
    with pytest.raises(ValueError, match="two rows"):
        table_root("t", columns, ["run", "i"], ["run"], [*rows, rows[0]])


def test_symbolic_shapes() -> None:
    dims = {"d": 8, "E": 4, "k": 2, "P": 3}
    assert [resolve_shape(shape, dims) for shape in ("", "*", "d", "E*d", 5)] == ["", "*", 8, 32, 5]


def test_rows_read_from_parquet_keep_every_bit(tmp_path: Path) -> None:
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    fields = [
        ("id", arrow.string()),
        ("z", arrow.list_(arrow.float32(), 2)),
        ("xs", arrow.list_(arrow.uint16())),
        ("n", arrow.uint32()),
    ]
    rows: list[dict[str, Any]] = [
        {"id": "a", "z": [0.5, -0.0], "xs": [1, 65535], "n": None},
        {"id": "b", "z": None, "xs": [], "n": 4294967295},
    ]
    rows[0]["z"][0] = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows, schema=arrow.schema(fields)), path)
    columns: list[ColumnSpec] = [
        ("id", "str", "", False),
        ("z", "f32", 2, True),
        ("xs", "u16", "*", False),
        ("n", "u32", "", True),
    ]
    assert leaf_bytes("t", columns, read_rows(path)) == leaf_bytes("t", columns, rows)
