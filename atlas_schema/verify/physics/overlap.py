"""Table `overlap`: which pairs, how often visited, and what its numbers cannot be (R024, R025, R132)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.tables import Dims
from atlas_schema.measures.geometry import Ints
from atlas_schema.verify.physics.violations import Violation, first_false, first_wrong


def check_overlap_ids(overlap: Rows, dims: Dims, pairs: int) -> list[Violation]:
    """Check that pairs are of two experts in range, as many as were planned (R024)."""
    a, b = overlap["expert_a"].astype(np.int64), overlap["expert_b"].astype(np.int64)
    found = first_false(
        "ATL-R024",
        "a pair is not of two different experts in range",
        overlap,
        (a != b) & (a < dims.E) & (b < dims.E),
        a,
    )
    if overlap.n != pairs:
        found.append(
            Violation("ATL-R024", "the pairs are not as many as planned", "table overlap", str(overlap.n), str(pairs))
        )
    return found


def chosen_pairs(visits: Ints, count: int) -> Ints:
    """Return the ``count`` most visited ordered pairs ``[count, 2]`` by id; ties to lower ids. ``visits`` is ``[E, E]``."""
    experts = len(visits)
    flat = visits.astype(np.int64).reshape(-1).copy()
    flat[:: experts + 1] = -1  # no pair of an expert with itself
    found = np.sort(np.argsort(-flat, kind="stable")[:count])
    return np.stack([found // experts, found % experts], axis=1)


def check_overlap(
    rows: Mapping[str, Rows], digests: Mapping[str, Mapping[str, str]], visits: Ints, dims: Dims, relative: float
) -> dict[str, list[Violation]]:
    """Check each run's pairs and visits (R024) and numbers (R025). ``visits`` counts joint membership in the base's sets."""
    found: dict[str, list[Violation]] = {}
    base = rows["base"]
    pairs = chosen_pairs(visits, base.n)
    for run, overlap in rows.items():
        stated = np.stack([overlap["expert_a"], overlap["expert_b"]], axis=1).astype(np.int64)
        mine = first_false(
            "ATL-R024", "a pair is not one of the most visited", overlap, (stated == pairs).all(axis=1), stated, pairs
        )
        seen = visits[pairs[:, 0], pairs[:, 1]]
        mine += first_false(
            "ATL-R024",
            "visits are not those of the base's sets",
            overlap,
            overlap["visits"] == seen,
            overlap["visits"],
            seen,
        )
        found[run] = mine + (
            _check_numbers(overlap, base, pairs, digests[run], digests["base"], dims, relative) if not mine else []
        )
    return found


def _check_numbers(
    overlap: Rows,
    base: Rows,
    pairs: Ints,
    mine: Mapping[str, str],
    of_base: Mapping[str, str],
    dims: Dims,
    relative: float,
) -> list[Violation]:
    """Check what no weights are needed for (R025)."""
    same = {e: mine.get(f"experts.{e}") == of_base.get(f"experts.{e}") for e in range(dims.E)}
    equal = np.array([same[a] and same[b] for a, b in pairs.tolist()], dtype=np.bool_)
    seen, full = overlap["visits"] > 0, overlap["rank"] == dims.d
    num, den, cond, residual = (overlap[name] for name in ("drift_num", "drift_den", "cond", "residual"))
    conditions = (
        ("a rank is larger than the hidden size", overlap["rank"] <= dims.d, overlap["rank"]),
        ("a condition number is there below full rank, or missing at it", overlap.valid("cond") == full, overlap["rank"]),
        ("a condition number is below 1", (cond >= 1.0 - 1e-6) | ~full, cond),
        ("a residual or drift is negative", (residual >= 0) & (num >= 0) & (den >= 0), residual),
        ("a pair without visits has a residual or a drift", seen | ((residual == 0) & (num == 0) & (den == 0)), residual),
        ("maps of equal experts drift", (num == 0) | ~equal, num),
        ("maps of equal experts have another condition number", ~equal | (cond == base["cond"]), cond),
        ("maps of equal experts have another rank", ~equal | (overlap["rank"] == base["rank"]), overlap["rank"]),
    )  # fmt: skip
    found = [v for what, holds, stated in conditions for v in first_false("ATL-R025", what, overlap, holds, stated)]
    found = found or _check_returns(overlap)
    # The denominator is of the base's maps alone; every run's rows repeat it.
    return found + first_wrong("ATL-R025", "the size of the base's maps differs between runs", overlap, den, base["drift_den"],
                               relative * base["drift_den"])  # fmt: skip


MAPPED = (1e-2, 1e-6)
"""Relative error admitted to a condition number: a part for all, and one times its square.

Eigenvalues of whitened projections lose what the square of the projections' own condition number says, which is bounded by
the rule for ranks and not stored. Those of the fixtures agree to and fro within 1e-12.
"""


def _check_returns(overlap: Rows) -> list[Violation]:
    """Check that a map and the one back have the same condition number and rank (R132).

    ``λmax/λmin`` of ``A⁻¹B`` is that of its inverse ``B⁻¹A``. Looks at pairs of which both orders are listed.
    """
    key = overlap["expert_a"].astype(np.int64) * 2**16 + overlap["expert_b"]
    back = overlap["expert_b"].astype(np.int64) * 2**16 + overlap["expert_a"]
    at = np.minimum(np.searchsorted(key, back), len(key) - 1)  # rows are sorted by pair
    listed, cond = key[at] == back, overlap["cond"]
    found = first_false("ATL-R132", "a map and the one back have other ranks", overlap,
                        ~listed | (overlap["rank"] == overlap["rank"][at]), overlap["rank"], overlap["rank"][at])  # fmt: skip
    larger = np.maximum(cond, cond[at])
    fits = ~listed | (np.abs(cond - cond[at]) <= (MAPPED[0] + MAPPED[1] * larger**2) * larger)
    return found + first_false(
        "ATL-R132", "a map and the one back have other condition numbers", overlap, fits, cond, cond[at]
    )


def check_ranks(overlap: Rows, lowest: int, of_base: int, *, equal: bool) -> list[Violation]:
    """Check the lowest rank of a layer's projections against those of maps and the base's (R132).

    ``equal``: every expert has the base's tensors.
    """
    rank = overlap["rank"].astype(np.int64)
    found = first_false("ATL-R132", "a map has a rank below the lowest of the layer", overlap, rank >= lowest, rank)
    if equal and lowest != of_base:
        what = "equal experts have another lowest rank than the base's"
        found.append(Violation("ATL-R132", what, "table layer, w1_rank_min", str(lowest), str(of_base)))
    return found
