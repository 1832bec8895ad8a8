"""The files of a submission: from paths to bytes. What the reviewer names is followed; what lies beside a receipt is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atlas_schema.errors import UsageError
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.files import read_bytes
from atlas_schema.limits import LIMITS
from atlas_schema.study.contracts import load_contract
from atlas_schema.verify.verifier import Submission


def load(
    receipt: Path | None, evidence: Path | None = None, contract: str | None = None, preregistration: Path | None = None,
    run_log: Path | None = None,
) -> Submission:  # fmt: skip
    """Collect the files of a submission. What lies beside the receipt may be absent; what is named must exist."""
    if receipt is None:
        raise UsageError("No receipt was named.", todo="atlas-verify receipt.json, or atlas-verify --demo")
    raw = _bytes(receipt)
    folder = receipt.parent
    contract_bytes = None
    if contract is not None:
        contract_bytes = (
            _bytes(Path(contract)) if Path(contract).exists() else load_contract(contract).model_dump_json().encode()
        )
    bundle = evidence or _inside(folder, "evidence")
    return Submission(
        str(receipt), raw, _beside(preregistration, folder, "preregistration.json"),
        _beside(run_log, folder, "run_log.json"), contract_bytes,
        None if bundle is None else _opener(bundle),
    )  # fmt: skip


def _opener(bundle: Path) -> Callable[[], EvidenceSource]:
    if not bundle.exists():
        raise UsageError("There is no evidence here.", where=str(bundle), todo="check the path given with --evidence")

    def open_bundle() -> EvidenceSource:
        if bundle.suffix == ".duckdb" and not bundle.is_dir():
            from atlas_schema.verify.sandbox import open_database  # only here does a verification start a process

            return open_database(bundle)
        from atlas_schema.evidence.bundle import ParquetBundle

        return ParquetBundle(bundle)

    return open_bundle


def _beside(named: Path | None, folder: Path, name: str) -> bytes | None:
    if named is not None:
        return _bytes(named)
    default = _inside(folder, name)
    return None if default is None else _bytes(default)


def _inside(folder: Path, name: str) -> Path | None:
    """Return what lies beside the receipt under a name. A link out of the study's folder is refused: its author chose it."""
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError("What lies beside the receipt is a link out of its folder.", where=str(path),
                         found=str(path.resolve()), todo="name the file yourself if you trust where it points")  # fmt: skip
    if not (path.is_file() or path.is_dir()):
        raise UsageError("What lies beside the receipt is neither file nor folder.", where=str(path))
    return path


def _bytes(path: Path) -> bytes:
    if path.is_file() and path.stat().st_size > 4 * LIMITS.document_bytes:
        raise UsageError("This file is far too large to be a document.", where=str(path),
                         found=f"{path.stat().st_size} bytes", expected=f"at most {LIMITS.document_bytes} bytes")  # fmt: skip
    return read_bytes(path, "document")
