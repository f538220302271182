"""Carries one operation out: takes it, walks its steps, and ends it one way or the other."""

import logging
import re
import traceback
from collections.abc import Sequence

from django.db import connection

from accounts.actors import acting_as
from backups.errors import BackupError
from core.backoff import Backoff
from core.database import is_unavailable
from provisioning.drivers.base import HypervisorError, MachineDelivered, MachineNotFound
from provisioning.jobs import AskAgain, GaveUp, Job, StartOver, Step
from provisioning.lease import kept_lease
from provisioning.trials import remove_trial_of, trials
from provisioning.workflows import TRIED_UNTIL_DONE, UNDO_STEPS, WORKFLOWS, deliver
from servers import lifecycle, services
from servers.lifecycle import Failure
from servers.models import Operation
from servers.selectors import given_up_servers, idle_suspended_servers
from servers.states import (
    BACKUP_RULES,
    OPEN_OPERATION,
    RULES,
    BackupOperationKind,
    OperationKind,
    PowerState,
)

log = logging.getLogger(__name__)

RETRIES = Backoff(first_s=1, longest_s=120)
SOON_S, AT_LAST_S = 5, 600  # the delays before an operation is begun anew


def carry_out(operation_id: int) -> None:
    """Do what an operation asks for, as far as it goes now.  Safe to call twice, late, or for nothing."""
    operation = lifecycle.begin(operation_id)
    if operation is not None:
        with acting_as(operation.actor):
            _carry_out(Job(operation))


def _carry_out(job: Job) -> None:
    operation = job.operation
    try:
        try:
            with kept_lease(operation, lifecycle.lease()):
                _work(job)
        except lifecycle.LeaseLost as lost:
            log.info("%s", lost)
            _clean_up_after_myself(job)
            services.let_go(operation=operation)
        services.wake_next(operation)
    except Exception as error:
        if not is_unavailable(error):
            raise
        # Postgres is away: nothing can be written, so the lease is left to end.
        log.warning("%s of %s is left as it is: %s", operation, operation.subject_name, error)
        connection.close()


def _clean_up_after_myself(job: Job) -> None:
    """Take back what this worker did after it lost its lease and another worker had finished.

    Removes a machine that it made for a server that was given up, or for a trial that is over.  Switches off
    a machine that it started for a suspended server.
    """
    operation = job.operation
    if operation.server_id is None:
        _clean_up_after_my_trial(operation)
        return
    must_be_off = idle_suspended_servers().filter(pk=operation.server_id)
    try:
        if given_up_servers().filter(pk=operation.server_id).exists():
            job.host.delete(job.server.uuid, unless_delivered=True)
        elif must_be_off.exists() and job.power() != PowerState.OFF:
            log.error(
                "%s of %s started what is suspended: it is off again", operation, operation.subject_name
            )
            job.host.power_off(job.server.uuid)
    except MachineNotFound:
        return
    except HypervisorError:
        log.exception("what is left of %s is for reconcile or verify to find", operation.subject_name)


def _clean_up_after_my_trial(operation: Operation) -> None:
    if not trials().filter(pk=operation.pk).exclude(status__in=OPEN_OPERATION).exists():
        return
    try:
        remove_trial_of(operation)
    except HypervisorError as error:
        log.warning("what is left of %s is for reconcile to remove: %s", operation, error)


def _work(job: Job) -> None:
    try:
        _do_or_undo(job)
    except MachineDelivered as delivered:
        _keep(job, delivered)


def _keep(job: Job, delivered: MachineDelivered) -> None:
    """Record again a machine that was delivered and that a restored database does not know."""
    operation = job.operation
    log.error("%s of %s ends here: %s", operation, operation.subject_name, delivered)
    lifecycle.record_addresses(operation, job.spec.addresses)
    lifecycle.forget_failure(operation, detail=str(delivered))
    lifecycle.succeed(operation)


def _do_or_undo(job: Job) -> None:
    operation = job.operation
    try:
        if operation.step != lifecycle.UNDO:
            _walk(job)
            lifecycle.succeed(operation)
            log.info("%s of %s succeeded", operation, operation.subject_name)
            return
    except AskAgain as later:
        lifecycle.postpone(operation, later.delay_s)
        services.wake(operation, delay_s=later.delay_s)
        return
    except StartOver as why:
        # A tenth of the time spent so far: what is done again and again takes the host's time.
        delay_s = min(max(lifecycle.seconds_under_way(operation) / 10, SOON_S), AT_LAST_S)
        _put_off(job, why, delay_s, from_the_start=True)
        return
    except MachineDelivered:
        raise
    except (HypervisorError, BackupError, GaveUp) as error:
        if _may_pass(job, error):
            _retry(job, error)
            return
        _give_up(job, Failure(error.code, error.sentence, traceback.format_exc()))
    except lifecycle.LeaseLost:
        raise
    except Exception as error:
        if is_unavailable(error):
            raise
        log.exception("%s of %s met a bug of ours", operation, operation.subject_name)
        if _never_ends(job):
            _retry(job, None)
            return
        _give_up(job, Failure("internal", "Something went wrong on our side.", traceback.format_exc()))
    _undo(job)
    lifecycle.fail(operation, _power_now(job))


def _walk(job: Job) -> None:
    steps = WORKFLOWS[job.operation.typed_kind]
    for step in _remaining(steps, job.operation.step):
        progress = 100 * steps.index(step) // len(steps)
        # A machine that is ready is delivered after its deadline, too: removing it would help nobody.
        is_ready = deliver in steps[: steps.index(step) + 1]
        try:
            lifecycle.enter(job.operation, step.__name__, progress, however_late=is_ready)
        except lifecycle.DeadlinePassed:
            raise GaveUp("deadline_exceeded", "This took too long and was given up.") from None
        step(job)


def _remaining(steps: Sequence[Step], reached: str) -> Sequence[Step]:
    """The steps from the step that was under way, or all of them."""
    names = [step.__name__ for step in steps]
    return steps[names.index(reached) :] if reached in names else steps


def _never_ends(job: Job) -> bool:
    kind = job.operation.typed_kind
    if job.operation.step in TRIED_UNTIL_DONE:
        return True
    if isinstance(kind, BackupOperationKind):
        return BACKUP_RULES[kind].deadline is None
    return isinstance(kind, OperationKind) and RULES[kind].deadline is None


def _may_pass(job: Job, error: HypervisorError | BackupError | GaveUp) -> bool:
    if _never_ends(job):
        return True
    if isinstance(error, GaveUp) or lifecycle.is_overdue(job.operation):
        return False
    return error.passes or (isinstance(error, HypervisorError) and _is_news(job, error))


def _is_news(job: Job, error: HypervisorError) -> bool:
    """Whether the host refuses for a reason that has no name here, in other words than the last time.

    It may pass all the same; the same words twice in a row are final.  Numbers are none: QEMU's words
    come with a time.
    """
    words, last = (re.sub(r"\d+", "", text) for text in (str(error), job.operation.error_detail))
    return type(error) is HypervisorError and words not in last


def _retry(job: Job, error: Exception | None) -> None:
    """Postpone the operation by a delay that doubles, with jitter so that many do not return at once."""
    _put_off(job, error, RETRIES.jittered_s(job.operation.retries))


def _put_off(job: Job, error: Exception | None, delay_s: float, *, from_the_start: bool = False) -> None:
    operation = job.operation
    level = logging.ERROR if operation.retries >= 5 else logging.WARNING
    log.log(level, "%s of %s: %s; again in %.1f s", operation, operation.subject_name, error, delay_s)
    lifecycle.postpone(operation, delay_s, retry_detail=traceback.format_exc(), from_the_start=from_the_start)
    services.wake(operation, delay_s=delay_s)


def _give_up(job: Job, failure: Failure) -> None:
    operation = job.operation
    log.error("%s of %s failed: %s\n%s", operation, operation.subject_name, failure.code, failure.detail)
    lifecycle.give_up(operation, failure)


def _undo(job: Job) -> None:
    """Take back what a failed operation made.

    An undo that fails must not keep the operation open for ever: reconcile removes what a failed create
    left, and the next start defines the machine anew.
    """
    try:
        for step in UNDO_STEPS.get(job.operation.typed_kind, ()):
            step(job)
    except (lifecycle.LeaseLost, MachineDelivered):
        raise
    except Exception as error:
        if is_unavailable(error):
            raise
        log.exception("%s of %s could not be undone yet", job.operation, job.operation.subject_name)


def _power_now(job: Job) -> PowerState:
    if job.operation.server_id is None:
        return PowerState.UNKNOWN
    try:
        return job.power()
    except MachineNotFound:
        return PowerState.OFF
    except HypervisorError:
        return PowerState.UNKNOWN
