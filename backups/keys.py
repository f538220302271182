"""The key of each account: made once, kept encrypted with VPS_BACKUP_KEY.

A copy of the database alone opens no backup, and neither does a copy of the store.
"""

from django.conf import settings

from accounts.models import Account
from backups.errors import Damaged, KeyNotSet, KeyUnreadable
from backups.models import AccountKey
from backups.sealing import Subkeys, new_key, seal, subkeys_of, unseal


def make_keys(account: Account) -> None:
    """Make the keys of an account's backups, unless there are any: of two at once, one does.

    Raises KeyNotSet.
    """
    if not settings.VPS_BACKUP_KEY:
        raise KeyNotSet
    wrapped = bytes(seal(settings.VPS_BACKUP_KEY, new_key(), _label(account)))
    AccountKey.objects.get_or_create(account=account, defaults={"wrapped": wrapped})


def keys_of(account: Account) -> Subkeys:
    """The keys of an account's backups.

    Raises KeyNotSet, and KeyUnreadable if there are none, or VPS_BACKUP_KEY is not the key that it was when
    they were made.
    """
    if not settings.VPS_BACKUP_KEY:
        raise KeyNotSet
    row = AccountKey.objects.filter(account=account).first()
    if row is None:
        raise KeyUnreadable(f"Account {account.uuid} has no backup key: nothing of it was ever stored.")
    try:
        return subkeys_of(unseal(settings.VPS_BACKUP_KEY, bytes(row.wrapped), _label(account)))
    except Damaged:
        raise KeyUnreadable(
            f"The backup key of account {account.uuid} does not open: VPS_BACKUP_KEY is not the key "
            "that it was encrypted with."
        ) from None


def _label(account: Account) -> bytes:
    return b"key of account " + account.uuid.bytes
