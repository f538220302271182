"""A real host, and guests with no system inside: QEMU runs, nothing boots, a create takes a second."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import libvirt
import pytest
from django.utils import timezone

from deploy.local.guest import sha256
from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root
from inventory.models import Hypervisor
from inventory.pools import add_ip_pool
from provisioning import hypervisors
from provisioning.drivers import base
from provisioning.drivers.domain_xml import DELIVERED_NAMESPACE
from provisioning.engine import carry_out
from servers import services
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, ServerStatus
from tests.factories import AccountFactory, HypervisorFactory, LocationFactory, OsVersionFactory, PlanFactory
from tests.private_services import VAR
from tests.receiver import Receiver, receiving

PATIENCE = 60


@pytest.fixture(scope="session")
def empty_image() -> Path:
    """A valid image with nothing in it."""
    folder = VAR / "images"
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"], check=True)
    return image.rename(folder / f"{sha256(image)}.qcow2")


@pytest.fixture
def host(transactional_db: None, qemu_uri: str, empty_image: Path) -> Iterator[Hypervisor]:
    """The suite's libvirtd as the only host of us-west, with all that a create needs."""
    row = HypervisorFactory.create(uri=qemu_uri)
    for network, gateway in (("203.0.113.0/24", "203.0.113.1"), ("2001:db8:113::/120", "2001:db8:113::1")):
        add_ip_pool(
            location=row.location,
            network=ip_network(network),
            gateway=gateway,
            nameservers=[],
            reserved=set(),
        )
    PlanFactory.create(vcpus=1, memory_mib=128, disk_gib=1)
    OsVersionFactory.create(image__sha256=empty_image.stem)
    driver = hypervisors.bare_driver_for(row)
    driver.prepare()
    driver.put_image(base.Image(sha256=empty_image.stem), empty_image)
    clear(driver)
    yield row
    clear(driver)


SMALL_MIB = 48


@pytest.fixture(scope="module")
def small_libvirtd() -> Iterator[Libvirtd]:
    """A libvirtd whose pool is so small that one file fills it."""
    service = Libvirtd(VAR, "libvirt3", "198.51.100.1/24", "2001:db8:100::1/64")
    pool = service.folder / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        as_root("mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "tmpfs", str(pool)), check=True
    )
    try:
        service.start()
        yield service
    finally:
        service.stop(patience_s=0)
        subprocess.run(as_root("umount", "--lazy", str(pool)), check=True)


@pytest.fixture
def small(host: Hypervisor, small_libvirtd: Libvirtd, empty_image: Path) -> Iterator[Hypervisor]:
    """A host with a small pool, in a location of its own."""
    row = HypervisorFactory.create(uri=small_libvirtd.url, location=LocationFactory.create(code="us-east"))
    for network, gateway in (("198.51.100.0/24", "198.51.100.1"), ("2001:db8:100::/120", "2001:db8:100::1")):
        add_ip_pool(
            location=row.location,
            network=ip_network(network),
            gateway=gateway,
            nameservers=[],
            reserved=set(),
        )
    driver = hypervisors.bare_driver_for(row)
    driver.prepare()
    driver.put_image(base.Image(sha256=empty_image.stem), empty_image)
    clear(driver)
    yield row
    clear(driver)


@contextmanager
def full(libvirtd: Libvirtd) -> Iterator[None]:
    """Somebody's file takes all the room of its pool meanwhile."""
    ballast = libvirtd.folder / "pool" / "ballast"
    subprocess.run(as_root("dd", "if=/dev/zero", f"of={ballast}", "bs=1M"), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(as_root("rm", "-f", str(ballast)), check=True)


def clear(driver: base.Driver) -> None:
    """Remove every machine, and what a run that was killed left of one."""
    for uuid in {*driver.powers(), *(volume.machine for volume in driver.volumes() if volume.machine)}:
        driver.delete(uuid)


@pytest.fixture
def order(host: Hypervisor) -> Callable[..., Server]:
    """Order a server: its row and its create operation, not yet carried out."""

    def make(**changes: Any) -> Server:
        wanted = {
            "account": AccountFactory.create(),
            "name": "web-server-01",
            "plan": PlanFactory.create(),
            "os_version": OsVersionFactory.create(),
            "location": LocationFactory.create(),
        }
        return services.create_server(**(wanted | changes))

    return make


@pytest.fixture
def active(order: Callable[..., Server]) -> Server:
    return finish(order())


def open_operation(server: Server) -> Operation:
    return Operation.objects.get(server=server, status__in=OPEN_OPERATION)


def finish(server: Server) -> Server:
    """Do what a worker does until nothing is open, without waiting for what is not due yet."""
    began = timezone.now()
    while operation := Operation.objects.filter(server=server, status__in=OPEN_OPERATION).first():
        assert (timezone.now() - began).total_seconds() < PATIENCE, (
            f"{operation} never ends: {operation.step}"
        )
        Operation.objects.filter(pk=operation.pk).update(due_at=began)
        carry_out(operation.pk)
    server.refresh_from_db()
    return server


def failed(server: Server, **changes: Any) -> Server:
    """What a create that failed left: its machine, which nobody was ever given."""
    domain = libvirt.open(server.claim.hypervisor.uri).lookupByUUIDString(str(server.uuid))
    element, scope = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    for flags in (scope, libvirt.VIR_DOMAIN_AFFECT_LIVE)[: 1 + domain.isActive()]:
        domain.setMetadata(element, None, None, DELIVERED_NAMESPACE, flags)
    Server.objects.filter(pk=server.pk).update(status=ServerStatus.ERROR, **changes)
    server.refresh_from_db()
    return server


def let_lease_end(server: Server) -> None:
    """What time does when a worker has died."""
    Operation.objects.filter(server=server).exclude(lease_until=None).update(lease_until=timezone.now())


class Killed(BaseException):
    """What a worker meets at kill -9: nothing of its own runs any more."""


class FaultyHost:
    """A driver that fails on command: before a call, or after it was done."""

    def __init__(self, real: base.Driver) -> None:
        self._real = real
        self._faults: dict[str, list[tuple[str, BaseException]]] = {}
        self._meanwhile: dict[str, Callable[[], None]] = {}
        self.calls: list[str] = []

    def fail_next(self, call: str, error: BaseException, *, when: str = "before") -> None:
        self._faults.setdefault(call, []).append((when, error))

    def do_after(self, call: str, what: Callable[[], None]) -> None:
        """Have something else happen between the next such call and what its caller does then."""
        self._meanwhile[call] = what

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            when, error = (self._faults.get(name) or [("never", Killed())]).pop(0)
            if when == "before":
                raise error
            result = getattr(self._real, name)(*args, **kwargs)
            if when == "after":
                raise error
            if meanwhile := self._meanwhile.pop(name, None):
                meanwhile()
            return result

        return call


@pytest.fixture
def faulty(host: Hypervisor, monkeypatch: pytest.MonkeyPatch) -> FaultyHost:
    """The host's driver from now on, wrapped."""
    wrapped = FaultyHost(hypervisors.bare_driver_for(host))
    monkeypatch.setattr(hypervisors, "bare_driver_for", lambda hypervisor: wrapped)
    return wrapped


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A customer's receiver of webhooks, without TLS."""
    with receiving() as receiver:
        yield receiver
