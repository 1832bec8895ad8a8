"""Expressions over recorded values: a small closed language, parsed and evaluated here, over intervals.

::

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = "-" factor | number | "(" sum ")" | name "(" sum { "," sum } ")" | [ role "." ] series [ "[" label { "," label } "]" ]

One label gives a number, several (or none) a series. Arithmetic on series is label by label; a number stands for every
label. Nothing else is looked up or run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from atlas_schema.claims import interval as iv
from atlas_schema.claims.interval import Interval, NoIntervalError, bounded, exactly
from atlas_schema.errors import AtlasError
from atlas_schema.limits import LIMITS

Vector = Mapping[str, Interval]
"""Values by label, in the order of the series."""
Operand = Interval | Vector


class ClaimError(AtlasError):
    """An expression that cannot be read, or that asks for what the record does not have."""


@dataclass(slots=True)
class Scope:
    """The series that an expression may name, as ``series`` or ``role.series``.

    ``used`` collects every (series, label) that was looked at; ``left`` is what remains of the bound on work.
    """

    series: Mapping[str, Vector]
    used: set[tuple[str, str]] = field(default_factory=set)
    left: int = LIMITS.claim_operations

    def spend(self, operations: int) -> None:
        """Count work; raises `NoIntervalError` when the document has asked for too much."""
        self.left -= operations
        if self.left < 0:
            raise NoIntervalError(
                f"the statements of this document need more than {LIMITS.claim_operations:,} operations"
            )

    def look_up(self, name: str, labels: tuple[str, ...]) -> Operand:
        """Return the value at one label, or a series of several; no labels mean the whole series."""
        if name not in self.series:
            raise ClaimError("A statement refers to a series that is not there.", found=name,
                             expected=", ".join(self.series), todo="name a series of the record")  # fmt: skip
        values = self.series[name]
        for label in labels:
            if label not in values:
                raise ClaimError("A statement refers to a value that is not there.", found=f"{name}[{label}]",
                                 expected=f"one of {', '.join(list(values)[:40])}",
                                 todo="record the value, or withdraw the claim")  # fmt: skip
        if len(set(labels)) != len(labels):
            raise ClaimError("A statement names a label twice.", found=f"{name}[{','.join(labels)}]")
        self.used |= {(name, label) for label in labels or values}
        self.spend(len(labels or values))
        return values[labels[0]] if len(labels) == 1 else {label: values[label] for label in labels or values}


def evaluate(text: str, scope: Scope) -> Operand:
    """Return what an expression may be. Raises `ClaimError`; `NoIntervalError` where no finite interval holds it."""
    parser = _Parser(text, scope)
    found = parser.sum(0)
    if parser.at < len(parser.tokens):
        parser.fail("the end of the expression")
    return found


def number(text: str, scope: Scope) -> Interval:
    """Evaluate an expression that must be a number."""
    found = evaluate(text, scope)
    if not isinstance(found, Interval):
        raise ClaimError("A series stands where one number belongs.", found=text,
                         todo="name one label, as in coupling[4], or take max, min or mean")  # fmt: skip
    return found


def vector(text: str, scope: Scope) -> Vector:
    """Evaluate an expression that must be a series."""
    found = evaluate(text, scope)
    if isinstance(found, Interval):
        raise ClaimError("A number stands where a series belongs.", found=text, todo="name a series")
    return found


_TOKEN = re.compile(
    r" *(?:(?P<number>[0-9]{1,18}(?:\.[0-9]{1,18})?)|(?P<name>[a-z][a-z0-9_]{0,63}(?:\.[a-z][a-z0-9_]{0,63})?)"
    r"|(?P<labels>\[[^\[\]]*\])|(?P<sign>[-+*/(),]))"
)


class _Parser:
    """Recursive descent that evaluates as it reads."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text, self.scope, self.at = text, scope, 0
        self.tokens: list[tuple[str, str]] = []
        end = 0
        while text[end:].strip():
            match = _TOKEN.match(text, end)
            if match is None:
                raise ClaimError("An expression cannot be read.", found=text[end : end + 40].strip(),
                                 where=f"character {end + 1} of {text}", expected="a number, a name, or one of + - * / ( ) [ ]")  # fmt: skip
            self.tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            end = match.end()

    def fail(self, expected: str) -> None:
        found = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
        raise ClaimError("An expression cannot be read.", found=found, expected=expected, where=self.text)

    def take(self, *signs: str) -> str:
        """Consume and return the next token where it is one of the signs, else return nothing."""
        if self.at < len(self.tokens) and self.tokens[self.at][1] in signs:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def sum(self, depth: int) -> Operand:
        left = self.product(depth)
        while sign := self.take("+", "-"):
            right = self.product(depth)
            left = self.binary(Interval.__add__ if sign == "+" else Interval.__sub__, left, right)
        return left

    def product(self, depth: int) -> Operand:
        left = self.factor(depth)
        while sign := self.take("*", "/"):
            right = self.factor(depth)
            left = self.binary(Interval.__mul__ if sign == "*" else Interval.__truediv__, left, right)
        return left

    def factor(self, depth: int) -> Operand:
        if depth > LIMITS.expression_depth:
            raise ClaimError(
                "An expression is nested too deeply.",
                where=self.text,
                expected=f"at most {LIMITS.expression_depth} levels",
            )
        if self.take("-"):
            return self.each(Interval.__neg__, self.factor(depth + 1))
        if self.take("("):
            inner = self.sum(depth + 1)
            self.close()
            return inner
        kind, token = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        if kind == "number":
            self.at += 1
            return exactly(Fraction(Decimal(token)))
        if kind != "name":
            self.fail("a number, a name or an opening parenthesis")
        self.at += 1
        if self.take("("):
            return self.call(token, depth + 1)
        return self.reference(token, self.labels())

    def reference(self, name: str, labels: tuple[str, ...]) -> Operand:
        return self.scope.look_up(name, labels)

    def labels(self) -> tuple[str, ...]:
        if self.at == len(self.tokens) or self.tokens[self.at][0] != "labels":
            return ()
        self.at += 1
        return tuple(part.strip() for part in self.tokens[self.at - 1][1][1:-1].split(","))

    def close(self) -> None:
        if not self.take(")"):
            self.fail("a closing parenthesis")

    def call(self, name: str, depth: int) -> Operand:
        arguments = [self.sum(depth)]
        while self.take(","):
            arguments.append(self.sum(depth))
        self.close()
        return self.apply(name, arguments)

    def apply(self, name: str, arguments: list[Operand]) -> Operand:
        if name in _EACH and len(arguments) == 1:
            return self.each(_EACH[name], arguments[0])
        if name in _OF_SERIES and len(arguments) == 1 and not isinstance(arguments[0], Interval):
            self.scope.spend(len(arguments[0]))
            return _of_series(name, arguments[0])
        if name in ("min", "max") and len(arguments) > 1:
            parts = [part for part in arguments if isinstance(part, Interval)]
            if len(parts) == len(arguments):
                return iv.least(parts) if name == "min" else iv.largest(parts)
        if name == "correlation" and len(arguments) == 2:
            first, second = arguments
            if not isinstance(first, Interval) and not isinstance(second, Interval) and first.keys() == second.keys():
                self.scope.spend(3 * len(first))
                return correlation(first, second)
        raise ClaimError("A function is unknown, or does not take such operands.", found=f"{name} of {len(arguments)}",
                         where=self.text, expected=f"one of {', '.join(FUNCTIONS)}; correlation takes two series of the same labels",
                         todo="docs/measurements.md lists functions and what they take")  # fmt: skip

    def each(self, function: Callable[[Interval], Interval], operand: Operand) -> Operand:
        if isinstance(operand, Interval):
            self.scope.spend(1)
            return bounded(function(operand))
        self.scope.spend(len(operand))
        return {label: bounded(function(part)) for label, part in operand.items()}

    def binary(self, function: Callable[[Interval, Interval], Interval], left: Operand, right: Operand) -> Operand:
        if isinstance(left, Interval) and isinstance(right, Interval):
            self.scope.spend(1)
            return bounded(function(left, right))
        if not isinstance(left, Interval) and not isinstance(right, Interval) and left.keys() != right.keys():
            raise ClaimError("Two series do not have the same labels.", where=self.text,
                             found=", ".join(sorted(set(left) ^ set(right))[:10]),
                             todo="name the labels that both have, as in a.perplexity[poetry,code]")  # fmt: skip
        many = right if isinstance(left, Interval) else left
        labels = () if isinstance(many, Interval) else tuple(many)
        self.scope.spend(len(labels))
        return {label: bounded(function(_at(left, label), _at(right, label))) for label in labels}


class _Reader(_Parser):
    """Reads an expression and computes nothing: every operand is 1."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Scope({}))
        self.names: list[tuple[str, tuple[str, ...]]] = []

    def reference(self, name: str, labels: tuple[str, ...]) -> Operand:
        self.names.append((name, labels))
        return exactly(1)

    def apply(self, name: str, arguments: list[Operand]) -> Operand:
        if name not in FUNCTIONS:
            raise ClaimError(
                "A function is unknown.", found=name, where=self.text, expected=f"one of {', '.join(FUNCTIONS)}"
            )
        return exactly(1)

    def binary(self, function: Callable[[Interval, Interval], Interval], left: Operand, right: Operand) -> Operand:
        return exactly(1)


def references(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what an expression names, as (series or role.series, labels). Raises `ClaimError` where it cannot be read."""
    reader = _Reader(text)
    reader.sum(0)
    if reader.at < len(reader.tokens):
        reader.fail("the end of the expression")
    return tuple(reader.names)


def _at(operand: Operand, label: str) -> Interval:
    return operand if isinstance(operand, Interval) else operand[label]


def _total(parts: Vector) -> Interval:
    made = exactly(0)
    for part in parts.values():
        made = bounded(made + part)
    return made


def mean(parts: Vector) -> Interval:
    """Return the arithmetic mean."""
    return _total(parts) / exactly(len(parts))


def variance(parts: Vector) -> Interval:
    """Return the population variance: the mean squared distance from the mean."""
    centre = mean(parts)
    return mean({label: iv.square(part - centre) for label, part in parts.items()})


def steps(parts: Vector) -> Vector:
    """Return every value less the one before it, under the later label."""
    return {label: parts[label] - parts[before] for before, label in pairwise(parts)}


def correlation(first: Vector, second: Vector) -> Interval:
    """Return the Pearson correlation. Raises `NoIntervalError` where a series may be constant."""
    a, b = mean(first), mean(second)
    product = mean({label: (first[label] - a) * (second[label] - b) for label in first})
    found = product / iv.root(variance(first) * variance(second))
    one = exactly(1)
    return Interval(max(found.lower, -one.upper), min(found.upper, one.upper))


def _of_series(name: str, parts: Vector) -> Operand:
    if name == "steps":
        if len(parts) < 2:
            raise ClaimError("steps needs a series of two values or more.", found=f"{len(parts)} values")
        return steps(parts)
    reductions: dict[str, Callable[[Vector], Interval]] = {
        "max": lambda v: iv.largest(v.values()), "min": lambda v: iv.least(v.values()), "sum": _total, "mean": mean,
        "variance": variance, "count": lambda v: exactly(len(v)),
    }  # fmt: skip
    return bounded(reductions[name](parts))


_EACH: dict[str, Callable[[Interval], Interval]] = {
    "exp": iv.exponential, "log": iv.logarithm, "sqrt": iv.root, "abs": iv.absolute,
}  # fmt: skip
_OF_SERIES = ("count", "max", "mean", "min", "steps", "sum", "variance")
FUNCTIONS: tuple[str, ...] = tuple(sorted((*_EACH, *_OF_SERIES, "correlation")))
"""Every function of the language."""
