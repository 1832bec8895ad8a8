"""Hypothesis profiles: ``quick`` unless the environment variable ATLAS_HYPOTHESIS_PROFILE names another."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("ATLAS_HYPOTHESIS_PROFILE", "quick"))
