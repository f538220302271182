"""A manifest says what one backup is: the names of the pieces of a disk, in the disk's order.

It is stored last.  So a backup whose manifest is there has all its pieces, and needs no other backup.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import msgspec
import zstandard

from backups.errors import Damaged, ManifestBad, ManifestMissing, NotStored
from backups.pieces import NAME_BYTES, PIECE_BYTES
from backups.vaults import Vault

VERSION = 1
HOLE = bytes(NAME_BYTES)  # in place of the name of a piece that is all zeros


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One backup.  It takes 8 MiB of memory for each TiB of the disk."""

    version: int = VERSION
    account: UUID
    backup: UUID
    disk_bytes: int
    piece_bytes: int = PIECE_BYTES
    names: bytes  # NAME_BYTES for each piece

    @property
    def count(self) -> int:
        """How many pieces the disk has, those of zeros included."""
        return pieces_of(self.disk_bytes)

    @property
    def data_bytes(self) -> int:
        """How many bytes of the disk are in pieces that are stored, before compression."""
        return sum(length_of(self.disk_bytes, index) for index, _ in self.named())

    def name_at(self, index: int) -> bytes | None:
        """The name of a piece; None: it is all zeros."""
        name = self.names[index * NAME_BYTES : (index + 1) * NAME_BYTES]
        return None if name == HOLE else name

    def named(self) -> Iterator[tuple[int, bytes]]:
        """Index and name of each piece that is not all zeros."""
        for index in range(self.count):
            if name := self.name_at(index):
                yield index, name


class _Versioned(msgspec.Struct):
    version: int


def pieces_of(disk_bytes: int) -> int:
    return -(-disk_bytes // PIECE_BYTES)


def length_of(disk_bytes: int, index: int) -> int:
    """The bytes of a piece of a disk of this size; 0 beyond its end."""
    return max(0, min(PIECE_BYTES, disk_bytes - index * PIECE_BYTES))


def put(vault: Vault, manifest: Manifest) -> None:
    """Store a manifest and read it back.  Raises ManifestBad if it does not come back as it is."""
    data = zstandard.compress(msgspec.msgpack.encode(manifest))
    vault.put_manifest(manifest.backup, data)
    with _told_of(manifest.backup):
        if vault.get_manifest(manifest.backup) == data:
            return
    raise ManifestBad(f"The manifest of backup {manifest.backup} does not read back as it was written.")


def get(vault: Vault, backup: UUID) -> Manifest:
    """Read the manifest of a backup.  Raises ManifestMissing; ManifestBad unless all of it is sound."""
    with _told_of(backup):
        manifest = _decoded(vault.get_manifest(backup))
        _require_sound(manifest, vault.account, backup)
        return manifest


def remove(vault: Vault, backup: UUID) -> None:
    """Remove a backup.  Its pieces go when they are collected.  May be repeated."""
    vault.remove_manifest(backup)


@contextmanager
def _told_of(backup: UUID) -> Iterator[None]:
    """What the vault says of a manifest, as an error that names the backup."""
    try:
        yield
    except NotStored:
        raise ManifestMissing(f"The store has no manifest of backup {backup}.") from None
    except Damaged as damage:
        raise ManifestBad(f"The manifest of backup {backup} {damage}.") from None


def _decoded(data: bytes) -> Manifest:
    try:
        packed = zstandard.decompress(data)
        if (version := msgspec.msgpack.decode(packed, type=_Versioned).version) != VERSION:
            raise Damaged(f"has version {version}, and this program reads {VERSION}")
        return msgspec.msgpack.decode(packed, type=Manifest)
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise Damaged(f"is no manifest: {error}") from None


def _require_sound(manifest: Manifest, account: UUID, backup: UUID) -> None:
    if (manifest.account, manifest.backup) != (account, backup):
        raise Damaged(f"is that of backup {manifest.backup} of account {manifest.account}")
    if manifest.piece_bytes != PIECE_BYTES:
        raise Damaged(f"has pieces of {manifest.piece_bytes} bytes, and this program reads {PIECE_BYTES}")
    if manifest.disk_bytes < 0 or len(manifest.names) != manifest.count * NAME_BYTES:
        raise Damaged(f"has {len(manifest.names)} bytes of names for a disk of {manifest.disk_bytes}")
