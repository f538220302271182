"""The steps that take a backup, remove one, and make a disk from one.

A running machine is copied on its host into a scratch file, as it is at one moment (``begin_backup``,
``await_backup``), and that file is brought into the store.  Whatever ends the copy early, the customer's
orders above all, has it begun anew.  A machine that is off is read itself; if anything happens to it
meanwhile, what was read is thrown away.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn
from uuid import UUID, uuid4

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now

from backups import manifests, reading, writing
from backups.errors import BackupError, ManifestBad, ManifestMissing, PieceBad
from backups.kinds import BackupStatus
from backups.manifests import Manifest, length_of
from backups.models import Backup
from backups.pieces import PIECE_BYTES
from backups.services import address_for, keeping_pieces, manifest_of, vault_of
from backups.vaults import Vault
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.drivers.base import (
    BackupProgress,
    DiskContent,
    Driver,
    HypervisorError,
    MachineNotFound,
    MachineSpec,
    VolumeMissing,
)
from provisioning.jobs import AskAgain, GaveUp, Job, StartOver
from servers import lifecycle
from servers.models import Operation, Server
from servers.states import BackupOperationKind, PowerState

log = logging.getLogger(__name__)

AGAIN_S = 5
BEHIND_OTHERS_S = 5


def begin_backup(job: Job) -> None:
    """Have the host begin a copy of a disk that is in use.

    A host has at most VPS_BACKUPS_PER_HOST copies that are not stored yet: each needs room.
    """
    if lifecycle.copies_beside(job.operation) >= settings.VPS_BACKUPS_PER_HOST:
        raise AskAgain(BEHIND_OTHERS_S)
    server, backup = job.server, job.backup
    if server.disk_number != backup.disk_number:
        raise GaveUp("disk_replaced", "The disk of this server was replaced before its backup was complete.")
    power = job.power()
    if power == PowerState.UNKNOWN:
        raise AskAgain(AGAIN_S)
    if power == PowerState.OFF:
        job.host.end_backup(server.uuid, keep=_checkpoint_to_keep(server))
        lifecycle.record_backup(
            job.operation, was_running=False, copied_as=None, is_consistent=True, parent=None
        )
        return
    copied_as = uuid4()
    begun = job.host.begin_backup(
        server.uuid,
        copied_as,
        disk_number=backup.disk_number,
        parents=_parents(server.pk, backup.disk_number, backup.store),
        freeze=power == PowerState.RUNNING and backup.base_image.has_agent,
        leave_bytes=_reserve_of(job.host),
    )
    parent = Backup.objects.get(copied_as=begun.parent) if begun.parent else None
    lifecycle.record_backup(
        job.operation,
        was_running=True,
        copied_as=copied_as,
        is_consistent=begun.is_frozen,
        parent=parent and parent.uuid,
    )


def await_backup(job: Job) -> None:
    """Until the copy is done.  One that was lost, since the machine went off, say, is begun anew."""
    if job.backup.copied_as is None:
        return
    progress = job.host.backup_progress(job.server.uuid, job.backup.copied_as)
    if progress == BackupProgress.RUNNING:
        raise AskAgain(1)
    if progress == BackupProgress.LOST:
        _start_over(job, "The copy on the host was lost, or the host could not write it.")


def store_backup(job: Job) -> None:
    """Bring the copy into the store, and read it back from there.

    Under a name of this worker's own, which counts once it is in the row: a worker that lost its lease, and
    goes on all the same, changes nothing of what another has stored.

    With a parent whose backup is damaged or deleted by now, or a machine that did not stay off, all begins
    anew, with a full copy.
    """
    backup, stored_as = job.backup, uuid4()
    with keeping_pieces(backup.account) as hold:
        vault = vault_of(backup.account, backup.store, make_key=True)
        parent = _parent_of(job, vault)
        before = None if backup.copied_as else _stillness(job)
        try:
            content = _content(job)
            written = writing.write(
                vault,
                backup=stored_as,
                disk_bytes=content.size_bytes,
                changes=content.extents,
                parent=parent,
                require_hold=hold.require,
            )
        except PieceBad as bad:
            if parent is None:
                raise
            _start_over_without_parent(job, bad)
        except VolumeMissing as missing:  # a worker that lost its lease has cleared the host
            _start_over(job, str(missing))
        if before is not None and _stillness(job) != before:
            manifests.remove(vault, stored_as)
            _start_over(job, "The machine did not stay off while its disk was read.")
    lifecycle.record_backup(
        job.operation,
        stored_as=stored_as,
        disk_gib=-(-content.size_bytes // 2**30),  # the server may have been resized since the order
        size_bytes=written.manifest.data_bytes,
        new_bytes=written.new_bytes,
    )


def end_backup(job: Job) -> None:
    """Clear the host, but for the moment that the next backup builds on."""
    with suppress(MachineNotFound, GaveUp):  # the server was deleted meanwhile, and with it what was there
        keep = job.backup.copied_as or _checkpoint_to_keep(job.server)
        job.host.end_backup(job.server.uuid, keep=keep)


def abandon_backup(job: Job) -> None:
    """Clear the host of a backup that failed.  What it has in the store is collected: no row names it."""
    lifecycle.record_backup(job.operation, stored_as=None)
    clear_copy(job.backup)


def clear_host(job: Job) -> None:
    """Before a backup is removed: its host forgets it, and what it has of one that was given up half-way.

    Of a whole backup there is no more than a checkpoint, which the next backup removes, too: nobody waits for
    its host.
    """
    try:
        clear_copy(job.backup)
    except HypervisorError as error:
        if job.backup.completed_at is None:
            raise
        log.info("the host of %s keeps a checkpoint for now: %s", job.backup, error)


def read_again(job: Job) -> None:
    """Read every piece of a backup.  What is bad is written down for staff."""
    backup = job.backup
    with keeping_pieces(backup.account):
        vault = vault_of(backup.account, backup.store)
        try:
            bad: Sequence[BackupError] = reading.check(vault, manifest_of(backup, vault))
        except (ManifestMissing, ManifestBad) as error:
            bad = [error]
    if not bad:
        return
    more = f" So are {len(bad) - 1} others." if len(bad) > 1 else ""
    lifecycle.record_backup(job.operation, damage=f"{bad[0]}{more}"[:255])
    raise GaveUp(bad[0].code, bad[0].sentence)


def remove_backup(job: Job) -> None:
    """Remove it from the store.  Its pieces go when they are collected."""
    if job.backup.stored_as is not None:
        manifests.remove(vault_of(job.backup.account, job.backup.store), job.backup.stored_as)


def write_disk_from(
    source: Backup, host: Driver, spec: MachineSpec, require_ours: Callable[[], None]
) -> None:
    """Make the disk from a backup, each piece of it verified.  What is bad is written down for staff."""
    with keeping_pieces(source.account), _damage_told(source):
        vault = vault_of(source.account, source.store)
        manifest = manifest_of(source, vault)
        size = manifest.disk_bytes
        spans = [(index * PIECE_BYTES, length_of(size, index)) for index, _ in manifest.named()]
        host.write_disk(
            spec,
            spans,
            reading.read(vault, manifest),
            require_ours=require_ours,
            leave_bytes=_reserve_of(host),
        )


@contextmanager
def _damage_told(backup: Backup) -> Iterator[None]:
    try:
        yield
    except (PieceBad, ManifestMissing, ManifestBad) as error:
        lifecycle.record_damage(backup, str(error))
        raise


def _reserve_of(host: Driver) -> int:
    """The bytes of its pool that no copy and no restored disk takes: guests that run need them."""
    return host.room().bytes * settings.VPS_POOL_RESERVE // 100


def copies_left_on(hypervisor: Hypervisor) -> QuerySet[Backup]:
    """Backups that failed, and of which the host could not be cleared then."""
    here = Server.objects.filter(home__hypervisor=hypervisor)
    left = Backup.objects.filter(status=BackupStatus.FAILED, copied_as__isnull=False)
    return left.filter(server_id__in=here.values("pk"))


def broken_off_on(hypervisor: Hypervisor) -> list[Backup]:
    """Backups whose worker died while it began the copy: it may have left the guest frozen.

    The next worker would thaw it, but other backups of the host may be before that.
    """
    begun = Operation.objects.filter(
        Operation.OPEN,
        hypervisor=hypervisor,
        kind=BackupOperationKind.TAKE,
        step=begin_backup.__name__,
        lease_until__lte=Now(),
    )
    return [operation.subject_backup for operation in begun.select_related("backup")]


def clear_copy(backup: Backup) -> None:
    """Clear the host of what it has of a backup that is given up or removed.

    May be repeated.  Raises HypervisorError.
    """
    there = Server.objects.select_related("home__hypervisor", "location").exclude(home=None)
    server = there.filter(pk=backup.server_id).first()
    if server is not None and not _is_at_work_for_another(backup):
        with suppress(MachineNotFound):
            hypervisors.driver_of(server).end_backup(server.uuid, keep=_checkpoint_to_keep(server))
    Backup.objects.filter(pk=backup.pk).update(copied_as=None)


def _is_at_work_for_another(backup: Backup) -> bool:
    """Whether the host copies the same disk for the next backup already: that clears up by itself."""
    others = Backup.objects.filter(server_id=backup.server_id, status=BackupStatus.IN_PROGRESS)
    return others.exclude(pk=backup.pk).exists()


def _parents(server_id: int, disk_number: int, store: str) -> list[UUID]:
    """The copies of a disk that became sound backups, newest first: on one of them the next may build."""
    whole = Backup.objects.filter(
        server_id=server_id,
        disk_number=disk_number,
        store=store,
        status=BackupStatus.COMPLETED,
        damage="",
        copied_as__isnull=False,
    )
    copies = whole.order_by("-pk").values_list("copied_as", flat=True)[:50]
    return [copy for copy in copies if copy is not None]


def _checkpoint_to_keep(server: Server) -> UUID | None:
    """What the next backup builds on: it is of the disk that the server has now."""
    return next(iter(_parents(server.pk, server.disk_number, address_for(server.location))), None)


def _parent_of(job: Job, vault: Vault) -> Manifest | None:
    if job.backup.parent is None:
        return None
    try:
        return manifest_of(Backup.objects.get(uuid=job.backup.parent), vault)
    except (ManifestMissing, ManifestBad) as error:
        _start_over_without_parent(job, error)


def _start_over_without_parent(job: Job, why: BackupError) -> NoReturn:
    log.error("backup %s takes nothing from its parent %s: %s", job.backup.uuid, job.backup.parent, why)
    job.host.end_backup(job.server.uuid, keep=None)
    _start_over(job, str(why))


def _start_over(job: Job, why: str) -> NoReturn:
    """Give up the copy on the host, so that others need not wait for it, and begin anew."""
    lifecycle.record_backup(job.operation, copied_as=None)
    raise StartOver(why)


def _content(job: Job) -> DiskContent:
    if job.backup.copied_as is not None:
        return job.host.read_backup(job.server.uuid, job.backup.copied_as)
    return job.host.read_disk(job.server.uuid, job.backup.disk_number)


def _stillness(job: Job) -> tuple[object, ...]:
    """Changes with whatever is done to the machine; raises StartOver while it is not off."""
    now = Server.objects.select_related("home__hypervisor").get(pk=job.server.pk)
    if hypervisors.driver_of(now).power(now.uuid).state != PowerState.OFF:
        raise StartOver("The machine is not off any more.")
    return now.written_at, now.disk_number, now.home_id
