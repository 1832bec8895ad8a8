"""The section of the page, from the figures of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

COLUMNS = ("places", "run", "killed", "timeouts", "explained", "unexplained", "first")
RULES = (
    "type annotations", "docstrings", "`__all__`", "formatted texts of messages",
    "equality replaced by identity or back, which interning makes the same and the linter refuses beside a literal",
)  # fmt: skip
"""What the rules leave out; `tests/mutation/mutants.py` says how."""


def table(result: Mapping[str, Any]) -> str:
    """Return the score by module as a Markdown table with the sentences around it."""
    modules: Mapping[str, Mapping[str, int]] = result["modules"]
    total = {name: sum(m[name] for m in modules.values()) for name in (*COLUMNS, "possible", "excluded")}
    low, high = interval(total)
    some = total["run"] < total["places"]
    which = (
        f"A place is a piece of source and a kind of change (an operator, a comparison, the boundary of a comparison, a number, a condition, "
        f"a loop, a constant, a decorator); of the replacements that Cosmic Ray offers there, {total['possible']:,} in all, the seed draws "
        "one. "
        + (
            f"Of the {total['places']:,} places, {total['run']:,} were run: of every module the first ones in the order that the seed gives, "
            "in rounds of eight, until time was over. "
            if some
            else ""
        )
        + f"Left out by rule, {total['excluded']:,} replacements: {'; '.join(RULES)}."
    )
    how = (
        f"A mutant meets the tests of `tests/mutation/targets.toml` that execute the changed statement, until one fails; where they would take "
        f"longer than {result['patience']:g} s of processor time, the likeliest of them. "
        "*By time limit* ended at three times what those tests take. "
        "What survived is listed line by line with the reason why no test could fail, in `tests/mutation/survivors.toml`; the command exits 1 "
        "for a survivor without a reason, and names reasons whose mutant was noticed."
    )
    lines = [
        "| module | places | mutants run | killed | by time limit | survived, explained | survived, unexplained "
        "| noticed when first met | noticed now |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(row(f"`{short(name)}`", count) for name, count in modules.items()),
        row("all", total),
    ]
    left = [f"`{short(name)}`" for name in result["not_run"]]
    if left:
        how += f" Not run, so nothing is said of them: {', '.join(left)}."
    noticed = total["killed"] + total["timeouts"]
    head = f"`{result['command']}`, {result['date']}, seed {result['seed']}: {total['run']:,} mutants run. "
    if total["first"] == noticed:
        head += f"Noticed: {noticed:,}, {score(total)} (exact binomial 95 % interval {low:.1%} to {high:.1%}). "
    else:
        head += (
            f"When first met, {total['first']:,} were noticed, {total['first'] / total['run']:.1%} (exact binomial 95 % interval {low:.1%} to "
            f"{high:.1%}, as if each were drawn by itself). Tests were then written for what had survived, and the run was resumed: now "
            f"{noticed:,} are noticed, {score(total)}. That second share has no interval: it was reached on these very mutants and says "
            "nothing of those that were not run; the first is the better guess at them, and a rough one, since tests grew while mutants "
            "were met and some survived at first only for want of time. "
        )
    return f"{head}{which}\n\n{how}\n\n" + "\n".join(lines) + opened(result["open"])


def opened(found: list[str]) -> str:
    """Return what survived and has no reason yet, a line each."""
    return "\n\nWithout a reason yet:\n\n" + "\n".join(f"- `{line}`" for line in found) if found else ""


def short(path: str) -> str:
    return path.removeprefix("atlas_schema/").removesuffix(".py")


def row(name: str, count: Mapping[str, int]) -> str:
    return f"| {name} | " + " | ".join(f"{count[c]:,}" for c in COLUMNS) + f" | {score(count)} |"


def score(count: Mapping[str, int]) -> str:
    return f"{(count['killed'] + count['timeouts']) / count['run']:.1%}"


def interval(count: Mapping[str, int]) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) 95 % interval of the share noticed when first met, as if each were drawn independently."""
    found = binomtest(count["first"], count["run"]).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
