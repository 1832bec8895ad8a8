"""Routing evidence: native capture, same-state evaluation, rows, the worker and the extraction itself."""
