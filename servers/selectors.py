"""The querysets worth a name."""

from datetime import timedelta

from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Now

from accounts.models import Account
from inventory.models import Hypervisor
from servers.models import Operation, Server
from servers.states import AT_REST, OPEN_OPERATION, OperationKind, OperationStatus, ServerStatus
from vpsorg.api.references import named_by
from vpsorg.errors import NotFound

RECONCILE = "reconcile"
MOST_STARTS = 5  # by reconcile, within an hour


def servers_of(account: Account) -> QuerySet[Server]:
    """What an account has: a server whose deletion was accepted is gone."""
    return Server.objects.filter(account=account, deleted_at=None)


def one_server_of(account: Account, reference: str) -> Server:
    """A server of this account by id or uuid.  Raises NotFound, for somebody else's just as for nobody's."""
    found = servers_of(account).select_related("plan").filter(named_by(reference)).first()
    if found is None:
        raise NotFound("There is no such server in this account.")
    return found


def operations_of(account: Account) -> QuerySet[Operation]:
    """The history of an account's servers, newest first; that of deleted ones stays readable."""
    return Operation.objects.filter(server__account=account).order_by("-pk")


def due_operations(late: timedelta) -> QuerySet[Operation]:
    """What has been due for so long and is not under way, or was left when a worker's lease ended."""
    since = Now() - late
    return Operation.objects.filter(
        Q(status=OperationStatus.QUEUED, due_at__lt=since)
        | Q(status=OperationStatus.RUNNING, lease_until__lt=since)
    ).order_by("due_at")


def servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    return Server.objects.filter(placement__hypervisor=hypervisor)


def active_servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    return servers_on(hypervisor).filter(status=ServerStatus.ACTIVE).select_related("usage")


def idle_servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    """Servers of a host that nothing is being done to: the watch may speak about them."""
    return (
        servers_on(hypervisor)
        .filter(status__in=AT_REST)
        .exclude(operations__status__in=OPEN_OPERATION)
        .order_by("pk")
    )


def failed_creates_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    """Servers in error whose host could not be cleared at the time: their claims are still held."""
    return (
        servers_on(hypervisor)
        .filter(status=ServerStatus.ERROR)
        .exclude(operations__status__in=OPEN_OPERATION)
        .select_related("placement__hypervisor")
    )


def servers_that_keep_dying() -> QuerySet[Server]:
    """Stopped, for their QEMU died each time, and reconcile has started them as often as it may."""
    starts = Q(
        operations__kind=OperationKind.START,
        operations__requested_by=RECONCILE,
        operations__created_at__gt=F("settled_at") - timedelta(hours=1),
    )
    stopped = Server.objects.filter(status=ServerStatus.STOPPED)
    return stopped.annotate(starts=Count("operations", filter=starts)).filter(starts__gte=MOST_STARTS)


def given_up_servers() -> QuerySet[Server]:
    """Servers of which no host should have anything: deleted, or never made."""
    given_up = [ServerStatus.DELETED, ServerStatus.ERROR]
    return Server.objects.filter(status__in=given_up, placement=None)
