"""A rebuild makes the new disk beside the old one: until it has succeeded there is a way back."""

import os
from pathlib import Path
from typing import Any

import libvirt
import pytest

from deploy.local.libvirtd import Libvirtd
from images.models import Image
from inventory.models import Hypervisor
from plans.models import OsVersion
from provisioning.drivers.base import HostMisconfigured, HostUnreachable, PoolFull
from provisioning.drivers.storage_names import disk_volume
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import services
from servers.models import Server
from servers.states import OperationStatus, PowerState, ServerStatus
from tests.factories import OsVersionFactory
from tests.flows.conftest import FaultyHost, Killed, finish, let_lease_end, open_operation
from tests.flows.test_stories import assert_one_machine, machine_xml

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def debian(active: Server) -> OsVersion:
    version: OsVersion = OsVersionFactory.create(name="Debian 12", image=active.base_image)
    return version


@pytest.fixture
def pool(libvirtd: Libvirtd) -> Path:
    return Path(libvirtd.folder / "pool")


def disk_of(server: Server) -> str:
    """What the machine, as it runs, has as its disk."""
    return machine_xml(server).find("devices/disk/source").get("file").rpartition("/")[2]  # type: ignore[union-attr]


def test_a_rebuild_makes_the_next_disk_and_removes_the_last(
    host: Hypervisor, active: Server, debian: OsVersion
) -> None:
    for number in (2, 3):
        services.rebuild_server(server=active, os_version=debian)
        rebuilt = finish(active)
        assert (rebuilt.status, rebuilt.os_version, rebuilt.disk_number) == (S.ACTIVE, debian, number)
        assert disk_of(rebuilt) == disk_volume(active.uuid, number)
        assert_one_machine(host, rebuilt)
    assert [finding for finding in verify() if finding.machine == active.uuid] == []


S = ServerStatus
FAILURES: dict[str, Any] = {
    "has_image": HostMisconfigured("the pool is not started"),
    "require_unchanged": HostMisconfigured("the pool is not started"),
    "create_disk": PoolFull("no room"),
    "write_seed": PoolFull("no room"),
    "define": HostMisconfigured("no such machine type"),
    "start": HostMisconfigured("no such machine type"),
}


@pytest.mark.parametrize("was", [S.ACTIVE, S.STOPPED])
@pytest.mark.parametrize("call", FAILURES)
def test_a_rebuild_that_fails_leaves_the_server_as_it_was_with_its_disk(
    host: Hypervisor,
    active: Server,
    debian: OsVersion,
    faulty: FaultyHost,
    pool: Path,
    call: str,
    was: ServerStatus,
) -> None:
    """Guard: UNDO_STEPS of a rebuild."""
    if was == S.STOPPED:
        services.hard_stop_server(server=active)
        finish(active)
    disk = pool / disk_volume(active.uuid)
    before = os.stat(disk).st_ino
    rebuild = services.rebuild_server(server=active, os_version=debian)
    faulty.fail_next(call, FAILURES[call])
    after = finish(active)
    rebuild.refresh_from_db()
    assert (rebuild.status, rebuild.error_code) == (OperationStatus.FAILED, FAILURES[call].code)
    assert (after.status, after.os_version, after.disk_number) == (was, active.os_version, 1)
    assert after.power_state == (PowerState.RUNNING if was == S.ACTIVE else PowerState.OFF)
    assert os.stat(disk).st_ino == before
    assert_one_machine(host, after)
    if was == S.ACTIVE:
        assert disk_of(after) == disk_volume(active.uuid)


def test_a_system_that_does_not_come_up_is_taken_back(
    host: Hypervisor, active: Server, faulty: FaultyHost, settings: Any
) -> None:
    """Its guest ran from the new disk already.  Guard: ``has_disk`` in return_to_old_disk."""
    settings.VPS_BOOT_TIMEOUT = 0
    mute = OsVersionFactory.create(name="mute", image=active.base_image)
    Image.objects.update(has_agent=True)
    rebuild = services.rebuild_server(server=active, os_version=mute)
    after = finish(active)
    rebuild.refresh_from_db()
    assert rebuild.error_code == "guest_timeout"
    assert (after.status, after.power_state, after.disk_number) == (S.ACTIVE, PowerState.RUNNING, 1)
    assert disk_of(after) == disk_volume(active.uuid)
    assert_one_machine(host, after)


def test_what_an_earlier_rebuild_left_is_not_taken_for_the_new_disk(
    host: Hypervisor, active: Server, debian: OsVersion, faulty: FaultyHost, pool: Path
) -> None:
    """Guard: clear_disks."""
    services.rebuild_server(server=active, os_version=debian)
    faulty.fail_next("start", HostMisconfigured("no such machine type"))
    faulty.fail_next("remove_spare_disks", Killed(), when="never")
    faulty.fail_next("remove_spare_disks", HostUnreachable("gone"))
    finish(active)
    left = pool / disk_volume(active.uuid, 2)
    inode = os.stat(left).st_ino
    assert [f.code for f in verify() if f.machine == active.uuid] == [Code.SERVER_SPARE_DISK]
    keep = os.open(left, os.O_RDONLY)  # or its inode might be the new one's
    try:
        services.rebuild_server(server=active, os_version=debian)
        rebuilt = finish(active)
        assert os.stat(left).st_ino != inode
    finally:
        os.close(keep)
    assert rebuilt.disk_number == 2
    assert_one_machine(host, rebuilt)


@pytest.mark.parametrize("error", [HostUnreachable("gone"), HostMisconfigured("the pool is not started")])
def test_the_old_disk_is_removed_though_it_takes_many_attempts(
    host: Hypervisor, active: Server, debian: OsVersion, faulty: FaultyHost, error: Exception
) -> None:
    """Guard: TRIED_UNTIL_DONE."""
    rebuild = services.rebuild_server(server=active, os_version=debian)
    faulty.fail_next("remove_spare_disks", Killed(), when="never")
    for _ in range(3):
        faulty.fail_next("remove_spare_disks", error)
    assert_one_machine(host, finish(active))
    rebuild.refresh_from_db()
    assert (rebuild.status, rebuild.error_code) == (OperationStatus.SUCCEEDED, "")


def test_a_machine_that_its_host_forgot_is_rebuilt(
    host: Hypervisor, active: Server, debian: OsVersion
) -> None:
    domain = libvirt.open(host.uri).lookupByUUIDString(str(active.uuid))
    domain.destroy()
    domain.undefine()
    services.rebuild_server(server=active, os_version=debian)
    assert_one_machine(host, finish(active))


def test_two_rebuilds_after_one_another_never_have_the_same_disk(active: Server, debian: OsVersion) -> None:
    """The row that a caller has may be old.  Guard: ``_locked`` in rebuild_server."""
    old_row = Server.objects.get(pk=active.pk)
    services.rebuild_server(server=active, os_version=debian)
    finish(active)
    services.rebuild_server(server=old_row, os_version=debian)
    assert finish(active).disk_number == 3


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("undo", ["has_disk", "power_off", "define", "start", "remove_spare_disks"])
def test_a_worker_that_dies_while_it_takes_a_rebuild_back_is_followed_by_another(
    host: Hypervisor,
    active: Server,
    debian: OsVersion,
    faulty: FaultyHost,
    undo: str,
    when: str,
) -> None:
    services.rebuild_server(server=active, os_version=debian)
    forward: dict[str, int] = {"power_off": 1, "define": 1, "remove_spare_disks": 1}
    faulty.fail_next("power", HostMisconfigured("no such machine type"))  # in await_guest
    for _ in range(forward.get(undo, 0)):
        faulty.fail_next(undo, Killed(), when="never")
    if undo == "start":
        faulty.fail_next(undo, Killed(), when="never")
    faulty.fail_next(undo, Killed(), when=when)
    with pytest.raises(Killed):
        finish(active)
    assert open_operation(active).step == "undo"
    let_lease_end(active)
    after = finish(active)
    assert (after.status, after.disk_number) == (S.ACTIVE, 1)
    assert_one_machine(host, after)


def test_books_that_are_older_than_a_rebuild_cost_nobody_a_disk(
    active: Server, debian: OsVersion, pool: Path
) -> None:
    """After a restore.  Guards: require_disk in define, ``used`` in remove_spare_disks."""
    services.rebuild_server(server=active, os_version=debian)
    finish(active)
    services.hard_stop_server(server=active)
    finish(active)
    disk = pool / disk_volume(active.uuid, 2)
    before = os.stat(disk).st_ino
    Server.objects.update(disk_number=1)
    start = services.start_server(server=active)
    assert finish(active).status == S.STOPPED
    rebuild = services.rebuild_server(server=active, os_version=debian)
    assert finish(active).status == S.STOPPED
    for operation, code in ((start, "machine_changed"), (rebuild, "hypervisor_error")):
        operation.refresh_from_db()
        assert (operation.status, operation.error_code) == (OperationStatus.FAILED, code)
    assert os.stat(disk).st_ino == before
    codes = {finding.code for finding in verify() if finding.machine == active.uuid}
    assert codes == {Code.SERVER_DISK_MISSING, Code.SERVER_SPARE_DISK}
    Server.objects.update(disk_number=2)
    services.start_server(server=active)
    assert finish(active).status == S.ACTIVE
