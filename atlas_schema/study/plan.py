"""What follows from a plan by counting: the runs and the number of rows of every table."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import ExpectedRows, Preregistration, Window


def planned_runs(plan: Preregistration, contract: Contract) -> list[str]:
    """Return the run ids of the base, every null arm and every planned arm."""
    return ["base", *(f"null:{n.id}" for n in contract.nuisances), *(f"arm:{a.name}" for a in plan.arms)]


def overlap_runs(plan: Preregistration) -> list[str]:
    """Return the runs whose overlap maps are measured: the base and every planned arm; a null arm has the base's weights."""
    return ["base", *(f"arm:{a.name}" for a in plan.arms)]


def expected_rows(
    windows: Sequence[Window], *, nulls: int, arms: int, layers: int, positions: int, overlap_pairs: int, items: int
) -> ExpectedRows:
    """Return how many rows each table holds once every run is extracted."""
    runs, tokens = 1 + nulls + arms, sum(w.n_tokens for w in windows)
    sampled = len(windows) * positions
    evaluated = sum(w.split == "evaluation" for w in windows) * positions
    return ExpectedRows(
        run=runs, layer=runs * layers, window=len(windows), routing=runs * layers * tokens, state=runs * layers * sampled,
        update=(runs - 1) * layers * sampled, update_vector=(runs - 1) * layers * evaluated,
        output=runs * (tokens - len(windows)), task=runs * items, overlap=(1 + arms) * layers * overlap_pairs,
    )  # fmt: skip


def planned_rows(plan: Preregistration, contract: Contract) -> ExpectedRows:
    """Return the expected rows that a pre-registration must state."""
    return expected_rows(
        plan.windows, nulls=len(contract.nuisances), arms=len(plan.arms), layers=len(plan.protected_layers),
        positions=plan.positions_per_window, overlap_pairs=plan.overlap_pairs, items=len(plan.task.items),
    )  # fmt: skip
