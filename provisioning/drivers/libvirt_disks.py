"""Root disks: what a machine writes, over an image that all machines share."""

import logging
from collections.abc import Sequence
from uuid import UUID

from .base import HypervisorError, MachineChanged, MachineSpec
from .definition import has_disk
from .libvirt_images import has_image
from .libvirt_storage import StoragePool
from .storage_names import disk_volume, image_volume, is_disk

logger = logging.getLogger(__name__)

_GIB = 2**30


def create_disk(pool: StoragePool, spec: MachineSpec, definitions: Sequence[str]) -> None:
    """Make the disk, unless it is there.

    A disk is only ever replaced when it is what a crash left of making it: not a clone of anything, and
    in none of its machine's definitions.  Whatever else is found may be a customer's data.
    """
    disk, image = disk_volume(spec.uuid, spec.disk_number), image_volume(spec.image)
    if pool.find(disk):
        backing = pool.backing_path(disk)
        if backing == pool.path(image):
            return
        if backing or is_in_use(pool, disk, definitions):
            raise HypervisorError(f"There is another disk already: {disk}")
        logger.warning("disk %s is torn, making it again", disk)
        pool.remove(disk)
    if not has_image(pool, spec.image):
        raise HypervisorError(f"The image is not in the cache: {image}")
    if pool.size_bytes(image) > spec.disk_gib * _GIB:
        raise HypervisorError(f"{spec.disk_gib} GiB are too small for the image: {image}")
    pool.clone(image, disk, spec.disk_gib * _GIB)
    logger.info("created disk %s", disk)


def make_place(
    pool: StoragePool, disk: str, size_bytes: int, definitions: Sequence[str], *, leave_bytes: int
) -> bool:
    """A volume for a disk that is about to be written, in place of what a crash left of one.

    It has all its room from the start: several that grew beside each other might fill the pool together, and
    libvirt does not tell who writes into a pool that is full.

    False, and nothing is done, for a disk that its machine has already.  Raises PoolFull.
    """
    if is_in_use(pool, disk, definitions):
        return False
    pool.remove(disk)
    pool.require_room(size_bytes + leave_bytes)
    pool.create(disk, size_bytes, is_allocated=True)
    return True


def grow_disk(pool: StoragePool, spec: MachineSpec) -> None:
    pool.grow(disk_volume(spec.uuid, spec.disk_number), spec.disk_gib * _GIB)


def require_disk(pool: StoragePool, spec: MachineSpec, definitions: Sequence[str]) -> None:
    """Raises MachineChanged when the machine has another disk and this one is not there.

    So it is when the rows are older than the host, as after a restore.
    """
    disk = disk_volume(spec.uuid, spec.disk_number)
    if is_in_use(pool, disk, definitions):
        return
    if pool.find(disk) is None:
        pool.refresh()  # somebody may have put it there
    if pool.find(disk) is None:
        raise MachineChanged(f"machine {spec.uuid} has another disk, and {disk} is not there")


def require_unused(pool: StoragePool, disk: str, definitions: Sequence[str]) -> None:
    """Raises HypervisorError when the machine has the disk: what is there is the customer's."""
    if is_in_use(pool, disk, definitions):
        raise HypervisorError(f"{disk} is the disk of its machine by now: it is not written over.")


def is_in_use(pool: StoragePool, disk: str, definitions: Sequence[str]) -> bool:
    return any(has_disk(xml, pool.path(disk)) for xml in definitions)


def remove_spare_disks(pool: StoragePool, machine: UUID, keep: int, definitions: Sequence[str]) -> None:
    """Raises HypervisorError, and removes none, when the machine is defined with one of them."""
    pool.refresh()  # a libvirtd that was killed may have left a file of which it does not know
    disks = [volume.name for volume in pool.volumes() if volume.machine == machine and is_disk(volume.name)]
    spare = [disk for disk in disks if disk != disk_volume(machine, keep)]
    if used := [disk for disk in spare if is_in_use(pool, disk, definitions)]:
        raise HypervisorError(f"Machine {machine} has the disk {', '.join(used)}: it is not removed.")
    for disk in spare:
        pool.remove(disk)
