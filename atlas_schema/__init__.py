"""Receipts for the claim that post-training preserved a Mixture-of-Experts model's routed atlas.

This is the light core: documents, evidence, measures, verdicts and verification. It imports neither torch nor transformers.
"""

__version__ = "0.1.0"

EXTRACTOR = f"atlas-schema {__version__}"
"""What a receipt names as the tool that made it."""
