"""What our files in a host's storage pool are called, and how libvirt is told of them.

The names carry all the meaning: after a crash they are what is left to know a file by.  Only a whole name is
ours; a file that is called after one of ours, such as a copy that an operator made beside a disk, is not.
"""

import re
from uuid import UUID

from .base import Image, Volume

CONSOLE_FOLDER = "console"

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_LATER = "(?:[2-9]|[1-9][0-9]{1,8})"  # the numbers of disks after the first
_OURS = re.compile(
    rf"(?P<machine>{_UUID})(?:(?P<disk>(?:\.{_LATER})?\.qcow2)|-seed\.iso|(?P<scratch>-backup-{_UUID}\.qcow2))"
    r"|image-[0-9a-f]{64}\.(?:qcow2|ok)"
)
_IMAGE = re.compile(r"image-([0-9a-f]{64})\.qcow2")
_CALLED_AFTER_OURS = re.compile(rf"(?P<machine>{_UUID})[.-]|image-[0-9a-f]{{64}}\.")


def image_volume(image: Image) -> str:
    return f"image-{image.sha256}.qcow2"


def image_named(volume: str) -> Image | None:
    """The image that this volume is; None: it is something else."""
    found = _IMAGE.fullmatch(volume)
    return Image(sha256=found[1]) if found else None


def image_marker(image: Image) -> str:
    """An empty volume beside the image's: it is there when, and only when, the image is whole."""
    return f"image-{image.sha256}.ok"


def disk_volume(machine: UUID, number: int = 1) -> str:
    """A machine's first disk, or the one that a rebuild made in place of it."""
    return f"{machine}.qcow2" if number == 1 else f"{machine}.{number}.qcow2"


def is_disk(name: str) -> bool:
    found = _OURS.fullmatch(name)
    return found is not None and found["disk"] is not None


def seed_volume(machine: UUID) -> str:
    return f"{machine}-seed.iso"


def scratch_volume(machine: UUID, backup: UUID) -> str:
    """What a backup of a running machine is written into, until it is in the store."""
    return f"{machine}-backup-{backup}.qcow2"


def is_scratch(name: str) -> bool:
    found = _OURS.fullmatch(name)
    return found is not None and found["scratch"] is not None


def console_log(machine: UUID) -> str:
    """In the folder of the consoles, which is no volume of the pool: see libvirt_console."""
    return f"{CONSOLE_FOLDER}/{machine}.log"


def parse(name: str) -> Volume | None:
    """The volume of ours that a file name means; None for a name that is not like ours."""
    ours = _OURS.fullmatch(name)
    found = ours or _CALLED_AFTER_OURS.match(name)
    if found is None:
        return None
    machine = found["machine"]
    return Volume(name=name, machine=UUID(machine) if machine else None, is_ours=ours is not None)
