"""How each kind of operation is done: named steps, in reading order.

Each step may be repeated: after a crash the step that was under way is done
again.  A step that must wait does not sleep; it raises ``AskAgain`` and frees
the worker.
"""

import logging
from contextlib import suppress
from datetime import timedelta
from functools import wraps

from django.conf import settings

from billing.runway import is_due_to_be_suspended
from core.locks import image_on_host, try_lock
from inventory.services import put_in_use, record_image_copy
from provisioning import host_facts, hypervisors, images
from provisioning.backup_steps import (
    abandon_backup,
    await_backup,
    begin_backup,
    clear_host,
    end_backup,
    read_again,
    remove_backup,
    store_backup,
    write_disk_from,
)
from provisioning.drivers.base import (
    HostBusy,
    HostUnreachable,
    HypervisorError,
    MachineDelivered,
    MachineNotFound,
)
from provisioning.jobs import AskAgain, GaveUp, Job, Step
from provisioning.trials import await_trial, make_trial, make_trial_disk, remove_trial, start_trial
from servers import lifecycle, services
from servers.states import BackupOperationKind, HostOperationKind, OperationKind, PowerState
from servers.wishes import Kind, RebuildWish, RestoreWish

log = logging.getLogger(__name__)

PRESS_AGAIN_AFTER = timedelta(seconds=10)  # a guest that was still booting missed the first press


def fetch_image(job: Job) -> None:
    """Put the image into the host's cache, once: one worker copies, the others ask again.

    A disk that is made from a backup needs none.
    """
    if job.source is not None or job.host.has_image(job.spec.image):
        return
    hypervisor, image = hypervisors.home_of(job.server).hypervisor, job.image
    with try_lock(image_on_host(image.sha256, hypervisor.pk)) as mine:
        if not mine:
            raise AskAgain(2)
        job.host.put_image(job.spec.image, images.file_of(image.sha256))
    record_image_copy(hypervisor, image.pk)


def never_delivered(step: Step) -> Step:
    """The same step, which refuses to touch a machine that its customer was given already.

    Books that were restored may be older than their hosts, and order anew what is long done.
    """

    @wraps(step)
    def careful(job: Job) -> None:
        if job.host.is_delivered(job.server.uuid):
            raise MachineDelivered(f"machine {job.server.uuid} was delivered before")
        step(job)

    return careful


def make_disk(job: Job) -> None:
    if job.source is None:
        job.host.create_disk(job.spec)
    else:
        write_disk_from(job.source, job.host, job.spec, job.require_ours)


def write_seed(job: Job) -> None:
    job.host.write_seed(job.spec)


def define(job: Job) -> None:
    job.host.define(job.spec)


def power_on(job: Job) -> None:
    # Recorded first: addresses that a machine may have used rest when they are given back.
    if not put_in_use(hypervisors.port_of(job.server)):
        raise lifecycle.LeaseLost(f"{job.operation}: the addresses were given back meanwhile")
    job.host.start(job.server.uuid)


def await_guest(job: Job) -> None:
    """Until the guest agent answers and the guest has its addresses; without an agent, until it runs.

    A machine that died meanwhile, with its host or its process, is started again.
    """
    power = job.host.power(job.server.uuid)
    if power.off_on_purpose:
        raise GaveUp("guest_stopped", "The server switched itself off while it was starting.")
    runs = power.state in {PowerState.RUNNING, PowerState.PAUSED}
    if runs and not job.image.has_agent:
        lifecycle.record_addresses(job.operation, job.spec.addresses)
        return
    guest = job.host.guest(job.server.uuid) if runs else None
    too_long = job.seconds_in_step > settings.VPS_BOOT_TIMEOUT
    if guest and (too_long or set(job.spec.addresses) <= set(guest.addresses)):
        lifecycle.record_addresses(job.operation, job.spec.addresses, shown=guest.addresses)
    elif too_long:
        raise GaveUp(
            "guest_timeout", f"The server did not come up within {settings.VPS_BOOT_TIMEOUT} seconds."
        )
    else:
        if not runs:
            power_on(job)
        raise AskAgain(1)


def check_machine(job: Job) -> None:
    """Refuse to take down a machine that was changed on its host: it could not be started again."""
    job.host.require_unchanged(job.server.uuid)


def shut_down(job: Job) -> None:
    """Press the guest's power button, again and again, until the machine is off.

    The machine's state decides, not the answers of the host to our calls.  After VPS_SHUTDOWN_TIMEOUT the
    power is cut, whether the guest ignores the button, is paused, has crashed or its QEMU hangs.
    """
    if job.power() == PowerState.OFF:
        return
    limit = settings.VPS_SHUTDOWN_TIMEOUT
    was_pressed = job.operation.pressed_at is not None
    if was_pressed and job.seconds_in_step > limit:
        cut_power(job)
        lifecycle.note(
            job.operation, f"The system did not shut down within {limit} seconds: its power was cut."
        )
        return
    if lifecycle.may_press(job.operation, PRESS_AGAIN_AFTER):
        _press_power_button(job)
    raise AskAgain(1)


def _press_power_button(job: Job) -> None:
    """Press it.  A paused machine refuses and a hung QEMU does not answer: both are ignored."""
    try:
        job.host.shut_down(job.server.uuid)
    except (HostUnreachable, MachineNotFound):
        raise
    except HypervisorError as error:
        log.info("server %s did not take the power button: %s", job.server.uuid, error)


def remove_machine(job: Job) -> None:
    if job.server.home is not None:
        job.host.delete(job.server.uuid)


def clear_disks(job: Job) -> None:
    """Remove disks that an earlier rebuild left: this rebuild would take them for its own."""
    job.host.remove_spare_disks(job.server.uuid, keep=job.server.disk_number)


def switch_off(job: Job) -> None:
    """At once: what it would still write is about to be removed.  A machine that is unknown is off."""
    with suppress(MachineNotFound):
        cut_power(job)


def remove_old_disk(job: Job) -> None:
    job.host.remove_spare_disks(job.server.uuid, keep=job.server.disk_number)


def return_to_old_disk(job: Job) -> None:
    """Wish for the old disk again, unless the new disk was adopted already."""
    wish = job.operation.typed_wish
    assert isinstance(wish, RebuildWish | RestoreWish)  # noqa: S101  (a step of these alone)
    is_adopted = job.server.disk_number == wish.disk_number
    if not is_adopted and job.host.has_disk(job.server.uuid, wish.disk_number):
        switch_off(job)
    job.forget_wish()


def deliver(job: Job) -> None:
    """Mark the machine on its host: from now on only what its customer orders removes anything.

    Before the row says active, and not after: what the row says may be lost in a restore.
    """
    job.host.mark_delivered(job.server.uuid)


def remove_attempt(job: Job) -> None:
    """Remove what a failed create made.  Raises MachineDelivered when it is a customer's machine."""
    if job.server.home is not None:
        job.host.delete(job.server.uuid, unless_delivered=True)


def release_claims(job: Job) -> None:
    # The placement goes last: as long as a host may hold something, its row must say so.
    services.release_claims(server=job.server)


def cut_power(job: Job) -> None:
    """Cut the power, again until the machine is off or the deadline has passed."""
    try:
        job.host.power_off(job.server.uuid)
    except (HostUnreachable, MachineNotFound):
        raise
    except HypervisorError as error:
        if job.power() != PowerState.OFF:
            raise HostBusy(f"the power is not off yet: {error}") from error


def grow_disk(job: Job) -> None:
    job.host.grow_disk(job.spec)


def adopt(job: Job) -> None:
    lifecycle.adopt(job.operation)
    services.give_back_surplus(operation=job.operation)


def power_on_again(job: Job) -> None:
    if job.was_active:
        power_on(job)


def await_guest_again(job: Job) -> None:
    if job.was_active:
        await_guest(job)


def power_on_as_before(job: Job) -> None:
    """After a failure: a machine that we switched off runs again.

    A paused machine stays paused: somebody else paused it.  A server that is due to be suspended for a
    negative balance stays off.
    """
    if job.was_active and not is_due_to_be_suspended(job.server.account) and job.power() == PowerState.OFF:
        power_on(job)


def return_claims(job: Job) -> None:
    """Give back the room of the new plan, unless the new plan was adopted already."""
    services.give_back_surplus(operation=job.operation)
    job.forget_wish()


def check_host(job: Job) -> None:
    """Ask the host once, whatever its circuit breaker says: this is how staff see whether it is back."""
    try:
        answer = host_facts.ask(job.operation.subject_hypervisor)
    except HypervisorError as error:
        raise GaveUp(error.code, str(error)) from error
    lifecycle.note(job.operation, answer)


K = OperationKind

WORKFLOWS: dict[Kind, tuple[Step, ...]] = {
    K.CREATE: (
        fetch_image,
        *map(never_delivered, (make_disk, write_seed, define)),
        power_on,
        await_guest,
        deliver,
    ),
    K.START: (write_seed, define, power_on, await_guest),
    K.STOP: (shut_down,),
    K.HARD_STOP: (cut_power,),
    K.REBOOT: (check_machine, shut_down, write_seed, power_on, await_guest),
    K.RESIZE: (
        check_machine,
        shut_down,
        define,
        grow_disk,
        adopt,
        power_on_again,
        await_guest_again,
    ),
    # The new disk is made beside the old one, which goes last: until then there is a way back.
    K.REBUILD: (
        fetch_image,
        check_machine,
        clear_disks,
        make_disk,
        switch_off,
        write_seed,
        define,
        power_on,
        await_guest,
        deliver,
        adopt,
        remove_old_disk,
    ),
    # As a rebuild, but that a server that was off stays off.
    K.RESTORE: (
        check_machine,
        clear_disks,
        make_disk,
        switch_off,
        write_seed,
        define,
        power_on_again,
        await_guest_again,
        deliver,
        adopt,
        remove_old_disk,
    ),
    K.SUSPEND: (shut_down,),
    K.UNSUSPEND: (write_seed, define, power_on_again, await_guest_again),
    K.DELETE: (remove_machine, release_claims),
    HostOperationKind.CHECK: (check_host,),
    BackupOperationKind.TAKE: (begin_backup, await_backup, store_backup, end_backup),
    BackupOperationKind.VERIFY: (read_again,),
    BackupOperationKind.BOOT: (make_trial_disk, make_trial, start_trial, await_trial, remove_trial),
    BackupOperationKind.REMOVE: (clear_host, remove_backup),
}

# Once the rest is done: neither a deadline nor an error is a reason to call the operation failed.
TRIED_UNTIL_DONE = {remove_old_disk.__name__, end_backup.__name__, remove_trial.__name__}

UNDO_STEPS: dict[Kind, tuple[Step, ...]] = {
    K.CREATE: (remove_attempt, release_claims),
    K.REBOOT: (power_on_as_before,),
    K.RESIZE: (return_claims, define, power_on_as_before),
    K.REBUILD: (return_to_old_disk, define, power_on_as_before, remove_old_disk),
    K.RESTORE: (return_to_old_disk, define, power_on_as_before, remove_old_disk),
    BackupOperationKind.TAKE: (abandon_backup,),
    BackupOperationKind.BOOT: (remove_trial,),
}
