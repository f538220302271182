"""Each account's key is made once and opens with VPS_BACKUP_KEY only."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.db.models import ProtectedError

from accounts.models import Account
from backups.errors import KeyNotSet, KeyUnreadable
from backups.keys import keys_of, make_keys
from backups.models import AccountKey
from backups.sealing import Subkeys
from tests.factories import AccountFactory

pytestmark = pytest.mark.django_db


def made_keys(account: Account) -> Subkeys:
    make_keys(account)
    return keys_of(account)


def test_who_reads_makes_no_key() -> None:
    """It would open nothing, and be in the way of the right one."""
    with pytest.raises(KeyUnreadable, match="has no backup key"):
        keys_of(AccountFactory.create())
    assert not AccountKey.objects.exists()


def test_an_account_has_one_key_for_good() -> None:
    alice, bob = AccountFactory.create(), AccountFactory.create()

    assert made_keys(alice) == made_keys(alice)
    assert made_keys(alice) != made_keys(bob)
    assert AccountKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_at_once_one_makes_the_key() -> None:
    """Guard: the constraint behind ``get_or_create``.  Pieces under the other key would be lost."""
    account = AccountFactory.create()
    barrier = threading.Barrier(8)

    def ask(_: int) -> object:
        try:
            barrier.wait()
            return made_keys(account)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1
    assert AccountKey.objects.count() == 1


def test_another_key_of_ours_is_named_as_the_reason(settings: Any) -> None:
    account = AccountFactory.create()
    before = made_keys(account)
    right, settings.VPS_BACKUP_KEY = settings.VPS_BACKUP_KEY, os.urandom(32)

    with pytest.raises(KeyUnreadable, match="VPS_BACKUP_KEY is not the key"):
        made_keys(account)
    settings.VPS_BACKUP_KEY = right
    assert made_keys(account) == before


def test_a_key_of_another_account_does_not_open() -> None:
    """Guard: the label of a wrapped key.  Who may write to the database must not read with it."""
    alice, bob = AccountFactory.create(), AccountFactory.create()
    made_keys(alice)
    made_keys(bob)
    AccountKey.objects.filter(account=bob).update(wrapped=AccountKey.objects.get(account=alice).wrapped)

    with pytest.raises(KeyUnreadable):
        made_keys(bob)


def test_without_a_key_of_ours_there_are_no_backups(settings: Any) -> None:
    settings.VPS_BACKUP_KEY = b""

    with pytest.raises(KeyNotSet, match="VPS_BACKUP_KEY is not set"):
        made_keys(AccountFactory.create())
    assert not AccountKey.objects.exists()


def test_the_database_has_no_key_in_the_clear() -> None:
    account = AccountFactory.create()
    keys = made_keys(account)
    wrapped = bytes(AccountKey.objects.get().wrapped)

    assert len(wrapped) == 61
    assert not any(key in wrapped for key in keys)


def test_an_account_with_a_key_is_not_deleted() -> None:
    account = AccountFactory.create()
    made_keys(account)

    with pytest.raises(ProtectedError):
        account.delete()
