"""The product's own worker, in which death can be ordered:  celery -A tests.chaos.worker worker

An order is a file in ``$CHAOS_ORDERS``, named by operation, step and "before" or "after".  Whoever comes
there takes the file away and kills himself, so each order is obeyed once.  With "fail" the step fails, and is
undone; the steps of that are called "undo-…".  With ``$CHAOS_TWICE`` every
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

    for table, prefix in ((workflows.WORKFLOWS, ""), (workflows.UNDO_STEPS, "undo-")):
        for kind, steps in table.items():
            table[kind] = tuple(_mortal(step, f"{prefix}{step.__name__}") for step in steps)


def _mortal(step: Callable[[Any], None], name: str) -> Callable[[Any], None]:
    from provisioning.drivers.base import HostMisconfigured

    @wraps(step)
    def walk(job: Any) -> None:
        if _is_told(job, name, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        if _is_told(job, name, "fail"):
            raise HostMisconfigured("told to fail")
        step(job)
        if _is_told(job, name, "after"):
            os.kill(os.getpid(), signal.SIGKILL)

    return walk


def _is_told(job: Any, step: str, when: str) -> bool:
    order = ORDERS / f"{job.operation.pk}.{step}.{when}"
    try:
        order.unlink()
    except FileNotFoundError:
        return False
    return True
