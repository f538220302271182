"""Bearer authentication: one indexed look-up by the SHA-256 of the token's secret."""

import re
from datetime import timedelta
from typing import cast

import orjson
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts import actors
from accounts.models import Account, ApiToken
from accounts.services import digest_of
from core.errors import NotAuthenticated

SECRET = re.compile(r"vps_[A-Za-z0-9_-]{20,200}", re.ASCII)
USE_PRECISION = timedelta(minutes=1)
TOKEN_FIELDS = [field.attname for field in ApiToken._meta.concrete_fields]
ACCOUNT_FIELDS = [field.attname for field in Account._meta.concrete_fields]
COLUMNS = [f"token.{name}" for name in TOKEN_FIELDS] + [f"account.{name}" for name in ACCOUNT_FIELDS]
COLUMNS += [
    "coalesce(token.expires_at <= statement_timestamp(), false)",
    f"coalesce(token.last_used_at > statement_timestamp() - interval '{USE_PRECISION}', false)",
]
LOOK_UP = f"""
    SELECT {", ".join(COLUMNS)}
    FROM accounts_apitoken token JOIN accounts_account account ON account.id = token.account_id
    WHERE token.digest = %s
"""  # noqa: S608


class BearerAuthentication(BaseAuthentication):
    """``Authorization: Bearer vps_...`` makes ``request.user`` the account, ``request.auth`` the token.

    The token is the actor until the request ends.
    """

    def authenticate(self, request: Request) -> tuple[Account, ApiToken]:
        scheme, _, secret = request.META.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        if not scheme:
            raise NotAuthenticated("Send your API token: Authorization: Bearer vps_...")
        if scheme.lower() != "bearer" or not SECRET.fullmatch(secret.strip()):
            raise NotAuthenticated(
                "The Authorization header should be: Bearer vps_... (an API token).", code="malformed_token"
            )
        token, was_used_lately = _valid_token(digest_of(secret.strip()))
        if not was_used_lately:
            _record_use(token)
        actors.become(actors.token_actor(token))
        return token.account, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def account_of(request: Request) -> Account:
    """The account of an authenticated request."""
    return cast(Account, request.user)


def token_of(request: Request) -> ApiToken:
    return cast(ApiToken, request.auth)


def _valid_token(digest: str) -> tuple[ApiToken, bool]:
    """The token with its account, and whether its use was noted within the last minute.

    Refuses a token that is unknown, was revoked, or has expired by Postgres's clock, and a closed account.
    Plain SQL, because every request begins here: the ORM is slower.
    """
    with connection.cursor() as cursor:
        cursor.execute(LOOK_UP, [digest])
        row = cursor.fetchone()
    if row is None:
        raise NotAuthenticated("This API token is unknown.", code="invalid_token")
    *row, has_expired, was_used_lately = row
    token = ApiToken.from_db(connection.alias, TOKEN_FIELDS, row[: len(TOKEN_FIELDS)])
    token.permissions = orjson.loads(row[TOKEN_FIELDS.index("permissions")])
    token.account = Account.from_db(connection.alias, ACCOUNT_FIELDS, row[len(TOKEN_FIELDS) :])
    if token.revoked_at is not None:
        raise NotAuthenticated("This API token was revoked.", code="token_revoked")
    if has_expired:
        raise NotAuthenticated("This API token has expired.", code="token_expired")
    if not token.account.is_active:
        raise NotAuthenticated("This account is closed. Ask support.", code="account_closed")
    return token, was_used_lately


def _record_use(token: ApiToken) -> None:
    # Of several simultaneous requests with the token, one writes.
    stale = Q(last_used_at=None) | Q(last_used_at__lte=Now() - USE_PRECISION)
    ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=Now())
