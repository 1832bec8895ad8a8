"""Hypothesis profiles: ``quick`` unless the environment variable ATLAS_HYPOTHESIS_PROFILE names another.

``thorough`` takes its seed from ``--hypothesis-seed``, which `make test-thorough` gives and prints: equal seeds try equal
examples. Nothing is remembered between runs, so that no run depends on what another left on disk.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile(
    "thorough", max_examples=150, deadline=None, database=None, print_blob=True, suppress_health_check=_SLOW
)
settings.load_profile(os.environ.get("ATLAS_HYPOTHESIS_PROFILE", "quick"))
