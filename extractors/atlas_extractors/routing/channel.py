"""Frames between the extraction and its worker: a JSON header and binary blobs over a pipe.

Frame: header length (u32, little-endian), header (UTF-8 JSON with `sizes`), then the blobs. The exchange is strictly one
request, one reply taken before the next request, so neither side can block the other. Both ends are this package;
nothing here reads foreign input.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    header: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def send(stream: IO[bytes], header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write one frame and flush it."""
    encoded = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    stream.write(LENGTH.pack(len(encoded)) + encoded)
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes]) -> Frame | None:
    """Read one frame; None where the other side has gone, also in the middle of a frame."""
    prefix = stream.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(prefix)
    encoded = stream.read(length)
    if len(encoded) < length:
        return None
    header: dict[str, Any] = json.loads(encoded)
    blobs = []
    for size in header.pop("sizes"):
        blob = stream.read(size)
        if len(blob) < size:
            return None
        blobs.append(blob)
    return Frame(header, tuple(blobs))


def pack(table: pa.Table) -> bytes:
    """A table as Arrow IPC bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def unpack(blob: bytes) -> pa.Table:
    """The table behind Arrow IPC bytes."""
    with pa.ipc.open_stream(blob) as reader:
        return reader.read_all()
