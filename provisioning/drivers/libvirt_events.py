"""A host's lifecycle events: whose power changed, told as it happens.

libvirt calls back from its event loop.  A process has one event loop for all hosts, so the callback only puts
the event into a queue and never waits.

Each listener has a connection of its own, which is never listened to again.  If a connection's last callback
is removed at the moment of an event, later callbacks on it may never be called: libvirt wakes its event loop
only for the first event in its queue, and the event that was not dispatched stays there.
"""

import logging
from collections.abc import Generator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any
from uuid import UUID

import libvirt

from servers.states import PowerState

from .base import HostUnreachable, MachineEvent
from .domain_xml import domain_name
from .libvirt_connection import LibvirtConnection

logger = logging.getLogger(__name__)

QUEUE_SIZE = 10_000  # news that nobody fetches is dropped: polling finds out

# A guest that ends itself is told of by SHUTDOWN first, while QEMU still winds down; STOPPED follows.
_POWER_AFTER = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: PowerState.OFF,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: PowerState.UNKNOWN,
}


def lifecycle_events(
    connection: LibvirtConnection, limit_s: float, patience_s: float
) -> Generator[MachineEvent | None, None, None]:
    """What Driver.lifecycle_events promises.  The connection was not listened to before."""
    news: Queue[MachineEvent] = Queue(QUEUE_SIZE)

    def hear(host: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        if told := event_of(domain.name(), domain.UUIDString(), event):
            with suppress(Full):
                news.put_nowait(told)

    host, callback = connection.call(limit_s, lambda host: (host, _register(host, hear)))
    logger.info("listening to %s", connection.uri)
    try:
        while host.isAlive():
            try:
                yield news.get(timeout=patience_s)
            except Empty:
                yield None
        raise HostUnreachable(f"{connection.uri}: hung up")
    finally:
        # Else libvirt holds the connection, and with it a socket, for ever.  It is taken off on our side
        # also when the host cannot be told.
        with suppress(libvirt.libvirtError):
            host.domainEventDeregisterAny(callback)


def _register(host: Any, hear: Any) -> int:
    callback: int = host.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, hear, None)
    return callback


def event_of(name: str, uuid: str, event: int) -> MachineEvent | None:
    """A libvirt event as ours; None when it is not about power, or not about a machine of ours."""
    if event not in _POWER_AFTER or name != domain_name(uuid):
        return None
    return MachineEvent(machine=UUID(uuid), power=_POWER_AFTER[event])
