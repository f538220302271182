"""What somebody has changed on a host about a machine of ours: its disks, its devices, its saved memory.

A definition that we write says which disk a machine has.  After ``virsh snapshot-create-as --disk-only`` the
machine writes to another file; a definition of ours would bring the old disk back, and what was written since
would be gone.  So we look before we write, and leave alone what is not as we made it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import libvirt

from .base import MachineChanged
from .definition import changes_in
from .libvirt_storage import StoragePool


def require_unchanged(pool: StoragePool, machine: UUID, domain: Any | None) -> None:
    """Raises MachineChanged.  ``domain`` None: the host does not know the machine; its disk may be there."""
    changes = overlays(pool, machine) if domain is None else changes_of(pool, domain, definitions_of(domain))
    if changes:
        raise MachineChanged(f"machine {machine} {'; '.join(changes)}")


def definitions_of(domain: Any) -> list[str]:
    """The stored definition of the machine and, if it runs, the live one."""
    stored = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return [stored, domain.XMLDesc()] if domain.isActive() else [stored]


def changes_of(pool: StoragePool, domain: Any, definitions: Sequence[str]) -> list[str]:
    """What differs from the machine that we made, as sentences without a subject."""
    found = [change for xml in definitions for change in changes_in(xml, pool.folder)]
    if domain.hasManagedSaveImage():
        found.append("has saved memory")
    return list(dict.fromkeys(found))


def oddities_of(domain: Any) -> list[str]:
    """Changes to a machine that do not endanger its disk, as sentences without a subject."""
    found = [] if domain.isPersistent() else ["is not stored on its host, which forgets it when it stops"]
    return found + ["has snapshots"] * (domain.snapshotNum() > 0)


def overlays(pool: StoragePool, machine: UUID) -> list[str]:
    """The files beside a machine's disk that show it: to write to the disk would spoil them."""
    pool.refresh()
    beside = [volume for volume in pool.volumes() if volume.machine == machine]
    ours = {pool.path(volume.name) for volume in beside if volume.is_ours}
    others = [volume.name for volume in beside if not volume.is_ours]
    return [f"has a disk over its disk: {name}" for name in others if pool.backing_path(name) in ours]
