"""Listens to hosts for speed: a machine that went off is settled seconds later, not half a minute.

Only for speed: what is missed here, reconcile finds.  So events may be lost, told twice or late, and what is
done about one is what reconcile would do: the host is asked, and the servers it is about are settled.

Each host has a thread, which waits for its host alone.
"""

import logging
import random
from collections.abc import Collection
from contextlib import closing
from threading import Event, Thread
from time import monotonic
from uuid import UUID

from django.db import DatabaseError, close_old_connections, connection

from inventory.models import Hypervisor
from provisioning import hosts, reconcile
from provisioning.hypervisors.base import HypervisorError, MachineEvent
from servers.states import PowerState

log = logging.getLogger(__name__)

HOLD_BACK_S = 15.0
REREAD_S = 30.0
LONGEST_DELAY_S = 60.0
TICK_S = 0.5  # bursts are taken together, and nobody waits longer for an end
STOP_S = 5.0


class Pending:
    """Machines to be settled, each once however much is told of it, and not before its time.

    A reboot from outside tells "off" and then "on": only a machine that stays off is worth a look.
    """

    def __init__(self, hold_back_s: float) -> None:
        self._hold_back_s = hold_back_s
        self._due_at: dict[UUID, float] = {}

    def note(self, event: MachineEvent, now: float) -> None:
        """The newest event about a machine is the one that counts."""
        delay_s = 0.0 if event.power == PowerState.RUNNING else self._hold_back_s
        self._due_at[event.machine] = now + delay_s

    def take_due(self, now: float) -> set[UUID]:
        due = {machine for machine, at in self._due_at.items() if at <= now}
        for machine in due:
            del self._due_at[machine]
        return due


class HostWatch(Thread):
    """Listens to one host until it is told to stop; a host that went away is tried again and again."""

    def __init__(self, hypervisor: Hypervisor, hold_back_s: float) -> None:
        super().__init__(name=f"watch {hypervisor}", daemon=True)
        self._hypervisor = hypervisor
        self._hold_back_s = hold_back_s
        self._over = Event()
        self._failures = 0

    def stop(self) -> None:
        self._over.set()

    def run(self) -> None:
        log.info("watching %s (%s)", self._hypervisor, self._hypervisor.uri)
        while not self._over.is_set():
            try:
                self._listen()
            except (HypervisorError, DatabaseError) as error:
                delay_s = self._next_delay()
                log.warning("%s: %s; listening again in %.0f s", self._hypervisor, error, delay_s)
                self._over.wait(delay_s)
            except Exception:
                log.exception("a bug of ours in the watch over %s", self._hypervisor)
                self._over.wait(self._next_delay())
        log.info("watching %s no longer", self._hypervisor)

    def _listen(self) -> None:
        pending, look_again_at = Pending(self._hold_back_s), 0.0
        # Not behind the circuit breaker: to listen holds nobody up, and this thread has its own patience.
        with closing(hosts.driver(self._hypervisor).lifecycle_events(TICK_S)) as events:
            for event in events:
                if self._over.is_set():
                    return
                self._failures = 0
                now = monotonic()
                if event:
                    pending.note(event, now)
                if now >= look_again_at and (due := pending.take_due(now)):
                    self._settle(due)
                    look_again_at = now + TICK_S

    def _settle(self, machines: Collection[UUID]) -> None:
        try:
            # Read anew: whether the host may be asked now stands in its row.
            row = Hypervisor.objects.filter(pk=self._hypervisor.pk).first()
            if row:
                reconcile.reconcile_some(row, machines)
        finally:
            connection.close()  # a thread for each host, and few of them have news: none holds one meanwhile

    def _next_delay(self) -> float:
        """Growing, and jittered, so that not all come back at once to a location that was cut off."""
        self._failures += 1
        longest = min(LONGEST_DELAY_S, 2.0 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311


class Watch:
    """Has each enabled or draining host of some locations listened to, as the rows come, change and go."""

    def __init__(self, locations: Collection[str] = (), *, hold_back_s: float = HOLD_BACK_S) -> None:
        """Without locations: all of them."""
        self._locations = locations
        self._hold_back_s = hold_back_s
        self._watches: dict[tuple[object, ...], HostWatch] = {}

    def run(self, over: Event) -> None:
        try:
            while True:
                self._follow_rows()
                if over.wait(REREAD_S):
                    return
        finally:
            self._stop(list(self._watches))
            connection.close()

    def _follow_rows(self) -> None:
        close_old_connections()
        try:
            wanted = {_identity(row): row for row in self._rows()}
        except DatabaseError as error:
            log.warning("the hosts cannot be read: %s", error)
            return
        self._stop([key for key in self._watches if key not in wanted])
        for key, row in wanted.items():
            if key not in self._watches:
                self._watches[key] = HostWatch(row, self._hold_back_s)
                self._watches[key].start()

    def _rows(self) -> list[Hypervisor]:
        rows = Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED)
        return list(rows.filter(location__code__in=self._locations) if self._locations else rows)

    def _stop(self, keys: Collection[tuple[object, ...]]) -> None:
        ending = [self._watches.pop(key) for key in keys]
        for watch in ending:
            watch.stop()
        give_up_at = monotonic() + STOP_S
        for watch in ending:
            watch.join(max(0.0, give_up_at - monotonic()))  # one that hangs in a call ends when it can


def _identity(row: Hypervisor) -> tuple[object, ...]:
    """What a connection depends on: when it changes, the host is another one."""
    return row.pk, row.uri, row.domain_type, row.storage_pool, row.network
