"""The Celery tasks; other rooms send them by name.  Each looks up a row and passes it on."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from celery import current_app, shared_task
from django.db import connection
from kombu.exceptions import OperationalError

from core import clock, queues
from core.locks import reconcile_of_host, try_lock
from inventory.models import Hypervisor
from provisioning import hypervisors, image_copies, reconcile
from provisioning.drivers.base import MachineNotFound
from provisioning.engine import carry_out
from servers.models import Server

log = logging.getLogger(__name__)

STALE_AFTER_S = 30
THREADS = 4


@shared_task(name="provisioning.carry_out")
def carry_out_operation(operation_id: int) -> None:
    carry_out(operation_id)


@shared_task(name="provisioning.reconcile_all")
def reconcile_all() -> None:
    _for_each_host("provisioning.reconcile", reconcile_host)


@shared_task(name="provisioning.reconcile")
def reconcile_host(hypervisor_id: int, sent_at: str | None = None) -> None:
    """One worker at a time reconciles a host: a slow host must not occupy them all."""
    if _is_stale(sent_at):
        return
    with try_lock(reconcile_of_host(hypervisor_id)) as mine:
        if mine:
            reconcile.reconcile(Hypervisor.objects.get(pk=hypervisor_id))
        else:
            log.warning(
                "host %d is not reconciled now: another worker is still at it, or frozen", hypervisor_id
            )


@shared_task(name="provisioning.sample_all")
def sample_all() -> None:
    _for_each_host("provisioning.sample", sample_host)


@shared_task(name="provisioning.sample")
def sample_host(hypervisor_id: int, sent_at: str | None = None) -> None:
    if _is_stale(sent_at):
        return
    reconcile.sample_usage(Hypervisor.objects.get(pk=hypervisor_id))


@shared_task(name="provisioning.see_to_images_all")
def see_to_images_all() -> None:
    _for_each_host("provisioning.see_to_images", see_to_images_of_host)


@shared_task(name="provisioning.see_to_images")
def see_to_images_of_host(hypervisor_id: int, sent_at: str | None = None) -> None:
    if not _is_stale(sent_at):
        image_copies.see_to_images(Hypervisor.objects.get(pk=hypervisor_id))


@shared_task(name="provisioning.rename")
def rename(server_id: int) -> None:
    """Show a server's new name on its host.  A machine that is not there yet gets it when it is made."""
    server = Server.objects.select_related("home__hypervisor").get(pk=server_id)
    try:
        hypervisors.driver_of(server).rename(server.uuid, server.name)
    except MachineNotFound:
        return


def _for_each_host(task: str, here: Callable[[int], None]) -> None:
    """Send each host's message to the workers of its location.  Without a broker, do the work here."""
    in_use = Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED)
    hosts = dict(in_use.values_list("pk", "location__code"))
    told = {"sent_at": clock.now().isoformat()}
    try:
        for pk in list(hosts):
            current_app.send_task(task, [pk], told, queue=queues.at(hosts[pk]))
            del hosts[pk]
    except (OperationalError, OSError) as error:
        log.error("no broker (%s): %s of %d hosts is done here", error, task, len(hosts))
        with ThreadPoolExecutor(THREADS) as threads:
            for pk in hosts:
                threads.submit(_do_in_thread, here, pk)


def _do_in_thread(work: Callable[[int], None], hypervisor_id: int) -> None:
    try:
        work(hypervisor_id)
    except Exception:
        log.exception("host %d: this failed here", hypervisor_id)
    finally:
        connection.close()


def _is_stale(sent_at: str | None) -> bool:
    """Whether a message waited so long for a worker that others follow it, by Postgres's clock."""
    return sent_at is not None and clock.seconds_since(sent_at) > STALE_AFTER_S
