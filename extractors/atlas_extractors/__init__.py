"""What needs torch: loading models, reading their routed layers, writing evidence.

The core package `atlas_schema` never imports this one. It is found through the entry point group
`atlas_schema.commands`, and only when the `[extract]` extra is installed.
"""
