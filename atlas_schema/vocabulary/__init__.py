"""The terms that records speak in, as data, and what checks them."""

from atlas_schema.vocabulary.load import load_vocabulary
from atlas_schema.vocabulary.model import (
    Collapse,
    Conflict,
    Convention,
    Dependency,
    Layer,
    Reference,
    Source,
    Statement,
    Status,
    Term,
    Vocabulary,
    VocabularyError,
)

__all__ = [
    "Collapse", "Conflict", "Convention", "Dependency", "Layer", "Reference", "Source", "Statement", "Status", "Term",
    "Vocabulary", "VocabularyError", "load_vocabulary",
]  # fmt: skip
