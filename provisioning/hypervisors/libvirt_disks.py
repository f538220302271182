"""Root disks: what a machine writes, over an image that all machines share."""

import logging

from .base import HypervisorError, MachineSpec
from .libvirt_images import has_image
from .libvirt_storage import StoragePool
from .storage_names import disk_volume, image_volume

logger = logging.getLogger(__name__)

_GIB = 2**30


def create_disk(pool: StoragePool, spec: MachineSpec, *, is_new: bool) -> None:
    """Make the disk, unless it is there.

    A disk is only ever replaced when it is what a crash left of making it: not a clone of anything, and
    of a machine that the host does not know yet.  Whatever else is found may be a customer's data.
    """
    disk, image = disk_volume(spec.uuid), image_volume(spec.image)
    if pool.find(disk):
        backing = pool.backing_path(disk)
        if backing == pool.path(image):
            return
        if backing or not is_new:
            raise HypervisorError(f"There is another disk already: {disk}")
        logger.warning("disk %s is torn, making it again", disk)
        pool.remove(disk)
    if not has_image(pool, spec.image):
        raise HypervisorError(f"The image is not in the cache: {image}")
    if pool.size_bytes(image) > spec.disk_gib * _GIB:
        raise HypervisorError(f"{spec.disk_gib} GiB are too small for the image: {image}")
    pool.clone(image, disk, spec.disk_gib * _GIB)
    logger.info("created disk %s", disk)


def grow_disk(pool: StoragePool, spec: MachineSpec) -> None:
    pool.grow(disk_volume(spec.uuid), spec.disk_gib * _GIB)
