from time import monotonic
from typing import Any

from backups.commands import BackupCommand
from backups.keys import keys_of
from backups.models import AccountKey
from backups.services import addresses_in_use, store_at
from backups.trial import try_out


class Command(BackupCommand):
    help = (
        "Try each store of backups out, VPS_BACKUP_STORE and those of locations: write 16 MiB, read them "
        "back, compare and remove them. And see that VPS_BACKUP_KEY opens the key of every account. Ends "
        "with status 1 and the reason if backups cannot be made. Example: manage.py check_backup_store"
    )

    def handle(self, *args: Any, **options: Any) -> None:
        keys = AccountKey.objects.select_related("account")
        for key in keys:
            keys_of(key.account)
        for address in addresses_in_use():
            began = monotonic()
            try_out(store_at(address))
            self.stdout.write(
                f"{address}: written, read back and removed in {monotonic() - began:.1f} s; "
                f"{len(keys)} account keys open"
            )
