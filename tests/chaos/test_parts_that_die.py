"""Redis, Postgres and libvirtd die in the middle, messages come twice: nothing is lost or doubled."""

import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from deploy.local.libvirtd import Libvirtd
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.reconcile import reconcile
from servers import backup_services, services
from servers.models import Operation, Server
from servers.states import OperationKind, OperationStatus, ServerStatus
from tests.chaos.conftest import Plant, await_end
from tests.chaos.truth import assert_all_is_true
from tests.chaos.twice import send_twice
from tests.daemons import crash
from tests.factories import AccountFactory
from tests.flows.test_backup_faults import on_disk, write
from tests.private_services import POSTGRES, REDIS
from vpsorg.celery import app

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def some(order: Callable[..., Server]) -> Callable[[], list[Server]]:
    """Six creates, just ordered."""
    account = AccountFactory.create()
    return lambda: [order(account=account) for _ in range(6)]


def assert_all_succeeded(status: ServerStatus) -> None:
    assert set(Operation.objects.values_list("status", flat=True)) == {OperationStatus.SUCCEEDED}
    assert set(Server.objects.values_list("status", flat=True)) == {status}
    assert_all_is_true()


def test_redis_is_killed_and_comes_back_empty(plant: Plant, some: Callable[[], list[Server]]) -> None:
    """Guard: _remind in sweep.py; without it what Redis forgot waits for ever."""
    some()
    time.sleep(1)
    REDIS.kill()
    REDIS.start()
    await_end(plant)
    assert_all_succeeded(ServerStatus.ACTIVE)


def test_redis_stays_away(plant: Plant, some: Callable[[], list[Server]]) -> None:
    """Guard: _carry_out_here in sweep.py."""
    time.sleep(2)
    REDIS.kill()
    try:
        some()
        await_end(plant)
    finally:
        REDIS.start()
    assert_all_succeeded(ServerStatus.ACTIVE)


def test_postgres_is_restarted(plant: Plant, some: Callable[[], list[Server]]) -> None:
    """Guard: the OperationalError in carry_out.py; without it a create fails for it, with its server."""
    some()
    time.sleep(1)
    POSTGRES.stop()
    time.sleep(1)
    POSTGRES.start()
    connection.close()
    await_end(plant)
    assert_all_succeeded(ServerStatus.ACTIVE)


def test_libvirtd_is_killed_and_started_again(
    plant: Plant, some: Callable[[], list[Server]], libvirtd: Libvirtd
) -> None:
    """Guard: ``passes`` of HostUnreachable; without it every create under way fails."""
    servers = some()
    for _ in range(3):
        time.sleep(1)
        crash(libvirtd)
    await_end(plant)
    for server in servers[:3]:
        services.delete_server(server=server)
    for server in servers[3:]:
        services.reboot_server(server=server)
    crash(libvirtd)
    await_end(plant)
    assert set(Operation.objects.values_list("status", flat=True)) == {OperationStatus.SUCCEEDED}
    assert_all_is_true()


def test_libvirtd_is_killed_while_disks_are_copied_and_restored(
    plant: Plant, some: Callable[[], list[Server]], libvirtd: Libvirtd
) -> None:
    """A copy that the host cannot vouch for is begun anew; no disk is made from half of one."""
    servers = some()
    await_end(plant)
    for server in servers:
        write(server, 7, mib=64)
        backup_services.take_backup(server=Server.objects.get(pk=server.pk), kind=BackupKind.MANUAL)
    for _ in range(3):
        time.sleep(0.5)
        crash(libvirtd)
    await_end(plant)
    assert set(Backup.objects.values_list("status", flat=True)) == {BackupStatus.COMPLETED}
    for server in servers:
        write(server, 8, mib=64)
        backup_services.restore_backup(backup=Backup.objects.get(server_id=server.pk))
    for _ in range(3):
        time.sleep(0.5)
        crash(libvirtd)
    await_end(plant)
    assert_all_succeeded(ServerStatus.ACTIVE)
    for server in servers:
        services.hard_stop_server(server=Server.objects.get(pk=server.pk))
    await_end(plant)
    assert {on_disk(Server.objects.get(pk=server.pk), at_mib=63) for server in servers} == {7}


def test_what_was_shut_down_with_its_host_is_started_again_when_that_is_back(
    plant: Plant, some: Callable[[], list[Server]], host: Hypervisor, libvirtd: Libvirtd
) -> None:
    """Guard: libvirt's reason "unknown" is not in _ON_PURPOSE of libvirt_observation.py."""
    servers = some()
    await_end(plant)
    for server in servers:
        hypervisors.bare_driver_for(host).power_off(server.uuid)
    crash(libvirtd)  # which forgets why they are off, as after a boot
    reconcile(host)
    assert Operation.objects.filter(kind=OperationKind.START, server__in=servers).count() == len(servers)
    await_end(plant)
    assert_all_succeeded(ServerStatus.ACTIVE)


@pytest.fixture
def everything_twice(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(environment, "CHAOS_TWICE", "yes")
    once_again = send_twice(app)
    yield
    once_again()


def test_every_message_comes_twice(
    everything_twice: None, plant: Plant, some: Callable[[], list[Server]]
) -> None:
    """Guard: the WHERE of lifecycle.begin."""
    servers = some()
    await_end(plant)
    assert_all_succeeded(ServerStatus.ACTIVE)
    for server in servers:
        services.reboot_server(server=server)
    await_end(plant)
    assert_all_succeeded(ServerStatus.ACTIVE)
    for server in servers:
        services.delete_server(server=server)
    await_end(plant)
    assert_all_succeeded(ServerStatus.DELETED)
