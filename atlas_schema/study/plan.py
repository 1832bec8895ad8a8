"""What follows from a plan by counting: the runs and the number of rows of every table."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import ExpectedRows, Preregistration


def planned_runs(plan: Preregistration, contract: Contract) -> list[str]:
    """Return the run ids of the base, every null arm and every planned arm."""
    return ["base", *(f"null:{n.id}" for n in contract.nuisances), *(f"arm:{a.name}" for a in plan.arms)]


def expected_rows(*, runs: int, layers: int, positions: int, lengths: Sequence[int], items: int) -> ExpectedRows:
    """Return how many rows each table holds once every run is extracted; ``lengths`` are the windows' tokens."""
    windows, tokens = len(lengths), sum(lengths)
    sampled = windows * positions
    return ExpectedRows(
        run=runs, layer=runs * layers, window=windows, routing=runs * layers * tokens, state=runs * layers * sampled,
        update=(runs - 1) * layers * sampled, update_vector=0, output=runs * (tokens - windows), task=runs * items, overlap=0,
    )  # fmt: skip


def planned_rows(plan: Preregistration, contract: Contract) -> ExpectedRows:
    """Return the expected rows that a pre-registration must state."""
    return expected_rows(
        runs=len(planned_runs(plan, contract)), layers=len(plan.protected_layers), positions=plan.positions_per_window,
        lengths=[w.n_tokens for w in plan.windows], items=len(plan.task.items),
    )  # fmt: skip
