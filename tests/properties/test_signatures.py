"""Signatures added and taken away, against a threshold of pinned keys. The model is the set of people who signed these bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from properties.contract import holds, machine
from signing.material import envelope, key, statement, written

from atlas_schema.signing.curve import signature_fault
from atlas_schema.signing.envelope import Envelope, Signature, sign
from atlas_schema.signing.statement import DOCUMENTS, statement_bytes
from atlas_schema.verify.authenticity import Signed, check_keys
from atlas_schema.verify.outcome import Channel, ChannelResult, Status

PEOPLE = (1, 2, 3, 4)
PAYLOAD = statement_bytes(statement())
OTHER = statement_bytes(statement(documents={**statement().documents, "receipt": "0" * 64}))


@dataclass(frozen=True)
class Made:
    """A signature in the envelope: who made it, under whose name it stands, and whether it is over these bytes, unbroken."""

    signer: int
    name: int
    genuine: bool
    signature: Signature


def status_of(made: Envelope | None, pinned: tuple[int, ...], threshold: int) -> Status:
    result = ChannelResult(Channel.AUTHENTICITY)
    signed = None if made is None else Signed("receipt.dsse.json", written(made))
    documents: dict[str, str | None] = {role: statement().documents[role] for role in DOCUMENTS}
    found = check_keys(signed, tuple(key(p).public for p in pinned), threshold, documents, result)
    assert (found is not None) == (result.status is Status.PASSED)
    if found is not None:
        assert len(set(found[1])) == len(found[1]) >= threshold
    return result.status


@machine(
    "signatures",
    "Signatures added, doubled, borrowed, broken and taken away: enough distinct pinned keys, or it does not pass.",
    20,
    400,
    10,
)
class Signing(RuleBasedStateMachine):
    """An envelope passes exactly where enough pinned people signed its bytes and nobody's name stands on what they did not sign."""

    def __init__(self) -> None:
        super().__init__()
        self.signatures: list[Made] = []
        self.pinned: tuple[int, ...] = (1,)
        self.threshold = 1

    @initialize(pinned=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4), threshold=st.integers(1, 3))
    def pin(self, pinned: list[int], threshold: int) -> None:
        self.pinned, self.threshold = tuple(pinned), threshold

    @rule(person=st.sampled_from(PEOPLE))
    def sign(self, person: int) -> None:
        self.signatures.append(Made(person, person, True, sign(PAYLOAD, key(person), None).signatures[0]))

    @rule(person=st.sampled_from(PEOPLE))
    def sign_other_bytes(self, person: int) -> None:
        """A signature of other bytes, moved here, under the signer's own name."""
        self.signatures.append(Made(person, person, False, sign(OTHER, key(person), None).signatures[0]))

    @precondition(lambda self: self.signatures)
    @rule(data=st.data(), name=st.sampled_from(PEOPLE))
    def put_under_another_name(self, data: st.DataObject, name: int) -> None:
        made = data.draw(st.sampled_from(self.signatures))
        borrowed = replace(made.signature, keyid=key(name).public.fingerprint)
        self.signatures.append(replace(made, name=name, signature=borrowed))

    @precondition(lambda self: self.signatures)
    @rule(data=st.data(), byte=st.integers(0, 63), bit=st.integers(0, 7))
    def break_one(self, data: st.DataObject, byte: int, bit: int) -> None:
        at = data.draw(st.integers(0, len(self.signatures) - 1))
        raw = bytearray(self.signatures[at].signature.sig)
        raw[byte] ^= 1 << bit
        broken = replace(self.signatures[at].signature, sig=bytes(raw))
        self.signatures[at] = replace(self.signatures[at], genuine=False, signature=broken)

    @precondition(lambda self: self.signatures)
    @rule(data=st.data())
    def take_away(self, data: st.DataObject) -> None:
        """Fewer signatures never pass where more did not, unless a false one was among them."""
        at = data.draw(st.integers(0, len(self.signatures) - 1))
        before, gone = self.status(), self.signatures.pop(at)
        assert before is Status.PASSED or self.false(gone) or self.status() is not Status.PASSED

    def false(self, made: Made) -> bool:
        """Whether a signature is false: under a pinned name but not theirs, or a pinned person's under another name."""
        theirs = made.genuine and made.signer == made.name
        malformed = signature_fault(made.signature.sig) is not None  # nobody's signature looks so, a stranger's neither
        return (
            malformed
            or (made.name in self.pinned and not theirs)
            or (made.genuine and made.signer in self.pinned and not theirs)
        )

    @precondition(lambda self: len(self.signatures) > 1)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        before = self.status()
        self.signatures = data.draw(st.permutations(self.signatures))
        assert self.status() is before

    @rule(threshold=st.integers(1, 4))
    def ask_for_more(self, threshold: int) -> None:
        before, more = self.status(), max(self.threshold, threshold)
        self.threshold = more
        assert before is Status.PASSED or self.status() is not Status.PASSED

    def envelope(self) -> Envelope | None:
        if not self.signatures:
            return None
        return replace(envelope(1, payload=PAYLOAD), signatures=tuple(made.signature for made in self.signatures))

    def status(self) -> Status:
        return status_of(self.envelope(), self.pinned, self.threshold)

    def teardown(self) -> None:
        signed = {made.signer for made in self.signatures if made.genuine and made.signer == made.name}
        passes = len(signed & set(self.pinned)) >= self.threshold and not any(map(self.false, self.signatures))
        status = self.status()
        assert (status is Status.PASSED) == passes, (self.signatures, self.pinned, self.threshold)
        assert status is not Status.FAILED or self.signatures


TestSigning = Signing.TestCase


@holds(
    "signatures", "Every set of signers against every set of pinned keys and every threshold passes where it should."
)
def test_every_set_of_signers_keys_and_thresholds() -> None:
    groups = [group for size in range(4) for group in combinations(PEOPLE[:3], size)]
    for signers in groups:
        made = envelope(*signers, payload=PAYLOAD) if signers else None
        for pinned in groups[1:]:
            for threshold in (1, 2, 3):
                enough = len(set(signers) & set(pinned)) >= threshold
                assert (status_of(made, pinned, threshold) is Status.PASSED) == enough
