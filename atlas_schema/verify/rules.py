"""The registry of rules: stable ids, statements and reasons. Ids are never reused.

``atlas explain ID`` prints one; `docs/rules.md` is generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from atlas_schema.verify.outcome import Channel


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what must hold, and what goes wrong where it does not."""

    id: str
    statement: str
    rationale: str
    source: str

    @property
    def channel(self) -> Channel:
        return _LETTERS[self.id[4]]


_LETTERS = {
    "A": Channel.ADMISSION, "S": Channel.SCHEMA, "C": Channel.CONTRACT, "B": Channel.BINDING, "K": Channel.AUTHENTICITY,
    "R": Channel.REPRODUCTION, "P": Channel.REPLAY, "D": Channel.DECISION,
}  # fmt: skip

_TABLE = """
A001 | A document is strict JSON within the limits. | Two readers must never see two documents in the same bytes. | format.md, Documents
A002 | A Parquet file is readable, has exactly the declared columns, and fits the limits before it is decoded. | A file of a few hundred bytes can declare hundreds of millions of rows. | format.md, Bundle
A003 | Rows have no missing values where none may stand, no NaN or infinity, no list of another length or integer beyond its column, and no key twice. | Statistics over such rows mean nothing. | format.md, Tables
A020 | The headers of a Parquet file's pages agree with its footer, and hold only what is read here. | A decoder believes the pages, a limit the footer; where they differ, a limit holds nothing. | format.md, Bundle
A021 | No list, no text and no run and layer holds more than the limits, nor do all runs side by side; keys name no more runs and layers. | One row, or many small groups of rows, can hold what no machine can. | format.md, Bundle
A022 | Files of a bundle are regular files: no links, pipes or devices. | A link reads what its author may not, a pipe never ends. | format.md, Bundle
A023 | A DuckDB file holds base tables only: no macro, view, type, sequence, index, trigger or further schema. | What a database file stores can run when it is read. | verification.md, Hostile input
A024 | The tables of a DuckDB file are the declared ones, with the declared columns, types and constraints. | A default or a generated column is code in a table's clothes. | verification.md, Hostile input
A025 | A DuckDB file can be read by a confined process within bounds of memory and time. | A file can be made to exhaust or break its reader. | verification.md, Hostile input
A026 | No log of further changes lies beside a DuckDB file. | Applied or ignored, it would make two sets of rows of one file. | verification.md, Hostile input
S001 | A document has the shape that schema.json gives its kind; unknown fields are refused. | A field that nobody reads can say anything. | schema.json
C001 | The contract is the one that the receipt cites, by id and digest; it gates only what this version recomputes, once each, and does not bear a built-in id with other content. | Thresholds must not change under a familiar name. | format.md, Receipt
C002 | The pre-registration is the one that the receipt cites. | Otherwise the plan could be written to fit the result. | format.md, Receipt
C003 | The pre-registration cites the same contract as the receipt. | One study is judged by one contract. | format.md, Receipt
C004 | Every step of the run log is unaltered, in order and chained to the one before. | A removed or re-timed step hides the order of events. | format.md, Run log
C005 | The receipt's log head is a step of the run log at the stated length. | The receipt must belong to this history. | format.md, Run log
C006 | The pre-registration was declared before the first extraction. | What is declared after results exist is not a prediction. | format.md, Run log
C007 | An extraction step before the head read this pre-registration and produced this evidence root. | The evidence must come from this history. | format.md, Run log
C008 | The pre-registration stays within what the contract admits and is consistent in itself. | Tolerances could otherwise be widened until everything passes. | measures.md, 5
C009 | The subjects are the base, every null arm of the contract and every planned arm, once each. | An arm dropped after the fact is a result withheld. | measures.md, 2
C010 | Every table holds the expected rows: every window, position and item of every planned run, no more. | A missing cell is unproven, never a smaller sample. | format.md, Pre-registration
C011 | The windows of the evidence are the pre-registered ones, with the tokens and positions that follow from them. | Windows chosen afterwards can show anything. | format.md, Pre-registration
C012 | No cluster of the pilot is a cluster of the study. | Thresholds tuned on the study's own text are not thresholds. | measures.md, 6
C040 | Declaration and Read #0 stand before the first run, Read #1 after it and before anything is issued, verification after that. | An expectation that was written after the result expects nothing. | protocol.md, Order
C041 | Reads and judgements are taken by a technician, every other step by who may take it. | A judgement that no person made is no judgement. | protocol.md, Who takes a step
C042 | No two runs name one process. | What a process carries over from one model reaches the next. | protocol.md, Isolation
C043 | Who verifies is another party than who extracted, in another process. | Nobody checks their own work. | protocol.md, Isolation
C044 | Every run reads a stimulus whose version was registered before, or a pre-registration declared before. | What a model was given must be traceable. | protocol.md, Stimuli
C045 | No document states a fidelity tier. | A tier is derived from the log's steps; one that is typed in can say anything. | protocol.md, Fidelity tier
C046 | A filled judgement has value, author and basis, and the log holds its step: by a technician, at its time, about this document. | Automation leaves judgement blank; only a person fills it. | protocol.md, Judgement
C047 | A Read is the one that the log records, written after the step it names and before the next. | A Read that nobody logged could have been written at any time. | protocol.md, Reads
C130 | Where the log records a run's extraction, one of its steps read the weights that the receipt states for the run. | A receipt must not name other weights than its history. | format.md, Run log
C060 | Names within a measurement or prediction are unique: series, labels, claims, conditions, questions, roles, clauses. | Nobody can know which of two is meant. | measurements.md, Contract
C061 | The uncertainty of a value holds the value, and its lower end is not above its upper. | One of the two was copied wrongly. | measurements.md, Contract
C062 | Terms and conventions are the vocabulary's; a term with conventions names one, and a proxy is called one. | One word with two meanings lets two records disagree unseen. | measurements.md, Contract
C063 | Every expression can be read and asks only for values that are there. | A claim about what was not recorded cannot be checked. | measurements.md, Expressions
C064 | Values cite rows exactly where the record binds evidence, and Student intervals cite the rows of a mean. | Bound rows that nothing cites would make values look recomputed. | measurements.md, Rows
C065 | A prediction's rule can be decided, and looks at the measurements it requires and at no others. | A prediction that nothing can contradict says nothing. | predictions.md, Rule
C066 | A stated outcome is the one that the rule gives on the cited measurements, which fit their roles. | Nobody types in an outcome. | predictions.md, Settling
C067 | A prediction that bears the id of a shipped one states the same and is decided by the same rule. | A rule must not change under a familiar name. | predictions.md, Settling
C160 | The task's target lies above its tolerance. | A target that a score of zero reaches asks for nothing. | measures.md, 5
C161 | Some values would contradict every claim of a measurement, and decide every clause of a prediction one way or the other. | What holds of any numbers says nothing of these. | measurements.md, Contract
C162 | A contract's tolerances are those of rounding. | By wider ones rows and numbers of any kind would be called reproduced. | format.md, Contract
B001 | The bundle holds exactly the declared tables. | Nothing missing, nothing extra. | format.md, Bundle
B002 | Every table has the stated number of rows. | The rows must be the ones the receipt is about. | format.md, Digests
B003 | Every table has the stated Merkle root. | One changed bit of one value changes the root. | format.md, Digests
B004 | The evidence root covers the stated tables. | The receipt cites one root for all of them. | format.md, Digests
B005 | The pre-registration is the one that the reviewer pinned. | A date in a document is its author's word. | format.md, Receipt
B010 | Where a manifest was signed, the files of the evidence are those it names, by name, size and SHA-256, none more and none fewer. | What was signed is the bundle as it was handed over. | signing.md, What is signed
K001 | As many distinct pinned keys as the reviewer asks for signed the statement. | Keys inside a document vouch for nothing, and one key under two names is one key. | signing.md, Thresholds
K002 | The signature file is one DSSE envelope: strict JSON, the specified fields, canonical base64. | Two readers must never see two envelopes in the same bytes. | signing.md, What is refused
K003 | Every signature has the one canonical form, and none names a key that did not make it. | A second form of a signature, or a borrowed name, is somebody's attempt. | signing.md, What is refused
K004 | What was signed is an in-toto statement. | Bytes signed as something else must not be read as a statement. | signing.md, What is refused
K005 | The statement is one about a receipt, names each of its subjects once, and its manifest is the one it digests. | A signer vouched for one set of documents, not for whatever fits. | signing.md, What is signed
K006 | Receipt, pre-registration, run log and contract are those that were signed. | A genuine signature on another receipt says nothing of this one. | signing.md, What is signed
K007 | The Sigstore bundle verifies under the reviewer's trusted root, identity and issuer. | Whoever brings a bundle may bring a root that trusts it. | signing.md, Sigstore
R001 | Runs have the roles, models and digests that the receipt and the pre-registration state. | A receipt is about particular weights. | measures.md, 2
R002 | Base and arms ran under one numerics fingerprint; a null arm differs in exactly its nuisance. | Otherwise numerics pass for drift, or drift for numerics. | measures.md, 2
R003 | Layer constants are consistent: sizes, tensor digests of what is stored, exactly the digests that the layer has tensors for, known rules, identity permutation, small reconstruction error. | Everything else is recomputed from them. | measures.md, 1
R004 | A state obeys its normalisation: ||z||² = d (1 - eps/r²). | Invented states rarely do. | measures.md, 1 (1)
R005 | Dispatch scores follow from state, gain and router within rounding. | Scores could otherwise be written to taste. | measures.md, 1 (2)
R006 | Executed experts are distinct, in range, the top k of the scores; competitors and margins are theirs. | A margin is a claim about a boundary. | measures.md, 1 (3)
R007 | Combine weights follow from the scores by the layer's rule. | They weigh every expert's share. | measures.md, 1 (5)
R008 | Same-state scores, sets, pairs and weights follow from the base's state and each model's router. | The four channels are built on them. | measures.md, 2
R009 | Gram matrices are positive semidefinite and agree with the stored norms of the updates. | A drift of any size could be written into them. | measures.md, 1 (4)
R010 | ||ΔV||, ||y|| and ||Δy|| agree with the Gram matrix. | They were recorded from the vectors themselves. | measures.md, 1 (9)
R011 | Bitwise equal tensors give no same-state drift. If every expert differs, some update does; if tensors before a layer differ, some state does. | Zero drift of changed weights, or drift of unchanged ones, is impossible. | measures.md, 1 (10)
R012 | Losses and entropies are not negative; scores of greedy exact match are 0 or 1. | Damage and success are means of them. | measures.md, 5
R013 | Every finding equals the one recomputed from the rows. | That is what a receipt is. | measures.md, 6
R015 | Columns that may be null hold values exactly where there is something to hold: admissible experts and group margins with group limits, transport angles and divergences of arms. | A token left out changes a mean, and a number where nothing was measured is invented. | format.md, Tables
R016 | The base's own updates at its own states are the same in every run's rows. | A drift is relative to them; inflated in one arm's rows only, they would shrink its drift. | measures.md, 2
R017 | Tensor digests agree with the weights' digests and distances, and with the layers before. | Changed weights that claim to be equal would excuse what their rows show. | format.md, Tensor digests
R020 | A router's rule is one: groups divide the experts and leave enough of them, weights and scores share their gate, and an arm's constants are the base's. | Sets, weights and margins are held to this rule. | measures.md, 1 (7)
R021 | Admissible experts are whole groups, as many as are kept, none weaker than a dropped one; members are among them; the group margin is theirs. | A group limit could otherwise excuse any set. | measures.md, 1 (3)
R022 | The field changes by no more than weights and updates allow: ||ΔV|| ≤ Σ abs(Δρ) ||v0|| + Σ ρ1 ||δ||. | Small changes lie below the resolution of R010. | measures.md, 1 (11)
R023 | Stored update vectors have the inner products of the Gram matrix and the tangent parts of their updates. | They are what others would reuse. | measures.md, 1 (12)
R024 | Overlap maps are of the pairs most often active together in the base's sets, with the visits recounted. | Pairs chosen afterwards can drift as little as one likes. | measures.md, 1 (13)
R025 | Maps of equal experts do not drift; ranks, condition numbers, residuals and sizes are possible ones, and the base's the same in every run's rows. | What needs the weights cannot be recomputed; what contradicts itself can be seen. | measures.md, 1 (13)
R026 | A transport angle is between 0 and 1, 0 where attention and norm of the layer are the base's, and not 0 everywhere where they are not. | It separates what a layer does to its input from what arrives. | measures.md, 1 (14)
R027 | A divergence from the base is not negative, 0 for the base's weights, and at least what the two losses of each token imply. | Losses and divergence come from the same distributions. | measures.md, 1 (15)
R028 | Loss, entropy, most likely token and the token that followed fit each other. | A loss lowered by hand contradicts the rest of its row. | measures.md, 1 (15)
R130 | Inner products of the base's updates, the output of its block, and its stored vectors are the same in every run's rows. | Turned apart in one arm's rows only, they would lengthen the jump that its drift is divided by. | measures.md, 1 (16)
R131 | An entropy is at least that of the two events *this token* and *another token*. | A loss lowered by hand contradicts the rest of its row. | measures.md, 1 (15)
R132 | A map and the one back have one rank and one condition number; no rank is below the lowest of the layer, which is the base's where all experts are. | What needs the weights cannot be recomputed; what contradicts itself can be seen. | measures.md, 1 (13)
R133 | Runs of different tensors do not share all their states, all changes of their updates or all their losses, bit for bit. | One run's rows under two names would be two arms. | measures.md, 1 (10)
R014 | Subjects and extraction repeat table `run`. | A receipt must not describe another model than its evidence. | format.md, Receipt
R060 | A value that cites rows is the stated statistic of them. | That is what citing rows means. | measurements.md, Rows
R061 | The sample size of a value that cites rows is their number. | An interval and a licence hang on it. | measurements.md, Rows
R062 | A Student interval is the one that the cited rows give. | A narrow interval claims more than its data. | measurements.md, Rows
D001 | The claimed verdict is the recomputed one. | The claim is what people will quote. | measures.md, 7
D002 | The decision holds under the reviewer's seed. | A verdict must not hang on a lucky resample. | measures.md, 6
D040 | No claim is contradicted by the record's own values. | A record that refutes itself refutes what is quoted from it. | measurements.md, Outcomes
D041 | Every claim is decided by the record's own values. | What the numbers leave open must not pass for a finding. | measurements.md, Outcomes
D042 | No claim is stronger than the record's licence and replication. | A statistical claim from one observation is a figure of speech. | measurements.md, Licence
D043 | A statistical licence rests on two observations or more and an uncertainty at every value. | One observation has no spread. | measurements.md, Licence
D044 | A replicated record counts two independent runs or more. | One run is no replication. | measurements.md, Licence
"""

RULES: dict[str, Rule] = {
    f"ATL-{parts[0]}": Rule(f"ATL-{parts[0]}", *parts[1:])
    for parts in ([p.strip() for p in line.split(" | ")] for line in _TABLE.strip().splitlines())
}
"""Every rule by id."""
