"""Everything that could stand in a document in place of what stands there: one value changed at a time.

A change is text put in place of text, so that nothing else of the document moves. Texts of one meaning are no change:
white space, the order of members, escapes, and numbers of one RFC 8785 form (1, 1.0, 1e0).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from atlas_schema.canonical import canonical_json
from atlas_schema.documents.schema import shipped_schema
from atlas_schema.verify.reading import pointer

Json = Any
Path = tuple[str | int, ...]
Span = tuple[int, int]
TWICE = "the first member twice"
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a document: what is done to the value at ``path``, and the value that stands there then."""

    path: Path
    what: str
    new: Json

    def __str__(self) -> str:
        return f"{pointer(self.path) or '/'}: {self.what}"


def walk(value: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield every value of a document with its path, containers too."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from walk(inner, (*path, name))


def is_leaf(value: Json) -> bool:
    """Whether nothing lies below a value. An empty container is a leaf."""
    return not isinstance(value, (dict, list)) or not value


def kind_of(path: Path) -> str:
    """Return a path with positions in lists left open."""
    return pointer(tuple("*" if isinstance(part, int) else part for part in path))


def within(path: Path, pointers: tuple[str, ...]) -> bool:
    """Whether a path is at or below one of some JSON pointers."""
    return any(pointer(path) == text or pointer(path).startswith(f"{text}/") for text in pointers)


def spans(text: str) -> dict[Path, Span]:
    """Return where every value of a JSON text begins and ends."""
    found: dict[Path, Span] = {}
    _span(text, _skip(text, 0), (), found)
    return found


def _span(text: str, at: int, path: Path, found: dict[Path, Span]) -> int:
    if text[at] not in "[{":
        end: int = _DECODER.raw_decode(text, at)[1]
    else:
        inner, index = _skip(text, at + 1), 0
        while text[inner] not in "]}":
            key: str | int = index
            if text[at] == "{":
                key, inner = _DECODER.raw_decode(text, inner)
                inner = _skip(text, _skip(text, inner) + 1)
            inner, index = _skip(text, _span(text, inner, (*path, key), found)), index + 1
            inner = _skip(text, inner + 1) if text[inner] == "," else inner
        end = inner + 1
    found[path] = (at, end)
    return end


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


class Changes:
    """The changes of one document, in an order that never varies; ``free`` are pointers below which nothing is changed."""

    def __init__(self, raw: bytes, free: tuple[str, ...] = ()) -> None:
        self.text = raw.decode()
        self.value: Json = json.loads(self.text)
        self.spans = spans(self.text)
        everything = list(walk(self.value))
        self.free = [p for p, v in everything if is_leaf(v) and within(p, free)]
        self.leaves = [(p, v) for p, v in everything if is_leaf(v) and not within(p, free)]
        self.containers = [(p, v) for p, v in everything if not is_leaf(v) and not within(p, free)]
        self._free = free
        self._beside: dict[str, dict[str, None]] = defaultdict(dict)
        for path, value in self.leaves:
            if isinstance(value, str):
                self._beside[_field(path)][value] = None

    def of_leaf(self, path: Path, value: Json) -> list[Change]:
        """Return every change of one leaf: to values of its own type, and to two other types in turn (all, of null)."""
        types = list(_other_types(value).items())
        at = len(pointer(path)) % len(types)
        turned = types if value is None else [types[at], types[at - 2]]
        made = {**_own(value), **self._other_words(path, value), **dict(turned)}
        before = canonical_json([value])
        return [Change(path, what, new) for what, new in made.items() if canonical_json([new]) != before]

    def of_container(self, path: Path, value: Json) -> list[Change]:
        """Return every change of one object or list: each member left out, doubled, moved; members added; none left."""
        made = [Change(path, what, new) for what, new in _reshaped(value)]
        return [c for c in made if not within((*path, c.what.removeprefix("without ")), self._free)]

    def raw(self, change: Change) -> bytes:
        """Return the document after a change."""
        start, end = self.spans[change.path]
        if change.what == TWICE:
            inner, name = _skip(self.text, start + 1), next(iter(change.new))
            doubled = f"{json.dumps(name)}: {json.dumps(change.new[name])}, "
            return (self.text[:inner] + doubled + self.text[inner:]).encode()
        return (self.text[:start] + json.dumps(change.new, ensure_ascii=False) + self.text[end:]).encode()

    def _other_words(self, path: Path, value: Json) -> dict[str, Json]:
        """Words that the schema lets stand here in place of a word, and what fields of this name hold elsewhere."""
        if not isinstance(value, str):
            return {}
        beside = [word for word in self._beside[_field(path)] if word != value]
        words = {*(word for group in _words() if value in group for word in group), *beside[:1], *beside[-1:]}
        return {f"to {word}": word for word in sorted(words - {value})}


def _field(path: Path) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "")


@cache
def _words() -> frozenset[tuple[str, ...]]:
    """Return every closed set of words in the schema."""
    return frozenset(
        tuple(value)
        for path, value in walk(shipped_schema())
        if path and path[-1] == "enum" and all(isinstance(word, str) for word in value)
    )


def _other_types(value: Json) -> dict[str, Json]:
    return {"to null": None, "to true": True, "to a list of itself": [value], "to a number": 7, "to text": "text"}


def _own(value: Json) -> dict[str, Json]:
    """Other values of the same type."""
    if isinstance(value, bool):
        return {"negated": not value}
    if isinstance(value, int):
        return {"one more": value + 1, "one less": value - 1, "a half more": value + 0.5, "doubled": 2 * value, "zero": 0,
                "negated": -value}  # fmt: skip
    if isinstance(value, float):
        return {"last place up": last_place(value, 1), "last place down": last_place(value, -1), "doubled": 2 * value,
                "zero": 0, "negated": -value}  # fmt: skip
    if isinstance(value, str):
        return {"longer": value + "x", "shorter": value[:-1], "last letter": value[:-1] + ("1" if value.endswith("0") else "0"),
                "other case": value.swapcase()}  # fmt: skip
    return {}


def last_place(value: float, by: int) -> float:
    """Return a number moved by units of its ninth significant digit, the last that a receipt states."""
    mantissa, _, exponent = f"{value:.8e}".partition("e")
    return float(f"{float(mantissa) + by * 1e-8:.8f}e{exponent}")


def _reshaped(value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for name in value:
            yield f"without {name}", {n: v for n, v in value.items() if n != name}
        yield TWICE, value
        yield "with a member more", {**value, "extra": "text"}
        yield "with no member", {}
        return
    for at, item in enumerate(value):
        yield f"without element {at}", value[:at] + value[at + 1 :]
        yield f"element {at} twice", [*value[: at + 1], *value[at:]]
        if at and value[at - 1] != item:
            yield f"elements {at - 1} and {at} exchanged", [*value[: at - 1], item, value[at - 1], *value[at + 1 :]]
    yield "with null more", [*value, None]
    yield "with no element", []
    yield "twice over", [*value, *value]
    if len(value) > 2 and value != value[::-1]:
        yield "reversed", value[::-1]
