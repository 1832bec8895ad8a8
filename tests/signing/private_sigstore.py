"""A Sigstore instance of one's own, offline: certificate authority, certificate log, transparency log, and a signer.

It plays every party whose word a bundle carries. Keys are made for one run, or follow from names where the bytes must be the same
every time; signatures are deterministic (RFC 6979). Each method that makes a part can be given a wrong key, so that a test can
break one link and leave the others sound.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from atlas_schema.canonical import canonical_json
from atlas_schema.signing.envelope import PAYLOAD_TYPE, pae

ISSUER = "https://accounts.example.org"
IDENTITY = "technician@example.org"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey
Json = dict[str, Any]


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def named_key(name: str) -> Key:
    """Return the key that follows from a name. Whoever knows the name has it."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 1 | 1, ec.SECP256R1())


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def signature(key: Key, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


@dataclass
class Instance:
    """The parties' keys, and the root certificate."""

    authority: Key = field(default_factory=new_key)
    certificate_log: Key = field(default_factory=new_key)
    log: Key = field(default_factory=new_key)

    @property
    def root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example root")])
        key_id = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name).issuer_name(name).public_key(self.authority.public_key()).serial_number(7)
            .not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(key_id, critical=False)
            .sign(self.authority, hashes.SHA256(), ecdsa_deterministic=True)
        )  # fmt: skip

    def trusted_root(self) -> bytes:
        """Return what a reviewer would be given to trust this instance."""
        since = {"start": (NOW - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}

        def log(key: Key, url: str) -> Json:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            key_id = {"keyId": b64(hashlib.sha256(spki(key)).digest())}
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": key_id}

        authority = {
            "subject": {"organization": "example", "commonName": "example root"}, "uri": "https://ca.example.org",
            "certChain": {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]}, "validFor": since,
        }  # fmt: skip
        return json.dumps({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log, "https://log.example.org")], "certificateAuthorities": [authority],
            "ctlogs": [log(self.certificate_log, "https://ct.example.org")], "timestampAuthorities": [],
        }).encode()  # fmt: skip

    def certificate(self, signer: Key, identity: str, issuer: str) -> x509.Certificate:
        """Return a short-lived certificate with the certificate log's timestamp inside."""

        def builder() -> x509.CertificateBuilder:
            made = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([])).issuer_name(self.root.subject).public_key(signer.public_key()).serial_number(99)
                .not_valid_before(NOW - timedelta(minutes=5)).not_valid_after(NOW + timedelta(minutes=5))
                .add_extension(_usage(sign_certificates=False), critical=True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
                .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
            )  # fmt: skip
            key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
            made = made.add_extension(key_id, critical=False)
            stated = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), issuer.encode())
            return made.add_extension(stated, critical=False)

        # A timestamp covers the certificate without the timestamp: the same fields, signed once before.
        body = builder().sign(self.authority, hashes.SHA256(), ecdsa_deterministic=True).tbs_certificate_bytes
        issuer_key = hashlib.sha256(spki(self.authority)).digest()
        millis = int(NOW.timestamp() * 1000)
        entry = issuer_key + len(body).to_bytes(3, "big") + body
        signed = signature(self.certificate_log, struct.pack("!BBQH", 0, 0, millis, 1) + entry + b"\0\0")
        log_id = hashlib.sha256(spki(self.certificate_log)).digest()
        timestamp = b"\0" + log_id + struct.pack("!QH", millis, 0) + b"\4\3" + struct.pack("!H", len(signed)) + signed
        listed = struct.pack("!H", len(timestamp)) + timestamp
        octets = struct.pack("!H", len(listed)) + listed
        raw = bytes([4, len(octets)]) if len(octets) < 128 else bytes([4, 0x81, len(octets)])
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), raw + octets)
        return (
            builder()
            .add_extension(extension, critical=False)
            .sign(self.authority, hashes.SHA256(), ecdsa_deterministic=True)
        )

    def bundle(
        self,
        payload: bytes,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        kind: str = PAYLOAD_TYPE,
        signer: Key | None = None,
    ) -> Json:
        """Return a bundle over a payload: signed, logged as the second of two entries, and promised."""
        signer = signer or new_key()
        certificate = self.certificate(signer, identity, issuer)
        sig = signature(signer, pae(kind, payload))
        pem = certificate.public_bytes(Encoding.PEM)
        body = canonical_json({
            "apiVersion": "0.0.1", "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                "signatures": [{"signature": b64(sig), "verifier": b64(pem)}],
            },
        })  # fmt: skip
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))}, "tlogEntries": [self.entry(body)],
            },
            "dsseEnvelope": {"payload": b64(payload), "payloadType": kind, "signatures": [{"sig": b64(sig)}]},
        }  # fmt: skip

    def entry(self, body: bytes) -> Json:
        """Return a log entry with inclusion proof, checkpoint and promise."""
        other = hashlib.sha256(b"\0another entry").digest()
        top = hashlib.sha256(b"\1" + other + hashlib.sha256(b"\0" + body).digest()).digest()
        log_id, time = hashlib.sha256(spki(self.log)).digest(), int(NOW.timestamp())
        note = f"log.example.org - 1\n2\n{b64(top)}\n"
        checkpoint = f"{note}\n\u2014 log.example.org {b64(log_id[:4] + signature(self.log, note.encode()))}\n"
        promise = canonical_json({"body": b64(body), "integratedTime": time, "logID": log_id.hex(), "logIndex": 1})
        return {
            "logIndex": "1", "logId": {"keyId": b64(log_id)}, "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(time), "inclusionPromise": {"signedEntryTimestamp": b64(signature(self.log, promise))},
            "inclusionProof": {
                "logIndex": "1", "rootHash": b64(top), "treeSize": "2", "hashes": [b64(other)],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": b64(body),
        }  # fmt: skip


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign_certificates, crl_sign=sign_certificates, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
