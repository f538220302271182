"""Claims: who gets which host and which addresses.  Always inside the caller's transaction."""

from collections.abc import Collection
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice

from django.conf import settings
from django.db import transaction
from django.db.models import F, FloatField
from django.db.models.functions import Cast
from django.utils import timezone

from inventory.models import TAKES_NEW_SERVERS, Hypervisor, IpAddress, IpPool, Placement
from plans.models import Location
from vpsorg.errors import NoCapacity

MAX_ADDRESSES_PER_POOL = 4096


@transaction.atomic
def claim(location: Location, *, vcpus: int, memory_mib: int, disk_gib: int) -> Placement:
    """Take room on one host of the location, and an address of each family that the location has.

    Hosts are tried emptiest first.  Raises NoCapacity, and then nothing is taken.
    """
    placement = _claim_host(location, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)
    pools = IpPool.objects.filter(location=location, is_active=True)
    families = sorted(set(pools.values_list("family", flat=True)))
    for family in families:
        _claim_address(placement, location, family)
    if not families:
        raise _no_capacity("No addresses are left in this location.")
    return placement


@transaction.atomic
def resize(placement: Placement, *, vcpus: int, memory_mib: int, disk_gib: int) -> None:
    """Make a claim larger or smaller on its host.  Raises NoCapacity, and then it stays as it was."""
    host = Hypervisor.objects.filter(
        pk=placement.hypervisor_id,
        vcpus__gte=F("vcpus_used") + vcpus - placement.vcpus,
        memory_mib__gte=F("memory_mib_used") + memory_mib - placement.memory_mib,
        disk_gib__gte=F("disk_gib_used") + disk_gib - placement.disk_gib,
    )
    taken = host.update(
        vcpus_used=F("vcpus_used") + vcpus - placement.vcpus,
        memory_mib_used=F("memory_mib_used") + memory_mib - placement.memory_mib,
        disk_gib_used=F("disk_gib_used") + disk_gib - placement.disk_gib,
    )
    if not taken:
        raise NoCapacity("The server's host has no room for this plan. Choose another plan.", field="plan")
    placement.vcpus, placement.memory_mib, placement.disk_gib = vcpus, memory_mib, disk_gib
    placement.save(update_fields=["vcpus", "memory_mib", "disk_gib"])


@transaction.atomic
def release(placement: Placement) -> None:
    """Give a placement's room and addresses back.  An address rests before it is given out again."""
    Hypervisor.objects.filter(pk=placement.hypervisor_id).update(
        vcpus_used=F("vcpus_used") - placement.vcpus,
        memory_mib_used=F("memory_mib_used") - placement.memory_mib,
        disk_gib_used=F("disk_gib_used") - placement.disk_gib,
    )
    rest = timezone.now() + timedelta(seconds=settings.VPS_ADDRESS_REST)
    placement.addresses.update(placement=None, rests_until=rest)
    placement.delete()


def _claim_host(location: Location, *, vcpus: int, memory_mib: int, disk_gib: int) -> Placement:
    fitting = Hypervisor.objects.filter(
        TAKES_NEW_SERVERS,
        location=location,
        vcpus__gte=F("vcpus_used") + vcpus,
        memory_mib__gte=F("memory_mib_used") + memory_mib,
        disk_gib__gte=F("disk_gib_used") + disk_gib,
    )
    fullness = Cast(F("memory_mib_used"), FloatField()) / F("memory_mib")
    for pk in fitting.order_by(fullness, "pk").values_list("pk", flat=True):
        # The WHERE clause decides, not the list above: somebody may have been quicker.
        taken = fitting.filter(pk=pk).update(
            vcpus_used=F("vcpus_used") + vcpus,
            memory_mib_used=F("memory_mib_used") + memory_mib,
            disk_gib_used=F("disk_gib_used") + disk_gib,
        )
        if taken:
            return Placement.objects.create(
                hypervisor_id=pk, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib
            )
    raise _no_capacity("This plan is sold out in this location. Choose another plan or location.")


def _claim_address(placement: Placement, location: Location, family: int) -> None:
    free = IpAddress.objects.filter(
        pool__location=location,
        pool__family=family,
        pool__is_active=True,
        placement=None,
        is_reserved=False,
        rests_until__lte=timezone.now(),
    )
    address = free.select_for_update(skip_locked=True, of=("self",)).order_by("rests_until", "pk").first()
    if address is None:
        raise _no_capacity(f"No IPv{family} address is left in this location. Choose another location.")
    address.placement = placement
    address.save(update_fields=["placement"])


def _no_capacity(sentence: str) -> NoCapacity:
    return NoCapacity(sentence, field="location")


@transaction.atomic
def add_ip_pool(
    *,
    location: Location,
    network: IPv4Network | IPv6Network,
    gateway: str,
    nameservers: list[str],
    reserved: set[str],
    unreserved: Collection[str] = (),
) -> IpPool:
    """Make a pool and its addresses, all but the network's own and the broadcast address.

    Gateway, nameservers and what is reserved are never given out, though a server that holds
    one keeps it until it is deleted.  May be repeated: an existing pool gets what it lacks, and
    what was ever reserved stays so until it is unreserved.  Of a large network the first 4,096
    addresses are used.
    """
    pool, _ = IpPool.objects.update_or_create(
        network=str(network),
        defaults={"location": location, "gateway": gateway, "nameservers": nameservers},
    )
    kept_back = {a for a in map(ip_address, {gateway, *nameservers, *reserved}) if a in network}
    usable = (address for address in network.hosts() if address not in kept_back)
    addresses = [*islice(usable, MAX_ADDRESSES_PER_POOL), *kept_back]
    rows = [IpAddress(pool=pool, address=str(address)) for address in addresses]
    IpAddress.objects.bulk_create(rows, ignore_conflicts=True)
    pool.addresses.filter(address__in=unreserved).update(is_reserved=False)
    IpAddress.objects.filter(address__in=[str(a) for a in kept_back]).update(is_reserved=True)
    return pool


def network_of(pool: IpPool) -> IPv4Network | IPv6Network:
    return ip_network(pool.network)
