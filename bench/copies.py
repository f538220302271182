"""python -m bench.copies take 1: one piece of work with backups, done as a worker does it.

Each in a process of its own, whose memory is that of a worker with one task.  Prints, as JSON, what it took.
"""

import json
import logging
import re
import resource
import shutil
import sys
from threading import Lock
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import django
from django.conf import settings
from django.utils import timezone


def make(plan: str) -> dict[str, Any]:
    """A server with this plan, running."""
    from accounts.models import Account
    from inventory.models import Hypervisor
    from plans.models import Location, OsVersion, Plan
    from servers import services
    from servers.models import Operation

    server = services.create_server(
        account=Account.objects.earliest("pk"),
        name="bench",
        plan=Plan.objects.get(slug=plan),
        os_version=OsVersion.objects.get(pk=5),
        location=Location.objects.get(pk=Hypervisor.objects.earliest("pk").location_id),
    )
    _carry_out(Operation.objects.get(server=server))
    server.refresh_from_db()
    if server.status != "active":
        sys.exit(f"server {server.pk} is {server.status}")
    return {"server": server.pk, "uuid": str(server.uuid)}


def take(server_id: str, mib_per_s: str = "", for_s: str = "0") -> dict[str, Any]:
    """A manual backup; the store may take no more than so much for so many seconds."""
    from backups.kinds import BackupKind
    from servers import backup_services
    from servers.models import Operation, Server

    if mib_per_s:
        _slow_down(float(mib_per_s) * 2**20, float(for_s))
    held = Held()
    logging.getLogger("provisioning.drivers").addHandler(held)
    backup = backup_services.take_backup(server=Server.objects.get(pk=server_id), kind=BackupKind.MANUAL)
    began = monotonic()
    _carry_out(Operation.objects.get(backup=backup))
    seconds = monotonic() - began
    backup.refresh_from_db()
    if backup.status != "completed":
        sys.exit(f"backup {backup.pk} is {backup.status}: {backup.message}")
    return {
        "backup": backup.pk,
        "is_full": backup.parent is None,
        "seconds": seconds,
        "held_s": held.seconds,
        "new_bytes": backup.new_bytes,
    }


def restore(backup_id: str) -> dict[str, Any]:
    """A disk from a backup, of a machine that there is not."""
    from backups.models import Backup
    from inventory.models import Hypervisor
    from provisioning import hypervisors
    from provisioning.backup_steps import write_disk_from
    from provisioning.drivers.base import Image, MachineSpec

    backup = Backup.objects.get(pk=backup_id)
    driver = hypervisors.driver_for(Hypervisor.objects.earliest("pk"))
    spec = MachineSpec(
        uuid=uuid4(),
        name="restored",
        account="bench",
        hostname="restored",
        vcpus=1,
        memory_mib=128,
        disk_gib=backup.disk_gib,
        image=Image(sha256=backup.base_image.sha256),
        nics=(),
    )
    began = monotonic()
    write_disk_from(backup, driver, spec, require_ours=lambda: None)
    return {"seconds": monotonic() - began, "uuid": str(spec.uuid)}


def forget() -> dict[str, Any]:
    """All backups and all that is stored: the next one is a full one."""
    from backups.models import Backup
    from servers.models import Operation

    Operation.objects.exclude(backup=None).delete()
    Backup.objects.all().delete()
    shutil.rmtree(settings.VPS_BACKUP_STORE, ignore_errors=True)
    return {}


class Held(logging.Handler):
    """How long the guest's file systems were held still, as the log says."""

    seconds = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if told := re.search(r"held still for ([\d.]+) s", record.getMessage()):
            self.seconds = float(told[1])


def _carry_out(operation: Any) -> None:
    """All of it, asking again a little sooner than a worker would."""
    from provisioning.engine import carry_out

    while operation.finished_at is None:
        type(operation).objects.filter(pk=operation.pk).update(due_at=timezone.now())
        carry_out(operation.pk)
        operation.refresh_from_db()
        sleep(0.02)


def _slow_down(bytes_per_s: float, for_s: float) -> None:
    """Let all threads together bring so much to the store, for so long."""
    from backups.store import Store

    put, lock, until = Store.put, Lock(), monotonic() + for_s

    def slowly(store: Store, path: str, data: bytes | bytearray) -> None:
        with lock:
            sleep(max(0.0, min(len(data) / bytes_per_s, until - monotonic())))
        put(store, path, data)

    Store.put = slowly  # type: ignore[assignment, method-assign]


WORKS = {work.__name__: work for work in (make, take, restore, forget)}


if __name__ == "__main__":
    django.setup()
    from accounts.actors import acting_as, operator_actor

    logging.getLogger("provisioning.drivers").setLevel(logging.INFO)
    with acting_as(operator_actor("bench")):
        told = WORKS[sys.argv[1]](*sys.argv[2:])
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(told | {"peak_mib": peak_mib}))
