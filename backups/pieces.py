"""A piece is 4 MiB of a disk, at a multiple of 4 MiB; the last piece of a disk may be shorter.

Its name is a keyed hash of its bytes.  So equal pieces of an account are stored once, and a name shows nobody
what is in a piece.  Each account has keys of its own: accounts share no names.  A piece of zeros only is not
stored and has no name.
"""

import hmac

import zstandard

from backups.errors import Damaged
from backups.sealing import Subkeys, seal, unseal

PIECE_BYTES = 4 * 1024 * 1024
NAME_BYTES = 32
LEVEL = 1  # of zstandard: the quickest, and within a few percent of the others
ZEROS = bytes(PIECE_BYTES)


def name_of(keys: Subkeys, plain: bytes) -> bytes | None:
    """The name of a piece with these bytes.  None if all are zero."""
    if plain == (ZEROS if len(plain) == PIECE_BYTES else bytes(len(plain))):
        return None
    return _hashed(keys, plain)


def compress(plain: bytes) -> bytes:
    """The first step of what is stored of a piece.  The second is ``pack``: nobody needs ``plain`` then."""
    return zstandard.compress(plain, LEVEL)


def pack(keys: Subkeys, name: bytes, compressed: bytes) -> bytearray:
    """What is stored of a piece: encrypted, and bound to its name."""
    return seal(keys.pieces, compressed, name)


def unpack(keys: Subkeys, name: bytes, stored: bytes | bytearray | memoryview) -> bytes:
    """The bytes of a piece.  Raises Damaged unless they are those that were packed under this name."""
    packed = unseal(keys.pieces, stored, name)
    try:
        plain = zstandard.decompress(packed, max_output_size=PIECE_BYTES)
    except zstandard.ZstdError as error:
        raise Damaged(f"does not decompress: {error}") from None
    if not hmac.compare_digest(_hashed(keys, plain), name):
        raise Damaged("has other bytes than its name says")
    return plain


def _hashed(keys: Subkeys, plain: bytes) -> bytes:
    return hmac.digest(keys.names, plain, "sha256")
