"""DuckDB files from somebody else: what passes, and every attack refused by name, within bounds, outside this process."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import duckdb
import pytest
from verify.forging import honest, study, verified

from atlas_schema.errors import EvidenceError, UsageError
from atlas_schema.evidence.bundle import export_bundle, import_bundle
from atlas_schema.evidence.digest import evidence_root
from atlas_schema.evidence.source import table_roots
from atlas_schema.evidence.store import EvidenceStore
from atlas_schema.evidence.unpack import CATALOGUE, session
from atlas_schema.limits import LIMITS, Limits
from atlas_schema.reports import json as json_report
from atlas_schema.verify.outcome import Code, exit_code
from atlas_schema.verify.sandbox import open_database


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as its technician closes it, not to be changed."""
    path = tmp_path_factory.mktemp("database") / "evidence.duckdb"
    study().store(path).close()
    return path


@pytest.fixture
def database(written: Path, tmp_path: Path) -> Path:
    """A valid file that a test may change."""
    return Path(shutil.copy(written, tmp_path / "evidence.duckdb"))


def changed(path: Path, *statements: str) -> Path:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def refused(path: Path, limits: Limits = LIMITS) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        open_database(path, limits)
    return caught.value


def root(path: Path) -> str:
    return evidence_root(table_roots(open_database(path)))


# --- what passes --------------------------------------------------------------------------------------------------


def test_a_store_has_the_root_of_its_bundle(written: Path) -> None:
    assert root(written) == study().evidence_root()


def test_the_report_is_that_of_the_bundle(written: Path, tmp_path: Path) -> None:
    with EvidenceStore.open_existing(written) as store:
        export_bundle(store, tmp_path / "bundle")
    from_file = verified(study(), honest(), open_evidence=lambda: open_database(written))
    assert exit_code(from_file) is Code.VERIFIED
    assert json_report.render(from_file) == json_report.render(verified(study(), honest()))


def test_an_imported_and_a_resumed_store_pass(written: Path, tmp_path: Path) -> None:
    with EvidenceStore.open_existing(written) as store:
        export_bundle(store, tmp_path / "bundle")
        dims, digest = store.dims, store.preregistration_digest
    import_bundle(tmp_path / "bundle", tmp_path / "imported.duckdb", digest)
    EvidenceStore.open(tmp_path / "imported.duckdb", preregistration_digest=digest, dims=dims).close()
    assert root(tmp_path / "imported.duckdb") == study().evidence_root()


def test_nothing_is_left_behind_and_the_file_is_untouched(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "it's private"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    before = database.read_bytes()
    assert root(database) == study().evidence_root()
    changed(database, "CREATE MACRO avg(a) AS 42")
    refused(database)
    assert list(private.iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"evidence.duckdb", "it's private"}
    assert before != database.read_bytes()


def test_one_changed_value_is_another_root(database: Path) -> None:
    changed(
        database,
        "UPDATE task SET score = 1 - score WHERE item_id = (SELECT min(item_id) FROM task) AND run_id = 'base'",
    )
    assert root(database) != study().evidence_root()


# --- code and undeclared tables -----------------------------------------------------------------------------------

ATTACKS = {
    "a macro shadows a built-in": ("CREATE MACRO avg(a) AS 42", "ATL-A023", "macro avg"),
    "a table macro": ("CREATE MACRO rows() AS TABLE SELECT 42", "ATL-A023", "macro rows"),
    "a view reads files": ("CREATE VIEW v AS SELECT * FROM (SELECT 1)", "ATL-A023", "view v"),
    "a view of the name of a system table": ("CREATE VIEW duckdb_tables AS SELECT 1", "ATL-A023", "view duckdb_tables"),
    "a type": ("CREATE TYPE mood AS ENUM ('low', 'high')", "ATL-A023", "type mood"),
    "a sequence": ("CREATE SEQUENCE counter", "ATL-A023", "sequence counter"),
    "an index": ("CREATE INDEX quick ON task (score)", "ATL-A023", "index quick"),
    "a schema": ("CREATE SCHEMA other; CREATE TABLE other.task (a INTEGER)", "ATL-A023", "schema other"),
    "another table": ("CREATE TABLE notes (a INTEGER)", "ATL-A024", "notes"),
    "a missing table": ("DROP TABLE overlap", "ATL-A024", "tables of the DuckDB file"),
    "a generated column": (
        "ALTER TABLE overlap RENAME TO o; DROP TABLE o; CREATE TABLE overlap (run_id VARCHAR NOT NULL, layer USMALLINT AS (1))",
        "ATL-A024", "is_generated",
    ),
    "a default with a function": ("ALTER TABLE task ALTER score SET DEFAULT random()", "ATL-A024", "random()"),
    "a further column": ("ALTER TABLE task ADD COLUMN note VARCHAR", "ATL-A024", "note"),
    "a renamed column": ("ALTER TABLE output RENAME entropy TO surprise", "ATL-A024", "surprise"),
    "a wider column": ("ALTER TABLE output ALTER nll TYPE DOUBLE", "ATL-A024", "DOUBLE"),
    "a column that may be null": ("ALTER TABLE output ALTER nll DROP NOT NULL", "ATL-A024", "nll"),
    "no primary key": (
        "CREATE TABLE t AS FROM task; DROP TABLE task; ALTER TABLE t RENAME TO task", "ATL-A024", "task",
    ),
    "a check": (
        "DROP TABLE task; CREATE TABLE task (run_id VARCHAR NOT NULL, item_id VARCHAR NOT NULL, score FLOAT NOT NULL,"
        " PRIMARY KEY (run_id, item_id), CHECK (score < 2))", "ATL-A024", "CHECK",
    ),
    "a collation": (
        "DROP TABLE task; CREATE TABLE task (run_id VARCHAR COLLATE NOCASE NOT NULL, item_id VARCHAR NOT NULL,"
        " score FLOAT NOT NULL, PRIMARY KEY (run_id, item_id))", "ATL-A024", "NOCASE",
    ),
    "a comment that nobody reads": ("COMMENT ON TABLE task IS 'VERIFIED'", "ATL-A024", "VERIFIED"),
    "sizes of two studies": ("INSERT INTO atlas_study FROM atlas_study", "ATL-A024", "sizes of one study"),
    "sizes that no model has": ("UPDATE atlas_study SET d = 2147483647", "ATL-A024", "sizes of one study"),
    "sizes that are absent": ("DELETE FROM atlas_study", "ATL-A024", "sizes of one study"),
    "sizes of another model": ("UPDATE atlas_study SET d = d + 1", "ATL-A024", "gain"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_not_a_declared_base_table_is_refused_by_name(database: Path, name: str) -> None:
    statements, rule, named = ATTACKS[name]
    error = refused(changed(database, statements))
    assert error.rule == rule
    assert named in f"{error.what} {error.found}"
    assert str(database) in error.where
    assert error.todo or "sizes" in error.what


def test_a_view_that_reads_files_reads_none(database: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")
    error = refused(changed(database, f"CREATE VIEW v AS FROM read_csv('{secret}')"))
    assert (error.rule, error.found) == ("ATL-A023", "view v")


def test_a_trigger_is_refused(database: Path) -> None:
    try:
        changed(database, "CREATE TRIGGER t AFTER INSERT ON task FOR EACH STATEMENT DELETE FROM output")
    except duckdb.Error as absent:
        pytest.skip(f"this DuckDB has no triggers: {absent}")
    error = refused(database)
    assert (error.rule, error.found) == ("ATL-A023", "trigger t")


def test_every_kind_of_entry_that_this_duckdb_lists_is_looked_at() -> None:
    """A version with a new kind of entry must not slip one past the comparison."""
    with duckdb.connect(":memory:") as connection:
        listed = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table' "
            "AND function_name LIKE 'duckdb\\_%' ESCAPE '\\' AND len(parameters) = 0"
        ).fetchall()
        of_databases = set()
        for (function,) in listed:
            try:
                described = connection.execute(f"DESCRIBE FROM {function}()").fetchall()
            except duckdb.Error:
                continue
            if "database_name" in {row[0] for row in described}:
                of_databases.add(function)
    assert of_databases - {"duckdb_databases"} <= set(CATALOGUE.values())


def test_names_out_of_a_file_are_bounded(database: Path) -> None:
    changed(database, *(f'CREATE VIEW "{"v" * 5000}{i}" AS SELECT 1' for i in range(20)))
    error = refused(database)
    assert error.found.endswith("and 15 more")
    assert len(error.found) < 3000
    few = replace(LIMITS, catalogue_entries=200)
    many = changed(database, *(f"CREATE VIEW w{i} AS SELECT 1" for i in range(250)))
    assert "too many entries" in refused(many, few).what or refused(many, few).found.startswith("view")


# --- the session --------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with session(database, LIMITS) as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    ["FROM read_text('/etc/hostname')", "COPY (SELECT 1) TO 'out.csv'", "ATTACH 'other.duckdb'", "INSTALL httpfs", "LOAD httpfs",
     "EXPORT DATABASE 'out'", "SET enable_external_access = true", "SET threads = 4", "RESET memory_limit",
     "SET lock_configuration = false", "CREATE PERSISTENT SECRET s (TYPE s3)", "CREATE TABLE submitted.main.x (a INTEGER)",
     "DELETE FROM submitted.main.task", "FROM glob('/*')", "SELECT * FROM 'https://example.org/x.parquet'"],
)  # fmt: skip
def test_the_session_can_reach_nothing_else(locked: duckdb.DuckDBPyConnection, statement: str) -> None:
    with pytest.raises(duckdb.Error):
        locked.execute(statement).fetchall()


def test_the_session_is_bounded_and_knows_no_secrets(locked: duckdb.DuckDBPyConnection) -> None:
    settings = dict(locked.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert settings["threads"] == "1"
    assert settings["temp_directory"] == ""
    assert settings["memory_limit"] == "1.0 GiB"
    off = ("autoload_known_extensions", "autoinstall_known_extensions", "enable_external_access", "allow_community_extensions",
           "allow_unsigned_extensions", "allow_persistent_secrets")  # fmt: skip
    assert {settings[name] for name in off} == {"false"}
    assert locked.execute("FROM duckdb_secrets()").fetchall() == []
    with pytest.raises(duckdb.OutOfMemoryException):
        locked.execute("SELECT len(list(i)) FROM range(1000000000) t(i)").fetchall()


def test_the_worker_gives_up_what_it_does_not_need() -> None:
    code = """
import json, resource, socket
from atlas_schema.evidence.worker import confine
from atlas_schema.limits import LIMITS
confine(LIMITS)
names = ("AS", "CPU", "FSIZE", "NOFILE", "CORE")
print(json.dumps([{n: resource.getrlimit(getattr(resource, "RLIMIT_" + n)) for n in names}, socket.if_nameindex()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    bounds, interfaces = json.loads(done.stdout)
    assert bounds["AS"] == [LIMITS.worker_memory] * 2
    assert bounds["CPU"] == [LIMITS.worker_seconds] * 2
    assert bounds["FSIZE"] == [LIMITS.table_bytes] * 2
    assert bounds["NOFILE"] == [LIMITS.worker_files] * 2
    assert bounds["CORE"] == [0, 0]
    allowed = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    if allowed or os.geteuid() == 0:
        assert [name for _, name in interfaces] == ["lo"]


# --- bombs, damage, other files -----------------------------------------------------------------------------------


def test_rows_by_repetition_are_refused_before_they_are_copied(database: Path) -> None:
    changed(database, "INSERT INTO task SELECT 'base', 'x' || i, 1 FROM range(200000) t(i)")
    error = refused(database, replace(LIMITS, table_rows=100_000))
    assert "larger than the limits" in error.what
    assert "task" in error.where


def test_a_list_that_no_row_may_hold_is_refused(database: Path) -> None:
    """Three million numbers in one list, which the file holds in a few bytes."""
    changed(database, "INSERT INTO \"window\" SELECT 'zz', 'c', 'd', 's', 1, 1, list_resize([]::UINTEGER[], 3000000, 0), "
                      "positions FROM \"window\" LIMIT 1")  # fmt: skip
    assert database.stat().st_size < 30 * 2**20
    # By the worker where it takes too much memory, else by who reads the worker's bundle.
    with pytest.raises(EvidenceError) as caught:
        table_roots(open_database(database, replace(LIMITS, worker_memory=2 * 2**30)))
    assert caught.value.rule in ("ATL-A025", "ATL-A002", "ATL-A021")


def test_a_file_that_takes_too_long_is_refused(database: Path) -> None:
    changed(database, "DROP TABLE task", "CREATE TABLE task (run_id VARCHAR NOT NULL, item_id VARCHAR NOT NULL, score FLOAT NOT NULL, "
            "PRIMARY KEY (run_id, item_id))", "INSERT INTO task SELECT i, i, 1 FROM range(60000) t(i)")  # fmt: skip
    error = refused(database, replace(LIMITS, worker_seconds=5))
    assert error.rule == "ATL-A025"
    assert "signal" in error.found or "seconds" in error.found


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"SQLite format 3\0" * 100, b"\0" * 5000, b"\0" * 8 + b"DUCK" + b"\xff" * 9000]
)
def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evidence.duckdb"
    path.write_bytes(content)
    assert refused(path).rule == "ATL-A025"
    assert str(tmp_path / "submitted") not in str(refused(path))


def test_a_database_beyond_the_limit_is_not_copied(database: Path) -> None:
    error = refused(database, replace(LIMITS, database_bytes=1000))
    assert "larger than the limits" in error.what


@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_are_refused_or_read(written: Path, tmp_path: Path, seed: int) -> None:
    """DuckDB checks its blocks by sum, so damage is refused, or hit what nobody reads; it never ends this process."""
    rng, content = random.Random(seed), bytearray(written.read_bytes())
    reach = (3 * 4096, len(content))[seed % 2]  # the three headers, or anywhere
    for _ in range(rng.choice((1, 4, 64))):
        content[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    path = tmp_path / "evidence.duckdb"
    path.write_bytes(content[: rng.choice((len(content), len(content), len(content) // 2))])
    outcome = "same"
    try:
        outcome = "same" if root(path) == study().evidence_root() else "other"
    except EvidenceError as error:
        outcome = f"{error.rule} {'private path' if 'submitted.duckdb' in str(error) else ''}".strip()
    assert outcome in ("same", "ATL-A023", "ATL-A024", "ATL-A025")


def test_a_log_beside_the_file_is_neither_applied_nor_ignored(database: Path) -> None:
    holder = duckdb.connect(str(database))
    holder.execute("SET wal_autocheckpoint = '1TB'")
    holder.execute("UPDATE task SET score = 1")
    log = database.with_name("evidence.duckdb.wal")
    assert log.stat().st_size > 0
    error = refused(database)
    assert error.rule == "ATL-A026"
    assert error.where == str(log)
    holder.close()
    assert not log.exists()
    assert root(database) != study().evidence_root()


@pytest.mark.parametrize("kind", ["empty", "link"])
def test_an_empty_log_says_nothing_and_a_link_is_not_followed(database: Path, tmp_path: Path, kind: str) -> None:
    log = database.with_name("evidence.duckdb.wal")
    if kind == "empty":
        log.touch()
        assert root(database) == study().evidence_root()
    else:
        log.symlink_to(tmp_path / "nowhere")
        assert refused(database).rule == "ATL-A026"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "evidence.duckdb")
    for path in (tmp_path / "evidence.duckdb", Path("/dev/zero"), tmp_path):
        with pytest.raises(UsageError, match="regular file"):
            open_database(path)


def test_a_link_that_the_reviewer_names_is_followed(written: Path, tmp_path: Path) -> None:
    (tmp_path / "link.duckdb").symlink_to(written)
    assert root(tmp_path / "link.duckdb") == study().evidence_root()


def test_a_worker_that_cannot_start_is_not_the_files_fault(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UsageError, match="cannot start here") as caught:
        open_database(written)
    assert "ask for the Parquet bundle" in caught.value.todo


def test_a_worker_that_was_taken_over_cannot_point_elsewhere(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that answers nonsense, or leaves links and pipes instead of files, gets nothing believed."""
    script = tmp_path / "python"
    for body in ("ln -s /etc/hostname result.json", "mkfifo result.json", "printf '{\"rule\": 1}' > result.json",
                 "head -c 200000 /dev/zero > result.json", "printf '{\"rule\": \"ATL-D001\"}' > result.json",
                 "ln -s /etc bundle; printf {} > result.json", "kill -SEGV $$"):  # fmt: skip
        script.write_text(f"#!/bin/sh\ntouch opening\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        with pytest.raises((EvidenceError, RuntimeError)):
            open_database(written)


def test_the_verifier_itself_never_loads_the_database(written: Path, tmp_path: Path) -> None:
    folder = study().write(tmp_path / "study")
    from atlas_schema.files import document_text

    (folder / "receipt.json").write_text(document_text(honest()), encoding="utf-8")
    shutil.rmtree(folder / "evidence")
    code = """
import json, sys
from atlas_schema.cli import verify
sys.argv = ["atlas-verify", *sys.argv[1:]]
try:
    verify.main()
except SystemExit as ended:
    print(json.dumps({"code": ended.code, "modules": sorted(sys.modules)}))
"""
    command = [sys.executable, "-c", code, str(folder / "receipt.json"), "--contract", str(folder / "contract.json"),
               "--evidence", str(written)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0
    assert {m for m in found["modules"] if m.split(".")[0] in ("duckdb", "_duckdb")} == set()
    assert "atlas_schema.evidence.unpack" not in found["modules"]


def test_limits_reach_the_worker_whole() -> None:
    assert Limits(**json.loads(json.dumps(asdict(LIMITS)))) == LIMITS
