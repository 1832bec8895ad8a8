"""Files that hold keys: one key is one key in every form, and what is not a sound key is refused with a reason."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from signing.material import key

from atlas_schema.errors import UsageError
from atlas_schema.limits import LIMITS
from atlas_schema.signing.curve import key_fault
from atlas_schema.signing.keys import SPKI, PublicKey, generate, is_encrypted, public_pem, read_private, read_public

PUBLIC = key(1).public
LIBRARY = Ed25519PublicKey.from_public_bytes(PUBLIC.raw)


def pem(der: bytes, kind: bytes = b"PUBLIC KEY") -> bytes:
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (kind, base64.b64encode(der), kind)


# --- public keys --------------------------------------------------------------------------------------------------


def test_one_key_in_every_form_is_one_key() -> None:
    ours = public_pem(PUBLIC)
    theirs = LIBRARY.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    ssh = LIBRARY.public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH)
    assert ours == theirs
    forms = [ours, theirs.replace(b"\n", b"\r\n"), b"\n" + ours + b"\n\n", ssh, ssh + b" me@here\n"]
    assert {read_public(form, "k") for form in forms} == {PUBLIC}
    assert PUBLIC.fingerprint.startswith("sha256:")


@given(st.integers(0, 255))
def test_a_public_key_has_one_encoding(at: int) -> None:
    """A flipped bit of the body is another key, or none; it is never the same key again."""
    der = bytearray(SPKI + PUBLIC.raw)
    at %= 8 * len(der)
    der[at // 8] ^= 1 << at % 8
    try:
        other = read_public(pem(bytes(der)), "k")
    except UsageError:
        return
    assert other != PUBLIC
    assert key_fault(other.raw) is None


def test_unused_bits_are_no_second_encoding() -> None:
    """A form that other readers have taken: the bit string's count of unused bits is not zero."""
    with pytest.raises(UsageError, match="not an Ed25519 public key"):
        read_public(pem(SPKI[:-1] + b"\x01" + PUBLIC.raw), "k")


OTHERS: dict[str, Any] = {
    "rsa": rsa.generate_private_key(65537, 2048).public_key(), "p256": ec.generate_private_key(ec.SECP256R1()).public_key(),
    "ed448": ed448.Ed448PrivateKey.generate().public_key(),
}  # fmt: skip


def test_a_private_key_of_another_curve_and_this_ones_length_is_refused() -> None:
    """Found by fuzzing: one bit of the curve's name changed, and OpenSSL ends with an error that the library does not know."""
    lines = key(1).pem(None).splitlines()
    der = base64.b64decode(lines[1])
    assert der.count(b"\x2b\x65\x70") == 1
    for last in (0x6E, 0x6F, 0x71):  # X25519, which is read as such; X448 and Ed448, whose keys are longer
        content = pem(der.replace(b"\x2b\x65\x70", bytes([0x2B, 0x65, last])), b"PRIVATE KEY")
        with pytest.raises(UsageError, match="not an Ed25519 private key"):
            read_private(content, "k")


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_key_are_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="not an Ed25519 public key"):
        read_public(OTHERS[kind].public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo), "k")


@pytest.mark.parametrize(
    "content",
    [b"", b"ssh-ed25519", b"ssh-ed25519 AAAA", b"ssh-rsa AAAA", PUBLIC.raw, PUBLIC.raw.hex().encode(), b"\xff" * 40,
     public_pem(PUBLIC) * 2, pem(SPKI + PUBLIC.raw, b"CERTIFICATE"), pem(SPKI + PUBLIC.raw + b"\0"), pem(SPKI + PUBLIC.raw)[:-5],
     b"-----BEGIN PUBLIC KEY-----\n=\n-----END PUBLIC KEY-----\n", b"x" * (LIMITS.key_bytes + 1)],
)  # fmt: skip
def test_what_is_not_a_public_key_is_refused_with_what_to_do(content: bytes) -> None:
    with pytest.raises(UsageError, match="not an Ed25519 public key") as told:
        read_public(content, "the file")
    assert "the file" in str(told.value)
    assert "keygen" in str(told.value)


@pytest.mark.parametrize("form", ["pem", "ssh"])
def test_a_key_that_anyone_could_sign_for_is_refused_in_every_form(form: str) -> None:
    neutral = b"\1" + bytes(31)
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + neutral
    content = pem(SPKI + neutral) if form == "pem" else b"ssh-ed25519 " + base64.b64encode(blob)
    with pytest.raises(UsageError, match="refused") as told:
        read_public(content, "k")
    assert "anyone can sign" in str(told.value)


def test_a_private_key_in_a_public_keys_place_is_named() -> None:
    for passphrase in (None, b"open"):
        with pytest.raises(UsageError, match="private key") as told:
            read_public(key(1).pem(passphrase), "k")
        assert ".pub" in str(told.value)


# --- private keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", [None, b"open sesame"])
def test_private_keys_survive_their_file(passphrase: bytes | None) -> None:
    made = generate()
    content = made.pem(passphrase)
    assert is_encrypted(content) == (passphrase is not None)
    again = read_private(content, "k", passphrase)
    assert again.public == made.public
    assert again.public.verifies(again.sign(b"x"), b"x")


def test_a_wrong_passphrase_is_named() -> None:
    content = key(1).pem(b"right")
    for wrong in (b"wrong", b"", None):
        with pytest.raises(UsageError, match="passphrase does not open"):
            read_private(content, "k", wrong)


@pytest.mark.parametrize(
    "content",
    [b"", public_pem(PUBLIC), b"x" * (LIMITS.key_bytes + 1), key(1).pem(None)[:-30],
     ec.generate_private_key(ec.SECP256R1()).private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())],
    ids=["empty", "public", "long", "cut", "p256"],
)  # fmt: skip
def test_what_is_not_a_private_key_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match="not an Ed25519 private key"):
        read_private(content, "k")


def test_new_keys_differ_and_are_sound() -> None:
    made = {generate().public for _ in range(8)}
    assert len(made) == 8
    assert [k for k in made if key_fault(k.raw)] == []


@given(st.binary(max_size=80))
def test_arbitrary_signatures_never_hold_and_never_raise(signature: bytes) -> None:
    assert not PublicKey(PUBLIC.raw).verifies(signature, b"message")
