"""Machines' clocks differ, and jump.  Each test has a process whose clock is wrong, by Debian's faketime."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from time import monotonic

import pytest
from django.core.management import call_command
from django.db.models.functions import Now

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from deploy.local.folder import PROJECT
from deploy.local.processes import Process, wait_for
from inventory import health
from inventory.models import Hypervisor
from servers import backup_services, services
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, ServerStatus
from tests.chaos.wrong_clock import WrongClock
from tests.private_services import VAR

pytestmark = pytest.mark.timeout(180)

SHUTDOWN_TIMEOUT_S = 10


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    more = {"VPS_SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT_S), "VPS_OPERATION_LEASE": "60"}
    return environment | more


@pytest.fixture
def start_worker(environment: dict[str, str]) -> Iterator[Callable[..., Process]]:
    """A worker of the product.  Nobody sweeps: a message that comes to nothing stays so."""
    workers: list[Process] = []

    def start(*more: str, **changes: str) -> Process:
        worker = Process(f"worker-{len(workers)}", VAR / "chaos")
        workers.append(worker)
        options = ["--concurrency", "2", "--without-gossip", "--without-mingle", *more]
        command = [sys.executable, "-m", "celery", "-A", "vpsorg", "worker", "-n", worker.name, *options]
        worker.start(command, env=environment | changes, cwd=PROJECT)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def is_active(server: Server) -> bool:
    return Server.objects.filter(pk=server.pk, status=ServerStatus.ACTIVE).exists()


def made_by(worker: Process, order: Callable[..., Server]) -> Server:
    """A server that was just ordered and that the worker has made."""
    server = order()
    assert wait_for(lambda: is_active(server), 30), worker.last_lines(40)
    server.refresh_from_db()
    return server


def test_a_worker_whose_clock_is_ahead_makes_servers(
    start_worker: Callable[..., Process], wrong_clock: WrongClock, order: Callable[..., Server]
) -> None:
    """No deadline is by a worker's clock."""
    wrong_clock.set(3600)
    worker = start_worker(**wrong_clock.environment)
    server = made_by(worker, order)
    assert server.operations.get().attempt == 1


@pytest.mark.parametrize("ahead_s", [7200, -7200])
def test_a_worker_whose_clock_is_wrong_takes_backups_and_restores_them(
    start_worker: Callable[..., Process],
    wrong_clock: WrongClock,
    order: Callable[..., Server],
    ahead_s: int,
) -> None:
    """What it stores is dated by the store, and what is due and kept by Postgres: nothing goes too early."""
    wrong_clock.set(ahead_s)
    worker = start_worker(**wrong_clock.environment)
    backups = start_worker("--queues", "backups", **wrong_clock.environment)
    server = made_by(worker, order)
    backup = backup_services.take_backup(server=server, kind=BackupKind.AUTOMATIC)
    whole = Backup.objects.filter(pk=backup.pk, status=BackupStatus.COMPLETED)
    assert wait_for(whole.exists, 30), backups.last_lines(40)
    completed = whole.get()
    assert completed.completed_at
    assert abs((completed.completed_at - completed.created_at).total_seconds()) < 60
    call_command("collect_backups")  # by a clock that is right
    backup_services.restore_backup(backup=completed)
    assert wait_for(lambda: is_active(server), 40), worker.last_lines(40)
    server.refresh_from_db()
    assert server.disk_number == 2
    assert backup_services.verify_backup(backup=completed)
    read = Operation.objects.filter(kind="verify_backup", status="succeeded")
    assert wait_for(read.exists, 30), backups.last_lines(40)
    completed.refresh_from_db()
    assert completed.damage == ""


@pytest.mark.parametrize("ahead_s", [150, -3600])
def test_no_power_is_cut_early_by_a_worker_whose_clock_is_wrong(
    start_worker: Callable[..., Process],
    wrong_clock: WrongClock,
    order: Callable[..., Server],
    ahead_s: int,
) -> None:
    """A guest has VPS_SHUTDOWN_TIMEOUT to write its data, also when another worker goes on with the stop."""
    worker = start_worker()
    server = made_by(worker, order)
    stop = services.stop_server(server=server)
    steps = Operation.objects.filter(pk=stop.pk, step="shut_down")
    assert wait_for(steps.exists, 30), worker.last_lines(40)
    asked_at = steps.get().step_since
    worker.stop()
    wrong_clock.set(ahead_s)
    successor = start_worker(**wrong_clock.environment)
    off = Operation.objects.filter(pk=stop.pk, status="succeeded")
    assert wait_for(off.exists, 40), successor.last_lines(40)
    stop = off.get()
    assert asked_at
    assert stop.finished_at
    assert (stop.finished_at - asked_at).total_seconds() >= SHUTDOWN_TIMEOUT_S
    assert "power was cut" in stop.message


@pytest.mark.parametrize("ahead_s", [65, -65])
def test_what_is_put_off_goes_on_between_workers_whose_clocks_differ(
    start_worker: Callable[..., Process],
    wrong_clock: WrongClock,
    order: Callable[..., Server],
    ahead_s: int,
) -> None:
    """A message that is held back is sent by one clock and received by another: it comes in time."""
    wrong_clock.set(ahead_s)
    workers = [start_worker(**wrong_clock.environment), start_worker()]
    server = made_by(workers[0], order)
    ordered = monotonic()
    services.stop_server(server=server)
    closed = server.operations.filter(status__in=OPEN_OPERATION)
    assert wait_for(lambda: not closed.exists(), 55), workers[0].last_lines(40)
    assert monotonic() - ordered >= SHUTDOWN_TIMEOUT_S - 0.5


def test_an_order_is_taken_at_once_though_the_clock_of_the_api_is_ahead(
    start_worker: Callable[..., Process],
    wrong_clock: WrongClock,
    environment: dict[str, str],
    order: Callable[..., Server],
) -> None:
    worker = start_worker()
    server = made_by(worker, order)
    wrong_clock.set(3)
    do_with(
        environment | wrong_clock.environment,
        f"""
from accounts.actors import acting_as, system_actor
from servers import services
from servers.models import Server
with acting_as(system_actor("test")):
    services.stop_server(server=Server.objects.get(pk={server.pk}))
""",
    )
    taken = server.operations.filter(kind="stop", attempt__gt=0)
    assert wait_for(taken.exists, 30), worker.last_lines(40)


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_a_lost_answer_leaves_a_host_alone_for_a_moment(
    host: Hypervisor, wrong_clock: WrongClock, environment: dict[str, str], ahead_s: int
) -> None:
    """Whatever the clock of the worker that lost it says."""
    Hypervisor.objects.update(failures=3)
    wrong_clock.set(ahead_s)
    do_with(
        environment | wrong_clock.environment,
        f"""
from inventory import health
from inventory.models import Hypervisor
health.record_failure(Hypervisor.objects.get(pk={host.pk}), "no answer")
""",
    )
    host.refresh_from_db()
    assert not health.may_be_asked(host)
    assert wait_for(lambda: health.may_be_asked(host), 40)


def do_with(environment: dict[str, str], program: str) -> None:
    """Run some lines of the product in a process of their own."""
    shell = [sys.executable, "manage.py", "shell", "--no-imports", "-c", program]
    subprocess.run(shell, env=environment, cwd=PROJECT, check=True)


def test_workers_ahead_of_the_scheduler_reconcile(
    start_worker: Callable[..., Process],
    wrong_clock: WrongClock,
    environment: dict[str, str],
    host: Hypervisor,
) -> None:
    Hypervisor.objects.update(last_seen_at=None)
    wrong_clock.set(65)
    worker = start_worker(**wrong_clock.environment)
    scheduler = Process("scheduler", VAR / "chaos")
    scheduler.start([sys.executable, "manage.py", "scheduler"], env=environment, cwd=PROJECT)
    try:
        seen = Hypervisor.objects.filter(pk=host.pk, last_seen_at__lte=Now())
        assert wait_for(seen.exists, 45), worker.last_lines(40) + scheduler.last_lines(20)
    finally:
        scheduler.stop()
