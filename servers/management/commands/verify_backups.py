from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from backups.kinds import BackupStatus
from backups.models import Backup
from core.commands import OurCommand
from core.errors import Refusal
from servers.backup_services import boot_backup, verify_backup
from servers.copies import unread_backups


class Command(OurCommand):
    help = (
        "Have backups read again from their store, every piece: the last one of each server, or those that "
        "are named. With --boot, have a machine started from each, without a network, until its guest agent "
        "answers. The workers of backups do it; verify says BACKUP_DAMAGED of those that are not whole, "
        "and verified_at of the others is new. Example: manage.py verify_backups --server 42 --boot"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--server", type=int, metavar="ID", help="all whole backups of this server")
        parser.add_argument("--backup", type=int, metavar="ID", help="only this one")
        parser.add_argument("--boot", action="store_true", help="start a machine from each, and remove it")

    def handle(self, *args: Any, server: int | None, backup: int | None, boot: bool, **options: Any) -> None:
        whole = Backup.objects.filter(status=BackupStatus.COMPLETED)
        if backup is not None:
            chosen = whole.filter(pk=backup)
        elif server is not None:
            chosen = whole.filter(server_id=server)
        else:
            chosen = unread_backups(timedelta())
        if not chosen and (backup or server):
            raise CommandError("There is no such backup that is whole.")
        ordered = 0
        for each in chosen:
            try:
                (boot_backup if boot else verify_backup)(backup=each)
                ordered += 1
            except Refusal as refusal:
                self.stderr.write(f"backup {each.pk}: {refusal}")
        self.stdout.write(
            f"{ordered} backups will be {'booted' if boot else 'read'}. See: manage.py operations --open"
        )
