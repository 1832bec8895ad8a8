"""Options of ``atlas-verify`` that say whose signature the reviewer asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_schema.errors import UsageError

if TYPE_CHECKING:
    from atlas_schema.signing.keys import PublicKey
    from atlas_schema.signing.sigstore_bundle import SigstoreTrust
    from atlas_schema.verify.verifier import Options, Submission

Keys = Annotated[
    list[Path] | None, typer.Option("--key", help="Public key of a signer you trust, PEM or OpenSSH; repeatable.")
]
Threshold = Annotated[int | None, typer.Option(help="How many distinct keys must have signed; default 1.")]
Signature = Annotated[Path | None, typer.Option(help="Signature file; default: RECEIPT.dsse.json beside the receipt.")]
Bundle = Annotated[Path | None, typer.Option(help="Sigstore bundle over the receipt's statement.")]
Root = Annotated[Path | None, typer.Option(help="Trusted root, JSON, for --sigstore-bundle.")]
Identity = Annotated[str | None, typer.Option(help="Whom the certificate must name, for --sigstore-bundle.")]
Issuer = Annotated[str | None, typer.Option(help="Who must attest the identity, for --sigstore-bundle.")]


@dataclass(frozen=True, slots=True)
class Vouching:
    """What the reviewer gave, as it was given."""

    keys: tuple[Path, ...] = ()
    threshold: int | None = None
    signature: Path | None = None
    bundle: Path | None = None
    trusted_root: Path | None = None
    identity: str | None = None
    issuer: str | None = None

    def demanded(self, options: Options) -> Options:
        """Return the options with keys and identity added. Raises `UsageError` for what can never be met or was forgotten."""
        if not self.keys:
            for name, value in (("--threshold", self.threshold), ("--signature", self.signature)):
                if value is not None:
                    raise UsageError(
                        f"{name} needs a key that you trust.", todo="give the signer's public key with --key"
                    )
        if (self.keys or self.bundle is not None) and options.profile == "schema":
            raise UsageError("Profile schema looks at one document, a signature covers all of a study.",
                             todo="use --profile offline or a later one with signatures")  # fmt: skip
        sigstore = self._sigstore()
        keys = self._pinned()
        if keys:
            from atlas_schema.signing.keys import require_cryptography

            require_cryptography()
        return replace(options, keys=keys, threshold=1 if self.threshold is None else self.threshold, sigstore=sigstore)

    def loaded(self, submission: Submission, receipt: Path | None) -> Submission:
        """Return the submission with the signatures that were asked for."""
        from atlas_schema.verify.loading import load_signatures

        if not self.keys and self.bundle is None:
            return submission
        return load_signatures(submission, receipt if self.keys else None, self.signature, self.bundle)

    def _pinned(self) -> tuple[PublicKey, ...]:
        from atlas_schema.files import read_bytes
        from atlas_schema.signing.keys import read_public

        distinct = tuple(dict.fromkeys(read_public(read_bytes(path, "public key"), str(path)) for path in self.keys))
        if self.threshold is not None and self.threshold < 1:
            raise UsageError("--threshold asks for nobody's signature.", found=str(self.threshold), expected="1 or more",
                             todo="leave it out: one key must have signed")  # fmt: skip
        if self.keys and not 1 <= (1 if self.threshold is None else self.threshold) <= len(distinct):
            many = len(distinct) > 1
            raise UsageError(
                "--threshold can never be met.", expected=f"1 to {len(distinct)}" if many else "1",
                found=f"{self.threshold}, with {len(distinct)} distinct key{'s' if many else ''}",
                todo="give the keys of more signers; one key counts once, whatever files it is in",
            )  # fmt: skip
        return distinct

    def _sigstore(self) -> SigstoreTrust | None:
        from atlas_schema.signing.sigstore_bundle import SigstoreTrust, require_sigstore

        given = {"--sigstore-bundle": self.bundle, "--trusted-root": self.trusted_root,
                 "--identity": self.identity, "--issuer": self.issuer}  # fmt: skip
        absent = [name for name, value in given.items() if not value]
        if len(absent) == len(given):
            return None
        if self.bundle is None or self.trusted_root is None or not self.identity or not self.issuer:
            raise UsageError("A Sigstore bundle is checked only under a root, an identity and an issuer that you name.",
                             found=f"no {', no '.join(absent)}", expected=", ".join(given))  # fmt: skip
        require_sigstore()
        return SigstoreTrust(self.trusted_root, self.identity, self.issuer)
