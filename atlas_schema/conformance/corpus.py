"""The corpus on disk: cases as folders over a base world, read without trusting them, and laid out for a verifier.

A case is the base world it names, with its own files laid over it, some files removed and some links made. Nothing of a
corpus is ever written outside of the folder that it is laid into: paths are relative, plain and without ``..``, links of the
corpus itself are refused, and links that a case asks for are made last and point inside.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from atlas_schema.errors import AtlasError, UsageError
from atlas_schema.limits import LIMITS
from atlas_schema.verify.outcome import Channel
from atlas_schema.verify.reading import read_json

EXPECTED, FILES = "expected.json", "files"
WHERE = (
    "the corpus is folder contracts/vectors of the source repository and of the source distribution (sdist), not of the wheel: "
    "get either, and name the folder with --corpus"
)
CaseName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,79}$")]
PlainPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$", max_length=200)
]
"""A relative path whose parts begin with neither a dot nor a slash: no ``..``, nothing absolute, nothing hidden."""
Argument = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
RuleId = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}-[A-Z][0-9]{3}$")]
StatusName = Literal["passed", "failed", "unproven", "not_checked", "not_applicable"]
Ability = Literal["signatures", "sigstore", "duckdb", "links"]
"""What a verifier or a system may lack; a case that needs it can be left out with ``--without``."""


class Expected(BaseModel):
    """What `expected.json` says: how a case is laid out, how the verifier is called, and what it must answer."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    kind: Literal["conformance_case"]
    schema_version: Literal["1.0"]
    base: CaseName | None
    removed: list[PlainPath]
    links: dict[PlainPath, PlainPath]
    needs: list[Ability]
    arguments: list[Argument]
    exit_code: Annotated[int, Field(ge=0, le=255)]
    verdict: Annotated[str, StringConstraints(max_length=40)] | None
    channels: dict[str, StatusName]
    rules: list[RuleId]


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a corpus."""

    name: str
    folder: Path
    expected: Expected


def read_corpus(
    folder: Path, pattern: str = "*", without: frozenset[str] = frozenset()
) -> tuple[list[Case], list[str]]:
    """Return the cases whose names match, in order of name, and the names of those left out for what they need.

    Raises `UsageError` for a folder that is no corpus, and where any of its cases is not one.
    """
    if not folder.is_dir():
        raise UsageError("There is no corpus here.", where=str(folder), todo=WHERE)
    names = sorted(
        e.name for e in os.scandir(folder) if e.is_dir(follow_symlinks=False) and (folder / e.name / EXPECTED).exists()
    )
    if not names:
        raise UsageError(
            "This folder holds no cases.", where=str(folder), expected=f"folders with a file {EXPECTED}", todo=WHERE
        )
    chosen = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        raise UsageError(
            "No case has such a name.",
            found=pattern,
            expected=f"{names[0]} to {names[-1]}, or a pattern such as 'signed_*'",
        )
    cases = [Case(name, folder / name, _expected(folder / name / EXPECTED)) for name in chosen]
    for case in cases:
        if case.expected.base is not None and not (folder / case.expected.base).is_dir():
            raise _unusable(folder / case.name, "it names a base world that is not there", case.expected.base)
    left_out = [case.name for case in cases if without & set(case.expected.needs)]
    kept = [case for case in cases if case.name not in set(left_out)]
    if not kept:
        raise UsageError("Every chosen case was left out.", found=f"--without {', '.join(sorted(without))}")
    return kept, left_out


def lay_out(case: Case, target: Path) -> None:
    """Lay a case into an empty folder: base world, then its files, then what it removes, then its links."""
    corpus = case.folder.parent
    if case.expected.base is not None:
        _copy_tree(corpus / case.expected.base, target)
    if os.path.lexists(case.folder / FILES):
        _copy_tree(case.folder / FILES, target)
    for name in case.expected.removed:
        gone = target / name
        if gone.is_dir():
            shutil.rmtree(gone)
        elif gone.exists():
            gone.unlink()
        else:
            raise _unusable(case.folder, "it removes what is not there", name)
    for name, to in case.expected.links.items():
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(os.path.relpath(target / to, link.parent))
        except OSError as error:
            raise UsageError("A link of a case could not be made.", where=f"{case.name}: {name}", found=error.strerror or str(error),
                             todo="this system may have no links: --without links leaves such cases out") from error  # fmt: skip


def _expected(path: Path) -> Expected:
    """Read one `expected.json`: strict JSON, every field known."""
    try:
        _require_regular(path)
        raw = path.read_bytes()
        read_json(raw)
        made = Expected.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = "/" + "/".join(map(str, first["loc"]))
        raise _unusable(path, f"at {place}: {first['msg']}", str(first["input"])[:200]) from error
    except OSError as error:
        raise _unusable(path, "it cannot be read", error.strerror or str(error)) from error
    except AtlasError as error:
        raise _unusable(path, error.what, error.found or error.where) from error
    if set(made.channels) != {c.value for c in Channel}:
        raise _unusable(path, "it does not give the status of every channel", ", ".join(made.channels))
    return made


def _copy_tree(source: Path, target: Path, depth: int = LIMITS.corpus_depth) -> None:
    """Copy regular files and folders over a folder; anything else in a corpus is refused."""
    if depth == 0:
        raise _unusable(source, "its folders lie too deep", f"more than {LIMITS.corpus_depth} levels")
    if source.is_symlink():
        raise _unusable(source, "it is a link", str(source.readlink()))
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            _copy_tree(Path(entry.path), place, depth - 1)
        else:
            _require_regular(Path(entry.path))
            shutil.copyfile(entry.path, place, follow_symlinks=False)


def _require_regular(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise _unusable(path, "it is not a regular file", "a link, a pipe or a device")
    if status.st_size > LIMITS.corpus_file_bytes:
        raise _unusable(path, f"it is larger than {LIMITS.corpus_file_bytes} bytes", f"{status.st_size} bytes")


def _unusable(path: Path, why: str, found: str) -> UsageError:
    return UsageError(f"This case cannot be used: {why}.", where=str(path), found=found,
                      todo="obtain the corpus again: nothing of a damaged one says anything of a verifier")  # fmt: skip
