"""Room and addresses: never sold twice, never lost, whoever comes at once."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Sum
from django.utils import timezone

from inventory.models import Hypervisor, IpAddress, IpPool, Placement
from inventory.offers import locations_with_room
from inventory.services import add_ip_pool, claim, release
from plans.models import Location
from servers import services
from servers.models import Operation, Server
from tests.factories import AccountFactory, HypervisorFactory, LocationFactory, OsVersionFactory, PlanFactory
from tests.flows.test_operations import at_once
from vpsorg.errors import InsufficientCredits, NoCapacity, Refusal

pytestmark = pytest.mark.django_db(transaction=True)

SIZE = {"vcpus": 1, "memory_mib": 1024, "disk_gib": 10}


def addresses(location: Location, network: str = "203.0.113.0/28", reserved: Collection[str] = ()) -> None:
    net = ip_network(network)
    add_ip_pool(location=location, network=net, gateway=str(net[1]), nameservers=[], reserved=set(reserved))


def used(host: Hypervisor) -> tuple[int, int, int]:
    host.refresh_from_db()
    return host.vcpus_used, host.memory_mib_used, host.disk_gib_used


def claimed(host: Hypervisor) -> tuple[int, int, int]:
    sums = host.placements.aggregate(v=Sum("vcpus"), m=Sum("memory_mib"), d=Sum("disk_gib"))
    return sums["v"] or 0, sums["m"] or 0, sums["d"] or 0


def test_of_many_creates_at_once_as_many_succeed_as_there_is_room_for() -> None:
    """Guard: ``fitting`` in the update of ``_claim_host`` in inventory/services.py."""
    host = HypervisorFactory.create(memory_mib=5 * 1024)
    addresses(host.location)
    results = at_once(12, lambda: claim(host.location, **SIZE))
    assert sum(isinstance(result, Placement) for result in results) == 5
    assert sum(isinstance(result, NoCapacity) for result in results) == 7
    assert used(host) == claimed(host) == (5, 5 * 1024, 50)


def test_of_many_creates_at_once_as_many_succeed_as_there_are_addresses() -> None:
    """Guard: ``placement=None`` in ``_claim_address``, and ``atomic`` on ``claim``."""
    host = HypervisorFactory.create()
    addresses(host.location, "203.0.113.0/29")  # five, without the gateway
    results = at_once(12, lambda: claim(host.location, **SIZE))
    assert sum(isinstance(result, Placement) for result in results) == 5
    given = IpAddress.objects.exclude(placement=None).values_list("address", flat=True)
    assert len(set(given)) == 5
    assert used(host) == claimed(host) == (5, 5 * 1024, 50), "the refused ones took no room"


def test_two_transactions_on_different_hosts_never_take_the_same_address() -> None:
    """The hosts' rows make claims on one host wait for each other; here only the addresses meet.

    Guard: ``select_for_update(skip_locked=True)`` in ``_claim_address``.
    """
    small = HypervisorFactory.create(memory_mib=1024)
    large = HypervisorFactory.create(memory_mib=64 * 1024, memory_mib_used=32 * 1024)
    addresses(small.location)

    with transaction.atomic():
        first = claim(small.location, **(SIZE | {"memory_mib": 16 * 1024}))
        with ThreadPoolExecutor(1) as other:
            second = other.submit(_in_a_thread, lambda: claim(small.location, **SIZE)).result(30)
    assert (first.hypervisor, second.hypervisor) == (large, small)
    assert first.addresses.get() != second.addresses.get()


def _in_a_thread(do: Callable[[], Placement]) -> Placement:
    """What waits for a lock fails: whoever holds it waits for this thread."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
        return do()
    finally:
        connection.close()


def test_credits_are_not_spent_twice_by_creates_at_once() -> None:
    host = HypervisorFactory.create()
    addresses(host.location)
    plan, os_version = PlanFactory.create(price_hourly=1), OsVersionFactory.create()
    account = AccountFactory.create(credits=3 * 24)

    def create() -> Server:
        return services.create_server(
            account=account,
            name="web",
            plan=plan,
            os_version=os_version,
            location=host.location,
            requested_by="a test",
        )

    results = at_once(8, create)
    assert sum(isinstance(result, Server) for result in results) == 3
    assert {type(result) for result in results if isinstance(result, Refusal)} == {InsufficientCredits}
    assert (Server.objects.count(), Operation.objects.count(), Placement.objects.count()) == (3, 3, 3)


@pytest.mark.parametrize("column", ["vcpus_used", "memory_mib_used", "disk_gib_used"])
def test_the_database_refuses_to_oversell(column: str) -> None:
    host = HypervisorFactory.create()
    with pytest.raises(IntegrityError, match="not_oversold"):
        Hypervisor.objects.filter(pk=host.pk).update(**{column: 10_000_000})


@pytest.mark.parametrize(
    "state",
    [{"status": "draining"}, {"status": "disabled"}, {"is_reachable": False}, {"is_ready": False}],
    ids=str,
)
def test_a_host_that_takes_nothing_new_is_left_out(state: dict[str, Any]) -> None:
    host = HypervisorFactory.create(**state)
    addresses(host.location)
    with pytest.raises(NoCapacity):
        claim(host.location, **SIZE)


def test_claims_go_to_the_emptiest_host_of_the_location() -> None:
    location = LocationFactory.create()
    addresses(location)
    elsewhere = HypervisorFactory.create(location=LocationFactory.create(code="us-east"))
    hosts = [HypervisorFactory.create(location=location) for _ in range(3)]
    chosen = [claim(location, **SIZE).hypervisor_id for _ in range(6)]
    assert sorted(chosen) == sorted([host.pk for host in hosts] * 2)
    assert elsewhere.pk not in chosen


def test_what_is_released_can_be_claimed_again_but_an_address_rests_first() -> None:
    """Guard: ``rests_until`` in ``_claim_address`` and in ``release``."""
    host = HypervisorFactory.create(memory_mib=1024)
    addresses(host.location, "203.0.113.0/30")  # one, without the gateway
    release(claim(host.location, **SIZE))
    assert used(host) == (0, 0, 0)
    with pytest.raises(NoCapacity, match="IPv4"):
        claim(host.location, **SIZE)
    IpAddress.objects.update(rests_until=timezone.now() - timedelta(seconds=1))
    assert claim(host.location, **SIZE).addresses.count() == 1


def test_an_address_reserved_while_a_server_holds_it_goes_to_nobody_after_that_server() -> None:
    """Guard: ``is_reserved=False`` in inventory/services.py, and in inventory/offers.py for the offer."""
    plan, host = PlanFactory.create(), HypervisorFactory.create()
    addresses(host.location, "203.0.113.0/30")  # one, without the gateway
    placement = claim(host.location, **SIZE)
    held = placement.addresses.get()

    addresses(host.location, "203.0.113.0/30", reserved=[held.address])
    release(placement)
    IpAddress.objects.update(rests_until=timezone.now() - timedelta(seconds=1))

    assert locations_with_room([plan]) == {plan.pk: []}
    with pytest.raises(NoCapacity, match="IPv4"):
        claim(host.location, **SIZE)


def test_gateways_and_nameservers_from_before_are_reserved_and_the_way_back_leaves_them_out() -> None:
    host = HypervisorFactory.create()
    addresses(host.location, "203.0.113.0/29", reserved=["203.0.113.6"])
    IpPool.objects.update(nameservers=["203.0.113.2", "198.51.100.53"])
    executor = MigrationExecutor(connection)
    old = executor.migrate([("inventory", "0002_circuit_breaker_and_operation_limit")]).apps
    try:
        rows = old.get_model("inventory", "IpAddress").objects.values_list("address", flat=True)
        assert set(rows) == {f"203.0.113.{n}" for n in (2, 3, 4, 5)}
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    assert set(IpAddress.objects.filter(is_reserved=True).values_list("address", flat=True)) == {
        "203.0.113.2"
    }


def test_addresses_come_from_active_pools_of_the_location_only() -> None:
    """Guard: ``pool__location`` and ``pool__is_active`` in ``_claim_address``."""
    host = HypervisorFactory.create()
    addresses(LocationFactory.create(code="us-east"), "198.51.100.0/29")
    addresses(host.location, "192.0.2.0/29")
    IpPool.objects.filter(network="192.0.2.0/29").update(is_active=False)
    addresses(host.location, "203.0.113.0/29")
    assert claim(host.location, **SIZE).addresses.get().pool.network == "203.0.113.0/29"


def test_a_server_gets_an_address_of_each_family_that_its_location_has() -> None:
    """Guard: ``pool__family`` in ``_claim_address``."""
    host = HypervisorFactory.create()
    addresses(host.location)
    addresses(host.location, "2001:db8::/124")
    families = claim(host.location, **SIZE).addresses.values_list("pool__family", flat=True)
    assert sorted(families) == [4, 6]


def test_the_claims_of_a_server_are_released_once_whoever_asks_twice() -> None:
    host = HypervisorFactory.create()
    addresses(host.location)
    server = services.create_server(
        account=AccountFactory.create(),
        name="web",
        plan=PlanFactory.create(),
        os_version=OsVersionFactory.create(),
        location=host.location,
        requested_by="a test",
    )
    do: Callable[[], None] = lambda: services.release_claims(server=Server.objects.get(pk=server.pk))  # noqa: E731
    at_once(4, do)
    assert used(host) == (0, 0, 0)
    assert not Placement.objects.exists()


def test_no_two_placements_share_a_mac() -> None:
    host = HypervisorFactory.create()
    addresses(host.location)
    placements = [claim(host.location, **SIZE) for _ in range(5)]
    assert len({placement.mac for placement in placements}) == 5
    assert all(int(placement.mac[:2], 16) & 3 == 2 for placement in placements), "local and unicast"
