"""Writes a backup: the changed pieces of a disk, and then its manifest.

A piece is read back and verified whether this backup or an older one has put it: a bad piece is put again,
and so heals for all backups that name it.  Pieces that no change touches are not read but looked for.  A
manifest is put only when all its pieces are there.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import NamedTuple
from uuid import UUID

from backups import manifests
from backups.drafts import Draft, Extent, drafts
from backups.errors import BackupError, NotStored, PieceMissing
from backups.manifests import HOLE, Manifest, length_of, pieces_of
from backups.pieces import NAME_BYTES, PIECE_BYTES, compress, name_of, pack
from backups.reading import piece_at
from backups.side_by_side import side_by_side
from backups.vaults import DIGITS, Vault


class Written(NamedTuple):
    """What a write has added to the store.  ``new_bytes`` are as stored, compressed and encrypted."""

    manifest: Manifest
    new_pieces: int
    new_bytes: int


def write(
    vault: Vault,
    *,
    backup: UUID,
    disk_bytes: int,
    changes: Iterable[Extent],
    parent: Manifest | None = None,
    require_hold: Callable[[], None],
) -> Written:
    """Store a disk: the changes, and outside of them the disk of ``parent``, or zeros without a parent.

    The changes are sorted by offset and have any boundaries; one of them should have a few MiB at most, since
    some are in memory at once.  The disk may be larger or smaller than the parent's.

    Whoever calls holds the account's pieces (``services.keeping_pieces``) since before ``parent`` was read;
    ``require_hold`` raises if the hold was lost.  Returns when everything is stored, read back and verified.

    Whatever it raises (PieceBad for a bad piece of the parent, StoreFull, HoldLost, ...), there is no
    manifest, and what was stored is used by the next try or collected.  May be repeated with this ``backup``.
    """
    return _Write(vault, backup, disk_bytes, parent).carry_out(changes, require_hold)


class _Write:
    def __init__(self, vault: Vault, backup: UUID, disk_bytes: int, parent: Manifest | None) -> None:
        self.vault, self.backup, self.disk_bytes, self.parent = vault, backup, disk_bytes, parent
        self.count = pieces_of(disk_bytes)
        inherited = parent.names if parent else b""
        self.names = bytearray(inherited[: self.count * NAME_BYTES])
        self.names.extend(HOLE * (self.count - len(self.names) // NAME_BYTES))
        self.touched = bytearray(self.count)
        self.busy: set[bytes | None] = set()
        self.lock = Lock()

    def carry_out(self, changes: Iterable[Extent], require_hold: Callable[[], None]) -> Written:
        new_pieces = new_bytes = 0
        for index, name, added in side_by_side(self._store, self._all_drafts(changes)):
            self.names[index * NAME_BYTES : (index + 1) * NAME_BYTES] = name or HOLE
            new_pieces += added > 0
            new_bytes += added
        if self.parent:
            self._require_inherited()
        manifest = Manifest(
            account=self.vault.account,
            backup=self.backup,
            disk_bytes=self.disk_bytes,
            names=bytes(self.names),
        )
        self.names.clear()
        try:
            manifests.put(self.vault, manifest)
            require_hold()
        except BaseException:
            self._take_back()
            raise
        return Written(manifest, new_pieces, new_bytes)

    def _all_drafts(self, changes: Iterable[Extent]) -> Iterator[Draft]:
        for draft in drafts(changes, self.disk_bytes):
            self.touched[draft.index] = True
            yield draft
        if (last := self._piece_of_another_length()) is not None and not self.touched[last]:
            self.touched[last] = True
            yield Draft(last, length_of(self.disk_bytes, last))

    def _piece_of_another_length(self) -> int | None:
        """Where the smaller of the two disks ends, if within a piece: the parent's is of another length."""
        if not self.parent or self.parent.disk_bytes == self.disk_bytes:
            return None
        end = min(self.parent.disk_bytes, self.disk_bytes)
        return end // PIECE_BYTES if end % PIECE_BYTES else None

    def _store(self, draft: Draft) -> tuple[int, bytes | None, int]:
        """Index, name, and the bytes that the store holds more.  Lets go of bytes as soon as it can."""
        index = draft.index
        if draft.is_zero:
            return index, None, 0
        plain = draft.over(b"" if draft.is_whole else self._parents(index))
        draft.parts.clear()
        name = name_of(self.vault.keys, plain)
        with self._claimed(name) as mine:
            # An equal piece is being put at this moment: if that fails, so does this backup.
            if not (name and mine) or self.vault.has_sound_piece(name):
                return index, name, 0
            compressed = compress(plain)
            del plain
            packed = pack(self.vault.keys, name, compressed)
            del compressed
            self.vault.put_piece(name, packed)
            self._read_back(index, name, packed)
            return index, name, len(packed)

    def _read_back(self, index: int, name: bytes, packed: bytearray) -> None:
        """Raises PieceMissing, and PieceBad unless the store gives a sound piece.

        Mostly it gives what it was given, which is quick to see.  Else another backup of the account may have
        put the same piece at the same moment, encrypted otherwise.
        """
        with suppress(NotStored):
            if packed == self.vault.get_packed(name):  # in this order: a memoryview compares byte by byte
                return
        piece_at(self.vault, index, name)

    def _parents(self, index: int) -> bytes:
        if not self.parent or index >= self.parent.count:
            return b""
        name = self.parent.name_at(index)
        return piece_at(self.vault, index, name) if name else b""

    @contextmanager
    def _claimed(self, name: bytes | None) -> Iterator[bool]:
        """Whether no other thread is at work on a piece of this name."""
        with self.lock:
            mine = name not in self.busy
            self.busy.add(name)
        try:
            yield mine
        finally:
            if mine:
                with self.lock:
                    self.busy.discard(name)

    def _require_inherited(self) -> None:
        """Raises PieceMissing if the store lacks a piece that no change touched."""
        for missing in side_by_side(self._missing, DIGITS):
            if missing:
                index, name = min((index, name) for name, index in missing.items())
                raise PieceMissing(name, index * PIECE_BYTES)

    def _missing(self, digit: str) -> dict[bytes, int]:
        """The pieces with this first digit that were taken from the parent and are not stored."""
        wanted: dict[bytes, int] = {}
        for index in range(self.count):
            start = index * NAME_BYTES
            if not self.touched[index] and f"{self.names[start]:02x}"[0] == digit:
                name = bytes(self.names[start : start + NAME_BYTES])
                if name != HOLE:
                    wanted.setdefault(name, index)
        if wanted:
            for stored in self.vault.list_pieces(digit):
                wanted.pop(stored.name, None)
        return wanted

    def _take_back(self) -> None:
        """A manifest that was put all the same is no backup: nobody said that it is complete."""
        try:
            manifests.remove(self.vault, self.backup)
        except BackupError:
            return  # the store is away; the error under way says so
