"""What must hold of a vocabulary. `faults` returns every breach with where it is and what to do; none means it holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from atlas_schema.vocabulary.model import DERIVING, Status, Term, Vocabulary

ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*/[1-9][0-9]?")
OWN_NAME = re.compile(r"[a-z][a-z0-9_]*")
SYMBOL = re.compile(r"[A-Za-zΑ-Ωα-ω][A-Za-z0-9_Α-Ωα-ω]*\*?")
WORDS = frozenset({"for", "all", "and", "while", "is", "smooth", "jumps", "at", "of", "exp", "log"})
"""What stands in formulas and is no symbol; ∂, ∇, ∑ and ‖ are operators, not letters."""
READABLE = frozenset({"name", "qualifiers", "formula", "description", "references"})
UNTESTED = frozenset({Status.WORKING_HYPOTHESIS, Status.OPEN_QUESTION})
MOST_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """One breach: the check's name, the entry, what is wrong there, and what to do."""

    check: str
    where: str
    what: str
    todo: str


def faults(vocabulary: Vocabulary) -> tuple[Fault, ...]:
    """Return every breach, in the order of entries."""
    found = [fault for term in vocabulary.terms.values() for fault in _term_faults(term, vocabulary)]
    found += _cycles(vocabulary)
    found += _collapses(vocabulary)
    found += _conflicts(vocabulary)
    return (*found, *_unused(vocabulary))


def _term_faults(term: Term, vocabulary: Vocabulary) -> Iterator[Fault]:
    yield from _form(term, vocabulary)
    yield from _resolution(term, vocabulary)
    yield from _symbols(term)
    yield from _statuses(term)


def _form(term: Term, vocabulary: Vocabulary) -> Iterator[Fault]:
    own = [*(c.name for c in term.conventions), *(s.name for s in term.statements)]
    ids = [term.id, *(c.id for c in term.conventions), *(s.id for s in term.statements)]
    if not ID.fullmatch(term.id) or not all(OWN_NAME.fullmatch(n) for n in own) or max(map(len, ids)) > MOST_DIGITS:
        yield Fault(
            "id",
            term.id,
            "an id does not have the form layer.name/version, or is too long",
            "rename it before it is used",
        )
    if term.id != f"{term.layer}.{term.name}/{term.version}" or term.layer not in vocabulary.layers:
        yield Fault("id", term.id, "the id does not follow from layer, name and version", "correct the three")
    if len(set(ids)) != len(ids):
        yield Fault("id", term.id, "a convention or statement stands twice", "rename one")
    if len(term.qualifiers) not in (0, 2) or len(set(term.qualifiers)) != len(term.qualifiers):
        yield Fault("qualifiers", term.id, f"{len(term.qualifiers)} qualifiers", "name the two poles, or none")
    layer = vocabulary.layers.get(term.layer)
    if layer and layer.qualified and not term.qualifiers and "qualifiers" not in term.unknown:
        yield Fault(
            "qualifiers",
            term.id,
            "no qualifiers and not marked unknown",
            "name the two poles, or mark the field unknown",
        )
    for name in ("title", "description"):
        if not getattr(term, name).strip():
            yield Fault("form", term.id, f"no {name}", "write one")
    for name in (*term.unknown, *term.inferred):
        if name not in READABLE:
            yield Fault(
                "form", term.id, f"'{name}' cannot be unknown or inferred", f"name one of {', '.join(sorted(READABLE))}"
            )
    for name in ("qualifiers", "formula", "references"):
        if name in term.unknown and getattr(term, name):
            yield Fault("form", term.id, f"{name} is marked unknown and is filled", "remove the one or the other")


def _resolution(term: Term, vocabulary: Vocabulary) -> Iterator[Fault]:
    for reference in term.references:
        if reference not in vocabulary.references:
            yield Fault(
                "reference",
                term.id,
                f"reference '{reference}' does not resolve",
                "add it to references.toml, or correct it",
            )
    for source in (term.source, *(c.source for c in term.conventions)):
        if source not in vocabulary.sources:
            yield Fault(
                "reference", term.id, f"source '{source}' does not resolve", "add it to sources.toml, or correct it"
            )
    for target in term.depends_on:
        if target not in vocabulary.terms:
            yield Fault(
                "dependency", term.id, f"dependency '{target}' does not resolve", "add the term, or correct the id"
            )
    if len(set(term.depends_on)) != len(term.depends_on) and any(
        count > 1 for count in Counter((d.term, d.kind) for d in term.depends).values()
    ):
        yield Fault("dependency", term.id, "a dependency stands twice", "remove one")


def _symbols(term: Term) -> Iterator[Fault]:
    used = symbols_of(term.formula, frozenset(term.symbols))
    for symbol in sorted(used - set(term.symbols)):
        yield Fault(
            "symbol", term.id, f"symbol '{symbol}' of the formula is not defined", "say in symbols what it means"
        )
    for symbol in sorted(set(term.symbols) - used):
        yield Fault(
            "symbol",
            term.id,
            f"symbol '{symbol}' is defined and not in the formula",
            "remove it, or correct the formula",
        )
    for symbol, meaning in term.symbols.items():
        if not meaning.strip():
            yield Fault("symbol", term.id, f"symbol '{symbol}' has no meaning", "say what it means")


def symbols_of(formula: str, defined: frozenset[str]) -> set[str]:
    """Return a formula's symbols. A word is one symbol where it is defined as one, else its parts around ``_`` are.

    ``∂²L/∂θ_i∂θ_j`` holds L, θ, i and j; ``L_max`` is one symbol where it is defined, and otherwise L and max. Numbers
    and the words of `WORDS` are none. A word such as ``xyz`` is one symbol, never a product.
    """
    found: set[str] = set()
    for word in SYMBOL.findall(formula.replace("…", " ")):
        parts = (
            [word]
            if word in defined
            else [word.removesuffix("*")]
            if word.removesuffix("*") in defined
            else word.split("_")
        )
        found |= {part for part in parts if part and not part.isdigit() and part not in WORDS}
    return found


def _statuses(term: Term) -> Iterator[Fault]:
    if term.status is Status.ESTABLISHED and not term.references and term.source != "this-project" and not term.flags:
        yield Fault(
            "status",
            term.id,
            "established without a reference and without a flag that says so",
            "cite a work, or lower the status",
        )
    if term.status is Status.ESTABLISHED and "description" in term.unknown:
        yield Fault("status", term.id, "established, but its definition is unknown", "lower the status")
    if term.status in UNTESTED and not term.statements:
        yield Fault(
            "status", term.id, "untested, but says nothing that could be tested", "add the statement and its test"
        )
    for dependency in term.depends:
        if (
            dependency.kind in DERIVING
            and dependency.status not in UNTESTED
            and dependency.status is not Status.ESTABLISHED
        ):
            yield Fault("status", term.id, f"derivation from {dependency.term} is neither established nor an untested hypothesis",
                        "give the dependency a status")  # fmt: skip
        if dependency.kind in DERIVING and dependency.status is Status.ESTABLISHED and not term.references:
            yield Fault(
                "status",
                term.id,
                f"derivation from {dependency.term} is established without a reference",
                "cite a work",
            )
    for statement in term.statements:
        if statement.status not in UNTESTED and not term.references:
            yield Fault(
                "status",
                statement.id,
                "counts as tested without a reference",
                "cite a work, or call it a working hypothesis",
            )
        if statement.status in UNTESTED and not statement.test.strip():
            yield Fault("status", statement.id, "a hypothesis without a test", "say what would test it")
        if statement.status not in UNTESTED and statement.test.rstrip().endswith("not run"):
            yield Fault("status", statement.id, "its test has not been run, and it counts as more than a hypothesis",
                        "call it a working hypothesis")  # fmt: skip


def _cycles(vocabulary: Vocabulary) -> Iterator[Fault]:
    """Find cycles of the graph of dependencies; a contrast binds nothing and is no edge."""
    edges = {i: [d.term for d in t.depends if d.kind != "contrast" and d.term in vocabulary.terms]
             for i, t in vocabulary.terms.items()}  # fmt: skip
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        stack = [(start, iter(edges[start]))] if start not in done else []
        path += [start] if stack else []
        while stack:
            node, rest = stack[-1]
            after = next(rest, None)
            if after is None:
                stack.pop()
                done.add(path.pop())
            elif after in path:
                yield Fault("cycle", node, "depends on itself: " + " → ".join([*path[path.index(after) :], after]),
                            "remove one of these dependencies")  # fmt: skip
            elif after not in done:
                path.append(after)
                stack.append((after, iter(edges[after])))


def _collapses(vocabulary: Vocabulary) -> Iterator[Fault]:
    for layer in vocabulary.layers.values():
        terms = [t for t in vocabulary.terms.values() if t.layer == layer.id]
        stated = layer.collapse
        if stated is None:
            yield from (
                Fault("collapse", t.id, f"role '{t.role}' in a layer without a collapse", "remove it")
                for t in terms
                if t.role
            )
            continue
        if stated.source not in vocabulary.sources:
            yield Fault(
                "reference",
                layer.id,
                f"source '{stated.source}' does not resolve",
                "add it to sources.toml, or correct it",
            )
        if stated.status not in UNTESTED or not stated.test.strip():
            yield Fault("status", layer.id, "the collapse counts as more than an untested hypothesis, or names no test",
                        "call it a working hypothesis and say what would test it")  # fmt: skip
        for role, ids in (("independent", stated.independent), ("derived", stated.derived)):
            marked = sorted(t.id for t in terms if t.role == role)
            if marked != sorted(ids):
                yield Fault("collapse", layer.id, f"{role} terms are {', '.join(marked) or 'none'}, the collapse says "
                            f"{', '.join(sorted(ids)) or 'none'}", "correct the roles or the collapse")  # fmt: skip
        for term in terms:
            if not term.role:
                yield Fault("collapse", term.id, "neither independent nor derived", "give the term a role")
            yield from _bottom(term, vocabulary)


def _bottom(term: Term, vocabulary: Vocabulary) -> Iterator[Fault]:
    """Check that what a readout is derived from ends in independent variables, and that those are derived from nothing."""
    if term.independent and term.derived_from:
        yield Fault(
            "collapse",
            term.id,
            f"independent, but derived from {', '.join(term.derived_from)}",
            "correct role or dependency",
        )
    if term.role == "derived" and not term.derived_from:
        yield Fault("collapse", term.id, "derived from nothing: its dependencies do not end in the independent variables",
                    "name what it is derived from")  # fmt: skip
    seen, open_ids = set(), list(term.derived_from)
    while open_ids:
        at = vocabulary.terms.get(open_ids.pop())
        if at is None or at.id in seen:
            continue
        seen.add(at.id)
        open_ids += at.derived_from
        if not at.derived_from and not at.independent:
            yield Fault("collapse", term.id, f"its derivation ends in {at.id}, which is no independent variable",
                        "derive it from the independent variables")  # fmt: skip


def _conflicts(vocabulary: Vocabulary) -> Iterator[Fault]:
    recorded = {i for c in vocabulary.conflicts if c.kind == "convention" for i in c.terms}
    for conflict in vocabulary.conflicts:
        for missing in (i for i in conflict.terms if i not in vocabulary.terms):
            yield Fault("conflict", conflict.word, f"term '{missing}' does not resolve", "correct the id")
        if conflict.kind == "homonym" and len(set(conflict.terms)) < 2:
            yield Fault("conflict", conflict.word, "a homonym needs two terms", "name the other term")
    for term in vocabulary.terms.values():
        if len(term.conventions) == 1:
            yield Fault(
                "conflict",
                term.id,
                "one convention is no choice",
                "record the other reading, or fold it into the description",
            )
        if (term.id in recorded) != bool(term.conventions):
            yield Fault("conflict", term.id, "conventions and recorded conflicts do not agree",
                        "a term with conventions stands in conflicts.toml, and no other")  # fmt: skip
    names = Counter(name for name, _ in {(t.name, t.layer) for t in vocabulary.terms.values()})
    for name in (n for n, count in names.items() if count > 1):
        ids = {t.id for t in vocabulary.terms.values() if t.name == name}
        if not any(c.kind == "homonym" and ids <= set(c.terms) for c in vocabulary.conflicts):
            yield Fault("conflict", name, f"one name for several terms, not recorded: {', '.join(sorted(ids))}",
                        "record the homonym in conflicts.toml")  # fmt: skip


def _unused(vocabulary: Vocabulary) -> Iterator[Fault]:
    terms = vocabulary.terms.values()
    sources = {s for t in terms for s in (t.source, *(c.source for c in t.conventions))}
    sources |= {layer.collapse.source for layer in vocabulary.layers.values() if layer.collapse}
    for kind, known, used in (
        ("reference", vocabulary.references, {r for t in terms for r in t.references}),
        ("source", vocabulary.sources, sources),
        ("layer", vocabulary.layers, {t.layer for t in terms}),
    ):
        for unused in sorted(set(known) - used):
            yield Fault("reference", unused, f"this {kind} is used nowhere", "remove it, or use it")
