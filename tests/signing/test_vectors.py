"""Known answers: RFC 8032, Wycheproof, RFC 8785, DSSE. Each file under ``data/`` says where it comes from."""

from __future__ import annotations

import json
import math
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from atlas_schema.canonical import canonical_json
from atlas_schema.errors import DocumentError
from atlas_schema.signing.curve import KEY_BYTES, L, P, key_fault, signature_fault
from atlas_schema.signing.envelope import envelope_of, pae
from atlas_schema.signing.keys import PrivateKey, PublicKey

DATA = Path(__file__).parent / "data"


@cache
def data(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


# --- RFC 8032 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", data("rfc8032")["tests"], ids=lambda case: case[0])
def test_rfc_8032_is_signed_and_verified_as_printed(case: list[str]) -> None:
    secret, public, message, signature = (bytes.fromhex(part) for part in case[1:])
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(secret))
    assert key.public.raw == public
    assert key_fault(public) is None
    assert key.sign(message) == signature
    assert key.public.verifies(signature, message)
    assert not key.public.verifies(signature, message + b"\0")


# --- Wycheproof ---------------------------------------------------------------------------------------------------

WEAK = ("SmallOrderPublicKey", "MixedOrderPublicKey")


def wycheproof() -> list[tuple[int, str, str, bytes, bytes, bytes]]:
    return [
        (number, result, flags, *(bytes.fromhex(x) for x in (key, message, signature)))
        for number, result, flags, key, message, signature in data("wycheproof_ed25519")["tests"]
    ]


def test_wycheproof_gives_every_expected_answer() -> None:
    """Sound keys: valid verifies, invalid does not. Keys with a small-order part are refused, which Wycheproof leaves open."""
    seen = {"valid": 0, "invalid": 0, "weak": 0}
    for number, result, flags, key, message, signature in wycheproof():
        if any(flag in flags for flag in WEAK):
            assert key_fault(key) is not None, number
            seen["weak"] += 1
            continue
        assert key_fault(key) is None, number
        assert PublicKey(key).verifies(signature, message) == (result == "valid"), number
        seen[result] += 1
    assert seen == {"valid": 117, "invalid": 63, "weak": 30}


def test_malleated_signatures_are_refused_for_their_form() -> None:
    """The library refuses them too; the check here does not lean on that."""
    cases = [signature for _, _, flags, _, _, signature in wycheproof() if "SignatureMalleability" in flags]
    assert len(cases) >= 5
    assert [s.hex() for s in cases if len(s) == 64 and signature_fault(s) is None] == []


# --- keys that anyone could sign for -------------------------------------------------------------------------------

SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
"""The eight points of small order and their other encodings (Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs", 2020)."""


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_small_order_keys_are_refused_in_every_encoding(key: str) -> None:
    assert key_fault(bytes.fromhex(key)) is not None


def test_the_library_alone_would_take_a_key_that_signs_everything() -> None:
    """Why keys are checked here: under the neutral point one signature is good for every message."""
    neutral, forged = bytes.fromhex(SMALL_ORDER[0]), bytes.fromhex(SMALL_ORDER[0]) + bytes(32)
    for message in (b"preserved", b"rewritten"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(forged, message)  # raises nothing
    assert "small order" in str(key_fault(neutral))


def test_no_coordinate_has_two_encodings() -> None:
    for y in range(P, 2**255):
        for sign in (0, 1):
            raw = (y | sign << 255).to_bytes(32, "little")
            assert "second encoding" in str(key_fault(raw))


def test_what_is_no_point_or_no_key_is_refused() -> None:
    assert "not a point" in str(key_fault((2).to_bytes(32, "little")))
    assert str(KEY_BYTES) in str(key_fault(b"\1" * 31))


def test_a_scalar_has_one_encoding() -> None:
    sound = bytes.fromhex(data("rfc8032")["tests"][0][4])
    assert signature_fault(sound) is None
    scalar = int.from_bytes(sound[32:], "little")
    for multiple in range(1, 2**256 // L):
        if scalar + multiple * L < 2**256:
            assert signature_fault(sound[:32] + (scalar + multiple * L).to_bytes(32, "little")) is not None
    assert signature_fault(sound[:32] + (L - 1).to_bytes(32, "little")) is None
    assert signature_fault(sound[:32] + L.to_bytes(32, "little")) is not None
    for other in (P.to_bytes(32, "little"), (1 | 1 << 255).to_bytes(32, "little")):  # y = 0 and x = -0 once more
        assert "second encoding" in str(signature_fault(other + sound[32:]))
    assert signature_fault(sound[:-1]) is not None
    assert signature_fault(sound + b"\0") is not None


# --- RFC 8785 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", data("rfc8785")["documents"], ids=lambda case: case["name"])
def test_rfc_8785_documents(case: dict[str, str]) -> None:
    assert canonical_json(json.loads(case["input"])).hex() == case["output_hex"]


@pytest.mark.parametrize("case", data("rfc8785")["numbers"], ids=lambda case: case[0])
def test_rfc_8785_numbers(case: list[str]) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(case[0]))
    assert canonical_json([number]) == f"[{case[1]}]".encode()


@pytest.mark.parametrize("bits", data("rfc8785")["not_numbers"])
def test_rfc_8785_has_no_form_for_what_is_not_finite(bits: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert not math.isfinite(number)
    with pytest.raises(DocumentError):
        canonical_json([number])


# --- DSSE ---------------------------------------------------------------------------------------------------------


def test_dsse_signs_the_printed_bytes() -> None:
    """The vector's signature is ECDSA, which receipts do not use: it holds over the bytes that `pae` gives."""
    vector = data("dsse")
    envelope = envelope_of(vector["envelope"])
    assert (envelope.payload_type, envelope.payload) == (vector["payload_type"], vector["payload"].encode())
    message = pae(envelope.payload_type, envelope.payload)
    assert message == vector["pae"].encode()
    raw = envelope.signatures[0].sig
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    numbers = ec.EllipticCurvePublicNumbers(int(vector["key"]["x"]), int(vector["key"]["y"]), ec.SECP256R1())
    numbers.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))


def test_dsse_lengths_are_of_bytes() -> None:
    assert pae("\u00e9", b"\xff\xfe") == b"DSSEv1 2 \xc3\xa9 2 \xff\xfe"
    assert pae("", b"") == b"DSSEv1 0  0 "
