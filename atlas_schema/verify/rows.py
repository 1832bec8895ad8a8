"""Channel contract, rows: windows are the planned ones, and every cell holds exactly the expected rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import AtlasError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import EvidenceSource, Partition, read_all
from atlas_schema.evidence.tables import STUDY_TABLES
from atlas_schema.measures.collect import LayerBlock, OutputBlock
from atlas_schema.measures.geometry import Ints
from atlas_schema.study.plan import overlap_runs, planned_runs
from atlas_schema.study.probe import positions_for, token_digest
from atlas_schema.verify.outcome import ChannelResult, Problem

LAYERED = ("layer", "routing", "state", "update", "update_vector", "overlap")


def check_tables(evidence: EvidenceSource, plan: Preregistration, contract: Contract, result: ChannelResult) -> None:
    """Check windows (C011), that every planned cell has rows and no other has, and the items of the task (C010)."""
    result.check()
    window = read_all(evidence, "window")
    faults = list(_window_faults(window, plan))
    for what, where, stated, expected in faults[:5]:
        result.report(Problem("ATL-C011", what, where=where, stated=stated, recomputed=expected,
                              todo="the evidence must hold the pre-registered windows and no others"))  # fmt: skip
    if faults:
        return
    for table in STUDY_TABLES:
        if table != "window":
            _check_table(evidence, table, plan, contract, result)


def _window_faults(window: Rows, plan: Preregistration) -> Iterator[tuple[str, str, str, str]]:
    planned = {w.window_id: w for w in plan.windows}
    if list(window["window_id"]) != sorted(planned):
        missing, extra = (
            sorted(set(planned) - set(window["window_id"])),
            sorted(set(window["window_id"]) - set(planned)),
        )
        yield ("The windows are not the pre-registered ones.", "table window",
               f"{window.n} windows; extra {', '.join(extra[:3]) or 'none'}",
               f"{len(planned)}; missing {', '.join(missing[:3]) or 'none'}")  # fmt: skip
        return
    offsets = window.offsets("tokens")
    for i, name in enumerate(window["window_id"]):
        w, tokens = planned[name], window["tokens"][offsets[i] : offsets[i + 1]].tolist()
        where = f"table window, window_id={name}"
        for column, value in (
            ("cluster_id", w.cluster_id),
            ("domain", w.domain),
            ("split", w.split),
            ("n_bytes", w.n_bytes),
            ("predicted_bytes", w.predicted_bytes),
        ):
            if window[column][i] != value:
                yield f"{column} is not the pre-registered one.", where, str(window[column][i]), str(value)
        if len(tokens) != w.n_tokens or token_digest(tokens) != w.token_digest:
            yield "The tokens are not the pre-registered ones.", where, token_digest(tokens), w.token_digest
            continue
        try:
            positions = positions_for(
                w.token_digest, w.n_tokens, plan.positions_per_window, plan.first_allowed_position
            )
        except AtlasError as error:
            yield error.what, where, error.found, error.expected
            continue
        if window["positions"][i].tolist() != positions:
            yield (
                "The sampled positions are not those that follow from the tokens.",
                where,
                str(window["positions"][i].tolist()),
                str(positions),
            )


def planned_cells(table: str, plan: Preregistration, contract: Contract) -> list[Partition]:
    """Return the partitions that a table must hold."""
    runs = planned_runs(plan, contract)
    if table in ("update", "update_vector"):
        evaluated = any(w.split == "evaluation" for w in plan.windows)
        runs = [r for r in runs if r != "base" and (table == "update" or evaluated)]
    if table == "overlap":
        runs = overlap_runs(plan) if plan.overlap_pairs else []
    return [(r, layer) for r in runs for layer in plan.protected_layers] if table in LAYERED else [(r,) for r in runs]


def _check_table(
    evidence: EvidenceSource, table: str, plan: Preregistration, contract: Contract, result: ChannelResult
) -> None:
    """Compare the cells of a table with the planned ones, and the keys of small tables."""
    expected = set(planned_cells(table, plan, contract))
    found = set(evidence.partitions(table)) if table != "run" else {(r,) for r in evidence.read("run", ())["run_id"]}
    result.check(max(1, len(expected)))
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        absent(result, table, f"without {missing[:3] or 'none'}; beyond {extra[:3] or 'none'}", f"{len(expected)} cells",
               contradiction=bool(extra))  # fmt: skip
    elif table == "task":
        items = sorted(i.item_id for i in plan.task.items)
        for partition in sorted(found):
            rows = evidence.read(table, partition)
            if list(rows["item_id"]) != items:
                absent(result, f"{table} {partition}", f"{rows.n} rows", f"{len(items)} rows with the planned keys")


def absent(result: ChannelResult, where: str, stated: str, expected: str, *, contradiction: bool = False) -> None:
    """Report a table that does not hold the expected rows: a gap, or rows that nobody planned."""
    result.report(Problem("ATL-C010", "A table does not hold the expected rows.", where=f"table {where}", stated=stated,
                          recomputed=expected, unproven=not contradiction,
                          todo="resume the extraction with the same command until every planned run is complete"))  # fmt: skip


class Keys:
    """Observer: the rows of every cell have exactly the planned windows and positions, in order (C010)."""

    def __init__(self, window: Rows) -> None:
        self._number = {text: i for i, text in enumerate(window["window_id"])}
        every, lengths = np.arange(window.n), np.diff(window.offsets("tokens"))
        evaluated = window["split"] == "evaluation"
        sampled = every[:, None] * 2**17 + window["positions"].astype(np.int64)
        self._expected: dict[str, Ints] = {
            "state": sampled.reshape(-1), "update": sampled.reshape(-1), "update_vector": sampled[evaluated].reshape(-1),
            "routing": _every(every, lengths), "output": _every(every, lengths - 1),
        }  # fmt: skip
        self._seen: dict[tuple[str, Partition], int] = {}
        self._wrong: set[tuple[str, Partition]] = set()

    @property
    def clean(self) -> bool:
        return not self._wrong

    def layer_block(self, block: LayerBlock) -> None:
        """Compare the keys of one block."""
        tables = {
            "state": block.state,
            "routing": block.routing,
            "update": block.update,
            "update_vector": block.vectors,
        }
        self._compare({(name, (run, block.layer)): rows for name, runs in tables.items() for run, rows in runs.items()})

    def output_block(self, block: OutputBlock) -> None:
        """Compare the keys of one block."""
        self._compare({("output", (run,)): rows for run, rows in block.output.items()})

    def _compare(self, parts: Mapping[tuple[str, Partition], Rows]) -> None:
        found = {cell: self._keys(rows) for cell, rows in parts.items()}
        # All parts of a block cover the same windows: up to the last one that any of them has.
        last = max((int(keys[-1]) >> 17 for keys in found.values() if len(keys)), default=-1)
        for cell, keys in found.items():
            expected, start = self._expected[cell[0]], self._seen.get(cell, 0)
            stop = int(np.searchsorted(expected, (last + 1) << 17))
            if not np.array_equal(keys, expected[start:stop]):
                self._wrong.add(cell)
            self._seen[cell] = start + len(keys)

    def _keys(self, rows: Rows) -> Ints:
        column = rows.columns["window_id"]
        if column.codes is None or not rows.n:
            return np.zeros(0, dtype=np.int64)
        number = np.array([self._number.get(text, -1) for text in column.texts], dtype=np.int64)
        out: Ints = number[column.codes] * 2**17 + rows["position"].astype(np.int64)
        return out

    def report(self, result: ChannelResult) -> None:
        """Report the cells whose keys are not the planned ones, once everything was seen."""
        for table, partition in sorted(self._seen):
            seen, expected = self._seen[table, partition], len(self._expected[table])
            if (table, partition) in self._wrong or seen != expected:
                absent(result, f"{table} {partition}", f"{seen} rows", f"{expected} rows with the planned keys")


def _every(windows: Ints, counts: Ints) -> Ints:
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    out: Ints = np.repeat(windows, counts) * 2**17 + np.arange(counts.sum()) - starts
    return out
