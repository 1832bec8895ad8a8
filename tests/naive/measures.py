"""Drift channels and damage, token by token, summed per cluster.

Every function returns unrounded float64 sums (exactly rounded accumulation, so the order of rows does not
matter). Not checked here: whether rows obey the evidence invariants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from .rows import Row

Cell = tuple[str, str]
"""(definition id, form)."""

Sums = dict[str, tuple[float, float]]
"""cluster_id to (numerator, denominator)."""

COORDINATE = "drift.coordinate/1"
BOUNDARY = "drift.boundary/1"
TRANSITION = "drift.transition/1"
CONTENT = "drift.chart_content/1"
BLOCK = "guard.block/1"
RATIO = "ratio_of_sums"
MEAN = "mean_bounded"

CELLS: tuple[Cell, ...] = (
    (COORDINATE, RATIO),
    (BOUNDARY, RATIO),
    (TRANSITION, RATIO),
    (TRANSITION, MEAN),
    (CONTENT, RATIO),
    (CONTENT, MEAN),
    (BLOCK, RATIO),
)

BOUNDED: frozenset[Cell] = frozenset({(COORDINATE, RATIO), (BOUNDARY, RATIO), (TRANSITION, MEAN), (CONTENT, MEAN)})
"""Cells whose statistic lies in [0, 1]."""


# --- one token ----------------------------------------------------------------------------------------------


def norm(vector: Sequence[float]) -> float:
    """Euclidean norm in float64."""
    return math.sqrt(math.fsum(value * value for value in vector))


def coordinate_angle(z0: Sequence[float], z1: Sequence[float]) -> float:
    """Angle between two states over pi, in [0, 1]; orthogonal states give 0.5. A zero state is refused."""
    if len(z0) != len(z1):
        raise ValueError(f"states of different size: {len(z0)} and {len(z1)}")
    n0 = norm(z0)
    n1 = norm(z1)
    if n0 == 0.0 or n1 == 0.0:
        raise ValueError("a zero state has no direction")
    difference = []
    total = []
    for a, b in zip(z0, z1, strict=True):
        unit_a = a / n0
        unit_b = b / n1
        difference.append(unit_a - unit_b)
        total.append(unit_a + unit_b)
    return 2.0 * math.atan2(norm(difference), norm(total)) / math.pi


def unpack_gram(packed: Sequence[float], size: int) -> list[list[float]]:
    """The full symmetric matrix `[size][size]` from its packed upper triangle (row-major, i <= j)."""
    if len(packed) != size * (size + 1) // 2:
        raise ValueError(f"packed Gram of {size} vectors has {size * (size + 1) // 2} values, found {len(packed)}")
    full = [[0.0] * size for _ in range(size)]
    place = 0
    for i in range(size):
        for j in range(i, size):
            full[i][j] = packed[place]
            full[j][i] = packed[place]
            place += 1
    return full


def combination_norm(gram: Sequence[Sequence[float]], coefficients: Mapping[int, float]) -> float:
    """Norm of `sum_i c_i w_i` for vectors with this Gram matrix; a negative rounding residue reads 0."""
    terms = []
    for i, a in coefficients.items():
        for j, b in coefficients.items():
            terms.append(a * b * gram[i][j])
    return math.sqrt(max(0.0, math.fsum(terms)))


def members(bits: int, length: int) -> set[int]:
    """List positions whose bit is set."""
    if bits >> length:
        raise ValueError(f"bit mask {bits:#x} reaches beyond a list of {length} experts")
    return {place for place in range(length) if (bits >> place) & 1}


def boundary_token(row: Row) -> tuple[float, float]:
    """Share of the base's same-state set that the arm's same-state set no longer holds."""
    count = len(row["experts"])
    base_set = members(row["in0"], count)
    arm_set = members(row["in1"], count)
    if not base_set:
        raise ValueError("the base's set is empty")
    return 1.0 - len(base_set & arm_set) / len(base_set), 1.0


def transition_token(row: Row) -> tuple[float, float] | None:
    """(||J1 - J0||, ||J0||) of the base's same-state pair, or None where there is no competitor."""
    if row["pair_in"] is None:
        return None
    experts: list[int] = list(row["experts"])
    count = len(experts)
    gram = unpack_gram(row["gram"], 2 * count)
    leaving = experts.index(row["pair_out"])
    entering = experts.index(row["pair_in"])
    rho0: float = row["rho0_b"]
    rho1: float = row["rho1_b_forced"]
    # With v1 = v0 + delta:  J1 - J0 = (rho1 - rho0)(v0_b' - v0_b) + rho1 (delta_b' - delta_b).
    change = {
        entering: rho1 - rho0,
        leaving: -(rho1 - rho0),
        count + entering: rho1,
        count + leaving: -rho1,
    }
    base = {entering: rho0, leaving: -rho0}
    return combination_norm(gram, change), combination_norm(gram, base)


def content_token(row: Row) -> tuple[float, float]:
    """(sum rho1 ||delta||, sum rho0 ||v0||) over the listed experts; rho is zero off the set."""
    count = len(row["experts"])
    gram = unpack_gram(row["gram"], 2 * count)
    numerator = []
    denominator = []
    for place in range(count):
        numerator.append(row["rho1"][place] * combination_norm(gram, {count + place: 1.0}))
        denominator.append(row["rho0"][place] * combination_norm(gram, {place: 1.0}))
    return math.fsum(numerator), math.fsum(denominator)


def block_token(row: Row) -> tuple[float, float]:
    """(||y1(z0) - y0(z0)||, ||y0(z0)||) as recorded."""
    return float(row["dy_norm"]), float(row["y0_norm"])


def bounded_share(numerator: float, denominator: float) -> float:
    """N / (N + D), and 0 where both are 0."""
    if numerator == 0.0 and denominator == 0.0:
        return 0.0
    return numerator / (numerator + denominator)


# --- clusters -----------------------------------------------------------------------------------------------


def _chosen_windows(window_rows: Iterable[Row], splits: Iterable[str] | None) -> dict[str, Row]:
    wanted = None if splits is None else set(splits)
    return {row["window_id"]: row for row in window_rows if wanted is None or row["split"] in wanted}


def cluster_domains(window_rows: Iterable[Row], *, splits: Iterable[str] | None = None) -> dict[str, str]:
    """cluster_id to its domain, which is its stratum before merging. A cluster in two domains is refused."""
    domains: dict[str, str] = {}
    for row in _chosen_windows(window_rows, splits).values():
        known = domains.setdefault(row["cluster_id"], row["domain"])
        if known != row["domain"]:
            raise ValueError(f"cluster {row['cluster_id']} lies in two domains: {known}, {row['domain']}")
    return domains


def cluster_sums(
    state_rows: Iterable[Row],
    update_rows: Iterable[Row],
    window_rows: Iterable[Row],
    run_id: str,
    layer: int,
    *,
    splits: Iterable[str] | None = None,
    base_id: str = "base",
) -> dict[Cell, Sums]:
    """Numerator and denominator of every cell of one run and layer, per cluster.

    Every cluster of the chosen windows appears in every cell, with (0, 0) where none of its tokens counts:
    all cells of a family are resampled over the same clusters. `splits` keeps only windows of those splits
    (default: all).
    """
    windows = _chosen_windows(window_rows, splits)
    cluster_of = {window_id: str(row["cluster_id"]) for window_id, row in windows.items()}
    found: dict[Cell, dict[str, list[tuple[float, float]]]] = {
        cell: {cluster: [] for cluster in cluster_of.values()} for cell in CELLS
    }

    base_states: dict[tuple[str, int], Sequence[float]] = {}
    arm_states: dict[tuple[str, int], Sequence[float]] = {}
    for row in state_rows:
        if row["layer"] != layer or row["window_id"] not in cluster_of:
            continue
        token = (row["window_id"], row["position"])
        # Both may hold: the base measured against itself.
        if row["run_id"] == base_id:
            base_states[token] = row["z"]
        if row["run_id"] == run_id:
            arm_states[token] = row["z"]
    if base_states.keys() != arm_states.keys():
        raise ValueError(f"base and {run_id} have states for different tokens at layer {layer}")
    for token, z0 in base_states.items():
        angle = coordinate_angle(z0, arm_states[token])
        found[(COORDINATE, RATIO)][cluster_of[token[0]]].append((angle, 1.0))

    for row in update_rows:
        if row["run_id"] != run_id or row["layer"] != layer or row["window_id"] not in cluster_of:
            continue
        cluster = cluster_of[row["window_id"]]
        found[(BOUNDARY, RATIO)][cluster].append(boundary_token(row))
        transition = transition_token(row)
        if transition is not None:
            found[(TRANSITION, RATIO)][cluster].append(transition)
            found[(TRANSITION, MEAN)][cluster].append((bounded_share(*transition), 1.0))
        content = content_token(row)
        found[(CONTENT, RATIO)][cluster].append(content)
        found[(CONTENT, MEAN)][cluster].append((bounded_share(*content), 1.0))
        found[(BLOCK, RATIO)][cluster].append(block_token(row))

    return {cell: {cluster: _total(tokens) for cluster, tokens in sorted(found[cell].items())} for cell in CELLS}


def missing_pair_share(
    update_rows: Iterable[Row],
    window_rows: Iterable[Row],
    run_id: str,
    layer: int,
    *,
    splits: Iterable[str] | None = None,
) -> tuple[int, int]:
    """(tokens without a competitor, all sampled tokens) of one run and layer."""
    windows = _chosen_windows(window_rows, splits)
    missing = 0
    total = 0
    for row in update_rows:
        if row["run_id"] == run_id and row["layer"] == layer and row["window_id"] in windows:
            total += 1
            missing += row["pair_in"] is None
    return missing, total


def damage_sums(
    output_rows: Iterable[Row],
    window_rows: Iterable[Row],
    run_id: str,
    *,
    splits: Iterable[str] | None = None,
    base_id: str = "base",
) -> dict[str, Sums]:
    """Per domain and cluster: (sum of nll_arm - nll_base in nats, predicted tokens)."""
    windows = _chosen_windows(window_rows, splits)
    base_nll: dict[tuple[str, int], float] = {}
    arm_nll: dict[tuple[str, int], float] = {}
    for row in output_rows:
        if row["window_id"] not in windows:
            continue
        token = (row["window_id"], row["position"])
        if row["run_id"] == base_id:
            base_nll[token] = row["nll"]
        if row["run_id"] == run_id:
            arm_nll[token] = row["nll"]
    if base_nll.keys() != arm_nll.keys():
        raise ValueError(f"base and {run_id} have outputs for different tokens")
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in windows.values():
        found.setdefault(row["domain"], {}).setdefault(row["cluster_id"], [])
    for token, before in base_nll.items():
        window = windows[token[0]]
        found[window["domain"]][window["cluster_id"]].append((arm_nll[token] - before, 1.0))
    return {
        domain: {cluster: _total(tokens) for cluster, tokens in sorted(clusters.items())}
        for domain, clusters in sorted(found.items())
    }


def _total(tokens: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return math.fsum(token[0] for token in tokens), math.fsum(token[1] for token in tokens)
