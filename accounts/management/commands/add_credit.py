from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Account, CreditEntry
from accounts.services import add_credit, balance_of
from vpsorg.commands import sentence_of


class Command(BaseCommand):
    help = (
        "Write one line into an account's ledger of credits and print the new balance. "
        "Example: manage.py add_credit --account alice@example.com --amount 50 --note 'invoice 17'. "
        "A negative amount takes credits away: --amount=-50."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, metavar="EMAIL")
        parser.add_argument("--amount", required=True, help="credits, such as 50 or 12.50")
        parser.add_argument("--note", default="", help="why, for the history")

    def handle(self, *args: Any, account: str, amount: str, note: str, **options: Any) -> None:
        line = CreditEntry(kind=CreditEntry.Kind.GRANT, amount=amount, note=note)
        try:
            line.clean_fields(exclude=["account"])
        except ValidationError as error:
            raise CommandError(sentence_of(error)) from None
        found = Account.objects.filter(email__iexact=account).first()
        if found is None:
            raise CommandError(f"There is no account {account}. manage.py create_token makes one.")
        add_credit(account=found, amount=line.amount, kind=CreditEntry.Kind.GRANT, note=note)
        self.stdout.write(f"{found.email}: {balance_of(found):.2f} credits")
