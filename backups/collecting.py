"""Removes pieces that no backup needs.

A piece goes if no manifest of its account names it and if it is older than a day by the store's own clock.  A
write that runs at the same time loses nothing: a writer shares a lock from before it first relies on a piece
until its manifest is stored, and collecting has this lock alone.  The lock of a worker that died is free;
what the worker had put is used by its next try, and goes when it is a day old.
"""

from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import NamedTuple

from accounts.models import Account
from backups import manifests
from backups.errors import ManifestMissing, PiecesHeld
from backups.services import Hold, vault_of
from backups.vaults import DIGITS, Vault
from core import locks

REST = timedelta(days=1)
BATCH = 1000


class Collected(NamedTuple):
    """``size_bytes`` as stored."""

    pieces: int
    size_bytes: int


def collect(account: Account, *, dry_run: bool = False, rest: timedelta = REST) -> Collected:
    """Remove the account's pieces that no manifest names and that are older than ``rest``.

    A dry run only counts, whatever is under way.  Raises PiecesHeld while a backup of the account is written
    or read, and ManifestBad if a manifest cannot be read: what it names is unknown, so nothing is removed.
    May be repeated.
    """
    vault = vault_of(account)
    key = locks.pieces_of_account(account.pk)
    with nullcontext(True) if dry_run else locks.try_lock(key) as mine:
        if not mine:
            raise PiecesHeld(f"A backup of account {account.uuid} is being written or read at this moment.")
        before = vault.store.now() - rest
        unneeded = _unneeded(vault, before)
        if not dry_run:
            _remove(vault, list(unneeded), Hold(key))
            vault.store.remove_leftovers(vault.folder, before)
    return Collected(len(unneeded), sum(unneeded.values()))


def _unneeded(vault: Vault, before: datetime) -> dict[bytes, int]:
    """Names and sizes."""
    found = {
        piece.name: piece.size_bytes
        for digit in DIGITS
        for piece in vault.list_pieces(digit)
        if piece.modified_at < before
    }
    for backup in list(vault.list_manifests()):
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
