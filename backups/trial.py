"""Tries a store out: writes two small backups, reads them back, checks them and removes them."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID, uuid4

from backups import manifests
from backups.drafts import Extent, Zeros
from backups.errors import BackupError, StoreUnreachable
from backups.manifests import Manifest
from backups.pieces import PIECE_BYTES
from backups.reading import Data, check, read
from backups.sealing import new_key, subkeys_of
from backups.store import Store
from backups.vaults import DIGITS, Vault
from backups.writing import write

NOBODY = UUID(int=0)  # no account has this uuid; trials at the same time differ by their keys
DISK_BYTES = 4 * PIECE_BYTES


def try_out(store: Store) -> None:
    """Raises what the store raises, and StoreUnreachable if it gives back other bytes.  Leaves nothing."""
    vault = Vault(store, NOBODY, subkeys_of(new_key()))
    disk = bytearray(secrets.token_bytes(DISK_BYTES))
    with _cleared_away(vault) as made:
        full = _written(vault, [Data(0, bytes(disk))], None)
        made.append(full)
        disk[:PIECE_BYTES] = bytes(PIECE_BYTES)
        changed = _written(vault, [Zeros(0, PIECE_BYTES)], full)
        made.append(changed)
        _require_equal(vault, changed, bytes(disk))


def _written(vault: Vault, changes: list[Extent], parent: Manifest | None) -> Manifest:
    # Nothing collects the pieces of nobody: there is no lock to hold.
    told = {"backup": uuid4(), "disk_bytes": DISK_BYTES, "parent": parent}
    return write(vault, changes=changes, require_hold=lambda: None, **told).manifest  # type: ignore[arg-type]


def _require_equal(vault: Vault, manifest: Manifest, disk: bytes) -> None:
    found = bytearray(manifest.disk_bytes)
    for offset, data in read(vault, manifests.get(vault, manifest.backup)):
        found[offset : offset + len(data)] = data
    if bad := check(vault, manifest):
        raise bad[0]
    if found != disk:
        raise StoreUnreachable(f"The store {vault.store.address} gave back other bytes than were put.")


@contextmanager
def _cleared_away(vault: Vault) -> Iterator[list[Manifest]]:
    made: list[Manifest] = []
    try:
        yield made
    finally:
        with suppress(BackupError):  # what ended the trial says more
            for manifest in made:
                manifests.remove(vault, manifest.backup)
            # Also those of a backup that came to no manifest.  Those of other trials have other keys.
            pieces = [piece.name for digit in DIGITS for piece in vault.list_pieces(digit)]
            vault.remove_pieces([name for name in pieces if vault.has_sound_piece(name)])
