"""Fixtures of the extractor's tests; without the `[extract]` extra there is nothing to collect here."""

from __future__ import annotations

import importlib.util

collect_ignore_glob: list[str] = []
if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
    from tiny_runs import local
    from tiny_world import folders, make_study

    __all__ = ["folders", "local", "make_study"]
else:
    collect_ignore_glob.append("test_*.py")
