"""Tells every listener what ``lifecycle`` writes about a server, in the transaction that writes it.

An app that follows servers adds its listener in its ``AppConfig.ready``.  A listener that
raises takes the write back, and with it everything that the other listeners did.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


Listener = Callable[[StatusChange], None]

_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Register a listener for all further changes.  Registering twice has no further effect."""
    if listener not in _listeners:
        _listeners.append(listener)


def announce(change: StatusChange) -> None:
    for listener in _listeners:
        listener(change)
