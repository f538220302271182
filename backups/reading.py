"""Reads a backup: its bytes, each piece verified, and which of its pieces are bad."""

from collections.abc import Iterator
from typing import NamedTuple

from backups.errors import Damaged, NotStored, PieceBad, PieceMissing
from backups.manifests import Manifest
from backups.pieces import PIECE_BYTES
from backups.side_by_side import side_by_side
from backups.vaults import Vault


class Data(NamedTuple):
    """Bytes of a disk at an offset."""

    offset: int
    data: bytes | memoryview


def read(vault: Vault, manifest: Manifest) -> Iterator[Data]:
    """The bytes of a disk by rising offset, piece by piece.  What is left out is zero.

    Raises PieceBad or PieceMissing at the first piece that is not sound; what came before it is.  Hold the
    account's pieces meanwhile (``services.keeping_pieces``), so that they stay when the backup is deleted.
    """
    return side_by_side(lambda named: _piece(vault, *named), manifest.named())


def check(vault: Vault, manifest: Manifest) -> list[PieceBad]:
    """Read every piece of a backup; returns those that are bad or missing, by rising offset."""
    return [bad for bad in side_by_side(lambda named: _fault(vault, *named), manifest.named()) if bad]


def piece_at(vault: Vault, index: int, name: bytes) -> bytes:
    """The bytes of one piece.  Raises PieceBad, PieceMissing."""
    try:
        return vault.get_piece(name)
    except NotStored:
        raise PieceMissing(name, index * PIECE_BYTES) from None
    except Damaged as damage:
        raise PieceBad(name, index * PIECE_BYTES, str(damage)) from None


def _piece(vault: Vault, index: int, name: bytes) -> Data:
    return Data(index * PIECE_BYTES, piece_at(vault, index, name))


def _fault(vault: Vault, index: int, name: bytes) -> PieceBad | None:
    try:
        piece_at(vault, index, name)
    except PieceBad as bad:
        return bad
    return None
