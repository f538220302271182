"""Signs messages as Standard Webhooks asks: HMAC-SHA256 over id, time and body.

The secret signs, so it cannot be kept as a hash.  It is kept sealed, by a key
that is derived from the product's own: a copy of the database alone reveals no secret.
"""

import base64
import hmac
import secrets
from datetime import datetime
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BEGINNING = "whsec_"  # noqa: S105
SECRET_BYTES = 32


class SecretUnreadable(Exception):
    """The secret was encrypted with another key: VPS_SECRET_KEY was changed since."""


def new_secret() -> str:
    return SECRET_BEGINNING + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(secret: str, message_id: UUID, sent_at: datetime, body: str) -> dict[str, str]:
    """The three headers with the message's id, its time and its signature."""
    key = base64.b64decode(secret.removeprefix(SECRET_BEGINNING))
    timestamp = str(int(sent_at.timestamp()))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.{body}".encode(), "sha256")
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def seal(secret: str, key: str) -> str:
    return _box(key).encrypt(secret.encode()).decode()


def unseal(sealed: str, key: str) -> str:
    """Decrypt a secret.  Raises SecretUnreadable."""
    try:
        return _box(key).decrypt(sealed).decode()
    except InvalidToken:
        raise SecretUnreadable from None


def _box(key: str) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=b"webhook secrets").derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
