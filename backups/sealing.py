"""Encrypts what leaves for the store, with AES-256-GCM, and tells whether it comes back as it was.

Each sealed text is bound to a label, such as the account and the backup that it is of.  Under another key or
label it does not open: nothing in the store can be passed off as something else.
"""

import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backups.errors import Damaged

KEY_BYTES = 32
FORMAT = b"\x01"
NONCE_BYTES = 12
BEFORE = len(FORMAT) + NONCE_BYTES
ADDED = BEFORE + 16  # a tag is behind


class Subkeys(NamedTuple):
    """The keys of one account, each for one purpose."""

    names: bytes
    pieces: bytes
    manifests: bytes


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def subkeys_of(data_key: bytes) -> Subkeys:
    """Derive an account's keys from its data key.  The same data key gives the same keys."""
    return Subkeys(*(_derived(data_key, purpose) for purpose in Subkeys._fields))


def _derived(data_key: bytes, purpose: str) -> bytes:
    info = f"backups: {purpose}".encode()
    return HKDF(SHA256(), length=KEY_BYTES, salt=None, info=info).derive(data_key)


def seal(key: bytes, plain: bytes, label: bytes) -> bytearray:
    """Encrypt.  The result is ADDED bytes longer, and another one each time."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = bytearray(len(plain) + ADDED)
    sealed[:BEFORE] = FORMAT + nonce
    AESGCM(key).encrypt_into(nonce, plain, FORMAT + label, memoryview(sealed)[BEFORE:])
    return sealed


def unseal(key: bytes, sealed: bytes | bytearray | memoryview, label: bytes) -> bytes:
    """Decrypt.  Raises Damaged if it was not sealed with this key and label, or was changed since."""
    view = memoryview(sealed)
    nonce, rest = view[len(FORMAT) : BEFORE], view[BEFORE:]
    if view[: len(FORMAT)] != FORMAT:
        raise Damaged("is of an unknown format")
    try:
        return AESGCM(key).decrypt(nonce, rest, FORMAT + label)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise Damaged("does not decrypt: it was changed, or encrypted with another key") from None
