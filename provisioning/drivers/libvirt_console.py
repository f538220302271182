"""The logs of machines' serial consoles: what a guest writes, in a folder that libvirt never looks into.

libvirt opens every file of a storage pool when it reads the folder anew, and believes a file that begins
like a disk image.  A guest that wrote such a beginning to its console could take its host's pool down, or
have libvirt open another file.  So the logs lie in a folder of their own inside the pool's, into which
libvirt does not descend; its log daemon, virtlogd, writes them and keeps them small.

A remote host offers no calls for such files.  Two of its calls for machines do the work, on a machine that
is defined for a moment and never started: its "disk" is a log to be read, its "firmware variables" are a
log to be removed.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import libvirt

from .base import HostBusy
from .libvirt_errors import is_about_the_host
from .libvirt_storage import StoragePool
from .storage_names import CONSOLE_FOLDER, console_log

# The machine around the file is gone already, or about to go.
_SOMEBODY_IS_QUICKER = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_FAILED}
_AT_ONCE = 1024 * 1024  # libvirt carries no more than 4 MiB in one answer


def path(pool: StoragePool, machine: UUID) -> str:
    return pool.path(console_log(machine))


def ensure_folder(pool: StoragePool) -> None:
    pool.ensure_folder(CONSOLE_FOLDER)


def read_end(connection: Any, log: str, last_bytes: int) -> bytes:
    """The end of a log.  Begins in the file that virtlogd laid aside last, if the log itself is too short."""
    end = _read_end(connection, log, last_bytes)
    if len(end) < last_bytes:
        end = _read_end(connection, f"{log}.0", last_bytes - len(end)) + end
    return end


def remove(connection: Any, log: str) -> None:
    """Remove a log, and what virtlogd laid aside of it: ``.0``, ``.1`` and so on.  Gone already is done."""
    following = (f"{log}.{number}" for number in count())
    file, after = log, next(following)
    while _remove(connection, file, after):
        file, after = after, next(following)


def _read_end(connection: Any, file: str, last_bytes: int) -> bytes:
    with _reader(connection, file) as helper:
        length = _length(helper, file)
        parts = []
        for offset in range(max(0, length - last_bytes), length, _AT_ONCE):
            parts.append(helper.blockPeek(file, offset, min(_AT_ONCE, length - offset)))
        return b"".join(parts)


def _remove(connection: Any, file: str, after: str) -> bool:
    """Remove the file, and say whether there is the one that comes after it."""
    try:
        helper = _define(connection, "remove", file, after)
        is_followed = _length(helper, after) > 0
        helper.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _SOMEBODY_IS_QUICKER:
            raise
        return True
    return is_followed


def _length(helper: Any, file: str) -> int:
    """0 for a file that is not there: libvirt's code for that is one for any error of the system."""
    try:
        length: int = helper.blockInfo(file)[2]
    except libvirt.libvirtError as error:
        if is_about_the_host(error) or error.get_error_code() != libvirt.VIR_ERR_SYSTEM_ERROR:
            raise
        return 0
    return length


@contextmanager
def _reader(connection: Any, file: str) -> Iterator[Any]:
    """Raises HostBusy when somebody else reads this file just now."""
    helper = _define(connection, "read", file)
    try:
        yield helper
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise HostBusy(f"somebody else reads {file}") from error
        raise
    finally:
        with suppress(libvirt.libvirtError):
            helper.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


def _define(connection: Any, purpose: str, *files: str) -> Any:
    """A machine around some files.  Its name is the same each time: a crash leaves one, until the next."""
    return connection.defineXML(_helper_xml(uuid5(NAMESPACE_URL, f"{purpose} {files[0]}"), files))


def _helper_xml(uuid: UUID, files: Sequence[str]) -> str:
    domain = ET.Element("domain", type="qemu")
    ET.SubElement(domain, "name").text = f"vps-console-{uuid}"
    ET.SubElement(domain, "uuid").text = str(uuid)
    ET.SubElement(domain, "memory", unit="MiB").text = "1"
    os = ET.SubElement(domain, "os")
    ET.SubElement(os, "type", arch="x86_64", machine="q35").text = "hvm"
    ET.SubElement(os, "loader", readonly="yes", type="pflash").text = "/never-started"
    ET.SubElement(os, "nvram").text = files[0]
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    devices = ET.SubElement(domain, "devices")
    for file, target in zip(files, ("vda", "vdb"), strict=False):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type="raw")  # else libvirt looks what it is
        ET.SubElement(disk, "source", file=file)
        ET.SubElement(disk, "target", dev=target, bus="virtio")
        ET.SubElement(disk, "readonly")
    return ET.tostring(domain, encoding="unicode")
