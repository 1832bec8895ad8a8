"""Errors for people: every one says what went wrong, where, what was expected, what was found, and what to do."""

from __future__ import annotations

import re

_UNSEEN = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFFA0,
              *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)  # fmt: skip
"""Characters that count as printable and leave no mark: fillers, joiners, selectors of variants, the empty Braille pattern."""
_COMMAND = re.compile(r"^(\s*):(?=:)|#(?=#[\w.]*\[)")
"""What build services obey in the output of a program: ``::error`` at the beginning of a line, ``##vso[`` anywhere."""


def printable(text: str) -> str:
    """Return text with every control, format and unseen character shown as an escape, so that it cannot drive a terminal.

    Line ends count among them: no text of a document or file name begins a line of its own. Nor does it command a build
    service that reads along: the sign that would make it one is escaped too.
    """
    seen = "".join(c if c.isprintable() and c not in _UNSEEN else ascii(c)[1:-1] for c in text)
    return _COMMAND.sub(lambda found: (found[1] or "") + ("\\x23" if found[0] == "#" else "\\x3a"), seen)


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
