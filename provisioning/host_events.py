"""Listens to libvirt's events: a machine that went off is noticed within seconds, not half a minute.

Only for speed: what is missed here, reconcile finds.  So events may be lost, told twice or late, and what is
done about one is what reconcile would do: the host is asked, and the servers it is about are reconciled.

Each host has a thread, which waits for its host alone.
"""

import logging
from collections.abc import Collection
from contextlib import closing
from threading import Event, Thread
from time import monotonic
from uuid import UUID

from django.db import Error, close_old_connections, connection

from accounts.actors import acting_as, system_actor
from core.backoff import Backoff
from inventory.models import Hypervisor
from provisioning import hypervisors, reconcile
from provisioning.drivers.base import HypervisorError, MachineEvent
from servers.states import PowerState

log = logging.getLogger(__name__)

HOLD_BACK_S = 15.0
REREAD_S = 30.0
PAUSES = Backoff(first_s=1, longest_s=60)
TICK_S = 0.5  # bursts are handled together; a stop waits no longer than this
STOP_S = 5.0


class Pending:
    """The machines to be reconciled, each once, after the time for which "off" is held back.

    A reboot from outside tells "off" and then "on": only a machine that stays off is worth a look.
    """

    def __init__(self, hold_back_s: float) -> None:
        self._hold_back_s = hold_back_s
        self._due_at: dict[UUID, float] = {}

    def note(self, event: MachineEvent, now: float) -> None:
        """Note an event.  The newest about a machine replaces the others."""
        delay_s = 0.0 if event.power == PowerState.RUNNING else self._hold_back_s
        self._due_at[event.machine] = now + delay_s

    def take_due(self, now: float) -> set[UUID]:
        due = {machine for machine, at in self._due_at.items() if at <= now}
        for machine in due:
            del self._due_at[machine]
        return due


class HostListener(Thread):
    """Listens to one host until it is stopped.  Reconnects to a host that went away."""

    def __init__(self, hypervisor: Hypervisor, hold_back_s: float) -> None:
        super().__init__(name=f"events of {hypervisor}", daemon=True)
        self._hypervisor = hypervisor
        self._hold_back_s = hold_back_s
        self._over = Event()
        self._failures = 0

    def stop(self) -> None:
        self._over.set()

    @acting_as(system_actor("host_events"))
    def run(self) -> None:
        log.info("following %s (%s)", self._hypervisor, self._hypervisor.uri)
        while not self._over.is_set():
            try:
                self._listen()
            except (HypervisorError, Error) as error:
                delay_s = self._next_delay()
                log.warning("%s: %s; listening again in %.0f s", self._hypervisor, error, delay_s)
                self._over.wait(delay_s)
            except Exception:
                log.exception("a bug of ours broke off the events of %s", self._hypervisor)
                self._over.wait(self._next_delay())
        log.info("following %s no longer", self._hypervisor)

    def _listen(self) -> None:
        pending, look_again_at = Pending(self._hold_back_s), 0.0
        # Not behind the circuit breaker: this thread delays nobody, and it has its own pauses.
        with closing(hypervisors.bare_driver_for(self._hypervisor).lifecycle_events(TICK_S)) as events:
            for event in events:
                if self._over.is_set():
                    return
                self._failures = 0
                now = monotonic()
                if event:
                    pending.note(event, now)
                if now >= look_again_at and (due := pending.take_due(now)):
                    self._reconcile(due)
                    look_again_at = now + TICK_S

    def _reconcile(self, machines: Collection[UUID]) -> None:
        try:
            # Read again: the state of the circuit breaker is in the row.
            row = Hypervisor.objects.filter(pk=self._hypervisor.pk).first()
            if row:
                reconcile.reconcile_some(row, machines)
        finally:
            connection.close()  # a thread for each host would hold a connection, and few have events

    def _next_delay(self) -> float:
        """Growing, with jitter: when a location comes back, not all threads reconnect at once."""
        self._failures += 1
        return PAUSES.jittered_s(self._failures)


class HostEvents:
    """Runs a listener for each enabled or draining host of some locations; follows changes of rows."""

    def __init__(self, locations: Collection[str] = (), *, hold_back_s: float = HOLD_BACK_S) -> None:
        """Without locations: all of them."""
        self._locations = locations
        self._hold_back_s = hold_back_s
        self._listeners: dict[tuple[object, ...], HostListener] = {}

    def run(self, over: Event) -> None:
        try:
            while True:
                self._follow_rows()
                if over.wait(REREAD_S):
                    return
        finally:
            self._stop(list(self._listeners))
            connection.close()

    def _follow_rows(self) -> None:
        close_old_connections()
        try:
            wanted = {_identity(row): row for row in self._rows()}
        except Error as error:
            log.warning("the hosts cannot be read: %s", error)
            return
        self._stop([key for key in self._listeners if key not in wanted])
        for key, row in wanted.items():
            if key not in self._listeners:
                self._listeners[key] = HostListener(row, self._hold_back_s)
                self._listeners[key].start()

    def _rows(self) -> list[Hypervisor]:
        rows = Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED)
        return list(rows.filter(location__code__in=self._locations) if self._locations else rows)

    def _stop(self, keys: Collection[tuple[object, ...]]) -> None:
        ending = [self._listeners.pop(key) for key in keys]
        for listener in ending:
            listener.stop()
        give_up_at = monotonic() + STOP_S
        for listener in ending:
            listener.join(
                max(0.0, give_up_at - monotonic())
            )  # a thread that hangs in a call ends when the call does


def _identity(row: Hypervisor) -> tuple[object, ...]:
    """The fields that a connection depends on: when one changes, the listener is replaced."""
    return row.pk, row.uri, row.domain_type, row.storage_pool, row.network
