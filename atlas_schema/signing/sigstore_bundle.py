"""Sigstore bundles: a statement signed under an identity, checked offline against a trusted root that the reviewer supplies.

The work is done by the package `sigstore` (extra ``sigstore``), imported when a bundle is given and only then. It loads network
libraries on import; nothing here asks it to connect, and it is never asked for a trusted root of its own.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

from atlas_schema.errors import DocumentError, UsageError


@dataclass(frozen=True, slots=True)
class SigstoreTrust:
    """What the reviewer trusts: a trusted root's file, and the identity and its issuer that a certificate must name."""

    trusted_root: Path
    identity: str
    issuer: str


def require_sigstore() -> None:
    """Raise `UsageError` that names the extra where `sigstore` is not installed."""
    try:
        import sigstore.verify  # noqa: F401
    except ImportError as error:
        raise UsageError("Sigstore bundles need the package 'sigstore', which is not installed.",
                         todo="pip install 'atlas-schema[sigstore]'") from error  # fmt: skip


def verify_bundle(raw: bytes, trust: SigstoreTrust) -> tuple[str, bytes]:
    """Return (payload type, payload) of a bundle that verifies.

    Checked by the library: certificate chain at the time of signing, signed certificate timestamp, identity and issuer,
    inclusion in the log with its checkpoint, inclusion promise, and the signature over the DSSE envelope.
    Raises `DocumentError` for a bundle that does not verify, `UsageError` for a trusted root that cannot be used.
    """
    require_sigstore()
    from cryptography import x509
    from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
    from sigstore.errors import Error
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity

    logging.getLogger("sigstore").setLevel(logging.ERROR)  # its remarks on a log's client are not for this report
    # What reading a certificate raises is documented as its own exceptions, which share no class but `Exception`.
    of_x509 = (x509.AttributeNotFound, x509.DuplicateExtension, x509.ExtensionNotFound, x509.InvalidVersion,
               x509.UnsupportedGeneralNameType)  # fmt: skip
    faults = (Error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, InternalError,
              InvalidSignature, UnsupportedAlgorithm, *of_x509)  # fmt: skip
    try:
        verifier = Verifier(trusted_root=TrustedRoot.from_file(str(trust.trusted_root)))
    except (*faults, OSError) as error:
        raise UsageError("This trusted root cannot be used.", where=str(trust.trusted_root), found=_first_line(error),
                         todo="give the trusted_root.json of the Sigstore instance that you trust") from error  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nor what a certificate that is refused or believed is warned of besides
            bundle = Bundle.from_json(raw)
            return verifier.verify_dsse(bundle, Identity(identity=trust.identity, issuer=trust.issuer))
    except faults as error:
        raise DocumentError("The Sigstore bundle does not verify.", found=_first_line(error),
                            expected=f"signed by {trust.identity}, as {trust.issuer} attests") from error  # fmt: skip


def _first_line(error: Exception) -> str:
    return f"{str(error).partition(chr(10))[0] or type(error).__name__}"[:300]
