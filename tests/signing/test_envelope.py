"""Making envelopes: a key signs once, and nothing is added to signatures over other bytes."""

from __future__ import annotations

import pytest
from signing.material import envelope, key

from atlas_schema.errors import DocumentError
from atlas_schema.signing.envelope import check_signatures, envelope_of, sign


def test_a_key_that_signed_adds_nothing() -> None:
    once = envelope(1)
    assert sign(once.payload, key(1), once) == once
    assert len(sign(once.payload, key(2), once).signatures) == 2


def test_nothing_is_added_to_another_statement() -> None:
    with pytest.raises(DocumentError, match="another statement"):
        sign(b"other bytes", key(2), envelope(1))


def test_envelopes_are_read_as_they_are_written() -> None:
    assert envelope_of(envelope(1, 2).as_json()) == envelope(1, 2)
    assert check_signatures(envelope(1, 2), [key(2).public, key(1).public]).signers == {key(1).public, key(2).public}
