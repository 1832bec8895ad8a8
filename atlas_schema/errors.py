"""Errors for people: every one says what went wrong, where, what was expected, what was found, and what to do."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with every control and format character shown as an escape, so that it cannot drive a terminal.

    Line ends count among them: no text of a document or file name begins a line of its own.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class AtlasError(Exception):
    """An anticipated failure.

    ``str()`` is a message of several lines for a terminal; the parts stay available as attributes for reports.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", found: str = "", todo: str = "") -> None:
        self.what, self.where, self.expected, self.found, self.todo = what, where, expected, found, todo
        super().__init__(what)

    def __str__(self) -> str:
        parts = (("where", self.where), ("expected", self.expected), ("found", self.found), ("to do", self.todo))
        return "\n".join(
            [printable(self.what), *(f"  {name + ':':<10}{printable(text)}" for name, text in parts if text)]
        )


class UsageError(AtlasError):
    """The call cannot be carried out as asked: bad arguments, unreadable paths, unsuitable inputs. Exit code 2."""


class EvidenceError(AtlasError):
    """Evidence whose container or tables do not have the declared form. ``rule`` is the id of the rule that it breaks."""

    def __init__(
        self, what: str, *, where: str = "", expected: str = "", found: str = "", todo: str = "", rule: str = "ATL-A002"
    ) -> None:
        self.rule = rule
        super().__init__(what, where=where, expected=expected, found=found, todo=todo)


class RowsError(EvidenceError):
    """Rows that support no statistic: missing or non-finite values, a key twice, lists of the wrong length."""

    def __init__(self, what: str, *, where: str = "", expected: str = "", found: str = "", todo: str = "") -> None:
        super().__init__(what, where=where, expected=expected, found=found, todo=todo, rule="ATL-A003")


class DocumentError(AtlasError):
    """A document that is not admissible JSON or does not have its declared shape."""
