"""Typed refusals of the model layer. Each is an `AtlasError`: what, where, expected, found, what to do."""

from __future__ import annotations

import transformers

from atlas_schema.errors import AtlasError


def library_version() -> str:
    """The library whose module contract is relied on, with its version."""
    return f"transformers {transformers.__version__}"


class ModelRefused(AtlasError):  # noqa: N818
    """A model directory that this project does not load, or that does not fit its base."""


class UnsupportedArchitecture(AtlasError):  # noqa: N818
    """No family row describes this model type; nothing about its routing may be assumed."""

    def __init__(self, model_type: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"model type {model_type!r} has no family row",
            where=library_version(),
            expected="one of: " + ", ".join(known),
            found=model_type,
            todo="use a supported family, or add a FamilyRow for it and let the binding check prove the row",
        )


class ContractViolation(AtlasError):  # noqa: N818
    """A bound module does not do what its family row says. Extraction never continues past one."""

    def __init__(
        self,
        check: str,
        *,
        model_type: str,
        module: str,
        expected: str,
        found: str,
        todo: str = "do not extract from this model with this version; correct the family row or the model",
    ) -> None:
        super().__init__(
            f"binding check {check!r} failed for model type {model_type!r}",
            where=f"{module} ({library_version()})",
            expected=expected,
            found=found,
            todo=todo,
        )
        self.check = check
