"""Reads all rows as they were at one moment: where they disagree, something is wrong."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from inventory.models import Hypervisor, IpAddress, IpPool, Placement
from plans.selectors import versions_on_offer
from provisioning.verify.snapshot import (
    AddressRow,
    HostRow,
    ImageRow,
    OperationRow,
    PlacementRow,
    PoolRow,
    Rows,
    ServerRow,
    Size,
)
from servers.models import Operation, Server
from servers.selectors import servers_that_keep_dying
from servers.states import OPEN_OPERATION, OperationKind, OperationStatus, ServerStatus


def read_rows() -> Rows:
    with transaction.atomic():
        _see_one_moment()
        return Rows(
            at=timezone.now(),
            hosts={row.name: _host(row) for row in Hypervisor.objects.select_related("location")},
            placements={row.id: row for row in _placements()},
            servers={row.uuid: row for row in _servers(Server.objects.all())},
            pools=tuple(_pool(row) for row in _counted_pools()),
            images=tuple(_images()),
        )


def read_again(machines: Collection[UUID]) -> dict[UUID, ServerRow]:
    """What is said now of some servers; one that is gone is left out, as ``read_rows`` does."""
    with transaction.atomic():
        _see_one_moment()
        return {row.uuid: row for row in _servers(Server.objects.filter(uuid__in=machines))}


def _see_one_moment() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _host(row: Hypervisor) -> HostRow:
    return HostRow(
        name=row.name,
        location=row.location.code,
        status=Hypervisor.Status(row.status),
        domain_type=row.domain_type,
        for_sale=_size(row),
        used=Size(vcpus=row.vcpus_used, memory_mib=row.memory_mib_used, disk_gib=row.disk_gib_used),
        last_seen_at=row.last_seen_at,
    )


def _size(row: Any) -> Size:
    return Size(vcpus=row.vcpus, memory_mib=row.memory_mib, disk_gib=row.disk_gib)


def _placements() -> list[PlacementRow]:
    addresses: dict[int | None, list[AddressRow]] = defaultdict(list)
    given = IpAddress.objects.exclude(placement=None).order_by("pk")
    for placement, address, location in given.values_list("placement", "address", "pool__location__code"):
        addresses[placement].append(AddressRow(address=address, location=location))
    return [
        PlacementRow(
            id=row.pk,
            host=row.hypervisor.name,
            size=_size(row),
            mac=row.mac,
            addresses=tuple(addresses[row.pk]),
        )
        for row in Placement.objects.select_related("hypervisor")
    ]


def _servers(servers: QuerySet[Server]) -> list[ServerRow]:
    held = servers.exclude(status=ServerStatus.DELETED, placement=None)
    of_them = Operation.objects.filter(status__in=OPEN_OPERATION, server__in=held)
    operations = {row.server_id: _operation(row) for row in of_them}
    dying = set(servers_that_keep_dying().values_list("pk", flat=True))
    rows = held.select_related("plan", "location", "usage").order_by("pk")
    return [_server(row, operations.get(row.pk), row.pk in dying) for row in rows]


def _server(row: Server, operation: OperationRow | None, keeps_dying: bool) -> ServerRow:
    usage = getattr(row, "usage", None)
    return ServerRow(
        id=row.pk,
        uuid=row.uuid,
        status=ServerStatus(row.status),
        location=row.location.code,
        plan=_size(row.plan),
        placement=row.placement_id,
        operation=operation,
        reported=tuple(address for address in (row.ip_address, row.ipv6_address) if address),
        settled_at=row.settled_at,
        sampled_at=usage and usage.sampled_at,
        keeps_dying=keeps_dying,
    )


def _operation(row: Operation) -> OperationRow:
    return OperationRow(
        id=row.pk,
        kind=OperationKind(row.kind),
        status=OperationStatus(row.status),
        created_at=row.created_at,
        due_at=row.due_at,
        lease_until=row.lease_until,
        deadline_at=row.deadline_at,
    )


def _counted_pools() -> QuerySet[IpPool]:
    for_servers = Q(addresses__is_reserved=False)
    return IpPool.objects.filter(is_active=True).annotate(
        total=Count("addresses", filter=for_servers),
        free=Count("addresses", filter=for_servers & Q(addresses__placement=None)),
    )


def _pool(row: Any) -> PoolRow:
    return PoolRow(network=row.network, addresses=row.total, free=row.free)


def _images() -> list[ImageRow]:
    return [
        ImageRow(os=row.name, sha256=row.image_sha256, is_there=_is_there(row.image_sha256))
        for row in versions_on_offer()
    ]


def _is_there(sha256: str) -> bool:
    return (settings.VPS_IMAGE_DIR / f"{sha256}.qcow2").is_file()
