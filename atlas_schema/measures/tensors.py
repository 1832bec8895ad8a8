"""Digests of single tensors, so that 'bitwise equal' can be checked without the model."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def tensor_bytes(values: npt.NDArray[np.float32]) -> bytes:
    """Return the encoding that is hashed: a tag, the shape as little-endian u32 (count first), float32 row-major."""
    shape = np.array([values.ndim, *values.shape], dtype="<u4").tobytes()
    return b"atlas-tensor/1\0" + shape + np.ascontiguousarray(values, dtype="<f4").tobytes()


def tensor_digest(*tensors: npt.NDArray[np.float32]) -> str:
    """Return the digest of the concatenated encodings of stored weights, widened to float32."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(tensor_bytes(tensor))
    return "sha256:" + hasher.hexdigest()
