"""The kinds and statuses of backups.  These words are part of the API."""

from enum import StrEnum


class BackupKind(StrEnum):
    """All three are made and restored alike: only name, limit and retention differ."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    SNAPSHOT = "snapshot"


class BackupStatus(StrEnum):
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class Verified(StrEnum):
    """How a backup was found whole."""

    READ = "read"  # every piece of it was read from the store and decrypted
    BOOTED = "booted"  # a machine was started from it, and its guest agent answered


GONE = frozenset({BackupStatus.DELETING, BackupStatus.DELETED})  # for the customer
