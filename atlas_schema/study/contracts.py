"""The built-in contracts, read from package data."""

from __future__ import annotations

from functools import cache
from importlib import resources

from atlas_schema.canonical import digest_document
from atlas_schema.documents.contract import Contract
from atlas_schema.errors import UsageError


@cache
def built_in_contracts() -> dict[str, Contract]:
    """Return every shipped contract by id."""
    files = [f for f in resources.files("atlas_contracts").iterdir() if f.name.endswith(".contract.json")]
    contracts = [Contract.model_validate_json(f.read_bytes()) for f in files]
    return {c.id: c for c in sorted(contracts, key=lambda c: c.id)}


def contract_digest(contract: Contract) -> str:
    """Return the digest by which a contract is cited."""
    return digest_document(contract.model_dump(mode="json"))


def load_contract(contract_id: str) -> Contract:
    """Return one shipped contract. Raises `UsageError` that lists the ids there are."""
    known = built_in_contracts()
    if contract_id not in known:
        raise UsageError("There is no built-in contract of this id.", found=contract_id, expected=", ".join(known) or "none",
                         todo="name a built-in one, or give a file with --contract")  # fmt: skip
    return known[contract_id]
