"""Measurements that could settle a prediction, made up from what its rule asks for."""

from __future__ import annotations

import json
import random
from typing import Any

from documents.records import measurement

from atlas_schema.claims.expression import references
from atlas_schema.claims.vacuous import expressions
from atlas_schema.documents.measurement import Measurement
from atlas_schema.documents.prediction import Prediction, Requirement

Json = dict[str, Any]


def typed(record: Json) -> Measurement:
    return Measurement.model_validate_json(json.dumps(record))


def predicted(value: Json) -> Prediction:
    return Prediction.model_validate_json(json.dumps(value))


def asked(prediction: Prediction) -> dict[str, dict[str, list[str]]]:
    """Return labels by role and series; a series of which no label is named gets twelve, shared with its companions."""
    found: dict[str, dict[str, list[str]]] = {}
    for clause in (*prediction.rule.given, *prediction.rule.clauses):
        named = getattr(clause.statement, "labels", ())
        for _, text in expressions(clause.statement):
            for name, labels in references(text):
                role, _, series = name.partition(".")
                known = found.setdefault(role, {}).setdefault(series, [])
                known += [label for label in (*labels, *named) if label not in known]
    numbered = [str(i) for i in range(12)]
    for part in found.values():
        for series, known in part.items():
            if not known or set(known) <= set(numbered):
                part[series] = numbered
    return found


def standing_for(requirement: Requirement, series: dict[str, list[str]], draw: random.Random) -> Json:
    """Return a measurement that a role admits, with values drawn at random."""

    spans = [(0.005, 0.05), (0.05, 1), (0.9, 1.4)]

    def numbers(count: int) -> list[float]:
        chosen = draw.choice([*([span] for span in spans), spans])
        drawn = [draw.uniform(*draw.choice(chosen)) for _ in range(count)]
        return draw.choice([drawn, sorted(drawn), sorted(drawn, reverse=True)])

    def value(at: str, number: float) -> Json:
        uncertainty = {
            "lower": f"{number * 0.999:.9f}",
            "upper": f"{number * 1.001:.9f}",
            "level": 0.95,
            "method": "stated",
        }
        return {"at": at, "value": f"{number:.9f}", "n": 100, "uncertainty": uncertainty, "labels": [], "rows": None}

    def change(record: Json) -> None:
        record["id"] = f"for-{requirement.role}"
        record["instrument"]["id"] = requirement.instrument
        record["model"]["name"] = requirement.model or "any model"
        record["model"]["weights_digest"] = None
        record["conditions"] = [{"name": name, "value": "the same"} for name in ("texts", "probe")]
        record["conditions"] = [
            c for c in record["conditions"] if c["name"] not in {r.name for r in requirement.conditions}
        ]
        record["conditions"] += [{"name": c.name, "value": c.value} for c in requirement.conditions]
        record["licence"], record["claims"] = "statistical", []
        record["series"] = [
            {
                **record["series"][1],
                "name": name,
                "reading": "rounded",
                "values": [value(at, x) for at, x in zip(labels, numbers(len(labels)), strict=True)],
            }
            for name, labels in series.items()
        ]

    return measurement(change)


def world(prediction: Prediction, seed: int) -> dict[str, Measurement]:
    """Return one measurement for every role."""
    draw = random.Random(seed)
    needs = asked(prediction)
    return {r.role: typed(standing_for(r, needs[r.role], draw)) for r in prediction.requires}
