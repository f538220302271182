"""Keeps the secrets of webhooks: each signs, so it cannot be kept as a hash.

It is kept sealed, by a key that is derived from VPS_SECRET_KEY: a copy of the database alone reveals no
secret.  What was sealed with an older key opens while that is in VPS_OLD_SECRET_KEYS.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class SecretUnreadable(Exception):
    """The secret was encrypted with a key that is neither VPS_SECRET_KEY nor in VPS_OLD_SECRET_KEYS."""


def seal(secret: str) -> str:
    return _box(settings.SECRET_KEY).encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str:
    """Decrypt a secret.  Raises SecretUnreadable."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    try:
        return MultiFernet([_box(key) for key in keys]).decrypt(sealed).decode()
    except InvalidToken:
        raise SecretUnreadable from None


def is_sealed_with_an_old_key(sealed: str) -> bool:
    """Whether VPS_SECRET_KEY does not open it."""
    try:
        _box(settings.SECRET_KEY).decrypt(sealed)
    except InvalidToken:
        return True
    return False


def _box(key: str) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=b"webhook secrets").derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
