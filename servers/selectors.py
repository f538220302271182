"""The querysets worth a name."""

from datetime import datetime

from django.db.models import Q, QuerySet

from accounts.models import Account
from inventory.models import Hypervisor
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, OperationStatus, ServerStatus
from vpsorg.api.references import named_by
from vpsorg.errors import NotFound


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


def due_operations(now: datetime) -> QuerySet[Operation]:
    """What should be under way and is not: queued and due, or left by a worker whose lease ended."""
    return Operation.objects.filter(
        Q(status=OperationStatus.QUEUED, due_at__lt=now)
        | Q(status=OperationStatus.RUNNING, lease_until__lt=now)
    ).order_by("due_at")


def servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    return Server.objects.filter(placement__hypervisor=hypervisor)


def active_servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    return servers_on(hypervisor).filter(status=ServerStatus.ACTIVE).select_related("usage")


def idle_servers_on(hypervisor: Hypervisor) -> QuerySet[Server]:
    """Servers of a host that nothing is being done to: the watch may speak about them."""
    settled = [ServerStatus.ACTIVE, ServerStatus.STOPPED, ServerStatus.SUSPENDED]
    return (
        servers_on(hypervisor)
        .filter(status__in=settled)
        .exclude(operations__status__in=OPEN_OPERATION)
        .order_by("pk")
    )


def failed_creates_with_claims() -> QuerySet[Server]:
    """Servers in error whose host could not be cleared at the time: their claims are still held."""
    return (
        Server.objects.filter(status=ServerStatus.ERROR)
        .exclude(placement=None)
        .exclude(operations__status__in=OPEN_OPERATION)
        .select_related("placement__hypervisor")
    )
