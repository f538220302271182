"""Removes pieces that no backup needs.

A piece goes if no manifest of its account names it and if it is older than a day by the store's own clock.
After a week a manifest goes that no backup names: its worker lost its lease after it had put it.  A
write that runs at the same time loses nothing: a writer shares a lock from before it first relies on a piece
until its manifest is stored, and collecting has this lock alone.  The lock of a worker that died is free;
what the worker had put is used by its next try, and goes when it is a day old.
"""

from collections.abc import Collection
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from accounts.models import Account
from backups import manifests
from backups.errors import ManifestMissing, PiecesHeld
from backups.models import Backup
from backups.services import Hold, vault_of
from backups.vaults import DIGITS, Vault
from core import locks

REST = timedelta(days=1)
REST_OF_MANIFESTS = timedelta(days=7)  # longer than any backup is under way
BATCH = 1000


class Collected(NamedTuple):
    """``size_bytes`` as stored."""

    pieces: int
    size_bytes: int


def collect(account: Account, address: str, *, dry_run: bool = False, rest: timedelta = REST) -> Collected:
    """Remove the account's pieces that no manifest names and that are older than ``rest``, from one store.

    A dry run only counts, whatever is under way.  Raises PiecesHeld while a backup of the account is written
    or read, and ManifestBad if a manifest cannot be read: what it names is unknown, so nothing is removed.
    May be repeated.
    """
    vault = vault_of(account, address)
    key = locks.pieces_of_account(account.pk)
    with nullcontext(True) if dry_run else locks.try_lock(key) as mine:
        if not mine:
            raise PiecesHeld(f"A backup of account {account.uuid} is being written or read at this moment.")
        now = vault.store.now()
        before = now - rest
        nameless = _nameless(vault, account, now - REST_OF_MANIFESTS)
        if not dry_run:
            for stored_as in nameless:
                manifests.remove(vault, stored_as)
        unneeded = _unneeded(vault, before, nameless)
        if not dry_run:
            _remove(vault, list(unneeded), Hold(key))
            vault.store.remove_leftovers(vault.folder, before)
    return Collected(len(unneeded), sum(unneeded.values()))


def _nameless(vault: Vault, account: Account, before: datetime) -> set[UUID]:
    """Old manifests that no backup names: their worker died, or lost its lease, after it had put them."""
    named = Backup.objects.filter(account=account).exclude(stored_as=None)
    return set(vault.list_manifests(before)) - set(named.values_list("stored_as", flat=True))


def _unneeded(vault: Vault, before: datetime, nameless: Collection[UUID]) -> dict[bytes, int]:
    """Names and sizes."""
    found = {
        piece.name: piece.size_bytes
        for digit in DIGITS
        for piece in vault.list_pieces(digit)
        if piece.modified_at < before
    }
    for backup in set(vault.list_manifests()) - set(nameless):
        try:
            manifest = manifests.get(vault, backup)
        except ManifestMissing:
            continue  # deleted meanwhile
        for _, name in manifest.named():
            found.pop(name, None)
    return found


def _remove(vault: Vault, names: list[bytes], hold: Hold) -> None:
    for start in range(0, len(names), BATCH):
        hold.require()
        vault.remove_pieces(names[start : start + BATCH])
