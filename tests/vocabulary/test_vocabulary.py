"""The shipped vocabulary holds, and every check of it fails on the defect it is for, naming entry and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_schema.vocabulary import Conflict, Dependency, Status, Term, Vocabulary, VocabularyError, load_vocabulary
from atlas_schema.vocabulary.check import Fault, faults, symbols_of
from atlas_schema.vocabulary.load import COMMON, ORDER, read_vocabulary

V = load_vocabulary()
TERMS = list(V.terms.values())
NAVIGATOR = [t for t in TERMS if t.layer == "navigator"]
DATA = resources.files("atlas_schema.vocabulary") / "data"
FILES = {p.name.removesuffix(".toml"): p.read_text("utf-8") for p in DATA.iterdir() if p.name.endswith(".toml")}


def test_the_shipped_vocabulary_holds() -> None:
    assert faults(V) == ()
    assert len(V.terms) > 60


def test_every_file_is_listed_and_read() -> None:
    assert set(FILES) == {*ORDER, *COMMON}
    assert list(V.layers) == list(ORDER)


def test_every_term_of_the_sources_is_there() -> None:
    """Typed in here once more, so that a term cannot be lost in silence."""
    named: dict[str, set[str]] = {}
    for term in TERMS:
        named.setdefault(term.layer, set()).add(term.name)
    assert named["navigator"] == {
        "density",
        "perplexity",
        "probability",
        "coupling",
        "viscosity",
        "elasticity",
        "memory",
    }
    assert named["global"] == {"basin_connectivity", "symmetry_orbits", "phase_transitions", "algorithmic_branches"}
    assert named["architecture"] == {"parameters", "weights", "embeddings", "layers", "attention_heads", "feed_forward",
                                     "normalization", "transformer"}  # fmt: skip
    assert named["training"] == {"domain", "corpus", "fine_tuning", "rlhf", "tokenization", "cross_entropy",
                                 "gradient_descent", "hessian"}  # fmt: skip
    assert named["terrain"] == {"slope", "temperature", "friction", "slippery", "tension", "flexion", "elevation"}
    assert named["shape"] == {"bowl", "valley", "saddle", "plateau", "ridge", "basin"}
    assert named["flow"] >= {"resistance", "laminar_flow", "turbulent_flow"}
    assert named["potential"] == {"potential_difference", "tension", "harmonics"}
    assert named["integrity"] == {"structural_integrity", "context_compression_pressure", "objective_capture",
                                  "manifold_displacement", "regime_switch"}  # fmt: skip
    assert named["ablation"] == {"ablation", "ablation_drift_vector", "drag_coefficient_delta"}


def test_seven_qualifiers_come_down_to_three_variables() -> None:
    assert {t.name for t in NAVIGATOR if t.independent} == {"density", "coupling", "elasticity"}
    assert {t.name for t in NAVIGATOR if t.role == "derived"} == {"perplexity", "probability", "viscosity", "memory"}
    assert V.terms["navigator.memory/1"].derived_from == ("navigator.viscosity/1",)
    assert V.terms["navigator.viscosity/1"].derived_from == ("navigator.coupling/1",)
    collapse = V.layers["navigator"].collapse
    assert collapse is not None
    assert collapse.status is Status.WORKING_HYPOTHESIS


def test_what_is_untested_says_so_wherever_it_is_shown() -> None:
    untested = {Status.WORKING_HYPOTHESIS, Status.OPEN_QUESTION}
    assert {s.status for t in TERMS for s in t.statements} <= untested
    for status in Status:
        words = status.label
        assert ("untested" in words) == (status in untested)
        assert ("established" in words) == (status is Status.ESTABLISHED)
    assert len({s.label for s in Status}) == len(Status)


def test_conflicts_are_recorded() -> None:
    assert {c.word for c in V.conflicts} >= {"viscosity", "tension", "tier", "R", "coupling", "quadrant"}
    one, other = V.terms["navigator.viscosity/1"].conventions
    assert "flat, icky" in one.statement
    assert "large λ_1 stands for high viscosity" in other.statement
    assert [t.id for t in V.find("tension")] == ["terrain.tension/1", "potential.tension/1"]
    assert len(V.find("tier")) == 3


# --- citing ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from(TERMS))
def test_every_term_can_be_cited_and_needs_its_convention(term: Term) -> None:
    if not term.conventions:
        assert V.cite(term.id, None) == (term, None)
    else:
        with pytest.raises(VocabularyError, match="more than one reading") as caught:
            V.cite(term.id, None)
        assert all(c.id in caught.value.expected for c in term.conventions)
        for convention in term.conventions:
            assert V.cite(term.id, convention.id) == (term, convention)
            assert V.convention(convention.id) == (term, convention)


@given(st.sampled_from(TERMS), st.sampled_from([c.id for t in TERMS for c in t.conventions]))
def test_a_convention_of_another_term_is_refused(term: Term, convention: str) -> None:
    if convention in {c.id for c in term.conventions}:
        return
    with pytest.raises(VocabularyError, match="no such convention") as caught:
        V.cite(term.id, convention)
    assert term.id in caught.value.where
    assert "atlas vocab show" in caught.value.todo


@given(st.text(max_size=30) | st.sampled_from(TERMS).map(lambda t: t.id[:-3] + "x/1"))
def test_an_unknown_term_is_refused_with_what_is_close(words: str) -> None:
    if words in V.terms:
        return
    with pytest.raises(VocabularyError) as caught:
        V.cite(words, None)
    assert "atlas vocab list" in caught.value.todo


def test_a_bare_word_that_means_two_terms_is_refused() -> None:
    with pytest.raises(VocabularyError, match="may mean several") as caught:
        V.cite("tension", None)
    assert "terrain.tension/1 or potential.tension/1" in caught.value.expected
    with pytest.raises(VocabularyError) as close:
        V.cite("navigator.viscosty/1", None)
    assert "navigator.viscosity/1" in close.value.expected


# --- every check fails on its defect --------------------------------------------------------------------------------


def changed(term_id: str, **changes: Any) -> Vocabulary:
    return V.with_term(replace(V.terms[term_id], **changes))


def without(mapping: Any, key: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k != key}


def edge(term_id: str, target: str, kind: Any = "notion", status: Status = Status.WORKING_HYPOTHESIS) -> Vocabulary:
    return changed(term_id, depends=(*V.terms[term_id].depends, Dependency(target, kind, status)))


VISCOSITY, MEMORY, DENSITY, HESSIAN = (
    "navigator.viscosity/1",
    "navigator.memory/1",
    "navigator.density/1",
    "training.hessian/1",
)
PERPLEXITY, COUPLING = "navigator.perplexity/1", "navigator.coupling/1"
DEFECTS: dict[str, tuple[Callable[[], Vocabulary], str, str]] = {
    "reference is nobody's": (lambda: changed(DENSITY, references=("nobody1900",)), "reference", "'nobody1900' does not resolve"),
    "reference is removed": (lambda: replace(V, references=without(V.references, "keskar2016")), "reference", "does not resolve"),
    "source is nobody's": (lambda: changed(DENSITY, source="hearsay"), "reference", "'hearsay' does not resolve"),
    "reference is unused": (lambda: changed("global.algorithmic_branches/1", references=()), "reference", "used nowhere"),
    "dependency dangles": (lambda: edge(DENSITY, "navigator.depth/1"), "dependency", "'navigator.depth/1' does not resolve"),
    "dependency twice": (lambda: edge(DENSITY, "training.corpus/1"), "dependency", "stands twice"),
    "term is removed": (lambda: replace(V, terms=without(V.terms, HESSIAN)), "dependency", "does not resolve"),
    "cycle of two": (lambda: edge("training.cross_entropy/1", HESSIAN), "cycle", "depends on itself"),
    "cycle of one": (lambda: edge(DENSITY, DENSITY), "cycle", "depends on itself"),
    "cycle over layers": (lambda: edge("training.corpus/1", PERPLEXITY), "cycle", "training.corpus/1"),
    "symbol is not defined": (lambda: changed(DENSITY, formula="D_KL(P_data ‖ Q)"), "symbol", "'Q' of the formula is not defined"),
    "symbol is not used": (lambda: changed(DENSITY, symbols={**V.terms[DENSITY].symbols, "Q": "a thing"}), "symbol", "'Q' is defined and not"),
    "symbol means nothing": (lambda: changed(DENSITY, symbols={**V.terms[DENSITY].symbols, "D_KL": " "}), "symbol", "no meaning"),
    "derived from nothing": (lambda: changed(MEMORY, depends=()), "collapse", "derived from nothing"),
    "derivation ends elsewhere": (
        lambda: changed(VISCOSITY, depends=(Dependency(HESSIAN, "causal", Status.WORKING_HYPOTHESIS),)), "collapse",
        "ends in training.hessian/1, which is no independent variable",
    ),
    "independent is derived": (lambda: edge(COUPLING, DENSITY, "causal"), "collapse", "independent, but derived"),
    "role is changed": (lambda: changed(DENSITY, role="derived"), "collapse", "the collapse says"),
    "role is lost": (lambda: changed(DENSITY, role=""), "collapse", "neither independent nor derived"),
    "role elsewhere": (lambda: changed(HESSIAN, role="independent"), "collapse", "without a collapse"),
    "collapse is a fact": (
        lambda: replace(V, layers={**V.layers, "navigator": replace(
            V.layers["navigator"], collapse=replace(V.layers["navigator"].collapse, status=Status.ESTABLISHED))}),  # type: ignore[type-var]
        "status", "more than an untested hypothesis",
    ),
    "hypothesis has no test": (
        lambda: changed(VISCOSITY, statements=(replace(V.terms[VISCOSITY].statements[0], test=" "),)), "status", "without a test"
    ),
    "hypothesis becomes a fact": (
        lambda: changed(VISCOSITY, statements=(replace(V.terms[VISCOSITY].statements[0], status=Status.ESTABLISHED),)), "status",
        "has not been run",
    ),
    "untested term says nothing": (lambda: changed(MEMORY, statements=()), "status", "nothing that could be tested"),
    "established by nobody": (lambda: changed(HESSIAN, references=(), flags=()), "status", "without a reference"),
    "established and unread": (lambda: changed(HESSIAN, unknown=("description",)), "status", "definition is unknown"),
    "derivation without status": (
        lambda: changed(VISCOSITY, depends=(Dependency(COUPLING, "causal", Status.FRAMEWORK),)), "status", "neither established nor"
    ),
    "one qualifier": (lambda: changed(DENSITY, qualifiers=("coarse",)), "qualifiers", "1 qualifiers"),
    "one pole twice": (lambda: changed(DENSITY, qualifiers=("coarse", "coarse")), "qualifiers", "2 qualifiers"),
    "qualifiers are missing": (lambda: changed(DENSITY, qualifiers=()), "qualifiers", "not marked unknown"),
    "known and unknown": (lambda: changed(DENSITY, unknown=("formula",)), "form", "marked unknown and is filled"),
    "unknown nonsense": (lambda: changed(DENSITY, inferred=("mood",)), "form", "'mood' cannot be"),
    "no description": (lambda: changed(DENSITY, description=" "), "form", "no description"),
    "id is not its name": (lambda: changed(DENSITY, name="thickness"), "id", "does not follow"),
    "id has another form": (lambda: V.with_term(replace(V.terms[DENSITY], id="Navigator.Density/1")), "id", "does not have the form"),
    "convention twice": (
        lambda: changed(VISCOSITY, conventions=V.terms[VISCOSITY].conventions * 2), "id", "stands twice"
    ),
    "one convention": (
        lambda: changed(VISCOSITY, conventions=V.terms[VISCOSITY].conventions[:1]), "conflict", "one convention is no choice"
    ),
    "conflict is smoothed": (lambda: changed(VISCOSITY, conventions=()), "conflict", "do not agree"),
    "conflict is forgotten": (
        lambda: replace(V, conflicts=tuple(c for c in V.conflicts if c.word != "viscosity")), "conflict", "do not agree"
    ),
    "homonym is forgotten": (
        lambda: replace(V, conflicts=tuple(c for c in V.conflicts if c.word != "tension")), "conflict", "one name for several terms"
    ),
    "homonym of one": (
        lambda: replace(V, conflicts=(*V.conflicts, Conflict("x", "homonym", "x", (DENSITY,)))), "conflict", "needs two terms"
    ),
    "homonym dangles": (
        lambda: replace(V, conflicts=(*V.conflicts, Conflict("x", "homonym", "x", (DENSITY, "no.thing/1")))), "conflict", "no.thing/1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DEFECTS))
def test_each_defect_is_found_and_named(name: str) -> None:
    make, check, words = DEFECTS[name]
    found = faults(make())
    hits = [f for f in found if f.check == check and words in f.what]
    assert hits, found
    assert all(f.where and f.todo for f in found)


def test_every_check_has_a_defect() -> None:
    source = (resources.files("atlas_schema.vocabulary") / "check.py").read_text("utf-8")
    assert set(re.findall(r'Fault\(\s*"(\w+)"', source)) == {check for _, check, _ in DEFECTS.values()}


@given(st.sampled_from([t.id for t in NAVIGATOR]), st.data())
def test_any_edge_back_is_a_cycle(term: str, data: st.DataObject) -> None:
    """From every term that this one rests on, an edge back closes a cycle; it is always found and always named."""
    below, open_ids = set(), list(V.terms[term].depends_on)
    while open_ids:
        at = open_ids.pop()
        if at not in below:
            below.add(at)
            open_ids += [d.term for d in V.terms[at].depends if d.kind != "contrast"]
    base = data.draw(st.sampled_from(sorted(below)))
    found = [f for f in faults(edge(base, term)) if f.check == "cycle"]
    assert found
    assert any(term in f.what and base in f.what for f in found)


@given(st.lists(st.sampled_from("abcXYZθλ"), min_size=1, max_size=5, unique=True), st.data())
def test_symbols_of_a_made_up_formula_are_found(names: list[str], data: st.DataObject) -> None:
    subscript = data.draw(st.sampled_from(["", "_i", "_{i,j}"]))
    formula = " + ".join(f"exp({name}{subscript}²/2)" for name in names)
    expected = set(names) | set({"": "", "_i": "i", "_{i,j}": "ij"}[subscript])
    assert symbols_of(formula, frozenset(names)) == expected


# --- reading the files ----------------------------------------------------------------------------------------------


def test_the_files_give_the_shipped_vocabulary() -> None:
    assert read_vocabulary(FILES) == V


BROKEN: dict[str, tuple[str, str, str, str]] = {
    "not TOML": ("navigator", "[layer]", "[layer", "not TOML"),
    "unknown field": ("navigator", 'role = "independent"', 'rôle = "x"', "not TOML"),
    "misspelt field": ("navigator", 'role = "independent"', 'roll = "independent"', "not known"),
    "unknown role": ("navigator", 'role = "independent"', 'role = "free"', "unknown value"),
    "unknown status": ("navigator", 'status = "established"', 'status = "true"', "unknown value"),
    "number for text": ("navigator", 'title = "Density"', "title = 3", "another type"),
    "text for a number": ("navigator", "version = 1", 'version = "1"', "another type"),
    "version zero": ("navigator", "version = 1", "version = 0", "1 or more"),
    "field is missing": ("navigator", 'title = "Density"\n', "", "missing"),
    "another layer's id": ("navigator", 'id = "navigator"', 'id = "sailor"', "another id than its file"),
    "term twice": ("navigator", 'name = "density"', 'name = "memory"', "stands twice"),
    "unknown kind": ("navigator", 'kind = "causal"', 'kind = "magic"', "unknown value"),
    "list of numbers": ("navigator", 'qualifiers = ["coarse", "fine"]', "qualifiers = [1, 2]", "list of strings"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_file_is_refused_with_its_place(name: str) -> None:
    file, old, new, words = BROKEN[name]
    assert old in FILES[file]
    with pytest.raises(VocabularyError, match=words) as caught:
        read_vocabulary({**FILES, file: FILES[file].replace(old, new, 1)})
    assert caught.value.where


@pytest.mark.parametrize("name", COMMON)
def test_a_missing_file_is_named(name: str) -> None:
    with pytest.raises(VocabularyError, match="missing") as caught:
        read_vocabulary({k: v for k, v in FILES.items() if k != name})
    assert name in caught.value.expected


def test_a_fault_is_a_sentence_for_a_person() -> None:
    fault: Fault = faults(changed(DENSITY, references=("nobody1900",)))[0]
    assert (fault.where, fault.todo) == (DENSITY, "add it to references.toml, or correct it")
