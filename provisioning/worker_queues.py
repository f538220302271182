"""Subscribes a worker to the queues of its locations, also of locations added while it runs.

A worker of the shared queue listens to what customers wait for.  A worker that is started with ``-Q backups``
listens to the backups of its locations.
"""

import logging
from typing import Any

from celery import bootsteps
from django.db import Error, connection

from core import queues
from plans.models import Location

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10


class LocationQueues(bootsteps.StartStopStep):
    """The locations named by ``--location``, or all; with another ``-Q`` only the queues named there."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, location: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._chosen = location
        begun_with = set(consumer.app.amqp.queues.consume_from)
        self.enabled = begun_with in ({queues.SHARED}, {queues.BACKUPS})
        self._shared = queues.BACKUPS if queues.BACKUPS in begun_with else queues.SHARED
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        for code in set(self._chosen) - set(_every_location()):
            log.error("there is no location %s: nothing comes into its queue", code)
        self._listen(consumer)
        self._timer = consumer.timer.call_repeatedly(LOOK_EVERY_S, self._listen, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _listen(self, consumer: Any) -> None:
        known = consumer.app.amqp.queues.consume_from
        for code in self._chosen or _every_location():
            queue = queues.at(code, self._shared)
            if queue not in known:
                consumer.add_task_queue(queue)
                log.info("listening to %s", queue)


def _every_location() -> list[str]:
    try:
        return list(Location.objects.values_list("code", flat=True))
    except Error as error:
        log.warning("the locations cannot be read now: %s", error)
        return []
    finally:
        connection.close()  # the worker's children are forked from this process
