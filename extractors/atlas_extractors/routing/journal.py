"""Self-check results of batches already committed, so that a resumed run states the same worst error.

A `layer` row is written once, when its run is complete; until then the errors of its batches stand in a small file
beside the evidence. It is not evidence: a batch without an entry is simply checked again.
"""

from __future__ import annotations

import json
from pathlib import Path

from atlas_schema.errors import UsageError

Errors = dict[str, float]


class Journal:
    """Append-only lines `{"run", "batch", "errors"}`; `run` is the digest of the run's facts."""

    def __init__(self, evidence: Path) -> None:
        self.path = evidence.with_name(evidence.name + ".selfcheck.jsonl")

    def record(self, run: str, batch: int, errors: Errors) -> None:
        """Append one batch and flush it; called before the batch is committed."""
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"run": run, "batch": batch, "errors": errors}) + "\n")
        except OSError as error:
            raise UsageError(
                "The self-check journal cannot be written; what was committed before is kept.", where=str(self.path),
                found=error.strerror or str(error), todo="free space on the disk and run the same command again",
            ) from error  # fmt: skip

    def entries(self, run: str) -> dict[int, Errors]:
        """Errors per batch of one run. A line torn by a crash is skipped."""
        if not self.path.is_file():
            return {}
        found: dict[int, Errors] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["run"] == run:
                found[int(entry["batch"])] = entry["errors"]
        return found

    def remove(self) -> None:
        """Drop the file: every run is complete."""
        self.path.unlink(missing_ok=True)
