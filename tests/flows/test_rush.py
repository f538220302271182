"""Many customers at once: what there is room for succeeds, and the rest is refused in words."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from inventory.models import Hypervisor, IpAddress, Placement
from inventory.pools import add_ip_pool
from servers.models import Server
from tests.conftest import Customer
from tests.factories import HypervisorFactory, LocationFactory, OsVersionFactory, PlanFactory

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 20
ROOM, ADDRESSES, CREATES = 50, 40, 200


def test_of_200_creates_with_room_for_50_and_40_addresses_40_succeed(
    customer: Callable[..., Customer],
) -> None:
    """Guard: FOR UPDATE SKIP LOCKED in inventory.services._claim_address."""
    location = LocationFactory.create()
    for _ in range(2):
        HypervisorFactory.create(location=location, memory_mib=ROOM // 2 * 1024, vcpus=1000, disk_gib=1000)
    network = ip_network("203.0.113.0/24")
    reserved = {str(address) for address in list(network.hosts())[ADDRESSES + 1 :]}
    add_ip_pool(
        location=location, network=network, gateway=str(network[1]), nameservers=[], reserved=reserved
    )
    plan = PlanFactory.create(vcpus=1, memory_mib=1024, disk_gib=1)
    body = {
        "name": "web",
        "plan_id": plan.pk,
        "os_id": OsVersionFactory.create().pk,
        "location": location.code,
    }
    customers = [customer(credits=100_000) for _ in range(THREADS)]

    def create(number: int) -> Any:
        try:
            return customers[number % THREADS].post("/servers/", body)
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(create, range(CREATES)))
    assert Counter(answer.status_code for answer in answers) == {201: ADDRESSES, 400: CREATES - ADDRESSES}
    refusals = {str(answer.json()) for answer in answers if answer.status_code == 400}
    assert len(refusals) == 1
    assert "address is left" in refusals.pop()
    assert_nothing_is_sold_twice()


def assert_nothing_is_sold_twice() -> None:
    assert Server.objects.count() == Placement.objects.count() == ADDRESSES
    given = IpAddress.objects.exclude(port=None)
    assert len(set(given.values_list("port", flat=True))) == given.count() == ADDRESSES
    for host in Hypervisor.objects.all():
        assert host.memory_mib_used == host.placements.aggregate(sum=Sum("memory_mib"))["sum"]
