"""``atlas keygen`` and ``atlas sign``: a signer's commands."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema.errors import AtlasError, UsageError

if TYPE_CHECKING:
    from atlas_schema.signing.envelope import Envelope
    from atlas_schema.signing.keys import PrivateKey
    from atlas_schema.verify.verifier import Submission


def register(app: typer.Typer) -> None:
    """Add the commands to ``atlas``."""
    app.command()(keygen)
    app.command()(sign)


def keygen(
    keyfile: Annotated[Path, typer.Argument(help="Where to write the private key; the public key is KEYFILE.pub.")],
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Do not ask for a passphrase; the file alone can sign.")
    ] = False,
) -> None:
    """Make an Ed25519 key pair. Nothing is overwritten."""
    from atlas_schema.signing.keys import generate, public_pem

    public = keyfile.with_name(keyfile.name + ".pub")
    for path in (keyfile, public):
        if os.path.lexists(path):
            raise UsageError("This file exists already; keys are not overwritten.", where=str(path),
                             todo="name another file, or move the old key away")  # fmt: skip
    key = generate()
    _write_new(keyfile, key.pem(_new_passphrase(no_passphrase)), 0o600)
    try:
        _write_new(public, public_pem(key.public), 0o644)
    except AtlasError:
        keyfile.unlink()  # half a pair is of use to nobody
        raise
    typer.echo(f"{keyfile}: private key; keep it, and back it up\n{public}: public key; give it to reviewers\n"
               f"fingerprint {key.public.fingerprint}")  # fmt: skip


def _new_passphrase(none: bool) -> bytes | None:
    if none:
        return None
    if not sys.stdin.isatty():
        raise UsageError("There is no terminal to ask for a passphrase.", todo="give --no-passphrase to do without one")
    first = _asked("Passphrase for the new key (empty for none): ")
    if first and _asked("The same again: ") != first:
        raise UsageError("The two passphrases differ.", todo="try again; nothing was written")
    return first.encode() or None


def _asked(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        raise UsageError("No passphrase was given.", todo="try again; an empty line means none") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Create a file that did not exist, with its permissions from the first byte on."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(handle)
    except OSError as error:
        path.unlink()  # half a key is none
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> UsageError:
    return UsageError("The key could not be written.", where=str(path), found=error.strerror or str(error),
                      todo="name a file in a folder that exists, is writable, and has space")  # fmt: skip


def sign(
    receipt: Annotated[Path, typer.Argument(help="The receipt; its documents and evidence lie beside it.")],
    key: Annotated[Path | None, typer.Option(help="Private key that 'atlas keygen' wrote.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="Default: evidence/ beside the receipt.")] = None,
    contract: Annotated[str | None, typer.Option(help="File of the contract, where it is not a built-in one.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: RECEIPT.dsse.json beside the receipt.")
    ] = None,
    statement: Annotated[
        Path | None, typer.Option(help="Write the unsigned statement here, to be signed by other means; needs no key.")
    ] = None,
) -> None:
    """Sign a receipt, the documents beside it and every file of its evidence; sign again to add a signature.

    Only what is reproduced is signed, whatever its verdict: every channel of the profile 'review' must pass.
    """
    from atlas_schema.verify.loading import load, signature_path

    if (key is None) == (statement is None):
        raise UsageError("Say how to sign.", expected="either --key KEYFILE or --statement FILE",
                         todo="'atlas keygen KEYFILE' makes a key")  # fmt: skip
    submission = load(receipt, evidence, contract)
    payload = _payload(submission)
    if statement is not None:
        _write_statement(statement, payload)
        return
    if key is not None:
        _sign(receipt, payload, _private(key), output or signature_path(receipt))


def _sign(receipt: Path, payload: bytes, key: PrivateKey, target: Path) -> None:
    from atlas_schema.files import write_atomically
    from atlas_schema.signing import envelope

    before = _envelope(target) if os.path.lexists(target) else None
    if before is not None and (before.payload, before.payload_type) != (payload, envelope.PAYLOAD_TYPE):
        raise UsageError("The signature file is about other bytes than these.", where=str(target),
                         todo="if receipt, documents and evidence are as you mean them, move the old signatures away")  # fmt: skip
    made = envelope.sign(payload, key, before)
    if before is not None and made == before:
        typer.echo(f"{target}: already signed by {key.public.fingerprint}; unchanged")
        return
    write_atomically(target, json.dumps(made.as_json(), indent=2) + "\n")
    count = len(made.signatures)
    typer.echo(f"{target}: {count} signature{'s' if count > 1 else ''}, the last by {key.public.fingerprint}\n"
               f"Reviewers run: atlas-verify {receipt} --key PUBLIC_KEY")  # fmt: skip


def _payload(submission: Submission) -> bytes:
    """Return the statement over a receipt whose every number is recomputed, and refuse any other."""
    from atlas_schema.cli.accepted import accepted
    from atlas_schema.signing.statement import statement_bytes
    from atlas_schema.verify.verifier import statement_over

    made = statement_over(submission) if accepted(submission) else None
    if made is None:
        raise UsageError("Nothing was signed: this is no receipt that its evidence reproduces.", where=submission.name,
                         todo="mend what the report above names, then sign")  # fmt: skip
    return statement_bytes(made)


def _envelope(path: Path) -> Envelope:
    from atlas_schema.files import read_bytes
    from atlas_schema.signing.envelope import envelope_of
    from atlas_schema.verify.reading import read_json

    try:
        return envelope_of(read_json(read_bytes(path, "signature file")))
    except AtlasError as error:
        raise UsageError("There is a file where the signatures belong, and it holds none.", where=str(path), found=error.what,
                         todo="move it away, or name another file with --output") from error  # fmt: skip


def _private(path: Path) -> PrivateKey:
    from atlas_schema.files import read_bytes
    from atlas_schema.signing.keys import is_encrypted, read_private

    data, passphrase = read_bytes(path, "private key"), None
    if is_encrypted(data):
        if not sys.stdin.isatty():
            raise UsageError("The key has a passphrase, and there is no terminal to ask for it.", where=str(path),
                             todo="sign at a terminal, or with a key that has none")  # fmt: skip
        passphrase = _asked(f"Passphrase of {path}: ").encode()
    key = read_private(data, str(path), passphrase)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        typer.echo(f"warning: others on this machine can read {path}; chmod 600 it", err=True)
    return key


def _write_statement(path: Path, payload: bytes) -> None:
    if os.path.lexists(path):
        raise UsageError("This file exists already; it is not overwritten.", where=str(path), todo="name another file")
    from atlas_schema.files import write_atomically

    write_atomically(path, payload.decode())
    typer.echo(f"{path}: in-toto statement, unsigned")
