"""The technician's Read: what a person expects before the first run, and sees after it. No tool and no model writes one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from atlas_schema.documents.base import Digest, Document, Line, Time

Words = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class Read(Document):
    """Read #0 or Read #1. ``log_head`` is the last step that had happened when it was written, null where there was none.

    ``surprise`` is what would surprise its author (#0) or did (#1).
    """

    kind: Literal["read"]
    schema_version: Literal["1.0"]
    moment: Literal["before_first_run", "after_first_run"]
    author: Line
    time: Time
    log_head: Digest | None
    text: Words
    surprise: Words
