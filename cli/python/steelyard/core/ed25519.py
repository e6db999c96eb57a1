"""Ed25519 as document 02 wants it: points that are valid and strong, no cofactor, reduced scalars."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .basic import Refused, blake3, is_hex, need

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def decode(data):
    """The point's coordinates, or nothing."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, (y & (2**255 - 1)) % P
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == (-u) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if v * x * x % P != u:
        return None
    if x & 1 != sign:
        x = -x % P
    return x, y


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, P - 2, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, P - 2, P) % P


def is_small(point):
    """Whether eight times the point is the neutral element."""
    for _ in range(3):
        point = add(point, point)
    return point == (0, 1)


def read_key(text):
    """The 32 bytes of a public key's text."""
    need(is_hex(text), "key")
    data = bytes.fromhex(text)
    point = decode(data)
    need(point is not None and not is_small(point), "key")
    return data


def key_id(data):
    return blake3(b"ed25519:" + data).hexdigest()


def verify(key, message, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    point = decode(r)
    if s >= L or point is None or is_small(point):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, Refused):
        return False
    return True
