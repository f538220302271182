"""The driver for libvirt: KVM, plain QEMU, and libvirt's own ``test:///``.

Everything goes through libvirt's API, files included, so the host may be
another machine.  Nothing is kept here between two calls but the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

import libvirt

from backups.reading import Data
from backups.side_by_side import one_ahead

from . import (
    domain_xml,
    libvirt_backups,
    libvirt_changes,
    libvirt_console,
    libvirt_disks,
    libvirt_domains,
    libvirt_events,
    libvirt_guest,
    libvirt_host,
    libvirt_images,
    libvirt_networks,
    libvirt_observation,
    qcow2_reading,
    storage_names,
)
from .base import (
    BackupBegun,
    BackupProgress,
    DiskContent,
    Guest,
    HostFacts,
    Image,
    ImageFile,
    Machine,
    MachineDelivered,
    MachineEvent,
    MachineSpec,
    Power,
    Room,
    Usage,
    Volume,
)
from .libvirt_connection import Connection, LibvirtConnection
from .libvirt_domains import find, get
from .libvirt_errors import is_about_traffic_control
from .libvirt_storage import StoragePool
from .qcow2_writing import Qcow2File
from .seed import seed_iso

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

SAMPLE_S = 20  # a hung QEMU holds up the whole sample, and is passed over in the next
PRESS_S = 5  # a hung QEMU never answers; the power is cut in time all the same
QUICK_S = 40  # longer than libvirt itself waits (30 s) for a job on the same domain to end
SLOW_S = 180  # the first question to a fresh libvirtd: it tries every QEMU first
COPY_S = 1800
PART_BYTES = 8 * 2**20  # of a disk, in one call


def _on_host(
    limit_s: float,
) -> Callable[
    [Callable[Concatenate[LibvirtDriver, Connection, P], R]],
    Callable[Concatenate[LibvirtDriver, P], R],
]:
    """The method is handed the open connection; its callers get a time limit and our errors."""

    def decorate(
        body: Callable[Concatenate[LibvirtDriver, Connection, P], R],
    ) -> Callable[Concatenate[LibvirtDriver, P], R]:
        @wraps(body)
        def method(self: LibvirtDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return self._connection.call(limit_s, lambda host: body(self, host, *args, **kwargs))

        return method

    return decorate


class LibvirtDriver:
    """One libvirtd.  Keeps the promises of ``base.Driver``; threads may share it."""

    def __init__(
        self,
        uri: str,
        *,
        domain_type: str,
        pool: str,
        networks: Sequence[str] = (),
        host_uuid: UUID | None = None,
    ) -> None:
        """With a ``host_uuid`` every call raises WrongHost while another host answers at this URI."""
        self.uri = uri
        self._connection = LibvirtConnection(uri, host_uuid)
        self._domain_type = domain_type
        self._pool = pool
        self._networks = tuple(networks)
        # libvirt's test driver takes no files (no virStorageVolUpload); its machines read and write none.
        self._has_files = domain_type != "test"
        self._limits_speed = True  # until the host shows that its kernel cannot

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    @_on_host(SLOW_S)
    def host_uuid(self, host: Connection) -> UUID | None:
        return libvirt_host.host_uuid(host)

    @_on_host(SLOW_S)
    def facts(self, host: Connection) -> HostFacts:
        return libvirt_host.facts(host, self._pool, self._networks)

    @_on_host(QUICK_S)
    def room(self, host: Connection) -> Room:
        return StoragePool(host, self._pool).room()

    @_on_host(QUICK_S)
    def check_ready(self, host: Connection) -> None:
        libvirt_host.check_ready(host, self._pool, self._networks)

    @_on_host(SLOW_S)
    def prepare(self, host: Connection) -> None:
        libvirt_host.prepare(host, self._pool, self._networks)

    @_on_host(QUICK_S)
    def has_image(self, host: Connection, image: Image) -> bool:
        return libvirt_images.has_image(StoragePool(host, self._pool), image)

    @_on_host(COPY_S)
    def put_image(self, host: Connection, image: Image, source: Path) -> None:
        libvirt_images.put_image(StoragePool(host, self._pool), image, source)

    @_on_host(QUICK_S)
    def images(self, host: Connection) -> list[ImageFile]:
        return libvirt_images.images(StoragePool(host, self._pool))

    @_on_host(QUICK_S)
    def retire_image(self, host: Connection, image: Image) -> None:
        libvirt_images.retire_image(StoragePool(host, self._pool), image)

    @_on_host(QUICK_S)
    def remove_image(self, host: Connection, image: Image) -> None:
        libvirt_images.remove_image(StoragePool(host, self._pool), image)

    @_on_host(QUICK_S)
    def create_disk(self, host: Connection, spec: MachineSpec) -> None:
        libvirt_disks.create_disk(StoragePool(host, self._pool), spec, _definitions(host, spec.uuid))

    @_on_host(QUICK_S)
    def has_disk(self, host: Connection, machine: UUID, number: int) -> bool:
        disk = storage_names.disk_volume(machine, number)
        return libvirt_disks.is_in_use(StoragePool(host, self._pool), disk, _definitions(host, machine))

    @_on_host(QUICK_S)
    def remove_spare_disks(self, host: Connection, machine: UUID, *, keep: int) -> None:
        pool = StoragePool(host, self._pool)
        libvirt_disks.remove_spare_disks(pool, machine, keep, _definitions(host, machine))

    @_on_host(QUICK_S)
    def grow_disk(self, host: Connection, spec: MachineSpec) -> None:
        libvirt_disks.grow_disk(StoragePool(host, self._pool), spec)

    @_on_host(QUICK_S)
    def write_seed(self, host: Connection, spec: MachineSpec) -> None:
        if not self._has_files:
            return
        StoragePool(host, self._pool).write(storage_names.seed_volume(spec.uuid), seed_iso(spec))

    @_on_host(QUICK_S)
    def define(self, host: Connection, spec: MachineSpec) -> None:
        pool, known = StoragePool(host, self._pool), find(host, spec.uuid)
        libvirt_changes.require_unchanged(pool, spec.uuid, known)
        if known is not None:
            libvirt_disks.require_disk(pool, spec, libvirt_changes.definitions_of(known))
        if self._has_files:
            libvirt_console.ensure_folder(pool)
        paths = domain_xml.Paths(
            disk=pool.path(storage_names.disk_volume(spec.uuid, spec.disk_number)),
            seed=pool.path(storage_names.seed_volume(spec.uuid)),
            console_log=libvirt_console.path(pool, spec.uuid),
        )
        xml = domain_xml.domain_xml(
            spec,
            domain_type=self._domain_type,
            paths=paths,
            limit_speed=self._limits_speed,
            is_delivered=known is not None and libvirt_domains.is_delivered(known),
        )
        host.defineXML(xml)
        logger.info("defined machine %s", spec.uuid)

    @_on_host(QUICK_S)
    def require_unchanged(self, host: Connection, machine: UUID) -> None:
        libvirt_changes.require_unchanged(StoragePool(host, self._pool), machine, find(host, machine))

    @_on_host(SLOW_S)
    def start(self, host: Connection, machine: UUID) -> None:
        domain = get(host, machine)
        if not domain.isActive():
            libvirt_changes.require_unchanged(StoragePool(host, self._pool), machine, domain)
        try:
            libvirt_domains.start(host, domain)
        except libvirt.libvirtError as error:
            if not is_about_traffic_control(error):
                raise
            logger.warning("%s cannot limit the speed of a network card: %s", self.uri, error)
            # This kernel cannot limit the speed: a server without a limit is better than no server.
            self._limits_speed = False
            libvirt_domains.remove_speed_limits(host, domain)
            libvirt_domains.start(host, domain)

    @_on_host(QUICK_S)
    def resume(self, host: Connection, machine: UUID) -> None:
        libvirt_domains.resume(get(host, machine))

    @_on_host(PRESS_S)
    def shut_down(self, host: Connection, machine: UUID) -> None:
        libvirt_domains.shut_down(get(host, machine))

    @_on_host(QUICK_S)
    def power_off(self, host: Connection, machine: UUID) -> None:
        libvirt_domains.power_off(get(host, machine))

    @_on_host(QUICK_S)
    def mark_delivered(self, host: Connection, machine: UUID) -> None:
        libvirt_domains.mark_delivered(get(host, machine))

    @_on_host(QUICK_S)
    def is_delivered(self, host: Connection, machine: UUID) -> bool:
        domain = find(host, machine)
        return domain is not None and libvirt_domains.is_delivered(domain)

    @_on_host(QUICK_S)
    def delete(self, host: Connection, machine: UUID, *, unless_delivered: bool = False) -> None:
        if domain := find(host, machine):
            if unless_delivered and libvirt_domains.is_delivered(domain):
                raise MachineDelivered(f"{self.uri}: {domain.name()} was delivered and is not removed")
            libvirt_domains.remove(domain)
        pool = StoragePool(host, self._pool)
        pool.refresh()  # a libvirtd that was killed may have left a file of which it does not know
        for volume in pool.volumes():
            if volume.machine == machine and volume.is_ours:
                pool.remove(volume.name)
        if self._has_files:
            libvirt_console.remove(host, libvirt_console.path(pool, machine))

    @_on_host(QUICK_S)
    def off_network(self, host: Connection) -> list[UUID]:
        return libvirt_networks.off_network(host, self._networks)

    @_on_host(QUICK_S)
    def reattach(self, host: Connection, machine: UUID) -> None:
        domain = get(host, machine)
        if domain.isActive():
            libvirt_networks.reattach(domain, libvirt_networks.ports(host, self._networks))

    @_on_host(QUICK_S)
    def rename(self, host: Connection, machine: UUID, name: str) -> None:
        libvirt_domains.rename(get(host, machine), name)

    @_on_host(QUICK_S)
    def power(self, host: Connection, machine: UUID) -> Power:
        return libvirt_observation.power_of(*get(host, machine).state())

    @_on_host(QUICK_S)
    def powers(self, host: Connection) -> Mapping[UUID, Power]:
        return libvirt_observation.powers(host)

    def lifecycle_events(self, patience_s: float) -> Generator[MachineEvent | None, None, None]:
        return libvirt_events.lifecycle_events(self._connection.another(), QUICK_S, patience_s)

    @_on_host(SLOW_S)
    def machines(self, host: Connection) -> list[Machine]:
        return libvirt_observation.machines(host, StoragePool(host, self._pool), self._networks)

    @_on_host(SAMPLE_S)
    def usage(self, host: Connection, machines: list[UUID]) -> Mapping[UUID, Usage]:
        return libvirt_observation.usage(host, machines)

    @_on_host(QUICK_S)
    def guest(self, host: Connection, machine: UUID) -> Guest | None:
        return libvirt_guest.guest(get(host, machine))

    @_on_host(QUICK_S)
    def console_log(self, host: Connection, machine: UUID, last_bytes: int = 65536) -> bytes:
        if not self._has_files:
            return b""
        log = libvirt_console.path(StoragePool(host, self._pool), machine)
        return libvirt_console.read_end(host, log, last_bytes)

    @_on_host(QUICK_S)
    def begin_backup(
        self,
        host: Connection,
        machine: UUID,
        backup: UUID,
        *,
        disk_number: int,
        parents: Sequence[UUID],
        freeze: bool,
        leave_bytes: int = 0,
    ) -> BackupBegun:
        return libvirt_backups.begin(
            StoragePool(host, self._pool),
            get(host, machine),
            machine,
            backup,
            disk_number=disk_number,
            parents=parents,
            freeze=freeze,
            leave_bytes=leave_bytes,
        )

    @_on_host(QUICK_S)
    def backup_progress(self, host: Connection, machine: UUID, backup: UUID) -> BackupProgress:
        return libvirt_backups.progress(StoragePool(host, self._pool), get(host, machine), machine, backup)

    @_on_host(QUICK_S)
    def end_backup(self, host: Connection, machine: UUID, *, keep: UUID | None) -> None:
        libvirt_backups.end(StoragePool(host, self._pool), find(host, machine), machine, keep=keep)

    @_on_host(SLOW_S)
    def frozen(self, host: Connection, machines: list[UUID]) -> list[UUID]:
        return [machine for machine in machines if libvirt_backups.says_frozen(find(host, machine))]

    def read_backup(self, machine: UUID, backup: UUID) -> DiskContent:
        return self._content([storage_names.scratch_volume(machine, backup)])

    def read_disk(self, machine: UUID, number: int) -> DiskContent:
        return self._content(self._chain(storage_names.disk_volume(machine, number)))

    def write_disk(
        self,
        spec: MachineSpec,
        spans: Sequence[tuple[int, int]],
        content: Iterable[Data],
        *,
        require_ours: Callable[[], None],
        leave_bytes: int = 0,
    ) -> None:
        disk = storage_names.disk_volume(spec.uuid, spec.disk_number)
        file = Qcow2File(spec.disk_gib * 2**30, spans)
        if not self._make_place(spec.uuid, disk, file.size_bytes, leave_bytes):
            return
        offset = 0
        for part in one_ahead(_gathered(file.chunks(content), PART_BYTES)):
            require_ours()
            self._write_part(spec.uuid, disk, offset, part)
            offset += sum(map(len, part))
        self._refresh()  # libvirt takes it for raw until then
        logger.info("made disk %s", disk)

    def _content(self, names: Sequence[str]) -> DiskContent:
        self._refresh()  # libvirt itself wrote the file of a backup, and does not know it for a volume yet
        chain = [partial(self._read_part, name) for name in names]
        return DiskContent(qcow2_reading.size_of(chain[0]), qcow2_reading.extents(chain))

    @_on_host(QUICK_S)
    def _chain(self, host: Connection, disk: str) -> list[str]:
        return [disk, *StoragePool(host, self._pool).below(disk)]

    @_on_host(QUICK_S)
    def _refresh(self, host: Connection) -> None:
        StoragePool(host, self._pool).refresh()

    @_on_host(QUICK_S)
    def _read_part(self, host: Connection, name: str, offset: int, length: int) -> bytearray:
        return StoragePool(host, self._pool).read(name, offset, length)

    @_on_host(QUICK_S)
    def _write_part(
        self, host: Connection, machine: UUID, disk: str, offset: int, chunks: Sequence[bytes]
    ) -> None:
        pool = StoragePool(host, self._pool)
        libvirt_disks.require_unused(pool, disk, _definitions(host, machine))
        pool.write_part(disk, offset, chunks)

    @_on_host(QUICK_S)
    def _make_place(
        self, host: Connection, machine: UUID, disk: str, size_bytes: int, leave_bytes: int
    ) -> bool:
        pool = StoragePool(host, self._pool)
        return libvirt_disks.make_place(
            pool, disk, size_bytes, _definitions(host, machine), leave_bytes=leave_bytes
        )

    @_on_host(QUICK_S)
    def volumes(self, host: Connection) -> list[Volume]:
        pool = StoragePool(host, self._pool)
        pool.refresh()
        return pool.volumes()


def _gathered(chunks: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """The same chunks in parts of at least this size; the last may be smaller."""
    part: list[bytes] = []
    for chunk in chunks:
        part.append(chunk)
        if sum(map(len, part)) >= size:
            yield part
            part = []
    if part:
        yield part


def _definitions(host: Connection, machine: UUID) -> list[str]:
    """The definitions of a machine, as ``definitions_of`` reads them; none if the host does not know it."""
    domain = find(host, machine)
    return [] if domain is None else libvirt_changes.definitions_of(domain)
