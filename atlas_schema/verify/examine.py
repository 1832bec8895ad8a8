"""One pass over the evidence: digests, keys, physics and measures look at every block once.

What is found is kept apart until binding has said whether these are the rows that the receipt is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from atlas_schema.documents.contract import Contract
from atlas_schema.documents.preregistration import Preregistration
from atlas_schema.errors import RowsError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.digest import EvidenceDigester, Partition, TableRoot
from atlas_schema.evidence.source import EvidenceSource, read_all
from atlas_schema.evidence.streaming import processors
from atlas_schema.evidence.tables import STUDY_TABLES
from atlas_schema.measures.collect import LayerBlock, Observer, OutputBlock, Sums, collect
from atlas_schema.measures.facts import runs_of
from atlas_schema.verify.outcome import Channel, ChannelResult, Status
from atlas_schema.verify.physics.observer import Physics
from atlas_schema.verify.rows import Keys, check_tables


@dataclass(slots=True)
class Examined:
    """What one pass found. ``sums`` where every row obeys the physics; ``error`` where rows support no check."""

    evidence: EvidenceSource
    roots: list[TableRoot]
    contract: ChannelResult
    physics: ChannelResult
    sums: Sums | None = None
    error: RowsError | None = None


class _Stopped(Exception):  # noqa: N818 - not an error: rows that break a rule are not measured
    """The pass ends early: what follows is checked without measuring."""


class Digests:
    """Observer: hashes every block, in another thread where there is a processor for it."""

    def __init__(self, evidence: EvidenceSource) -> None:
        self.evidence, self.digester = evidence, EvidenceDigester(evidence.dims)
        self._complete: set[tuple[str, Partition]] = set()
        self._pool = ThreadPoolExecutor(1) if processors() > 1 else None
        self._running: Future[None] | None = None

    def layer_block(self, block: LayerBlock) -> None:
        """Hash one block."""
        tables = {
            "state": block.state,
            "routing": block.routing,
            "update": block.update,
            "update_vector": block.vectors,
        }
        self._add([(name, (run, block.layer), rows) for name, runs in tables.items() for run, rows in runs.items()])

    def output_block(self, block: OutputBlock) -> None:
        """Hash one block."""
        self._add([("output", (run,), rows) for run, rows in block.output.items()])

    def _add(self, parts: list[tuple[str, Partition, Rows]]) -> None:
        self._wait()  # for the block before: no more than two are held
        self._complete |= {(table, partition) for table, partition, _ in parts}
        if self._pool is None:
            self._hash(parts)
        else:
            self._running = self._pool.submit(self._hash, parts)

    def _hash(self, parts: list[tuple[str, Partition, Rows]]) -> None:
        for table, partition, rows in parts:
            self.digester.add(table, partition, rows)

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
            self._running = None

    def close(self) -> None:
        """Wait for what is being hashed, and stop the thread."""
        self._wait()
        if self._pool is not None:
            self._pool.shutdown()

    def roots(self, *, seen: bool) -> list[TableRoot]:
        """Return the root of every table, reading what no pass has shown; all of it where a pass was not ``seen`` to its end."""
        self.close()
        for table in STUDY_TABLES:
            for partition in self.evidence.partitions(table):
                if seen and (table, partition) in self._complete:
                    continue
                self.digester.forget(table, partition)
                for (rows,) in self.evidence.blocks([(table, partition)]):
                    self.digester.add(table, partition, rows)
        return [self.digester.root(table) for table in STUDY_TABLES]


class _Gate:
    """Observer: lets no block be looked at further in which something is wrong."""

    def __init__(self, keys: Keys, physics: Physics) -> None:
        self.keys, self.physics = keys, physics

    def layer_block(self, block: LayerBlock) -> None:
        self.output_block(block)

    def output_block(self, _: LayerBlock | OutputBlock) -> None:
        if not (self.keys.clean and self.physics.record.clean):
            raise _Stopped


def watch(evidence: EvidenceSource, contract: Contract, plan: Preregistration, observers: Sequence[Observer]) -> None:
    """Show every block to observers, and measure nothing."""
    runs = runs_of(plan, contract)
    tables = (("state", runs), ("routing", runs), ("update", runs[1:]), ("update_vector", runs[1:]))
    for layer in plan.protected_layers:
        for parts in evidence.blocks([(table, (run, layer)) for table, mine in tables for run in mine]):
            rest = iter(parts)
            state, routing, update, vectors = ({run: next(rest) for run in mine} for _, mine in tables)
            block = LayerBlock(layer, state, routing, update, vectors)
            for observer in observers:
                observer.layer_block(block)
    for parts in evidence.blocks([("output", (run,)) for run in runs]):
        for observer in observers:
            observer.output_block(OutputBlock(dict(zip(runs, parts, strict=True))))


@np.errstate(all="ignore")  # huge stored values become infinities and NaN, which no comparison admits
def examine(evidence: EvidenceSource, plan: Preregistration, contract: Contract, *, reproduce: bool) -> Examined:
    """Read the evidence once: hash it, check its rows, and, to ``reproduce``, collect what findings follow from.

    Where something is wrong, rows are read once more: then everything is checked and nothing measured. Raises
    `EvidenceError` for rows that cannot be decoded.
    """
    made = Examined(
        evidence, [], ChannelResult(Channel.CONTRACT), ChannelResult(Channel.REPRODUCTION, unit="rows and numbers")
    )
    digests = Digests(evidence)
    try:
        check_tables(evidence, plan, contract, made.contract)
        seen = made.contract.status is Status.PASSED and _pass(evidence, plan, contract, digests, made, reproduce)
        made.roots = digests.roots(seen=seen)
    finally:
        digests.close()
    return made


def _pass(
    evidence: EvidenceSource,
    plan: Preregistration,
    contract: Contract,
    digests: Digests,
    made: Examined,
    reproduce: bool,
) -> bool:
    """Make the pass; return whether the digests are of all rows."""
    keys = Keys(read_all(evidence, "window"))
    if not reproduce:
        watch(evidence, contract, plan, [digests, keys])
        keys.report(made.contract)
        return True
    try:
        physics = Physics(evidence, plan, contract)
        if not physics.ready:
            watch(evidence, contract, plan, [digests, keys])
        else:
            try:
                gate = _Gate(keys, physics)
                made.sums = collect(evidence, contract, plan, [digests, keys, gate, physics, gate])
            except _Stopped:
                return _again(evidence, plan, contract, made)
            physics.finish()
        keys.report(made.contract)
        physics.record.report(made.physics)
    except RowsError as error:
        made.error, made.sums = error, None
        return False
    if made.physics.problems:
        made.sums = None
    return True


def _again(evidence: EvidenceSource, plan: Preregistration, contract: Contract, made: Examined) -> bool:
    """Check every row without measuring any: keys first, and the physics only of rows that can be paired."""
    keys = Keys(read_all(evidence, "window"))
    watch(evidence, contract, plan, [keys])
    keys.report(made.contract)
    if made.contract.status is Status.PASSED:
        physics = Physics(evidence, plan, contract)
        watch(evidence, contract, plan, [physics])
        physics.finish()
        physics.record.report(made.physics)
    return False
