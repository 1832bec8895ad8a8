"""Canonical JSON (RFC 8785) and the digests built on it."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from atlas_schema.errors import DocumentError


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form of a JSON value. Raises `DocumentError` for values JSON cannot carry exactly."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise DocumentError("The document has no canonical form.", found=str(error)) from error


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:<hex>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_document(value: Any) -> str:
    """Return the digest of a document's canonical form; formatting and key order do not change it."""
    return digest_bytes(canonical_json(value))


def raw_digest(digest: str) -> bytes:
    """Return the 32 bytes behind ``sha256:<hex>``."""
    return bytes.fromhex(digest.removeprefix("sha256:"))
