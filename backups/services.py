"""What other rooms ask for: an account's vault, and that its pieces stay while something is under way.

Whoever writes or reads backups of an account shares a lock of Postgres; whoever collects its pieces has the
lock alone.  The lock ends with the session that holds it: a worker that dies holds nothing up.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.conf import settings
from django.db import Error

from accounts.models import Account
from backups.errors import CollectingNow, HoldLost
from backups.keys import keys_of
from backups.store import S3Access, Store
from backups.vaults import Vault
from core import locks


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


def configured_store() -> Store:
    """The store in VPS_BACKUP_STORE.  Raises StoreUnreachable."""
    access = S3Access(
        settings.VPS_BACKUP_S3_ENDPOINT,
        settings.VPS_BACKUP_S3_REGION,
        settings.VPS_BACKUP_S3_ACCESS_KEY_ID,
        settings.VPS_BACKUP_S3_SECRET_ACCESS_KEY,
    )
    return Store(settings.VPS_BACKUP_STORE, access)


def vault_of(account: Account) -> Vault:
    """Where an account's backups are.  Raises KeyNotSet, KeyUnreadable, StoreUnreachable."""
    return Vault(configured_store(), account.uuid, keys_of(account))


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
