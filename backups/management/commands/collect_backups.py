from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.models import Account
from backups.collecting import collect
from backups.commands import BackupCommand, account_named
from backups.errors import BackupError
from backups.services import addresses_in_use


class Command(BackupCommand):
    help = (
        "Free the room of backups that were deleted: remove the pieces of disks that no backup of their "
        "account needs and that are older than a day. Prints a line for each account that has some. An "
        "account whose backups are being written or read at this moment is left out, with status 1: try "
        "again later. Example: manage.py collect_backups --dry-run"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", metavar="EMAIL", help="only this one's")
        parser.add_argument("--dry-run", action="store_true", help="say what would be removed")

    def handle(self, *args: Any, account: str | None, dry_run: bool, **options: Any) -> None:
        accounts = [account_named(account)] if account else Account.objects.exclude(backup_key=None)
        failed = set()
        for each in accounts:
            for address in addresses_in_use():
                try:
                    found = collect(each, address, dry_run=dry_run)
                except BackupError as error:
                    self.stderr.write(f"{each.email}: {error}")
                    failed.add(each.pk)
                    continue
                if found.pieces:
                    told = "would be removed" if dry_run else "removed"
                    amount = f"{found.pieces} pieces, {found.size_bytes} bytes"
                    self.stdout.write(f"{each.email}: {amount} {told} from {address}")
        if failed:
            raise CommandError(f"Nothing could be collected of {len(failed)} accounts.")
