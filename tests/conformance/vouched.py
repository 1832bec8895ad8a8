"""Signatures over real files, Sigstore bundles of an instance whose keys follow from names, and calls that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from conformance.capture import Call
from conformance.own import case
from signing.material import envelope, key
from signing.private_sigstore import IDENTITY, ISSUER, Instance, named_key
from verify import test_authenticity
from verify.forging import as_json, encoded, honest, study
from verify.test_authenticity import OFFLINE, REVIEW, by, payload, plain, reviewed, signed

from atlas_schema.signing.envelope import PAYLOAD_TYPE, Signature
from atlas_schema.signing.keys import PublicKey, public_pem
from atlas_schema.signing.sigstore_bundle import SigstoreTrust
from atlas_schema.signing.statement import statement_bytes
from atlas_schema.verify.authenticity import Signed
from atlas_schema.verify.outcome import Code, Report
from atlas_schema.verify.verifier import Options, statement_over

PAIR = Options(profile="offline", keys=(key(1).public, key(2).public), threshold=2)


def verify(*args: Any) -> Report:
    """What `test_authenticity` calls: the recorder, while a case is captured."""
    report: Report = vars(test_authenticity)["verify"](*args)
    return report


# --- believed ------------------------------------------------------------------------------------------------------


@case("Signed by the key that the reviewer pinned.")
def signed_genuinely() -> Report:
    return reviewed(by(1), REVIEW)


@case("Signed, and profile release asks for just that.")
def signed_for_release() -> Report:
    return reviewed(by(1), Options(profile="release", keys=(key(1).public,)))


@case("A receipt of a rewritten arm is no less rewritten for being signed.", Code.NOT_PRESERVED)
def signed_rewrite() -> Report:
    receipt = honest("rewritten")
    made = statement_over(plain(receipt))
    if made is None:
        raise ValueError("nothing to sign")
    return verify(signed(envelope(1, payload=statement_bytes(made)), receipt), REVIEW)


@case("Two signatures are asked for, and two people signed.")
def signed_threshold_inside() -> Report:
    return reviewed(by(1, 2), PAIR)


@case("Two signatures are asked for, and one person signed.", Code.UNPROVEN, "K001")
def signed_threshold_outside() -> Report:
    return reviewed(by(1), PAIR)


@case("A signature without the hint of whose it is.")
def signed_without_keyid() -> Report:
    made = by(1)
    return reviewed(replace(made, signatures=(Signature(made.signatures[0].sig),)))


@case("An envelope in the alphabet of base64 that is safe in addresses.")
def signed_in_url_safe_base64() -> Report:
    made = by(*range(1, 8)).as_json()
    for signature in made["signatures"]:
        signature["sig"] = signature["sig"].replace("+", "-").replace("/", "_")
    made["payload"] = made["payload"].replace("+", "-").replace("/", "_")
    return reviewed(made, Options(profile="offline", keys=tuple(key(n).public for n in range(1, 8)), threshold=7))


@case("An envelope beside the receipt that is none, and nobody asked for a signature.")
def signature_not_asked_for() -> Report:
    return verify(signed(b"\xff not an envelope"), Options())


@case("A contract by itself cannot be signed for.", Code.UNPROVEN)
def signed_contract() -> Report:
    return verify(replace(signed(by(1)), raw=encoded(as_json(study().contract))), OFFLINE)


# --- files of the evidence -----------------------------------------------------------------------------------------


@case("A signed file was written anew with the same rows.", Code.TAMPERED, "B010")
def signed_file_rewritten(folder: Path) -> Report:
    path = folder / "evidence" / "task.parquet"
    pq.write_table(pq.read_table(path), path, compression="gzip")
    return reviewed(by(1), REVIEW)


@case("Something was appended to a signed file.", Code.INADMISSIBLE, "B010 A002")
def signed_file_longer(folder: Path) -> Report:
    with (folder / "evidence" / "task.parquet").open("ab") as stream:
        stream.write(b"trust me")
    return reviewed(by(1), REVIEW)


@case("A signed file is missing.", Code.TAMPERED, "B010 B001")
def signed_file_missing(folder: Path) -> Report:
    (folder / "evidence" / "task.parquet").unlink()
    return reviewed(by(1), REVIEW)


@case("A file lies among those that were signed.", Code.TAMPERED, "B010 B001")
def signed_file_added(folder: Path) -> Report:
    (folder / "evidence" / "notes.txt").write_text("trust me")
    return reviewed(by(1), REVIEW)


@case("A signed file was renamed.", Code.TAMPERED, "B010 B001")
def signed_file_renamed(folder: Path) -> Report:
    (folder / "evidence" / "task.parquet").rename(folder / "evidence" / "tusk.parquet")
    return reviewed(by(1), REVIEW)


@case("Everything is signed, and the evidence is not there to be compared.", Code.UNPROVEN, "B001")
def signed_evidence_absent() -> Report:
    return reviewed(by(1), REVIEW, open_evidence=None)


# --- Sigstore ------------------------------------------------------------------------------------------------------


@cache
def instance() -> Instance:
    return Instance(*(named_key(f"conformance {party}") for party in ("authority", "certificate log", "log")))


@cache
def _scratch() -> TemporaryDirectory[str]:
    """A folder that lasts as long as the process: what is recorded is read after the case was made."""
    return TemporaryDirectory()


def bundled(change: Callable[[Any], Any] = lambda b: b, who: str = IDENTITY, content: bytes | None = None, kind: str = PAYLOAD_TYPE,
            trusted: Instance | None = None) -> Report:  # fmt: skip
    made = instance().bundle(content or payload(), kind=kind, signer=named_key("conformance signer"))
    raw = json.dumps(change(made)).encode()
    root = Path(_scratch().name) / "trusted_root.json"
    root.write_bytes((trusted or instance()).trusted_root())
    submission = replace(plain(), bundle=Signed("receipt.sigstore.json", raw))
    return verify(submission, Options(profile="offline", sigstore=SigstoreTrust(root, who, ISSUER)))


@case("A Sigstore bundle by the identity that the reviewer named.")
def sigstore_genuine() -> Report:
    return bundled()


@case("A Sigstore bundle by another identity than the reviewer named.", Code.TAMPERED, "K007")
def sigstore_other_identity() -> Report:
    return bundled(who="somebody.else@example.org")


@case("A Sigstore bundle under a root that the reviewer does not trust.", Code.TAMPERED, "K007")
def sigstore_other_root() -> Report:
    return bundled(trusted=Instance(*(named_key(f"another {n}") for n in range(3))))


@case("A Sigstore bundle whose signature was exchanged.", Code.TAMPERED, "K007")
def sigstore_other_signature() -> Report:
    def exchange(bundle: Any) -> Any:
        again = instance().bundle(b"something else", signer=named_key("conformance signer"))
        bundle["dsseEnvelope"]["signatures"] = again["dsseEnvelope"]["signatures"]
        return bundle

    return bundled(exchange)


@case("A genuine Sigstore bundle about another receipt.", Code.TAMPERED, "K006")
def sigstore_of_another_receipt() -> Report:
    made = statement_over(plain(honest("close")))
    if made is None:
        raise ValueError("nothing to sign")
    return bundled(content=statement_bytes(made))


@case("A genuine Sigstore bundle over something that is no statement.", Code.TAMPERED, "K004")
def sigstore_of_something_else() -> Report:
    return bundled(kind="text/plain")


# --- calls that are refused ----------------------------------------------------------------------------------------


@case("More signatures are asked for than there are distinct keys.", Code.USAGE, needs="signatures")
def usage_threshold_beyond_keys(folder: Path) -> Call:
    for name in ("signer-1.pub", "signer-2.pub"):
        (folder / name).write_bytes(public_pem(key(1).public))
    return Call(
        (
            "receipt.json",
            "--contract",
            "contract.json",
            "--key",
            "signer-1.pub",
            "--key",
            "signer-2.pub",
            "--threshold",
            "2",
        )
    )


@case(
    "A key of small order, under which one signature is good for every message, is pinned.",
    Code.USAGE,
    needs="signatures",
)
def usage_weak_key(folder: Path) -> Call:
    (folder / "signer-1.pub").write_bytes(public_pem(PublicKey(b"\1" + bytes(31))))
    return Call(("receipt.json", "--contract", "contract.json", "--key", "signer-1.pub"))


@case("An identity is asked for without a bundle.", Code.USAGE, needs="sigstore")
def usage_identity_without_bundle(folder: Path) -> Call:
    (folder / "trusted_root.json").write_bytes(instance().trusted_root())
    return Call(("receipt.json", "--contract", "contract.json", "--trusted-root", "trusted_root.json", "--identity", IDENTITY,
                 "--issuer", ISSUER))  # fmt: skip


@case("The receipt that is named is not there.", Code.USAGE)
def usage_no_receipt() -> Call:
    return Call(("absent.json", "--contract", "contract.json"))


@case("The evidence that is named is not there.", Code.USAGE)
def usage_no_evidence() -> Call:
    return Call(("receipt.json", "--contract", "contract.json", "--evidence", "absent"))


@case("The profile that is asked for does not exist.", Code.USAGE)
def usage_unknown_profile() -> Call:
    return Call(("receipt.json", "--contract", "contract.json", "--profile", "generous"))


@case("The verdict that is required is one that nobody can require.", Code.USAGE)
def usage_undetermined_required() -> Call:
    return Call(("receipt.json", "--contract", "contract.json", "--require", "undetermined"))


@case("The pin is no digest.", Code.USAGE)
def usage_pin_is_no_digest() -> Call:
    return Call(("receipt.json", "--contract", "contract.json", "--pin", "sha256:abc"))


@case("The pre-registration beside the receipt is a link: its author chose where it points.", Code.USAGE)
def usage_link_beside_the_receipt(folder: Path) -> Call:
    (folder / "preregistration.json").rename(folder / "elsewhere.json")
    (folder / "preregistration.json").symlink_to("elsewhere.json")
    return Call(("receipt.json", "--contract", "contract.json"))
