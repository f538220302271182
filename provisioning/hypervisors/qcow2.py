"""What the header of a qcow2 file says, and whether such a file may become a server's disk.

An image comes from outside.  Its header can name other files (a backing file, a
data file) that QEMU would open on the host and show to the guest: such an image
is refused, whoever brings it.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .base import ImageInvalid

# docs/interop/qcow2.txt in QEMU's source: magic, version, backing_file_offset, backing_file_size,
# cluster_bits, size, crypt_method, and from version 3 on incompatible_features at byte 72.
_HEADER = struct.Struct(">4sIQIIQI36xQ")
_MAGIC = b"QFI\xfb"
_DATA_FILE = 1 << 2
_KNOWN_FEATURES = 1 << 0 | 1 << 3 | 1 << 4  # dirty, compression type, extended L2 entries
_LARGEST = 64 * 2**40


@dataclass(frozen=True, kw_only=True)
class QcowHeader:
    """What we need to know of an image that may be used."""

    virtual_size_bytes: int


def inspect(path: Path) -> QcowHeader:
    """Read the header of the file.  Raises ImageInvalid."""
    with path.open("rb") as file:
        return read_header(file)


def read_header(file: BinaryIO) -> QcowHeader:
    """Read the header of the open file, from its beginning.  Raises ImageInvalid."""
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size or not start.startswith(_MAGIC):
        raise ImageInvalid("This is not a qcow2 file.")
    _, version, backing_file, _, _, size, encryption, features = _HEADER.unpack(start)
    if version not in (2, 3):
        raise ImageInvalid(f"qcow2 version {version} is not known.")
    if backing_file:
        raise ImageInvalid("The image names a backing file.")
    if encryption:
        raise ImageInvalid("The image is encrypted.")
    if version == 3:  # version 2 ends at byte 72: what follows is no part of its header
        _check_features(features)
    if not 0 < size <= _LARGEST:
        raise ImageInvalid(f"The image says that its disk is {size} bytes large.")
    return QcowHeader(virtual_size_bytes=size)


def _check_features(features: int) -> None:
    if features & _DATA_FILE:
        raise ImageInvalid("The image names an external data file.")
    if features & ~_KNOWN_FEATURES:
        raise ImageInvalid(f"The image is corrupt or needs features that are not known: {features:#x}.")
