"""A small valid measurement and a prediction that it can settle, as JSON values; tests change copies of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
OTHER = "sha256:" + "ab" * 32

_MEASUREMENT: Json = {
    "kind": "measurement",
    "schema_version": "1.0",
    "id": "tiny-coupling",
    "title": "Coupling of a tiny model",
    "source": "made up for tests",
    "instrument": {
        "id": "head-coupling",
        "version": None,
        "description": "mean pairwise correlation of attention weights",
    },
    "model": {
        "name": "tiny",
        "parameters": 1000,
        "training_corpus": "none",
        "weights": "random",
        "weights_digest": OTHER,
        "fine_tuning": "none",
        "implementation": "by hand",
        "runtime": "CPU",
    },
    "date": "2026-04",
    "conditions": [{"name": "probe", "value": "one sentence"}, {"name": "texts", "value": "set 1"}],
    "series": [
        {
            "name": "coupling",
            "quantity": "mean correlation between heads of a layer",
            "unit": "1",
            "axis": "layer",
            "reading": "rounded",
            "term": "navigator.coupling/1",
            "convention": "navigator.coupling.attention_pearson/1",
            "relation": "proxy",
            "sample": {"size": 1, "approximate": False, "of": "probe inputs"},
            "values": [
                {"at": "0", "value": "0.50", "n": None, "uncertainty": None, "labels": [], "rows": None},
                {"at": "1", "value": "0.70", "n": None, "uncertainty": None, "labels": ["peak"], "rows": None},
                {"at": "2", "value": "0.60", "n": None, "uncertainty": None, "labels": [], "rows": None},
            ],
        },
        {
            "name": "perplexity",
            "quantity": "perplexity",
            "unit": "1",
            "axis": "domain",
            "reading": "truncated",
            "term": None,
            "convention": None,
            "relation": None,
            "sample": {"size": 5, "approximate": True, "of": "sentences"},
            "values": [
                {
                    "at": "code",
                    "value": "13.7",
                    "n": 5,
                    "uncertainty": {"lower": "12.0", "upper": "15.5", "level": 0.95, "method": "stated"},
                    "labels": [],
                    "rows": None,
                },
                {
                    "at": "poetry",
                    "value": "58.6",
                    "n": 5,
                    "uncertainty": {"lower": "50.0", "upper": "69.0", "level": 0.95, "method": "stated"},
                    "labels": [],
                    "rows": None,
                },
            ],
        },
    ],
    "replication": {"status": "unreplicated", "runs": 1},
    "licence": "directional_only",
    "claims": [
        {
            "id": "peak",
            "says": "The peak is at layer 1.",
            "reading": "the largest value stands at layer 1",
            "strength": "directional",
            "statement": {"operator": "argmax_in", "series": "coupling", "labels": ["1"]},
        },
        {
            "id": "fourfold",
            "says": "Poetry is four times as surprising.",
            "reading": "the ratio, rounded to a whole number, is 4",
            "strength": "directional",
            "statement": {
                "operator": "equals_expression",
                "stated": "4",
                "reading": "rounded",
                "expression": "perplexity[poetry] / perplexity[code]",
            },
        },
    ],
    "evidence": None,
    "judgements": [{"field": "reading", "asks": "what do you make of it?", "answer": None}],
    "notes": "",
}

_PREDICTION: Json = {
    "kind": "prediction",
    "schema_version": "1.0",
    "id": "tiny-peak",
    "title": "The peak is in the middle",
    "statement": "Coupling is largest in the middle layer.",
    "source": "made up for tests",
    "terms": ["navigator.coupling/1"],
    "requires": [
        {
            "role": "tiny",
            "instrument": "head-coupling",
            "model": "tiny",
            "conditions": [{"name": "probe", "value": "one sentence"}],
            "licence": "directional_only",
            "min_sample": 1,
            "min_runs": 1,
        }
    ],
    "same_conditions": ["texts"],
    "different_models": False,
    "rule": {
        "given": [
            {
                "id": "enough",
                "says": "there are three layers",
                "statement": {
                    "operator": "count_at_least",
                    "series": "tiny.coupling",
                    "side": "above",
                    "bound": "0",
                    "count": 3,
                },
            }
        ],
        "combine": "all",
        "clauses": [
            {
                "id": "middle",
                "says": "the largest value stands at layer 1",
                "statement": {"operator": "argmax_in", "series": "tiny.coupling", "labels": ["1"]},
            }
        ],
        "rationale": "the layer with the largest value is the peak",
    },
    "outcome": {"status": "not_run"},
    "notes": "",
}


def measurement(change: Callable[[Json], Any] | None = None) -> Json:
    """Return a copy of the measurement, changed."""
    return _changed(_MEASUREMENT, change)


def prediction(change: Callable[[Json], Any] | None = None) -> Json:
    """Return a copy of the prediction, changed."""
    return _changed(_PREDICTION, change)


def _changed(document: Json, change: Callable[[Json], Any] | None) -> Json:
    made = copy.deepcopy(document)
    if change is not None:
        change(made)
    return made
