"""The strict reader: every refusal named after the attack it stops, and exact positions for messages."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties.contract import examples

from atlas_schema.errors import DocumentError
from atlas_schema.limits import LIMITS
from atlas_schema.verify.reading import pointer, position, positions, read_json

SAFE = 2**53 - 1
scalars = (
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.text(st.characters(codec="utf-8"))
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: len(repr(x)) <= LIMITS.number_characters)
)  # fmt: skip
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


def refused(raw: bytes) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        read_json(raw)
    return caught.value


# --- attacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b'{"a": 1, "a": 2}', b'{"a": 1, "\\u0061": 2}', b'[{"x": {"b": 1, "c": 0, "b": 1}}]', b'{"": 1, "": 1}']
)
def test_duplicate_keys_show_two_readers_two_documents(raw: bytes) -> None:
    assert "same key twice" in str(refused(raw))


def test_byte_order_mark_hides_a_prefix() -> None:
    assert "byte order mark" in str(refused(b"\xef\xbb\xbf{}"))


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_numbers(token: str) -> None:
    assert "not finite" in str(refused(f'{{"a": {token}}}'.encode()))


@pytest.mark.parametrize("token", ["1e999", "-1e999", "1.0e400", "123456789e307"])
def test_numbers_that_overflow_to_infinity(token: str) -> None:
    assert "overflows" in str(refused(f"[{token}]".encode()))


@pytest.mark.parametrize("token", [str(2**53), str(-(2**53)), "9" * 40])
def test_integers_that_readers_round_differently(token: str) -> None:
    assert "not exact" in str(refused(token.encode()))


@pytest.mark.parametrize("token", [str(SAFE), str(-SAFE), "0", "-0"])
def test_the_largest_exact_integers_are_read(token: str) -> None:
    assert read_json(token.encode()) == int(token)


@pytest.mark.parametrize("raw", [b'"\\ud800"', b'["\\udc00\\ud800"]', b'{"\\ud83d": 1}', b'"\\ud83dx"'])
def test_half_of_a_surrogate_pair_has_no_canonical_form(raw: bytes) -> None:
    assert "surrogate" in str(refused(raw))


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("raw", [b"{} {}", b"{}x", b"[1],", b"1 2", b"{}\x00", b"{}\xc2\xa0"])
def test_trailing_data_after_the_document(raw: bytes) -> None:
    assert "not JSON" in str(refused(raw))


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"'a'", b"{a: 1}", b"[1,]", b'{"a": 1,}', b"01", b"+1", b".5", b"1.", b"-", b'"\t"', b'"\\x41"', b"[1 2]",
     b"// no\n1", b"True", b'"open', b'"\\', b"\x0b1"],
)  # fmt: skip
def test_what_lenient_readers_accept_is_refused(raw: bytes) -> None:
    assert "not JSON" in str(refused(raw))


@pytest.mark.parametrize(
    "raw", [b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', "{}".encode("utf-16"), b'"\xf4\x90\x80\x80"']
)
def test_bytes_that_are_not_utf8(raw: bytes) -> None:
    assert "not UTF-8" in str(refused(raw))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_that_exhausts_the_stack(opening: str, closing: str) -> None:
    limit = LIMITS.depth
    fits = opening * limit + "1" + closing * limit
    assert read_json(fits.encode()) is not None
    error = refused((opening + fits + closing).encode())
    assert "nested too deeply" in str(error)
    assert error.where == f"1:{limit * len(opening) + 1}"
    assert "nested too deeply" in str(refused(b"[" * 1_000_000))


def test_brackets_inside_strings_are_not_nesting() -> None:
    assert read_json(json.dumps("[" * 1000).encode()) == "[" * 1000
    assert read_json(b'"\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["') is not None


def test_a_string_beyond_the_limit() -> None:
    assert len(read_json(b'"' + b"a" * LIMITS.string_bytes + b'"')) == LIMITS.string_bytes
    assert "string is too long" in str(refused(b'"' + b"a" * (LIMITS.string_bytes + 1) + b'"'))
    assert "string is too long" in str(refused(json.dumps("é" * LIMITS.string_bytes, ensure_ascii=False).encode()))
    assert "string is too long" in str(refused(b'{"' + b"k" * (LIMITS.string_bytes + 1) + b'": 1}'))


@pytest.mark.parametrize("token", ["1" * 41, "0." + "1" * 39, "1e" + "0" * 39, "-" + "1" * 40])
def test_a_number_that_takes_quadratic_time_to_convert(token: str) -> None:
    assert "number is too long" in str(refused(token.encode()))


def test_a_document_beyond_the_limit_is_refused_before_it_is_decoded() -> None:
    assert "too large" in str(refused(b"\xff" * (LIMITS.document_bytes + 1)))


def test_too_many_members_and_too_many_values() -> None:
    few = replace(LIMITS, members=3, values=6)
    assert read_json(b"[1, 2, 3]", few) == [1, 2, 3]
    for raw in (b"[1, 2, 3, 4]", b'{"a":1,"b":1,"c":1,"d":1}', b"[[1, 2], [1, 2], [1, 2]]"):
        with pytest.raises(DocumentError, match="too many"):
            read_json(raw, few)


@pytest.mark.parametrize(
    "raw",
    [b'"' + b'\\"' * 2_000_000, b'"' * 4_000_001, b"\\" * 4_000_000, b"-" * 4_000_000, b'"a\\' * 1_000_000,
     b'[{"a":1,' + b",".join(b'"%d":1' % i for i in range(100_000)) + b',"a":2}]'],
    ids=["escaped quotes", "quotes", "backslashes", "minus signs", "open strings", "late duplicate"],
)  # fmt: skip
def test_documents_built_to_take_quadratic_time(raw: bytes) -> None:
    start = time.process_time()
    refused(raw)
    assert time.process_time() - start < 10


WORST = {
    "empty lists": b"[" + b"[]," * 5_000_000 + b"[]]",
    "numbers": b"[" + b"1," * 8_000_000 + b"1]",
    "commas": b"[" + b"," * 16_000_000,
    "literals": b"[" + b"true," * 3_000_000 + b"1]",
    "strings": b"[" + b'"a",' * 4_000_000 + b"1]",
    "small objects, as many as may be": b"[" + b",".join([b"[" + b'{"a":1},' * 132_000 + b"1]"] * 5) + b"]",
    "members, as many as may be": b"{" + b",".join(b'"%d":1' % i for i in range(199_999)) + b"}",
    "escapes": b"[" + (b'"' + b"\\u0041" * 10_900 + b'",') * 250 + b"1]",
    "characters beyond the first plane": b"[" + (b'"' + "\U0001f600".encode() * 16_000 + b'",') * 250 + b"1]",
    "exponents": b"[" + b"1e-" + b"9" * 36 + b"," + b"1e308," * 190_000 + b"1]",
    "line ends before an error": b"[" + b"\n" * 16_000_000 + b"x",
    "spaces": b" " * 16_000_000,
}
READ = """
import resource, sys, time
from atlas_schema.errors import DocumentError
from atlas_schema.verify.reading import read_json
raw = sys.stdin.buffer.read()
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    read_json(raw)
except DocumentError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, time.process_time() - start)
"""


@pytest.mark.parametrize("name", WORST)
def test_the_worst_documents_stay_within_memory_and_time(name: str) -> None:
    """As `docs/verification.md` says; what the document's own bytes take is not counted."""
    assert len(WORST[name]) <= LIMITS.document_bytes
    done = subprocess.run([sys.executable, "-c", READ], input=WORST[name], capture_output=True, timeout=120, check=True)
    memory, seconds = map(float, done.stdout.split())
    assert memory < 256 * 2**20
    assert seconds < 10


@pytest.mark.parametrize(("raw", "count"), [
    (b"0", 1), (b"[]", 1), (b'{"a":1}', 3), (b'[null, true, false, "", -1.5e3, {}]', 7), (b'{"a,b":[{"c]":[1,2]}]}', 8),
])  # fmt: skip
def test_every_value_and_every_name_counts(raw: bytes, count: int) -> None:
    read_json(raw, replace(LIMITS, values=count))
    with pytest.raises(DocumentError, match="too many values"):
        read_json(raw, replace(LIMITS, values=count - 1))


@examples(80, 1000)
@given(documents)
def test_values_are_counted_as_they_are(value: Any) -> None:
    def count(part: Any) -> int:
        inner = [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list) else []
        return 1 + sum(map(count, inner))

    raw, n = json.dumps(value).encode(), count(value)
    assert read_json(raw, replace(LIMITS, values=n)) == value
    with pytest.raises(DocumentError, match="too many values"):
        read_json(raw, replace(LIMITS, values=n - 1))


def test_members_are_counted_before_anything_is_built() -> None:
    """The limit is found in text that is not even JSON."""
    assert "too many members" in str(refused(b"[" + b"1 1," * (LIMITS.members + 1)))
    assert "too many values" in str(refused(b"[" + b"[0,0,0,0,0,0,0]" * 300_000))


# --- properties ---------------------------------------------------------------------------------------------------


@examples(80, 1000)
@given(documents, st.sampled_from([None, 2]), st.booleans())
def test_what_was_written_is_read(value: Any, indent: int | None, ascii_only: bool) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert read_json(raw) == value


@examples(80, 1000)
@given(st.binary(max_size=300))
@example(b"")
@example(b"[" * 100)
@example(b'{"a":1e5}')
@example(b"\xed\xb0\x80")
def test_arbitrary_bytes_give_a_value_or_a_document_error(raw: bytes) -> None:
    try:
        value = read_json(raw)
    except DocumentError:
        return
    assert read_json(json.dumps(value, allow_nan=False).encode()) == value


@examples(80, 1000)
@given(st.text(st.sampled_from('{}[]":,\\0123456789.eE+-tfnrueals u\n\ud800'), max_size=60))
def test_arbitrary_json_like_text_gives_a_value_or_a_document_error(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        value = read_json(raw)
    except DocumentError:
        return
    assert value == json.loads(raw)


@examples(80, 1000)
@given(st.data(), documents, st.binary(max_size=3))
def test_damaged_documents_give_a_value_or_a_document_error(data: st.DataObject, value: Any, noise: bytes) -> None:
    raw = json.dumps(value).encode()
    at = data.draw(st.integers(0, len(raw)))
    cut = data.draw(st.integers(0, 3))
    damaged = raw[:at] + noise + raw[at + cut :]
    try:
        read = read_json(damaged)
    except DocumentError:
        return
    assert read == json.loads(damaged)


# --- positions ----------------------------------------------------------------------------------------------------


def write(
    value: Any, space: str, path: tuple[str | int, ...], out: list[str], places: dict[tuple[str | int, ...], int]
) -> None:
    """Write a document by hand, noting the offset at which every value begins."""
    places[path] = sum(len(part) for part in out)
    if isinstance(value, dict):
        out.append("{" + space)
        for index, (name, inner) in enumerate(value.items()):
            out.append(("," + space if index else "") + json.dumps(name, ensure_ascii=False) + space + ":" + space)
            write(inner, space, (*path, name), out, places)
        out.append(space + "}")
    elif isinstance(value, list):
        out.append("[" + space)
        for index, inner in enumerate(value):
            out.append("," + space if index else "")
            write(inner, space, (*path, index), out, places)
        out.append(space + "]")
    else:
        out.append(json.dumps(value, ensure_ascii=False))


def paths(value: Any) -> st.SearchStrategy[tuple[str | int, ...]]:
    """Draw the path of some value of a document."""
    found: list[tuple[str | int, ...]] = [()]

    def walk(inner: Any, path: tuple[str | int, ...]) -> None:
        items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for name, deeper in items:
            found.append((*path, name))
            walk(deeper, (*path, name))

    walk(value, ())
    return st.sampled_from(found)


@examples(80, 1000)
@given(st.data(), documents, st.sampled_from(["", " ", "\n", "\n  ", "\r\n\t"]))
def test_positions_are_those_of_an_independent_writer(data: st.DataObject, value: Any, space: str) -> None:
    out: list[str] = [space]
    places: dict[tuple[str | int, ...], int] = {}
    write(value, space, (), out, places)
    text = "".join(out)
    path = data.draw(paths(value))
    before = text[: places[path]]
    expected = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert position(text.encode(), path) == expected


def test_many_places_take_one_pass() -> None:
    raw = b"[\n" + b",\n".join(b'{"a": [%d]}' % i for i in range(100_000)) + b"\n]"
    start = time.process_time()
    found = positions(raw, [(i, "a", 0) for i in range(100_000)])
    assert time.process_time() - start < 10
    assert len(found) == 100_000
    assert found[(0, "a", 0)] == (2, 8)
    assert found[(99_999, "a", 0)] == (100_001, 8)


@given(st.data(), documents)
def test_a_path_that_does_not_exist_has_no_position(data: st.DataObject, value: Any) -> None:
    path = data.draw(paths(value))
    assert position(json.dumps(value).encode(), (*path, "no such member")) is None
    assert position(json.dumps(value).encode(), (*path, 10_000)) is None


def test_pointers_escape_what_would_split_them() -> None:
    assert pointer(("a/b", 0, "c~d")) == "/a~1b/0/c~0d"


@pytest.mark.parametrize(("raw", "where"), [(b'{"a": 1,\n "b": }', "2:7"), (b'{\n\n"a" 1}', "3:5"), (b"[1,\n2", "2:2")])
def test_syntax_errors_say_where(raw: bytes, where: str) -> None:
    assert refused(raw).where == where
