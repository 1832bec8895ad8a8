"""What a vocabulary is made of. Loading is in `load`, checking in `check`.

Ids: a term is ``<layer>.<name>/<version>``, such as ``navigator.viscosity/1``; a convention or statement of it is
``<layer>.<name>.<own name>/<own version>``. A version is raised when the meaning changes, never when words do; ids are
never reused.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from atlas_schema.errors import AtlasError


class VocabularyError(AtlasError):
    """A term or convention that the vocabulary lacks, or data that is no vocabulary."""


class Status(StrEnum):
    """How far an entry, a dependency or a statement may be relied on. One value alone says established."""

    ESTABLISHED = "established"
    """A notion of the cited literature, used here as there."""
    FRAMEWORK = "framework"
    """A term that the framework defines; that it fits models is not claimed by the entry."""
    PROPOSED = "proposed"
    """Put forward; its own source says that the grounding is not there, or it is not defined in full."""
    ILLUSTRATIVE = "illustrative"
    """A picture; nothing is measured in it."""
    WORKING_HYPOTHESIS = "working_hypothesis"
    """Asserts something of models that no measurement has tested."""
    OPEN_QUESTION = "open_question"
    """Asks; asserts nothing."""

    @property
    def label(self) -> str:
        """Return the words that are printed: what is not established says so."""
        return _LABELS[self]


_LABELS = {
    Status.ESTABLISHED: "established in the cited literature",
    Status.FRAMEWORK: "defined by the framework; no claim about models",
    Status.PROPOSED: "PROPOSED, not grounded",
    Status.ILLUSTRATIVE: "illustration only",
    Status.WORKING_HYPOTHESIS: "WORKING HYPOTHESIS, untested",
    Status.OPEN_QUESTION: "OPEN QUESTION, untested",
}
DependencyKind = Literal["notion", "contrast", "algebraic", "causal", "history"]
"""``notion``: the other term is needed to say what this one means. ``contrast``: it is told apart from the other one.
The last three derive this readout from the other."""
DERIVING: tuple[DependencyKind, ...] = ("algebraic", "causal", "history")


@dataclass(frozen=True, slots=True)
class Source:
    """A text that entries were taken from; ``note`` says how much of it could be read."""

    id: str
    title: str
    note: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A work that an entry cites. ``given`` is false where the source names author and year only."""

    id: str
    text: str
    given: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dependency:
    """An edge to another term, with its kind. ``status`` says how sure the edge is."""

    term: str
    kind: DependencyKind
    status: Status = Status.FRAMEWORK


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to read a term. A term with conventions is ambiguous: a record names the id of the one it uses.

    ``kind`` is ``definition`` or ``proxy``: a proxy is measured in place of what the term means.
    """

    id: str
    name: str
    version: int
    kind: Literal["definition", "proxy"]
    statement: str
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Statement:
    """Something the sources say with the term's help, with its status and what would test it."""

    id: str
    name: str
    version: int
    text: str
    status: Status
    test: str


@dataclass(frozen=True, slots=True)
class Term:
    """One entry.

    ``qualifiers`` are the two poles as the source orders them, or none. ``symbols`` says what each symbol of
    ``formula`` means. ``role`` tells independent variables from derived readouts, in layers that are so divided.
    ``unknown`` names the fields that the source may have and that could not be read, ``inferred`` those that are not
    the source's words.
    """

    id: str
    layer: str
    name: str
    version: int
    title: str
    qualifiers: tuple[str, ...]
    formula: str
    symbols: Mapping[str, str]
    description: str
    references: tuple[str, ...]
    flags: tuple[str, ...]
    depends: tuple[Dependency, ...]
    role: Literal["independent", "derived", ""]
    conventions: tuple[Convention, ...]
    statements: tuple[Statement, ...]
    status: Status
    source: str
    unknown: tuple[str, ...]
    inferred: tuple[str, ...]

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Return the ids of every term that this one refers to."""
        return tuple(d.term for d in self.depends)

    @property
    def derived_from(self) -> tuple[str, ...]:
        """Return the ids of the terms that this readout is derived from."""
        return tuple(d.term for d in self.depends if d.kind in DERIVING)

    @property
    def independent(self) -> bool:
        """Return whether this is one of its layer's independent variables."""
        return self.role == "independent"


@dataclass(frozen=True, slots=True)
class Collapse:
    """The finding that a layer's terms come down to few independent variables, with its status and test."""

    independent: tuple[str, ...]
    derived: tuple[str, ...]
    status: Status
    test: str
    source: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A group of terms. ``qualified``: its terms have pairs of qualifiers."""

    id: str
    title: str
    description: str
    qualified: bool
    collapse: Collapse | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A disagreement between sources (``convention``) or one word for several terms (``homonym``)."""

    word: str
    kind: Literal["convention", "homonym"]
    text: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All entries, by id. Nothing here is checked on loading but its shape; `check.faults` does that."""

    layers: Mapping[str, Layer]
    terms: Mapping[str, Term]
    references: Mapping[str, Reference]
    sources: Mapping[str, Source]
    conflicts: tuple[Conflict, ...]

    def get(self, term_id: str) -> Term | None:
        """Return a term, or None."""
        return self.terms.get(term_id)

    def convention(self, convention_id: str) -> tuple[Term, Convention] | None:
        """Return a convention and its term, or None."""
        found = ((t, c) for t in self.terms.values() for c in t.conventions if c.id == convention_id)
        return next(found, None)

    def find(self, words: str) -> tuple[Term, ...]:
        """Return the terms that an id, an id without version, a bare name or a word of the conflicts may mean."""
        if words in self.terms:
            return (self.terms[words],)
        wanted = words.strip().lower().replace("-", "_").replace(" ", "_")
        named = [
            t
            for t in self.terms.values()
            if wanted in (t.name, f"{t.layer}.{t.name}", t.title.lower().replace(" ", "_"))
        ]
        if named:
            return tuple(named)
        ids = [
            i for c in self.conflicts if c.word.lower().replace("-", "_").replace(" ", "_") == wanted for i in c.terms
        ]
        return tuple(self.terms[i] for i in ids if i in self.terms)

    def cite(self, term_id: str, convention_id: str | None) -> tuple[Term, Convention | None]:
        """Return what a record names, or raise `VocabularyError`.

        A term with conventions needs one of them; a term without takes none. The message names what is wrong, what
        could be meant, and the command that lists it. Whether the record uses the convention it names is not checked.
        """
        term = self.terms.get(term_id)
        if term is None:
            raise self._unknown(term_id)
        ids = [c.id for c in term.conventions]
        if convention_id is None:
            if term.conventions:
                raise VocabularyError("The term has more than one reading and the record names no convention.", where=term_id,
                                      expected=f"one of {', '.join(ids)}", found="no convention",
                                      todo=f"atlas vocab show {term_id} says how they differ; name the one that was used")  # fmt: skip
            return term, None
        chosen = next((c for c in term.conventions if c.id == convention_id), None)
        if chosen is None:
            raise VocabularyError("The term has no such convention.", where=term_id, found=convention_id,
                                  expected=f"one of {', '.join(ids)}" if ids else "none: the term has a single reading",
                                  todo=f"atlas vocab show {term_id}")  # fmt: skip
        return term, chosen

    def _unknown(self, term_id: str) -> VocabularyError:
        meant = [t.id for t in self.find(term_id.partition("/")[0])]
        close = meant or difflib.get_close_matches(term_id, list(self.terms), n=3, cutoff=0.6)
        what = "The word is no id; it may mean several terms." if len(meant) > 1 else "The vocabulary has no such term."
        return VocabularyError(what, found=term_id[:200],
                               expected=" or ".join(close) if close else "an id such as navigator.viscosity/1",
                               todo="atlas vocab list shows every id")  # fmt: skip

    def with_term(self, term: Term) -> Vocabulary:
        """Return a vocabulary in which a term stands, in place of the one of its id if there is one."""
        return replace(self, terms={**self.terms, term.id: term})
