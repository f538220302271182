"""How many operations a host has under way: never so many that a slow one takes all workers."""

from django.db.models import F, QuerySet

from core.leases import Lane
from core.locks import operations_of_host
from inventory.models import Hypervisor
from servers.models import Operation


def lane_of(hypervisor: Hypervisor) -> Lane[Operation]:
    """The host's, with ``max_operations`` seats."""
    return Lane(
        operations_of_host(hypervisor.pk), operations_on(hypervisor.pk), seats=hypervisor.max_operations
    )


def operations_on(hypervisor_id: int) -> QuerySet[Operation]:
    """In the order in which they get a seat: what has begun goes on before anything else begins."""
    begun_first = F("started_at").asc(nulls_last=True)
    return Operation.objects.filter(hypervisor=hypervisor_id).order_by(begun_first, "due_at", "pk")
