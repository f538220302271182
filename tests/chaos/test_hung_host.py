"""A host that hangs costs its own servers, and nobody else: a second one goes on at its speed."""

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from deploy.local.libvirtd import Libvirtd
from inventory.models import Hypervisor
from inventory.pools import add_ip_pool
from provisioning import hypervisors
from servers import services
from servers.models import Server
from servers.states import OPEN_OPERATION, ServerStatus
from tests.chaos.conftest import Plant, await_end
from tests.chaos.truth import assert_all_is_true
from tests.daemons import hanging
from tests.factories import AccountFactory, HypervisorFactory, LocationFactory
from tests.flows.conftest import clear
from tests.private_services import VAR

pytestmark = pytest.mark.timeout(400)

HALF = 2  # of the four processes that the worker has
MANY = 6


@pytest.fixture(scope="module")
def second_libvirtd() -> Iterator[Libvirtd]:
    service = Libvirtd(VAR, "libvirt2", "198.51.100.1/24", "2001:db8:100::1/64")
    service.start()
    yield service
    service.stop(patience_s=0)


@pytest.fixture
def second(host: Hypervisor, second_libvirtd: Libvirtd) -> Iterator[Hypervisor]:
    """A second host, in a location of its own."""
    Hypervisor.objects.update(max_operations=HALF)
    location = LocationFactory.create(code="us-east")
    row = HypervisorFactory.create(uri=second_libvirtd.url, location=location, max_operations=HALF)
    for network, gateway in (("198.51.100.0/24", "198.51.100.1"), ("2001:db8:100::/120", "2001:db8:100::1")):
        add_ip_pool(
            location=location, network=ip_network(network), gateway=gateway, nameservers=[], reserved=set()
        )
    driver = hypervisors.bare_driver_for(row)
    driver.prepare()
    clear(driver)
    yield row
    clear(driver)


def seconds_for(servers: list[Server]) -> float:
    """How long these take to be active."""
    began = time.monotonic()
    ours = Server.objects.filter(pk__in=[server.pk for server in servers])
    while ours.filter(status=ServerStatus.ACTIVE).count() < len(servers):
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_second_host_goes_on_at_its_speed_while_the_first_one_hangs(
    plant: Plant, second: Hypervisor, libvirtd: Libvirtd, order: Callable[..., Server]
) -> None:
    """Guard: host_is_full in lifecycle.begin and may_be_asked in circuit_breaker.py.

    Without the first all processes of the worker wait for the host that hangs; without the second they go on
    to do so, ten seconds for each operation.
    """
    account = AccountFactory.create(credits=1_000_000)
    there: dict[str, Any] = {"account": account, "location": second.location}
    victims = [order(account=account) for _ in range(MANY)]
    await_end(plant)
    seconds_for([order(**there) for _ in range(MANY)])  # the image is there from now on
    before = seconds_for([order(**there) for _ in range(MANY)])
    with hanging(libvirtd):
        for server in victims:
            services.reboot_server(server=server)
        time.sleep(1)
        meanwhile = seconds_for([order(**there) for _ in range(MANY)])
        assert victims[0].operations.filter(status__in=OPEN_OPERATION).exists(), "it did not hang"
    assert meanwhile < 2 * before + 2, f"{meanwhile:.1f} s, and {before:.1f} s before"
    await_end(plant)
    assert {Server.objects.get(pk=server.pk).status for server in victims} == {ServerStatus.ACTIVE}
    assert_all_is_true()
