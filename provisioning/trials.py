"""Whether a backup boots: a trial machine is started from it, without a network, and removed again.

It has the uuid of its operation, and room that the operation holds until it is removed.  Removing it is never
given up: what a worker leaves, reconcile removes.
"""

import logging
from collections.abc import Collection
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet

from core import leases
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.backup_steps import write_disk_from
from provisioning.drivers import base
from provisioning.jobs import AskAgain, GaveUp, Job
from servers import backup_services, lifecycle
from servers.models import Operation
from servers.states import OPEN_OPERATION, BackupOperationKind, PowerState

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 2


def make_trial_disk(job: Job) -> None:
    write_disk_from(job.backup, _host(job.operation), _spec(job), job.require_ours)


def make_trial(job: Job) -> None:
    host, spec = _host(job.operation), _spec(job)
    host.write_seed(spec)
    host.define(spec)


def start_trial(job: Job) -> None:
    _host(job.operation).start(job.operation.uuid)


def await_trial(job: Job) -> None:
    """Until its guest agent answers.  A backup whose guest does not within VPS_BOOT_TIMEOUT is damaged."""
    host, machine = _host(job.operation), job.operation.uuid
    runs = host.power(machine).state == PowerState.RUNNING
    if runs and host.guest(machine) is not None:
        return
    if job.seconds_in_step > settings.VPS_BOOT_TIMEOUT:
        what = f"did not boot: its guest agent did not answer within {settings.VPS_BOOT_TIMEOUT} seconds."
        lifecycle.record_backup(job.operation, damage=what)
        raise GaveUp(lifecycle.DID_NOT_BOOT, f"A machine that was made from it {what}")
    if not runs:
        host.start(machine)
    raise AskAgain(LOOK_AGAIN_S)


def remove_trial(job: Job) -> None:
    remove_trial_of(job.operation)


def remove_trial_of(operation: Operation) -> None:
    """Remove the machine of a trial and give its room back.  May be repeated.  Raises HypervisorError."""
    _host(operation).delete(operation.uuid)
    backup_services.release_trial(operation)


def leftover_trials_on(hypervisor: Hypervisor, machines: Collection[UUID]) -> QuerySet[Operation]:
    """Trials that are over and that no worker holds, and of which this host has a machine or keeps room."""
    over = trials().filter(hypervisor=hypervisor).exclude(status__in=OPEN_OPERATION)
    return leases.free(over).filter(Q(trial_room__isnull=False) | Q(uuid__in=list(machines)))


def trials() -> QuerySet[Operation]:
    return Operation.objects.filter(kind=BackupOperationKind.BOOT)


def _host(operation: Operation) -> base.Driver:
    assert operation.hypervisor is not None  # noqa: S101  (where its room was claimed)
    return hypervisors.driver_for(operation.hypervisor)


def _spec(job: Job) -> base.MachineSpec:
    room, backup = job.operation.trial_room, job.backup
    if room is None:
        raise lifecycle.LeaseLost(f"{job.operation}: its room was given back meanwhile")
    return base.MachineSpec(
        uuid=job.operation.uuid,
        name=f"trial of backup {backup.pk}",
        account=str(backup.account.uuid),
        hostname="trial",
        vcpus=room.vcpus,
        memory_mib=room.memory_mib,
        disk_gib=room.disk_gib,
        image=base.Image(sha256=backup.base_image.sha256),
        nics=(),
    )
