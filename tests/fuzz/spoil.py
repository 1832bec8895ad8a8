"""How a sound input is changed: the fuzzer's bytes say where and into what."""

from __future__ import annotations

import base64
import binascii
import json
import re
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
    """Return a JSON document changed: bytes anywhere, or one token for another, so that most of what is made is JSON.

    A token becomes the fuzzer's bytes, a text of them, another token of the document, or itself with one character changed;
    or it goes, or comes twice, with what stands up to another token.
    """
    if len(data) < 4:
        return None
    how, places = data[3] // 32, _tokens(raw)
    if how > 5:
        return stretch(raw, data)
    start, stop = places[int.from_bytes(data[:3], "little") % len(places)]
    other = places[(int.from_bytes(data[:3], "little") + 1 + int.from_bytes(data[4:6], "little")) % len(places)]
    rest, token = data[4:36], raw[start:stop]
    if how == 0:
        token = rest
    elif how == 1:
        token = json.dumps(rest.decode("latin-1")).encode()
    elif how == 2:
        token = raw[slice(*other)]
    elif how == 3 and rest:
        changed = bytearray(token)
        changed[rest[0] % len(changed)] = rest[1] if len(rest) > 1 else 0x30
        token = bytes(changed)
    elif how == 4:
        return raw[:start] + raw[max(stop, other[0]) :]
    elif how == 5:
        token = raw[start : max(stop, other[0])] * 2
        stop = max(stop, other[0])
    return raw[:start] + token + raw[stop:]


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


@cache
def _tokens(raw: bytes) -> list[Span]:
    """Return where the tokens of a document lie: names, values and signs."""
    return [match.span() for match in _TOKEN.finditer(raw)]
