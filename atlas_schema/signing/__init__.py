"""Who vouches for which bytes: DSSE envelopes, in-toto statements, Ed25519 keys that a reviewer pins, Sigstore bundles."""
