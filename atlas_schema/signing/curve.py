"""Which 32 bytes are a sound Ed25519 public key, and which 64 bytes are a canonical signature (RFC 8032, section 5.1).

The library that checks signatures takes keys of small order, for which anyone can write a signature of any message, and
keys with a small-order part. Here both are refused, and so is every second encoding of a point or scalar: one key has one
encoding, so that two files never count as two keys. Plain integers, nothing secret passes through here.
"""

from __future__ import annotations

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
"""Order of the base point."""
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
KEY_BYTES, SIGNATURE_BYTES = 32, 64

Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z."""
NEUTRAL: Point = (0, 1, 1, 0)


def key_fault(raw: bytes) -> str | None:
    """Return why 32 bytes are not a sound public key, or None: a canonical point of the prime-order subgroup, not neutral."""
    if len(raw) != KEY_BYTES:
        return f"it has {len(raw)} bytes, not {KEY_BYTES}"
    point = _decoded(raw)
    if isinstance(point, str):
        return point
    if _is_neutral(_times(8, point)):
        return "it is a point of small order: anyone can sign anything in its name"
    if not _is_neutral(_times(L, point)):
        return "it has a part of small order, which no honest key has"
    return None


def signature_fault(raw: bytes) -> str | None:
    """Return why 64 bytes are not a canonical signature, or None. Says nothing of whether the signature holds."""
    if len(raw) != SIGNATURE_BYTES:
        return f"it has {len(raw)} bytes, not {SIGNATURE_BYTES}"
    if int.from_bytes(raw[32:], "little") >= L:
        return "its scalar is not below the group's order: a second form of another signature"
    point = _decoded(raw[:32])
    return f"its first half is no curve point: {point}" if isinstance(point, str) else None


def _decoded(raw: bytes) -> Point | str:
    """Decode a point as RFC 8032, 5.1.3 does; return what is wrong with it instead where there is something."""
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        return "its coordinate is not below the field's prime: a second encoding of another point"
    x = _x_of(y)
    if x is None:
        return "it is not a point of the curve"
    if x == 0 and sign:
        return "it has a negative zero: a second encoding of another point"
    x = P - x if x & 1 != sign else x
    return (x, y, 1, x * y % P)


def _x_of(y: int) -> int | None:
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == u:
        return x
    return x * ROOT_OF_MINUS_ONE % P if v * x * x % P == -u % P else None


def _plus(a: Point, b: Point) -> Point:
    """Add two points by the complete formula of RFC 8032, 5.1.4."""
    minus, plus = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * D * a[3] * b[3] % P, 2 * a[2] * b[2] % P
    e, f, g, h = plus - minus, d - c, d + c, plus + minus
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(n: int, point: Point) -> Point:
    total = NEUTRAL
    while n:
        if n & 1:
            total = _plus(total, point)
        point = _plus(point, point)
        n >>= 1
    return total


def _is_neutral(point: Point) -> bool:
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0
