"""Less is never better: what is taken away from a submission establishes nothing that the whole did not.

Codes 0 (verified) and 1 (another verdict) are established; 3 to 6 are not. Whatever is removed, an outcome stays as it is or
becomes one of 3 to 6, and a verdict that is still told is the same. Of what a reviewer asks for the converse holds: asking
for more never gives a later code in the order 3, 4, 5, 6, 1, 0, but that a missed threshold of signatures
leaves what was signed unread, and then one of 3 to 6 may become another of them.

Rows do not change in most of these tests, so what no change enters is `remembered`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from attacks.remembered import remembered
from documents.records import measurement
from hypothesis import given
from hypothesis import strategies as st
from properties.contract import THOROUGH, holds
from signing.material import envelope, key, written
from simulator import StudySimulator
from verify import record_defects as defects
from verify.cases import OTHER
from verify.forging import Json, as_json, encoded, honest, reissued, study, submission, verified
from verify.record_defects import CASES, SUPPORTED, bound, measured, told
from verify.test_authenticity import FILES

from atlas_schema.documents.receipt import FREE_TEXT
from atlas_schema.evidence.tables import STUDY_TABLES
from atlas_schema.signing.statement import statement_bytes
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.authenticity import Signed
from atlas_schema.verify.outcome import Channel, Code, Report, Status, exit_code
from atlas_schema.verify.reading import pointer
from atlas_schema.verify.verifier import Options, Submission, statement_over, verify

ESTABLISHED = (Code.VERIFIED, Code.NOT_PRESERVED)
NOTHING = (Code.INADMISSIBLE, Code.TAMPERED, Code.DIVERGED, Code.UNPROVEN)
PRECEDENCE = (Code.INADMISSIBLE, Code.TAMPERED, Code.DIVERGED, Code.UNPROVEN, Code.NOT_PRESERVED, Code.VERIFIED)
Path = tuple[str | int, ...]


@pytest.fixture(scope="module", autouse=True)
def looked_at_once() -> Iterator[None]:
    with remembered():
        yield


def require_no_better(before: Report, after: Report, what: object) -> None:
    was, now = exit_code(before), exit_code(after)
    assert now is was or now in NOTHING, f"{what}: {was.name} became {now.name}"
    assert after.verdict in (None, before.verdict), f"{what}: verdict {before.verdict} became {after.verdict}"


@cache
def signed(arm: str) -> Submission:
    """A submission with everything: documents, rows, manifest, a signature by two people."""
    plain = submission(study(), honest(arm), manifest=lambda: FILES)
    made = statement_over(plain)
    if made is None:
        raise ValueError("the honest submission has a statement")
    return replace(plain, signature=Signed("receipt.dsse.json", written(envelope(1, 2, payload=statement_bytes(made)))))


KEYS = Options(keys=(key(1).public, key(2).public), threshold=2)
PARTS = ("preregistration", "run_log", "contract", "open_evidence", "manifest", "signature")
ARMS = ("frozen", "close", "rewritten")


@holds(
    "less",
    "Every set of documents, rows, manifest and signature taken away: never a better code, never another verdict.",
    part="one arm, small sets",
)
@pytest.mark.parametrize("arm", ARMS if THOROUGH else ARMS[2:])
def test_parts_of_a_submission(arm: str) -> None:
    for options in (Options(), KEYS):
        whole = verify(signed(arm), options)
        assert exit_code(whole) in ESTABLISHED
        for size in range(1, len(PARTS) + 1) if THOROUGH else (1, 2, len(PARTS)):
            for gone in combinations(PARTS, size):
                lost: dict[str, Any] = dict.fromkeys(gone)
                after = verify(replace(signed(arm), **lost), options)
                require_no_better(whole, after, gone)
                needed = set(gone) - (set() if options.signed else {"manifest", "signature"})
                assert (exit_code(after) in ESTABLISHED) == (not needed), gone


# --- fields ---------------------------------------------------------------------------------------------------------


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every member and element of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, (*path, name))


def without(value: Json, gone: list[Path]) -> Json:
    """Return a copy without some members; elements of lists go last first, so that positions stay what they were."""
    left = copy.deepcopy(value)
    for path in sorted(gone, key=lambda p: [(isinstance(x, int), -x if isinstance(x, int) else 0) for x in p]):
        inner: Any = left
        try:
            for part in path[:-1]:
                inner = inner[part]
            del inner[path[-1]]
        except (KeyError, IndexError):
            continue  # went with what it stood in
    return left


@cache
def documents(arm: str) -> dict[str, Json]:
    s = study()
    return {"receipt": as_json(honest(arm)), "preregistration": as_json(s.preregistration), "run_log": as_json(s.run_log),
            "contract": as_json(s.contract)}  # fmt: skip


@cache
def all_places(arm: str, name: str) -> list[Path]:
    return list(places(documents(arm)[name]))


@cache
def whole(arm: str) -> Report:
    return verified(study(), honest(arm))


@holds(
    "less",
    "Any fields, elements or whole parts of any of a receipt's documents taken away: never established again.",
    15,
    600,
)
@given(arm=st.sampled_from(ARMS), data=st.data())
def test_fields_of_documents(arm: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(documents(arm))))
    gone = data.draw(st.lists(st.sampled_from(all_places(arm, name)), min_size=1, max_size=3, unique=True))
    left = encoded(without(documents(arm)[name], gone))
    beside: dict[str, Any] = {} if name == "receipt" else {name: left}
    after = verified(study(), left if name == "receipt" else honest(arm), **beside)
    require_no_better(whole(arm), after, (name, gone))
    free = name == "receipt" and all(any(pointer(p).startswith(f"{text}/") for text in FREE_TEXT) for p in gone)
    assert free or exit_code(after) in NOTHING


# --- rows -----------------------------------------------------------------------------------------------------------


def keeping(made: StudySimulator, table: str, keep: list[bool]) -> StudySimulator:
    return made.with_table(table, made.tables[table].filter(pa.array(keep)))


def fewer_rows(data: st.DataObject) -> tuple[str, StudySimulator]:
    """Draw a study with rows taken away: some of one table, or all of a run, of a window, of a document or of a table."""
    made, how = study(), data.draw(st.sampled_from(["rows", "run", "window", "cluster", "item", "table"]))
    if how in ("rows", "table"):
        table = data.draw(st.sampled_from(STUDY_TABLES))
        count = made.tables[table].num_rows
        gone = (
            set(range(count))
            if how == "table"
            else data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=5))
        )
        return f"{how} of {table}", keeping(made, table, [at not in gone for at in range(count)])
    column = {"run": "run_id", "window": "window_id", "cluster": "cluster_id", "item": "item_id"}[how]
    source = {"run": "run", "item": "task"}.get(how, "window")
    value = data.draw(st.sampled_from(sorted({row[column] for row in made.rows(source)})))
    windows = {row["window_id"] for row in made.rows("window") if row.get(column) == value}
    for table in STUDY_TABLES:
        names = made.tables[table].schema.names
        of = column if column in names else "window_id" if how == "cluster" and "window_id" in names else ""
        if of:
            dropped = windows if how == "cluster" and of == "window_id" else {value}
            made = keeping(made, table, [x not in dropped for x in made.tables[table].column(of).to_pylist()])
    return f"{how} {value}", made


@holds(
    "less",
    "Rows, windows, documents, items, runs or tables left out, even with all roots and citations written anew: never.",
    4,
    150,
    costly=True,
)
@given(arm=st.sampled_from(ARMS), forged=st.booleans(), data=st.data())
def test_rows(arm: str, forged: bool, data: st.DataObject) -> None:
    what, made = fewer_rows(data)
    if forged:
        try:
            made, receipt = reissued(made, arm, receipt=honest(arm))
        except (IndexError, KeyError, ValueError):
            return  # nothing to describe is left, so there is nothing to issue
        after = verified(made, receipt)
    else:
        after = verified(made, honest(arm))
    assert exit_code(after) in NOTHING, what
    assert after.verdict is None


@holds(
    "less",
    "A plan with an arm, an item, a window or a null arm less is another plan: refused under the reviewer's pin.",
)
@pytest.mark.parametrize("gone", ["arms", "windows", "items"])
def test_a_smaller_plan_is_not_the_pinned_one(gone: str) -> None:
    s, pin = study(), digest_of(study().preregistration)
    plan = as_json(s.preregistration)
    changes: Json = {"task": {"items": plan["task"]["items"][1:]}} if gone == "items" else {gone: plan[gone][1:]}
    again, receipt = reissued(s.with_preregistration(changes), "close", receipt=honest("close"))
    assert exit_code(verified(again, receipt, Options(pin=pin))) in (Code.INADMISSIBLE, Code.TAMPERED)


# --- what the reviewer asks for -------------------------------------------------------------------------------------

PROFILES = ("schema", "offline", "review", "release", "replay")
PINS = (None, digest_of(study().preregistration), OTHER)
DEMANDS = st.tuples(
    st.integers(0, 4), st.sampled_from([0, 0, 1, 2]), st.sampled_from([None, b"\x07" * 32]), st.integers(0, 3), st.integers(0, 2)
)  # fmt: skip


def options(profile: int, pin: int, seed: bytes | None, threshold: int, keys: int) -> Options:
    """Return a reviewer's demands. ``threshold`` 0 asks for no signature; ``keys`` beyond the first are pinned too."""
    if profile == 0:  # opens no other document, so that a pin or a key leaves it unproven whatever there is
        return Options(profile="schema", seed=seed)
    pinned = tuple(key(number).public for number in range(1, 2 + keys)) if threshold else ()
    return Options(profile=PROFILES[profile], pin=PINS[pin], seed=seed, keys=pinned, threshold=max(1, threshold))


@cache
def submitted(what: str) -> Submission:
    """Submissions in which this or that is wrong, or nothing."""
    made = signed("close")
    if what in ARMS:
        return signed(what)
    receipt = documents("close")["receipt"]
    wrong: dict[str, Submission] = {
        "unsigned": replace(made, signature=None), "without rows": replace(made, open_evidence=None),
        "without a log": replace(made, run_log=None), "a stranger's": replace(made, raw=encoded({**receipt, "notes": "x"})),
        "another claim": replace(made, raw=encoded({**receipt, "claim": {**receipt["claim"], "verdict": "damaged"}})),
        "another root": replace(made, raw=encoded({**receipt, "evidence": {**receipt["evidence"], "root": OTHER}})),
        "a contract": replace(made, raw=encoded(documents("close")["contract"])),
    }  # fmt: skip
    return wrong[what]


WHAT = (
    *ARMS,
    "unsigned",
    "without rows",
    "without a log",
    "a stranger's",
    "another claim",
    "another root",
    "a contract",
)


@holds(
    "less", "A reviewer who asks for more (profile, pin, seed, a higher threshold) never gets a better code.", 20, 600
)
@given(what=st.sampled_from(WHAT), fewer=DEMANDS, more=DEMANDS)
def test_asking_for_more(what: str, fewer: Any, more: Any) -> None:
    keys = fewer[4]  # which keys are trusted is no demand: one more key may be what was missing
    pin = fewer[1] or more[1]
    if max(fewer[0], more[0]) >= PROFILES.index(
        "release"
    ):  # which asks for a signature: a key is what it lacks, no demand
        fewer = (*fewer[:3], max(1, fewer[3]), keys)
    both = (max(fewer[0], more[0]), pin, fewer[2] or more[2], max(fewer[3], more[3]), keys)
    less, asked = (verify(submitted(what), options(*demands)) for demands in (fewer, both))
    before, after = exit_code(less), exit_code(asked)
    # A threshold that is missed leaves the payload unread, and with it what that would have contradicted.
    unread = both[3] > max(1, fewer[3]) and before in NOTHING and after in NOTHING
    assert unread or PRECEDENCE.index(after) <= PRECEDENCE.index(before), (what, fewer, both)


# --- measurements ---------------------------------------------------------------------------------------------------

UNSUPPORTED = ("refuted_by_itself", "too_few_digits", "statistics_of_one", "replicated_in_words")
"""Records that are sound and do not support what they claim: contradicted, undetermined, unlicensed, unlicensed."""


@pytest.fixture(scope="module")
def unsupported() -> dict[str, Json]:
    """The records behind these cases, as they are submitted."""
    found: dict[str, Json] = {}
    for name in UNSUPPORTED:
        with pytest.MonkeyPatch.context() as patch:

            def keep(value: Json, options: Options = SUPPORTED, name: str = name, **given: Any) -> Report:
                found[name] = value
                return told(value, options, **given)

            patch.setattr(defects, "told", keep)
            CASES[name][3]()
    return found


def withdrawn(path: Path) -> bool:
    """Whether a removal makes it another record: it claims less, or does not record a value."""
    return (len(path) == 2 and path[0] == "claims") or (path[0] == "series" and len(path) == 4 and path[2] == "values")


@holds(
    "less",
    "Any field of a measurement that supports nothing, taken away or blanked, supports no more; but a claim or a value itself.",
    part="every third",
)
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_fields_of_measurements(name: str, unsupported: dict[str, Json]) -> None:
    record = unsupported[name]
    before = told(record)
    assert exit_code(before) in (Code.NOT_PRESERVED, Code.UNPROVEN)
    for at, path in enumerate(places(record)):
        if (not THOROUGH and at % 3) or withdrawn(path):
            continue
        blanked = copy.deepcopy(record)
        inner: Any = blanked
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = None
        for left in (without(record, [path]), blanked):
            assert exit_code(told(left)) is not Code.VERIFIED, path


@holds("less", "A measurement whose rows, or any of whose rows, are taken away is not verified.")
def test_rows_of_measurements() -> None:
    record, rows = bound(), measured()
    assert exit_code(told(record, open_rows=lambda: rows)) is Code.VERIFIED
    assert exit_code(told(record)) is Code.UNPROVEN
    for gone in range(rows.n):
        kept = rows.take(np.array([at for at in range(rows.n) if at != gone]))
        assert exit_code(told(record, open_rows=lambda kept=kept: kept)) is Code.TAMPERED


def test_what_the_page_calls_other_statements() -> None:
    """`docs/contracts.md` lists what may be left out of a measurement and make it support more: these are other records."""

    def statistical(m: Json) -> None:
        m["licence"], m["claims"] = "statistical", [{**m["claims"][1], "strength": "statistical"}]
        m["claims"][0]["statement"] = {
            "operator": "greater_than",
            "left": "perplexity[poetry]",
            "right": "perplexity[code]",
        }
        m["series"] = m["series"][1:]

    def of_one(m: Json) -> None:
        statistical(m)
        m["series"][0]["values"][0]["n"] = 1

    def by_the_series(m: Json) -> None:
        of_one(m)
        m["series"][0]["values"][0]["n"] = None

    assert exit_code(told(measurement(statistical))) is Code.VERIFIED
    assert exit_code(told(measurement(of_one))) is Code.UNPROVEN
    assert exit_code(told(measurement(by_the_series))) is Code.VERIFIED
    wrong = bound(lambda m: m["series"][1]["values"][0].update(value="13.1"))
    assert exit_code(told(wrong, open_rows=measured)) is Code.DIVERGED
    wrong["evidence"] = wrong["series"][1]["values"][0]["rows"] = None
    wrong["series"][1]["values"][0]["uncertainty"]["method"] = "stated"
    unbound = told(wrong)
    assert exit_code(unbound) is Code.VERIFIED
    assert unbound.status(Channel.BINDING) is unbound.status(Channel.REPRODUCTION) is Status.NOT_APPLICABLE
