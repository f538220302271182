"""The answers of the account's endpoints."""

from typing import Annotated

from accounts.models import Account as AccountRow
from accounts.models import ApiToken as TokenRow
from accounts.models import SshKey as SshKeyRow
from core.api.answers import Answer, Id, Moment, Uuid, about, example, utc, utc_or_none

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJU8XRHsiyDnAbAUH2LhRsoFRZ09MlFDm3p5DXG9f1Vz alice@laptop"


class AccountHolder(Answer):
    email: str
    first_name: str
    last_name: str
    company_name: str
    created_at: Annotated[str, about("A day, `2025-01-10`.")]


class ApiToken(Answer):
    name: str
    permissions: Annotated[list[str], about("`resource:action`, where `*` stands for any.")]
    prefix: Annotated[str, about("The first characters of the token.")]
    created_at: Moment
    last_used_at: Moment | None
    expires_at: Moment | None


@example(
    "Alice",
    {
        "account": {
            "email": "alice@example.com",
            "first_name": "Alice",
            "last_name": "",
            "company_name": "",
            "created_at": "2025-01-10",
        },
        "token": {
            "name": "laptop",
            "permissions": ["*:*"],
            "prefix": "vps_3fKq9dTz",
            "created_at": "2025-01-10T14:30:00Z",
            "last_used_at": None,
            "expires_at": None,
        },
    },
)
class Account(Answer):
    account: AccountHolder
    token: ApiToken


SSH_KEY = {
    "id": 7,
    "uuid": "0b9d2f0e-4a52-4a0e-9d5c-2d4d8f7b1c11",
    "name": "laptop",
    "public_key": PUBLIC_KEY,
    "fingerprint": "SHA256:9sxXUe6uo3Y4zl8jO5O3E8V9q6nTbjzqR5q1f8m0sJk",
    "created_at": "2025-01-10T14:30:00Z",
    "last_used_at": None,
}


@example("A key", SSH_KEY)
class SshKey(Answer):
    id: Id
    uuid: Uuid
    name: str
    public_key: str
    fingerprint: Annotated[str, about("As `ssh-keygen -l` shows it.")]
    created_at: Moment
    last_used_at: Annotated[Moment | None, about("When the key was last put on a new server.")]


def account(row: AccountRow, token: TokenRow) -> Account:
    return Account(
        account=AccountHolder(
            email=row.email,
            first_name=row.first_name,
            last_name=row.last_name,
            company_name=row.company_name,
            created_at=row.created_at.date().isoformat(),
        ),
        token=ApiToken(
            name=token.name,
            permissions=token.permissions,
            prefix=token.prefix,
            created_at=utc(token.created_at),
            last_used_at=utc_or_none(token.last_used_at),
            expires_at=utc_or_none(token.expires_at),
        ),
    )


def ssh_key(row: SshKeyRow) -> SshKey:
    return SshKey(
        id=row.pk,
        uuid=str(row.uuid),
        name=row.name,
        public_key=row.public_key,
        fingerprint=row.fingerprint,
        created_at=utc(row.created_at),
        last_used_at=utc_or_none(row.last_used_at),
    )
