"""What the header of a qcow2 file says, and whether such a file may become a server's disk.

An image comes from outside.  Its header can name other files (a backing file, a
data file) that QEMU would open on the host and show to the guest: such an image
is refused, whoever brings it.  Its tables can be cut off or be garbage: such an image
would end the servers that are made from it, and can take the storage pool of a host
down with it.  The header is read here; the tables are ``qemu-img check``'s.
"""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .base import ImageInvalid

# docs/interop/qcow2.txt in QEMU's source: magic, version, backing_file_offset, backing_file_size,
# cluster_bits, size, crypt_method, and from version 3 on incompatible_features at byte 72.
_HEADER = struct.Struct(">4sIQIIQI36xQ")
MAGIC = b"QFI\xfb"
_DATA_FILE = 1 << 2
_KNOWN_FEATURES = 1 << 0 | 1 << 3 | 1 << 4  # dirty, compression type, extended L2 entries
_LARGEST = 64 * 2**40
# An image can be made so that it takes QEMU's tools for ever, or all memory, to read it.
_CHECK_S = 600
_LIMITS = ("prlimit", f"--cpu={_CHECK_S}", "--as=2147483648")
_ONLY_LEAKS = 3  # qemu-img's exit status: clusters that nothing uses.  They cost room, and harm nothing


@dataclass(frozen=True, kw_only=True)
class QcowHeader:
    """What we need to know of an image that may be used."""

    virtual_size_bytes: int


def inspect(path: Path) -> QcowHeader:
    """Read the header of the file and check its tables.  Raises ImageInvalid, and OSError."""
    with path.open("rb") as file:
        header = read_header(file)
    _check_tables(path)  # qemu-img opens only what names no other file
    return header


def read_header(file: BinaryIO) -> QcowHeader:
    """Read the header of the open file, from its beginning.  Raises ImageInvalid."""
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size or not start.startswith(MAGIC):
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


def _check_tables(path: Path) -> None:
    command = [*_LIMITS, "qemu-img", "check", "-q", "-f", "qcow2", str(path.absolute())]
    try:
        checked = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_CHECK_S)
    except subprocess.TimeoutExpired:
        raise ImageInvalid(f"qemu-img could not check the image within {_CHECK_S} seconds.") from None
    if checked.returncode not in {0, _ONLY_LEAKS}:
        words = " ".join((checked.stderr or checked.stdout).split()).replace(
            str(path.absolute()), "the image"
        )
        raise ImageInvalid(f"The image is damaged, says qemu-img: {words[:500]}")


def _check_features(features: int) -> None:
    if features & _DATA_FILE:
        raise ImageInvalid("The image names an external data file.")
    if features & ~_KNOWN_FEATURES:
        raise ImageInvalid(f"The image is corrupt or needs features that are not known: {features:#x}.")
