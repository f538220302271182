"""What can be done for an account: create it, issue tokens, add keys.  Its credits: ``billing``."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models.functions import Now

from accounts import openings
from accounts.models import Account, ApiToken, SshKey
from accounts.ssh_keys import PublicKey
from core.errors import Refusal

TOKEN_BEGINNING = "vps_"  # noqa: S105
PREFIX_LENGTH = 12


@transaction.atomic
def get_or_create_account(email: str) -> Account:
    """The account with this address.  A new one is announced (``accounts.openings``)."""
    account, is_new = Account.objects.get_or_create(email__iexact=email, defaults={"email": email})
    if is_new:
        openings.announce(account)
    return account


def issue_token(
    *,
    account: Account,
    name: str,
    permissions: Sequence[str] = ("*:*",),
    expires_at: datetime | None = None,
) -> tuple[ApiToken, str]:
    """A new token and its secret.  The secret is not stored: show it now."""
    secret = TOKEN_BEGINNING + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        account=account,
        name=name,
        prefix=secret[:PREFIX_LENGTH],
        digest=digest_of(secret),
        permissions=list(permissions),
        expires_at=expires_at,
    )
    return token, secret


def revoke_token(*, token: ApiToken) -> None:
    """From now on the token is refused.  Revoking twice keeps the first time."""
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=Now())


@transaction.atomic
def add_ssh_key(*, account: Account, name: str, public_key: PublicKey) -> SshKey:
    """Keep a key under a name.  The same key twice in an account is refused (duplicate_ssh_key)."""
    key, is_new = SshKey.objects.get_or_create(
        account=account,
        fingerprint=public_key.fingerprint,
        defaults={"name": name, "public_key": public_key.line},
    )
    if not is_new:
        raise Refusal(
            f"This account has this key already, as {key.name}.", code="duplicate_ssh_key", field="public_key"
        )
    return key


def record_use(keys: Sequence[SshKey]) -> None:
    """Record that these keys were put on a new server just now."""
    SshKey.objects.filter(pk__in=[key.pk for key in keys]).update(last_used_at=Now())


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
