"""Attack every column of every table of a shipped study, at three strengths, and count what catches it.

    python -m attacks.columns --keep FOLDER --write docs/attacks.md

Results are kept per study and table in FOLDER, so that an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from attacks.edits import Attack, cell_attacks, joint_attacks, table_attacks
from attacks.world import Outcome, Shipped, Strength, attacked, honest, processor_seconds, quick

from atlas_schema.evidence.tables import STUDY_TABLES, TABLES
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.verifier import Options
from benchmarks.page import write_section

NAME = "tests/attacks/columns.py"
SEED = 20261122
RESAMPLES = 1000
"""Of the contract that receipts are judged by here; the built-in one asks for ten times as many."""
STUDIES: Mapping[str, tuple[str, str]] = {"demo": ("preserved", "preserved"), "deepseek": ("rewritten", "rewritten")}
"""Attacked studies: the arm whose receipt and rows are attacked, and the verdict that the reviewer requires."""
OTHER_ROUTER: Mapping[str, tuple[str, ...]] = {
    "layer": ("router_bias", "selection_bias", "score_space", "weight_rule", "weight_scale", "group_mode", "n_groups", "kept_groups",
              "residual_path"),
    "routing": ("group_margin", "competitor_in", "margin"), "state": ("dispatch", "admissible", "weights", "margin_logit"),
    "update": ("dispatch0", "dispatch1", "rho0", "rho1", "rho0_b", "rho1_b_forced", "y0_norm", "dy_norm"),
}  # fmt: skip
"""Columns that mean something else, or anything at all, under the router of the second study; of it only they are attacked."""
BESIDE = ("by a tenth", "one more", "another", "negated", "from null", "another member")
"""Changes that are made in rows of the base as well, or of a null arm where a table has none of the base."""


def options(name: str) -> Options:
    return Options(require=STUDIES[name][1])


def world(name: str) -> Shipped:
    """Return an attacked study."""
    return quick(name, STUDIES[name][0], RESAMPLES)


def attacks(name: str, tables: tuple[str, ...] = STUDY_TABLES) -> Iterator[Attack]:
    """Yield every attack on tables of a study, in order of tables and columns; equal seeds give equal attacks."""
    s, arm = world(name).study, f"arm:{STUDIES[name][0]}"
    for table in tables:
        spec = TABLES[table]
        for column in spec.columns if name == "demo" else [spec.column(c) for c in OTHER_ROUTER.get(table, ())]:
            beside = "base" if table not in ("update", "update_vector") else "null:dtype"
            for run in (arm, beside) if "run_id" in spec.key else ("",):
                for attack in cell_attacks(s, spec, column, run, SEED):
                    if run in (arm, "") or attack.change in BESIDE:
                        yield attack
        if name == "demo" or table in OTHER_ROUTER:
            yield from table_attacks(s, table, arm)
    if tables == STUDY_TABLES:
        yield from joint_attacks(s, arm)


def tried(attack: Attack, name: str) -> dict[Strength, Outcome] | None:
    """Make one attack and verify what comes of it at every strength; None where it changes nothing."""
    original = world(name)
    study = attack.make(original.study, Random(f"{SEED} {attack.name}"))
    if study is None or all(study.tables[t].equals(original.study.tables[t]) for t in STUDY_TABLES):
        return None
    return attacked(study, original, STUDIES[name][0], options(name))


# --- what is known of columns -------------------------------------------------------------------------------------

_NAMES = "a name; nothing follows from it"
_ELSEWHERE = "away from sampled positions nothing else is kept of a token: every row of the right form passes"
_LOGITS = "logits are not kept: the columns of a row bound each other, and do not give each other"
_ANSWERS = "0 or 1; answers are not kept"
_MAPS = "asserted: input projections are not in the bundle, only their digests"
_UNWEIGHED = (
    "in rows without vectors nothing but semidefiniteness, length and R130 binds an expert that neither set weighs"
)
REASONS: Mapping[str, str] = {
    "run.model": _NAMES,
    "run.weights_digest": "of an arm: weights are not in the bundle; log (C130) and tensor digests (R017) must agree with it",
    "run.config_digest": "of an arm: its configuration is not in the bundle",
    "run.param_distance": "asserted; only whether it is 0 follows from digests",
    "routing.experts": f"their order means nothing; {_ELSEWHERE}",
    "routing.competitor_in": _ELSEWHERE,
    "routing.margin": _ELSEWHERE,
    "routing.group_margin": _ELSEWHERE,
    "routing.*": _ELSEWHERE,
    "layer.tensor_digests": "of an arm's experts and of what stands before the layer: these tensors are not in the bundle",
    "layer.reconstruction_error": "asserted; only its bound is checked",
    "update.uz1": _UNWEIGHED,
    "update.gram": _UNWEIGHED,
    "update.dy_norm": "where a shared expert changed: what it adds is not in the bundle",
    "update.transport_angle": "asserted: attention is not in the bundle",
    "output.nll": _LOGITS,
    "output.top1": _LOGITS,
    "output.entropy": _LOGITS,
    "output.kl_from_base": _LOGITS,
    "task.score": _ANSWERS,
    "task.*": _ANSWERS,
    "overlap.residual": _MAPS,
    "overlap.drift_num": _MAPS,
    "overlap.*": _MAPS,
    "all.*": "experts renumbered in every run alike: a symmetry of all that is stored, digests of the release apart",
}
"""Columns for which a producer who computes everything anew is believed beyond a rounding, and why."""


# --- results ------------------------------------------------------------------------------------------------------


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {"code": int(outcome.code), "rules": list(outcome.rules), "where": outcome.where, "verdict": outcome.verdict,
            "claim": outcome.claim, "believed": outcome.believed}  # fmt: skip


def swept(name: str, table: str, keep: Path) -> list[dict[str, Any]]:
    """Return the results of all attacks on one table, from the file that keeps them or by making them."""
    path = keep / f"{name}-{table}.json"
    if path.exists():
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found
    start, made = processor_seconds(), []
    todo = joint_attacks(world(name).study, f"arm:{STUDIES[name][0]}") if table == "all" else attacks(name, (table,))
    for attack in todo:
        found_now = tried(attack, name)
        if found_now is not None:
            made.append({
                "study": name, "table": attack.table, "column": attack.column, "change": attack.change, "run": attack.run,
                "small": attack.small, "believed": found_now[Strength.PRODUCER].believed,
                **{strength.value: as_json(found) for strength, found in found_now.items()},
            })  # fmt: skip
    path.write_text(json.dumps(made, indent=0))
    believed = sum(bool(r["believed"]) for r in made)
    print(
        f"{name} {table}: {len(made)} attacks, {believed} believed of a producer, {processor_seconds() - start:.0f} s",
        flush=True,
    )
    return made


def sweep(keep: Path, names: tuple[str, ...] = tuple(STUDIES)) -> list[dict[str, Any]]:
    """Make every attack on every study."""
    keep.mkdir(parents=True, exist_ok=True)
    for name in names:
        before = honest(world(name), STUDIES[name][0], options(name))
        if not (before.believed and before.code is Code.VERIFIED):
            raise SystemExit(f"the shipped study {name} itself is not verified: {before}")
    return [row for name in names for table in (*STUDY_TABLES, "all") for row in swept(name, table, keep)]


def main() -> None:
    """Sweep, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, default=Path("build/attacks"), help="folder that keeps results per table")
    parser.add_argument("--write", type=Path, help="page to put the section into")
    given = parser.parse_args()
    results = sweep(given.keep)
    content = told(results)
    print(content)
    if given.write:
        write_section(given.write, NAME, content)
    holes = unexplained(results)
    if holes:
        sys.exit("believed without a reason: " + ", ".join(holes))


def column_of(row: Mapping[str, Any]) -> str:
    return f"{row['table']}.{row['column'] or '*'}"


def fits(attack: Attack, found: Mapping[Strength, Outcome]) -> bool:
    """Return whether nobody was believed who must not be: a producer only in a rounding, or where a reason says why."""
    if any(o.code is Code.INTERNAL for o in found.values()) or any(
        found[s].believed for s in (Strength.COURIER, Strength.FORGER)
    ):
        return False
    return not found[Strength.PRODUCER].believed or attack.small or f"{attack.table}.{attack.column or '*'}" in REASONS


def unexplained(results: list[dict[str, Any]]) -> list[str]:
    """Return what was believed though nobody said why: a hole."""
    weaker = ("courier", "forger")
    found = [f"{w} {column_of(r)} {r['change']} ({r['run']})" for r in results for w in weaker if r[w]["believed"]]
    return found + [f"producer {column_of(r)} {r['change']} ({r['run']})" for r in results
                    if r["producer"]["believed"] and not r["small"] and column_of(r) not in REASONS]  # fmt: skip


def caught_in(found: Mapping[str, Any]) -> str:
    """Return where an attack was caught; of reproduction, whether rows or only findings objected."""
    if found["where"] == "reproduction":
        return "findings" if set(found["rules"]) <= {"R013", "D001"} else "rows"
    return found["where"] or "believed"


PLACES = ("admission", "contract", "binding", "rows", "findings", "decision", "believed")


def told(results: list[dict[str, Any]]) -> str:
    """Return the section: counts by table, columns believed of a producer with reasons, and what was a rounding."""
    studies = " and ".join(f"`{n}`" for n in STUDIES if any(r["study"] == n for r in results))
    weaker = {who: sum(r[who]["believed"] for r in results) for who in ("courier", "forger")}
    lines = [
        f"{len(results)} changes of the shipped {studies}, each by three attackers; {RESAMPLES:,} resamples.",
        "The *courier* changes rows and no document; the *forger* issues roots, log and citations anew and keeps the findings; the",
        f"*producer* computes findings anew too. Believed: {weaker['courier']} of couriers and {weaker['forger']} of forgers, for whom a",
        "changed row changes the root, so both seeds, so the bounds that are stated.",
        "", "| table | changes | courier | forger | producer | believed of a producer: roundings | beyond |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for table in (*STUDY_TABLES, "all"):
        mine = [r for r in results if r["table"] == table]
        cells = []
        for strength in ("courier", "forger", "producer"):
            counted = Counter(caught_in(r[strength]) for r in mine)
            cells.append(", ".join(f"{place} {counted[place]}" for place in PLACES if counted[place]))
        small = sum(r["small"] for r in mine if r["producer"]["believed"])
        beyond = sum(not r["small"] for r in mine if r["producer"]["believed"])
        lines.append(f"| `{table}` | {len(mine)} | {' | '.join(cells)} | {small} | {beyond} |")
    lines += [
        "",
        "| column | believed of a producer, beyond roundings | why nothing here catches it |",
        "|---|---|---|",
    ]
    for name, reason in REASONS.items():
        mine = [r for r in results if column_of(r) == name and not r["small"]]
        believed = [r["change"] for r in mine if r["producer"]["believed"]]
        lines.append(f"| `{name}` | {len(believed)} of {len(mine)}: {', '.join(dict.fromkeys(believed))} | {reason} |")
    small = [r for r in results if r["small"]]
    passed = sum(r["producer"]["believed"] for r in small)
    lines += ["", f"Of {len(small)} changes of a rounding's size (lowest bit, a millionth, sign or exponent of zero) {passed} were believed of "
              "a producer: they lie within the tolerances that kernels need."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
