"""A real host, and guests with no system inside: QEMU runs, nothing boots, a create takes a second."""

import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from deploy.local.guest import sha256
from inventory.models import Hypervisor
from inventory.services import add_ip_pool
from provisioning import hosts
from provisioning.carry_out import carry_out
from provisioning.hypervisors import base
from servers import services
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION
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
    OsVersionFactory.create(image_sha256=empty_image.stem)
    driver = hosts.driver(row)
    driver.prepare()
    driver.put_image(base.Image(sha256=empty_image.stem), empty_image)
    clear(driver)
    yield row
    clear(driver)


def clear(driver: base.Hypervisor) -> None:
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
            "requested_by": "a test",
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


def let_lease_end(server: Server) -> None:
    """What time does when a worker has died."""
    Operation.objects.filter(server=server).exclude(lease_until=None).update(lease_until=timezone.now())


class Killed(BaseException):
    """What a worker meets at kill -9: nothing of its own runs any more."""


class FaultyHost:
    """A driver that fails on command: before a call, or after it was done."""

    def __init__(self, real: base.Hypervisor) -> None:
        self._real = real
        self._faults: dict[str, list[tuple[str, BaseException]]] = {}
        self.calls: list[str] = []

    def fail_next(self, call: str, error: BaseException, *, when: str = "before") -> None:
        self._faults.setdefault(call, []).append((when, error))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            when, error = (self._faults.get(name) or [("never", Killed())]).pop(0)
            if when == "before":
                raise error
            result = getattr(self._real, name)(*args, **kwargs)
            if when == "after":
                raise error
            return result

        return call


@pytest.fixture
def faulty(host: Hypervisor, monkeypatch: pytest.MonkeyPatch) -> FaultyHost:
    """The host's driver from now on, wrapped."""
    wrapped = FaultyHost(hosts.driver(host))
    monkeypatch.setattr(hosts, "driver", lambda hypervisor: wrapped)
    return wrapped


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A customer's receiver of webhooks, without TLS."""
    with receiving() as receiver:
        yield receiver
