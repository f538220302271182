"""What can be asked of backups, by customers and by the clock.

Each is one transaction: it does everything, or raises a Refusal and changes nothing.
"""

import logging
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from backups.kinds import GONE, BackupKind, BackupStatus
from backups.models import Backup
from backups.services import address_for, is_available
from core import clock
from core.errors import NotAllowedNow, OperationInProgress, Refusal
from core.written import take_over
from inventory.services import claim, release
from plans.models import Location
from servers import backup_schedule, lifecycle
from servers.changes import BackupChange
from servers.copies import (
    boots_since,
    readers_of,
    require_available,
    require_restorable,
    require_within_limit,
    sample_to_boot,
    unread_backups,
)
from servers.limits import require_restores_within_limit
from servers.models import Operation, Server
from servers.selectors import one_server_of
from servers.services import locked_server, order_within_grace, wake
from servers.states import CHANGEABLE, OPEN_OPERATION, BackupOperationKind, OperationKind, OperationStatus
from servers.wishes import RestoreWish

log = logging.getLogger(__name__)

READ_AGAIN_AFTER = timedelta(days=25)
READ_AT_ONCE = 20
BEGUN_AT_ONCE = 200
REMOVED_AT_ONCE = 500


@transaction.atomic
def take_backup(
    *,
    server: Server,
    kind: BackupKind,
    name: str = "",
    description: str = "",
    expires_at: datetime | None = None,
) -> Backup:
    """Order a copy of a server's disk.  The server goes on, and orders about it do not wait for the copy.

    Refuses with ``backups_unavailable``, NotAllowedNow, OperationInProgress while another copy of the server
    is being taken, and what is beyond the limit of its kind.
    """
    require_available(server.location)
    there = locked_server(server)
    if there.status not in CHANGEABLE:
        raise NotAllowedNow(
            f"Cannot copy the disk of a server that is {there.status}.", code="not_allowed_now"
        )
    require_within_limit(there, kind)
    backup = _make(there, kind, name, description, expires_at)
    wake(lifecycle.request_of_backup(backup, BackupOperationKind.TAKE, there.claim.hypervisor_id))
    return backup


def _make(
    server: Server, kind: BackupKind, name: str, description: str, expires_at: datetime | None
) -> Backup:
    try:
        with transaction.atomic():
            return Backup.objects.create(
                account=server.account,
                server_id=server.pk,
                server_uuid=server.uuid,
                server_name=server.name,
                location=server.location,
                store=address_for(server.location),
                kind=kind,
                name=name,
                description=description,
                expires_at=expires_at,
                os_version=server.os_version,
                base_image=server.base_image,
                disk_number=server.disk_number,
                disk_gib=server.claim.disk_gib,
            )
    except IntegrityError as error:
        if "one_backup_of_a_server_at_a_time" not in str(error):
            raise
        raise OperationInProgress(
            "Another copy of this server is being taken. Try again when it is there."
        ) from None


@transaction.atomic
def restore_backup(*, backup: Backup) -> Operation:
    """Order the disk of the server that a backup is of to be replaced by it.  What was written since is lost.

    A restore that fails leaves the server as it was, with its disk.  Raises NotFound for a server that was
    deleted: a new one can be made from the backup.
    """
    there = locked_server(one_server_of(backup.account, str(backup.server_id)))
    require_restores_within_limit(there.account)
    require_restorable(backup, account=there.account, disk_gib=there.claim.disk_gib)
    wish = RestoreWish(backup_id=backup.pk, disk_number=there.disk_number + 1)
    return order_within_grace(there, OperationKind.RESTORE, wish=wish)


@transaction.atomic
def delete_backup(*, backup: Backup) -> None:
    """Order a backup to be removed.  For the customer it is gone at once.

    Refuses while a server is made from it (OperationInProgress).  One that is being taken is given up.
    """
    now_there = Backup.objects.select_for_update().get(pk=backup.pk)
    if now_there.status in GONE:
        return
    if readers_of(now_there).exists():
        raise OperationInProgress("A server is being made from this backup. Try again when it is there.")
    # The lease stays: the removal begins when the worker let go or the lease ended.
    now_there.operations.filter(status__in=OPEN_OPERATION).update(
        status=OperationStatus.CANCELLED, finished_at=Now()
    )
    changes: dict[str, Any] = {"status": BackupStatus.DELETING, "deleted_at": Now()}
    Backup.objects.filter(pk=backup.pk).update(**changes)
    take_over(backup, changes)
    wake(lifecycle.request_of_backup(now_there, BackupOperationKind.REMOVE))


@transaction.atomic
def verify_backup(*, backup: Backup) -> Operation:
    """Order all of a whole backup to be read again from its store.

    Refuses one that is not whole, and OperationInProgress.
    """
    operation = lifecycle.request_of_backup(_locked_whole(backup), BackupOperationKind.VERIFY)
    wake(operation)
    return operation


@transaction.atomic
def boot_backup(*, backup: Backup) -> Operation:
    """Order a machine to be started from a whole backup, without a network, until its guest agent answers.

    It has VPS_TRIAL_MEMORY and room of its own, and is removed then.  Refuses a backup that is not whole, one
    of a system without an agent, with NoCapacity, and with OperationInProgress.
    """
    now_there = _locked_whole(backup)
    if not now_there.base_image.has_agent:
        raise Refusal("The system of this backup has no guest agent that could answer.", code="no_agent")
    room = claim(
        now_there.location, vcpus=1, memory_mib=settings.VPS_TRIAL_MEMORY, disk_gib=now_there.disk_gib
    )
    operation = lifecycle.request_of_backup(now_there, BackupOperationKind.BOOT, room.hypervisor_id, room)
    wake(operation)
    return operation


@transaction.atomic
def release_trial(operation: Operation) -> None:
    """Give back the room of a trial machine that is removed.  May be repeated."""
    room = Operation.objects.select_for_update(of=("self",)).get(pk=operation.pk).trial_room
    Operation.objects.filter(pk=operation.pk).update(trial_room=None)
    operation.trial_room = None
    if room is not None:
        release(room)


def _locked_whole(backup: Backup) -> Backup:
    now_there = Backup.objects.select_for_update(no_key=True).get(pk=backup.pk)
    if now_there.status != BackupStatus.COMPLETED:
        raise NotAllowedNow(f"Cannot read a backup that is {now_there.status}.", code="not_allowed_now")
    return now_there


def verify_due_backups() -> int:
    """Order the backups to be read again that were not for long.  Returns their number.

    Of those that are damaged that is known.
    """
    ordered = 0
    for backup in unread_backups(READ_AGAIN_AFTER).filter(damage="")[:READ_AT_ONCE]:
        with suppress(OperationInProgress, NotAllowedNow):
            verify_backup(backup=backup)
            ordered += 1
    return ordered


def boot_due_backups() -> int:
    """Order a sample to be booted: of each location VPS_BACKUPS_BOOTED_DAILY a day.  Returns their number.

    Where there is no room for a machine just now, none is until the next time.
    """
    ordered = 0
    for location in Location.objects.all():
        booted = boots_since(location, timedelta(days=1)).count()
        for backup in sample_to_boot(location)[: max(0, settings.VPS_BACKUPS_BOOTED_DAILY - booted)]:
            try:
                boot_backup(backup=backup)
                ordered += 1
            except Refusal as refusal:
                log.warning("backup %s is not booted now: %s", backup.uuid, refusal)
    return ordered


def take_due_backups() -> int:
    """Order the automatic backups whose moment has come.  Returns their number.

    A server that is suspended or that changes just now waits for the next round, or the next day.  Where no
    backups can be taken all stay due, and verify says that they were missed.
    """
    if not is_available():
        if backup_schedule.due().exists():
            log.error("automatic backups are due and cannot be taken: VPS_BACKUP_KEY is not set")
        return 0
    return sum(_take_if_due(server) for server in backup_schedule.due()[:BEGUN_AT_ONCE])


@transaction.atomic
def _take_if_due(server: Server) -> bool:
    there = Server.objects.select_for_update().get(pk=server.pk)
    now = clock.now()
    if there.backup_due_at is None or not backup_schedule.has_come(there.backup_due_at, now):
        return False
    if there.deleted_at is not None:
        backup_schedule.end(there)
        return False
    if there.status not in CHANGEABLE:
        if now - there.backup_due_at > backup_schedule.ONCE_MORE_AFTER:
            backup_schedule.set_next(there)
        return False
    try:
        take_backup(
            server=there,
            kind=BackupKind.AUTOMATIC,
            description="Automatic daily backup",
            expires_at=backup_schedule.keep_until(there, now),
        )
    except OperationInProgress:
        return False  # a manual one is being taken: in the next round
    except Refusal as refusal:
        log.error("no automatic backup of server %s: %s", there.uuid, refusal)
        return False
    backup_schedule.set_next(there)
    return True


def remove_expired_backups() -> int:
    """Order the backups to be removed that were to be kept until now.  Returns their number.

    Raises ClocksDiffer rather than to trust a clock that may have jumped ahead.
    """
    clock.require_agreement()
    removed = 0
    for backup in backup_schedule.expired()[:REMOVED_AT_ONCE]:
        try:
            delete_backup(backup=backup)
            removed += 1
        except OperationInProgress:
            continue
    return removed


def follow(change: BackupChange) -> None:
    """Have an automatic backup that failed taken once more, and one that failed shown for a while only."""
    if change.after != BackupStatus.FAILED:
        return
    until = Now() + backup_schedule.FAILED_IS_SHOWN_FOR
    Backup.objects.filter(pk=change.backup.pk).update(expires_at=until)
    if change.backup.kind == BackupKind.AUTOMATIC and change.server is not None:
        backup_schedule.catch_up(change.server)
