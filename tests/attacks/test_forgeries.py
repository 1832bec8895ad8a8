"""What comes of every forgery is what the registry, the page of attacks and the threat model say."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacks import forged_plans
from attacks.forgeries import FORGERIES, NAME, fitting, lines_of, tried
from attacks.world import Outcome, shipped

from atlas_schema.reports.json import as_dict
from atlas_schema.study.preregister import digest_of
from atlas_schema.verify.outcome import Code
from atlas_schema.verify.rules import RULES
from benchmarks.page import section

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"
QUICK = ("text_report_in_a_receipts_place", "arm_left_out", "drift_smoothed_under_the_bases_router")
"""One that is refused at once, one that contradicts the plan, and the one that costs least and is believed."""


@pytest.mark.parametrize("name", QUICK)
def test_a_forgery_comes_out_as_stated(name: str) -> None:
    found = tried(FORGERIES[name])
    assert fitting(found.outcome, FORGERIES[name]), found


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in FORGERIES if name not in QUICK])
def test_every_forgery_comes_out_as_stated(name: str) -> None:
    found = tried(FORGERIES[name])
    assert fitting(found.outcome, FORGERIES[name]), found


def test_what_is_stated_is_not_fitted_by_anything() -> None:
    caught, believed = FORGERIES["arm_left_out"], FORGERIES["invented"]
    green = Outcome(Code.VERIFIED, (), (), "preserved", "preserved")
    assert fitting(green, believed)
    assert not fitting(green, caught)
    assert not fitting(Outcome(Code.INADMISSIBLE, ("C008", "C009"), ("contract",), "", ""), caught)
    assert not fitting(Outcome(Code.NOT_PRESERVED, (), (), "rewritten", "rewritten"), believed)
    assert not fitting(Outcome(Code.VERIFIED, ("R013",), ("reproduction",), "preserved", "preserved"), believed)


def test_what_is_caught_names_rules_and_what_is_believed_names_who_would_catch_it() -> None:
    for known in FORGERIES.values():
        assert all(f"ATL-{rule}" in RULES for rule in known.rules), known.name
        assert bool(known.rules) != bool(known.left_to), known.name
        assert not known.believed or (known.code is Code.VERIFIED) == (known.verdict == "preserved"), known.name
        assert lines_of(known.make) >= 2, known.name


def rows(page: Path) -> dict[str, list[str]]:
    """Return the rows of the page's tables by the forgery that they name."""
    cells = [
        [c.strip() for c in line.strip("|").split("|")]
        for line in section(page, NAME).splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row for row in cells}


def test_the_page_has_every_forgery_as_it_is_stated() -> None:
    found = rows(PAGE)
    assert list(found) == [n for n in FORGERIES if not FORGERIES[n].believed] + [
        n for n in FORGERIES if FORGERIES[n].believed
    ]
    for name, row in found.items():
        known = FORGERIES[name]
        assert row[1:3] == [known.says, known.evidence]
        if known.believed:
            assert row[3:5] + row[7:] == [known.verdict, str(int(known.code)), known.left_to], name
            assert (int(row[5]), float(row[6]) >= 0) == (lines_of(known.make), True), name
        else:
            assert row[4:] == [" ".join(known.rules), str(int(known.code))], name
            assert set(row[3].split(", ")) == {RULES[f"ATL-{r}"].channel.value for r in known.rules}, name


def test_a_report_names_the_receipt_that_it_is_about() -> None:
    """Who is sent a report instead of a receipt can compare it with the receipt, and make the report anew."""
    assert as_dict(forged_plans.green())["digests"]["receipt"] == digest_of(shipped("demo").receipt("preserved"))
    for name in ("json_report_in_a_receipts_place", "text_report_in_a_receipts_place"):
        made = FORGERIES[name].make()
        assert made.raw is not None
        assert b"VERIFIED" in made.raw
