"""Vaults and disks for tests of backups, and what can happen to a store behind their back."""

import random
from collections.abc import Callable, Iterable
from uuid import UUID, uuid4

from backups.drafts import Extent
from backups.manifests import Manifest
from backups.pieces import PIECE_BYTES
from backups.reading import Data, read
from backups.sealing import new_key, subkeys_of
from backups.store import Store
from backups.vaults import Vault
from backups.writing import Written, write


def new_vault(store: Store) -> Vault:
    return Vault(store, uuid4(), subkeys_of(new_key()))


def nothing_to_hold() -> None:
    """For vaults whose pieces nobody collects."""


def written(
    vault: Vault,
    changes: Iterable[Extent],
    disk_bytes: int,
    *,
    parent: Manifest | None = None,
    backup: UUID | None = None,
    require_hold: Callable[[], None] = nothing_to_hold,
) -> Written:
    return write(
        vault,
        backup=backup or uuid4(),
        disk_bytes=disk_bytes,
        changes=changes,
        parent=parent,
        require_hold=require_hold,
    )


def whole(disk: bytes, chunk: int = 1024 * 1024) -> list[Extent]:
    """All of a disk, as a driver streams it."""
    return [Data(offset, disk[offset : offset + chunk]) for offset in range(0, len(disk), chunk)]


def contents(vault: Vault, manifest: Manifest) -> bytes:
    """The disk that a backup gives back."""
    disk = bytearray(manifest.disk_bytes)
    end = 0
    for offset, data in read(vault, manifest):
        assert offset >= end, "out of order"
        end = offset + len(data)
        disk[offset:end] = data
    assert len(disk) == manifest.disk_bytes
    return bytes(disk)


def random_disk(pieces: float, seed: object = 0) -> bytes:
    return random.Random(str(seed)).randbytes(int(pieces * PIECE_BYTES))


def piece_path(vault: Vault, name: bytes) -> str:
    return f"accounts/{vault.account}/pieces/{name.hex()[0]}/{name.hex()}"


def manifest_path(vault: Vault, backup: UUID) -> str:
    return f"accounts/{vault.account}/manifests/{backup}"


def names_of(manifest: Manifest) -> list[bytes]:
    return [name for _, name in manifest.named()]


def stored_bytes(store: Store) -> int:
    return sum(found.size_bytes for found in store.list("accounts"))
