"""Building blocks shared by all documents.

The models say what JSON Schema can say, no more: both accept exactly the same documents (a property-based test holds
it). What JSON Schema cannot say (cross references, order of times, digests) is a rule of the ``contract`` channel.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, StringConstraints
from pydantic_core import CoreSchema

SAFE_INTEGER = 2**53 - 1


def _integral(value: Any) -> Any:
    """JSON Schema counts 1.0 as an integer, and RFC 8785 writes both as 1; so do the models."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fail_fast(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "tuple":
            schema["fail_fast"] = True
        for part in schema.values():
            _fail_fast(part)
    elif isinstance(schema, list):
        for part in schema:
            _fail_fast(part)


class Document(BaseModel):
    """Strict, frozen, closed: unknown fields, lax types, NaN and infinity are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """End a list at its first bad element: all errors of a document made of them would take gigabytes."""
        made = handler(source)
        _fail_fast(made)
        return made


Integer = Annotated[int, BeforeValidator(_integral), Field(ge=-SAFE_INTEGER, le=SAFE_INTEGER)]
Count = Annotated[int, BeforeValidator(_integral), Field(ge=0, le=SAFE_INTEGER)]
Positive = Annotated[int, BeforeValidator(_integral), Field(ge=1, le=SAFE_INTEGER)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
NonNegative = Annotated[float, Field(ge=0, le=1e300)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", min_length=71, max_length=71)]
_DAY = (
    # Days of the years 1000 to 2999 that exist: months of 31, 30 and 28 days, then the 29th of February of leap years.
    r"([12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"|([12][0-9](0[48]|[2468][048]|[13579][26])|(12|16|20|24|28)00)-02-29)"
)
Time = Annotated[
    str,
    StringConstraints(pattern=rf"^{_DAY}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$", min_length=20, max_length=20),
]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+:-]{0,127}$", max_length=128)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", max_length=64)]
RunId = Annotated[
    str, StringConstraints(pattern=r"^(base|null:[A-Za-z0-9_-]{1,64}|arm:[A-Za-z0-9_-]{1,64})$", max_length=68)
]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", max_length=128)]
DefinitionId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]{0,59}/[1-9][0-9]?$", max_length=64)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Text = Annotated[str, StringConstraints(max_length=20_000)]


class DocumentReference(Document):
    """A document cited by what it is called and by the digest of its canonical form."""

    id: Identifier
    digest: Digest


class DigestOnly(Document):
    """A document cited by digest alone."""

    digest: Digest


class Judgement(Document):
    """A field that needs a person's call. Automation leaves it null; it never fills it."""

    value: Line
    author: Line
    time: Time
    basis: Line
