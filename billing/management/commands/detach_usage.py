from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser

from billing import months
from core.commands import OurCommand


class Command(OurCommand):
    help = (
        "Take the usage lines of a closed month out of the ledger's table, and print the name of the table "
        "that has them from now on: dump it and drop it, or keep it. Balances and monthly totals keep "
        "counting them. Refuses a month that is not over or that audit_ledger has not proven. "
        "Example: manage.py detach_usage 2026-03"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", metavar="YYYY-MM")

    def handle(self, *args: Any, month: str, **options: Any) -> None:
        try:
            first = date.fromisoformat(f"{month}-01")
        except ValueError:
            raise CommandError(f"{month} should be a month, such as 2026-03.") from None
        self.stdout.write(months.detach(first))
