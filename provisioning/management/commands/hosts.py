from typing import Any

from django.db.models import Count, QuerySet

from core import clock
from core.commands import ListCommand, age_of
from inventory.models import Hypervisor, Placement
from servers.models import Operation
from servers.states import OPEN_OPERATION


class Command(ListCommand):
    help = (
        "List the hypervisors: how they are, what is sold of what they have for sale (vCPUs, MiB of memory, "
        "GiB of disk), how many servers and open operations they have, and their last error. Asks the "
        "database only; check_hypervisor asks a host. Example: manage.py hosts"
    )

    def handle(self, *args: Any, json: bool, **options: Any) -> None:
        now = clock.now()
        placements = _by_host(Placement.objects.all())
        operations = _by_host(Operation.objects.filter(status__in=OPEN_OPERATION))
        rows = [
            {
                "name": host.name,
                "location": host.location.code,
                "status": host.status,
                "reachable": host.is_reachable,
                "ready": host.is_ready,
                "vcpus": f"{host.vcpus_used}/{host.vcpus}",
                "memory": f"{host.memory_mib_used}/{host.memory_mib}",
                "disk": f"{host.disk_gib_used}/{host.disk_gib}",
                "servers": placements.get(host.pk, 0),
                "operations": operations.get(host.pk, 0),
                "seen": age_of(host.last_seen_at, now),
                "error": " ".join(host.last_error.split()),
            }
            for host in Hypervisor.objects.select_related("location")
        ]
        self.show(rows, as_json=json)


def _by_host(rows: QuerySet[Any]) -> dict[int, int]:
    return dict(rows.order_by().values_list("hypervisor").annotate(Count("pk")))
