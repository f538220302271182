from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email

from accounts.services import get_or_create_account, issue_token


class Command(BaseCommand):
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
            help="servers:read, servers:write, servers:delete, ssh_keys:*, *:* (default); may be repeated",
        )

    def handle(
        self, *args: Any, account: str, name: str, permission: list[str] | None, **options: Any
    ) -> None:
        try:
            validate_email(account)
        except ValidationError:
            raise CommandError(f"--account {account} should be an email address.") from None
        _, secret = issue_token(
            account=get_or_create_account(account), name=name, permissions=permission or ["*:*"]
        )
        self.stdout.write(secret)
