"""Claims as checkable statements: one model per operator. `claims/` evaluates them; `docs/measurements.md` defines them.

Operands are expressions (`claims/expression.py`) over the values of a record, such as ``max(perplexity) / 2`` or
``coupling[4]``. The set of operators is closed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from atlas_schema.documents.base import Document, Identifier, Line, Name, Positive

Decimal = Annotated[
    str,
    StringConstraints(
        pattern=r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?(e-?[1-9][0-9]?)?$",
        min_length=1, max_length=40,
    ),
]  # fmt: skip
"""A decimal number as text, because its last digit says how precise it is: ``13.70`` is not ``13.7``."""

Expression = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.,:+*/()\[\] -]{1,500}$", min_length=1, max_length=500)
]
Reading = Literal["rounded", "truncated", "exact"]
Strength = Literal["directional", "statistical", "replicated"]
Labels = Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=1000)]


class Monotone(Document):
    """Values rise (fall) in the order in which the record lists them; ``strict`` forbids equal neighbours."""

    operator: Literal["monotone_increasing", "monotone_decreasing"]
    series: Expression
    strict: bool


class Extreme(Document):
    """Every place where the series is largest (smallest) is one of ``labels``."""

    operator: Literal["argmax_in", "argmin_in"]
    series: Expression
    labels: Labels


class Outermost(Document):
    """``labels`` are exactly the places of the largest (smallest) values, as many as there are labels."""

    operator: Literal["largest_are", "smallest_are"]
    series: Expression
    labels: Labels


class Ratio(Document):
    """``numerator / denominator`` is at least (at most) ``bound``."""

    operator: Literal["ratio_at_least", "ratio_at_most"]
    numerator: Expression
    denominator: Expression
    bound: Expression


class Comparison(Document):
    """``left`` is strictly greater (less) than ``right``."""

    operator: Literal["greater_than", "less_than"]
    left: Expression
    right: Expression


class Within(Document):
    """``value`` lies between ``lower`` and ``upper``, both included."""

    operator: Literal["within"]
    value: Expression
    lower: Expression
    upper: Expression


class Equals(Document):
    """``expression``, written with the digits of ``stated`` and by its reading, is ``stated``."""

    operator: Literal["equals_expression"]
    stated: Decimal
    reading: Reading
    expression: Expression


class Counting(Document):
    """At least (at most) ``count`` values of the series lie strictly above (below) ``bound``."""

    operator: Literal["count_at_least", "count_at_most"]
    series: Expression
    side: Literal["above", "below"]
    bound: Expression
    count: Annotated[Positive, Field(le=1_000_000)]


class BeyondRecord(Document):
    """Nothing in the record bears on it: an explanation, or a statement about what was not measured."""

    operator: Literal["beyond_record"]
    needs: Line


Statement = Annotated[
    Monotone | Extreme | Outermost | Ratio | Comparison | Within | Equals | Counting | BeyondRecord,
    Field(discriminator="operator"),
]


class Claim(Document):
    """One claim. ``says`` is the wording as made, ``reading`` how it was put as a statement."""

    id: Name
    says: Line
    reading: Line
    strength: Strength
    statement: Statement
