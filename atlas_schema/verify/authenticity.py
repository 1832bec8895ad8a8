"""Channel authenticity: who vouches, under a key or an identity that the reviewer pinned?

Steps: the envelope's form, its signatures under pinned keys, its payload type, and only then its payload: the statement's form
and whether the documents are those it names. What an envelope says of its own keys is never used to decide anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atlas_schema.errors import DocumentError
from atlas_schema.signing.envelope import PAYLOAD_TYPE, check_signatures, envelope_of
from atlas_schema.signing.keys import PublicKey
from atlas_schema.signing.sigstore_bundle import SigstoreTrust, verify_bundle
from atlas_schema.signing.statement import DOCUMENTS, File, Statement, statement_of
from atlas_schema.verify.outcome import ChannelResult, Problem
from atlas_schema.verify.reading import read_json


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature file: its name for messages, and its bytes."""

    name: str
    raw: bytes


def check_keys(
    signed: Signed | None, keys: tuple[PublicKey, ...], threshold: int, documents: Mapping[str, str | None], result: ChannelResult
) -> tuple[tuple[File, ...], tuple[str, ...]] | None:  # fmt: skip
    """Check an envelope under pinned keys (K001 to K006).

    ``documents`` maps every role to the SHA-256 of what was submitted, None where it is absent. Returns the signed files of the
    evidence and the fingerprints of the signers, or None where any step found something wrong or absent.
    """
    if signed is None:
        result.total += 1
        result.report(Problem("ATL-K001", "There is no signature.", where="RECEIPT.dsse.json beside the receipt", unproven=True,
                              todo="ask the signer for the file that 'atlas sign' wrote, or name it with --signature"))  # fmt: skip
        return None
    threshold = max(1, threshold)
    result.check()
    try:
        envelope = envelope_of(read_json(signed.raw))
    except DocumentError as error:
        _malformed("ATL-K002", error, signed, result)
        return None
    found = check_signatures(envelope, keys)
    for fault in found.faults:
        result.report(Problem("ATL-K003", "A signature is not what it should be.", where=f"{signed.name}, {fault}",
                              todo="obtain the signature file from the signer again"))  # fmt: skip
    result.checked += min(threshold, len(found.signers))
    result.total += threshold
    if len(found.signers) < threshold and not found.faults:
        _too_few(found.strangers, len(found.signers), threshold, keys, signed, result)
    result.check()
    if envelope.payload_type != PAYLOAD_TYPE:
        result.report(Problem("ATL-K004", "The signed bytes are of another type.", where=signed.name,
                              stated=ascii(envelope.payload_type)[:120], recomputed=PAYLOAD_TYPE))  # fmt: skip
    if result.problems:  # whoever wrote it, not a byte of the payload is read
        return None
    statement = _statement(envelope.payload, signed, documents, result)
    return None if statement is None else (statement.evidence, tuple(sorted(key.fingerprint for key in found.signers)))


def check_sigstore(
    signed: Signed | None, trust: SigstoreTrust, documents: Mapping[str, str | None], result: ChannelResult
) -> tuple[File, ...] | None:
    """Check a Sigstore bundle under the reviewer's trusted root and identity (K007, K004 to K006)."""
    if signed is None:
        result.total += 1
        result.report(
            Problem(
                "ATL-K007",
                "There is no Sigstore bundle.",
                where="--sigstore-bundle",
                unproven=True,
                todo="ask the signer for it",
            )
        )
        return None
    result.check()
    try:
        read_json(signed.raw)  # one reading of the bytes before a laxer reader sees them
        kind, payload = verify_bundle(signed.raw, trust)
    except DocumentError as error:
        _malformed("ATL-K007", error, signed, result)
        return None
    result.check()
    if kind != PAYLOAD_TYPE:
        result.report(Problem("ATL-K004", "The signed bytes are of another type.", where=signed.name,
                              stated=ascii(kind)[:120], recomputed=PAYLOAD_TYPE))  # fmt: skip
        return None
    statement = _statement(payload, signed, documents, result)
    return None if statement is None else statement.evidence


def _too_few(
    strangers: tuple[str, ...], count: int, threshold: int, keys: tuple[PublicKey, ...], signed: Signed, result: ChannelResult
) -> None:  # fmt: skip
    """Report a missed threshold: a contradiction where somebody else signed, a gap where a signature is only missing."""
    named = f"; signatures by {', '.join(ascii(s)[1:-1][:80] for s in strangers)} (as they say)" if strangers else ""
    pinned = ", ".join(key.fingerprint for key in keys)
    result.report(Problem("ATL-K001", "Too few of the keys that you pinned signed this.", where=signed.name,
                          stated=f"{count} of your keys{named}", recomputed=f"{threshold} of {pinned}", unproven=not strangers,
                          todo="the bytes were changed after signing, or this is not the signer whose key you have"
                          if strangers else "ask for the missing signature, or lower --threshold"))  # fmt: skip


def _statement(
    payload: bytes, signed: Signed, documents: Mapping[str, str | None], result: ChannelResult
) -> Statement | None:
    result.check()
    try:
        statement = statement_of(read_json(payload))
    except DocumentError as error:
        _malformed("ATL-K005", error, signed, result)
        return None
    for role in DOCUMENTS:
        given = documents[role]
        result.total += 1
        if given is None:
            result.report(Problem("ATL-K006", f"The {role} is absent, so that its signature cannot be checked.", unproven=True,
                                  where=signed.name))  # fmt: skip
            continue
        result.checked += 1
        if given != statement.documents[role]:
            result.report(Problem("ATL-K006", f"The {role} is not the one that was signed.", where=signed.name,
                                  stated=f"sha256:{given}", recomputed=f"sha256:{statement.documents[role]}",
                                  todo="obtain the documents as they were signed; reformatting a file changes its bytes"))  # fmt: skip
    return None if result.problems else statement


def _malformed(rule: str, error: DocumentError, signed: Signed, result: ChannelResult) -> None:
    where = f"{signed.name} {error.where}".strip()
    result.report(Problem(rule, error.what, where=where, stated=error.found, recomputed=error.expected,
                          todo=error.todo or "obtain the signature file from the signer again"))  # fmt: skip
