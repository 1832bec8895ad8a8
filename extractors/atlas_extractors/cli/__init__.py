"""Commands that need torch. `register` is the object behind the entry point of group `atlas_schema.commands`."""

from atlas_extractors.cli.register import register

__all__ = ["register"]
