"""Which process a model ran in. Two runs that name the same one did not each have a fresh process."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from atlas_schema.canonical import digest_document

# Drawn when the module is first imported and never again. A forked child keeps it on purpose: it carries its parent's
# memory over, so it is not fresh.
_IDENTITY = {"nonce": secrets.token_hex(32), "began": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def process_digest() -> str:
    """Return what names this process: the digest of a random number drawn once in it, and of its time.

    A runner may lie about it; that two runs state the same one is what can be found.
    """
    return digest_document(_IDENTITY)
