"""What can go wrong with the store of backups.

``code`` is stable, ``sentence`` is for the customer, ``str()`` is for staff.
"""

from typing import ClassVar


class BackupError(Exception):
    """A backup could not be written, read, checked or collected."""

    code: ClassVar[str] = "backup_error"
    sentence: ClassVar[str] = "The store of backups could not carry this out."
    passes: ClassVar[bool] = False  # whether the same call may succeed a little later


class StoreUnreachable(BackupError):
    """The store did not do it in time, or refused: what it holds is unknown, not gone."""

    code = "backup_store_unreachable"
    sentence = "The store of backups does not answer at the moment."
    passes = True


class StoreFull(BackupError):
    """The store has no room for more."""

    code = "backup_store_full"
    sentence = "The store of backups has no room left."


class NotStored(BackupError):
    """The store answers, and has nothing at this path."""

    code = "backup_not_stored"


class Damaged(BackupError):
    """What was read is not what was written: other bytes, another key, another place."""

    code = "backup_damaged"


class KeyNotSet(BackupError):
    code = "backup_key_not_set"

    def __init__(self) -> None:
        super().__init__("VPS_BACKUP_KEY is not set: there are no backups without it.")


class KeyUnreadable(BackupError):
    """An account's key was wrapped with another key than the one in VPS_BACKUP_KEY."""

    code = "backup_key_unreadable"


class PieceBad(BackupError):
    """A piece of a disk is not what it should be.  ``name`` is its name in the store, ``offset`` in bytes."""

    code = "backup_piece_bad"
    sentence = "A part of this backup is damaged: it cannot be restored."

    def __init__(self, name: bytes, offset: int, reason: str) -> None:
        super().__init__(f"Piece {name.hex()} at offset {offset} {reason}.")
        self.name, self.offset = name, offset


class PieceMissing(PieceBad):
    """A piece of a disk is not in the store."""

    code = "backup_piece_missing"

    def __init__(self, name: bytes, offset: int) -> None:
        super().__init__(name, offset, "is not in the store")


class ManifestBad(BackupError):
    """A manifest does not say what was written, or not of this backup."""

    code = "backup_manifest_bad"
    sentence = "This backup is damaged: it cannot be restored."


class ManifestMissing(BackupError):
    """The store has no manifest of this backup."""

    code = "backup_manifest_missing"
    sentence = "This backup is not in the store."


class CollectingNow(BackupError):
    """Pieces of this account are being collected: nothing of it may be written or read meanwhile."""

    code = "backup_collecting"
    passes = True


class PiecesHeld(BackupError):
    """A backup of this account is being written or read: nothing may be collected meanwhile."""

    code = "backup_pieces_held"
    passes = True


class HoldLost(BackupError):
    """The connection to Postgres that kept an account's pieces from being collected has ended."""

    code = "backup_hold_lost"
    passes = True
