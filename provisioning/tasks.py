"""The Celery tasks, by the names that others send.  Each looks a row up and hands it on."""

from celery import current_app, shared_task

from inventory.models import Hypervisor
from provisioning import hosts, reconcile
from provisioning.carry_out import carry_out
from provisioning.hypervisors.base import MachineNotFound
from servers.models import Server
from vpsorg import queues
from vpsorg.only_one import only_one


@shared_task(name="provisioning.carry_out")
def carry_out_operation(operation_id: int) -> None:
    carry_out(operation_id)


@shared_task(name="provisioning.reconcile_all")
def reconcile_all() -> None:
    _for_each_host("provisioning.reconcile")


@shared_task(name="provisioning.reconcile")
def reconcile_host(hypervisor_id: int) -> None:
    """By one worker at a time: a host that is slow to answer must not take them all."""
    with only_one(f"reconcile host {hypervisor_id}") as mine:
        if mine:
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
    in_use = Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED)
    for pk, location in in_use.values_list("pk", "location__code"):
        current_app.send_task(task, [pk], queue=queues.at(location), expires=30)
