"""A strict reader for JSON from parties that want to be believed.

Bounds come first (`limits.py`), then UTF-8 without BOM, then a parse that refuses duplicate keys, NaN, infinities, numbers
that overflow, unsafe integers, lone surrogates and anything after the document.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from atlas_schema.documents import judgements
from atlas_schema.errors import DocumentError
from atlas_schema.limits import LIMITS, Limits

# Possessive, and an unterminated string reaches to the end: no input makes the scan more than linear.
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]|-?[0-9][0-9.eE+-]*+', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")
SAFE_INTEGER = 2**53 - 1


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
    for count, item in enumerate(_walk(value)):
        if count > limits.values:
            raise DocumentError("The document holds too many values.", expected=f"at most {limits.values}")
        if isinstance(item, str) and re.search("[\ud800-\udfff]", item):
            raise DocumentError("A string holds half of a surrogate pair.", found=ascii(item)[:80])
        if isinstance(item, (dict, list)) and len(item) > limits.members:
            raise DocumentError("An object or array has too many members.", expected=f"at most {limits.members}",
                                found=str(len(item)))  # fmt: skip
    return value


def position(raw: bytes, path: tuple[str | int, ...]) -> tuple[int, int] | None:
    """Return line and column (from 1) of the value at a path, or None where the path does not exist.

    Call it only for a document that `read_json` accepted.
    """
    text, decoder, at = raw.decode("utf-8"), json.JSONDecoder(), 0
    at = _skip(text, 0)
    for part in path:
        found = _descend(text, decoder, at, part)
        if found is None:
            return None
        at = found
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def pointer(path: tuple[str | int, ...]) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    return judgements.pointer(path)


def _descend(text: str, decoder: json.JSONDecoder, at: int, part: str | int) -> int | None:
    opening = text[at]
    if opening not in "[{":
        return None
    index, at = 0, _skip(text, at + 1)
    while text[at] not in "]}":
        key: str | int = index
        if opening == "{":
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        if key == part:
            return at
        at = _skip(text, decoder.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
        index += 1
    return None


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _require_bounds(text: str, limits: Limits) -> None:
    depth = 0
    for match in _TOKENS.finditer(text):
        token = match.group()
        if token[0] == '"':
            if 4 * len(token) > limits.string_bytes and len(token.encode()) > limits.string_bytes + 2:
                raise DocumentError("A string is too long.", where=_where(text, match.start()),
                                    expected=f"at most {limits.string_bytes} bytes")  # fmt: skip
        elif token in "[{":
            depth += 1
            if depth > limits.depth:
                raise DocumentError("The document is nested too deeply.", where=_where(text, match.start()),
                                    expected=f"at most {limits.depth} levels")  # fmt: skip
        elif token in "]}":
            depth -= 1
        elif len(token) > limits.number_characters:
            raise DocumentError("A number is too long.", where=_where(text, match.start()),
                                expected=f"at most {limits.number_characters} characters")  # fmt: skip


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


def _walk(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
