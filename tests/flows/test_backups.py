"""Backups and snapshots of real guests: taken while they run, restored, and made into other servers."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest
from django.utils import timezone

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from backups.services import manifest_of, vault_of
from deploy.local.guest import sha256
from inventory.models import Hypervisor
from plans.models import OsVersion
from provisioning import hypervisors
from provisioning.drivers import base, libvirt_backups
from provisioning.drivers.storage_names import is_scratch
from provisioning.engine import carry_out
from provisioning.reconcile import reconcile
from provisioning.verify.verification import verify
from servers import backup_services, services
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, OperationStatus, ServerStatus
from tests.e2e.guest import GuestOf
from tests.factories import OsVersionFactory
from tests.flows.conftest import finish
from tests.private_services import VAR

pytestmark = pytest.mark.django_db(transaction=True)
S = ServerStatus


@pytest.fixture
def system(host: Hypervisor, guest_image: Path) -> OsVersion:
    """A system that boots, with an agent."""
    digest = sha256(guest_image)
    kept = VAR / "images" / f"{digest}.qcow2"
    if not kept.exists():
        subprocess.run(["cp", guest_image, kept], check=True)
    hypervisors.bare_driver_for(host).put_image(base.Image(sha256=digest), kept)
    version: OsVersion = OsVersionFactory.create(
        name="Tiny", image__sha256=digest, image__has_agent=True, image__virtual_size_bytes=64 * 2**20
    )
    return version


@pytest.fixture
def guest(order: Callable[..., Server], system: OsVersion) -> Server:
    return finish(order(os_version=system))


def end(backup: Backup) -> Backup:
    """Do what a worker does until nothing about the backup is open."""
    began = time.monotonic()
    while operation := Operation.objects.filter(backup=backup, status__in=OPEN_OPERATION).first():
        assert time.monotonic() - began < 120, f"{operation} never ends: {operation.step}"
        Operation.objects.filter(pk=operation.pk).update(due_at=timezone.now())
        carry_out(operation.pk)
        time.sleep(0.05)
    backup.refresh_from_db()
    return backup


def take(server: Server, kind: BackupKind = BackupKind.MANUAL, **given: Any) -> Backup:
    return end(backup_services.take_backup(server=server, kind=kind, **given))


def inside(server: Server) -> GuestOf:
    return GuestOf(server.claim.hypervisor.uri, server.uuid)


def put(server: Server, text: str) -> None:
    inside(server).run("/bin/sh", "-c", f"data && echo {text} > /data/file && sync")


def read(server: Server) -> str:
    return inside(server).run("/bin/sh", "-c", "data && cat /data/file").strip()


def assert_clean(host: Hypervisor, server: Server) -> None:
    """Nothing of a backup is left on the host but the moment that the next one builds on."""
    driver = hypervisors.bare_driver_for(host)
    assert [volume.name for volume in driver.volumes() if is_scratch(volume.name)] == []
    assert [finding for finding in verify() if finding.machine == server.uuid] == []


def test_the_third_of_three_is_restored_and_then_the_first(host: Hypervisor, guest: Server) -> None:
    copies = []
    for text in ("one", "two", "three"):
        put(guest, text)
        copies.append(take(guest))
        assert copies[-1].status == BackupStatus.COMPLETED, copies[-1].message
        assert copies[-1].is_consistent
    assert [copy.parent for copy in copies] == [None, copies[0].uuid, copies[1].uuid]
    grown = [copy.new_bytes or 0 for copy in copies]
    assert 0 < grown[2] < grown[0] / 4
    assert_clean(host, guest)
    put(guest, "spoilt")
    before = (guest.ip_address, guest.ipv6_address)
    for copy, text in ((copies[2], "three"), (copies[0], "one")):
        backup_services.restore_backup(backup=copy)
        restored = finish(guest)
        assert (restored.status, read(restored)) == (S.ACTIVE, text)
        assert (restored.ip_address, restored.ipv6_address) == before
        assert_clean(host, restored)
    assert not restored.disk_needs_image
    again = take(restored)
    assert (again.status, again.parent) == (BackupStatus.COMPLETED, None), "another disk has another history"


def test_a_guest_that_does_not_thaw_goes_on_when_it_is_rebooted(
    host: Hypervisor, guest: Server, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent hangs in the middle of the freeze.  The backup waits, the customer's order does not."""
    settings.VPS_SHUTDOWN_TIMEOUT = 1
    put(guest, "kept")
    inside(guest).run("/bin/sh", "-c", "(sleep 2; killall -STOP qemu-ga) >/dev/null 2>&1 &")
    real = libvirt_backups._begin

    def begin_slowly(*job: Any) -> None:
        real(*job)
        time.sleep(4)

    backup = backup_services.take_backup(server=guest, kind=BackupKind.MANUAL)
    operation = Operation.objects.get(backup=backup)
    with monkeypatch.context() as patched:
        patched.setattr(libvirt_backups, "_begin", begin_slowly)
        carry_out(operation.pk)
    operation.refresh_from_db()
    assert (operation.status, operation.step) == (OperationStatus.QUEUED, "begin_backup")
    assert "GuestFrozen" in operation.error_detail
    services.reboot_server(server=guest)
    assert finish(guest).status == S.ACTIVE
    ended = end(backup)
    assert (ended.status, ended.is_consistent) == (BackupStatus.COMPLETED, True)
    assert read(guest) == "kept"
    assert_clean(host, guest)


def test_a_guest_whose_worker_died_in_the_freeze_is_thawed_by_reconcile(
    host: Hypervisor, guest: Server
) -> None:
    """The next worker of the backup may have to wait for others.  Guard: ``broken_off_on``."""
    backup = backup_services.take_backup(server=guest, kind=BackupKind.MANUAL)
    ended = {"status": OperationStatus.RUNNING, "step": "begin_backup", "lease_until": "2020-01-01T00:00:00Z"}
    Operation.objects.filter(backup=backup).update(**ended)
    put(guest, "kept")
    assert libvirt.open(host.uri).lookupByUUIDString(str(guest.uuid)).fsFreeze() > 0
    reconcile(host)
    assert read(guest) == "kept"
    assert end(backup).status == BackupStatus.COMPLETED
    assert_clean(host, guest)


def test_a_paused_guest_is_not_frozen_and_copied_all_the_same(
    host: Hypervisor, guest: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Guard: only a running one is frozen: a paused one's agent answers nothing, for the whole limit."""
    libvirt.open(host.uri).lookupByUUIDString(str(guest.uuid)).suspend()
    backup = take(guest)
    assert (backup.status, backup.is_consistent) == (BackupStatus.COMPLETED, False)
    assert "is not frozen" not in caplog.text


def test_a_new_server_is_made_from_a_backup_of_one_that_is_gone(
    host: Hypervisor, guest: Server, system: OsVersion
) -> None:
    put(guest, "kept")
    copy = take(guest, BackupKind.SNAPSHOT, name="before-the-end")
    services.delete_server(server=guest)
    finish(guest)
    twin = finish(
        services.create_server(
            account=guest.account,
            name="twin",
            plan=guest.plan,
            os_version=copy.os_version,
            location=guest.location,
            backup=copy,
        )
    )
    assert (twin.status, read(twin)) == (S.ACTIVE, "kept")
    assert inside(twin).hostname() == "twin"
    assert_clean(host, twin)


def test_a_server_that_is_off_is_read_itself(host: Hypervisor, guest: Server) -> None:
    put(guest, "kept")
    services.stop_server(server=guest)
    finish(guest)
    copy = take(guest)
    assert (copy.status, copy.was_running, copy.is_consistent) == (BackupStatus.COMPLETED, False, True)
    backup_services.restore_backup(backup=copy)
    restored = finish(guest)
    assert restored.status == S.STOPPED
    services.start_server(server=restored)
    assert read(finish(restored)) == "kept"


def test_a_deleted_backup_leaves_the_store_and_the_others_whole(host: Hypervisor, guest: Server) -> None:
    put(guest, "one")
    first = take(guest)
    put(guest, "two")
    second = take(guest)
    backup_services.delete_backup(backup=first)
    assert end(first).status == BackupStatus.DELETED
    vault = vault_of(guest.account, first.store)
    assert list(vault.list_manifests()) == [second.stored_as]
    assert manifest_of(second, vault).disk_bytes == 2**30
    backup_services.restore_backup(backup=second)
    assert read(finish(guest)) == "two"
