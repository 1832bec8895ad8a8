"""Is the corpus worth anything? Verifiers that are wrong in one thing must fail some case: ``python tests/conformance/adequacy.py``.

1. Each rule is switched off in turn. Only cases in which the rule fires are run again: switching a rule off removes its problems and does
   nothing else, so a case in which none was told is the same computation with the same answer.
2. Verifiers that always exit with one code are driven by the real command line.
3. Verifiers that leave out one step are run until a case whose exit code gives them away.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from conformance.broken import BROKEN, TOLD, without_rule
from conformance.replay import answer, report

from atlas_schema.conformance.corpus import Case, lay_out, read_corpus
from atlas_schema.conformance.judge import of_report
from atlas_schema.verify.rules import RULES
from benchmarks.page import write_section

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "contracts" / "vectors"
PAGES = (ROOT / "docs" / "attacks.md", VECTORS / "README.md")
SECTION = "tests/conformance/adequacy.py"
CODES = range(8)
ONLY_TOLD = (
    "A rule is switched off by leaving its problem out. These problems only tell what the exit code follows from anyway, so no",
    "case can have another exit code without them. Left out with what the exit code follows from, each rule is given away too:",
    "the verifier named here is one of the last table.",
)
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Answer:
    """What a broken verifier made of one case: its exit code, the rules it reported, and whether all was as expected."""

    case: str
    expected: int
    code: int
    rules: tuple[str, ...]
    same: bool


@contextmanager
def laid_out(case: Case) -> Iterator[Path]:
    """Lay a case into a temporary folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        folder.mkdir()
        lay_out(case, folder)
        yield folder


def answered(case: Case, folder: Path) -> Answer:
    """Ask the verifier as it is now."""
    code, output = answer(folder, list(case.expected.arguments))
    found = {p["rule"] for channel in report(output)["channels"] for p in channel["problems"]}
    return Answer(case.name, case.expected.exit_code, code, tuple(sorted(found)), code == case.expected.exit_code
                  and not of_report(case.expected, output))  # fmt: skip


def switched_off(cases: Sequence[Case], jobs: int = 1) -> dict[str, list[Answer]]:
    """Return by rule what the verifier without it answers to every case in which the rule fires."""
    found: dict[str, list[Answer]] = {rule: [] for rule in RULES}
    for answers in spread(_without_each, cases, jobs):
        for rule, made in answers.items():
            found[rule].append(made)
    return found


def _without_each(case: Case) -> dict[str, Answer]:
    """Answer one case without each of the rules that fire in it."""
    found = {}
    if case.expected.rules:
        with laid_out(case) as folder:
            for rule in case.expected.rules:
                with without_rule(rule):
                    found[rule] = answered(case, folder)
    return found


def spread(work: Callable[[A], B], over: Iterable[A], jobs: int) -> Iterable[B]:
    """Map in so many processes: what is patched is patched in each by itself."""
    if jobs == 1:
        return map(work, over)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, over, chunksize=4))


def constant(code: int, corpus: Path = VECTORS) -> tuple[int, int]:
    """Return cases and failures of a verifier that always exits with one code, by the command line; (n, 0) would mean that it passes."""
    call = [sys.executable, "-m", "atlas_schema.cli.atlas", "conformance", "run", "--corpus", str(corpus), "--exit-code-only",
            "--report", "json", "--verifier", f"sh -c 'exit {code}'"]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    said = json.loads(done.stdout)
    if (said["failed"] > 0) != (done.returncode == 1):
        raise RuntimeError(f"exit code {done.returncode} for {said['failed']} failed cases")
    return said["cases"], said["failed"]


def caught(name: str) -> Answer | None:
    """Return the first case whose exit code a broken verifier gets wrong: those that its entry names first, then all in a mixed order."""
    broken = BROKEN[name]
    cases, _ = read_corpus(VECTORS)
    random.Random(1).shuffle(cases)
    for case in sorted(cases, key=lambda c: not fnmatchcase(c.name, broken.first)):
        with laid_out(case) as folder, broken.make():
            found = answered(case, folder)
        if found.code != case.expected.exit_code:
            return found
    return None


def by_code(found: Sequence[Answer]) -> bool:
    """Whether some case has another exit code without the rule."""
    return any(a.code != a.expected for a in found)


def rules_table(found: dict[str, list[Answer]]) -> list[str]:
    """Return the lines about switched-off rules."""
    whole = [rule for rule, answers in found.items() if any(not a.same for a in answers)]
    coded = [rule for rule, answers in found.items() if by_code(answers)]
    behind = [rule for rule in whole if rule not in coded]
    told = [rule for rule in behind if rule in TOLD]
    none = [rule for rule in found if rule not in whole]
    some = f"the other {len(told)}" if told == behind else f"of the other {len(behind)}, {len(told)}"
    cannot = f"; {some} cannot be, for the reasons below" if told else ""
    lines = [
        f"**Rules with a separating case: {len(whole)} of {len(found)}** by the whole answer (exit code, verdict, channels, rules), "
        f"{len(coded)} of {len(found)} by the exit code alone{cannot}. Reruns: {sum(map(len, found.values()))}.", "",
        f"No case at all: {', '.join(none) or 'none'}.", "",
    ]  # fmt: skip
    if told:
        lines += [
            *ONLY_TOLD,
            "",
            "| rule | cases | why no case can have another exit code | left out whole |",
            "|---|---|---|---|",
        ]
        lines += [f"| `{rule}` | {len(found[rule])} | {TOLD[rule].why} | {TOLD[rule].entirely} |" for rule in told]
        lines.append("")
    if others := [rule for rule in behind if rule not in TOLD]:
        lines += ["Where a rule is switched off and the exit code stays, something else stands behind it in every case:", "",
                  "| rule | cases | what keeps the exit code |", "|---|---|---|"]  # fmt: skip
        lines += [f"| `{rule}` | {len(found[rule])} | {_backstop(found[rule])} |" for rule in others]
        lines.append("")
    return lines


def _backstop(found: Sequence[Answer]) -> str:
    others = sorted({rule for a in found for rule in a.rules})
    return ", ".join(f"`{r}`" for r in others) or "no other rule: verdict and channels still say so"


def page(cases: Sequence[Case], jobs: int) -> str:
    """Measure everything and return it as Markdown."""
    lines = rules_table(switched_off(cases, jobs))
    lines += ["Verifiers that look at nothing, by `atlas conformance run --exit-code-only`:", ""]
    lines += ["| verifier | fails | of |", "|---|---|---|"]
    for code in CODES:
        total, failed = constant(code)
        lines.append(f"| always exits {code} | {failed} | {total} |")
    lines += ["", "Verifiers with one step left out, by the exit code alone:", ""]
    lines += ["| verifier | a case that gives it away | expected | found |", "|---|---|---|---|"]
    for name, first in zip(BROKEN, spread(caught, BROKEN, jobs), strict=True):
        lines.append(
            f"| {name} | "
            + (f"`{first.case}` | {first.expected} | {first.code} |" if first else "none: it passes | | |")
        )
    return "\n".join(lines)


def main() -> None:
    """Print the measurements, or put them into the pages that state them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the result between the marks of docs/attacks.md and the corpus's README",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    given = parser.parse_args()
    cases, _ = read_corpus(VECTORS)
    made = page(cases, given.jobs)
    print(made)
    for path in PAGES if given.write else ():
        write_section(path, SECTION, made)


if __name__ == "__main__":
    main()
