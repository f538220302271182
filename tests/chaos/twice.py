"""Has an application send every message twice, as a broker may deliver it."""

from collections.abc import Callable
from typing import Any

from celery import Celery


def send_twice(app: Celery) -> Callable[[], None]:
    """From now on, until what is returned is called."""
    send = app.send_task

    def twice(*args: Any, **kwargs: Any) -> Any:
        send(*args, **kwargs)
        return send(*args, **kwargs)

    app.send_task = twice  # type: ignore[method-assign]

    def once_again() -> None:
        app.send_task = send  # type: ignore[method-assign]

    return once_again
