"""The section of the page, from the figures of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

COLUMNS = ("run", "killed", "timeouts", "explained", "unexplained")


def table(result: Mapping[str, Any]) -> str:
    """Return the score by module as a Markdown table with the sentences around it."""
    modules: Mapping[str, Mapping[str, int]] = result["modules"]
    total = {name: sum(m[name] for m in modules.values()) for name in (*COLUMNS, "possible", "excluded")}
    lines = [
        "| module | mutants run | killed | by time limit | survived, explained | survived, unexplained | score |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(row(f"`{name.removeprefix('atlas_schema/').removesuffix('.py')}`", count) for name, count in modules.items()),
        row("all", total),
    ]
    low, high = interval(total)
    return (
        f"Run on {result['date']} with seed {result['seed']}: {total['run']:,} mutants, one at every place where an operator of Cosmic Ray "
        f"applies, drawn from {total['possible']:,} possible ones; {total['excluded']:,} more were left out by rule. "
        f"Noticed: {total['killed'] + total['timeouts']:,}, {score(total)} (exact binomial 95 % interval {low:.1%} to {high:.1%}).\n\n"
        + "\n".join(lines)
    )


def row(name: str, count: Mapping[str, int]) -> str:
    return f"| {name} | " + " | ".join(f"{count[c]:,}" for c in COLUMNS) + f" | {score(count)} |"


def score(count: Mapping[str, int]) -> str:
    return f"{(count['killed'] + count['timeouts']) / count['run']:.1%}"


def interval(count: Mapping[str, int]) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) 95 % interval of the share noticed, as if every mutant were drawn independently."""
    found = binomtest(count["killed"] + count["timeouts"], count["run"]).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
