"""Each account's key is made once and opens with VPS_BACKUP_KEY only."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.db.models import ProtectedError

from backups.errors import KeyNotSet, KeyUnreadable
from backups.keys import keys_of
from backups.models import AccountKey
from tests.factories import AccountFactory

pytestmark = pytest.mark.django_db


def test_an_account_has_one_key_for_good() -> None:
    alice, bob = AccountFactory.create(), AccountFactory.create()

    assert keys_of(alice) == keys_of(alice)
    assert keys_of(alice) != keys_of(bob)
    assert AccountKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_at_once_one_makes_the_key() -> None:
    """Guard: the constraint behind ``get_or_create``.  Pieces under the other key would be lost."""
    account = AccountFactory.create()
    barrier = threading.Barrier(8)

    def ask(_: int) -> object:
        try:
            barrier.wait()
            return keys_of(account)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1
    assert AccountKey.objects.count() == 1


def test_another_key_of_ours_is_named_as_the_reason(settings: Any) -> None:
    account = AccountFactory.create()
    before = keys_of(account)
    right, settings.VPS_BACKUP_KEY = settings.VPS_BACKUP_KEY, os.urandom(32)

    with pytest.raises(KeyUnreadable, match="VPS_BACKUP_KEY is not the key"):
        keys_of(account)
    settings.VPS_BACKUP_KEY = right
    assert keys_of(account) == before


def test_a_key_of_another_account_does_not_open() -> None:
    """Guard: the label of a wrapped key.  Who may write to the database must not read with it."""
    alice, bob = AccountFactory.create(), AccountFactory.create()
    keys_of(alice)
    keys_of(bob)
    AccountKey.objects.filter(account=bob).update(wrapped=AccountKey.objects.get(account=alice).wrapped)

    with pytest.raises(KeyUnreadable):
        keys_of(bob)


def test_without_a_key_of_ours_there_are_no_backups(settings: Any) -> None:
    settings.VPS_BACKUP_KEY = b""

    with pytest.raises(KeyNotSet, match="VPS_BACKUP_KEY is not set"):
        keys_of(AccountFactory.create())
    assert not AccountKey.objects.exists()


def test_the_database_has_no_key_in_the_clear() -> None:
    account = AccountFactory.create()
    keys = keys_of(account)
    wrapped = bytes(AccountKey.objects.get().wrapped)

    assert len(wrapped) == 61
    assert not any(key in wrapped for key in keys)


def test_an_account_with_a_key_is_not_deleted() -> None:
    account = AccountFactory.create()
    keys_of(account)

    with pytest.raises(ProtectedError):
        account.delete()
