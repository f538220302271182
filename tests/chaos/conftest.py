"""The product's processes, to be killed: workers and sweeps on the suite's Postgres, Redis and libvirt.

Guests have no system inside: QEMU runs, nothing boots, a create takes a second.
"""

import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.db import connection, transaction

from backups.models import Backup
from deploy.local.folder import PROJECT
from deploy.local.processes import Process, wait_for
from images.models import Image
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.reconcile import remove_trials
from servers.backup_services import boot_backup
from servers.models import Operation
from servers.states import OPEN_OPERATION
from tests.chaos.luck import SEED
from tests.chaos.wrong_clock import WrongClock
from tests.flows.conftest import empty_image, host, order, small, small_libvirtd  # noqa: F401  (fixtures)
from tests.private_services import POSTGRES, VAR

LEASE_S = 3
PATIENCE_S = 120


@dataclass
class Plant:
    """One worker with four processes, one for backups with two, and two sweeps."""

    orders: Path
    environment: dict[str, str]
    worker: Process = field(init=False)
    backups: Process = field(init=False)
    sweeps: list[Process] = field(init=False)

    def __post_init__(self) -> None:
        var = VAR / "chaos"
        self.worker = Process("worker", var, stop_signal=signal.SIGKILL)
        self.backups = Process("backups", var, stop_signal=signal.SIGKILL)
        self.sweeps = [Process(f"sweep{number}", var, stop_signal=signal.SIGKILL) for number in (1, 2)]

    def start(self) -> None:
        self.start_worker()
        for sweep in self.sweeps:
            command = [
                sys.executable,
                "manage.py",
                "scheduler",
                "--without-jobs",
                "--every",
                "0.5",
                "--patience",
                "1",
            ]
            sweep.start(command, env=self.environment, cwd=PROJECT)

    def start_worker(self, *more: str) -> None:
        options = ["--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        command = [sys.executable, "-m", "celery", "-A", "tests.chaos.worker", "worker", *options, *more]
        self.worker.start([*command, "--concurrency", "4"], env=self.environment, cwd=PROJECT)
        of_backups = ["--concurrency", "2", "--queues", "backups", "--hostname", "backups@%h"]
        self.backups.start([*command, *of_backups], env=self.environment, cwd=PROJECT)

    def stop(self) -> None:
        for process in (self.worker, self.backups, *self.sweeps):
            process.stop()

    def kill_worker(self) -> None:
        """All of both, if anything is left, as when their machine loses its power; and start others."""
        self.stop_workers()
        self.start_worker()

    def stop_workers(self) -> None:
        self.worker.stop()
        self.backups.stop()

    def kill_one(self, luck: random.Random) -> None:
        """One of its processes, in the middle of whatever it does."""
        if child := self.one_of_its_processes(luck):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def one_of_its_processes(self, luck: random.Random) -> int | None:
        """The id of a process of a worker's pool; None while there is none."""
        self.supervised()
        pids = [worker.pid for worker in (self.worker, self.backups) if worker.pid is not None]
        children = [
            child for pid in pids for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
        return int(luck.choice(children)) if children else None

    def supervised(self) -> int:
        """The worker's process id.  One that ended is started again, as systemd or Docker does.

        Celery gives up when a process of its pool dies before it is up.
        """
        if self.worker.pid is None or self.backups.pid is None:
            self.kill_worker()
        assert self.worker.pid is not None
        return self.worker.pid

    def order_death(self, operation: Operation, step: str, when: str) -> None:
        """Whoever carries this operation out shall die before or after this step."""
        (self.orders / f"{operation.pk}.{step}.{when}").touch()

    def deaths_to_come(self) -> list[str]:
        return [path.name for path in self.orders.iterdir()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> dict[str, str]:
    database = connection.settings_dict["NAME"]
    return os.environ | {
        "DATABASE_URL": f"{POSTGRES.url.rpartition('/')[0]}/{database}",
        "DJANGO_SETTINGS_MODULE": "vpsorg.settings",
        "VPS_OPERATION_LEASE": str(LEASE_S),
        "VPS_SHUTDOWN_TIMEOUT": "1",
        "VPS_BOOT_TIMEOUT": "2",
        "VPS_BACKUPS_PER_HOST": "4",
        "CHAOS_ORDERS": str(tmp_path_factory.mktemp("orders")),
    }


@pytest.fixture
def wrong_clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path / "clock")


@pytest.fixture
def plant(host: Hypervisor, environment: dict[str, str]) -> Iterator[Plant]:  # noqa: F811
    """Running processes; they end before the rows and the machines do."""
    plant = Plant(Path(environment["CHAOS_ORDERS"]), environment)
    plant.start()
    yield plant
    plant.stop()


@pytest.fixture
def luck() -> random.Random:
    return random.Random(SEED)


def boot(backup: Backup) -> Operation:
    """Order a trial of a backup, which fails: there is no system inside that could have an agent."""
    with transaction.atomic():  # nobody else sees an agent
        image = Image.objects.filter(pk=backup.base_image_id)
        image.update(has_agent=True)
        operation = boot_backup(backup=backup)
        image.update(has_agent=False)
    return operation


def await_end(plant: Plant, patience_s: float = PATIENCE_S) -> None:
    """Until nothing is open any more.  Says what is, and what the worker wrote, if that takes too long."""
    is_open = Operation.objects.filter(status__in=OPEN_OPERATION)
    if wait_for(lambda: plant.supervised() > 0 and not is_open.exists(), patience_s):
        for host in Hypervisor.objects.all():  # as reconcile does, of which the plant has none
            remove_trials(host, hypervisors.bare_driver_for(host).powers())
        return
    left = [f"{o} {o.status} {o.step} attempt {o.attempt}: {o.error_detail}" for o in is_open]
    parts = (plant.worker, plant.backups, plant.sweeps[0])
    raise AssertionError("\n".join([*left, *(part.last_lines(40) for part in parts)]))
