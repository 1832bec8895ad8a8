"""From a case of the test suite to files: its submission is recorded in the place of being verified.

A case is so defined once. What cannot be said by files and a command line raises `InexpressibleError`, with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import verify.forging as forging
from simulator import StudySimulator
from verify import finding_defects, record_defects, router_defects, test_authenticity
from verify.forging import as_json, encoded, honest, study

from atlas_schema.evidence.columns import Rows
from atlas_schema.evidence.measured import FILE, write_measured
from atlas_schema.signing.keys import public_pem
from atlas_schema.signing.statement import File, manifest
from atlas_schema.verify.outcome import Channel, ChannelResult, Report
from atlas_schema.verify.verifier import Options, Submission

SEEDS = {hashlib.sha256(b"%d" % i).digest(): str(i) for i in range(100)}
"""Seeds that an option can name: the option takes a text, and hashes it."""


class InexpressibleError(Exception):
    """A case that no files and no command line can bring about."""


@dataclass
class Captured:
    """A case as files: what `expected.json` says of its inputs, and the files laid over its base."""

    base: str | None
    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    needs: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Call:
    """What a case returns that is about the call, not about the submission: the whole command line."""

    arguments: tuple[str, ...]


def parquet(table: pa.Table, path: Path, **how: object) -> None:
    """Write a table as small as it gets; ``how`` replaces options of the writer."""
    chosen = {"compression": "zstd", "compression_level": 19, "use_dictionary": False, "write_statistics": False, **how}
    pq.write_table(table, path, **chosen)


def write_world(s: StudySimulator, receipt: object, folder: Path) -> Path:
    """Write a study as a reviewer gets it: four documents, as the tests' submissions have them, and the evidence."""
    (folder / "evidence").mkdir(parents=True)
    documents = {"receipt": receipt, "preregistration": s.preregistration, "run_log": s.run_log, "contract": s.contract}
    for name, document in documents.items():
        (folder / f"{name}.json").write_bytes(encoded(as_json(document)))
    for name, table in s.tables.items():
        parquet(table, folder / "evidence" / f"{name}.parquet")
    return folder


WORLDS: dict[str, Callable[[], tuple[StudySimulator, object]]] = {
    "base": lambda: (study(), honest()),
    "base-grouped": lambda: (router_defects.grouped_world(), router_defects.grouped_receipt()),
}
"""The base worlds: a study, and the one of its receipts that lies in it."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every regular file of a folder by relative path; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


@dataclass
class Worlds:
    """The base worlds, written below a folder."""

    folder: Path

    @cache  # noqa: B019 - lives as long as one generation
    def files(self, name: str) -> dict[str, bytes]:
        if not (self.folder / name).exists():
            write_world(*WORLDS[name](), self.folder / name)
        return files_of(self.folder / name)

    __hash__ = object.__hash__


@dataclass
class Recorder:
    """Stands in the place of `verify`."""

    calls: list[tuple[Submission, Options]] = field(default_factory=list)

    def __call__(self, submission: Submission, options: Options) -> Report:
        self.calls.append((submission, options))
        believed = Report(submission.name, profile="schema", required=(Channel.SCHEMA,))
        believed.channels[Channel.SCHEMA] = ChannelResult(Channel.SCHEMA, checked=1, total=1)
        return believed  # a case may first look whether what it starts from is believed; the tests show that it is


@contextlib.contextmanager
def recording(files: tuple[File, ...]) -> Iterator[Recorder]:
    """Record submissions; signatures are made over the real files of the base world, where tests make some up."""
    recorder, connect = Recorder(), duckdb.connect

    def small(database: str = ":memory:", **options: object) -> object:
        return connect(database, **{**options, "config": {"default_block_size": "16384"}})  # type: ignore[arg-type]

    with contextlib.ExitStack() as stack:
        for module in (forging, record_defects, test_authenticity):
            stack.enter_context(mock.patch.object(module, "verify", recorder))
        stack.enter_context(mock.patch.object(test_authenticity, "FILES", files))
        stack.enter_context(mock.patch.object(duckdb, "connect", small))
        test_authenticity.payload.cache_clear()
        try:
            yield recorder
        finally:
            test_authenticity.payload.cache_clear()


def capture(make: Callable[..., Report | Call], worlds: Worlds, scratch: Path) -> Captured:
    """Make a case in an empty folder and return it as files. Raises `InexpressibleError`."""
    takes_folder = make.__code__.co_argcount > 0
    worlds.files("base")
    if takes_folder:
        for name, content in worlds.files("base").items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(content)
    with recording(manifest(worlds.folder / "base" / "evidence")) as recorder:
        told = make(scratch) if takes_folder else make()
        if not recorder.calls:
            if isinstance(told, Call):
                return _changed(Captured("base", list(told.arguments)), worlds, scratch)
            raise ValueError("the case verified nothing")
        submission, options = recorder.calls[-1]
        made = Captured(None if _stands_alone(submission) else _world_of(submission), [submission.name])
        if takes_folder:
            _changed(made, worlds, scratch)
        _documents(made, submission, options, worlds)
        _evidence(made, submission, worlds, scratch, takes_folder)
        _options(made, submission, options, worlds)
    if isinstance(told, Call):
        made.arguments = list(told.arguments)
    return made


def _stands_alone(submission: Submission) -> bool:
    return submission.name == "record.json"


def _world_of(submission: Submission) -> str:
    s = getattr(submission.open_evidence, "__self__", None)
    grouped = isinstance(s, StudySimulator) and s.settings.experts != study().settings.experts
    return "base-grouped" if grouped else "base"


def _changed(made: Captured, worlds: Worlds, folder: Path) -> Captured:
    """Record what a case changed in the folder that it was given."""
    before, now = worlds.files(made.base or ""), files_of(folder)
    made.files |= {name: content for name, content in now.items() if before.get(name) != content}
    made.removed += [name for name in before if name not in now]
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            made.links[path.relative_to(folder).as_posix()] = (
                Path(os.path.realpath(path)).relative_to(os.path.realpath(folder)).as_posix()
            )
            made.needs.add("links")
    return made


def _documents(made: Captured, submission: Submission, options: Options, worlds: Worlds) -> None:
    exact = options.signed  # a signature covers the very bytes
    for name, raw in (
        (submission.name, submission.raw), ("preregistration.json", submission.preregistration),
        ("run_log.json", submission.run_log), ("contract.json", submission.contract),
    ):  # fmt: skip
        there = worlds.files(made.base).get(name) if made.base else None
        if raw is None:
            if there is not None and name != "contract.json":
                made.removed.append(name)
        elif raw != there and (exact or not _says(there, raw)):
            made.files[name] = raw if exact else compact(raw)
    if submission.contract is not None:
        made.arguments += ["--contract", "contract.json"]
    for at, raw in enumerate(submission.measurements, 1):
        made.files[f"measurement-{at}.json"] = compact(raw)
        made.arguments += ["--measurement", f"measurement-{at}.json"]


def _says(there: bytes | None, raw: bytes) -> bool:
    """Whether two documents of the tests' own making are the same value: then the base's bytes serve."""
    return there is not None and compact(there) == compact(raw)


def compact(raw: bytes) -> bytes:
    """Return a document that was written plainly without its white space; any other just as it is."""
    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    if raw not in (encoded(value), json.dumps(value, indent=1).encode(), json.dumps(value).encode()):
        return raw
    return (json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _evidence(made: Captured, submission: Submission, worlds: Worlds, scratch: Path, takes_folder: bool) -> None:
    source = getattr(submission.open_evidence, "__self__", None)
    if takes_folder:
        if (scratch / "evidence.duckdb").exists():
            made.arguments += ["--evidence", "evidence.duckdb"]
            made.needs.add("duckdb")
    elif isinstance(source, StudySimulator):
        base = WORLDS[made.base or "base"]()[0]
        for name, table in source.tables.items():
            if not table.equals(base.tables[name]):
                parquet(table, scratch / f"{name}.parquet")
                made.files[f"evidence/{name}.parquet"] = (scratch / f"{name}.parquet").read_bytes()
    elif submission.open_evidence is not None:
        raise InexpressibleError("its evidence exists in memory only")
    elif made.base is not None:
        made.removed.append("evidence")
    if submission.open_rows is not None:
        write_measured(_listed(submission.open_rows()), scratch / "rows")
        made.files[f"evidence/{FILE}"] = (scratch / "rows" / FILE).read_bytes()


def _listed(rows: Rows) -> list[dict[str, object]]:
    columns = {c.name: (rows[c.name].tolist(), rows.valid(c.name).tolist()) for c in rows.spec.columns}
    return [{name: values[i] if there[i] else None for name, (values, there) in columns.items()} for i in range(rows.n)]


def _options(made: Captured, submission: Submission, options: Options, worlds: Worlds) -> None:
    plain = Options()
    add = made.arguments.extend
    if options.profile != plain.profile:
        add(["--profile", options.profile])
    if options.require != plain.require:
        add(["--require", options.require])
    if options.pin is not None:
        add(["--pin", options.pin])
    if options.seed is not None:
        if options.seed not in SEEDS:
            raise InexpressibleError("its seed is not the digest of a text that --seed could be given")
        add(["--seed", SEEDS[options.seed]])
    if options.keys:
        _signature(made, submission, options, worlds)
    elif submission.signature is not None:
        made.files["receipt.dsse.json"] = submission.signature.raw
    if options.sigstore is not None:
        if submission.bundle is None:
            raise InexpressibleError("the command refuses an identity without a bundle, with exit code 2")
        made.needs.add("sigstore")
        made.files |= {
            "receipt.sigstore.json": submission.bundle.raw,
            "trusted_root.json": options.sigstore.trusted_root.read_bytes(),
        }
        add(["--sigstore-bundle", "receipt.sigstore.json", "--trusted-root", "trusted_root.json",
             "--identity", options.sigstore.identity, "--issuer", options.sigstore.issuer])  # fmt: skip


def _signature(made: Captured, submission: Submission, options: Options, worlds: Worlds) -> None:
    if options.threshold > len(set(options.keys)):
        raise InexpressibleError("the command refuses a threshold beyond the distinct keys, with exit code 2")
    if submission.manifest is None:
        raise InexpressibleError("a verifier that is given files can always list them")
    if (
        submission.manifest() != manifest(worlds.folder / "base" / "evidence")
        and made.base == "base"
        and not made.needs
    ):
        raise InexpressibleError("its list of files is made up; a verifier makes its own")
    made.needs.add("signatures")
    if submission.signature is not None:
        made.files["receipt.dsse.json"] = submission.signature.raw
    for at, key in enumerate(options.keys, 1):
        made.files[f"signer-{at}.pub"] = public_pem(key)
        made.arguments += ["--key", f"signer-{at}.pub"]
    if options.threshold != 1:
        made.arguments += ["--threshold", str(options.threshold)]


EDGE = finding_defects.edge
