"""A strict reader for JSON from parties that want to be believed.

Bounds come first (`limits.py`), then UTF-8 without BOM, then a parse that refuses duplicate keys, NaN, infinities, numbers
that overflow, unsafe integers, lone surrogates and anything after the document.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from atlas_schema.documents import judgements
from atlas_schema.errors import DocumentError
from atlas_schema.limits import LIMITS, Limits

# Possessive, and an unterminated string reaches to the end: no input makes the scan more than linear.
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]|-?[0-9][0-9.eE+-]*+|[A-Za-z]++', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\n\r]*")
SAFE_INTEGER = 2**53 - 1
Path = tuple[str | int, ...]
"""Names and indices from the root of a document to one of its values."""


def read_json(raw: bytes, limits: Limits = LIMITS) -> Any:
    """Return the parsed document. Raises `DocumentError` naming the defect, with line and column where it has one."""
    if len(raw) > limits.document_bytes:
        raise DocumentError("The document is too large.", expected=f"at most {limits.document_bytes} bytes",
                            found=f"{len(raw)} bytes")  # fmt: skip
    if raw.startswith(b"\xef\xbb\xbf"):
        raise DocumentError("The document starts with a byte order mark.", expected="plain UTF-8", where="1:1")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError("The document is not UTF-8.", where=f"byte {error.start}", found=error.reason) from error
    _require_bounds(text, limits)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise DocumentError(
            "The document is not JSON.", where=f"{error.lineno}:{error.colno}", found=error.msg
        ) from error
    # UTF-8 holds none: half of a pair can only have been escaped.
    for item in _strings(value) if _SURROGATE.search(text) else ():
        if re.search("[\ud800-\udfff]", item):
            raise DocumentError("A string holds half of a surrogate pair.", found=ascii(item)[:80])
    return value


def position(raw: bytes, path: Path) -> tuple[int, int] | None:
    """Return line and column (from 1) of the value at a path, or None where the path does not exist."""
    return positions(raw, [path]).get(path)


def positions(raw: bytes, paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return line and column (from 1) of the values at many paths, in one pass; paths that do not exist are left out.

    Call it only for a document that `read_json` accepted.
    """
    wanted: dict[Any, Any] = {}
    asked = set(paths)
    for path in asked:
        node = wanted
        for part in path:
            node = node.setdefault(part, {})
    text, found = raw.decode("utf-8"), {}
    for path, at in _offsets(text, json.JSONDecoder(), _skip(text, 0), wanted, ()):
        found[path] = at
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    return {p: ((line := bisect_right(lines, at)), at - lines[line - 1] + 1) for p, at in found.items() if p in asked}


def pointer(path: Path) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    return judgements.pointer(path)


def _offsets(
    text: str, decoder: json.JSONDecoder, at: int, wanted: dict[Any, Any], path: Path
) -> Iterator[tuple[Path, int]]:
    """Yield where the values begin whose paths, from here on, are wanted. Members that nobody asked for are passed over."""
    yield path, at
    opening = text[at]
    if not wanted or opening not in "[{":
        return
    index, at = 0, _skip(text, at + 1)
    while text[at] not in "]}":
        key: str | int = index
        if opening == "{":
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        if key in wanted:
            yield from _offsets(text, decoder, at, wanted[key], (*path, key))
        at = _skip(text, decoder.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
        index += 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _require_bounds(text: str, limits: Limits) -> None:
    """Hold strings, numbers, nesting, members and values to the limits before anything is built. Whether it is JSON is not asked."""
    members: list[int] = []
    values = 0
    for match in _TOKENS.finditer(text):
        token = match.group()
        first = token[0]
        values += first not in ",]}"
        if first == '"':
            if 4 * len(token) > limits.string_bytes and len(token.encode()) > limits.string_bytes + 2:
                raise _beyond("A string is too long.", text, match.start(), f"{limits.string_bytes} bytes")
        elif first == ",":
            if members:
                members[-1] += 1
                if members[-1] >= limits.members:
                    raise _beyond("An object or array has too many members.", text, match.start(), str(limits.members))
        elif first in "[{":
            members.append(0)
            if len(members) > limits.depth:
                raise _beyond("The document is nested too deeply.", text, match.start(), f"{limits.depth} levels")
        elif first in "]}":
            if members:
                members.pop()
        elif len(token) > limits.number_characters:
            raise _beyond("A number is too long.", text, match.start(), f"{limits.number_characters} characters")
        if values > limits.values:
            raise _beyond("The document holds too many values.", text, match.start(), str(limits.values))


def _beyond(what: str, text: str, at: int, most: str) -> DocumentError:
    return DocumentError(what, where=_where(text, at), expected=f"at most {most}")


def _where(text: str, at: int) -> str:
    return f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise DocumentError("An object has the same key twice.", found=ascii(twice)[:80], expected="each key once",
                            todo="no reader can know which of the two was meant")  # fmt: skip
    return made


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > SAFE_INTEGER:
        raise DocumentError("An integer is not exact in every reader.", found=text, expected="within ±(2^53 - 1)")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise DocumentError("A number overflows.", found=text, expected="a finite number")
    return value


def _constant(text: str) -> NoReturn:
    raise DocumentError("A number is not finite.", found=text, expected="a finite number")


def _strings(value: Any) -> Iterator[str]:
    """Yield every string of a document, names too."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
