"""Targets for what says who vouches: envelopes, statements, key files, Sigstore bundles and trusted roots."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from fuzz.spoil import decoded, document, stretch
from signing.material import envelope as made_envelope
from signing.material import key, statement, written
from signing.private_sigstore import IDENTITY, ISSUER, Instance, named_key

from atlas_schema.errors import DocumentError, UsageError
from atlas_schema.signing.envelope import PAYLOAD_TYPE, check_signatures, envelope_of
from atlas_schema.signing.keys import public_pem, read_private, read_public
from atlas_schema.signing.sigstore_bundle import SigstoreTrust, verify_bundle
from atlas_schema.signing.statement import ROLES, statement_bytes, statement_of
from atlas_schema.verify.authenticity import Signed, check_sigstore
from atlas_schema.verify.outcome import Channel, ChannelResult, Status
from atlas_schema.verify.reading import read_json


def envelope(data: bytes) -> None:
    """A signature file of any bytes, and a sound one with bytes changed: only the pinned key's own signature counts."""
    for raw in (data, document(sound_envelope(), data), decoded(sound_envelope(), data)):
        with suppress(DocumentError):
            found = envelope_of(read_json(raw or b""))
            signers = check_signatures(found, [key(1).public]).signers
            if signers and found.payload != made_envelope(1).payload:
                raise AssertionError("another payload is signed")


def signed_statement(data: bytes) -> None:
    """A statement of any bytes, and a sound one with bytes changed: what is read says what was written, and no more."""
    for raw in (data, document(sound_statement(), data)):
        with suppress(DocumentError):
            value = read_json(raw or b"")
            again = json.loads(statement_bytes(statement_of(value)))
            value["subject"].sort(key=lambda subject: ROLES.index(subject["name"]))
            if again != value:
                raise AssertionError(f"a statement is read as another: {raw!r}")


def public_key(data: bytes) -> None:
    """A key file of any bytes, and a sound one with bytes changed: what is read is written and read alike."""
    for raw in (data, stretch(public_pem(key(1).public), data), stretch(sound_public_key(), data)):
        with suppress(UsageError):
            found = read_public(raw or b"", "key")
            if read_public(public_pem(found), "key") != found:
                raise AssertionError("a key is read in two ways")


def private_key(data: bytes) -> None:
    """A signer's key file of any bytes, and a sound one with bytes changed: what is read makes signatures that hold."""
    for raw in (data, stretch(sound_private_key(), data)):
        with suppress(UsageError):
            found = read_private(raw or b"", "key")
            if not found.public.verifies(found.sign(b"x"), b"x"):
                raise AssertionError("a key does not sign")


def sigstore_bundle(data: bytes) -> None:
    """A Sigstore bundle of any bytes, and a sound one with bytes changed, those in base64 too: no payload but the signed one."""
    for raw in (data, document(sound_bundle(), data), decoded(sound_bundle(), data)):
        result = ChannelResult(Channel.AUTHENTICITY)
        files = check_sigstore(Signed("bundle", raw or b""), _trust(), statement().documents, result)
        if (files is not None) != (result.status is Status.PASSED):
            raise AssertionError("files are vouched for by what did not pass")
        if files is not None and files != statement().evidence:
            raise AssertionError(f"other files are vouched for: {raw!r}")


def trusted_root(data: bytes) -> None:
    """A trusted root of any bytes, and a sound one with bytes changed: unusable, or the bundle's payload or none."""
    path = _folder() / "changed_root.json"
    for raw in (
        data,
        document(_trust().trusted_root.read_bytes(), data),
        decoded(_trust().trusted_root.read_bytes(), data),
    ):
        path.write_bytes(raw or b"")
        with suppress(UsageError, DocumentError):
            if verify_bundle(sound_bundle(), SigstoreTrust(path, IDENTITY, ISSUER)) != (
                PAYLOAD_TYPE,
                sound_statement(),
            ):
                raise AssertionError("another payload is signed")


@cache
def _instance() -> Instance:
    return Instance(named_key("authority"), named_key("certificate log"), named_key("log"))


@cache
def sound_statement() -> bytes:
    """A statement as a signer's tool writes it."""
    return statement_bytes(statement())


@cache
def sound_envelope() -> bytes:
    """That statement, signed by the pinned key."""
    return written(made_envelope(1))


@cache
def sound_private_key() -> bytes:
    """The signer's key, without a passphrase."""
    return key(1).pem(None)


@cache
def sound_root() -> bytes:
    """What a reviewer would trust of the private instance."""
    return _instance().trusted_root()


@cache
def sound_bundle() -> bytes:
    """That statement, signed and logged by the private instance."""
    return json.dumps(_instance().bundle(sound_statement(), signer=named_key("signer"))).encode()


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp())


@cache
def _trust() -> SigstoreTrust:
    path = _folder() / "trusted_root.json"
    path.write_bytes(sound_root())
    return SigstoreTrust(path, IDENTITY, ISSUER)


@cache
def sound_public_key() -> bytes:
    """The signer's public key as one line of OpenSSH."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    made = Ed25519PublicKey.from_public_bytes(key(1).public.raw)
    return made.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" somebody\n"
