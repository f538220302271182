from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.access.permissions import WORD
from accounts.models import Account, ApiToken
from accounts.services import get_or_create_account, issue_token
from core import clock
from core.commands import OurCommand

MAX_DAYS = 36_500


class Command(OurCommand):
    help = (
        "Print a new API token for an account, and nothing else. The account is made when it is new (with "
        "VPS_SIGNUP_CREDITS credits). The token is shown this once: only its SHA-256 is kept. "
        "Example: manage.py create_token --account alice@example.com --name laptop"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, metavar="EMAIL", help="whose token it is")
        parser.add_argument("--name", required=True, help="what the customer calls it: laptop, CI")
        parser.add_argument(
            "--permission",
            action="append",
            metavar="RESOURCE:ACTION",
            help="servers:read, servers:write, ssh_keys:*, billing:read, *:* (default); may be repeated",
        )

        parser.add_argument(
            "--expires-days", type=int, metavar="N", help="refuse it after N days; default: never"
        )

    def handle(
        self,
        *args: Any,
        account: str,
        name: str,
        permission: list[str] | None,
        expires_days: int | None,
        **options: Any,
    ) -> None:
        permissions = permission or ["*:*"]
        for word in permissions:
            if not WORD.fullmatch(word):
                raise CommandError(f"--permission {word} should be RESOURCE:ACTION, such as servers:read.")
        Account(email=account).clean_fields()
        ApiToken(name=name).clean_fields(exclude=["account", "prefix", "digest", "permissions"])
        if expires_days is not None and not 1 <= expires_days <= MAX_DAYS:
            raise CommandError(f"--expires-days {expires_days} should be 1 to {MAX_DAYS}.")
        _, secret = issue_token(
            account=get_or_create_account(account),
            name=name,
            permissions=permissions,
            expires_at=clock.now() + timedelta(days=expires_days) if expires_days else None,
        )
        self.stdout.write(secret)
