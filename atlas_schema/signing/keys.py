"""Ed25519 keys in files: public keys that a reviewer pins, private keys that a signer keeps.

Public keys are read here, byte by byte, so that one key has exactly one form; `cryptography` is imported when a signature is
made or checked, and only then.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_schema.canonical import digest_bytes
from atlas_schema.errors import UsageError
from atlas_schema.limits import LIMITS
from atlas_schema.signing.curve import key_fault, signature_fault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes in a SubjectPublicKeyInfo (RFC 8410): it has no other form."""
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")
_SSH_HEAD = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
_FORMS = "one PEM block 'PUBLIC KEY', or one OpenSSH line 'ssh-ed25519 ...'"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A sound public key. Equal keys are one key, whatever files they came from."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """``sha256:`` and the SHA-256 of the 32 bytes."""
        return digest_bytes(self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether the signature is canonical and holds. Raises `UsageError` where `cryptography` is not installed."""
        if signature_fault(signature) is not None:
            return False
        require_cryptography()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key that can sign; ``public`` is its other half."""

    _key: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature; deterministic."""
        return self._key.sign(message)

    def pem(self, passphrase: bytes | None) -> bytes:
        """Return the key as PKCS#8 in PEM, encrypted where a passphrase is given."""
        from cryptography.hazmat.primitives import serialization as s

        how = s.BestAvailableEncryption(passphrase) if passphrase else s.NoEncryption()
        return self._key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, how)


def public_pem(key: PublicKey) -> bytes:
    """Return a public key as SubjectPublicKeyInfo in PEM."""
    body = base64.b64encode(SPKI + key.raw)
    return b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n"


def read_public(data: bytes, where: str) -> PublicKey:
    """Read a public key. Raises `UsageError` for other files, other kinds of key, and keys that anyone could sign for."""
    if len(data) > LIMITS.key_bytes:
        raise _not_a_key(where, f"{len(data)} bytes")
    if b"PRIVATE KEY-----" in data:
        raise UsageError("This is a private key. Nobody but its owner should have it.", where=where, expected=_FORMS,
                         todo="give the public key, which keygen wrote beside it as KEYFILE.pub")  # fmt: skip
    raw = _from_ssh(data, where) if data.startswith(b"ssh-") else _from_pem(data, where)
    fault = key_fault(raw)
    if fault is not None:
        raise UsageError("This public key is refused.", where=where, found=fault,
                         todo="ask its owner for a key made by 'atlas keygen' or 'ssh-keygen -t ed25519'")  # fmt: skip
    return PublicKey(raw)


def _from_pem(data: bytes, where: str) -> bytes:
    match = _PEM.fullmatch(data.strip())
    if match is None:
        raise _not_a_key(where, "neither")
    der = _decoded(b"".join(match.group(1).split()), where)
    if len(der) != len(SPKI) + 32 or not der.startswith(SPKI):
        raise _not_a_key(where, "a key of another kind, or another encoding")
    return der[len(SPKI) :]


def _from_ssh(data: bytes, where: str) -> bytes:
    lines = [line for line in data.splitlines() if line.strip()]
    words = lines[0].split() if len(lines) == 1 else []
    if len(words) < 2 or words[0] != b"ssh-ed25519":
        raise _not_a_key(where, "several lines, or a key of another kind")
    blob = _decoded(words[1], where)
    if len(blob) != len(_SSH_HEAD) + 32 or not blob.startswith(_SSH_HEAD):
        raise _not_a_key(where, "a key of another kind, or another encoding")
    return blob[len(_SSH_HEAD) :]


def _decoded(text: bytes, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _not_a_key(where, str(error)) from error


def _not_a_key(where: str, found: str) -> UsageError:
    return UsageError("This is not an Ed25519 public key.", where=where, expected=_FORMS, found=found,
                      todo="'atlas keygen KEYFILE' writes such a key as KEYFILE.pub")  # fmt: skip


def require_cryptography() -> None:
    """Raise `UsageError` that names the extra where `cryptography` is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise UsageError("Signatures need the package 'cryptography', which is not installed.",
                         todo="pip install 'atlas-schema[sign]'") from error  # fmt: skip


def generate() -> PrivateKey:
    """Make a new private key from the operating system's randomness."""
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return PrivateKey(Ed25519PrivateKey.generate())


def is_encrypted(data: bytes) -> bool:
    """Return whether a private key's file asks for a passphrase."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data


def read_private(data: bytes, where: str, passphrase: bytes | None = None) -> PrivateKey:
    """Read an Ed25519 private key, PKCS#8 in PEM. Raises `UsageError` for anything else and for a wrong passphrase."""
    require_cryptography()
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if len(data) > LIMITS.key_bytes or not data.lstrip().startswith(b"-----BEGIN"):
        raise _not_private(where, "another kind of file")
    try:
        key = load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:  # the last where OpenSSL says no
        if is_encrypted(data):
            raise UsageError("The passphrase does not open this key.", where=where,
                             todo="try again; without the passphrase the key is lost") from error  # fmt: skip
        raise _not_private(where, "a public key, a damaged file, or another form of private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_private(where, f"a key of another kind, {type(key).__name__.lstrip('_')}")
    return PrivateKey(key)


def _not_private(where: str, found: str) -> UsageError:
    return UsageError("This is not an Ed25519 private key.", where=where, found=found, expected="PKCS#8 in PEM",
                      todo="'atlas keygen KEYFILE' makes one")  # fmt: skip
