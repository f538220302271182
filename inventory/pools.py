"""Pools of addresses.  The rows of a pool's addresses are made when they are needed, a batch at a time."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Count, Q, QuerySet

from inventory.models import IpAddress, IpPool
from inventory.networks import (
    Address,
    Network,
    NetworkRefused,
    address_from,
    addresses_from,
    check_pool,
    first_usable,
    is_usable,
    usable_count,
)
from plans.models import Location

BATCH = 256


@dataclass(frozen=True)
class PoolCounts:
    usable: int  # what servers may ever have: without those that are reserved
    free: int  # of these, what no server has


@transaction.atomic
def add_ip_pool(
    *,
    location: Location,
    network: Network,
    gateway: str,
    nameservers: list[str],
    reserved: set[str],
    unreserved: Collection[str] = (),
) -> IpPool:
    """Make a pool of all addresses of a network that hosts can have.

    Gateway, nameservers and what is reserved are never given out, though a server that holds
    one keeps it until it is deleted.  May be repeated: gateway and nameservers become those
    given, and what was ever reserved stays so until it is unreserved.

    Raises NetworkRefused, and then nothing is changed: for what ``check_pool`` refuses, for a
    network that overlaps with another pool's, and for another location while servers have
    addresses of the pool.  Returns the pool as ``counts_of`` needs it.
    """
    router, resolvers = address_from(gateway), [address_from(text) for text in nameservers]
    kept, freed = [address_from(text) for text in sorted(reserved)], list(map(address_from, unreserved))
    check_pool(network, router, resolvers, [*kept, *freed])
    existing = _existing(network, location)
    pool = existing or _made(network, location, router)
    pool.location, pool.gateway, pool.nameservers = location, str(router), list(map(str, resolvers))
    pool.save(update_fields=["location", "gateway", "nameservers"])
    pool.addresses.filter(address__in=[str(address) for address in freed]).update(is_reserved=False)
    _reserve(pool, [address for address in (router, *resolvers, *kept) if is_usable(network, address)])
    pool = counted(IpPool.objects.filter(pk=pool.pk)).get()
    if existing is None and not counts_of(pool).usable:
        raise NetworkRefused(f"{network} has no address that is left for a server.")
    return pool


def _existing(network: Network, location: Location) -> IpPool | None:
    pool = IpPool.objects.select_for_update().filter(network=str(network)).first()
    if pool and pool.location_id != location.pk and pool.addresses.exclude(port=None).exists():
        raise NetworkRefused(f"{network} is a pool of {pool.location}, and servers there have its addresses.")
    return pool


def _made(network: Network, location: Location, gateway: Address) -> IpPool:
    try:
        with transaction.atomic():
            pool = IpPool.objects.create(
                network=str(network),
                location=location,
                gateway=str(gateway),
                next_address=str(first_usable(network)),
            )
    except IntegrityError as error:
        if "ip_pools_do_not_overlap" not in str(error):
            raise
        raise NetworkRefused(f"{network} overlaps with {_overlapping(network)}.") from None
    make_batch(pool)
    return pool


def _overlapping(network: Network) -> str:
    pools = IpPool.objects.select_related("location")
    found = [pool for pool in pools if _overlap(network, network_of(pool))]
    return ", ".join(f"{pool}, a pool of {pool.location}" for pool in found) or "another pool"


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def reserve(location: Location, addresses: Collection[Address]) -> None:
    """Give these addresses to nobody from now on, as far as they are the location's.

    A server that holds one keeps it until it is deleted.
    """
    for pool in IpPool.objects.filter(location=location):
        network = network_of(pool)
        _reserve(pool, [address for address in addresses if address in network])


def _reserve(pool: IpPool, addresses: Iterable[Address]) -> None:
    texts = [str(address) for address in addresses]
    IpAddress.objects.bulk_create(
        [IpAddress(pool=pool, address=text, is_reserved=True) for text in texts], ignore_conflicts=True
    )
    pool.addresses.filter(address__in=texts).update(is_reserved=True)


def make_batch(pool: IpPool) -> None:
    """Make the rows of the next addresses.  The pool's row is locked by the caller."""
    if pool.next_address is None:
        return
    network = network_of(pool)
    batch = list(addresses_from(network, address_from(pool.next_address), BATCH))
    rows = [IpAddress(pool=pool, address=str(address)) for address in batch]
    IpAddress.objects.bulk_create(rows, ignore_conflicts=True)  # one that is reserved has its row already
    following = batch[-1] + 1 if int(batch[-1]) < int(network[-1]) else None
    is_more = following is not None and is_usable(network, following)
    pool.next_address = str(following) if is_more else None
    pool.save(update_fields=["next_address"])


def make_more(location: Location, family: int) -> bool:
    """Make rows of more addresses in a location.  False if its active pools have none left to make.

    Of several callers at once, one makes them and the others wait.
    """
    pools = IpPool.objects.filter(
        location=location, family=family, is_active=True, next_address__isnull=False
    )
    pool = pools.select_for_update(no_key=True).order_by("pk").first()
    if pool is None:
        return False
    make_batch(pool)
    return True


def counted(pools: QuerySet[IpPool]) -> QuerySet[IpPool]:
    """The pools as ``counts_of`` needs them."""
    return pools.annotate(
        reserved=Count("addresses", filter=Q(addresses__is_reserved=True)),
        held=Count("addresses", filter=Q(addresses__is_reserved=False, addresses__port__isnull=False)),
    )


def counts_of(pool: Any) -> PoolCounts:
    """How many addresses a ``counted`` pool has for servers."""
    usable = usable_count(network_of(pool)) - pool.reserved
    return PoolCounts(usable=usable, free=usable - pool.held)


def network_of(pool: IpPool) -> Network:
    return ip_network(pool.network)
