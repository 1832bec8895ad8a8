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
A003 | Rows have no missing values where none may stand, no NaN or infinity, and no key twice. | Statistics over such rows mean nothing. | format.md, Tables
A020 | The headers of a Parquet file's pages agree with its footer, and hold only what is read here. | A decoder believes the pages, a limit the footer; where they differ, a limit holds nothing. | format.md, Bundle
A021 | No list, no text and no run and layer holds more than the limits. | One row, or many small groups of rows, can hold what no machine can. | format.md, Bundle
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
B001 | The bundle holds exactly the declared tables. | Nothing missing, nothing extra. | format.md, Bundle
B002 | Every table has the stated number of rows. | The rows must be the ones the receipt is about. | format.md, Digests
B003 | Every table has the stated Merkle root. | One changed bit of one value changes the root. | format.md, Digests
B004 | The evidence root covers the stated tables. | The receipt cites one root for all of them. | format.md, Digests
B005 | The pre-registration is the one that the reviewer pinned. | A date in a document is its author's word. | format.md, Receipt
K001 | A signature under a pinned key covers the receipt. | Keys inside a document vouch for nothing. | verification.md
R001 | Runs have the roles, models and digests that the receipt and the pre-registration state. | A receipt is about particular weights. | measures.md, 2
R002 | Base and arms ran under one numerics fingerprint; a null arm differs in exactly its nuisance. | Otherwise numerics pass for drift, or drift for numerics. | measures.md, 2
R003 | Layer constants are consistent: sizes, tensor digests of the stored gain and router, known rules, identity permutation, small reconstruction error. | Everything else is recomputed from them. | measures.md, 1
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
R015 | Columns that this version neither writes nor recomputes hold nothing. | What nobody checks must not look checked. | format.md, Tables
R016 | The base's own updates at its own states are the same in every run's rows. | A drift is relative to them; inflated in one arm's rows only, they would shrink its drift. | measures.md, 2
R017 | Tensor digests agree with the weights' digests and distances, and with the layers before. | Changed weights that claim to be equal would excuse what their rows show. | format.md, Tensor digests
R014 | Subjects and extraction repeat table `run`. | A receipt must not describe another model than its evidence. | format.md, Receipt
D001 | The claimed verdict is the recomputed one. | The claim is what people will quote. | measures.md, 7
D002 | The decision holds under the reviewer's seed. | A verdict must not hang on a lucky resample. | measures.md, 6
"""

RULES: dict[str, Rule] = {
    f"ATL-{parts[0]}": Rule(f"ATL-{parts[0]}", *parts[1:])
    for parts in ([p.strip() for p in line.split(" | ")] for line in _TABLE.strip().splitlines())
}
"""Every rule by id."""
