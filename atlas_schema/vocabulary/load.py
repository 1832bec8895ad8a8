"""Reading the vocabulary's TOML files: shape and types here, meaning in `check`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from atlas_schema.vocabulary.model import (
    Collapse,
    Conflict,
    Convention,
    Dependency,
    Layer,
    Reference,
    Source,
    Statement,
    Status,
    Term,
    Vocabulary,
    VocabularyError,
)

ORDER = (
    "architecture", "training", "terrain", "shape", "navigator", "flow", "potential", "integrity", "global", "ablation",
    "instrument", "record",
)  # fmt: skip
"""Layers in the order in which they are listed; a test holds that there are no other files."""
COMMON = ("sources", "references", "conflicts")


class _Table:
    """One TOML table that must be used up: every key is asked for, with its type, or is refused."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise VocabularyError("A table is expected here.", where=where, found=type(value).__name__)
        self.rest, self.where = dict(value), where

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.rest.pop(key, default)
        if value is None:
            raise VocabularyError("A field is missing.", where=self.where, expected=key, todo="add it to the data file")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise VocabularyError("A field has another type.", where=f"{self.where}, {key}", expected=kind.__name__,
                                  found=f"{type(value).__name__} {str(value)[:80]}")  # fmt: skip
        return value

    def line(self, key: str, default: str | None = None) -> str:
        text: str = self.take(key, str, default)
        return text

    def number(self, key: str) -> int:
        value: int = self.take(key, int)
        if value < 1:
            raise VocabularyError("A version is 1 or more.", where=f"{self.where}, {key}", found=str(value))
        return value

    def lines(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        values = self.take(key, list, default)
        if not all(isinstance(v, str) for v in values):
            raise VocabularyError(
                "A list of strings is expected.", where=f"{self.where}, {key}", found=str(values)[:80]
            )
        return tuple(values)

    def one_of(self, key: str, known: tuple[str, ...], default: str | None = None) -> Any:
        value = self.line(key, default)
        if value not in known:
            raise VocabularyError("A field has an unknown value.", where=f"{self.where}, {key}", found=value[:80],
                                  expected=" or ".join(repr(k) for k in known))  # fmt: skip
        return value

    def status(self, default: str | None = None) -> Status:
        return Status(self.one_of("status", tuple(Status), default))

    def tables(self, key: str) -> list[_Table]:
        return [_Table(v, f"{self.where}, {key} {i}") for i, v in enumerate(self.take(key, list, []))]

    def done(self) -> None:
        if self.rest:
            raise VocabularyError("A field is not known.", where=self.where, found=", ".join(sorted(self.rest)),
                                  todo="correct its name, or remove it")  # fmt: skip


def read_vocabulary(files: Mapping[str, str]) -> Vocabulary:
    """Build a vocabulary from TOML texts by file name without suffix: `COMMON`, and every other name a layer.

    Raises `VocabularyError` with file, entry and field. Not checked: whether references resolve and the like.
    """
    tables = {name: _parse(name, text) for name, text in files.items()}
    lacking = [name for name in COMMON if name not in tables]
    if lacking:
        raise VocabularyError("A file of the vocabulary is missing.", expected=", ".join(f"{n}.toml" for n in lacking))
    sources = _by_id([_source(t) for t in _entries(tables["sources"], "source")], "sources.toml")
    references = _by_id([_reference(t) for t in _entries(tables["references"], "reference")], "references.toml")
    conflicts = tuple(_conflict(t) for t in _entries(tables["conflicts"], "conflict"))
    layers, terms = [], []
    for name in sorted(set(tables) - set(COMMON), key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        layer, entries = _layer(tables[name], name)
        layers.append(layer)
        terms += entries
    return Vocabulary(_by_id(layers, "layers"), _by_id(terms, "terms"), references, sources, conflicts)


@cache
def load_vocabulary() -> Vocabulary:
    """Return the vocabulary that ships with the package."""
    folder = resources.files("atlas_schema.vocabulary") / "data"
    files = {p.name.removesuffix(".toml"): p.read_text("utf-8") for p in folder.iterdir() if p.name.endswith(".toml")}
    return read_vocabulary(files)


def _parse(name: str, text: str) -> _Table:
    try:
        return _Table(tomllib.loads(text), f"{name}.toml")
    except tomllib.TOMLDecodeError as error:
        raise VocabularyError(
            "A file of the vocabulary is not TOML.", where=f"{name}.toml", found=str(error)
        ) from error


def _entries(table: _Table, key: str) -> list[_Table]:
    entries = table.tables(key)
    table.done()
    return entries


def _by_id(entries: list[Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        if entry.id in found:
            raise VocabularyError(
                "An id stands twice.", where=where, found=entry.id, todo="raise the version, or remove one"
            )
        found[entry.id] = entry
    return found


def _source(table: _Table) -> Source:
    made = Source(table.line("id"), table.line("title"), table.line("note"))
    table.done()
    return made


def _reference(table: _Table) -> Reference:
    made = Reference(table.line("id"), table.line("text"), table.take("given", bool), table.line("note", ""))
    table.done()
    return made


def _conflict(table: _Table) -> Conflict:
    made = Conflict(table.line("word"), table.one_of("kind", ("convention", "homonym")), table.line("text"),
                    table.lines("terms"))  # fmt: skip
    table.done()
    return made


def _layer(table: _Table, name: str) -> tuple[Layer, list[Term]]:
    head = _Table(table.take("layer", dict), f"{name}.toml, layer")
    if head.line("id") != name:
        raise VocabularyError("A layer bears another id than its file.", where=f"{name}.toml")
    collapse = _Table(table.take("collapse", dict), f"{name}.toml, collapse") if "collapse" in table.rest else None
    layer = Layer(name, head.line("title"), head.line("description"), head.take("qualified", bool),
                  _collapse(collapse) if collapse else None)  # fmt: skip
    head.done()
    terms = [_term(entry, name) for entry in table.tables("term")]
    table.done()
    return layer, terms


def _collapse(table: _Table) -> Collapse:
    made = Collapse(
        table.lines("independent"), table.lines("derived"), table.status(), table.line("test"), table.line("source")
    )
    table.done()
    return made


def _term(table: _Table, layer: str) -> Term:
    name, version = table.line("name"), table.number("version")
    stem = f"{layer}.{name}"
    table.where = f"{layer}.toml, {stem}/{version}"
    symbols = table.take("symbols", dict, {})
    if not all(isinstance(meaning, str) for meaning in symbols.values()):
        raise VocabularyError("A symbol's meaning is not text.", where=table.where, found=str(symbols)[:80])
    made = Term(
        id=f"{stem}/{version}", layer=layer, name=name, version=version, title=table.line("title"),
        qualifiers=table.lines("qualifiers", []), formula=table.line("formula", ""), symbols=symbols,
        description=table.line("description"), references=table.lines("references"), flags=table.lines("flags"),
        depends=tuple(_dependency(t) for t in table.tables("depends")),
        role=table.one_of("role", ("independent", "derived", ""), ""),
        conventions=tuple(_convention(t, stem) for t in table.tables("conventions")),
        statements=tuple(_statement(t, stem) for t in table.tables("statements")),
        status=table.status(), source=table.line("source"), unknown=table.lines("unknown", []),
        inferred=table.lines("inferred", []),
    )  # fmt: skip
    table.done()
    return made


def _dependency(table: _Table) -> Dependency:
    made = Dependency(table.line("term"), table.one_of("kind", ("notion", "contrast", "algebraic", "causal", "history")),
                      table.status("framework"))  # fmt: skip
    table.done()
    return made


def _convention(table: _Table, stem: str) -> Convention:
    name, version = table.line("name"), table.number("version")
    made = Convention(f"{stem}.{name}/{version}", name, version, table.one_of("kind", ("definition", "proxy")),
                      table.line("statement"), table.line("unit"), table.line("source"))  # fmt: skip
    table.done()
    return made


def _statement(table: _Table, stem: str) -> Statement:
    name, version = table.line("name"), table.number("version")
    made = Statement(f"{stem}.{name}/{version}", name, version, table.line("text"), table.status(), table.line("test"))
    table.done()
    return made
