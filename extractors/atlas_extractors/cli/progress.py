"""Progress of an extraction on standard error; standard output stays free."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Terminal:
    """A bar per run. Implements `atlas_extractors.routing.extract.Progress`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("batches"),
            TimeElapsedColumn(), console=self._console,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def run_started(self, run_id: str, batches: int, done: int) -> None:
        """Show a bar for the run, partly filled where it is resumed."""
        self._tasks[run_id] = self._bars.add_task(run_id, total=batches, completed=done)

    def batch_done(self, run_id: str) -> None:
        """Advance the run's bar."""
        self._bars.advance(self._tasks[run_id])

    def run_finished(self, run_id: str, *, resumed: bool) -> None:
        """Say of a run that was complete before that it was skipped; stop the clock of one that was run."""
        if resumed:
            self._bars.print(f"{run_id}: already complete")
        else:
            self._bars.stop_task(self._tasks[run_id])

    def note(self, text: str) -> None:
        """One line below the bars."""
        self._bars.print(text)
