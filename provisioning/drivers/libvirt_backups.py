"""Copies of running machines' disks: libvirt's backup jobs, the checkpoints between them, and the freeze.

A job writes the disk, as it is at one moment, into a scratch volume beside it (push mode), and makes a
checkpoint: from then on QEMU notes which blocks change, and the next job copies these alone.

libvirt 9.0 as measured.  A job that fails ends like any other, and its checkpoint stays: only the statistics
of the ended job tell, and an incremental over that checkpoint would miss what the failed one should have
copied.  After a machine's QEMU was killed its checkpoints are inconsistent: an incremental is refused, and
they can only be forgotten; the statistics of its last job still tell of success.
"""

import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import libvirt
import libvirt_qemu

from .base import BackupBegun, BackupProgress, GuestFrozen, HostBusy
from .definition import has_disk
from .domain_xml import DISK_TARGET
from .libvirt_errors import is_about_the_host, is_busy
from .libvirt_storage import StoragePool
from .storage_names import disk_volume, is_scratch, scratch_volume

logger = logging.getLogger(__name__)

_PREFIX = "vps-"
_AGENT_LIMIT_S = 5
_LATE_S = 15
_ABORT_LIMIT_S = 5
_SPARE_BYTES = 4 * 2**20  # for the tables of a scratch volume


def begin(
    pool: StoragePool,
    domain: Any,
    machine: UUID,
    backup: UUID,
    *,
    disk_number: int,
    parents: Sequence[UUID],
    freeze: bool,
    leave_bytes: int,
) -> BackupBegun:
    """Clear away what an earlier try left, and begin a job: incremental, if it can be."""
    disk = disk_volume(machine, disk_number)
    _require_disk(pool, domain, disk)
    known = _checkpoints(domain)
    parent = next((parent for parent in parents if parent in known), None)
    end(pool, domain, machine, keep=parent)
    scratch = scratch_volume(machine, backup)
    most_bytes = pool.shown_bytes(disk) + _SPARE_BYTES
    pool.require_room(most_bytes + leave_bytes)
    with _frozen(domain, freeze) as is_frozen:
        try:
            _begin(domain, pool.path(scratch), backup, parent)
        except libvirt.libvirtError as error:
            if parent is None or is_about_the_host(error) or not domain.isActive():
                raise
            logger.warning("no incremental backup of %s: %s", domain.name(), error)
            _forget_checkpoints(domain, keep=None)
            parent = None
            _begin(domain, pool.path(scratch), backup, None)
    _require_disk(pool, domain, disk)  # it may have been replaced, and the machine started, in between
    logger.info("backup %s of %s began", backup, domain.name())
    return BackupBegun(parent=parent, is_frozen=is_frozen)


def progress(pool: StoragePool, domain: Any, machine: UUID, backup: UUID) -> BackupProgress:
    """How the job is.  LOST also if its end is not known: what it wrote cannot be trusted.

    Thaws a guest that froze after it had been given up.
    """
    if says_frozen(domain):
        _thaw(domain)
    if _target(_job(domain)) == pool.path(scratch_volume(machine, backup)):
        return BackupProgress.RUNNING
    checkpoint = _checkpoints(domain).get(backup)
    try:
        if checkpoint is None or not _is_sound(checkpoint):
            return BackupProgress.LOST
        ended = domain.jobStats(
            libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        )
    except libvirt.libvirtError as error:
        if is_about_the_host(error) or is_busy(error):
            raise
        return BackupProgress.LOST  # it is off
    if ended.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP and ended.get("success"):
        return BackupProgress.DONE
    logger.warning("backup %s of %s did not come about: %s", backup, domain.name(), ended.get("errmsg"))
    return BackupProgress.LOST


def end(pool: StoragePool, domain: Any | None, machine: UUID, *, keep: UUID | None) -> None:
    """Abort our job, thaw the guest, remove the scratch volume and our checkpoints but one."""
    if domain is not None:
        job = _job(domain)
        if job is not None and not _is_ours(job, pool, machine):
            raise HostBusy(f"{domain.name()} is being backed up by somebody else")
        if job is not None:
            _abort(domain)
    try:
        # Asked first: a thaw would also thaw what the customer holds still for a purpose of their own.
        if domain is not None and says_frozen(domain):
            _thaw(domain)
    finally:
        if domain is not None:
            _forget_checkpoints(domain, keep)
        pool.refresh()  # libvirt itself made the file, and does not know it for a volume yet
        for volume in pool.volumes():
            if volume.machine == machine and is_scratch(volume.name):
                pool.remove(volume.name)


def checkpoints_of(domain: Any) -> tuple[UUID, ...]:
    """The backups of which the host knows when they were taken."""
    return tuple(sorted(_checkpoints(domain)))


def says_frozen(domain: Any | None) -> bool:
    """Whether the guest's agent says that it is frozen.  libvirt has no call of its own for this question."""
    try:
        if domain is None or domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            return False  # the agent of a paused one does not answer
        told = libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-fsfreeze-status"}', _AGENT_LIMIT_S, 0)
    except libvirt.libvirtError as error:
        if is_about_the_host(error):
            raise
        return False
    return '"frozen"' in told


@contextmanager
def _frozen(domain: Any, wanted: bool) -> Iterator[bool]:
    """Hold the guest's file systems still in the block.  Yields False for a guest that cannot do that.

    Nothing but the beginning of a job may be in the block.  Whatever happens in it, the guest is thawed; the
    worker's death is for whoever takes the operation over.
    """
    held, since = wanted and _freeze(domain), monotonic()
    try:
        yield held
    finally:
        if held:
            _thaw(domain)
            logger.info("%s was held still for %.3f s", domain.name(), monotonic() - since)


def _freeze(domain: Any) -> bool:
    try:
        domain.agentSetResponseTimeout(_AGENT_LIMIT_S)
        domain.fsFreeze()
        return True
    except libvirt.libvirtError as error:
        if is_about_the_host(error):
            raise
        logger.info("%s is not frozen: %s", domain.name(), error)
        if error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE and _has_agent(domain):
            _thaw_late(domain)
        return False


def _has_agent(domain: Any) -> bool:
    """Whether something in the guest listens, be it slow to answer."""
    live = ET.fromstring(domain.XMLDesc())  # noqa: S314 (libvirt's own words)
    return live.find("devices/channel/target[@state='connected']") is not None


def _thaw_late(domain: Any) -> None:
    """Thaw a guest that has much to write, and so froze after its answer was given up.

    One that does not answer for long is copied as it is; ``progress`` looks again.
    """
    give_up_at = monotonic() + _LATE_S
    while monotonic() < give_up_at:
        if says_frozen(domain):
            _thaw(domain)
            return
        sleep(0.5)


def _thaw(domain: Any) -> None:
    """Raises GuestFrozen unless the agent says that nothing is frozen any more."""
    try:
        domain.agentSetResponseTimeout(_AGENT_LIMIT_S)
        domain.fsThaw()
    except libvirt.libvirtError as error:
        if is_about_the_host(error):
            raise
        if domain.isActive():
            raise GuestFrozen(f"{domain.name()} does not thaw: {error}") from error


def _require_disk(pool: StoragePool, domain: Any, disk: str) -> None:
    """Raises HostBusy when the machine runs on another disk: one that is about to replace this one, say."""
    if not has_disk(domain.XMLDesc(), pool.path(disk)):
        raise HostBusy(f"{domain.name()} does not run on {disk} at the moment")


def _begin(domain: Any, path: str, backup: UUID, parent: UUID | None) -> None:
    domain.backupBegin(_job_xml(path, parent), _checkpoint_xml(backup))


def _job_xml(path: str, parent: UUID | None) -> str:
    job = ET.Element("domainbackup", mode="push")
    if parent is not None:
        ET.SubElement(job, "incremental").text = f"{_PREFIX}{parent}"
    disk = ET.SubElement(ET.SubElement(job, "disks"), "disk", name=DISK_TARGET, type="file", backup="yes")
    ET.SubElement(disk, "driver", type="qcow2")
    ET.SubElement(disk, "target", file=path)
    return ET.tostring(job, encoding="unicode")


def _checkpoint_xml(backup: UUID) -> str:
    checkpoint = ET.Element("domaincheckpoint")
    ET.SubElement(checkpoint, "name").text = f"{_PREFIX}{backup}"
    ET.SubElement(ET.SubElement(checkpoint, "disks"), "disk", name=DISK_TARGET, checkpoint="bitmap")
    return ET.tostring(checkpoint, encoding="unicode")


def _job(domain: Any) -> str | None:
    """The description of the backup job that is under way, ours or somebody's."""
    if not domain.isActive():
        return None
    try:
        return str(domain.backupGetXMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP or not domain.isActive():
            return None
        raise


def _is_ours(job: str, pool: StoragePool, machine: UUID) -> bool:
    place, _, name = _target(job).rpartition("/")
    return place == pool.folder and is_scratch(name) and name.startswith(str(machine))


def _target(job: str | None) -> str:
    """The file that a job writes; empty without one."""
    target = None if job is None else ET.fromstring(job).find("disks/disk/target")  # noqa: S314
    return "" if target is None else target.get("file", "")


def _abort(domain: Any) -> None:
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if _job(domain) is not None:
            raise HostBusy(f"{domain.name()}: its backup job does not end: {error}") from error
    give_up_at = monotonic() + _ABORT_LIMIT_S
    while _job(domain) is not None:
        if monotonic() > give_up_at:
            raise HostBusy(f"{domain.name()}: its backup job has not ended yet")
        sleep(0.05)


def _checkpoints(domain: Any) -> dict[UUID, Any]:
    """Our checkpoints; those of others are left alone."""
    try:
        listed = domain.listAllCheckpoints()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:  # libvirt's test driver
            return {}
        raise
    found = {}
    for checkpoint in listed:
        name = checkpoint.getName()
        with suppress(ValueError):
            if name.startswith(_PREFIX):
                found[UUID(name.removeprefix(_PREFIX))] = checkpoint
    return found


def _is_sound(checkpoint: Any) -> bool:
    """Whether QEMU has closed the file of the job that began here, and has lived ever since.

    libvirt says that a job has ended a moment before QEMU closes the file.  Until then parts of the file's
    tables are in QEMU's memory alone, and whoever reads the file finds holes in it.  This question is
    answered when the file is closed: libvirt does not let go of the machine in between.  After a QEMU that
    was killed libvirt knows no size.  Raises libvirtError for a machine that is off.
    """
    described = checkpoint.getXMLDesc(
        libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
    )
    return ET.fromstring(described).find("disks/disk[@size]") is not None  # noqa: S314 (libvirt's own words)


def _forget_checkpoints(domain: Any, keep: UUID | None) -> None:
    """Remove our checkpoints but one.

    What a removed one knows of changes goes to the one before it, so that an incremental over that misses
    nothing.  That takes a running machine: without one only checkpoints that nobody would build on are left.
    """
    for backup, checkpoint in _checkpoints(domain).items():
        if backup == keep:
            continue
        try:
            checkpoint.delete()
        except libvirt.libvirtError as error:
            if is_about_the_host(error) or error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise
            if keep is not None and domain.isActive():
                logger.info("checkpoint %s of %s is left: %s", backup, domain.name(), error)
                continue
            with suppress(libvirt.libvirtError):  # inconsistent, or its bitmap is gone
                checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
