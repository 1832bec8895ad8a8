"""Tables that commands measure, kept in pages between marks, so that a page never states what nothing printed."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end -->"


def _mark(name: str) -> str:
    return f"<!-- made by {name} -->"


def section(page: Path, name: str) -> str:
    """Return what stands between the marks of a section; `name` is the command that made it. Raises `ValueError`."""
    _, content, _ = _split(page, name)
    return content.strip("\n")


def write_section(page: Path, name: str, content: str) -> None:
    """Put content between the marks of a section, in place of what stood there. Raises `ValueError` without marks."""
    head, _, tail = _split(page, name)
    page.write_text(f"{head}{_mark(name)}\n{content.strip()}\n{END}{tail}", encoding="utf-8")


def _split(page: Path, name: str) -> tuple[str, str, str]:
    parts = page.read_text(encoding="utf-8").split(_mark(name))
    if len(parts) != 2 or END not in parts[1]:
        raise ValueError(f"{page} needs the marks {_mark(name)} and {END} once")
    content, tail = parts[1].split(END, 1)
    return parts[0], content, tail
