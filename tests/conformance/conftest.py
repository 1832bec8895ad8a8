"""The command under test, as the tests of commands run it."""

from __future__ import annotations

from cli.conftest import atlas_command

__all__ = ["atlas_command"]
