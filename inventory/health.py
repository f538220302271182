"""A circuit breaker for each hypervisor, kept in its row for all processes.

A host that does not answer is left alone for a while that doubles, up to half a minute; then one caller
tries it, and the others still do not wait for it.  So a host that hangs costs a worker ten seconds now and
then, instead of ten seconds for everything that is asked of it.
"""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from core.backoff import Backoff
from core.written import take_over
from inventory.models import Hypervisor

PAUSES = Backoff(first_s=1, longest_s=30)
# How long the process that tries may take; if it dies, the next one tries.
TRIAL = timedelta(seconds=20)
# One lost answer may be a restart of libvirtd; after the second, no new server is placed there.
UNREACHABLE_AFTER = 2


def may_be_asked(hypervisor: Hypervisor) -> bool:
    """Whether this host may be called now, by its row as read.  Of several callers, one may try it."""
    if hypervisor.retry_at is None:
        return True
    # One statement, by Postgres's clock: the caller's clock may differ.
    due = Hypervisor.objects.filter(pk=hypervisor.pk, retry_at=hypervisor.retry_at, retry_at__lte=Now())
    return due.update(retry_at=Now() + TRIAL) == 1


def record_answer(hypervisor: Hypervisor, *, error: str = "") -> None:
    """It answers.  With an ``error``, for staff, something is wrong there, and nothing new is put there."""
    found = {"is_reachable": True, "is_ready": not error, "last_error": error, "last_seen_at": Now()}
    _write(hypervisor, failures=0, retry_at=None, **found)


@transaction.atomic
def record_failure(hypervisor: Hypervisor, error: str) -> None:
    """It did not answer: it is asked again after a pause, and unreachable from the second time on.

    Failures of simultaneous calls count as one.
    """
    locked = Hypervisor.objects.select_for_update().only("failures", "retry_at").get(pk=hypervisor.pk)
    if locked.failures != hypervisor.failures:
        # A simultaneous call has counted this failure already.
        hypervisor.failures, hypervisor.retry_at = locked.failures, locked.retry_at
        return
    pause = timedelta(seconds=PAUSES.pause_s(locked.failures))
    failures = locked.failures + 1
    found = {"is_reachable": failures < UNREACHABLE_AFTER, "last_error": error}
    _write(hypervisor, failures=failures, retry_at=Now() + pause, **found)


def _write(hypervisor: Hypervisor, **changes: Any) -> None:
    Hypervisor.objects.filter(pk=hypervisor.pk).update(**changes)
    take_over(hypervisor, changes)
