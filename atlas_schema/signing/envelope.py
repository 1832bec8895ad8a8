"""DSSE envelopes: signatures over exact bytes and the type that says how to read them.

A payload is verified before it is parsed, and no step depends on a canonical form of it. Source: the DSSE protocol,
version 1.0, and its JSON envelope. Stricter than these: fields beyond the specified ones are refused, and a `keyid` that is
given must be the fingerprint of the key whose signature it stands beside; it still selects nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from atlas_schema.errors import DocumentError
from atlas_schema.limits import LIMITS
from atlas_schema.signing.curve import signature_fault
from atlas_schema.signing.keys import PrivateKey, PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as it stands in an envelope. ``keyid`` is not covered by it."""

    sig: bytes
    keyid: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an envelope holds, decoded. Nothing in it is to be believed before `signers` has named enough keys."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, standard base64."""
        signatures = [{"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode()} for s in self.signatures]
        payload = base64.b64encode(self.payload).decode()
        return {"payload": payload, "payloadType": self.payload_type, "signatures": signatures}


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope_of(value: Any) -> Envelope:
    """Return the envelope that a parsed JSON value is. Raises `DocumentError` naming the first thing that is wrong."""
    found = _fields(value, {"payload", "payloadType", "signatures"}, set(), "The envelope")
    if not isinstance(found["payloadType"], str) or not isinstance(found["signatures"], list):
        raise DocumentError("The envelope's payloadType is not a string, or its signatures are not a list.")
    if not 0 < len(found["signatures"]) <= LIMITS.signatures:
        raise DocumentError("The envelope has no signature, or too many.", found=str(len(found["signatures"])),
                            expected=f"1 to {LIMITS.signatures}")  # fmt: skip
    signatures = tuple(_signature(entry) for entry in found["signatures"])
    return Envelope(found["payloadType"], strict_base64(found["payload"], "payload"), signatures)


def _signature(value: Any) -> Signature:
    found = _fields(value, {"sig"}, {"keyid"}, "A signature")
    keyid = found.get("keyid", "")
    if not isinstance(keyid, str):
        raise DocumentError("A signature's keyid is not a string.")
    return Signature(strict_base64(found["sig"], "sig"), keyid)


def _fields(value: Any, required: set[str], optional: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not required <= set(value) <= required | optional:
        found = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise DocumentError(f"{what} does not have exactly the fields of DSSE.", found=found[:200],
                            expected=", ".join(sorted(required)) + "".join(f", perhaps {o}" for o in optional))  # fmt: skip
    return value


def strict_base64(text: Any, name: str) -> bytes:
    """Decode base64, standard or URL-safe as DSSE demands, in its one canonical spelling. Raises `DocumentError`."""
    if isinstance(text, str) and text.isascii():
        for alphabet in (b"+/", b"-_"):
            try:
                raw = base64.b64decode(text, altchars=alphabet, validate=True)
            except (binascii.Error, ValueError):
                continue
            if base64.b64encode(raw, altchars=alphabet).decode() == text:
                return raw
    raise DocumentError("A field is not base64 in its canonical spelling.", where=name, found=ascii(text)[:80])


def sign(payload: bytes, key: PrivateKey, before: Envelope | None = None) -> Envelope:
    """Return an envelope with the key's signature added to those that stand there before.

    ``before`` must hold the same payload; a key that signed already adds nothing.
    """
    if before is not None and (before.payload, before.payload_type) != (payload, PAYLOAD_TYPE):
        raise DocumentError("The envelope holds another statement.", todo="begin a new envelope")
    signatures = () if before is None else before.signatures
    made = Signature(key.sign(pae(PAYLOAD_TYPE, payload)), key.public.fingerprint)
    if any(s.sig == made.sig for s in signatures):
        return Envelope(PAYLOAD_TYPE, payload, signatures)
    return Envelope(PAYLOAD_TYPE, payload, (*signatures, made))


@dataclass(frozen=True, slots=True)
class Checked:
    """What pinned keys say of an envelope: the distinct keys that signed it, faults of form, and signatures by nobody known."""

    signers: frozenset[PublicKey]
    faults: tuple[str, ...]
    strangers: tuple[str, ...]


def check_signatures(envelope: Envelope, keys: Iterable[PublicKey]) -> Checked:
    """Check every signature under every pinned key; equal keys are one, and so are several signatures by one key.

    Keys come from the caller alone. A signature that is malformed, or that claims a pinned key by its keyid and does not
    hold under it, is a fault. A sound signature under none of the keys is a stranger's: no evidence for or against.
    """
    message, pinned = pae(envelope.payload_type, envelope.payload), tuple(dict.fromkeys(keys))
    signers, faults, strangers = set(), [], []
    for number, signature in enumerate(envelope.signatures, start=1):
        form = signature_fault(signature.sig)
        made = [] if form else [key for key in pinned if key.verifies(signature.sig, message)]
        claimed = signature.keyid in ("", *(key.fingerprint for key in made))
        if form is not None:
            faults.append(f"signature {number}: {form}")
        elif made and not claimed:
            faults.append(f"signature {number}: its keyid is not the fingerprint of the key that made it")
        elif made:
            signers.update(made)
        elif signature.keyid in {key.fingerprint for key in pinned}:
            faults.append(f"signature {number}: it names the pinned key {signature.keyid} and does not hold under it")
        else:
            strangers.append(signature.keyid or "a key that is not named")
    return Checked(frozenset(signers), tuple(faults), tuple(strangers))
