"""What honest rows obey, whatever the models: the invariants of `docs/measures.md`, section 1, on every row.

Functions take sorted rows and return violations; nothing is sampled. Tolerances come from the contract.
"""
