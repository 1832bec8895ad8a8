"""Numbers from raw output: counts exact, ratios and likelihoods to nine digits, rounded once at the end.

Units and formulas are those of the vocabulary's terms; a series names its term and convention.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from atlas_schema.documents.measurement import Sample, Series, Value
from atlas_schema.transcription.raw import Raw, RawError, RawOutput

DIGITS = 9
_WIDE = decimal.Context(prec=60, rounding=decimal.ROUND_HALF_EVEN)
_SHORT = decimal.Context(prec=DIGITS, rounding=decimal.ROUND_HALF_EVEN)
LARGEST = decimal.Decimal("1e90")
"""Perplexity beyond which none is given."""

SMALLEST = decimal.Decimal("1e-90")
ZERO = "0." + 17 * "0"
"""Zero, and what is too small to be written: to seventeen places, since a bare 0 would stand for up to a half."""


def as_decimal(value: Fraction) -> decimal.Decimal:
    """Return a rational number as a decimal of 60 digits."""
    return _WIDE.divide(decimal.Decimal(value.numerator), decimal.Decimal(value.denominator))


def text(value: decimal.Decimal) -> str:
    """Return a number as a measurement writes it: nine significant digits, rounded half to even, zeros kept."""
    rounded = _SHORT.plus(value)
    if abs(rounded) < SMALLEST:
        return ZERO
    digits = "".join(map(str, rounded.as_tuple().digits)).ljust(DIGITS, "0")
    exponent = rounded.adjusted()
    sign = "-" if rounded < 0 else ""
    if -6 <= exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if 0 <= exponent < DIGITS - 1:
        return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"
    return f"{sign}{digits[0]}.{digits[1:]}" + (f"e{exponent}" if exponent else "")


def words(value: str) -> int:
    """Return the number of maximal runs of characters that are not white space."""
    return len(value.split())


def mean_log_likelihood(logprobs: Sequence[float]) -> Fraction:
    """Return the mean of log-probabilities, nats per token; values just above 0 count as 0.

    The sum is rounded once, to float64.
    """
    return Fraction(math.fsum(min(value, 0.0) for value in logprobs)) / len(logprobs)


def series(raw: Raw) -> tuple[Series, ...]:
    """Return every series that the raw output supports, in a fixed order."""
    return (*_lengths(raw), *_ratios(raw), *_likelihoods(raw))


def _lengths(raw: Raw) -> Iterator[Series]:
    counts: list[tuple[str, str, Callable[[RawOutput], int | None]]] = [
        ("characters", "character", lambda o: len(o.output)),
        ("words", "word", lambda o: words(o.output)),
        ("tokens", "token", lambda o: o.output_tokens),
    ]
    for name, unit, count in counts:
        found = [(o.id, count(o)) for o in raw.outputs]
        values = [_value(at, str(number), 1) for at, number in found if number is not None]
        if values:
            yield _series(
                f"output_{name}",
                f"length of the output in {name}",
                unit,
                raw.run.axis,
                "exact",
                "instrument.output_length/1",
                f"instrument.output_length.{name}/1",
                values,
            )


def _ratios(raw: Raw) -> Iterator[Series]:
    pairs: list[tuple[str, Callable[[RawOutput], tuple[int | None, int | None]]]] = [
        ("characters", lambda o: (len(o.output), len(o.input))),
        ("tokens", lambda o: (o.output_tokens, o.input_tokens)),
    ]
    for name, pair in pairs:
        found = [(o.id, *pair(o)) for o in raw.outputs]
        if all(out is not None and given for _, out, given in found):
            values = [_value(at, text(as_decimal(Fraction(out or 0, given or 1))), 1) for at, out, given in found]
            yield _series(
                f"output_ratio_{name}",
                f"length of the output over length of the input, in {name}",
                "1",
                raw.run.axis,
                "rounded",
                "instrument.output_ratio/1",
                f"instrument.output_ratio.{name}/1",
                values,
            )


def _likelihoods(raw: Raw) -> Iterator[Series]:
    scored = [(o.id, o.group, o.logprobs) for o in raw.outputs if o.logprobs is not None]
    if not scored:
        return
    means = [(at, mean_log_likelihood(logprobs), len(logprobs)) for at, _, logprobs in scored]
    perplexities = [_value(at, _perplexity(mean, at), n) for at, mean, n in means]  # first: it refuses what is absurd
    what = f"of the {raw.run.scored}, given what stands before each token"
    yield _series(
        "log_likelihood",
        f"mean log-likelihood per token {what}",
        "nat per token",
        raw.run.axis,
        "rounded",
        "instrument.token_log_likelihood/1",
        None,
        [_value(at, text(as_decimal(mean)), n) for at, mean, n in means],
    )
    yield _series(
        "perplexity",
        f"perplexity {what}",
        "1",
        raw.run.axis,
        "rounded",
        "navigator.perplexity/1",
        None,
        perplexities,
    )
    groups: dict[str, list[Sequence[float]]] = {}
    for _, group, logprobs in scored:
        if group is not None:
            groups.setdefault(group, []).append(logprobs)
    if groups:
        pooled = {at: [value for logprobs in members for value in logprobs] for at, members in groups.items()}
        values = [
            _value(at, _perplexity(mean_log_likelihood(all_of), at), len(all_of)) for at, all_of in pooled.items()
        ]
        sizes = {len(members) for members in groups.values()}
        yield _series(
            "group_perplexity",
            f"perplexity {what}, over all tokens of a group",
            "1",
            "group",
            "rounded",
            "navigator.perplexity/1",
            None,
            values,
            sizes.pop() if len(sizes) == 1 else None,
        )


def _perplexity(mean: Fraction, at: str) -> str:
    # e^207 is near 1e90; far larger exponents would only cost time.
    value = LARGEST if mean < -250 else _WIDE.exp(-as_decimal(mean))
    if value >= LARGEST:
        raise RawError(
            "A perplexity is too large to be one.",
            where=at,
            found=f"mean log-likelihood {text(as_decimal(mean))}",
            expected="natural logarithms of probabilities",
            todo="check what the runner wrote as logprobs",
        )
    return text(value)


def _value(at: str, number: str, n: int) -> Value:
    return Value(at=at, value=number, n=n, uncertainty=None, labels=(), rows=None)


def _series(
    name: str, quantity: str, unit: str, axis: str, reading: str, term: str, convention: str | None, values: list[Value],
    outputs: int | None = 1,
) -> Series:  # fmt: skip
    """Return a series; ``outputs`` stand behind each value, None where they differ from value to value."""
    return Series(
        name=name,
        quantity=quantity,
        unit=unit,
        axis=axis,
        reading="exact" if reading == "exact" else "rounded",
        term=term,
        convention=convention,
        relation="direct",
        sample=Sample(size=outputs, approximate=False, of="outputs"),
        values=tuple(values),
    )
