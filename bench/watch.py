"""python -m bench.watch HOST 300: so many running machines on a host, and what it costs to watch them.

Prints what a reconcile takes, without the time that libvirt takes to answer.
"""

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter, process_time
from typing import Any

import django
from django.db import connection
from django.utils import timezone

ROUNDS = 11


def main(host_name: str, servers: int) -> None:
    from inventory.models import Hypervisor
    from provisioning import hypervisors
    from servers.models import Server

    host = Hypervisor.objects.get(name=host_name)
    driver = hypervisors.driver_for(host)
    _populate(host, driver, servers)
    print(f"\nReconcile of {servers} machines on one host; milliseconds, medians of {ROUNDS}")
    print(f"{'':34}{'ours':>9}{'libvirt':>9}{'our CPU':>9}{'SQL statements':>16}")
    _print("nothing has changed", host, lambda: None)

    def switch_all() -> None:
        """On the host they run; what we say is that they are off."""
        Server.objects.filter(home__hypervisor=host).update(
            status="stopped", written_at=timezone.now(), power_state="off"
        )

    _print("all have changed", host, switch_all)
    if Server.objects.filter(home__hypervisor=host, status="active").count() != servers:
        sys.exit("Not every server follows its host.")
    for uuid in driver.powers():
        driver.delete(uuid)


def _populate(host: Any, driver: Any, servers: int) -> None:
    from accounts.models import Account
    from images.models import Image
    from inventory.models import Placement
    from plans.models import Location, OsVersion, Plan
    from servers.models import ResourceUsage, Server

    image = Image.objects.create(
        sha256="0" * 64, size_bytes=1, virtual_size_bytes=1, minimum_disk_gib=1, has_agent=False
    )
    plan, size = Plan.objects.get(slug="bench"), {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}
    placements = Placement.objects.bulk_create(
        [Placement(hypervisor=host, **size) for _ in range(servers)], batch_size=1000
    )
    of = {
        "account": Account.objects.first(),
        "plan": plan,
        "os_version": OsVersion.objects.get(pk=5),
        "base_image": image,
        "location": Location.objects.get(pk=host.location_id),
        "status": "active",
        "power_state": "running",
    }
    rows = Server.objects.bulk_create(
        Server(name=f"watched-{number}", hostname="watched", home=placement, **of)
        for number, placement in enumerate(placements)
    )
    ResourceUsage.objects.bulk_create(ResourceUsage(server=row) for row in rows)
    for row in rows:
        driver.define(_spec(row))
        driver.start(row.uuid)


def _spec(server: Any) -> Any:
    from provisioning.drivers.base import Image, MachineSpec

    return MachineSpec(
        uuid=server.uuid,
        name=server.name,
        account="bench",
        hostname=server.hostname,
        vcpus=1,
        memory_mib=128,
        disk_gib=1,
        image=Image(sha256="0" * 64),
        nics=(),
    )


def _print(name: str, host: Any, before: Callable[[], None]) -> None:
    from provisioning import hypervisors, reconcile

    ours, theirs, cpu, statements = [], [], [], 0
    for _ in range(ROUNDS + 1):
        before()
        began = perf_counter()
        hypervisors.driver_for(host).powers()
        libvirts = perf_counter() - began
        count = Counter()
        began, began_cpu = perf_counter(), process_time()
        with ExitStack() as counted:
            counted.enter_context(connection.execute_wrapper(count))
            reconcile.reconcile(host)
        ours.append(perf_counter() - began - libvirts)
        cpu.append(process_time() - began_cpu)
        theirs.append(libvirts)
        statements = count.statements
    columns = [1000 * statistics.median(column[1:]) for column in (ours, theirs, cpu)]  # the first is warm-up
    print(f"{name:34}{columns[0]:9.1f}{columns[1]:9.1f}{columns[2]:9.1f}{statements:16}")


class Counter:
    def __init__(self) -> None:
        self.statements = 0

    def __call__(self, execute: Any, *args: Any) -> Any:
        self.statements += 1
        return execute(*args)


if __name__ == "__main__":
    django.setup()
    main(sys.argv[1], int(sys.argv[2]))
