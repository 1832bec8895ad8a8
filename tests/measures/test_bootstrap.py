"""The bootstrap, its resamples and its intervals: against the oracle, by coverage, and rule by rule."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from naive import bootstrap as naive
from simulator import contract_json, small

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.bootstrap import (
    Draws,
    Strata,
    Studentised,
    _tails,
    bounds,
    clopper_pearson_upper,
    first_seed,
    rank,
    resample_counts,
    second_seed,
    studentised,
)
from atlas_schema.measures.clusters import Clusters, merged_strata, strata_of
from atlas_schema.measures.decide import Decision, agree, decide
from atlas_schema.measures.exact import split, weighted_sums
from atlas_schema.measures.intervals import Interval, Resampler, Statistic, family

F64 = npt.NDArray[np.float64]
SEED = hashlib.sha256(b"a seed").digest()
BOUNDED = Statistic(identical=False, bounded=True, nonnegative=True)
UNBOUNDED = Statistic(identical=False, bounded=False, nonnegative=True)
SIGNED = Statistic(identical=False, bounded=False, nonnegative=False)


def rule(**changes: Any) -> Bootstrap:
    usual = {**contract_json(small())["bootstrap"], "min_clusters": 12, "resamples": 400}
    return Bootstrap.model_validate({**usual, **changes})


def strata(*sizes: int) -> Strata:
    edges = np.cumsum([0, *sizes])
    return Strata(tuple(np.arange(a, b) for a, b in pairwise(edges)))


def entries(numerator: F64, denominator: F64, where: Strata) -> list[naive.ClusterEntry]:
    return [
        (f"s{h}", f"c{i:04d}", float(numerator[i]), float(denominator[i]))
        for h, m in enumerate(where.members)
        for i in m
    ]


# --- seeds and draws --------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_seeds_equal_the_oracle(root: bytes, plan: bytes) -> None:
    first = first_seed("sha256:" + root.hex(), "sha256:" + plan.hex())
    assert (first, second_seed(first)) == naive.bootstrap_seeds(root, plan)


@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12))
def test_resamples_equal_the_oracles_draws(seed: bytes, sizes: list[int], resamples: int) -> None:
    found = resample_counts(seed, strata(*sizes), resamples)
    for counts, blocks, size in zip(found, naive.draw_indices(seed, resamples, sizes), sizes, strict=True):
        assert counts.tolist() == [[float(block.count(i)) for i in range(size)] for block in blocks]
        assert (counts.sum(axis=1) == size).all()


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=1), st.integers(1, 8))
def test_merged_strata_equal_the_oracle(sizes: dict[str, int], at_least: int) -> None:
    domains = [d for d in sorted(sizes) for _ in range(sizes[d])]
    clusters = Clusters(tuple(f"c{i:03d}" for i in range(len(domains))), tuple(domains), {})
    groups = merged_strata(clusters, at_least)
    assert {d: name for name, members in groups.items() for d in members} == naive.merge_strata(sizes, at_least)
    assert list(groups) == sorted(groups)
    total = {name: sum(sizes[d] for d in members) for name, members in groups.items()}
    assert len(groups) == 1 or min(total.values()) >= at_least
    members = strata_of(clusters, groups).members
    assert sorted(i for m in members for i in m.tolist()) == list(range(len(domains)))
    assert [len(m) for m in members] == list(total.values())


def test_clusters_of_a_merged_stratum_are_drawn_in_order_of_their_id() -> None:
    clusters = Clusters(("c3", "c9", "c1", "c5"), ("a", "a", "b", "b"), {})
    assert strata_of(clusters, {"a+b": ["a", "b"]}).members[0].tolist() == [2, 0, 3, 1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 50))
def test_resamples_do_not_depend_on_blocks_nor_on_being_kept(sizes: list[int], resamples: int, rows: int) -> None:
    where = strata(*sizes)
    expected = np.concatenate(resample_counts(SEED, where, resamples), axis=1)
    kept, anew = Draws(SEED, where, resamples), Draws(SEED, where, resamples)
    anew.KEPT = 0  # type: ignore[misc]
    for draws in (kept, kept, anew):
        blocks = list(draws.blocks(rows))
        assert np.concatenate([b for _, b in blocks]).tolist() == expected.tolist()
        assert [at for at, _ in blocks] == np.cumsum([0, *(len(b) for _, b in blocks[:-1])]).tolist()
        assert max(len(b) for _, b in blocks) <= rows


# --- exact sums -------------------------------------------------------------------------------------------------

wide = st.floats(-1e30, 1e30, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-30)


@given(st.lists(st.lists(wide, min_size=3, max_size=3), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_weighted_sums_are_exact_whatever_the_order(values: list[list[float]], seed: int) -> None:
    from fractions import Fraction

    rng, n = np.random.default_rng(seed), len(values)
    table = np.array(values)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=4).astype(np.float64)
    halves = split(table.T, n)
    found = weighted_sums(halves, counts.T)
    order = rng.permutation(n)
    assert (weighted_sums(np.ascontiguousarray(halves[:, order]), counts.T[order]) == found).all()
    for c in range(3):
        largest = max(abs(Fraction(v)) for v in table[:, c])
        for row, sums in zip(counts, found[c], strict=True):
            exact = sum((int(w) * Fraction(v) for w, v in zip(row, table[:, c], strict=True)), Fraction(0))
            assert abs(Fraction(float(sums)) - exact) <= abs(exact) / 2**53 + n * largest / 2**92


THREADS = """
import hashlib, sys
import numpy as np
from atlas_schema.measures.bootstrap import Draws, Strata, bounds, studentised
rng = np.random.default_rng(5)
where = Strata((np.arange(130), np.arange(130, 201)))
d = rng.lognormal(0, 1, (201, 37))
s = studentised(d * rng.lognormal(-2, 1, (201, 37)), d, Draws(bytes(range(32)), where, 2000))
b = bounds(s, [0.025], 20)[0]
total = hashlib.sha256()
for values in (s.theta, s.se, s.t_low, b.lower, b.upper, b.simultaneous_lower, b.error_upper):
    total.update(np.ascontiguousarray(values).tobytes())
print(total.hexdigest())
"""


def test_bounds_are_the_same_bits_on_any_number_of_threads_and_any_processor() -> None:
    """OpenBLAS is told how many threads to use and which processor to believe in; where another BLAS is used, only threads."""
    import os
    import subprocess
    import sys

    found = []
    for setting in ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"},
                    {"OPENBLAS_CORETYPE": "Nehalem"}, {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"}):  # fmt: skip
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", THREADS], capture_output=True, text=True, check=False,
                              env={**os.environ, **setting}, timeout=300)  # fmt: skip
        if done.returncode and "NPY_DISABLE_CPU_FEATURES" in setting:
            continue  # a processor, or a build, without these features
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert len(found) >= 3
    assert len(set(found)) == 1


# --- one family against the oracle ------------------------------------------------------------------------------

sums = st.tuples(st.integers(12, 20), st.integers(12, 16), st.integers(0, 2**32 - 1), st.integers(1, 3))


def draw_cells(n: int, cells: int, seed: int) -> tuple[F64, F64]:
    """Return skewed numerators with some zeros, and denominators that differ."""
    rng = np.random.default_rng(seed)
    denominator = rng.integers(1, 9, (n, cells)).astype(np.float64)
    numerator = denominator * rng.lognormal(-2.0, 1.0, (n, cells)) * (rng.random((n, cells)) < 0.9)
    return numerator, denominator


@given(sums)
def test_bounds_of_a_family_equal_the_oracle(case: tuple[int, int, int, int]) -> None:
    first, second, seed, cells = case
    where = strata(first, second)
    numerator, denominator = draw_cells(first + second, cells, seed)
    assume(((numerator != 0).sum(axis=0) >= 10).all())
    parameters = rule(resamples=100, alpha=0.05)
    found = family(numerator, denominator, [UNBOUNDED] * cells, Resampler(SEED, where, parameters), 1)
    inputs = {c: naive.CellInput(entries(numerator[:, c], denominator[:, c], where)) for c in range(cells)}
    expected = naive.simultaneous_intervals(inputs, SEED, 100, 0.05)
    for c in range(cells):
        mine, theirs = found[c], expected[c]
        assert theirs.rule == mine.method == "bootstrap"
        for a, b in (
            (mine.value, theirs.theta), (mine.lower, theirs.lower), (mine.upper, theirs.upper),
            (mine.simultaneous_lower, theirs.simultaneous_lower),
            (mine.simultaneous_upper, theirs.simultaneous_upper),
        ):  # fmt: skip
            assert a == pytest.approx(b, rel=1e-12, abs=1e-13) if b is not None and math.isfinite(b) else a is None
        error = max(theirs.mc_upper, theirs.mc_lower, theirs.mc_simultaneous_lower)
        assert mine.error == pytest.approx(error, rel=1e-11) if math.isfinite(error) else mine.error is None


@given(sums)
def test_simultaneous_bounds_contain_pointwise_bounds_and_strict_ones_too(case: tuple[int, int, int, int]) -> None:
    first, second, seed, cells = case
    where = strata(first, second)
    numerator, denominator = draw_cells(first + second, cells, seed)
    resampler = Resampler(SEED, where, rule())
    for c, i in enumerate(family(numerator, denominator, [UNBOUNDED] * cells, resampler, 3)):
        if i.method != "bootstrap" or None in (i.lower, i.upper, i.simultaneous_lower, i.simultaneous_upper):
            continue
        assert i.simultaneous_lower <= i.lower <= i.upper <= i.simultaneous_upper  # type: ignore[operator]
        assert i.strict_upper is None or i.strict_upper >= i.upper  # type: ignore[operator]
        assert i.strict_lower is None or i.strict_lower <= i.lower  # type: ignore[operator]
        alone = family(numerator[:, [c]], denominator[:, [c]], [UNBOUNDED], resampler, 3)[0]
        # A cell's own bounds do not depend on its family; a family of one needs no widening.
        assert (alone.lower, alone.upper) == pytest.approx((i.lower, i.upper), rel=1e-9)
        assert (alone.simultaneous_lower, alone.simultaneous_upper) == pytest.approx((i.lower, i.upper), rel=1e-9)


@given(sums, st.floats(1e-3, 1e3))
def test_a_ratios_bounds_scale_with_its_numerators(case: tuple[int, int, int, int], factor: float) -> None:
    first, second, seed, _ = case
    where = strata(first, second)
    numerator, denominator = draw_cells(first + second, 1, seed)
    resampler = Resampler(SEED, where, rule())
    one = family(numerator, denominator, [UNBOUNDED], resampler, 1)[0]
    other = family(numerator * factor, denominator, [UNBOUNDED], resampler, 1)[0]
    assume(one.method == "bootstrap" and one.upper is not None and one.lower is not None)
    assert other.upper == pytest.approx(one.upper * factor, rel=1e-7)  # type: ignore[operator]
    assert other.lower == pytest.approx(one.lower * factor, rel=1e-7, abs=1e-12 * factor)  # type: ignore[operator]


@given(sums, st.floats(1.5, 100))
def test_a_larger_drift_everywhere_never_lowers_a_bound(case: tuple[int, int, int, int], factor: float) -> None:
    first, second, seed, _ = case
    numerator, denominator = draw_cells(first + second, 1, seed)
    resampler = Resampler(SEED, strata(first, second), rule())
    one, other = (family(numerator * f, denominator, [UNBOUNDED], resampler, 1)[0] for f in (1.0, factor))
    assume(one.upper is not None)
    assert other.upper is not None
    assert other.upper >= one.upper  # type: ignore[operator]


def test_rank_is_the_floor_of_alpha_times_b_plus_one() -> None:
    assert [rank(0.025, b) for b in (10_000, 400, 399, 500, 20)] == [250, 10, 10, 12, 1]
    assert [rank(a, 99) for a in (0.01, 0.29, 0.5)] == [1, 29, 50]


def test_tails_are_the_order_statistics_of_every_rank() -> None:
    t = np.random.default_rng(8).normal(size=(2, 3000))
    ordered = np.sort(t, axis=-1)
    for m in range(1, 700):
        smallest, largest = _tails(t, [m])
        assert (smallest[0] == ordered[:, m - 1]).all()
        assert (largest[0] == ordered[:, -m]).all()


def test_errors_are_of_the_tails_that_their_bounds_use() -> None:
    """Where a resample has no denominator, the two tails are of different numbers."""
    rng, se = np.random.default_rng(9), np.array([0.5, 2.0])
    t = rng.normal(size=(2, 200))
    low, high = t - rng.random((2, 200)), t + rng.random((2, 200))
    found = bounds(Studentised(np.zeros(2), se, low, high), [0.1], 4)[0]

    def spread(of: list[F64], c: int) -> float:
        return float(np.std([v[c] * se[c] for v in of], ddof=1) / 2.0)

    batches = [slice(50 * i, 50 * (i + 1)) for i in range(4)]  # the fifth of 50, at a level of a tenth
    deep = [np.sort(low[:, b], axis=1)[:, 4] for b in batches]
    far = [np.sort(high[:, b], axis=1)[:, -5] for b in batches]
    most = [np.repeat(np.sort(high[:, b].max(axis=0))[-5], 2) for b in batches]
    for c in range(2):
        assert found.error_upper[c] == pytest.approx(spread(deep, c), rel=1e-12)
        assert found.error_lower[c] == pytest.approx(spread(far, c), rel=1e-12)
        assert found.error_simultaneous[c] == pytest.approx(spread(most, c), rel=1e-12)


def test_an_estimate_does_not_depend_on_cells_without_spread() -> None:
    where = strata(15, 15)
    numerator, denominator = draw_cells(30, 2, 3)
    flat = np.concatenate([numerator, denominator[:, :1] * 0.25, np.zeros((30, 1))], axis=1)
    wide = np.concatenate([denominator, denominator[:, :1], denominator[:, :1]], axis=1)
    resampler = Resampler(SEED, where, rule())
    assert family(flat, wide, [UNBOUNDED] * 4, resampler, 1)[:2] == family(
        numerator, denominator, [UNBOUNDED] * 2, resampler, 1
    )


# --- coverage ---------------------------------------------------------------------------------------------------


def test_coverage_on_skewed_data_of_known_truth() -> None:
    """One-sided bounds at 5 % on 2 x 40 clusters of lognormal drift with unequal sizes: both sides near nominal."""
    rng = np.random.default_rng(20)
    replicates, alpha, cells = 300, 0.05, 3
    where = strata(40, 40)
    draws = Draws(SEED, where, 400)
    missed = {"upper": 0, "lower": 0, "family": 0}
    for _ in range(replicates):
        size = rng.integers(2, 9, (80, cells)).astype(np.float64)
        # Cluster means are lognormal with mean 0.2, independent of the size: the ratio of sums is 0.2.
        numerator = size * 0.2 * rng.lognormal(-0.245, 0.7, (80, cells))
        found = bounds(studentised(numerator, size, draws), [alpha], 20)[0]
        missed["upper"] += int(found.upper[0] < 0.2)
        missed["lower"] += int(found.lower[0] > 0.2)
        missed["family"] += int((found.simultaneous_lower > 0.2).any())
    # Binomial standard deviation: 3.8 of 15 expected.
    assert missed["upper"] <= 30
    assert missed["lower"] <= 28
    assert missed["family"] <= 28
    assert sum(missed.values()) >= 12


def test_max_t_of_many_copies_is_that_of_one() -> None:
    where = strata(20, 20)
    numerator, denominator = draw_cells(40, 1, 5)
    draws = Draws(SEED, where, 400)
    one = bounds(studentised(numerator, denominator, draws), [0.025], 20)[0]
    many = bounds(studentised(np.tile(numerator, 5), np.tile(denominator, 5), draws), [0.025], 20)[0]
    assert many.simultaneous_lower == pytest.approx(np.tile(one.simultaneous_lower, 5))
    assert many.simultaneous_upper == pytest.approx(np.tile(one.simultaneous_upper, 5))


def test_max_t_widens_with_independent_cells() -> None:
    where = strata(20, 20)
    numerator, denominator = draw_cells(40, 12, 6)
    draws = Draws(SEED, where, 1000)
    widths = []
    for cells in (1, 3, 12):
        found = bounds(studentised(numerator[:, :cells], denominator[:, :cells], draws), [0.025], 20)[0]
        widths.append(float((found.theta[0] - found.simultaneous_lower[0]) / found.se[0]))
    assert widths[0] < widths[1] < widths[2]


# --- the rules before the bootstrap -----------------------------------------------------------------------------


def one_cell(numerator: F64, denominator: F64, statistic: Statistic, **changes: Any) -> Interval:
    where = strata(len(numerator) // 2, len(numerator) - len(numerator) // 2)
    return family(numerator[:, None], denominator[:, None], [statistic], Resampler(SEED, where, rule(**changes)), 2)[0]


def with_events(n: int, events: int) -> tuple[F64, F64]:
    return np.where(np.arange(n) < events, 0.5, 0.0), np.full(n, 2.0)


def test_rule_a_equal_tensors_and_zero_drift_are_identical() -> None:
    zero = with_events(40, 0)
    for bounded in (True, False):
        found = one_cell(*zero, Statistic(True, bounded, True))
        assert (found.method, found.lower, found.upper, found.strict_upper) == ("identical", 0.0, 0.0, 0.0)
    assert one_cell(*with_events(40, 1), Statistic(True, True, True)).method == "rare_events"
    assert one_cell(*zero, Statistic(False, True, True)).method == "rare_events"


@given(st.integers(0, 9), st.integers(12, 60), st.integers(1, 5))
def test_rule_b_rare_bounded_events_get_the_exact_bound(events: int, n: int, largest: int) -> None:
    numerator, denominator = with_events(n, events)
    denominator[0] *= largest
    found = one_cell(numerator, denominator, BOUNDED)
    assert found.method == "rare_events"
    assert found.upper == pytest.approx(naive.rare_upper(denominator.tolist(), events, 0.025), rel=1e-9)
    assert found.strict_upper == pytest.approx(naive.rare_upper(denominator.tolist(), events, 0.0125), rel=1e-9)
    assert found.upper >= found.value  # type: ignore[operator]
    assert (found.lower, found.simultaneous_lower, found.error) == (0.0, None, None)


def test_rule_b_noise_below_the_resolution_is_no_event_and_widens_the_bound_by_itself() -> None:
    numerator, denominator = with_events(60, 5)
    noise = one_cell(numerator * 1e-7, denominator, BOUNDED)
    none = one_cell(numerator * 0.0, denominator, BOUNDED)
    events = one_cell(numerator, denominator, BOUNDED)
    assert noise.nonzero == 5
    assert noise.upper is not None
    assert none.upper is not None
    assert noise.upper == pytest.approx(none.upper + 1e-6, rel=1e-12)
    assert events.upper is not None
    assert noise.value is not None
    assert noise.value < noise.upper < events.upper


def test_rule_b_ends_at_ten_clusters() -> None:
    assert one_cell(*with_events(40, 9), BOUNDED).method == "rare_events"
    assert one_cell(*with_events(40, 10), BOUNDED).method == "bootstrap"


@pytest.mark.parametrize("statistic", [UNBOUNDED, SIGNED])
def test_rule_c_rare_unbounded_events_get_no_bound(statistic: Statistic) -> None:
    found = one_cell(*with_events(40, 9), statistic)
    assert (found.method, found.upper, found.lower) == ("none", None, None)
    assert "9 clusters" in found.reason


def test_rule_d_no_denominator_or_no_spread_gives_no_bound() -> None:
    nothing = one_cell(np.zeros(40), np.zeros(40), Statistic(True, True, True))
    assert (nothing.method, nothing.value, nothing.upper) == ("none", None, None)
    assert "denominator" in nothing.reason
    flat = one_cell(np.full(40, 0.3), np.full(40, 1.0), BOUNDED)
    assert (flat.method, flat.upper) == ("none", None)
    assert "spread" in flat.reason
    assert flat.value == pytest.approx(0.3)


def test_too_few_clusters_and_refusals_come_first() -> None:
    assert "12 clusters" in one_cell(*with_events(12, 11), BOUNDED, min_clusters=13).reason
    refused = one_cell(*with_events(40, 0), Statistic(True, True, True, "because"))
    assert (refused.method, refused.reason, refused.upper) == ("none", "because", None)


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.001, 0.5))
def test_clopper_pearson_equals_the_oracle(events: int, trials: int, alpha: float) -> None:
    assume(events <= trials)
    found = clopper_pearson_upper(events, trials, alpha)
    assert found == pytest.approx(naive.clopper_pearson_upper(events, trials, alpha), rel=1e-12)
    assert events / trials <= found <= 1.0 or alpha > 0.4
    assert events == trials or found <= clopper_pearson_upper(events + 1, trials, alpha)


@pytest.mark.parametrize("trials", [1, 3, 50, 260, 5000, 100_000])
@pytest.mark.parametrize("events", [0, 1, 2, 9, 40])
def test_clopper_pearson_equals_scipys_inverse_of_the_incomplete_beta_function(events: int, trials: int) -> None:
    from scipy.special import betainccinv

    if events >= trials:
        assert clopper_pearson_upper(events, trials, 0.025) == 1.0
        return
    for alpha in (1e-9, 0.00125, 0.025, 0.5, 0.9):
        expected = float(betainccinv(events + 1, trials - events, alpha))
        assert clopper_pearson_upper(events, trials, alpha) == pytest.approx(expected, rel=1e-12)


# --- decisions --------------------------------------------------------------------------------------------------


def interval(
    upper: float | None, lower: float | None, error: float | None = 0.001, method: str = "bootstrap"
) -> Interval:
    return Interval(0.1, method, "", 60, 50, lower, upper, lower, upper, error, lower, upper, error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("upper", "lower", "error", "state"),
    [
        (0.09, 0.05, 0.001, "below"),
        (0.0959, 0.05, 0.001, "below"),
        (0.0961, 0.05, 0.001, "undetermined"),
        (0.1, 0.05, 0.001, "undetermined"),
        (0.2, 0.05, 0.001, "undetermined"),
        (0.2, 0.1039, 0.001, "undetermined"),
        (0.2, 0.1041, 0.001, "above"),
        (None, 0.2, 0.001, "above"),
        (None, 0.05, 0.001, "undetermined"),
        (0.09, None, 0.001, "below"),
        (0.09, 0.05, None, "undetermined"),
        (None, None, 0.001, "undetermined"),
    ],
)
def test_decisions_keep_four_monte_carlo_errors_from_the_threshold(
    upper: float | None, lower: float | None, error: float | None, state: str
) -> None:
    assert decide(interval(upper, lower, error), 0.1, rule(), 0.0).state == state


def test_a_threshold_must_lie_above_the_floor() -> None:
    sure, same = interval(0.01, 0.0), interval(0.0, 0.0, None, "identical")
    for floor, decided in ((0.0999, True), (0.1, False), (0.2, False), (None, False)):
        assert (decide(sure, 0.1, rule(), floor).state == "below") == decided
        assert (decide(same, 0.1, rule(), floor).state == "identical") == decided
        assert "floor" in decide(sure, 0.1, rule(), floor).reason or decided


def test_exact_bounds_have_no_monte_carlo_margin() -> None:
    exact = interval(0.0999, None, None, "rare_events")
    assert decide(exact, 0.1, rule(), 0.0).state == "below"
    assert decide(interval(0.1, None, None, "rare_events"), 0.1, rule(), 0.0).state == "undetermined"


def test_no_interval_decides_nothing() -> None:
    assert decide(interval(None, None, None, "none"), 0.1, rule(), 0.0).state == "undetermined"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.1), st.floats(0.001, 1), st.floats(0, 0.5))
def test_a_higher_threshold_never_turns_below_into_above(
    a: float, b: float, error: float, t: float, more: float
) -> None:
    lower, upper = sorted((a, b))
    order = {"above": 0, "undetermined": 1, "below": 2}
    one = decide(interval(upper, lower, error), t, rule(), 0.0).state
    assert order[one] <= order[decide(interval(upper, lower, error), t + more, rule(), 0.0).state]


@given(
    st.sampled_from(["below", "above", "undetermined", "identical"]),
    st.sampled_from(["below", "above", "undetermined"]),
)
def test_a_decision_holds_under_both_seeds_or_not_at_all(first: str, second: str) -> None:
    one, other = Decision(first, "a", True), Decision(second, "b", False)  # type: ignore[arg-type]
    found = agree(one, other)
    assert found.state == (first if first == second else "undetermined")
    assert not found.strict_below
    assert agree(one, one) == one
    assert agree(one, other).state == agree(other, one).state


def test_strict_bounds_keep_the_monte_carlo_error_of_their_own_level() -> None:
    sure = interval(0.05, 0.01)
    assert decide(sure, 0.1, rule(), 0.0).strict_below
    for error in (0.02, None):
        decided = decide(replace(sure, strict_error=error), 0.1, rule(), 0.0)
        assert (decided.state, decided.strict_below) == ("below", False)
    numerator, denominator = draw_cells(60, 1, 8)
    resampler = Resampler(SEED, strata(30, 30), rule(resamples=4000))
    found = family(numerator, denominator, [UNBOUNDED], resampler, 5)[0]
    assert found.strict_error is not None
    assert found.error is not None
    # The tail at a fifth of alpha is thinner, and its order statistic less certain.
    assert found.strict_error > found.error


def test_too_few_resamples_for_batches_decide_nothing_and_break_nothing() -> None:
    numerator, denominator = draw_cells(60, 2, 8)
    for resamples in (1, 7, 19):
        resampler = Resampler(SEED, strata(30, 30), rule(resamples=resamples))
        for found in family(numerator, denominator, [UNBOUNDED] * 2, resampler, 2):
            assert (found.method, found.error, found.strict_error) == ("bootstrap", None, None)
            assert decide(found, 10.0, rule(), 0.0).state == "undetermined"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e200, 1e-200, np.inf, np.nan])
def test_extreme_sums_give_no_finite_bound_rather_than_a_wrong_one(value: float) -> None:
    numerator, denominator = draw_cells(60, 1, 8)
    numerator[3] = value
    found = family(numerator, denominator, [UNBOUNDED], Resampler(SEED, strata(30, 30), rule()), 2)[0]
    if value == 1e-200:
        assert found.upper is not None
    else:
        assert found.upper is None or not found.upper < float(numerator.sum() / denominator.sum())
