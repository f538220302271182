"""The product's own worker, in which death can be ordered:  celery -A tests.chaos.worker worker

An order is a file in ``$CHAOS_ORDERS``, named by operation, step and "before" or "after".  Whoever comes
there takes the file away and kills himself, so each order is obeyed once.  With ``$CHAOS_TWICE`` every
message is sent twice.
"""

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from celery.signals import worker_init

from tests.chaos.twice import send_twice
from vpsorg.celery import app

__all__ = ["app"]

ORDERS = Path(os.environ["CHAOS_ORDERS"])

if os.environ.get("CHAOS_TWICE"):
    send_twice(app)


@worker_init.connect
def _make_mortal(**kwargs: Any) -> None:
    from provisioning import workflows

    for table in (workflows.WORKFLOWS, workflows.UNDO_STEPS):
        for kind, steps in table.items():
            table[kind] = tuple(map(_mortal, steps))


def _mortal(step: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(step)
    def walk(job: Any) -> None:
        _die_if_told(job.operation.pk, step.__name__, "before")
        step(job)
        _die_if_told(job.operation.pk, step.__name__, "after")

    return walk


def _die_if_told(operation: int, step: str, when: str) -> None:
    order = ORDERS / f"{operation}.{step}.{when}"
    try:
        order.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
