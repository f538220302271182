"""Holds messages back by the receiver's clock alone: Celery's own way compares two machines' clocks."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
from celery.worker import strategy

DELAY = "delay_s"


class Task(celery.Task):  # type: ignore[type-arg]
    """A task whose messages carry a delay in seconds instead of a due time.

    Celery's countdown and expiry are moments by the sender's clock.  A receiver whose clock differs takes
    such a message too early, too late or never.
    """

    abstract = True

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Callable[..., Any]:
        receive = strategy.default(self, app, consumer, **kwargs)

        def hold_back(message: Any, *args: Any, **kwargs: Any) -> Any:
            if delay_s := message.headers.get(DELAY):
                # Celery has a timer wait from now until then: a clock that jumps meanwhile changes nothing.
                until = datetime.now(UTC) + timedelta(seconds=delay_s)  # noqa: TID251
                message.headers["eta"] = until.isoformat()
            return receive(message, *args, **kwargs)

        return hold_back
