"""Channel authenticity: only what pinned keys signed passes, and every attack on a signature ends in its rule.

A study is signed by its technician, key 1. The attacker may rewrite receipt, documents, evidence and signature file at will,
and has keys of their own; what they lack is the technician's private key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from signing.material import envelope, key, sha, statement, written
from verify.forging import Json, as_json, encoded, honest, study, submission

from atlas_schema.canonical import canonical_json
from atlas_schema.errors import EvidenceError
from atlas_schema.evidence.bundle import ParquetBundle
from atlas_schema.signing.curve import L
from atlas_schema.signing.envelope import PAYLOAD_TYPE, Envelope, Signature, pae, sign
from atlas_schema.signing.keys import PublicKey
from atlas_schema.signing.statement import DOCUMENTS, File, manifest, statement_bytes, statement_of
from atlas_schema.verify.authenticity import Signed, check_keys
from atlas_schema.verify.outcome import Channel, ChannelResult, Code, Report, Status, exit_code
from atlas_schema.verify.verifier import Options, Submission, statement_over, verify

PINNED = (key(1).public,)
REVIEW = Options(keys=PINNED)
OFFLINE = Options(profile="offline", keys=PINNED)
FILES = (File("state.parquet", 10, sha("state")), File("task.parquet", 20, sha("task")))


def plain(receipt: Any = None, **changes: Any) -> Submission:
    """Return the study's submission, unsigned, with a made-up list of files."""
    return submission(study(), honest() if receipt is None else receipt, **{"manifest": lambda: FILES, **changes})


@cache
def payload() -> bytes:
    """The statement that the technician signs."""
    made = statement_over(plain())
    assert made is not None
    return statement_bytes(made)


def signed(made: Envelope | Json | bytes, receipt: Any = None, **changes: Any) -> Submission:
    raw = made if isinstance(made, bytes) else written(made)
    return replace(plain(receipt, **changes), signature=Signed("receipt.dsse.json", raw))


def by(*people: int) -> Envelope:
    return envelope(*people, payload=payload())


def rules(report: Report) -> set[str]:
    return {p.rule for result in report.channels.values() for p in result.problems}


def of(report: Report) -> tuple[set[str], Code]:
    return rules(report), exit_code(report)


# --- who signs honestly is believed --------------------------------------------------------------------------------


def test_a_signed_receipt_passes_with_its_denominator() -> None:
    report = verify(signed(by(1)), REVIEW)
    assert of(report) == (set(), Code.VERIFIED)
    result = report.channels[Channel.AUTHENTICITY]
    assert (result.status, result.checked, result.total) == (Status.PASSED, 8, 8)
    assert report.facts["signed by"] == key(1).public.fingerprint
    assert not any("no signature" in line for line in report.establishes_not)


def test_who_signed_instead_is_named_as_they_say_and_only_then() -> None:
    stranger = verify(signed(by(2)), OFFLINE).channels[Channel.AUTHENTICITY].problems
    assert [p.stated for p in stranger] == [f"0 of your keys; signatures by {key(2).public.fingerprint} (as they say)"]
    assert [p.unproven for p in stranger] == [False]
    two = Options(profile="offline", keys=(key(1).public, key(2).public), threshold=2)
    fewer = verify(signed(by(1)), two).channels[Channel.AUTHENTICITY].problems
    assert [(p.stated, p.unproven) for p in fewer] == [("1 of your keys", True)]


def test_a_long_name_of_a_stranger_is_quoted_in_part() -> None:
    made = Envelope(PAYLOAD_TYPE, payload(), (Signature(key(2).sign(pae(PAYLOAD_TYPE, payload())), "é" + "k" * 200),))
    (problem,) = verify(signed(made), OFFLINE).channels[Channel.AUTHENTICITY].problems
    assert problem.stated == f"0 of your keys; signatures by {chr(92)}xe9{'k' * 76} (as they say)"


def test_a_long_type_is_quoted_in_part() -> None:
    kind = "application/" + "x" * 300
    made = Envelope(kind, payload(), (Signature(key(1).sign(pae(kind, payload())), key(1).public.fingerprint),))
    (problem,) = verify(signed(made), OFFLINE).channels[Channel.AUTHENTICITY].problems
    assert (problem.rule, len(problem.stated)) == ("ATL-K004", 120)


def test_without_a_key_nothing_of_a_signature_is_read() -> None:
    report = verify(signed(b"\xff not an envelope"), Options())
    assert exit_code(report) is Code.VERIFIED
    assert report.status(Channel.AUTHENTICITY) is Status.NOT_CHECKED
    assert any("no signature was checked" in line for line in report.establishes_not)


def test_profile_release_requires_a_signature() -> None:
    assert exit_code(verify(signed(by(1)), Options(profile="release"))) is Code.UNPROVEN
    assert exit_code(verify(signed(by(1)), Options(profile="release", keys=PINNED))) is Code.VERIFIED


def test_a_key_makes_the_channel_required_under_every_profile() -> None:
    for profile in ("offline", "review", "release"):
        assert exit_code(verify(signed(by(2)), Options(profile=profile, keys=PINNED))) is Code.TAMPERED
    assert exit_code(verify(signed(by(1)), OFFLINE)) is Code.VERIFIED


def test_only_receipts_are_signed() -> None:
    report = verify(replace(signed(by(1)), raw=encoded(as_json(study().contract))), OFFLINE)
    assert exit_code(report) is Code.UNPROVEN


def test_an_honest_rewrite_that_is_signed_is_no_less_rewritten() -> None:
    receipt = honest("rewritten")
    made = statement_over(plain(receipt))
    assert made is not None
    report = verify(signed(envelope(1, payload=statement_bytes(made)), receipt), REVIEW)
    assert of(report) == (set(), Code.NOT_PRESERVED)


# --- attacks, one rule each ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One attack: what it is, the rules that must fire (no others), the exit code, and how it is made."""

    rules: frozenset[str]
    attack: str
    code: Code
    make: Callable[[], Report]


CASES: dict[str, Case] = {}


def attack(
    ids: str, sentence: str, code: Code = Code.TAMPERED
) -> Callable[[Callable[[], Report]], Callable[[], Report]]:
    def register(make: Callable[[], Report]) -> Callable[[], Report]:
        CASES[make.__name__] = Case(frozenset(f"ATL-{rule}" for rule in ids.split()), sentence, code, make)
        return make

    return register


def reviewed(made: Envelope | Json | bytes, options: Options = OFFLINE, **changes: Any) -> Report:
    return verify(signed(made, **changes), options)


def edited(change: Callable[[Json], Any], by_key: int = 1) -> Report:
    """Let the signer's own key sign a changed statement: what a careless or foreign tool would produce."""
    value = json.loads(payload())
    change(value)
    return reviewed(envelope(by_key, payload=canonical_json(value)))


@attack("K001", "There is no signature beside the receipt.", Code.UNPROVEN)
def no_signature() -> Report:
    return verify(plain(), OFFLINE)


@attack("K001", "Somebody whom the reviewer did not pin signed.")
def unpinned_key() -> Report:
    return reviewed(by(2))


@attack("K001", "The envelope brings the key that it was signed with, and names it in its keyid.")
def key_inside_the_document() -> Report:
    made = by(2)
    carried = Signature(made.signatures[0].sig, base64.b64encode(key(2).public.raw).decode())
    return reviewed(replace(made, signatures=(carried,)))


@attack("K002", "The envelope brings the key that it was signed with, in a field of its own.")
def key_in_a_field() -> Report:
    made = by(1).as_json()
    made["publicKey"] = base64.b64encode(key(1).public.raw).decode()
    return reviewed(made)


@attack("K003", "A stranger's signature stands under the technician's fingerprint.")
def borrowed_keyid() -> Report:
    made = by(2)
    return reviewed(replace(made, signatures=(replace(made.signatures[0], keyid=key(1).public.fingerprint),)))


@attack("K003", "The technician's signature stands under a stranger's fingerprint.")
def disowned_keyid() -> Report:
    made = by(1)
    return reviewed(replace(made, signatures=(replace(made.signatures[0], keyid=key(2).public.fingerprint),)))


@attack("K001", "Two signatures are asked for, and one key signed twice.", Code.UNPROVEN)
def one_key_twice_for_a_threshold() -> Report:
    made = by(1)
    twice = replace(made, signatures=made.signatures * 2)
    return reviewed(twice, Options(profile="offline", keys=(key(1).public, key(2).public), threshold=2))


@attack("K001", "Two signatures are asked for, and the reviewer's list holds one key twice.", Code.UNPROVEN)
def one_pinned_key_twice() -> Report:
    again = PublicKey(bytes(key(1).public.raw))
    return reviewed(by(1), Options(profile="offline", keys=(key(1).public, again), threshold=2))


@attack("K001", "Two signatures are asked for; the second is by a stranger.")
def a_stranger_for_a_threshold() -> Report:
    return reviewed(by(1, 3), Options(profile="offline", keys=(key(1).public, key(2).public), threshold=2))


def _malleated() -> Envelope:
    made = by(1)
    sig = made.signatures[0].sig
    scalar = int.from_bytes(sig[32:], "little") + L
    return replace(made, signatures=(replace(made.signatures[0], sig=sig[:32] + scalar.to_bytes(32, "little")),))


@attack("K003", "The signature was turned into its other form, S + L.")
def malleated_signature() -> Report:
    return reviewed(_malleated())


@attack("K003", "The signature stands beside its other form, S + L, to count twice.")
def malleated_beside_the_genuine() -> Report:
    return reviewed(replace(by(1), signatures=(*by(1).signatures, *_malleated().signatures)))


@attack("K001", "The signature is the one that a key of small order gives every message.")
def universal_signature() -> Report:
    return reviewed(replace(by(1), signatures=(Signature(b"\1" + bytes(63)),)))


@attack("K003", "A signature of 63 bytes stands beside a genuine one.")
def short_signature() -> Report:
    return reviewed(replace(by(1), signatures=(*by(1).signatures, Signature(b"\1" + bytes(62)))))


@attack("K001", "The receipt's own bytes were changed inside the statement.")
def payload_changed() -> Report:
    value = json.loads(payload())
    value["subject"][0]["digest"]["sha256"] = sha("another receipt")
    return reviewed(replace(by(1), payload=canonical_json(value), signatures=(Signature(by(1).signatures[0].sig),)))


@attack("K004", "The same bytes were signed as something else than a statement.")
def payload_type_confusion() -> Report:
    kind = "application/vnd.atlas-schema.note"
    signature = Signature(key(1).sign(pae(kind, payload())), key(1).public.fingerprint)
    return reviewed(Envelope(kind, payload(), (signature,)))


@attack("K001 K004", "The type was changed after signing.")
def payload_type_changed() -> Report:
    return reviewed(replace(by(1), payload_type="application/json", signatures=(Signature(by(1).signatures[0].sig),)))


@attack("K002", "The envelope has one key twice: one payload for each reader.")
def duplicate_json_key() -> Report:
    raw = written(by(1))
    return reviewed(raw.replace(b'"payload":', b'"payload": "e30=", "payload":', 1))


@attack("K002", "Something was appended to the envelope.")
def appended_garbage() -> Report:
    return reviewed(written(by(1)) + b"{}")


@attack("K002", "Something was appended to the payload's base64.")
def appended_to_base64() -> Report:
    made = by(1).as_json()
    made["payload"] += "\n"
    return reviewed(made)


@attack("K002", "The last base64 digit of a signature has bits that nothing reads.")
def loose_base64() -> Report:
    made = by(1).as_json()
    sig = made["signatures"][0]["sig"]
    assert sig.endswith("==")
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    loose = sig[:-3] + digits[digits.index(sig[-3]) + 1] + "=="
    assert base64.b64decode(loose) == base64.b64decode(sig)
    made["signatures"][0]["sig"] = loose
    return reviewed(made)


@attack("K002", "The envelope has no signatures at all.")
def empty_signatures() -> Report:
    return reviewed({**by(1).as_json(), "signatures": []})


@attack("K002", "The envelope has a thousand signatures.")
def too_many_signatures() -> Report:
    return reviewed({**by(1).as_json(), "signatures": by(1).as_json()["signatures"] * 1000})


@attack("K005", "The technician's key signed a statement of another kind.")
def other_predicate() -> Report:
    return edited(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"))


@attack("K005", "The statement is of a later version of in-toto.")
def other_statement_type() -> Report:
    return edited(lambda s: s.update(_type="https://in-toto.io/Statement/v2"))


@attack("K005", "The statement names two receipts.")
def two_receipts() -> Report:
    return edited(lambda s: s["subject"].append({"name": "receipt", "digest": {"sha256": sha("another")}}))


@attack("K005", "The statement says nothing of the evidence.")
def no_evidence_subject() -> Report:
    return edited(lambda s: s["subject"].pop())


@attack("K005", "The manifest of the statement is not the one it digests.")
def manifest_not_digested() -> Report:
    return edited(lambda s: s["predicate"]["evidence"][0].update(size=11))


@attack("K005", "The statement brings a digest that nobody checks.")
def weak_digest() -> Report:
    return edited(lambda s: s["subject"][0]["digest"].update(md5="0" * 32))


@attack("K005", "The manifest names a file outside the bundle.")
def path_in_manifest() -> Report:
    def outside(value: Json) -> None:
        value["predicate"]["evidence"][0]["name"] = "../state.parquet"
        value["subject"][-1]["digest"]["sha256"] = sha(canonical_json(value["predicate"]["evidence"]).decode())

    return edited(outside)


@attack("K005", "What was signed is not JSON.")
def payload_is_not_json() -> Report:
    return reviewed(envelope(1, payload=b"preserved"))


@attack("K006", "The signature is genuine, and about another receipt.")
def statement_about_another_receipt() -> Report:
    made = statement_over(plain(honest("close")))
    assert made is not None
    return reviewed(envelope(1, payload=statement_bytes(made)))


@attack("K006", "The receipt was reformatted after it was signed.")
def receipt_reformatted() -> Report:
    return reviewed(by(1), receipt=json.dumps(as_json(honest())).encode())


@attack("K006 C001 C003", "The contract is another one than was signed.", Code.INADMISSIBLE)
def contract_exchanged() -> Report:
    contract = as_json(study().contract)
    contract["channels"][0]["rationale"] = "another reason"
    return reviewed(by(1), contract=encoded(contract))


@attack("C005 K006", "The run log that was signed is absent.", Code.UNPROVEN)
def log_absent() -> Report:
    return reviewed(by(1), run_log=None)


@attack("C002 K006", "The plan is absent, which hides no longer that the log is not the one that was signed.")
def absent_plan_before_another_log() -> Report:
    log = as_json(study().run_log)
    return reviewed(by(1), preregistration=None, run_log=encoded({**log, "steps": [*log["steps"], log["steps"][-1]]}))


@attack("B010", "A file of the evidence was written anew with the same rows.")
def file_rewritten() -> Report:
    return reviewed(by(1), manifest=lambda: (FILES[0], replace(FILES[1], sha256=sha("the same rows"))))


@attack("B010", "A file of the evidence was made longer.")
def file_longer() -> Report:
    return reviewed(by(1), manifest=lambda: (FILES[0], replace(FILES[1], size=21)))


@attack("B010", "A signed file is missing.")
def file_missing() -> Report:
    return reviewed(by(1), manifest=lambda: FILES[:1])


@attack("B010", "A file was added that nobody signed.")
def file_added() -> Report:
    return reviewed(by(1), manifest=lambda: (*FILES, File("zz.parquet", 1, sha("zz"))))


@attack("B010", "A file was renamed.")
def file_renamed() -> Report:
    return reviewed(by(1), manifest=lambda: (FILES[0], replace(FILES[1], name="tusk.parquet")))


@attack(
    "B010",
    "The files of the evidence cannot be hashed, so that a signed manifest is compared with nothing.",
    Code.UNPROVEN,
)
def no_manifest() -> Report:
    return reviewed(by(1), manifest=None)


@attack("K007", "A Sigstore identity is asked for, and there is no bundle.", Code.UNPROVEN)
def no_bundle() -> Report:
    from atlas_schema.signing.sigstore_bundle import SigstoreTrust

    return reviewed(by(1), replace(OFFLINE, sigstore=SigstoreTrust(Path("root.json"), "me", "https://issuer")))


@pytest.mark.parametrize("name", CASES)
def test_the_attack_is_caught_by_its_rule(name: str) -> None:
    case = CASES[name]
    report = case.make()
    assert of(report) == (set(case.rules), case.code), case.attack
    for result in report.channels.values():
        assert all(p.what and (p.where or p.document or p.path) for p in result.problems)
        assert result.status is not Status.PASSED or not result.problems


def test_attacks_have_their_own_sentences() -> None:
    assert len({case.attack for case in CASES.values()}) == len(CASES)


# --- nothing that was changed passes -------------------------------------------------------------------------------

DOCUMENT_DIGESTS = {role: sha(role) for role in DOCUMENTS}


def channel(raw: bytes, keys: tuple[PublicKey, ...], threshold: int = 1, documents: Any = None) -> ChannelResult:
    result = ChannelResult(Channel.AUTHENTICITY)
    check_keys(Signed("x", raw), keys, threshold, documents or DOCUMENT_DIGESTS, result)
    return result


GENUINE = written(envelope(1))


def test_the_genuine_one_passes() -> None:
    assert channel(GENUINE, PINNED).status is Status.PASSED


def test_no_bit_of_an_envelope_can_be_flipped() -> None:
    """Every bit of the file, payload, signature, type and hint: none is left that nothing reads."""
    passed = []
    for at in range(8 * len(GENUINE)):
        flipped = bytearray(GENUINE)
        flipped[at // 8] ^= 1 << at % 8
        if channel(bytes(flipped), PINNED).status is Status.PASSED:
            passed.append(at)
    assert passed == []


@given(st.data())
def test_no_byte_of_an_envelope_can_be_removed_added_or_moved(data: st.DataObject) -> None:
    at, to = (data.draw(st.integers(0, len(GENUINE) - 1)) for _ in range(2))
    how = data.draw(st.sampled_from(["remove", "double", "swap", "cut"]))
    raw = bytearray(GENUINE)
    if how == "remove":
        del raw[at]
    elif how == "double":
        raw.insert(at, raw[at])
    elif how == "swap":
        raw[at], raw[to] = raw[to], raw[at]
    else:
        del raw[at:]
    try:
        same = json.loads(raw) == json.loads(GENUINE)  # white space between tokens says nothing
    except ValueError:
        same = False
    assume(not same)
    assert channel(bytes(raw), PINNED).status is not Status.PASSED


@given(st.integers(0, 8 * 64 - 1))
def test_no_bit_of_a_signature_can_be_flipped(at: int) -> None:
    made = envelope(1)
    sig = bytearray(made.signatures[0].sig)
    sig[at // 8] ^= 1 << at % 8
    for keyid in (made.signatures[0].keyid, ""):
        changed = replace(made, signatures=(Signature(bytes(sig), keyid),))
        assert channel(written(changed), PINNED).status is Status.FAILED


@given(st.data())
def test_no_bit_of_the_payload_can_be_flipped(data: st.DataObject) -> None:
    made = envelope(1)
    at = data.draw(st.integers(0, 8 * len(made.payload) - 1))
    changed = bytearray(made.payload)
    changed[at // 8] ^= 1 << at % 8
    assert channel(written(replace(made, payload=bytes(changed))), PINNED).status is Status.FAILED


@given(st.sampled_from(DOCUMENTS), st.integers(0, 255))
def test_no_bit_of_a_document_can_be_flipped(role: str, at: int) -> None:
    """A flipped bit is another SHA-256; here it is one bit of that, which is less."""
    digest = f"{int(DOCUMENT_DIGESTS[role], 16) ^ 1 << at:064x}"
    assert channel(GENUINE, PINNED, documents={**DOCUMENT_DIGESTS, role: digest}).status is Status.FAILED


@given(st.data())
def test_no_bit_of_a_submitted_document_can_be_flipped(data: st.DataObject) -> None:
    base = signed(by(1))
    part = data.draw(st.sampled_from(["raw", "preregistration", "run_log", "contract"]))
    raw = bytearray(getattr(base, part))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    changed: dict[str, Any] = {part: bytes(raw), "open_evidence": None}
    report = verify(replace(base, **changed), OFFLINE)
    if part == "contract" and as_json_or_none(raw) == as_json(study().contract):
        return
    assert report.status(Channel.AUTHENTICITY) is not Status.PASSED


def as_json_or_none(raw: bytes | bytearray) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


# --- order and number ----------------------------------------------------------------------------------------------


@given(st.permutations([1, 2, 3]), st.permutations([1, 2, 3]), st.integers(1, 3))
def test_order_of_signatures_and_keys_does_not_matter(signers: list[int], pins: list[int], threshold: int) -> None:
    assert channel(written(envelope(*signers)), tuple(key(n).public for n in pins), threshold).status is Status.PASSED


@given(st.sets(st.integers(1, 5), min_size=1), st.sets(st.integers(1, 5), min_size=1), st.integers(1, 6))
def test_passing_means_that_enough_of_the_pinned_signed(signers: set[int], pins: set[int], threshold: int) -> None:
    def passes(who: set[int], known: set[int], need: int) -> bool:
        return channel(written(envelope(*who)), tuple(key(n).public for n in known), need).status is Status.PASSED

    assert passes(signers, pins, threshold) == (len(signers & pins) >= threshold)
    if passes(signers, pins, threshold):
        assert threshold == 1 or passes(signers, pins, threshold - 1)  # monotone in the threshold,
        assert passes(signers, pins | {6}, threshold)  # in the keys
        assert passes(signers | {6}, pins, threshold)  # and in the signatures
        for gone in signers:
            rest = signers - {gone}
            assert not rest or passes(rest, pins, threshold) == (len(rest & pins) >= threshold)


@pytest.mark.parametrize("threshold", [0, -1])
def test_no_threshold_is_below_one(threshold: int) -> None:
    assert channel(written(envelope(2)), PINNED, threshold).status is Status.FAILED


def test_a_signature_without_keyid_counts() -> None:
    made = envelope(1)
    bare = {"sig": base64.b64encode(made.signatures[0].sig).decode()}
    assert channel(written({**made.as_json(), "signatures": [bare]}), PINNED).status is Status.PASSED


def test_url_safe_base64_is_read_as_dsse_demands() -> None:
    made = envelope(*range(1, 8)).as_json()
    text = json.dumps(made).replace("+", "-")
    safe = json.loads(text)
    safe["payloadType"] = PAYLOAD_TYPE
    for signature in safe["signatures"]:
        signature["sig"] = signature["sig"].replace("/", "_")
    assert safe != made
    assert channel(written(safe), tuple(key(n).public for n in range(1, 8)), 7).status is Status.PASSED


# --- nothing of a payload is read before its signatures hold -------------------------------------------------------


def test_the_payload_is_not_parsed_before_it_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def watched(raw: bytes) -> Any:
        read.append(raw)
        return json.loads(raw)

    monkeypatch.setattr("atlas_schema.verify.authenticity.read_json", watched)
    for made in (envelope(2), replace(envelope(1), payload=b"{}")):
        read.clear()
        channel(written(made), PINNED)
        assert read == [written(made)]
    channel(GENUINE, PINNED)
    assert read[-1] == statement_bytes(statement())


# --- files on disk -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study().write(tmp_path_factory.mktemp("signed") / "study")


def on_disk(folder: Path) -> Submission:
    evidence = folder / "evidence"
    return plain(manifest=lambda: manifest(evidence), open_evidence=lambda: ParquetBundle(evidence))


def test_every_file_of_the_evidence_is_bound(folder: Path) -> None:
    made = statement_over(on_disk(folder))
    assert made is not None
    assert {f.name for f in made.evidence} == {p.name for p in (folder / "evidence").iterdir()}
    envelope_of_it = Signed("x", written(sign(statement_bytes(made), key(1))))
    genuine = replace(on_disk(folder), signature=envelope_of_it)
    assert of(verify(genuine, REVIEW)) == (set(), Code.VERIFIED)
    for path in sorted((folder / "evidence").iterdir()):
        content = path.read_bytes()
        for at in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            report = verify(genuine, OFFLINE)
            assert "ATL-B010" in rules(report)
            assert exit_code(report) in (Code.TAMPERED, Code.INADMISSIBLE)
        path.write_bytes(content)
    assert of(verify(genuine, OFFLINE)) == (set(), Code.VERIFIED)


def test_a_manifest_lists_regular_files_only(tmp_path: Path) -> None:
    import os

    (tmp_path / "a.parquet").write_bytes(b"abc")
    assert manifest(tmp_path) == (File("a.parquet", 3, sha("abc")),)
    assert manifest(tmp_path / "a.parquet") == manifest(tmp_path)
    for make in (lambda p: p.mkdir(), lambda p: p.symlink_to("a.parquet"), lambda p: os.mkfifo(p)):
        make(tmp_path / "b")
        with pytest.raises(EvidenceError, match="regular files"):
            manifest(tmp_path)
        (tmp_path / "b").rmdir() if (tmp_path / "b").is_dir() else (tmp_path / "b").unlink()
    with pytest.raises(EvidenceError, match="cannot be read"):
        manifest(tmp_path / "absent")


def test_statements_are_read_as_they_are_written() -> None:
    assert statement_of(json.loads(statement_bytes(statement()))) == statement()
