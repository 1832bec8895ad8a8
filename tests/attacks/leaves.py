"""Change every leaf of every shipped receipt, one at a time, and count what the verifier says of each.

    python tests/attacks/leaves.py [--write docs/attacks.md] [--keep FOLDER] [RECEIPT ...]

Every receipt is verified against its own evidence and must be taken for what it is; every change of it must be
contradicted. Results are kept per receipt in a folder, so that a run that was stopped goes on where it was; remove it to
count anew.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from attacks.changes import Change, Changes  # noqa: E402
from attacks.remembered import Outcome, Study, outcome_of, remembered  # noqa: E402

from atlas_schema.documents.receipt import FREE_TEXT  # noqa: E402
from atlas_schema.verify.loading import load  # noqa: E402
from atlas_schema.verify.outcome import REQUIREMENTS, UNASKED, Channel, Code  # noqa: E402
from atlas_schema.verify.verifier import Submission, verify  # noqa: E402
from benchmarks.page import write_section  # noqa: E402

SECTION = "tests/attacks/leaves.py"
SEED = "every leaf"
DEMO = "atlas_schema/demo/study"
CODES = {
    Channel.ADMISSION: Code.INADMISSIBLE, Channel.SCHEMA: Code.INADMISSIBLE, Channel.CONTRACT: Code.INADMISSIBLE,
    Channel.BINDING: Code.TAMPERED, Channel.REPRODUCTION: Code.DIVERGED, Channel.DECISION: Code.DIVERGED,
}  # fmt: skip
"""The exit code with which a change is caught in each channel."""


@dataclass(frozen=True, slots=True)
class Target:
    """A shipped document whose leaves are changed.

    Where not ``whole``, each leaf and container gets one of its changes.
    """

    receipt: str
    document: str = "receipt"
    whole: bool = True

    @property
    def how(self) -> str:
        """What of all changes is made."""
        return "" if self.whole else ", one each"

    @property
    def path(self) -> str:
        return (
            self.receipt if self.document == "receipt" else str(Path(self.receipt).with_name(f"{self.document}.json"))
        )


def targets() -> list[Target]:
    """Return every shipped receipt that its issuer stands by, and the documents beside one of them."""
    shipped = json.loads((ROOT / "fixtures/expected.json").read_text(encoding="utf-8"))
    demo = f"{DEMO}/receipt-preserved.json"
    beside = [Target(demo, "run_log"), Target(demo, "preregistration", whole=False)]
    return [Target(demo), *(Target(f"fixtures/{name}") for name in shipped), *beside]


@dataclass(slots=True)
class Tally:
    """What came of the changes of one document. ``believed`` names changes that nothing contradicts."""

    path: str
    leaves: int
    free: int
    containers: int
    how: str
    tried: int = 0
    caught: dict[str, int] = field(default_factory=dict)
    true: list[str] = field(default_factory=list)
    believed: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def chosen(changes: Changes, whole: bool, seed: str = SEED) -> Iterator[Change]:
    """Yield every change of a document, or one for each leaf and container, drawn by the seed."""
    draw = random.Random(seed)
    for of, parts in ((changes.of_leaf, changes.leaves), (changes.of_container, changes.containers)):
        for path, value in parts:
            made = of(path, value)
            yield from made if whole or not made else [draw.choice(made)]


class Sweep:
    """One document of a submission, changed and verified again and again. Use it where results are `remembered`."""

    def __init__(self, target: Target, recomputed: list[Any]) -> None:
        self.target, self.recomputed = target, recomputed
        path = ROOT / target.receipt
        self.receipt = json.loads(path.read_bytes())
        claimed = self.receipt["claim"]["verdict"]
        self.study = Study(load(path), claimed if claimed in REQUIREMENTS["receipt"] else UNASKED)
        self.changes = Changes((ROOT / target.path).read_bytes(), FREE_TEXT if target.document == "receipt" else ())

    def tally(self) -> Tally:
        """Return an empty tally of this document."""
        c = self.changes
        return Tally(
            self.target.path,
            len(c.leaves) + len(c.free),
            len(c.free),
            len(c.containers),
            self.target.how,
        )

    def submission(self, change: Change) -> Submission:
        """Return the submission with one change made."""
        raw = self.changes.raw(change)
        changed: dict[str, Any] = {"raw" if self.target.document == "receipt" else self.target.document: raw}
        return replace(self.study.submission, **changed)

    def outcome(self, change: Change) -> Outcome:
        """Verify with one change made."""
        return outcome_of(verify(self.submission(change), self.study.options))

    def count(self, change: Change, tally: Tally) -> None:
        """Make one change and record what came of it."""
        found = self.outcome(change)
        tally.tried += 1
        if self.study.believed(found):
            (tally.true if self.says_the_truth(change) else tally.believed).append(f"{change}, exit {int(found.code)}")
        elif found.caught_in and found.code is CODES[Channel(found.caught_in)]:
            tally.caught[found.caught_in] = tally.caught.get(found.caught_in, 0) + 1
        else:
            tally.odd.append(f"{change}, exit {int(found.code)}, {found.channels}")

    def says_the_truth(self, change: Change) -> bool:
        """Whether a changed document is as true as the honest one.

        Turned to another arm of the same recomputed verdict, a receipt claims of that arm what the rows give. A number
        that lies in the middle of two of nine digits is stated by either, within the relative tolerance of the contract.
        A log without the steps that came after the receipt's head is the log as it once stood.
        """
        if self.target.document == "receipt" and change.path == ("claim", "arm"):
            verdicts = {a["arm"]: a["verdict"] for a in self.receipt["findings"]["arms"]}
            return verdicts.get(change.new) == self.receipt["claim"]["verdict"]
        if self.target.document == "receipt" and change.path[0] == "findings":
            return self._same_number(change)
        if self.target.document == "run_log" and change.path == ("steps",):
            steps, kept = self.changes.value["steps"], len(change.new)
            return kept >= self.receipt["run_log"]["steps"] and change.new == steps[:kept]
        return False

    def _same_number(self, change: Change) -> bool:
        found: Any = self.recomputed[0].model_dump(mode="json")
        for part in change.path[1:]:
            found = found[part]
        if type(change.new) is not float or type(found) is not float:
            return False
        exact, unit = Decimal(found), Decimal(10) ** (Decimal(found).adjusted() - 8)
        return abs(Decimal(change.new) - exact) <= unit / 2 + Decimal("1.01e-12") * abs(exact)


def sweep(target: Target, keep: Path | None) -> Tally:
    """Make all chosen changes of one document; the tally is kept in a folder now and then."""
    kept = None if keep is None else keep / f"{target.path.replace('/', '-').removesuffix('.json')}.json"
    key = _state(target)
    before, done = _resumed(kept, key)
    if before is not None and done:
        return before
    with remembered() as recomputed:
        made = Sweep(target, recomputed)
        tally = before or made.tally()
        gc.collect()
        gc.freeze()
        for at, change in enumerate(chosen(made.changes, target.whole)):
            if at < tally.tried:
                continue
            made.count(change, tally)
            if tally.tried % 500 == 0:
                _keep(kept, key, tally, done=False)
    gc.unfreeze()
    _keep(kept, key, tally, done=True)
    return tally


def _state(target: Target) -> str:
    """Return a digest of what is changed and how. Not of the verifier: after changing that, remove the folder."""
    beside = [Path(__file__).with_name(name) for name in ("changes.py", "remembered.py")]
    files = [ROOT / target.path, ROOT / target.receipt, *beside]
    state = hashlib.sha256(str(target).encode())
    for file in files:
        state.update(hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


def _resumed(kept: Path | None, key: str) -> tuple[Tally | None, bool]:
    """Return what was counted before, and whether that was all."""
    found = json.loads(kept.read_text()) if kept is not None and kept.is_file() else {"key": ""}
    if found.pop("key") != key:
        return None, False
    done = bool(found.pop("done"))
    return Tally(**found), done


def _keep(kept: Path | None, key: str, tally: Tally, *, done: bool) -> None:
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"key": key, "done": done, **asdict(tally)}, indent=1))
    print(f"{tally.path}: {tally.tried:,} changes{', done' if done else ''}; believed {len(tally.believed)}, "
          f"odd {len(tally.odd)}", file=sys.stderr, flush=True)  # fmt: skip


def table(tallies: list[Tally]) -> str:
    """Return the Markdown of the section."""
    caught = [channel.value for channel in CODES]
    head = ["document", "leaves", "free text", "containers", "changes tried", *(f"{c.value} ({int(k)})" for c, k in CODES.items()),
            "true as well", "believed"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for t in tallies:
        counts = [
            t.leaves,
            t.free,
            t.containers,
            t.tried,
            *(t.caught.get(c, 0) for c in caught),
            len(t.true),
            len(t.believed) + len(t.odd),
        ]
        lines.append(f"| `{t.path}`{t.how} | {' | '.join(f'{n:,}' for n in counts)} |")
    receipts = [t for t in tallies if "receipt" in t.path]
    total = sum(t.leaves - t.free for t in receipts)
    said = f"{len(receipts)} receipts, {total:,} leaves changed, {sum(t.tried for t in tallies):,} changes in all"
    wrong = [f"- `{t.path}` {line}" for t in tallies for line in (*t.believed, *t.odd)]
    return "\n".join([*lines, "", f"{said}, {len(wrong)} believed.", *wrong, "", *_true(tallies)])


def _true(tallies: list[Tally]) -> list[str]:
    """Say what changes left a document as true as it was, with a few of each document."""
    lines = ["True as well: a receipt turned to another arm of the same verdict; a number in the middle of two of nine digits, stated by "
             "the other one; a log without what came after the receipt's head."]  # fmt: skip
    for t in tallies:
        if t.true:
            more = f" and {len(t.true) - 3} more" if len(t.true) > 3 else ""
            lines.append(f"- `{t.path}`: {'; '.join(t.true[:3])}{more}")
    return [lines[0], "", *lines[1:]]


def main() -> int:
    """Sweep the named documents, or all; print the table or put it into a page. Exit 1 where a change was believed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("documents", nargs="*", help="paths of shipped documents; default all of them")
    parser.add_argument("--write", type=Path, help="page with the marks between which the table stands")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "leaves", help="folder of results that are done")
    given = parser.parse_args()
    wanted = [t for t in targets() if not given.documents or t.path in given.documents]
    if not wanted:
        parser.error(f"no such document; there are {', '.join(t.path for t in targets())}")
    gc.disable()  # millions of objects die at once with every verification; none of them in a cycle
    tallies = sorted((sweep(target, given.keep) for target in wanted), key=lambda t: ("receipt" not in t.path, t.path))
    if given.write is None:
        print(table(tallies))
    else:
        write_section(given.write, SECTION, table(tallies))
    return 1 if any(t.believed or t.odd for t in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
