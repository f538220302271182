"""Files in a host's storage pool, through libvirt alone: the host may be far away."""

import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import PurePosixPath
from time import monotonic, sleep
from typing import Any

import libvirt

from core.one_by_one import read_each

from . import storage_names
from .base import HypervisorError, PoolFull, Room, Volume, VolumeMissing
from .libvirt_errors import is_fatal, is_pool_busy

logger = logging.getLogger(__name__)

CHUNK = 128 * 1024  # libvirt carries no more than 256 KiB in one message
_PATIENCE_S = 10


class StoragePool:
    """One storage pool on an open connection."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._pool = connection.storagePoolLookupByName(name)

    def path(self, name: str) -> str:
        """Where on the host the volume of this name is, or would be."""
        return f"{self.folder}/{name}"

    @cached_property
    def folder(self) -> str | None:
        return ET.fromstring(self._pool.XMLDesc()).findtext("target/path")  # noqa: S314 (libvirt's own words)

    def find(self, name: str) -> Any | None:
        try:
            return self._pool.storageVolLookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return None
            raise

    def backing_path(self, name: str) -> str | None:
        """The file that shows through this volume; None if there is none."""
        volume = ET.fromstring(self._pool.storageVolLookupByName(name).XMLDesc())  # noqa: S314
        return volume.findtext("backingStore/path")

    def backed_by(self, name: str) -> list[str]:
        """The volumes, ours and others, through which the volume of this name shows."""
        found = read_each("volume", self._pool.listAllVolumes(), _backing_of, concerns_all=is_fatal)
        return [clone for clone, backing in found if backing == name]

    def volumes(self) -> list[Volume]:
        """The volumes that are ours or named after ours, as libvirt knows them, without unreadable ones."""
        names = read_each(
            "volume", self._pool.listAllVolumes(), lambda volume: volume.name(), concerns_all=is_fatal
        )
        return [ours for name in names if (ours := storage_names.parse(name))]

    def create(self, name: str, size_bytes: int, *, is_allocated: bool = False) -> Any:
        """A new raw volume, which takes all its room at once or none yet.  libvirtError if there is none."""
        return self._make(_volume(name, size_bytes, "raw", size_bytes if is_allocated else 0))

    def clone(self, image: str, name: str, size_bytes: int) -> Any:
        """A new qcow2 volume that shows the image until it is written to.

        The format is qcow2 version 3 (libvirt's compat 1.1; its default is older): version 2 cannot free a
        cluster over an image, and has no bitmaps for backups.
        """
        volume = _volume(name, size_bytes, "qcow2")
        target = volume.find("target")
        assert target is not None  # noqa: S101  (made above)
        ET.SubElement(target, "compat").text = "1.1"
        backing = ET.SubElement(volume, "backingStore")
        ET.SubElement(backing, "path").text = self.path(image)
        ET.SubElement(backing, "format", type="qcow2")
        return self._make(volume)

    def _make(self, volume: ET.Element) -> Any:
        return self._pool.createXML(ET.tostring(volume, encoding="unicode"))

    def ensure_folder(self, name: str) -> None:
        """Make a folder inside the pool's, unless it is there.  libvirt lists it and never looks inside."""
        if self.find(name) is None:
            self.refresh()
        if self.find(name) is not None:
            return
        folder = _volume(name, 0, "dir")
        target = folder.find("target")
        assert target is not None  # noqa: S101  (made above)
        ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0711"
        try:
            self._make(folder)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_STORAGE_VOL_EXIST:  # somebody was quicker
                raise

    def write(self, name: str, content: bytes) -> None:
        """Make a raw volume with this content, in place of one of that name.

        Raises PoolFull.  What arrived is read back: libvirt does not tell of a disk that was full.
        """
        self.remove(name)
        volume = self.create(name, len(content))
        self.upload(volume, [content], len(content))
        if b"".join(self.download(volume)) != content:
            self.remove(name)
            self.require_room(len(content))
            raise HypervisorError(f"The host's copy of {name} is not what was sent.")

    def read(self, name: str, offset: int, length: int) -> bytearray:
        """So many bytes of the volume, or fewer at its end.  Raises VolumeMissing."""
        volume = self.find(name)
        if volume is None:
            raise VolumeMissing(f"There is no volume {name}.")
        part, got = bytearray(length), 0
        for chunk in self.download(volume, offset=offset, size_bytes=length):
            part[got : got + len(chunk)] = chunk
            got += len(chunk)
        del part[got:]
        return part

    def write_part(self, name: str, offset: int, chunks: Sequence[bytes]) -> None:
        """Write over a part of the volume.  Raises VolumeMissing."""
        volume = self.find(name)
        if volume is None:
            raise VolumeMissing(f"There is no volume {name}.")
        self.upload(volume, chunks, sum(map(len, chunks)), offset=offset)

    def remove(self, name: str) -> None:
        """Delete the volume.  Gone already is done."""
        try:
            self._pool.storageVolLookupByName(name).delete()
            logger.info("deleted volume %s", name)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise

    def size_bytes(self, name: str) -> int:
        """The size of the disk that the volume shows to a guest."""
        _, capacity, _ = self._pool.storageVolLookupByName(name).info()
        return int(capacity)

    def shown_bytes(self, name: str) -> int:
        """The most bytes that a copy of the disk takes that this volume and those below it show."""
        self.refresh()
        _, capacity, taken = self._pool.storageVolLookupByName(name).info()
        below = self.below(name)
        return int(min(capacity, taken + sum(self._pool.storageVolLookupByName(n).info()[2] for n in below)))

    def below(self, name: str) -> list[str]:
        """The volumes that show through this one, the nearest first.

        Raises HypervisorError if one of them is not in this pool.
        """
        found: list[str] = []
        while path := self.backing_path(found[-1] if found else name):
            place, _, below = path.rpartition("/")
            if place != self.folder or below in found:
                raise HypervisorError(f"{name} is based on {path}, which is not in the pool")
            found.append(below)
        return found

    def grow(self, name: str, size_bytes: int) -> None:
        """Make the volume show this much to a guest, if it shows less."""
        if self.size_bytes(name) < size_bytes:
            self._pool.storageVolLookupByName(name).resize(size_bytes)

    def room(self) -> Room:
        """How full it is now; or, while a volume is being made, when it was last read."""
        try:
            self._pool.refresh()
        except libvirt.libvirtError as error:
            if not is_pool_busy(error):
                raise
        _, capacity, _, available = self._pool.info()
        return Room(bytes=capacity, free_bytes=available)

    def require_room(self, size_bytes: int) -> None:
        """Raises PoolFull when so much cannot be written now."""
        if (room := self.room()).free_bytes < size_bytes:
            raise PoolFull(f"{size_bytes} bytes do not fit into the storage pool: {room}")

    def refresh(self) -> None:
        """Read the folder anew.

        libvirt refuses while a volume is being made, which takes some 20 ms: a gap will come.
        """
        give_up_at = monotonic() + _PATIENCE_S
        while True:
            try:
                self._pool.refresh()
                return
            except libvirt.libvirtError as error:
                if not is_pool_busy(error) or monotonic() > give_up_at:
                    raise
            sleep(0.01)

    def upload(self, volume: Any, chunks: Iterable[bytes], size_bytes: int, *, offset: int = 0) -> None:
        """Write the chunks over the volume from this offset on."""
        stream = self._connection.newStream()
        volume.upload(stream, offset, size_bytes)
        with _finished(stream):
            for chunk in chunks:
                _send(stream, chunk)

    def download(self, volume: Any, *, offset: int = 0, size_bytes: int = 0) -> Iterator[bytes]:
        """What is in the volume from this offset on; of it so many bytes, or with 0 all."""
        stream = self._connection.newStream()
        volume.download(stream, offset, size_bytes)
        with _finished(stream):
            while chunk := stream.recv(CHUNK):
                yield chunk


@contextmanager
def _finished(stream: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(libvirt.libvirtError):  # it ends by itself when the stream is what broke
            stream.abort()
        raise
    stream.finish()


def _send(stream: Any, data: bytes) -> None:
    sent = 0
    while sent < len(data):
        sent += stream.send(data[sent : sent + CHUNK])


def _backing_of(volume: Any) -> tuple[str, str | None]:
    path = ET.fromstring(volume.XMLDesc()).findtext("backingStore/path")  # noqa: S314 (libvirt's own words)
    return volume.name(), path and PurePosixPath(path).name


def _volume(name: str, size_bytes: int, format: str, allocated_bytes: int = 0) -> ET.Element:
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(size_bytes)
    ET.SubElement(volume, "allocation", unit="bytes").text = str(allocated_bytes)
    ET.SubElement(ET.SubElement(volume, "target"), "format", type=format)
    return volume
