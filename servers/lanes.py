"""How many operations a host has under way: never so many that a slow one takes all workers.

Backups have a lane of their own: an order of a customer never waits for one.
"""

from django.conf import settings
from django.db.models import F, QuerySet

from core.leases import Lane
from core.locks import backups_of_host, operations_of_host
from servers.models import Operation


def lane_of(operation: Operation) -> Lane[Operation] | None:
    """The lane of the operation on its host: ``max_operations`` seats, or VPS_BACKUPS_PER_HOST for backups.

    None: it is done on no host.
    """
    host = operation.hypervisor
    if host is None:
        return None
    if operation.backup_id is None:
        return Lane(operations_of_host(host.pk), neighbours_of(operation), seats=host.max_operations)
    return Lane(backups_of_host(host.pk), neighbours_of(operation), seats=settings.VPS_BACKUPS_PER_HOST)


def neighbours_of(operation: Operation) -> QuerySet[Operation]:
    """The operations of the same lane, in the order in which they get a seat.

    What has begun goes on before anything else begins.
    """
    begun_first = F("started_at").asc(nulls_last=True)
    same = Operation.objects.filter(
        hypervisor=operation.hypervisor_id, backup__isnull=operation.backup_id is None
    )
    return same.order_by(begun_first, "due_at", "pk")
