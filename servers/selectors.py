"""Named querysets."""

from collections.abc import Collection, Iterator
from datetime import timedelta

from django.db.models import Count, F, Q, QuerySet

from accounts.actors import system_actor
from accounts.models import Account
from backups.kinds import BackupKind
from backups.models import Backup
from core import leases
from core.api.references import named_by
from core.errors import NotFound
from inventory.models import Hypervisor
from plans.selectors import versions_on_offer
from servers.lanes import lane_of
from servers.models import Operation, Server
from servers.states import AT_REST, OPEN_OPERATION, OperationKind, ServerStatus
from servers.wishes import RebuildWish

BACKUPS = frozenset({BackupKind.AUTOMATIC, BackupKind.MANUAL})
SNAPSHOTS = frozenset({BackupKind.SNAPSHOT})
RECONCILE = system_actor("reconcile")
MOST_STARTS = 5  # starts by reconcile within an hour


def servers_of(account: Account) -> QuerySet[Server]:
    """An account's servers, without those whose deletion was accepted."""
    return Server.objects.filter(account=account, deleted_at=None)


def one_server_of(account: Account, reference: str) -> Server:
    """A server of this account by id or uuid.  Raises NotFound, for somebody else's just as for nobody's."""
    found = servers_of(account).select_related("plan").filter(named_by(reference)).first()
    if found is None:
        raise NotFound("There is no such server in this account.")
    return found


def backups_of(account: Account, kinds: Collection[BackupKind]) -> QuerySet[Backup]:
    """An account's backups of these kinds, newest first, without those whose deletion was accepted."""
    return Backup.objects.filter(account=account, kind__in=kinds, deleted_at=None).order_by("-pk")


def one_backup_of(account: Account, reference: str, kinds: Collection[BackupKind]) -> Backup:
    """A backup of this account by id or uuid.  Raises NotFound, for somebody else's just as for nobody's."""
    found = backups_of(account, kinds).filter(named_by(reference)).select_related("account").first()
    if found is None:
        what = "snapshot" if BackupKind.SNAPSHOT in kinds else "backup"
        raise NotFound(f"There is no such {what} in this account.")
    return found


def operations_of(account: Account) -> QuerySet[Operation]:
    """The history of an account's servers, newest first; that of deleted ones stays readable."""
    return Operation.objects.filter(server__account=account).order_by("-pk")


def due_operations(late: timedelta) -> QuerySet[Operation]:
    """Operations that have been due for so long and that no worker holds a lease on."""
    return leases.due(Operation.objects.filter(waits=False), late=late).order_by("due_at")


def waiting_operations(late: timedelta) -> Iterator[Operation]:
    """For each host with room, the operation that waits for it: its wake-up was lost with a worker."""
    waiting = leases.due(Operation.objects.filter(waits=True), late=late)
    on_hosts = waiting.exclude(hypervisor=None).annotate(is_backup=Q(backup__isnull=False))
    one_of_each_lane = on_hosts.order_by("hypervisor_id", "is_backup").distinct("hypervisor_id", "is_backup")
    for lane in filter(None, map(lane_of, one_of_each_lane.select_related("hypervisor"))):
        first = (
            leases.due(lane.rows, late=late).filter(Operation.may_begin(), lane.has_seat, waits=True).first()
        )
        if first is not None:
            yield first
    yield from waiting.filter(Operation.may_begin(), hypervisor=None)


def servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    return Server.objects.filter(home__hypervisor=hypervisor)


def active_servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    return servers_on(hypervisor).filter(status=ServerStatus.ACTIVE).select_related("usage")


def idle_servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    """Servers of a host without an open operation: reconcile and host events may change their status."""
    return (
        servers_on(hypervisor)
        .filter(status__in=AT_REST)
        .exclude(operations__status__in=OPEN_OPERATION)
        .order_by("pk")
    )


def failed_creates_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    """Servers in error whose machine could not be removed yet: they still hold their claims."""
    return (
        servers_on(hypervisor)
        .filter(status=ServerStatus.ERROR)
        .exclude(operations__status__in=OPEN_OPERATION)
        .select_related("home__hypervisor")
    )


def servers_that_keep_dying() -> QuerySet[Server]:
    """Stopped servers whose QEMU died each time, and that reconcile has started as often as it may."""
    starts = Q(
        operations__kind=OperationKind.START,
        operations__actor_kind=RECONCILE.kind,
        operations__actor_id=RECONCILE.id,
        operations__created_at__gt=F("written_at") - timedelta(hours=1),
    )
    stopped = Server.objects.filter(status=ServerStatus.STOPPED)
    return stopped.annotate(starts=Count("operations", filter=starts)).filter(starts__gte=MOST_STARTS)


def idle_suspended_servers() -> QuerySet[Server]:
    """Suspended servers that nothing is being done to: their machines should be off."""
    suspended = Server.objects.filter(status=ServerStatus.SUSPENDED)
    return suspended.exclude(operations__status__in=OPEN_OPERATION)


def given_up_servers() -> QuerySet[Server]:
    """Servers of which no host should have a machine or a file: deleted, or never made."""
    given_up = [ServerStatus.DELETED, ServerStatus.ERROR]
    return Server.objects.filter(status__in=given_up, home=None)


def images_needed_on(hypervisor: Hypervisor) -> set[int]:
    """The ids of the images that a host must keep.

    These are the images of open operations there, the base images of the servers that are there or move
    there, and the images on offer for new servers.
    """
    # In this order: a rebuild records the server's new image before it ends.
    rebuilds = Operation.objects.filter(
        hypervisor=hypervisor, kind=OperationKind.REBUILD, status__in=OPEN_OPERATION
    )
    wanted = {wish.image_id for wish in (row.typed_wish for row in rebuilds) if isinstance(wish, RebuildWish)}
    here = Q(home__hypervisor=hypervisor) | Q(incoming__hypervisor=hypervisor)
    there = Server.objects.filter(here, disk_needs_image=True)
    based_on = there.order_by().values_list("base_image", flat=True).distinct()
    on_offer = versions_on_offer().values_list("image", flat=True)
    return wanted | set(based_on) | {pk for pk in on_offer if pk is not None}
