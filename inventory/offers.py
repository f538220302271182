"""The offers: which plan has room in which location now."""

from collections.abc import Iterable

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from inventory.models import TAKES_NEW_SERVERS, Hypervisor, IpAddress, IpPool
from plans.models import Location, Plan


def locations_with_room(plans: Iterable[Plan]) -> dict[int, list[str]]:
    """For each plan's id the codes of the locations where a server of it could be made now.

    Three queries, however many plans, hosts and addresses there are.
    """
    codes = _locations_with_addresses()
    room = _room_by_location()
    return {
        plan.pk: [
            code
            for pk, code in codes.items()
            if any(
                plan.vcpus <= vcpus and plan.memory_mib <= memory and plan.disk_gib <= disk
                for vcpus, memory, disk in room.get(pk, [])
            )
        ]
        for plan in plans
    }


def locations_on_offer() -> QuerySet[Location]:
    """Active locations with a host that takes new servers, whatever room it has."""
    hosts = Hypervisor.objects.filter(TAKES_NEW_SERVERS, location=OuterRef("pk"))
    return Location.objects.filter(Exists(hosts), is_active=True).order_by("pk")


def _room_by_location() -> dict[int, list[tuple[int, int, int]]]:
    room: dict[int, list[tuple[int, int, int]]] = {}
    for host in Hypervisor.objects.filter(TAKES_NEW_SERVERS):
        left = (
            host.vcpus - host.vcpus_used,
            host.memory_mib - host.memory_mib_used,
            host.disk_gib - host.disk_gib_used,
        )
        room.setdefault(host.location_id, []).append(left)
    return room


def _locations_with_addresses() -> dict[int, str]:
    """Active locations that have a free address of each family they give out."""
    free = IpAddress.objects.filter(
        pool__location=OuterRef("location"),
        pool__family=OuterRef("family"),
        pool__is_active=True,
        port=None,
        is_reserved=False,
        rests_until__lte=Now(),
    )
    pools = IpPool.objects.filter(is_active=True).annotate(
        has_free=Q(next_address__isnull=False) | Exists(free)
    )
    with_pool, without = set(), set()
    for location_id, has_free in pools.values_list("location_id", "has_free"):
        with_pool.add(location_id)
        if not has_free:
            without.add(location_id)
    active = Location.objects.filter(is_active=True, pk__in=with_pool - without).order_by("pk")
    return dict(active.values_list("pk", "code"))
