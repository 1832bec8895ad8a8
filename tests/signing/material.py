"""Keys, statements and envelopes for the tests of signing. Keys come from numbers, so that every run has the same."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from atlas_schema.signing.envelope import Envelope, sign
from atlas_schema.signing.keys import PrivateKey
from atlas_schema.signing.statement import DOCUMENTS, File, Statement, statement_bytes


@cache
def key(number: int) -> PrivateKey:
    """Return the private key of a person."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"person %d" % number).digest()))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def statement(**changes: Any) -> Statement:
    """Return a statement over documents that are their own names."""
    documents = {role: sha(role) for role in DOCUMENTS}
    files = (File("state.parquet", 10, sha("state")), File("task.parquet", 20, sha("task")))
    return Statement(**{"documents": documents, "evidence": files, **changes})


def envelope(*people: int, payload: bytes | None = None) -> Envelope:
    """Return an envelope signed by each of the people, in order."""
    made: Envelope | None = None
    for number in people:
        made = sign(statement_bytes(statement()) if payload is None else payload, key(number), made)
    if made is None:
        raise ValueError("nobody signs")
    return made


def written(made: Envelope | dict[str, Any]) -> bytes:
    """Return the bytes of a signature file."""
    return (json.dumps(made if isinstance(made, dict) else made.as_json(), indent=2) + "\n").encode()
