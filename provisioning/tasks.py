"""The Celery tasks, by the names that others send.  Each looks a row up and hands it on."""

from datetime import timedelta

from celery import current_app, shared_task
from django.utils import timezone

from inventory.models import Hypervisor
from provisioning import hosts, reconcile
from provisioning.carry_out import carry_out
from provisioning.hypervisors.base import MachineNotFound
from servers import services
from servers.models import Server
from servers.selectors import due_operations

# A message on its way, or waiting behind others, is not forgotten yet.
FORGOTTEN_AFTER = timedelta(seconds=15)


@shared_task(name="provisioning.carry_out")
def carry_out_operation(operation_id: int) -> None:
    carry_out(operation_id)


@shared_task(name="provisioning.sweep")
def sweep() -> None:
    """Find what is due and was forgotten: flush the broker, and nothing is lost."""
    for pk in due_operations(timezone.now() - FORGOTTEN_AFTER).values_list("pk", flat=True)[:1000]:
        services.wake(pk)
    reconcile.clear_failed_creates()


@shared_task(name="provisioning.reconcile_all")
def reconcile_all() -> None:
    _for_each_host("provisioning.reconcile")


@shared_task(name="provisioning.reconcile")
def reconcile_host(hypervisor_id: int) -> None:
    reconcile.reconcile(Hypervisor.objects.get(pk=hypervisor_id))


@shared_task(name="provisioning.sample_all")
def sample_all() -> None:
    _for_each_host("provisioning.sample")


@shared_task(name="provisioning.sample")
def sample_host(hypervisor_id: int) -> None:
    reconcile.sample_usage(Hypervisor.objects.get(pk=hypervisor_id))


@shared_task(name="provisioning.rename")
def rename(server_id: int) -> None:
    """Show a server's new name on its host.  A machine that is not there yet gets it when it is made."""
    server = Server.objects.select_related("placement__hypervisor").get(pk=server_id)
    try:
        hosts.host_of(server).rename(server.uuid, server.name)
    except MachineNotFound:
        return


def _for_each_host(task: str) -> None:
    hosts_in_use = Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED)
    for pk in hosts_in_use.values_list("pk", flat=True):
        current_app.send_task(task, [pk], expires=30)
