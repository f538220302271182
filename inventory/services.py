"""Claims room on hosts, and makes network cards with their addresses.

Always inside the caller's transaction, which a refusal ends.
"""

import secrets
from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, FloatField, Sum
from django.db.models.functions import Cast, Coalesce, Now

from core.errors import NoCapacity, Refusal
from inventory.models import TAKES_NEW_SERVERS, Hypervisor, ImageCopy, IpAddress, IpPool, Placement, Port
from inventory.pools import make_more
from plans.models import Location

RESOURCES = ("vcpus", "memory_mib", "disk_gib")


@transaction.atomic(savepoint=False)
def claim(location: Location, *, vcpus: int, memory_mib: int, disk_gib: int) -> Placement:
    """Take room on one host of the location.

    Hosts are tried emptiest first.  Raises NoCapacity, and then nothing is taken.
    """
    fitting = Hypervisor.objects.filter(
        TAKES_NEW_SERVERS,
        location=location,
        vcpus__gte=F("vcpus_used") + vcpus,
        memory_mib__gte=F("memory_mib_used") + memory_mib,
        disk_gib__gte=F("disk_gib_used") + disk_gib,
    )
    fullness = Cast(F("memory_mib_used"), FloatField()) / F("memory_mib")
    for pk in fitting.order_by(fullness, "pk").values_list("pk", flat=True):
        # The WHERE clause decides, not the list above: another order may have taken the room.
        taken = fitting.filter(pk=pk).update(
            vcpus_used=F("vcpus_used") + vcpus,
            memory_mib_used=F("memory_mib_used") + memory_mib,
            disk_gib_used=F("disk_gib_used") + disk_gib,
        )
        if taken:
            return Placement.objects.create(
                hypervisor_id=pk, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib
            )
    raise _no_capacity("This plan is sold out in this location.")


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


@transaction.atomic(savepoint=False)
def release(placement: Placement) -> None:
    """Give a placement's room back to its host."""
    Hypervisor.objects.filter(pk=placement.hypervisor_id).update(
        vcpus_used=F("vcpus_used") - placement.vcpus,
        memory_mib_used=F("memory_mib_used") - placement.memory_mib,
        disk_gib_used=F("disk_gib_used") - placement.disk_gib,
    )
    placement.delete()


@transaction.atomic(savepoint=False)
def make_port(location: Location) -> Port:
    """Make a network card with a MAC of its own and an address of each family that the location has.

    Raises NoCapacity, and then nothing is taken.
    """
    port = Port.objects.create(mac=_new_mac())
    pools = IpPool.objects.filter(location=location, is_active=True)
    families = sorted(set(pools.values_list("family", flat=True)))
    for family in families:
        _claim_address(port, location, family)
    if not families:
        raise _no_capacity("This plan is sold out in this location: no address is left.")
    return port


def put_in_use(port: Port) -> bool:
    """Record that a machine is about to start with this card.  False if the card was removed meanwhile."""
    if not port.was_used:
        port.was_used = Port.objects.filter(pk=port.pk).update(was_used=True) == 1
    return port.was_used


@transaction.atomic
def recount(hypervisor: Hypervisor, *, dry_run: bool = False) -> dict[str, tuple[int, int]]:
    """Make the counters of what is used the sums of the host's placements.

    Returns the counters that were wrong, each with what it was and what it should be.  Refuses when servers
    have more than is for sale.  Claims on this host wait meanwhile.
    """
    # Each claim holds this lock until it is committed: the sums below miss none.
    host = Hypervisor.objects.select_for_update(no_key=True).get(pk=hypervisor.pk)
    sums = host.placements.aggregate(**{name: Coalesce(Sum(name), 0) for name in RESOURCES})
    wrong = {
        f"{name}_used": (getattr(host, f"{name}_used"), total)
        for name, total in sums.items()
        if getattr(host, f"{name}_used") != total
    }
    for name, total in sums.items():
        if total > getattr(host, name):
            raise Refusal(
                f"The servers on {host} have {total} {name}, and {getattr(host, name)} are for sale: "
                f"manage.py add_hypervisor {host} --{name.replace('_', '-')} {total}",
                code="oversold",
            )
    if wrong and not dry_run:
        Hypervisor.objects.filter(pk=host.pk).update(**{name: total for name, (_, total) in wrong.items()})
    return wrong


@transaction.atomic(savepoint=False)
def remove_port(port: Port) -> None:
    """Remove a network card and free its addresses.

    An address that a machine has used rests first: caches out there may still lead to that machine.
    """
    rest_s = settings.VPS_ADDRESS_REST if Port.objects.select_for_update().get(pk=port.pk).was_used else 0
    port.addresses.update(port=None, rests_until=Now() + timedelta(seconds=rest_s))
    port.delete()


def _new_mac() -> str:
    """Random, as ids are given out again after a backup was restored, and the machines still run."""
    while True:
        # 52: local and unicast.
        mac = ":".join(f"{byte:02x}" for byte in b"\x52\x54" + secrets.token_bytes(4))
        if not Port.objects.filter(mac=mac).exists():
            return mac


def _claim_address(port: Port, location: Location, family: int) -> None:
    free = IpAddress.objects.filter(
        pool__location=location,
        pool__family=family,
        pool__is_active=True,
        port=None,
        is_reserved=False,
        rests_until__lte=Now(),
    )
    unlocked = free.select_for_update(skip_locked=True, of=("self",)).order_by("rests_until", "pk")
    address, may_be_more = unlocked.first(), True
    while address is None and may_be_more:
        may_be_more = make_more(location, family)
        address = unlocked.first()  # in any case: somebody else may have made the last ones meanwhile
    if address is None:
        raise _no_capacity(f"This plan is sold out in this location: no IPv{family} address is left.")
    address.port = port
    address.save(update_fields=["port"])


def _no_capacity(sentence: str) -> NoCapacity:
    return NoCapacity(sentence, field="location")


def record_image_copies(hypervisor: Hypervisor, images: Collection[int]) -> None:
    """Record that a host has the images with these ids, and no others.  Writes only what changed."""
    recorded = set(hypervisor.image_copies.values_list("image_id", flat=True))
    for image_id in sorted(set(images) - recorded):
        record_image_copy(hypervisor, image_id)
    if gone := recorded - set(images):
        hypervisor.image_copies.filter(image__in=gone).delete()


def record_image_copy(hypervisor: Hypervisor, image_id: int) -> None:
    """Record that a host has an image.  May be repeated."""
    ImageCopy.objects.bulk_create(
        [ImageCopy(hypervisor=hypervisor, image_id=image_id)], ignore_conflicts=True
    )
