"""The hypervisor that libvirt drives: KVM, plain QEMU, and libvirt's own ``test:///``.

Everything goes through libvirt's API, files included, so the host may be
another machine.  Nothing is kept here between two calls but the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

import libvirt

from . import (
    domain_xml,
    libvirt_disks,
    libvirt_domains,
    libvirt_events,
    libvirt_guest,
    libvirt_host,
    libvirt_images,
    libvirt_observation,
    storage_names,
)
from .base import Guest, HostFacts, Image, Machine, MachineEvent, MachineSpec, Power, Usage, Volume
from .libvirt_connection import Connection, LibvirtConnection
from .libvirt_domains import find, get
from .libvirt_errors import is_about_traffic_control
from .libvirt_storage import StoragePool
from .seed import seed_iso

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

SAMPLE_S = 20  # a hung QEMU holds up the whole sample, and is passed over in the next
QUICK_S = 40  # longer than libvirt itself waits (30 s) for a job on the same domain to end
SLOW_S = 180  # the first question to a fresh libvirtd: it tries every QEMU first
COPY_S = 1800


def _on_host(
    limit_s: float,
) -> Callable[
    [Callable[Concatenate[LibvirtHypervisor, Connection, P], R]],
    Callable[Concatenate[LibvirtHypervisor, P], R],
]:
    """The method is handed the open connection; its callers get a time limit and our errors."""

    def decorate(
        body: Callable[Concatenate[LibvirtHypervisor, Connection, P], R],
    ) -> Callable[Concatenate[LibvirtHypervisor, P], R]:
        @wraps(body)
        def method(self: LibvirtHypervisor, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return self._connection.call(limit_s, lambda host: body(self, host, *args, **kwargs))

        return method

    return decorate


class LibvirtHypervisor:
    """One libvirtd.  Keeps the promises of ``base.Hypervisor``; threads may share it."""

    def __init__(self, uri: str, *, domain_type: str, pool: str, networks: Sequence[str] = ()) -> None:
        self.uri = uri
        self._connection = LibvirtConnection(uri)
        self._domain_type = domain_type
        self._pool = pool
        self._networks = tuple(networks)
        self._limits_speed = True  # until the host shows that its kernel cannot

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    @_on_host(SLOW_S)
    def facts(self, host: Connection) -> HostFacts:
        return libvirt_host.facts(host, self._pool, self._networks)

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
    def create_disk(self, host: Connection, spec: MachineSpec) -> None:
        libvirt_disks.create_disk(StoragePool(host, self._pool), spec, is_new=find(host, spec.uuid) is None)

    @_on_host(QUICK_S)
    def grow_disk(self, host: Connection, spec: MachineSpec) -> None:
        libvirt_disks.grow_disk(StoragePool(host, self._pool), spec)

    @_on_host(QUICK_S)
    def write_seed(self, host: Connection, spec: MachineSpec) -> None:
        if self._domain_type == "test":
            return  # libvirt's test driver takes no files (no virStorageVolUpload); its machines read none
        pool, name, iso = StoragePool(host, self._pool), storage_names.seed_volume(spec.uuid), seed_iso(spec)
        pool.remove(name)
        pool.upload(pool.create(name, len(iso)), [iso], len(iso))

    @_on_host(QUICK_S)
    def define(self, host: Connection, spec: MachineSpec) -> None:
        pool = StoragePool(host, self._pool)
        log = storage_names.console_volume(spec.uuid)
        # QEMU would make this file itself, but then libvirt would not know it and could not delete it.
        pool.ensure(log)
        paths = domain_xml.Paths(
            disk=pool.path(storage_names.disk_volume(spec.uuid)),
            seed=pool.path(storage_names.seed_volume(spec.uuid)),
            console_log=pool.path(log),
        )
        xml = domain_xml.domain_xml(
            spec, domain_type=self._domain_type, paths=paths, limit_speed=self._limits_speed
        )
        host.defineXML(xml)
        logger.info("defined machine %s", spec.uuid)

    @_on_host(SLOW_S)
    def start(self, host: Connection, machine: UUID) -> None:
        domain = get(host, machine)
        try:
            libvirt_domains.start(host, domain)
        except libvirt.libvirtError as error:
            if not is_about_traffic_control(error):
                raise
            logger.warning("%s cannot limit the speed of a network card: %s", self.uri, error)
            # Such a kernel has no other way: a server without its limit, then, rather than no server.
            self._limits_speed = False
            libvirt_domains.remove_speed_limits(host, domain)
            libvirt_domains.start(host, domain)

    @_on_host(QUICK_S)
    def shut_down(self, host: Connection, machine: UUID) -> None:
        libvirt_domains.shut_down(get(host, machine))

    @_on_host(QUICK_S)
    def power_off(self, host: Connection, machine: UUID) -> None:
        libvirt_domains.power_off(get(host, machine))

    @_on_host(QUICK_S)
    def delete(self, host: Connection, machine: UUID) -> None:
        if domain := find(host, machine):
            libvirt_domains.remove(domain)
        pool = StoragePool(host, self._pool)
        pool.refresh()  # virtlogd may have made more logs (.log.0), of which libvirt does not know
        for volume in pool.ours():
            if volume.machine == machine:
                pool.remove(volume.name)

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
        return libvirt_events.lifecycle_events(self._connection, QUICK_S, patience_s)

    @_on_host(QUICK_S)
    def machines(self, host: Connection) -> list[Machine]:
        return libvirt_observation.machines(host)

    @_on_host(SAMPLE_S)
    def usage(self, host: Connection, machines: list[UUID]) -> Mapping[UUID, Usage]:
        return libvirt_observation.usage(host, machines)

    @_on_host(QUICK_S)
    def guest(self, host: Connection, machine: UUID) -> Guest | None:
        return libvirt_guest.guest(get(host, machine))

    @_on_host(QUICK_S)
    def console_log(self, host: Connection, machine: UUID, last_bytes: int = 65536) -> bytes:
        pool = StoragePool(host, self._pool)
        volume = pool.find(storage_names.console_volume(machine))
        return pool.tail(volume, last_bytes) if volume else b""

    @_on_host(QUICK_S)
    def volumes(self, host: Connection) -> list[Volume]:
        pool = StoragePool(host, self._pool)
        pool.refresh()
        return pool.ours()
