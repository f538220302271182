from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandParser

from backups import manifests
from backups.commands import BackupCommand, account_named
from backups.manifests import Manifest
from backups.models import Backup
from backups.reading import read
from backups.services import keeping_pieces, manifest_of, vault_of
from backups.vaults import Vault


class Command(BackupCommand):
    help = (
        "Write the disk of a backup into a new file, as a raw image with holes where it is zero: to look "
        "into it, or to bring it up elsewhere. Every piece is verified; on a bad one the command ends and "
        "the file is removed. Example: manage.py export_backup 2932ea8e-a3c7-4333-9489-3fd281cee651 "
        "--account alice@example.com --to disk.raw"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("backup", type=UUID, metavar="UUID", help="which backup")
        parser.add_argument("--account", required=True, metavar="EMAIL", help="whose backup it is")
        parser.add_argument("--to", required=True, type=Path, metavar="FILE", help="must not be there yet")

    def handle(self, *args: Any, backup: UUID, account: str, to: Path, **options: Any) -> None:
        owner = account_named(account)
        with keeping_pieces(owner):
            row = Backup.objects.filter(uuid=backup, account=owner).first()
            vault = vault_of(owner, row.store if row else settings.VPS_BACKUP_STORE)
            manifest = manifest_of(row, vault) if row else manifests.get(vault, backup)
            _export(vault, manifest, to)
        self.stdout.write(f"{to}: {manifest.disk_bytes} bytes, {manifest.data_bytes} of them data")


def _export(vault: Vault, manifest: Manifest, to: Path) -> None:
    with to.open("xb") as file:
        try:
            file.truncate(manifest.disk_bytes)
            for offset, data in read(vault, manifest):
                file.seek(offset)
                file.write(data)
        except BaseException:
            to.unlink()
            raise
