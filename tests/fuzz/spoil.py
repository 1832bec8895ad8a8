"""How a sound input is changed: the fuzzer's bytes say where and into what."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from functools import cache

Span = tuple[int, int]
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\[\]{}:,]')
_CODED = re.compile(rb'"([A-Za-z0-9+/]{16,}={0,2})"')


def stretch(raw: bytes, data: bytes) -> bytes | None:
    """Return bytes with a stretch of up to seven replaced by up to 32; None where the fuzzer's bytes say nothing."""
    if len(data) < 4:
        return None
    made = bytearray(raw)
    at, cut = int.from_bytes(data[:3], "little") % len(made), data[3] % 8
    made[at : at + cut] = data[4:36]
    return bytes(made)


def spots(raw: bytes, data: bytes) -> bytes | None:
    """Return bytes of the same length with single ones replaced, one for every three of the fuzzer's."""
    if len(data) < 3:
        return None
    made = bytearray(raw)
    for i in range(0, len(data) - 2, 3):
        made[int.from_bytes(data[i : i + 2], "little") % len(made)] = data[i + 2]
    return bytes(made)


def document(raw: bytes, data: bytes) -> bytes | None:
    """Return a JSON document changed: one value for another, one member gone or twice, now and then bytes anywhere.

    A value becomes itself with one character changed, another value of the document (of its kind, or any), a text, or bytes.
    """
    if len(data) < 4:
        return None
    how, shape = data[3] % 8, _shape(raw)
    first, second, rest = int.from_bytes(data[:3], "little"), int.from_bytes(data[4:6], "little"), data[4:36]
    if how == 7 or not shape.values:
        return stretch(raw, data)
    if how in (4, 5) and shape.members:
        start, stop, following = shape.members[first % len(shape.members)]
        if how == 4:  # with the comma after it, or else before it
            comma = raw.rfind(b",", 0, start)
            start, stop = (start, following) if following else (max(comma, 0) if _last(raw, start) else start, stop)
            return raw[:start] + raw[stop:]
        return raw[:stop] + b"," + raw[start:stop] + raw[stop:]
    start, stop = shape.values[first % len(shape.values)]
    made = raw[start:stop]
    if how in (0, 1):
        made = _another_character(made, second, rest[2:3] or b"0")
    elif how == 2:
        alike = shape.alike[_kind(raw, start)]
        a, b = alike[second % len(alike)]
        made = raw[a:b]
    elif how == 3:
        a, b = shape.values[second % len(shape.values)]
        made = raw[a:b]
    else:
        made = json.dumps(rest.decode("latin-1")).encode() if second & 1 else rest
    return raw[:start] + made + raw[stop:]


def _last(raw: bytes, start: int) -> bool:
    """Return whether a comma stands before the last member of a list or an object, nothing but space between."""
    return raw[:start].rstrip().endswith(b",")


def _another_character(value: bytes, at: int, by: bytes) -> bytes:
    """Return a value with one character for another of its kind: digit for digit, hexadecimal letter for such a letter."""
    made = bytearray(value)
    at %= len(made)
    kinds = (b"0123456789", b"abcdef", b"ghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    kind = next((k for k in kinds if made[at] in k), by)
    made[at] = kind[by[0] % len(kind)]
    return bytes(made)


def decoded(raw: bytes, data: bytes) -> bytes | None:
    """Return a JSON document in which bytes of one text in base64 are changed below the base64."""
    places = [match.span(1) for match in _CODED.finditer(raw)]
    if len(data) < 5 or not places:
        return None
    start, stop = places[data[0] % len(places)]
    try:
        inner = base64.b64decode(raw[start:stop], validate=True)
    except binascii.Error:
        return None
    deeper = decoded(inner, data[1:]) if data[1] & 1 and _CODED.search(inner) else None
    made = deeper or (spots if data[1] & 2 else stretch)(inner, data[2:])
    return None if made is None else raw[:start] + base64.b64encode(made) + raw[stop:]


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where the values of a document lie, all and by kind, and its members and elements, each with where the next one begins, 0 for none."""

    values: tuple[Span, ...]
    alike: dict[int, tuple[Span, ...]]
    members: tuple[tuple[int, int, int], ...]


@cache
def _shape(raw: bytes) -> _Shape:
    """Take a sound JSON document apart; one that holds several lines of JSON, line by line."""
    values: list[Span] = []
    members: list[tuple[int, int, int]] = []
    tokens = [match.span() for match in _TOKEN.finditer(raw)]
    at = 0

    def value() -> int:
        """Go past one value; return where it ends."""
        nonlocal at
        start, stop = tokens[at]
        at += 1
        if raw[start : start + 1] in (b"[", b"{"):
            inside: list[Span] = []
            while raw[tokens[at][0]] not in b"]}":
                begin = tokens[at][0]
                at += 2 * (raw[start] == ord("{"))  # a name and its colon
                inside.append((begin, value()))
                at += raw[tokens[at][0]] == ord(",")
            stop = tokens[at][1]
            at += 1
            members.extend((a, b, inside[i + 1][0] if i + 1 < len(inside) else 0) for i, (a, b) in enumerate(inside))
        values.append((start, stop))
        return stop

    while at < len(tokens):
        value()
    alike = {_kind(raw, start): () for start, _ in values}
    return _Shape(tuple(values), {k: tuple(v for v in values if _kind(raw, v[0]) == k) for k in alike}, tuple(members))


def _kind(raw: bytes, start: int) -> int:
    """Return what kind of value begins somewhere: its sign, or that of all numbers."""
    return ord("0") if raw[start] in b"-0123456789" else raw[start]
