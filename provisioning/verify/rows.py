"""Reads all rows in one snapshot, so that a difference between them is a fault."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from core import clock
from images.models import Image
from inventory.models import Hypervisor, IpAddress, IpPool, Placement, Port
from inventory.pools import counted, counts_of
from plans.selectors import versions_on_offer
from provisioning.images import file_of
from provisioning.trials import trials
from provisioning.verify.snapshot import (
    AddressRow,
    Again,
    BackupRow,
    HostRow,
    ImageRow,
    OperationRow,
    PlacementRow,
    PoolRow,
    PortRow,
    Rows,
    ServerRow,
    Size,
    TrialRow,
)
from servers.models import Operation, Server
from servers.selectors import servers_that_keep_dying
from servers.states import (
    OPEN_OPERATION,
    BackupOperationKind,
    OperationKind,
    OperationStatus,
    ServerStatus,
)

_ENDED = [BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.DELETING, BackupStatus.DELETED]


def read_rows() -> Rows:
    with transaction.atomic():
        _see_one_moment()
        return Rows(
            at=clock.now(),
            hosts={row.name: _host(row) for row in Hypervisor.objects.select_related("location")},
            placements={row.id: row for row in _placements()},
            ports={row.id: row for row in _ports()},
            servers={row.uuid: row for row in _servers(Server.objects.all())},
            backups={row.uuid: row for row in _backups(Backup.objects.all())},
            frozen_perhaps=_frozen_perhaps(),
            trials=_trials(),
            pools=tuple(_pools()),
            images=tuple(_images()),
            known_images=frozenset(Image.objects.values_list("sha256", flat=True)),
        )


def read_again(machines: Collection[UUID]) -> Again:
    """The rows of some servers and of their backups, and all trials, as they are now.

    A server that is gone is left out, as by ``read_rows``.
    """
    with transaction.atomic():
        _see_one_moment()
        servers, backups = Server.objects.filter(uuid__in=machines), Backup.objects.all()
        return Again(
            servers={row.uuid: row for row in _servers(servers)},
            trials=_trials(),
            backups={row.uuid: row for row in _backups(backups.filter(server_uuid__in=machines))},
        )


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
    return [
        PlacementRow(id=row.pk, host=row.hypervisor.name, size=_size(row))
        for row in Placement.objects.select_related("hypervisor")
    ]


def _ports() -> list[PortRow]:
    addresses: dict[int | None, list[AddressRow]] = defaultdict(list)
    given = IpAddress.objects.exclude(port=None).order_by("pk")
    for port, address, location in given.values_list("port", "address", "pool__location__code"):
        addresses[port].append(AddressRow(address=address, location=location))
    return [PortRow(id=row.pk, mac=row.mac, addresses=tuple(addresses[row.pk])) for row in Port.objects.all()]


def _servers(servers: QuerySet[Server]) -> list[ServerRow]:
    held = servers.exclude(status=ServerStatus.DELETED, home=None)
    of_them = Operation.objects.filter(status__in=OPEN_OPERATION, server__in=held)
    operations = {row.server_id: _operation(row) for row in of_them}
    dying = set(servers_that_keep_dying().values_list("pk", flat=True))
    automatic = Backup.objects.filter(
        server_id=OuterRef("pk"), kind=BackupKind.AUTOMATIC, status__in=_ENDED
    ).order_by("-pk")
    rows = (
        held.select_related("plan", "location", "usage", "base_image")
        .annotate(last_automatic=Subquery(automatic.values("status")[:1]))
        .order_by("pk")
    )
    return [_server(row, operations.get(row.pk), row.pk in dying) for row in rows]


def _server(row: Server, operation: OperationRow | None, keeps_dying: bool) -> ServerRow:
    usage = getattr(row, "usage", None)
    return ServerRow(
        id=row.pk,
        uuid=row.uuid,
        status=ServerStatus(row.status),
        location=row.location.code,
        plan=_size(row.plan),
        base_image=row.base_image.sha256 if row.disk_needs_image else None,
        disk_number=row.disk_number,
        home=row.home_id,
        incoming=row.incoming_id,
        port=row.port_id,
        operation=operation,
        reported=tuple(row.guest_addresses),
        written_at=row.written_at,
        sampled_at=usage and usage.sampled_at,
        keeps_dying=keeps_dying,
        backup_due_at=row.backup_due_at,
        last_automatic=row.last_automatic and BackupStatus(row.last_automatic),  # type: ignore[attr-defined]
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


def _backups(chosen: QuerySet[Backup]) -> Iterator[BackupRow]:
    is_open = Exists(Operation.objects.filter(backup=OuterRef("pk"), status__in=OPEN_OPERATION))
    rows = chosen.annotate(is_open=is_open).filter(Q(status=BackupStatus.COMPLETED) | Q(is_open=True))
    newest: set[int] = set()
    for row in rows.order_by("-pk").iterator():
        is_whole = row.status == BackupStatus.COMPLETED
        yield BackupRow(
            id=row.pk,
            uuid=row.uuid,
            copied_as=row.copied_as,
            server=row.server_uuid,
            server_id=row.server_id,
            status=BackupStatus(row.status),
            is_open=row.is_open,
            verified_at=row.verified_at,
            damage=row.damage,
            is_newest=is_whole and row.server_id not in newest,
        )
        newest |= {row.server_id} if is_whole else set()


def _frozen_perhaps() -> dict[str, tuple[UUID, ...]]:
    """By host, the machines of which a backup was begun lately and did not come about."""
    lately = Backup.objects.filter(created_at__gt=Now() - timedelta(days=2), was_running=True)
    unfinished = lately.exclude(status=BackupStatus.COMPLETED)
    begun = Operation.objects.filter(
        kind=BackupOperationKind.TAKE, backup=OuterRef("pk"), step="begin_backup"
    )
    suspects = unfinished | Backup.objects.filter(Exists(begun), status=BackupStatus.IN_PROGRESS)
    found: dict[str, set[UUID]] = defaultdict(set)
    servers = Server.objects.filter(uuid__in=suspects.values("server_uuid")).exclude(home=None)
    for uuid, host in servers.values_list("uuid", "home__hypervisor__name"):
        found[host].add(uuid)
    return {host: tuple(uuids) for host, uuids in found.items()}


def _trials() -> dict[UUID, TrialRow]:
    """Those under way, and those just ended: reconcile removes what they left."""
    lately = Q(finished_at=None) | Q(finished_at__gt=Now() - timedelta(minutes=10))
    rows = trials().filter(lately, trial_room__isnull=False).select_related("hypervisor")
    return {row.uuid: TrialRow(host=str(row.hypervisor), placement=row.trial_room_id or 0) for row in rows}


def _pools() -> list[PoolRow]:
    pools = [(pool.network, counts_of(pool)) for pool in counted(IpPool.objects.filter(is_active=True))]
    return [PoolRow(network=network, addresses=count.usable, free=count.free) for network, count in pools]


def _images() -> list[ImageRow]:
    return [
        ImageRow(os=name, sha256=sha256, is_there=file_of(sha256).is_file())
        for name, sha256 in versions_on_offer().values_list("name", "image__sha256")
    ]
