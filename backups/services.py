"""What other rooms ask for: an account's vault, and that its pieces stay while something is under way.

Whoever writes or reads backups of an account shares a lock of Postgres; whoever collects its pieces has the
lock alone.  The lock ends with the session that holds it: a worker that dies holds nothing up.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.conf import settings
from django.db import Error

from accounts.models import Account
from backups import manifests
from backups.errors import CollectingNow, HoldLost, ManifestMissing, NotStored, StoreUnreachable
from backups.keys import keys_of, make_keys
from backups.kinds import GONE
from backups.manifests import Manifest
from backups.models import Backup
from backups.store import S3Access, Store
from backups.vaults import Vault
from core import locks
from plans.models import Location

MARK = "store-of-backups"


class Hold:
    """A lock on an account's pieces, shared or alone."""

    def __init__(self, key: str) -> None:
        self._key = key

    def require(self) -> None:
        """Raises HoldLost if the session that holds the lock has ended, or Postgres cannot say."""
        held = False
        with suppress(Error):
            held = locks.is_held(self._key)
        if not held:
            raise HoldLost("The lock on the pieces was lost: the connection to Postgres has ended meanwhile.")


def is_available() -> bool:
    """Whether backups can be made at all: without VPS_BACKUP_KEY they could not be encrypted."""
    return bool(settings.VPS_BACKUP_KEY)


def address_for(location: Location) -> str:
    """The address of the store for new backups of servers there."""
    return location.backup_store or settings.VPS_BACKUP_STORE


def addresses_in_use() -> list[str]:
    """The addresses of all stores that may hold something of ours."""
    taken = Backup.objects.order_by().values_list("store", flat=True).distinct()
    wished = Location.objects.exclude(backup_store="").values_list("backup_store", flat=True)
    return sorted({settings.VPS_BACKUP_STORE, *taken, *wished})


def store_at(address: str) -> Store:
    """Raises StoreUnreachable, also for a place that lacks the mark of a store in which there are backups.

    So it is below a mount that is gone, and in the wrong bucket: what is there would be taken for lost, and
    new backups would be nowhere when the right one is back.
    """
    access = S3Access(
        settings.VPS_BACKUP_S3_ENDPOINT,
        settings.VPS_BACKUP_S3_REGION,
        settings.VPS_BACKUP_S3_ACCESS_KEY_ID,
        settings.VPS_BACKUP_S3_SECRET_ACCESS_KEY,
    )
    store = Store(address, access)
    with suppress(NotStored):
        store.get(MARK)
        return store
    if Backup.objects.filter(store=address, stored_as__isnull=False).exclude(status__in=GONE).exists():
        raise StoreUnreachable(
            f"{address} is not the store of our backups, which has an object named {MARK}. "
            "Is it mounted, and is it the right one?"
        )
    store.put(MARK, b"")
    return store


def vault_of(account: Account, address: str, *, make_key: bool = False) -> Vault:
    """An account's part of the store at this address.  Raises KeyNotSet, KeyUnreadable, StoreUnreachable.

    ``make_key``: for who writes the account's first backup.  Who reads makes none: it would open nothing, and
    be in the way of the right one.
    """
    if make_key:
        make_keys(account)
    return Vault(store_at(address), account.uuid, keys_of(account))


def manifest_of(backup: Backup, vault: Vault) -> Manifest:
    """What a whole backup consists of.  Raises ManifestMissing, ManifestBad."""
    if backup.stored_as is None:
        raise ManifestMissing(f"Backup {backup.uuid} was never stored.")
    return manifests.get(vault, backup.stored_as)


@contextmanager
def keeping_pieces(account: Account) -> Iterator[Hold]:
    """In the block no piece of the account is collected; hand ``hold.require`` to ``writing.write``.

    Several may hold at once.  Raises CollectingNow at once while the account's pieces are being collected.
    """
    key = locks.pieces_of_account(account.pk)
    with locks.try_share(key) as shared:
        if not shared:
            raise CollectingNow(f"Pieces of account {account.uuid} are being collected at this moment.")
        yield Hold(key)
