"""Room and addresses: never sold twice, never lost, whoever comes at once."""

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, TypeVar

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Case, Sum, Value, When
from django.utils import timezone

from core.errors import InsufficientCredits, NoCapacity, Refusal
from inventory.models import Hypervisor, IpAddress, IpPool, Placement, Port
from inventory.offers import locations_with_room
from inventory.pools import PoolCounts, add_ip_pool, counted, counts_of
from inventory.services import claim, make_port, put_in_use, release, remove_port
from plans.models import Location
from provisioning.drivers.base import HostMisconfigured
from provisioning.jobs import Job
from provisioning.machine_specs import spec_of
from provisioning.workflows import power_on
from servers import lifecycle, services
from servers.models import Operation, Server
from servers.states import OperationStatus, ServerStatus
from servers.wishes import Wish
from tests.factories import AccountFactory, HypervisorFactory, LocationFactory, OsVersionFactory, PlanFactory
from tests.flows.conftest import FaultyHost, finish, let_lease_end, open_operation
from tests.flows.test_operations import at_once

pytestmark = pytest.mark.django_db(transaction=True)

Row = TypeVar("Row", Placement, Port)
SIZE = {"vcpus": 1, "memory_mib": 1024, "disk_gib": 10}


def addresses(location: Location, network: str = "203.0.113.0/28", reserved: Collection[str] = ()) -> None:
    net = ip_network(network)
    add_ip_pool(location=location, network=net, gateway=str(net[1]), nameservers=[], reserved=set(reserved))


def create(location: Location) -> Server:
    return services.create_server(
        account=AccountFactory.create(),
        name="web",
        plan=PlanFactory.create(),
        os_version=OsVersionFactory.create(),
        location=location,
    )


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
    """Guard: ``port=None`` in ``_claim_address``, and ``atomic`` on ``make_port`` and ``create_server``."""
    host = HypervisorFactory.create()
    addresses(host.location, "203.0.113.0/29")  # five, without the gateway
    results = at_once(12, lambda: make_port(host.location))
    assert sum(isinstance(result, Port) for result in results) == 5
    given = IpAddress.objects.exclude(port=None).values_list("address", flat=True)
    assert len(set(given)) == Port.objects.count() == 5
    with pytest.raises(NoCapacity):
        create(host.location)
    assert used(host) == claimed(host) == (0, 0, 0), "the refused one took no room"


def test_two_transactions_on_different_hosts_never_take_the_same_address() -> None:
    """The hosts' rows make claims on one host wait for each other; here only the addresses meet.

    Guard: ``select_for_update(skip_locked=True)`` in ``_claim_address``.
    """
    small = HypervisorFactory.create(memory_mib=1024)
    large = HypervisorFactory.create(memory_mib=64 * 1024, memory_mib_used=32 * 1024)
    addresses(small.location)

    with transaction.atomic():
        first, card = claim(small.location, **(SIZE | {"memory_mib": 16 * 1024})), make_port(small.location)
        with ThreadPoolExecutor(1) as other:
            second = other.submit(_in_a_thread, lambda: claim(small.location, **SIZE)).result(30)
            other_card = other.submit(_in_a_thread, lambda: make_port(small.location)).result(30)
    assert (first.hypervisor, second.hypervisor) == (large, small)
    assert card.addresses.get() != other_card.addresses.get()


def _in_a_thread(do: Callable[[], Row]) -> Row:
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

    def order() -> Server:
        return services.create_server(
            account=account,
            name="web",
            plan=plan,
            os_version=os_version,
            location=host.location,
        )

    results = at_once(8, order)
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


def test_room_that_is_released_can_be_claimed_again() -> None:
    host = HypervisorFactory.create(memory_mib=1024)
    release(claim(host.location, **SIZE))
    assert used(host) == (0, 0, 0)
    assert claim(host.location, **SIZE).hypervisor == host


def test_an_address_that_a_machine_used_rests_before_it_is_given_out_again() -> None:
    """Guard: ``rests_until`` in ``_claim_address`` and in ``remove_port``."""
    location = LocationFactory.create()
    addresses(location, "203.0.113.0/30")  # one, without the gateway
    port = make_port(location)
    assert put_in_use(port)
    remove_port(port)
    with pytest.raises(NoCapacity, match="IPv4"):
        make_port(location)
    IpAddress.objects.update(rests_until=timezone.now() - timedelta(seconds=1))
    assert make_port(location).addresses.count() == 1


def test_an_address_that_no_machine_used_is_free_at_once() -> None:
    """Guard: ``was_used`` in ``remove_port``."""
    location = LocationFactory.create()
    addresses(location, "203.0.113.0/30")  # one, without the gateway
    for _ in range(3):
        remove_port(make_port(location))


def test_no_machine_starts_with_a_card_that_was_removed() -> None:
    """A worker that was taken for dead comes back: the address may be somebody else's by now.

    Guard: the count of rows in ``put_in_use``.
    """
    location = LocationFactory.create()
    addresses(location)
    port = make_port(location)
    remove_port(Port.objects.get(pk=port.pk))
    assert not put_in_use(port)


def test_an_address_reserved_while_a_server_holds_it_goes_to_nobody_after_that_server() -> None:
    """Guard: ``is_reserved=False`` in inventory/services.py, and in inventory/offers.py for the offer."""
    plan, host = PlanFactory.create(), HypervisorFactory.create()
    addresses(host.location, "203.0.113.0/30")  # one, without the gateway
    port = make_port(host.location)
    held = port.addresses.get()

    addresses(host.location, "203.0.113.0/30", reserved=[held.address])
    remove_port(port)

    assert locations_with_room([plan]) == {plan.pk: []}
    with pytest.raises(NoCapacity, match="IPv4"):
        make_port(host.location)


def test_addresses_come_from_active_pools_of_the_location_only() -> None:
    """Guard: ``pool__location`` and ``pool__is_active`` in ``_claim_address``."""
    location = LocationFactory.create()
    addresses(LocationFactory.create(code="us-east"), "198.51.100.0/29")
    addresses(location, "192.0.2.0/29")
    IpPool.objects.filter(network="192.0.2.0/29").update(is_active=False)
    addresses(location, "203.0.113.0/29")
    assert make_port(location).addresses.get().pool.network == "203.0.113.0/29"


def test_a_server_gets_an_address_of_each_family_that_its_location_has() -> None:
    """Guard: ``pool__family`` in ``_claim_address``."""
    location = LocationFactory.create()
    addresses(location)
    addresses(location, "2001:db8::/124")
    families = make_port(location).addresses.values_list("pool__family", flat=True)
    assert sorted(families) == [4, 6]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inventory.pools.BATCH", 4)


@pytest.mark.usefixtures("small_batches")
def test_a_large_pool_is_given_out_to_its_last_address() -> None:
    """Guards: ``make_more`` in ``_claim_address``, the end in ``make_batch``."""
    location = LocationFactory.create()
    addresses(location, "203.0.113.0/27", reserved=["203.0.113.9", "203.0.113.30"])
    addresses(location, "2001:db8::/64")
    assert IpAddress.objects.count() < 20
    ports = [make_port(location) for _ in range(27)]
    given = {str(a.address) for port in ports for a in port.addresses.filter(pool__family=4)}
    assert given == {f"203.0.113.{n}" for n in range(2, 30) if n != 9}
    with pytest.raises(NoCapacity, match="IPv4"):
        make_port(location)


@pytest.mark.usefixtures("small_batches")
def test_many_who_need_more_addresses_at_once_get_each_their_own() -> None:
    location = LocationFactory.create()
    addresses(location, "203.0.113.0/27")
    results = at_once(12, lambda: make_port(location))
    assert [result for result in results if not isinstance(result, Port)] == []
    assert IpAddress.objects.exclude(port=None).count() == 12


@pytest.mark.usefixtures("small_batches")
def test_what_is_on_offer_counts_the_addresses_whose_rows_are_not_made_yet() -> None:
    """Guard: ``next_address`` in inventory/offers.py."""
    plan, host = PlanFactory.create(), HypervisorFactory.create()
    addresses(host.location, "203.0.113.0/28")
    IpAddress.objects.update(is_reserved=True)
    assert locations_with_room([plan]) == {plan.pk: [host.location.code]}
    [pool] = counted(IpPool.objects.all())
    assert counts_of(pool) == PoolCounts(usable=10, free=10)
    make_port(host.location)
    [pool] = counted(IpPool.objects.all())
    assert counts_of(pool) == PoolCounts(usable=10, free=9)


def test_the_database_refuses_pools_that_overlap() -> None:
    location = LocationFactory.create()
    addresses(location, "203.0.113.0/24")
    with pytest.raises(IntegrityError, match="ip_pools_do_not_overlap"):
        IpPool.objects.create(location=location, network="203.0.113.128/25", gateway="203.0.113.129")


def test_the_claims_of_a_server_are_released_once_whoever_asks_twice() -> None:
    host = HypervisorFactory.create()
    addresses(host.location)
    server = create(host.location)
    do: Callable[[], None] = lambda: services.release_claims(server=Server.objects.get(pk=server.pk))  # noqa: E731
    at_once(4, do)
    assert used(host) == (0, 0, 0)
    assert not Placement.objects.exists()
    assert not Port.objects.exists()


def test_surplus_room_is_given_back_once_whoever_asks_twice() -> None:
    """By a worker that was taken for dead, and by its heir.  Guard: the lock in give_back_surplus."""
    host = HypervisorFactory.create()
    addresses(host.location)
    server = create(host.location)
    Server.objects.update(status=ServerStatus.ACTIVE)
    Operation.objects.update(status=OperationStatus.SUCCEEDED)
    before = used(host)
    larger = PlanFactory.create(slug="larger", vcpus=8, memory_mib=9000, disk_gib=100)
    resize = services.resize_server(server=Server.objects.get(pk=server.pk), plan=larger)
    assert used(host) == claimed(host) != before
    at_once(4, lambda: services.give_back_surplus(operation=Operation.objects.get(pk=resize.pk)))
    assert used(host) == claimed(host) == before


def test_no_two_ports_share_a_mac() -> None:
    location = LocationFactory.create()
    addresses(location)
    ports = [make_port(location) for _ in range(5)]
    assert len({port.mac for port in ports}) == 5
    assert all(int(port.mac[:2], 16) & 3 == 2 for port in ports), "local and unicast"
    with pytest.raises(IntegrityError):
        Port.objects.create(mac=ports[0].mac)


def test_a_mac_that_is_taken_already_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the look at ``Port`` in ``_new_mac``."""
    location = LocationFactory.create()
    addresses(location)
    numbers = iter([b"\0\0\0\1", b"\0\0\0\1", b"\0\0\0\2"])
    monkeypatch.setattr("secrets.token_bytes", lambda count: next(numbers))
    assert [make_port(location).mac for _ in range(2)] == ["52:54:00:00:00:01", "52:54:00:00:00:02"]


def test_a_server_keeps_its_mac_and_addresses_when_its_host_is_replaced() -> None:
    old, new = HypervisorFactory.create(), HypervisorFactory.create(status="disabled", network="guests")
    addresses(old.location)
    addresses(old.location, "2001:db8::/124")
    server = create(old.location)
    before = spec_of(server, Wish())

    Hypervisor.objects.update(status=Case(When(pk=new.pk, then=Value("enabled")), default=Value("draining")))
    size = {name: getattr(server.claim, name) for name in SIZE}
    server.incoming = claim(old.location, **size)
    server.save(update_fields=["incoming"])
    assert used(old) == claimed(old) == used(new) == claimed(new) != (0, 0, 0), "held twice while it moves"
    left, server.home, server.incoming = server.claim, server.incoming, None
    server.save(update_fields=["home", "incoming"])
    release(left)

    after = spec_of(Server.objects.get(pk=server.pk), Wish())
    assert (used(old), claimed(old)) == ((0, 0, 0), (0, 0, 0))
    assert (before.nics[0].network, after.nics[0].network) == ("vps", "guests")
    assert len(before.nics[0].addresses) == 2
    assert replace(after.nics[0], network="vps") == before.nics[0]


def test_a_server_that_is_given_up_while_it_moves_leaves_no_claim() -> None:
    """Guard: ``incoming`` in ``release_claims``."""
    host, _ = HypervisorFactory.create(), HypervisorFactory.create()
    addresses(host.location)
    server = create(host.location)
    Server.objects.filter(pk=server.pk).update(incoming=claim(host.location, **SIZE))
    services.release_claims(server=server)
    assert not Placement.objects.exists()
    assert not Port.objects.exists()
    assert not IpAddress.objects.exclude(port=None).exists()


def test_claims_are_released_as_they_are_once_whoever_writes_them_is_done() -> None:
    """Guard: ``select_for_update`` in ``release_claims``; a claim written meanwhile would be left."""
    host, _ = HypervisorFactory.create(), HypervisorFactory.create()
    addresses(host.location)
    server = create(host.location)
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            Server.objects.select_for_update().get(pk=server.pk)
            released = threads.submit(closing_connection, lambda: services.release_claims(server=server))
            until_a_statement_waits()
            Server.objects.filter(pk=server.pk).update(incoming=claim(host.location, **SIZE))
        released.result(10)
    assert not Placement.objects.exists()


def closing_connection(do: Callable[[], None]) -> None:
    try:
        do()
    finally:
        connection.close()


def until_a_statement_waits() -> None:
    """Until a statement of another connection waits for a lock, or for a second."""
    for _ in range(100):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if cursor.fetchone() != (0,):
                return
        time.sleep(0.01)


@pytest.mark.parametrize("link", ["home", "incoming", "port"])
def test_what_a_server_holds_is_no_other_servers(link: str) -> None:
    host = HypervisorFactory.create()
    addresses(host.location)
    first, second = create(host.location), create(host.location)
    mine = claim(host.location, **SIZE) if link == "incoming" else getattr(first, link)
    Server.objects.filter(pk=first.pk).update(**{link: mine})
    with pytest.raises(IntegrityError):
        Server.objects.filter(pk=second.pk).update(**{link: mine})


def test_a_server_does_not_move_to_where_it_is() -> None:
    host = HypervisorFactory.create()
    addresses(host.location)
    server = create(host.location)
    with pytest.raises(IntegrityError, match="a_server_moves_to_another_placement"):
        Server.objects.filter(pk=server.pk).update(incoming=server.home)


def test_creates_that_are_deleted_before_they_ran_do_not_use_a_location_up(
    host: Hypervisor, order: Callable[..., Server]
) -> None:
    """Guard: ``was_used`` in ``remove_port``."""
    _leave_free(2)
    for _ in range(5):
        server = order()
        services.delete_server(server=server)
        assert finish(server).status == ServerStatus.DELETED
    assert finish(order()).status == ServerStatus.ACTIVE


def test_the_addresses_of_a_create_that_failed_before_it_ran_are_free_at_once(
    order: Callable[..., Server], faulty: FaultyHost
) -> None:
    _leave_free(1)
    for _ in range(3):
        faulty.fail_next("define", HostMisconfigured("no space"))
        assert finish(order()).status == ServerStatus.ERROR


def test_the_addresses_of_a_server_that_ran_rest(order: Callable[..., Server]) -> None:
    """Guard: ``put_in_use`` in ``power_on`` in provisioning/workflows.py."""
    _leave_free(1)
    server = finish(order())
    services.delete_server(server=server)
    finish(server)
    with pytest.raises(NoCapacity):
        order()


def test_a_worker_taken_for_dead_starts_nothing_whose_addresses_were_given_back(
    order: Callable[..., Server],
) -> None:
    """It stood still before its start, and meanwhile the server was deleted.

    Guard: the answer of ``put_in_use`` in ``power_on`` in provisioning/workflows.py.
    """
    server = order()
    late = lifecycle.begin(open_operation(server).pk)
    assert late is not None
    job = Job(late)
    assert job.server.port is not None
    services.delete_server(server=server)
    let_lease_end(server)
    assert finish(server).status == ServerStatus.DELETED
    with pytest.raises(lifecycle.LeaseLost):
        power_on(job)


def _leave_free(count: int) -> None:
    """Have so many addresses of each family left in the location."""
    for pool in IpPool.objects.all():
        kept = pool.addresses.filter(is_reserved=False).order_by("pk")[:count]
        pool.addresses.exclude(pk__in=kept.values("pk")).update(is_reserved=True)
