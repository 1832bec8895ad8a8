"""From a pilot to a plan: the sizes by formula, rehearsed, and raised until every decision keeps its promise.

Pure. A decision that no size can bring about is named with its reason; the others are planned as if it were not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from atlas_schema.documents.contract import Bootstrap
from atlas_schema.measures.geometry import F64
from atlas_schema.measures.intervals import Statistic
from atlas_schema.study.planner import Column, Domains, Need, need
from atlas_schema.study.rehearsal import Group, Outcomes, rehearse, rehearse_floors, rehearse_scores

GROWTH = 1.15
ROUNDS = 12
"""By how much sizes grow after a rehearsal that fell short, and how many rehearsals there may be."""


@dataclass(frozen=True, slots=True)
class PilotArm:
    """One arm of the pilot: drift cells and their names, damage by domain, item scores ``[items]`` and the score needed."""

    name: str
    names: tuple[str, ...]
    drift: Group
    damage: Group
    scores: F64
    needed: float


@dataclass(frozen=True, slots=True)
class Aims:
    """What is asked of the study: power of every single decision, or of all of an arm's together, and how large it may be."""

    power: float = 0.8
    jointly: bool = False
    most_clusters: int = 100_000
    most_items: int = 100_000
    least_items: int = 1
    studies: int = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One decision of one arm: what the pilot found, the size by formula, and how often the rehearsals decided."""

    arm: str
    kind: str
    name: str
    value: float | None
    threshold: float
    need: Need
    power: float | None = None


@dataclass(frozen=True, slots=True)
class SizePlan:
    """Sizes and what they achieve. ``joint``: per arm how often all of its decisions came out; None where one never can.

    ``kept``: whether the last rehearsal met what was asked, within its own chance error.
    """

    lines: tuple[Line, ...]
    clusters: dict[str, int]
    items: int
    joint: dict[str, float | None]
    kept: bool

    @property
    def possible(self) -> bool:
        """Whether every decision of every arm has a size, and the rehearsal kept the promise."""
        return self.kept and all(line.need.size is not None for line in self.lines)


def plan_sizes(
    arms: Sequence[PilotArm], domains: Domains, rule: Bootstrap, aims: Aims, say: Callable[[str], None] = lambda _: None
) -> SizePlan:
    """Return the smallest sizes found at which every decision that can be brought about keeps ``aims.power``.

    All arms have the same null arms. ``say`` is told what is rehearsed, which takes a while.
    """
    lines = [line for arm in arms for line in _formula(arm, domains, rule, aims)]
    clusters = _shared(lines, domains, rule)
    items = max([aims.least_items, *(n.need.size for n in lines if n.kind == "success" and n.need.size)])
    rounds = 0
    while True:
        rounds += 1
        say(f"rehearsing {aims.studies} studies of {sum(clusters.values())} documents and {items} items ...")
        lines, joint = _rehearsed(lines, arms, domains, (clusters, items), rule, aims.studies)
        short = _short(lines, joint, aims)
        grown = {n.name if n.kind == "damage" else n.kind for n in short}
        larger = {d: _grown(n) if {d, "drift"} & grown else n for d, n in clusters.items()}
        more = _grown(items) if "success" in grown else items
        enough = sum(larger.values()) > aims.most_clusters or more > aims.most_items or rounds == ROUNDS
        if not short or enough:
            kept = not short and sum(clusters.values()) <= aims.most_clusters
            return SizePlan(tuple(lines), clusters, items, joint, kept)
        clusters, items = larger, more


def _short(lines: Sequence[Line], joint: dict[str, float | None], aims: Aims) -> list[Line]:
    """Return the lines that must grow: below the power asked for by more than chance, alone or, if asked, together."""
    allowed = aims.power - 2.0 * math.sqrt(aims.power * (1.0 - aims.power) / aims.studies)
    short = [n for n in lines if n.power is not None and n.power < allowed]
    if short or not aims.jointly:
        return short
    weak = {arm for arm, power in joint.items() if power is not None and power < allowed}
    rest = [n for n in lines if n.arm in weak and n.power is not None]
    return [n for n in rest if n.power == min(o.power or 0.0 for o in rest if o.arm == n.arm)]


def _grown(size: int) -> int:
    return math.ceil(size * GROWTH)


def _formula(arm: PilotArm, domains: Domains, rule: Bootstrap, aims: Aims) -> list[Line]:
    """Return the lines of one arm with the sizes that the formula gives. A null arm must be below as well, or no floor is."""
    least, most = rule.min_clusters, aims.most_clusters
    lines = []
    for name, (column, nulls) in zip(arm.names, arm.drift.columns(), strict=True):
        found = need(column, domains, rule, aims.power, least, most)
        floors = [need(null, domains, rule, aims.power, least, most) for null in nulls]
        lines.append(Line(arm.name, "drift", name, _value(column), column.threshold, _with_floor(found, floors)))
    for domain, (column, _) in zip(sorted(set(domains)), arm.damage.columns(), strict=True):
        inside = np.array(domains) == domain
        part = replace(column, numerator=column.numerator[inside], denominator=column.denominator[inside])
        found = need(part, (domain,) * int(inside.sum()), rule, aims.power, least, most)
        lines.append(Line(arm.name, "damage", domain, _value(part), part.threshold, found))
    failures = Column(1.0 - arm.scores, np.ones(len(arm.scores)), Statistic(False, True, True), 1.0 - arm.needed)
    found = need(failures, ("items",) * len(arm.scores), rule, aims.power, aims.least_items, aims.most_items)
    if found.size is None and "not below" in found.why:
        found = Need(None, f"the pilot's score {arm.scores.mean():.3g} is not above the needed {arm.needed:.3g}")
    lines.append(Line(arm.name, "success", "score", float(arm.scores.mean()), arm.needed, found))
    return lines


def _value(column: Column) -> float | None:
    total = float(column.denominator.sum())
    return float(column.numerator.sum()) / total if total > 0 else None


def _with_floor(found: Need, floors: Sequence[Need]) -> Need:
    if found.size is None:
        return found
    for floor in floors:
        if floor.size is None:
            return Need(None, f"floor of the null arms: {floor.why}")
    highest = max((f.size or 0 for f in floors), default=0)
    return Need(highest, "floor of the null arms") if highest > found.size else found


def _shared(lines: Sequence[Line], domains: Domains, rule: Bootstrap) -> dict[str, int]:
    """Return clusters per domain: the pilot's proportions at the largest need of drift, and what damage needs in each."""
    drift = max([rule.min_clusters, *(n.need.size for n in lines if n.kind == "drift" and n.need.size)])
    sizes = {d: math.ceil(drift * domains.count(d) / len(domains)) for d in sorted(set(domains))}
    for line in lines:
        if line.kind == "damage" and line.need.size:
            sizes[line.name] = max(sizes[line.name], line.need.size)
    return sizes


def _rehearsed(
    lines: Sequence[Line], arms: Sequence[PilotArm], domains: Domains, sizes: tuple[dict[str, int], int], rule: Bootstrap,
    studies: int,
) -> tuple[list[Line], dict[str, float | None]]:  # fmt: skip
    """Return the lines with the share of rehearsed studies that decided them, and per arm the share that decided all."""
    clusters, items = sizes
    outcomes: dict[str, Outcomes] = {}
    # Null arms are the same for every arm, and so are the clusters that each study draws.
    floors = rehearse_floors(arms[0].drift.nulls, domains, clusters, rule, studies)
    for arm in arms:
        drift = rehearse(arm.drift, domains, clusters, rule, studies, floors=floors)
        damage = rehearse(arm.damage, domains, clusters, rule, studies)
        success = rehearse_scores(arm.scores, arm.needed, items, rule, studies)
        outcomes[arm.name] = np.concatenate([drift, damage, success[:, None]], axis=1)
    counted, joint = [], {}
    for name, found in outcomes.items():
        mine = [line for line in lines if line.arm == name]
        shares = found.mean(axis=0)
        counted += [
            replace(line, power=float(share) if line.need.size is not None else None)
            for line, share in zip(mine, shares, strict=True)
        ]
        possible = all(line.need.size is not None for line in mine)
        joint[name] = float(found.all(axis=1).mean()) if possible else None
    return counted, joint
