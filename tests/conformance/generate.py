"""Write the conformance corpus from the cases of the test suite: ``python tests/conformance/generate.py`` (`make vectors`).

Every case is captured as files, laid out as any runner would, and judged by this project's verifier; where the answer is not the one
that the test suite demands of the case, nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from conformance.capture import WORLDS, Captured, InexpressibleError, Worlds, capture, files_of
from conformance.catalogue import Entry, catalogue
from conformance.replay import answer, report
from conformance.texts import case_page, corpus_page

from atlas_schema.conformance.corpus import EXPECTED, FILES, Case, Expected, lay_out
from atlas_schema.conformance.judge import answers
from benchmarks.page import section

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "contracts" / "vectors"
PAGE = "README.md"
MARK = "tests/conformance/adequacy.py"
INSTEAD = {
    "file_added": "signed_file_added", "file_longer": "signed_file_longer", "file_missing": "signed_file_missing",
    "file_renamed": "signed_file_renamed", "file_rewritten": "signed_file_rewritten", "no_bundle": "usage_identity_without_bundle",
    "no_manifest": "signed_evidence_absent",
    "one_pinned_key_twice": "usage_threshold_beyond_keys",
}  # fmt: skip
"""Cases that say by files what cases of the suite say in memory."""


@dataclass
class Corpus:
    """A corpus made below a folder: what is expected of each case, and what could not be said by files."""

    folder: Path
    expected: dict[str, Expected] = field(default_factory=dict)
    gaps: list[tuple[str, str]] = field(default_factory=list)


def make(folder: Path, names: Collection[str] | None = None, kept: Path = VECTORS) -> Corpus:
    """Write the corpus, or only the cases of some names, into an empty folder. ``kept``: where DuckDB files of before are."""
    made, worlds = Corpus(folder), Worlds(folder)
    entries = catalogue()
    wrong: list[str] = []
    for name in WORLDS if names is None else ("base",):  # others as they are needed
        worlds.files(name)
    for entry in entries.values():
        if names is not None and entry.name not in names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                captured = capture(entry.make, worlds, Path(scratch))
            except InexpressibleError as gap:
                instead = f"; in its place: `{INSTEAD[entry.name]}`" if entry.name in INSTEAD else ""
                made.gaps.append((entry.name, f"{gap}{instead}"))
                continue
        made.expected[entry.name] = expected = write_case(entry, captured, folder, kept)
        if (expected.exit_code, set(expected.rules)) != (int(entry.code), set(entry.rules)):
            wrong.append(f"{entry.name}: the suite demands {int(entry.code)} and {sorted(entry.rules)}; "
                         f"its files give {expected.exit_code} and {expected.rules}")  # fmt: skip
    if wrong:
        raise ValueError("\n".join(wrong))
    return made


def write_case(entry: Entry, captured: Captured, folder: Path, kept: Path) -> Expected:
    """Write one case, and what this project's verifier answers when it is laid out as a runner would."""
    place = folder / entry.name
    for name, content in captured.files.items():
        path = place / FILES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_same_database(kept / entry.name / FILES / name, content))
    draft = Expected.model_validate({
        "kind": "conformance_case", "schema_version": "1.0", "base": captured.base, "removed": sorted(captured.removed),
        "links": captured.links, "needs": sorted(captured.needs | entry.needs), "arguments": captured.arguments, "exit_code": 0,
        "verdict": None, "channels": {}, "rules": [],
    })  # fmt: skip
    place.mkdir(exist_ok=True)
    expected = draft.model_copy(update=judged(Case(entry.name, place, draft)))
    (place / EXPECTED).write_text(json.dumps(expected.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    (place / PAGE).write_text(case_page(entry, captured, expected), encoding="utf-8")
    return expected


def judged(case: Case) -> dict[str, object]:
    """Return what this project's verifier answers to a case, as fields of `Expected`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        folder.mkdir()
        lay_out(case, folder)
        code, output = answer(folder, list(case.expected.arguments))
    said = answers(report(output))
    if code != said["exit code in the report"]:
        raise ValueError(f"{case.name}: exit code {code}, and the report says {said['exit code in the report']}")
    channels = {name.removeprefix("channel "): status for name, status in said.items() if name.startswith("channel ")}
    return {"exit_code": code, "verdict": said["verdict"], "channels": channels, "rules": said["rules"]}


def _same_database(before: Path, content: bytes) -> bytes:
    """Keep the DuckDB file of before: two with the same tables differ in a random identifier."""
    if before.suffix == ".duckdb" and before.is_file() and len(before.read_bytes()) == len(content):
        return before.read_bytes()
    return content


def write_page(made: Corpus) -> None:
    """Write the README of the corpus, with the measured figure that stood in it."""
    page = VECTORS / PAGE
    adequacy = section(page, MARK) if page.exists() else "not measured yet"
    (made.folder / PAGE).write_text(corpus_page(made.expected, made.gaps, adequacy), encoding="utf-8")


def main() -> None:
    """Write the whole corpus, and change only the files that differ."""
    argparse.ArgumentParser(description="Write the whole corpus; change only the files that differ.").parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = make(Path(scratch) / "vectors")
        write_page(made)
        before = files_of(VECTORS) if VECTORS.exists() else {}
        now = files_of(made.folder)
    changed = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
    for name in changed:
        path = VECTORS / name
        if name in now:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(now[name])
        else:
            path.unlink()
    for folder in sorted((p for p in VECTORS.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    size = sum(map(len, now.values())) / 2**20
    print(f"{len(made.expected)} cases, {len(made.gaps)} of the suite cannot be expressed; {len(now)} files, {size:.1f} MiB; "
          f"{len(changed)} files changed" + "".join(f"\n  {n}" for n in changed[:20]))  # fmt: skip


if __name__ == "__main__":
    main()
