"""Signs messages as Standard Webhooks asks: HMAC-SHA256 over id, time and body."""

import base64
import hmac
import secrets
from datetime import datetime
from uuid import UUID

SECRET_BEGINNING = "whsec_"  # noqa: S105
SECRET_BYTES = 32


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
