"""Versioned contract documents and the JSON Schema, as package data. Read with `importlib.resources`."""
