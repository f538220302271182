"""What our files in a host's storage pool are called, and how libvirt is told of them.

The names carry all the meaning: after a crash they are what is left to know a file by.
"""

from uuid import UUID

from .base import Image, Volume

_IMAGE = "image-"
_UUID_LENGTH = 36


def image_volume(image: Image) -> str:
    return f"{_IMAGE}{image.sha256}.qcow2"


def image_marker(image: Image) -> str:
    """An empty volume beside the image's: it is there when, and only when, the image is whole."""
    return f"{_IMAGE}{image.sha256}.ok"


def disk_volume(machine: UUID) -> str:
    return f"{machine}.qcow2"


def seed_volume(machine: UUID) -> str:
    return f"{machine}-seed.iso"


def console_volume(machine: UUID) -> str:
    return f"{machine}-console.log"


def parse(name: str) -> Volume | None:
    """Whose file this is; None: not one of ours."""
    if name.startswith(_IMAGE):
        return Volume(name=name, machine=None)
    try:
        machine = UUID(name[:_UUID_LENGTH])
    except ValueError:
        return None
    ours = str(machine) == name[:_UUID_LENGTH] and name[_UUID_LENGTH:].startswith((".", "-"))
    return Volume(name=name, machine=machine) if ours else None
