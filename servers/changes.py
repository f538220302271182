"""Tells every listener what ``lifecycle`` writes about a server, in the transaction that writes it.

An app that follows servers adds its listener in its ``AppConfig.ready``.  A listener that
raises takes the write back, and with it everything that the other listeners did.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backups.kinds import BackupStatus
from backups.models import Backup
from servers.models import Operation, Server
from servers.states import ServerStatus


@dataclass(frozen=True)
class StatusChange:
    """One write of ``lifecycle`` about one server.

    ``server`` is the row as it was read under its lock, before the write.  ``before`` is None for a server
    that begins to exist.  ``before`` and ``after`` are equal where only other columns were written: those
    stand in ``written``, by their names in ``Server``.  ``operation`` is None where a host caused the write.
    """

    server: Server
    before: ServerStatus | None
    after: ServerStatus
    written: Mapping[str, Any] = field(default_factory=dict)
    operation: Operation | None = None


@dataclass(frozen=True)
class BackupChange:
    """A backup was completed, failed or was removed.

    ``server`` is the row of its server as it was read under its lock; None if there was never one.
    """

    backup: Backup
    server: Server | None
    after: BackupStatus


Listener = Callable[[StatusChange], None]
BackupListener = Callable[[BackupChange], None]

_listeners: list[Listener] = []
_backup_listeners: list[BackupListener] = []


def listen(listener: Listener) -> None:
    """Register a listener for all further changes.  Registering twice has no further effect."""
    if listener not in _listeners:
        _listeners.append(listener)


def announce(change: StatusChange) -> None:
    for listener in _listeners:
        listener(change)


def listen_to_backups(listener: BackupListener) -> None:
    """Register a listener for all further ends of backups.  Registering twice has no further effect."""
    if listener not in _backup_listeners:
        _backup_listeners.append(listener)


def announce_backup(change: BackupChange) -> None:
    for listener in _backup_listeners:
        listener(change)
