"""Sigstore bundles, offline: a genuine one of the public instance, and every link of a private instance broken in turn."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sigstore
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from signing.private_sigstore import IDENTITY, ISSUER, Instance, new_key
from sigstore import models
from verify.forging import honest, study, submission

from atlas_schema.errors import DocumentError, UsageError
from atlas_schema.files import document_text
from atlas_schema.signing.sigstore_bundle import SigstoreTrust, verify_bundle
from atlas_schema.signing.statement import File, statement_bytes
from atlas_schema.verify.authenticity import Signed
from atlas_schema.verify.outcome import Channel, Code, Report, Status, exit_code
from atlas_schema.verify.verifier import Options, Submission, statement_over, verify

PUBLIC = json.loads((Path(__file__).parent / "data" / "sigstore_public.json").read_text(encoding="utf-8"))
PUBLIC_ROOT = next((Path(sigstore.__file__).parent / "_store").glob("*sigstore.dev/trusted_root.json"))
"""The public instance's trusted root, as the installed package carries it; a reviewer brings their own copy."""


@cache
def instance() -> Instance:
    return Instance()


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> SigstoreTrust:
    path = tmp_path_factory.mktemp("root") / "trusted_root.json"
    path.write_bytes(instance().trusted_root())
    return SigstoreTrust(path, IDENTITY, ISSUER)


def raw(bundle: Any) -> bytes:
    return json.dumps(bundle).encode()


# --- a bundle of the public instance -------------------------------------------------------------------------------


def test_a_genuine_bundle_of_the_public_instance_verifies() -> None:
    kind, payload = verify_bundle(
        raw(PUBLIC["bundle"]), SigstoreTrust(PUBLIC_ROOT, PUBLIC["identity"], PUBLIC["issuer"])
    )
    assert kind == "application/vnd.in-toto+json"
    assert json.loads(payload)["subject"][0]["name"] == "pypi_attestations-0.0.19.tar.gz"


def test_it_verifies_for_no_other_identity_issuer_or_root(trust: SigstoreTrust) -> None:
    genuine = SigstoreTrust(PUBLIC_ROOT, PUBLIC["identity"], PUBLIC["issuer"])
    for other in (
        replace(genuine, identity=PUBLIC["identity"] + "0"), replace(genuine, issuer=PUBLIC["issuer"] + "/"),
        replace(genuine, trusted_root=trust.trusted_root),
    ):  # fmt: skip
        with pytest.raises(DocumentError, match="does not verify"):
            verify_bundle(raw(PUBLIC["bundle"]), other)


# --- receipts ------------------------------------------------------------------------------------------------------

FILES = (File("task.parquet", 3, "ab" * 32),)


@cache
def payload() -> bytes:
    made = statement_over(submission(study(), honest(), manifest=lambda: FILES))
    assert made is not None
    return statement_bytes(made)


def with_bundle(bundle: Any) -> Submission:
    content = bundle if isinstance(bundle, bytes) else raw(bundle)
    return submission(study(), honest(), manifest=lambda: FILES, bundle=Signed("receipt.sigstore.json", content))


def reviewed(bundle: Any, trust: SigstoreTrust, profile: str = "offline") -> Report:
    return verify(with_bundle(bundle), Options(profile=profile, sigstore=trust))


def rules(report: Report) -> set[str]:
    return {p.rule for result in report.channels.values() for p in result.problems}


def test_a_receipt_with_a_bundle_passes(trust: SigstoreTrust) -> None:
    report = reviewed(instance().bundle(payload()), trust, "release")
    assert (rules(report), exit_code(report)) == (set(), Code.VERIFIED)
    assert report.facts["signed by"] == f"{IDENTITY} ({ISSUER})"
    result = report.channels[Channel.AUTHENTICITY]
    assert (result.checked, result.total) == (7, 7)


@pytest.mark.parametrize("party", ["authority", "certificate_log", "log"])
def test_the_word_of_an_unknown_party_is_refused(trust: SigstoreTrust, party: str) -> None:
    report = reviewed(replace(instance(), **{party: new_key()}).bundle(payload()), trust)
    assert (rules(report), exit_code(report)) == ({"ATL-K007"}, Code.TAMPERED)


@pytest.mark.parametrize("other", [{"identity": "attacker@example.org"}, {"issuer": "https://attacker.example.org"}])
def test_another_signer_is_refused(trust: SigstoreTrust, other: dict[str, Any]) -> None:
    report = reviewed(instance().bundle(payload(), **other), trust)
    assert (rules(report), exit_code(report)) == ({"ATL-K007"}, Code.TAMPERED)


def test_a_statement_of_another_kind_or_about_another_receipt_is_refused(trust: SigstoreTrust) -> None:
    made = statement_over(submission(study(), honest("close"), manifest=lambda: FILES))
    assert made is not None
    assert rules(reviewed(instance().bundle(statement_bytes(made)), trust)) == {"ATL-K006"}
    assert rules(reviewed(instance().bundle(b"{}"), trust)) == {"ATL-K005"}
    assert rules(reviewed(instance().bundle(payload(), kind="text/plain"), trust)) == {"ATL-K004"}
    public = SigstoreTrust(PUBLIC_ROOT, PUBLIC["identity"], PUBLIC["issuer"])
    assert rules(reviewed(PUBLIC["bundle"], public)) == {"ATL-K005"}


def test_a_bundle_with_a_key_twice_is_refused(trust: SigstoreTrust) -> None:
    content = raw(instance().bundle(payload())).replace(b'"mediaType"', b'"mediaType": "x", "mediaType"', 1)
    assert rules(reviewed(content, trust)) == {"ATL-K007"}


# --- nothing that matters in a bundle can be changed ---------------------------------------------------------------


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for name in value:
            yield from leaves(value[name], (*path, name))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from leaves(value[index], (*path, index))
    else:
        yield path


def altered(value: Any, path: tuple[str | int, ...], change: Any) -> Any:
    made = copy.deepcopy(value)
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = change(inner[path[-1]])
    return made


@cache
def bundle() -> Any:
    return instance().bundle(payload())


def other_value(text: str) -> str:
    if text.isdigit():
        return str(int(text) + 1)
    try:
        decoded = bytearray(base64.b64decode(text, validate=True))
    except ValueError:
        return text.replace("1", "2", 1) if "1" in text else text + "x"
    decoded[len(decoded) // 2] ^= 1
    return base64.b64encode(bytes(decoded)).decode()


@pytest.mark.parametrize("path", list(leaves(bundle())), ids=lambda path: "/".join(map(str, path)))
def test_every_leaf_of_a_bundle_is_load_bearing(trust: SigstoreTrust, path: tuple[str | int, ...]) -> None:
    report = reviewed(altered(bundle(), path, other_value), trust)
    assert report.status(Channel.AUTHENTICITY) is Status.FAILED
    assert rules(report) == {"ATL-K007"}


@given(data=st.data())
def test_no_shape_of_a_bundle_is_a_fault_of_the_verifier(data: st.DataObject, trust: SigstoreTrust) -> None:
    path = data.draw(st.sampled_from(list(leaves(bundle()))))
    path = path[: data.draw(st.integers(1, len(path)))]
    values: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers(-(2**53), 2**53 - 1) | st.text() | st.just([]) | st.just({})
    )
    junk = data.draw(values | st.binary(max_size=200).map(lambda b: base64.b64encode(b).decode()))
    report = reviewed(altered(bundle(), path, lambda _: junk), trust)
    assert report.status(Channel.AUTHENTICITY) is Status.FAILED


CERTIFICATE = ("verificationMaterial", "certificate", "rawBytes")


@pytest.mark.parametrize("version", [1, 3, 7, 34, 127])
def test_a_certificate_of_no_known_version_is_refused(trust: SigstoreTrust, version: int) -> None:
    """Found by fuzzing: the library raises an exception of its own, which is no kind of `ValueError`."""
    der = bytearray(base64.b64decode(bundle()["verificationMaterial"]["certificate"]["rawBytes"]))
    at = der.index(b"\xa0\x03\x02\x01\x02") + 4  # [0] INTEGER 2: version 3
    der[at] = version
    report = reviewed(altered(bundle(), CERTIFICATE, lambda _: base64.b64encode(bytes(der)).decode()), trust)
    assert (rules(report), exit_code(report)) == ({"ATL-K007"}, Code.TAMPERED)


def test_what_a_certificate_is_warned_of_is_not_told(trust: SigstoreTrust, recwarn: pytest.WarningsRecorder) -> None:
    """A serial number of zero: the library warns of it, naming a path of this machine, before the chain is refused."""
    der = base64.b64decode(bundle()["verificationMaterial"]["certificate"]["rawBytes"])
    zero = der.replace(b"\x02\x01\x63", b"\x02\x01\x00", 1)
    assert zero != der
    report = reviewed(altered(bundle(), CERTIFICATE, lambda _: base64.b64encode(zero).decode()), trust)
    assert rules(report) == {"ATL-K007"}
    assert recwarn.list == []


@pytest.mark.parametrize(
    "error", [e for e in vars(x509).values() if isinstance(e, type) and issubclass(e, Exception) and not issubclass(e, Warning)],
    ids=lambda e: e.__name__,
)  # fmt: skip
def test_whatever_reading_a_certificate_raises_is_a_refusal(
    trust: SigstoreTrust, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error.__new__(error)

    monkeypatch.setattr(models, "load_der_x509_certificate", fails)
    assert rules(reviewed(bundle(), trust)) == {"ATL-K007"}


# --- usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"mediaType": "x"}', raw(PUBLIC["bundle"])])
def test_a_trusted_root_that_is_none_is_a_matter_of_the_call(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "root.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="trusted root cannot be used"):
        verify_bundle(raw(bundle()), SigstoreTrust(path, IDENTITY, ISSUER))


CONNECTED = """
import json, sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(("socket.", "subprocess.", "os.exec", "os.fork")) else None)
from atlas_schema.cli import verify
try:
    verify.main()
except SystemExit as ended:
    print()
    print(json.dumps({"code": ended.code, "seen": sorted(set(seen))}))
"""


def test_checking_a_bundle_connects_to_nothing(tmp_path: Path, trust: SigstoreTrust) -> None:
    """What cannot be held: on import, a library under `sigstore` binds a local socket to learn whether IPv6 is there."""
    folder = study().write(tmp_path / "study")
    receipt = folder / "receipt.json"
    receipt.write_text(document_text(honest()), encoding="utf-8")
    from atlas_schema.verify.loading import load

    made = statement_over(load(receipt, contract=str(folder / "contract.json")))
    assert made is not None
    (folder / "b.json").write_bytes(raw(instance().bundle(statement_bytes(made))))
    call = [receipt, "--contract", folder / "contract.json", "--sigstore-bundle", folder / "b.json",
            "--trusted-root", trust.trusted_root, "--identity", IDENTITY, "--issuer", ISSUER, "--profile", "release"]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", CONNECTED, *map(str, call)], capture_output=True, text=True, timeout=120,
                          check=False)  # fmt: skip
    assert done.stderr == ""
    ended = json.loads(done.stdout.splitlines()[-1])
    assert ended["code"] == 0
    assert set(ended["seen"]) <= {"socket.__new__", "socket.bind"}
    assert "signed by" in done.stdout
