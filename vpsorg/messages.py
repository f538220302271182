"""Messages to workers: sent once the rows are there, and no worth a customer's wait or an error."""

from typing import Any

from celery import current_app
from django.db import transaction


def send_on_commit(task: str, row_id: int, **options: Any) -> None:
    """Have a worker look at a row when this transaction is committed; ``options`` are Celery's.

    A broker that is away is logged and no more: whoever sends has a look that finds the row without it.
    """

    def send() -> None:  # no partial: Django wants the name of what failed
        current_app.send_task(task, [row_id], **options)

    transaction.on_commit(send, robust=True)
