from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.models import Account
from billing import ledger
from core.commands import OurCommand


class Command(OurCommand):
    help = (
        "Add credits to an account and print its new balance. What billing had suspended comes back when the "
        "balance is 0 or more. With --reference the same payment cannot be added twice. "
        "Example: manage.py top_up --account alice@example.com --amount 50 --reason 'invoice 17'"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, metavar="EMAIL")
        parser.add_argument("--amount", required=True, metavar="N", help="credits, such as 50 or 12.50")
        parser.add_argument("--reason", required=True, help="why, for the customer to read")
        parser.add_argument("--reference", default="", help="of the payment or the invoice")
        parser.add_argument("--by", default="operator", metavar="NAME", help="who does it, for the history")

    def handle(
        self, *args: Any, account: str, amount: str, reason: str, reference: str, by: str, **options: Any
    ) -> None:
        found = Account.objects.filter(email__iexact=account).first()
        if found is None:
            raise CommandError(f"There is no account {account}. manage.py create_token makes one.")
        ledger.top_up(
            account=found, amount=ledger.amount_of(amount), reason=reason, made_by=by, reference=reference
        )
        found.refresh_from_db()
        self.stdout.write(f"{found.email}: {found.balance:.2f} credits")
