"""Plans written after the fact: arms, windows, layers and items left out of a shipped study, rows and plan alike."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from simulator import StudySimulator, merged

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.study.plan import overlap_runs, planned_rows, planned_runs
from atlas_schema.study.preregister import digest_of

Plan = dict[str, Any]


def replanned(
    s: StudySimulator, *, arms: Collection[str] | None = None, windows: Collection[str] | None = None,
    layers: Collection[int] | None = None, items: Collection[str] | None = None, changes: Mapping[str, Any] | None = None,
) -> StudySimulator:  # fmt: skip
    """Return the study under another plan, with the rows that the plan asks for.

    Overlap maps are of pairs that follow from the windows; where windows are left out, the plan asks for no maps.
    """
    plan = merged(json.loads(s.preregistration.model_dump_json()), changes or {})
    plan["arms"] = [a for a in plan["arms"] if arms is None or a["name"] in arms]
    plan["windows"] = [w for w in plan["windows"] if windows is None or w["window_id"] in windows]
    plan["protected_layers"] = [layer for layer in plan["protected_layers"] if layers is None or layer in layers]
    plan["task"]["items"] = [i for i in plan["task"]["items"] if items is None or i["item_id"] in items]
    plan["overlap_pairs"] = plan["overlap_pairs"] if windows is None else 0
    made = Preregistration.model_validate_json(json.dumps(plan))
    rows = planned_rows(made, s.contract)
    made = Preregistration.model_validate_json(json.dumps({**plan, "expected_rows": rows.model_dump()}))
    return replace(s, preregistration=made, tables={name: kept(s, name, made) for name in STUDY_TABLES})


def kept(s: StudySimulator, name: str, plan: Preregistration) -> pa.Table:
    """Return the rows of a table that a plan asks for; the same table where it asks for all."""
    rows = s.tables[name]
    wanted: dict[str, Collection[Any]] = {
        "run_id": overlap_runs(plan) if name == "overlap" else planned_runs(plan, s.contract), "layer": plan.protected_layers,
        "window_id": [w.window_id for w in plan.windows], "item_id": [i.item_id for i in plan.task.items],
    }  # fmt: skip
    if name == "overlap" and not plan.overlap_pairs:
        return rows.slice(0, 0)
    keep = np.ones(rows.num_rows, dtype=np.bool_)
    for column in set(wanted) & set(TABLES[name].key):
        values = rows.column(column)
        keep &= pc.is_in(values, pa.array(sorted(wanted[column]), values.type)).to_numpy(zero_copy_only=False)
    return rows if keep.all() else rows.filter(pa.array(keep))


def under(s: StudySimulator, contract: Contract) -> StudySimulator:
    """Return the study under another contract, which its plan cites."""
    cited = {"contract": {"id": contract.id, "digest": digest_of(contract)}}
    plan = merged(json.loads(s.preregistration.model_dump_json()), cited)
    return replace(s, contract=contract, preregistration=Preregistration.model_validate_json(json.dumps(plan)))
