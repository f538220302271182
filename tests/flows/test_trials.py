"""Whether backups boot: trial machines that are started from them, and always removed."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from backups.kinds import BackupKind, BackupStatus, Verified
from backups.models import Backup
from core.errors import NotAllowedNow, Refusal
from images.models import Image
from inventory.models import Hypervisor, Placement
from provisioning import hypervisors
from provisioning.drivers.base import HostUnreachable
from provisioning.engine import carry_out
from provisioning.reconcile import reconcile
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import backup_services
from servers.models import Operation, Server
from servers.states import BackupOperationKind, OperationStatus
from tests.factories import OperationFactory
from tests.flows.conftest import FaultyHost
from tests.flows.test_backup_faults import let_leases_end, step
from tests.flows.test_backups import end, guest, system, take

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["guest", "system"]  # fixtures


@pytest.fixture(autouse=True)
def small_trials(settings: Any) -> None:
    settings.VPS_TRIAL_MEMORY = 128


@pytest.fixture
def backup(active: Server) -> Backup:
    """Of a machine with no system inside: it never boots."""
    copy = take(active)
    Image.objects.filter(pk=copy.base_image_id).update(has_agent=True)
    return copy


def boots() -> Operation:
    return Operation.objects.filter(kind=BackupOperationKind.BOOT).latest("pk")


def assert_only(server: Server, host: Hypervisor) -> None:
    """The host has this one machine with its two files, and its claim."""
    driver = hypervisors.bare_driver_for(host)
    assert set(driver.powers()) == {server.uuid}
    assert {volume.machine for volume in driver.volumes() if volume.machine} == {server.uuid}
    assert set(Placement.objects.values_list("pk", flat=True)) == {server.home_id}
    about_trials = {Code.MACHINE_ORPHAN, Code.VOLUME_ORPHAN, Code.PLACEMENT_UNUSED, Code.HOST_COUNTERS}
    assert [str(finding) for finding in verify() if finding.code in about_trials] == []


def test_a_backup_is_booted_to_its_agent_beside_its_server(
    host: Hypervisor, guest: Server, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bootable = take(guest)
    call_command("verify_backups", "--boot", "--backup", str(bootable.pk))
    assert "1 backups will be booted" in capsys.readouterr().out
    step(bootable, "await_trial")
    trial = hypervisors.bare_driver_for(host).machines()
    (machine,) = [one for one in trial if one.uuid == boots().uuid]
    assert machine.cards == ()
    assert [finding for finding in verify() if finding.machine == machine.uuid] == []
    assert not [finding for finding in verify() if finding.code == Code.PLACEMENT_UNUSED]
    assert reconcile(host)
    assert boots().uuid in hypervisors.bare_driver_for(host).powers(), "reconcile leaves it alone"
    host.refresh_from_db()
    assert host.last_error == ""

    first = bootable.verified_at
    assert end(bootable).verified_by == Verified.BOOTED
    assert (boots().status, boots().error_code) == (OperationStatus.SUCCEEDED, "")
    assert bootable.verified_at
    assert first
    assert bootable.verified_at > first
    assert_only(guest, host)
    Backup.objects.update(damage="did not boot")
    backup_services.boot_backup(backup=bootable)
    assert end(bootable).damage == ""


def test_one_that_does_not_boot_is_damaged_however_well_it_is_read(
    host: Hypervisor, active: Server, backup: Backup, settings: Any
) -> None:
    settings.VPS_BOOT_TIMEOUT = 1
    backup_services.boot_backup(backup=backup)
    assert "did not boot" in end(backup).damage
    assert (boots().status, boots().error_code) == (OperationStatus.FAILED, "did_not_boot")
    assert (backup.status, backup.verified_by) == (BackupStatus.COMPLETED, Verified.READ)
    assert_only(active, host)
    assert [f.object for f in verify() if f.code == Code.BACKUP_DAMAGED] == [f"backup {backup.pk}"]
    # A later trial that came to no answer says nothing.
    OperationFactory.create(
        server=None,
        status_before="",
        backup=backup,
        kind=BackupOperationKind.BOOT,
        status="failed",
        error_code="deadline_exceeded",
    )
    backup_services.verify_backup(backup=backup)
    assert "did not boot" in end(backup).damage, "that it can be read mends nothing"


def test_what_a_failed_trial_could_not_remove_is_removed_by_reconcile(
    host: Hypervisor, active: Server, backup: Backup, faulty: FaultyHost, settings: Any
) -> None:
    settings.VPS_BOOT_TIMEOUT = 0
    backup_services.boot_backup(backup=backup)
    faulty.fail_next("delete", HostUnreachable("away"), when="before")
    end(backup)
    assert boots().status == OperationStatus.FAILED
    assert boots().trial_room is not None
    reconcile(host)
    assert_only(active, host)


def test_a_backup_deleted_at_its_trial_takes_the_machine_with_it(
    host: Hypervisor, active: Server, backup: Backup
) -> None:
    backup_services.boot_backup(backup=backup)
    step(backup, "await_trial")
    backup_services.delete_backup(backup=backup)
    end(backup)
    reconcile(host)
    assert_only(active, host)


def test_a_late_worker_removes_the_machine_that_it_made(
    host: Hypervisor, active: Server, backup: Backup, faulty: FaultyHost
) -> None:
    operation = backup_services.boot_backup(backup=backup)

    def meanwhile() -> None:
        """The backup is deleted, and what its trial had is removed, while this worker defines the machine."""
        backup_services.delete_backup(backup=backup)
        let_leases_end()
        end(backup)
        reconcile(host)

    faulty.do_after("write_seed", meanwhile)
    carry_out(operation.pk)
    assert_only(active, host)


def test_a_sample_of_each_location_is_booted_once_a_day(
    host: Hypervisor, active: Server, settings: Any
) -> None:
    copies = [take(active, kind) for kind in (BackupKind.MANUAL, BackupKind.SNAPSHOT)]
    settings.VPS_BACKUPS_BOOTED_DAILY = 0
    assert backup_services.boot_due_backups() == 0
    settings.VPS_BACKUPS_BOOTED_DAILY = 1
    Backup.objects.update(is_consistent=False)
    assert backup_services.boot_due_backups() == 0, "whether its agent ever answered is not known"
    Backup.objects.update(is_consistent=True)
    Image.objects.update(has_agent=True)
    assert backup_services.boot_due_backups() == 1
    assert boots().backup == copies[1], "the last one of each server"
    assert backup_services.boot_due_backups() == 0
    settings.VPS_BOOT_TIMEOUT = 0
    end(copies[1])
    Backup.objects.update(damage="")
    Operation.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert backup_services.boot_due_backups() == 1


def test_what_cannot_be_booted_is_refused(host: Hypervisor, backup: Backup, settings: Any) -> None:
    settings.VPS_TRIAL_MEMORY = 2**40
    with pytest.raises(Refusal, match="sold out"):
        backup_services.boot_backup(backup=backup)
    assert backup_services.boot_due_backups() == 0
    settings.VPS_TRIAL_MEMORY = 128
    Image.objects.update(has_agent=False)
    with pytest.raises(Refusal, match="no guest agent"):
        backup_services.boot_backup(backup=backup)
    Backup.objects.filter(pk=backup.pk).update(status=BackupStatus.FAILED)
    with pytest.raises(NotAllowedNow):
        backup_services.boot_backup(backup=backup)
    assert not Operation.objects.filter(kind=BackupOperationKind.BOOT).exists()
    assert Placement.objects.count() == 1
