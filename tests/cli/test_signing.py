"""``atlas keygen``, ``atlas sign`` and ``atlas-verify --key`` as a signer and a reviewer meet them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from cli.commands import Command
from signing.material import key
from verify.forging import study

from atlas_schema.signing.keys import public_pem
from atlas_schema.verify.reading import read_json


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with private and public keys of persons 1 to 3."""
    made = tmp_path / "keys"
    made.mkdir()
    for number in (1, 2, 3):
        (made / str(number)).write_bytes(key(number).pem(None))
        (made / str(number)).chmod(0o600)
        (made / f"{number}.pub").write_bytes(public_pem(key(number).public))
    return made


def receipt(folder: Path, arm: str = "frozen") -> tuple[Path, str, str]:
    return folder / f"receipt-{arm}.json", "--contract", str(folder / "contract.json")


@pytest.fixture
def signed(folder: Path, keys: Path, atlas_command: Command) -> Path:
    """The study folder with the receipt of arm 'frozen' signed by person 1."""
    assert atlas_command("sign", *receipt(folder), "--key", keys / "1").code == 0
    return folder


# --- keygen -------------------------------------------------------------------------------------------------------


def test_a_new_pair_is_private_and_works(
    atlas_command: Command, atlas_verify: Command, folder: Path, tmp_path: Path
) -> None:
    made = tmp_path / "me"
    ended = atlas_command("keygen", made, "--no-passphrase")
    assert (ended.code, ended.err) == (0, "")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert f"{made}.pub" in ended.out
    assert "fingerprint sha256:" in ended.out
    assert atlas_command("sign", *receipt(folder), "--key", made).code == 0
    assert atlas_verify(*receipt(folder), "--key", f"{made}.pub", "--profile", "release").code == 0


@pytest.mark.parametrize("name", ["me", "me.pub"])
def test_no_key_is_ever_overwritten(atlas_command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    ended = atlas_command("keygen", tmp_path / "me", "--no-passphrase")
    assert ended.code == 2
    assert "not overwritten" in ended.err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "precious")]


def test_not_even_a_dangling_link_is_followed(atlas_command: Command, tmp_path: Path) -> None:
    (tmp_path / "me").symlink_to(tmp_path / "elsewhere")
    assert atlas_command("keygen", tmp_path / "me", "--no-passphrase").code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_does_not_exist(atlas_command: Command, tmp_path: Path) -> None:
    ended = atlas_command("keygen", tmp_path / "absent" / "me", "--no-passphrase")
    assert ended.code == 2
    assert "could not be written" in ended.err


def test_a_full_disk_leaves_no_half_key(
    atlas_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    ended = atlas_command("keygen", tmp_path / "me", "--no-passphrase")
    assert ended.code == 2
    assert "No space left" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_input_is_no_passphrase(
    atlas_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_input(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", ended_input)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    ended = atlas_command("keygen", tmp_path / "me")
    assert (ended.code, "No passphrase" in ended.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_is_asked_for_twice(atlas_command: Command, folder: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    answers = ["one", "another", "open", "open", "open", "wrong"]
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert "passphrases differ" in atlas_command("keygen", tmp_path / "me").err
    assert not (tmp_path / "me").exists()
    assert atlas_command("keygen", tmp_path / "me").code == 0
    assert "ENCRYPTED" in (tmp_path / "me").read_text()
    assert atlas_command("sign", *receipt(folder), "--key", tmp_path / "me").code == 0
    ended = atlas_command("sign", *receipt(folder), "--key", tmp_path / "me")
    assert (ended.code, "does not open" in ended.err) == (2, True)
    assert answers == []


def test_without_a_terminal_nobody_is_asked(atlas_command: Command, folder: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert "--no-passphrase" in atlas_command("keygen", tmp_path / "me").err
    (tmp_path / "locked").write_bytes(key(1).pem(b"open"))
    assert "no terminal" in atlas_command("sign", *receipt(folder), "--key", tmp_path / "locked").err


# --- sign ---------------------------------------------------------------------------------------------------------


def test_signing_again_adds_a_signature(
    atlas_command: Command, atlas_verify: Command, signed: Path, keys: Path
) -> None:
    both = ("--key", keys / "1.pub", "--key", keys / "2.pub", "--threshold", "2")
    ended = atlas_verify(*receipt(signed), *both)
    assert ended.code == 6
    assert "1 of your keys" in ended.out
    assert "2 signatures" in atlas_command("sign", *receipt(signed), "--key", keys / "2").out
    assert atlas_verify(*receipt(signed), *both).code == 0
    before = (signed / "receipt-frozen.dsse.json").read_bytes()
    assert "already signed" in atlas_command("sign", *receipt(signed), "--key", keys / "2").out
    assert (signed / "receipt-frozen.dsse.json").read_bytes() == before


def test_each_receipt_has_its_own_signatures(
    atlas_command: Command, atlas_verify: Command, signed: Path, keys: Path
) -> None:
    assert atlas_command("sign", *receipt(signed, "close"), "--key", keys / "1").code == 0
    for arm in ("frozen", "close"):
        assert atlas_verify(*receipt(signed, arm), "--key", keys / "1.pub").code == 0


def test_what_the_evidence_does_not_reproduce_is_not_signed(atlas_command: Command, folder: Path, keys: Path) -> None:
    path = folder / "receipt-frozen.json"
    honest = path.read_text()
    for forged, rule in ((honest.replace('"arm": "frozen"', '"arm": "lucky"', 1), "ATL-C009"),
                         (honest.replace('"verdict": "preserved"', '"verdict": "rewritten"', 1), "ATL-D001")):  # fmt: skip
        assert forged != honest
        path.write_text(forged)
        ended = atlas_command("sign", *receipt(folder), "--key", keys / "1")
        assert ended.code == 2
        assert rule in ended.err
        assert "Nothing was signed" in ended.err
        assert not (folder / "receipt-frozen.dsse.json").exists()


def test_an_honest_rewrite_can_be_signed(
    atlas_command: Command, atlas_verify: Command, folder: Path, keys: Path
) -> None:
    assert atlas_command("sign", *receipt(folder, "rewritten"), "--key", keys / "1").code == 0
    assert atlas_verify(*receipt(folder, "rewritten"), "--key", keys / "1.pub").code == 1
    ended = atlas_verify(*receipt(folder, "rewritten"), "--key", keys / "1.pub", "--require", "rewritten")
    assert ended.code == 0


@pytest.mark.parametrize("name", ["run_log.json", "preregistration.json", "evidence"])
def test_nothing_is_signed_while_a_part_is_absent(atlas_command: Command, folder: Path, keys: Path, name: str) -> None:
    (folder / name).rename(folder / "elsewhere")
    ended = atlas_command("sign", *receipt(folder), "--key", keys / "1")
    assert ended.code == 2
    assert "Nothing was signed" in ended.err


def test_other_documents_are_not_signed(atlas_command: Command, folder: Path, keys: Path) -> None:
    ended = atlas_command("sign", folder / "contract.json", "--key", keys / "1")
    assert ended.code == 2
    assert "no receipt" in ended.err


def test_signatures_over_other_bytes_are_left_alone(atlas_command: Command, signed: Path, keys: Path) -> None:
    path = signed / "receipt-frozen.json"
    path.write_text(path.read_text() + "\n")
    ended = atlas_command("sign", *receipt(signed), "--key", keys / "2")
    assert ended.code == 2
    assert "other bytes" in ended.err


def test_a_file_in_the_signatures_place_is_left_alone(atlas_command: Command, folder: Path, keys: Path) -> None:
    (folder / "receipt-frozen.dsse.json").write_text("notes")
    ended = atlas_command("sign", *receipt(folder), "--key", keys / "1")
    assert ended.code == 2
    assert (folder / "receipt-frozen.dsse.json").read_text() == "notes"


def test_the_statement_can_be_signed_by_other_means(atlas_command: Command, signed: Path, keys: Path) -> None:
    target = signed / "statement.json"
    assert atlas_command("sign", *receipt(signed), "--statement", target).code == 0
    envelope = read_json((signed / "receipt-frozen.dsse.json").read_bytes())
    assert base64.b64decode(envelope["payload"]) == target.read_bytes()
    assert "not overwritten" in atlas_command("sign", *receipt(signed), "--statement", target).err


@pytest.mark.parametrize("given", [(), ("--key", "k", "--statement", "s")])
def test_one_way_of_signing_must_be_chosen(atlas_command: Command, folder: Path, given: tuple[str, ...]) -> None:
    assert "either --key KEYFILE or --statement FILE" in atlas_command("sign", *receipt(folder), *given).err


def test_a_key_that_others_can_read_is_remarked_on(atlas_command: Command, folder: Path, keys: Path) -> None:
    (keys / "1").chmod(0o644)
    ended = atlas_command("sign", *receipt(folder), "--key", keys / "1")
    assert ended.code == 0
    assert "chmod 600" in ended.err


def test_a_public_key_signs_nothing(atlas_command: Command, folder: Path, keys: Path) -> None:
    ended = atlas_command("sign", *receipt(folder), "--key", keys / "1.pub")
    assert ended.code == 2
    assert "not an Ed25519 private key" in ended.err


# --- verify -------------------------------------------------------------------------------------------------------


def test_a_signature_elsewhere_is_named(atlas_verify: Command, signed: Path, keys: Path, tmp_path: Path) -> None:
    (signed / "receipt-frozen.dsse.json").rename(tmp_path / "s.json")
    ended = atlas_verify(*receipt(signed), "--key", keys / "1.pub")
    assert ended.code == 6
    assert "There is no signature" in ended.out
    assert atlas_verify(*receipt(signed), "--key", keys / "1.pub", "--signature", tmp_path / "s.json").code == 0


def test_the_report_says_who_signed_and_who_did_not(atlas_verify: Command, signed: Path, keys: Path) -> None:
    ended = atlas_verify(*receipt(signed), "--key", keys / "1.pub", "--report", "json")
    report = json.loads(ended.out)
    channel = next(c for c in report["channels"] if c["channel"] == "authenticity")
    assert (channel["status"], channel["required"], channel["checked"], channel["total"]) == ("passed", True, 8, 8)
    assert report["digests"]["signed by"] == key(1).public.fingerprint
    ended = atlas_verify(*receipt(signed), "--key", keys / "2.pub")
    assert ended.code == 4
    for part in ("ATL-K001", key(1).public.fingerprint, key(2).public.fingerprint, "as they say"):
        assert part in ended.out


def test_every_part_of_the_study_is_bound(atlas_verify: Command, signed: Path, keys: Path) -> None:
    bound = ["preregistration.json", "run_log.json", "receipt-frozen.json",
             *(f"evidence/{p.name}" for p in (signed / "evidence").iterdir())]  # fmt: skip
    for name in bound:
        content = (signed / name).read_bytes()
        (signed / name).write_bytes(content + b"\n")
        assert atlas_verify(*receipt(signed), "--key", keys / "1.pub").code != 0, name
        (signed / name).write_bytes(content)
    assert atlas_verify(*receipt(signed), "--key", keys / "1.pub").code == 0


def test_a_link_out_of_the_folder_is_not_followed(
    atlas_verify: Command, signed: Path, keys: Path, tmp_path: Path
) -> None:
    (signed / "receipt-frozen.dsse.json").rename(tmp_path / "s.json")
    (signed / "receipt-frozen.dsse.json").symlink_to(tmp_path / "s.json")
    ended = atlas_verify(*receipt(signed), "--key", keys / "1.pub")
    assert ended.code == 2
    assert "What lies beside the receipt is a link." in ended.out


def test_one_key_in_two_files_is_one_key(atlas_verify: Command, signed: Path, keys: Path) -> None:
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + key(1).public.raw).decode()
    (keys / "1.ssh").write_text(f"ssh-ed25519 {blob} me\n")
    ended = atlas_verify(*receipt(signed), "--key", keys / "1.pub", "--key", keys / "1.ssh", "--threshold", "2")
    assert ended.code == 2
    assert "2, with 1 distinct key" in ended.out


# --- evidence in one DuckDB file -----------------------------------------------------------------------------------


@pytest.fixture
def signed_file(folder: Path, keys: Path, atlas_command: Command) -> Path:
    """The study folder with its evidence in one DuckDB file, which is signed, and no Parquet bundle beside it."""
    shutil.rmtree(folder / "evidence")
    study().store(folder / "evidence.duckdb").close()
    ended = atlas_command("sign", *receipt(folder), "--evidence", folder / "evidence.duckdb", "--key", keys / "1")
    assert (ended.code, ended.err) == (0, "")
    return folder


def of_file(folder: Path, keys: Path, name: str = "evidence.duckdb") -> tuple[str | Path, ...]:
    """Return the arguments by which a reviewer verifies the signed receipt with its evidence in a file."""
    return (*receipt(folder), "--evidence", folder / name, "--key", keys / "1.pub", "--profile", "release")


def test_a_signed_database_is_bound_byte_by_byte(atlas_verify: Command, signed_file: Path, keys: Path) -> None:
    envelope = read_json((signed_file / "receipt-frozen.dsse.json").read_bytes())
    (entry,) = read_json(base64.b64decode(envelope["payload"]))["predicate"]["evidence"]
    honest = (signed_file / "evidence.duckdb").read_bytes()
    assert entry == {"name": "evidence.duckdb", "size": len(honest), "sha256": hashlib.sha256(honest).hexdigest()}
    ended = atlas_verify(*of_file(signed_file, keys))
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"binding +ok", ended.out)
    assert re.search(r"authenticity +ok", ended.out)
    (signed_file / "evidence.duckdb").write_bytes(honest + b"\0")  # which DuckDB never reads
    assert atlas_verify(*of_file(signed_file, keys)[:5]).code == 0
    ended = atlas_verify(*of_file(signed_file, keys))
    assert (ended.code, re.findall(r"ATL-[A-Z][0-9]{3}", ended.out)) == (4, ["ATL-B010"])


def test_another_file_with_the_same_rows_is_not_the_signed_one(
    atlas_verify: Command, signed_file: Path, keys: Path
) -> None:
    (signed_file / "evidence.duckdb").unlink()
    study().store(signed_file / "evidence.duckdb").close()
    with duckdb.connect(str(signed_file / "evidence.duckdb")) as connection:
        connection.execute("CREATE TABLE gone AS FROM range(100000); DROP TABLE gone")
    unsigned = atlas_verify(*of_file(signed_file, keys)[:5])
    assert unsigned.code == 0
    ended = atlas_verify(*of_file(signed_file, keys))
    assert (ended.code, "ATL-B010" in ended.out, "ATL-B003" in ended.out) == (4, True, False)


def test_other_rows_in_a_signed_database_are_seen_twice(atlas_verify: Command, signed_file: Path, keys: Path) -> None:
    with duckdb.connect(str(signed_file / "evidence.duckdb")) as connection:
        connection.execute("UPDATE task SET score = 1 - score WHERE item_id = (SELECT min(item_id) FROM task)")
    ended = atlas_verify(*of_file(signed_file, keys))
    assert ended.code == 4
    for rule in ("ATL-B010", "ATL-B003"):
        assert rule in ended.out


def test_a_macro_in_a_signed_database_is_refused_whoever_signed(
    atlas_command: Command, atlas_verify: Command, signed_file: Path, keys: Path
) -> None:
    """Nor can it be signed in the first place: only what verifies is."""
    with duckdb.connect(str(signed_file / "evidence.duckdb")) as connection:
        connection.execute("CREATE MACRO avg(a) AS 42")
    ended = atlas_verify(*of_file(signed_file, keys))
    assert (ended.code, "ATL-A023" in ended.out, "ATL-B010" in ended.out) == (3, True, True)
    (signed_file / "receipt-frozen.dsse.json").unlink()
    ended = atlas_command(
        "sign", *receipt(signed_file), "--evidence", signed_file / "evidence.duckdb", "--key", keys / "1"
    )
    assert (ended.code, "Nothing was signed" in ended.err, "ATL-A023" in ended.err) == (2, True, True)


@pytest.mark.parametrize("form", ["another name", "a bundle"])
def test_the_same_rows_in_another_form_are_not_the_signed_file(
    atlas_command: Command, atlas_verify: Command, signed_file: Path, keys: Path, form: str
) -> None:
    name = "renamed.duckdb" if form == "another name" else "bundle"
    if form == "a bundle":
        assert atlas_command("evidence", "export", signed_file / "evidence.duckdb", signed_file / name).code == 0
    else:
        (signed_file / "evidence.duckdb").rename(signed_file / name)
    assert atlas_verify(*of_file(signed_file, keys, name)[:5]).code == 0
    ended = atlas_verify(*of_file(signed_file, keys, name))
    assert (ended.code, "ATL-B010" in ended.out) == (4, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [(("--threshold", "1"), "needs a key"), (("--signature", "s"), "needs a key"),
     (("--key", "1.pub", "--threshold", "0"), "nobody's signature"), (("--key", "1.pub", "--threshold", "-1"), "nobody's signature"),
     (("--key", "1.pub", "--threshold", "2"), "never be met"), (("--key", "absent"), "cannot be read"),
     (("--key", "1"), "private key"), (("--key", "1.pub", "--profile", "schema"), "--profile offline"),
     (("--key", "1.pub", "--signature", "absent"), "cannot be read"),
     (("--sigstore-bundle", "b"), "no --trusted-root, no --identity, no --issuer"),
     (("--identity", "me"), "no --sigstore-bundle")],
)  # fmt: skip
def test_calls_that_cannot_be_carried_out_say_so(
    atlas_verify: Command, signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(keys)
    ended = atlas_verify(*receipt(signed), *given)
    assert ended.code == 2
    assert said in ended.out


HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cryptography", "sigstore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from atlas_schema.cli import atlas, verify
main = {"atlas": atlas.main, "atlas-verify": verify.main}[sys.argv[1]]
sys.argv = sys.argv[1:]
main()
"""


def without_extras(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which neither `cryptography` nor `sigstore` can be imported."""
    return subprocess.run([sys.executable, "-c", HIDDEN, *map(str, args)], capture_output=True, text=True, timeout=120,
                          check=False)  # fmt: skip


def test_the_light_core_verifies_and_names_the_extra(signed: Path, keys: Path, tmp_path: Path) -> None:
    call = ("atlas-verify", *receipt(signed))
    assert without_extras(*call).returncode == 0
    told = without_extras(*call, "--key", keys / "1.pub")
    assert told.returncode == 2
    assert "pip install 'atlas-schema[sign]'" in told.stdout
    told = without_extras(*call, "--sigstore-bundle", "b", "--trusted-root", "r", "--identity", "i", "--issuer", "o")
    assert told.returncode == 2
    assert "pip install 'atlas-schema[sigstore]'" in told.stdout
    told = without_extras("atlas", "keygen", tmp_path / "me", "--no-passphrase")
    assert told.returncode == 2
    assert "pip install 'atlas-schema[sign]'" in told.stderr
    assert without_extras("atlas", "sign", *receipt(signed), "--key", keys / "1").returncode == 2
