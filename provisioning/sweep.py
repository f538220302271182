"""Finds operations whose message was lost, and sends another.

It asks Postgres and nothing else, so that a broker that loses its messages costs a delay; while there is no
broker at all it carries operations out itself.
"""

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic

from celery import current_app
from django.db import connection
from kombu.exceptions import OperationalError

from accounts.actors import acting_as, system_actor
from core.backoff import Backoff
from provisioning.engine import carry_out
from servers.models import Operation
from servers.selectors import due_operations, waiting_operations
from servers.services import sent_with

log = logging.getLogger(__name__)

AT_ONCE = 1000
THREADS = 4
LONGEST_PAUSE_S = 600.0


@dataclass(frozen=True)
class Reminder:
    """When a message about an operation was last sent, and for how long none is sent again."""

    at: float
    pause_s: float

    @property
    def is_fresh(self) -> bool:
        return monotonic() - self.at < self.pause_s


@dataclass
class Sweep:
    """Looks again and again.  Several sweeps may run side by side."""

    # A message on its way, or waiting behind others, is not forgotten yet.
    patience: timedelta = timedelta(seconds=15)
    _reminded: dict[int, Reminder] = field(default_factory=dict)
    _has_broker: bool = True
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS))
    _here: dict[int, Future[None]] = field(default_factory=dict)

    @acting_as(system_actor("sweep"))
    def once(self) -> int:
        """Wake a worker for every forgotten operation.  Returns their number."""
        forgotten = self._forgotten()
        try:
            for operation in forgotten:
                log.warning("%s of %s was forgotten", operation, operation.subject_name)
                _remind(operation)
                self._reminded[operation.pk] = self._next_reminder(operation)
                self._has_broker = True
        except (OperationalError, OSError) as error:
            log.error("no broker (%s): %d operations are carried out here", error, len(forgotten))
            self._has_broker = False
            self._reminded.clear()  # with their broker the messages are gone
            self._carry_out_here(forgotten)
        return len(forgotten)

    def finish(self) -> None:
        """Wait for what is carried out here."""
        wait(self._here.values())

    def _forgotten(self) -> list[Operation]:
        self._here = {pk: work for pk, work in self._here.items() if not work.done()}
        # Without a broker no worker will come.
        patience = self.patience if self._has_broker else timedelta()
        late = due_operations(patience)
        all_late = [*late.values_list("pk", flat=True), *(row.pk for row in waiting_operations(patience))]
        self._reminded = {pk: self._reminded[pk] for pk in all_late if pk in self._reminded}
        seen_to = self._here.keys() | {pk for pk, reminder in self._reminded.items() if reminder.is_fresh}
        forgotten = [pk for pk in all_late if pk not in seen_to][:AT_ONCE]
        rows = Operation.objects.filter(pk__in=forgotten).order_by("due_at")
        return list(rows.select_related("server", "hypervisor", "backup"))

    def _next_reminder(self, operation: Operation) -> Reminder:
        """Twice the pause each time: where there is no worker, messages would pile up in the broker."""
        last, patience_s = self._reminded.get(operation.pk), self.patience.total_seconds()
        pauses = Backoff(first_s=patience_s, longest_s=LONGEST_PAUSE_S)
        return Reminder(monotonic(), pauses.after(last.pause_s) if last else patience_s)

    def _carry_out_here(self, operations: Iterable[Operation]) -> None:
        """Carry operations out in threads, without waiting for the slowest: copies take minutes."""
        for operation in operations:
            self._here[operation.pk] = self._threads.submit(_carry_out_in_thread, operation.pk)


def _remind(operation: Operation) -> None:
    current_app.send_task("provisioning.carry_out", [operation.pk], **sent_with(operation))


def _carry_out_in_thread(operation_id: int) -> None:
    try:
        carry_out(operation_id)
    except Exception:
        log.exception("operation %d failed here", operation_id)
    finally:
        connection.close()  # others may wait for long before this thread has work again
