"""Carries one operation out: takes it, walks its steps, and ends it one way or the other."""

import logging
import random
import re
import traceback
from collections.abc import Sequence

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from provisioning.hypervisors.base import HypervisorError, MachineNotFound
from provisioning.lease import kept_lease
from provisioning.workflows import UNDO_STEPS, WORKFLOWS, AskAgain, GaveUp, Job, Step
from servers import lifecycle, services
from servers.lifecycle import Failure
from servers.models import Operation
from servers.selectors import given_up_servers
from servers.states import RULES, OperationKind, PowerState

log = logging.getLogger(__name__)

LONGEST_DELAY_S = 120.0


def carry_out(operation_id: int) -> None:
    """Do what an operation asks for, as far as it goes now.  Safe to call twice, late, or for nothing."""
    try:
        operation = lifecycle.begin(operation_id)
    except lifecycle.HostFull as full:
        services.wake(Operation.objects.get(pk=operation_id), delay_s=full.delay_s)
        return
    if operation is None:
        return
    job = Job(operation)
    try:
        with kept_lease(operation):
            _work(job)
    except lifecycle.LeaseLost as lost:
        log.info("%s", lost)
        _clean_up_after_myself(job)
        services.let_go(operation=operation)
    except (OperationalError, InterfaceError) as error:
        # Postgres is away: nothing can be said of the operation, so nothing is.  Its lease ends.
        log.warning("%s of server %s is left as it is: %s", operation, job.server.uuid, error)
        connection.close()


def _clean_up_after_myself(job: Job) -> None:
    """Remove what this worker made after another one had carried out the server's end."""
    if not given_up_servers().filter(pk=job.server.pk).exists():
        return
    try:
        job.host.delete(job.server.uuid)
    except HypervisorError:
        log.exception("what is left of server %s is for reconcile or verify to find", job.server.uuid)


def _work(job: Job) -> None:
    operation = job.operation
    try:
        if operation.step != lifecycle.UNDO:
            _walk(job)
            lifecycle.succeed(operation)
            log.info("%s of server %s succeeded", operation, job.server.uuid)
            return
    except AskAgain as later:
        lifecycle.postpone(operation, later.delay_s)
        services.wake(operation, delay_s=later.delay_s)
        return
    except (HypervisorError, GaveUp) as error:
        if _may_pass(job, error):
            _retry(job, error)
            return
        _give_up(job, Failure(error.code, error.sentence, traceback.format_exc()))
    except (lifecycle.LeaseLost, OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("%s of server %s met a bug of ours", operation, job.server.uuid)
        if _never_ends(job):
            _retry(job, None)
            return
        _give_up(job, Failure("internal", "Something went wrong on our side.", traceback.format_exc()))
    _undo(job)
    lifecycle.fail(operation, _power_now(job))


def _walk(job: Job) -> None:
    steps = WORKFLOWS[OperationKind(job.operation.kind)]
    for step in _remaining(steps, job.operation.step):
        if _is_overdue(job):
            raise GaveUp("deadline_exceeded", "This took too long and was given up.")
        lifecycle.enter(job.operation, step.__name__, progress=100 * steps.index(step) // len(steps))
        step(job)


def _remaining(steps: Sequence[Step], reached: str) -> Sequence[Step]:
    """From the step that was under way, or from the start."""
    names = [step.__name__ for step in steps]
    return steps[names.index(reached) :] if reached in names else steps


def _is_overdue(job: Job) -> bool:
    deadline = job.operation.deadline_at
    return deadline is not None and timezone.now() > deadline


def _never_ends(job: Job) -> bool:
    return RULES[OperationKind(job.operation.kind)].deadline is None


def _may_pass(job: Job, error: HypervisorError | GaveUp) -> bool:
    if _never_ends(job):
        return True
    if not isinstance(error, HypervisorError) or _is_overdue(job):
        return False
    return error.passes or _is_news(job, error)


def _is_news(job: Job, error: HypervisorError) -> bool:
    """Whether the host refuses for a reason that has no name here, in other words than the last time.

    It may pass all the same; the same words twice in a row are final.  Numbers are none: QEMU's words
    come with a time.
    """
    words, last = (re.sub(r"\d+", "", text) for text in (str(error), job.operation.error_detail))
    return type(error) is HypervisorError and words not in last


def _retry(job: Job, error: Exception | None) -> None:
    """Again after a delay that doubles and is jittered, so that many do not come back at once."""
    operation = job.operation
    longest = min(LONGEST_DELAY_S, 2.0 ** min(operation.retries, 10))
    delay_s = random.uniform(longest / 2, longest)  # noqa: S311
    level = logging.ERROR if operation.retries >= 5 else logging.WARNING
    log.log(level, "%s of server %s: %s; again in %.1f s", operation, job.server.uuid, error, delay_s)
    lifecycle.postpone(operation, delay_s, retry_detail=traceback.format_exc())
    services.wake(operation, delay_s=delay_s)


def _give_up(job: Job, failure: Failure) -> None:
    log.error("%s of server %s failed: %s\n%s", job.operation, job.server.uuid, failure.code, failure.detail)
    lifecycle.give_up(job.operation, failure)


def _undo(job: Job) -> None:
    """Take back what a failed operation made.

    What does not succeed now must not keep the operation open for ever: what a failed create
    left is removed by reconcile, and a machine is defined anew at its next start.
    """
    try:
        for step in UNDO_STEPS.get(OperationKind(job.operation.kind), ()):
            step(job)
    except (lifecycle.LeaseLost, OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("%s of server %s could not be undone yet", job.operation, job.server.uuid)


def _power_now(job: Job) -> PowerState:
    try:
        return job.power()
    except MachineNotFound:
        return PowerState.OFF
    except HypervisorError:
        return PowerState.UNKNOWN
