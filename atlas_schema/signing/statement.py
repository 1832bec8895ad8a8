"""The in-toto statement that is signed: digests of a receipt, the documents beside it, and every file of its evidence.

Subjects are named by role, not by file name, so that each has one meaning: a file may be renamed, but not exchanged. The
digest of a document is that of its exact bytes; of the contract, which may be built in, that of its canonical form, as
receipts cite it; of the evidence, that of the canonical form of the manifest in the predicate.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlas_schema.canonical import canonical_json
from atlas_schema.errors import DocumentError, EvidenceError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://atlas-schema.invalid/signed-receipt/v1"
DOCUMENTS = ("receipt", "preregistration", "run_log", "contract")
ROLES = (*DOCUMENTS, "evidence")
"""Every role, each the subject of a statement exactly once."""
_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file of the evidence: its name in the bundle, its size in bytes, the SHA-256 of its bytes in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What signers vouch for: the SHA-256 of every document by role, and the files of the evidence."""

    documents: Mapping[str, str]
    evidence: tuple[File, ...]


def statement_bytes(statement: Statement) -> bytes:
    """Return the payload to be signed: canonical JSON, so that several signers sign the same bytes."""
    files = [asdict(file) for file in sorted(statement.evidence)]
    digests = {**statement.documents, "evidence": _sha256(canonical_json(files))}
    subjects = [{"name": role, "digest": {"sha256": digests[role]}} for role in ROLES]
    predicate = {"schema_version": "1.0", "evidence": files}
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    )


def statement_of(value: Any) -> Statement:
    """Return the statement that a parsed payload is. Raises `DocumentError` for any other, and for manifests not as digested.

    Call it only for a payload whose signatures were verified.
    """
    _fields(value, {"_type", "subject", "predicateType", "predicate"}, "The statement")
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if value[field] != expected:
            raise DocumentError(
                f"The statement's {field} is another one.", expected=expected, found=ascii(value[field])[:120]
            )
    digests = _subjects(value["subject"])
    predicate = _fields(value["predicate"], {"schema_version", "evidence"}, "The predicate")
    if predicate["schema_version"] != "1.0" or not isinstance(predicate["evidence"], list):
        raise DocumentError("The predicate is of another version, or its manifest is not a list.",
                            expected="schema_version 1.0", found=ascii(predicate["schema_version"])[:40])  # fmt: skip
    files = tuple(_file(entry) for entry in predicate["evidence"])
    if list(files) != sorted(files) or len({file.name for file in files}) != len(files) or not files:
        raise DocumentError("The manifest is empty, or does not list each file once, in order of names.")
    if _sha256(canonical_json(predicate["evidence"])) != digests["evidence"]:
        raise DocumentError("The manifest is not the one that the statement's subject 'evidence' is.")
    return Statement({role: digests[role] for role in DOCUMENTS}, files)


def _subjects(value: Any) -> dict[str, str]:
    digests: dict[str, str] = {}
    for entry in value if isinstance(value, list) else []:
        subject = _fields(entry, {"name", "digest"}, "A subject")
        digest = _fields(subject["digest"], {"sha256"}, "A subject's digest")["sha256"]
        if not isinstance(digest, str) or _HEX.fullmatch(digest) is None:
            raise DocumentError(
                "A subject's digest is not a SHA-256 in lower-case hexadecimal.", found=ascii(digest)[:80]
            )
        if not isinstance(subject["name"], str) or subject["name"] in digests:
            raise DocumentError("A subject has no name, or the name of another.", found=ascii(subject["name"])[:80])
        digests[subject["name"]] = digest
    if set(digests) != set(ROLES):
        raise DocumentError("The statement's subjects are not those of a receipt, each once.", expected=", ".join(ROLES),
                            found=ascii(", ".join(digests))[:200])  # fmt: skip
    return digests


def _file(value: Any) -> File:
    found = _fields(value, {"name", "size", "sha256"}, "An entry of the manifest")
    name, size, digest = found["name"], found["size"], found["sha256"]
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise DocumentError("A name in the manifest is not the plain name of a file.", found=ascii(name)[:80])
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise DocumentError("A size in the manifest is not a number of bytes.", where=name, found=ascii(size)[:40])
    if not isinstance(digest, str) or _HEX.fullmatch(digest) is None:
        raise DocumentError("A digest in the manifest is not a SHA-256 in lower-case hexadecimal.", where=name)
    return File(name, size, digest)


def _fields(value: Any, names: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != names:
        found = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise DocumentError(f"{what} does not have exactly the fields it should.", expected=", ".join(sorted(names)),
                            found=ascii(found)[:200])  # fmt: skip
    return value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


UNREAD = "not read"
"""Stands for the SHA-256 of a file that was listed and not read."""


def listed(folder: Path) -> tuple[File, ...]:
    """List the files of a bundle, or the one file given, by name and size, and read none. Follows no link."""
    try:
        entries = [folder] if folder.is_file() else sorted(folder.iterdir())
        return tuple(File(entry.name, entry.lstat().st_size, UNREAD) for entry in entries)
    except OSError as error:
        raise EvidenceError("The evidence folder cannot be read.", where=str(folder), found=error.strerror or str(error),
                            todo="give the folder of Parquet files with --evidence") from error  # fmt: skip


def manifest(folder: Path) -> tuple[File, ...]:
    """Hash every file of a bundle, or the one file given. Raises `EvidenceError` for links, folders, pipes and devices."""
    try:
        entries = [folder] if folder.is_file() else sorted(folder.iterdir())
    except OSError as error:
        raise EvidenceError("The evidence folder cannot be read.", where=str(folder), found=error.strerror or str(error),
                            todo="give the folder of Parquet files with --evidence") from error  # fmt: skip
    return tuple(_hashed(entry) for entry in entries)


def _hashed(path: Path) -> File:
    """Hash one file through one open handle; neither links nor pipes are followed."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise EvidenceError(
            "A bundle holds regular files only.", where=str(path), found=error.strerror or str(error)
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise EvidenceError("A bundle holds regular files only.", where=str(path), found="a folder, pipe or device")
        digest, size = hashlib.sha256(), 0
        while block := os.read(handle, 2**20):
            digest.update(block)
            size += len(block)
    finally:
        os.close(handle)
    return File(path.name, size, digest.hexdigest())
