"""Models as this project sees them: loaded safely, identified by digests, bound layer by layer."""
