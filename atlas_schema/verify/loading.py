"""The files of a submission: from paths to bytes. What the reviewer names is followed; what lies beside a receipt is not trusted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from atlas_schema.errors import UsageError
from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.source import EvidenceSource
from atlas_schema.limits import LIMITS
from atlas_schema.signing.statement import File, listed, manifest
from atlas_schema.study.contracts import built_in_contracts
from atlas_schema.verify.authenticity import Signed
from atlas_schema.verify.verifier import Submission


def load(
    receipt: Path | None, evidence: Path | None = None, contract: str | None = None, preregistration: Path | None = None,
    run_log: Path | None = None, measurements: tuple[Path, ...] = (),
) -> Submission:  # fmt: skip
    """Collect the files of a submission. What lies beside the receipt may be absent; what is named must exist."""
    if receipt is None:
        raise UsageError("No receipt was named.", todo="atlas-verify receipt.json, or atlas-verify --demo")
    raw = _bytes(receipt)
    folder = receipt.parent
    bundle = evidence or _inside(folder, "evidence")
    return Submission(
        str(receipt), raw, _beside(preregistration, folder, "preregistration.json"),
        _beside(run_log, folder, "run_log.json"), None if contract is None else _contract(contract),
        None if bundle is None else _opener(bundle), None if bundle is None else _rows_opener(bundle),
        tuple(_bytes(path) for path in measurements), manifest=None if bundle is None else _hasher(bundle),
        files=None if bundle is None else lambda: listed(bundle),
    )  # fmt: skip


def _contract(named: str) -> bytes:
    """Return the built-in contract of an id, or a file. An id always means the built-in one, whatever lies in the folder."""
    built_in = built_in_contracts().get(named)
    if built_in is not None:
        return built_in.model_dump_json().encode()
    if not os.path.lexists(named):
        raise UsageError("There is no such contract.", found=named[:200], expected=f"a file, or {', '.join(built_in_contracts())}",
                         todo="check the path given with --contract")  # fmt: skip
    return _bytes(Path(named))


def signature_path(receipt: Path) -> Path:
    """Return where the signatures of a receipt lie: beside it, ``.dsse.json`` in place of ``.json``."""
    return receipt.with_name(receipt.name.removesuffix(".json") + ".dsse.json")


def load_signatures(
    submission: Submission, receipt: Path | None, signature: Path | None, bundle: Path | None
) -> Submission:
    """Add what the reviewer asked to be checked: an envelope, named or beside the receipt, and a Sigstore bundle."""
    found = signature
    if found is None and receipt is not None:
        found = _inside(receipt.parent, signature_path(receipt).name)
    return replace(
        submission,
        signature=None if found is None else Signed(found.name, _bytes(found, follow=signature is not None)),
        bundle=None if bundle is None else Signed(bundle.name, _bytes(bundle)),
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


def _rows_opener(bundle: Path) -> Callable[[], Rows]:
    def open_rows() -> Rows:
        from atlas_schema.evidence.measured import read_measured

        return read_measured(bundle)

    return open_rows


def _hasher(bundle: Path) -> Callable[[], tuple[File, ...]]:
    return lambda: manifest(bundle)


def _beside(named: Path | None, folder: Path, name: str) -> bytes | None:
    if named is not None:
        return _bytes(named)
    default = _inside(folder, name)
    return None if default is None else _bytes(default, follow=False)


def _inside(folder: Path, name: str) -> Path | None:
    """Return what lies beside the receipt under a name. A link is refused: its author chose where it points."""
    path = folder / name
    if path.is_symlink():
        raise UsageError("What lies beside the receipt is a link.", where=str(path), found=str(path.readlink()),
                         todo="name the file yourself if you trust where it points")  # fmt: skip
    return path if path.exists() else None


def _bytes(path: Path, *, follow: bool = True) -> bytes:
    """Read a document from the file that was opened: a regular one, never more of it than a document may have.

    What lies beside the receipt is opened without following links, so that none can slip in after `_inside` looked.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    except OSError as error:
        raise UsageError("The document cannot be read.", where=str(path), found=error.strerror or str(error),
                         todo="check the path") from error  # fmt: skip
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UsageError("The document is not a regular file.", where=str(path),
                         found="a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device",
                         todo="save it to a file first, and name that")  # fmt: skip
    with os.fdopen(descriptor, "rb") as stream:
        raw = stream.read(4 * LIMITS.document_bytes + 1)
    if len(raw) > 4 * LIMITS.document_bytes:
        raise UsageError("This file is far too large to be a document.", where=str(path),
                         found=f"{max(status.st_size, len(raw))} bytes", expected=f"at most {LIMITS.document_bytes} bytes")  # fmt: skip
    return raw
