"""A vault is one account's part of a store, with the account's keys: where its pieces and manifests lie."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from backups.errors import Damaged, NotStored
from backups.pieces import NAME_BYTES, unpack
from backups.sealing import Subkeys, seal, unseal
from backups.store import Store

# Pieces lie in sixteen folders by the first digit of their names: each can be listed by itself.
DIGITS = "0123456789abcdef"


class StoredPiece(NamedTuple):
    name: bytes
    size_bytes: int
    modified_at: datetime  # by the store's clock


class Vault:
    """Threads may share it.  Its calls raise what ``Store`` raises, and Damaged."""

    def __init__(self, store: Store, account: UUID, keys: Subkeys) -> None:
        self.store = store
        self.account = account
        self.keys = keys
        self.folder = f"accounts/{account}"

    def put_piece(self, name: bytes, packed: bytes | bytearray) -> None:
        """Store a piece, as ``pieces.pack`` makes it, in place of one with this name."""
        self.store.put(self._piece(name), packed)

    def get_piece(self, name: bytes) -> bytes:
        """The bytes of a piece, sound.  Raises NotStored, Damaged."""
        return unpack(self.keys, name, self.get_packed(name))

    def get_packed(self, name: bytes) -> memoryview:
        """What is stored of a piece, as it is.  Raises NotStored."""
        return self.store.get(self._piece(name))

    def has_sound_piece(self, name: bytes) -> bool:
        try:
            self.get_piece(name)
        except (NotStored, Damaged):
            return False
        return True

    def list_pieces(self, digit: str) -> Iterator[StoredPiece]:
        """The pieces whose names begin with this digit; files that are no pieces are left out."""
        for stored in self.store.list(f"{self.folder}/pieces/{digit}"):
            if name := _from_hex(stored.path.rpartition("/")[2]):
                yield StoredPiece(name, stored.size_bytes, stored.modified_at)

    def remove_pieces(self, names: Iterable[bytes]) -> None:
        self.store.remove([self._piece(name) for name in names])

    def put_manifest(self, backup: UUID, data: bytes) -> None:
        self.store.put(self._manifest(backup), seal(self.keys.manifests, data, self._label(backup)))

    def get_manifest(self, backup: UUID) -> bytes:
        """Raises NotStored, and Damaged also for a manifest of another backup or account."""
        return unseal(self.keys.manifests, self.store.get(self._manifest(backup)), self._label(backup))

    def list_manifests(self, before: datetime | None = None) -> Iterator[UUID]:
        """The backups that have a manifest, put before this moment by the store's clock; or all of them.

        Files that are no manifests are left out.
        """
        for stored in self.store.list(f"{self.folder}/manifests"):
            with suppress(ValueError):
                if before is None or stored.modified_at < before:
                    yield UUID(stored.path.rpartition("/")[2])

    def remove_manifest(self, backup: UUID) -> None:
        """May be repeated."""
        self.store.remove([self._manifest(backup)])

    def _piece(self, name: bytes) -> str:
        return f"{self.folder}/pieces/{name.hex()[0]}/{name.hex()}"

    def _manifest(self, backup: UUID) -> str:
        return f"{self.folder}/manifests/{backup}"

    def _label(self, backup: UUID) -> bytes:
        return self.account.bytes + backup.bytes


def _from_hex(text: str) -> bytes | None:
    try:
        name = bytes.fromhex(text)
    except ValueError:
        return None
    return name if len(name) == NAME_BYTES else None
