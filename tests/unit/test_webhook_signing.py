"""Signatures as Standard Webhooks has them, and secrets as they are kept."""

import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from webhooks.sealing import SecretUnreadable, seal, unseal
from webhooks.signing import new_secret, signed_headers

DOCS = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
ID = UUID("5f0c1c53-8a0b-4f5e-9d7e-52b6a9a1c006")
BODY = '{"type":"ping","timestamp":"2025-01-10T14:30:00.000Z","data":{"name":"é"}}'


def verify(*args: Any) -> Any:
    """The function that the documentation gives to receivers, as it stands there."""
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    told: dict[str, Any] = {}
    exec(snippet, told)
    return told["verify"](*args)


def test_a_signature_is_hmac_sha256_of_id_time_and_body() -> None:
    """The figures were computed with openssl: openssl dgst -sha256 -mac HMAC -macopt hexkey:6b6b...6b"""
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    moment = datetime(2025, 1, 10, 14, 30, 0, 999_999, tzinfo=UTC)

    assert signed_headers(secret, ID, moment, BODY) == {
        "webhook-id": str(ID),
        "webhook-timestamp": "1736519400",
        "webhook-signature": "v1,szb9OiiAR6LSyXSxfaxWFHb4G77/RWp7sEwWXAwwzW0=",
    }


def test_the_snippet_of_the_documentation_takes_what_we_sign() -> None:
    secret = new_secret()
    headers = signed_headers(secret, ID, datetime.now(UTC), BODY)

    assert verify(secret, headers, BODY.encode())["type"] == "ping"


@pytest.mark.parametrize("what", ["webhook-id", "webhook-timestamp", "webhook-signature", "body", "secret"])
def test_the_snippet_refuses_what_was_changed_on_the_way(what: str) -> None:
    secret = new_secret()
    headers, body = signed_headers(secret, ID, datetime.now(UTC), BODY), BODY
    if what == "body":
        body = BODY.replace("ping", "pong")
    elif what == "secret":
        secret = new_secret()
    elif what == "webhook-timestamp":
        headers[what] = str(int(headers[what]) - 1)
    else:
        headers[what] = headers[what][:-2] + "00"

    with pytest.raises(ValueError, match="signature"):
        verify(secret, headers, body.encode())


@pytest.mark.parametrize("minutes", [-6, 6])
def test_the_snippet_refuses_what_was_signed_long_ago(minutes: int) -> None:
    secret = new_secret()
    headers = signed_headers(secret, ID, datetime.now(UTC) + timedelta(minutes=minutes), BODY)

    with pytest.raises(ValueError, match="old"):
        verify(secret, headers, BODY.encode())


def test_secrets_are_long_and_no_two_are_the_same() -> None:
    made = {new_secret() for _ in range(100)}

    assert len(made) == 100
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32 for secret in made)


def test_a_sealed_secret_shows_nothing_and_opens_with_its_key_only(settings: Any) -> None:
    secret = new_secret()
    sealed = seal(secret)

    assert secret[6:] not in sealed
    assert unseal(sealed) == secret
    for other in (sealed[:-4] + "AAA=", "", "nonsense"):
        with pytest.raises(SecretUnreadable):
            unseal(other)
    settings.SECRET_KEY = "another key"
    with pytest.raises(SecretUnreadable):
        unseal(sealed)
