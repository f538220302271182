"""The life of a server, told by the rows and checked on the host."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import libvirt
import pgtrigger
import pytest
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.models import F

from core.errors import NoCapacity, Refusal
from deploy.local.processes import wait_for
from images.models import Image
from inventory.models import Hypervisor, IpAddress, Placement
from plans.models import OsVersion, Plan
from provisioning import hypervisors, tasks
from provisioning.drivers.base import Guest, HostBusy, HostMisconfigured, HostUnreachable, HypervisorError
from provisioning.drivers.storage_names import disk_volume
from provisioning.engine import carry_out
from provisioning.reconcile import reconcile
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from provisioning.workflows import WORKFLOWS
from servers import services
from servers.charges import sold_at
from servers.models import Operation, Server
from servers.states import OperationKind, OperationStatus, PowerState, ServerStatus, SuspensionReason
from tests.factories import ImageFactory, OsVersionFactory, PlanFactory
from tests.flows.conftest import FaultyHost, Killed, finish, let_lease_end, open_operation
from tests.flows.test_reconcile import kill_qemu


@pytest.fixture
def bigger() -> Plan:
    plan: Plan = PlanFactory.create(slug="bigger", vcpus=2, memory_mib=192, disk_gib=2)
    return plan


def domains_and_volumes(host: Hypervisor) -> tuple[list[str], list[str]]:
    driver = hypervisors.driver_for(host)
    volumes = [volume.name for volume in driver.volumes() if volume.machine is not None]
    return [str(uuid) for uuid in driver.powers()], sorted(volumes)


def assert_one_machine(host: Hypervisor, server: Server) -> None:
    """One domain, one disk, one seed: nothing doubled."""
    domains, volumes = domains_and_volumes(host)
    assert domains == [str(server.uuid)]
    assert volumes == sorted([f"{server.uuid}-seed.iso", disk_volume(server.uuid, server.disk_number)])


def assert_nothing_left(host: Hypervisor) -> None:
    """Neither on the host nor in the books."""
    assert domains_and_volumes(host) == ([], [])
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == (0, 0, 0)
    assert not Placement.objects.exists()
    assert not IpAddress.objects.exclude(port=None).exists()


def test_a_server_is_made_stopped_started_rebooted_and_deleted(
    host: Hypervisor, order: Any, settings: Any
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0  # nothing inside listens to the power button
    server = finish(order())
    assert (server.status, server.power_state) == (ServerStatus.ACTIVE, PowerState.RUNNING)
    assert server.ip_address is not None
    assert server.ipv6_address is not None
    assert_one_machine(host, server)
    services.stop_server(server=server)
    assert finish(server).status == ServerStatus.STOPPED
    assert hypervisors.driver_of(server).power(server.uuid).state == PowerState.OFF
    services.start_server(server=server)
    assert finish(server).status == ServerStatus.ACTIVE
    services.reboot_server(server=server)
    assert finish(server).status == ServerStatus.ACTIVE
    services.delete_server(server=server)
    assert finish(server).status == ServerStatus.DELETED
    assert_nothing_left(host)


def test_a_stop_that_the_guest_ignores_cuts_the_power_and_says_so(active: Server, settings: Any) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 1
    operation = services.stop_server(server=active)
    assert finish(active).status == ServerStatus.STOPPED
    operation.refresh_from_db()
    assert operation.message == "The system did not shut down within 1 seconds: its power was cut."


CALLS = {
    "fetch_image": "has_image",
    "make_disk": "create_disk",
    "write_seed": "write_seed",
    "define": "define",
    "power_on": "start",
    "await_guest": "power",
    "deliver": "mark_delivered",
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [step.__name__ for step in WORKFLOWS[OperationKind.CREATE]])
def test_a_worker_that_dies_in_a_step_of_create_is_followed_by_another(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server], step: str, when: str
) -> None:
    server = order()
    faulty.fail_next(CALLS[step], Killed(), when=when)
    with pytest.raises(Killed):
        finish(server)
    assert open_operation(server).step == step
    let_lease_end(server)
    assert finish(server).status == ServerStatus.ACTIVE
    assert_one_machine(host, server)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["delete"])
def test_a_worker_that_dies_in_a_delete_is_followed_by_another(
    host: Hypervisor, faulty: FaultyHost, active: Server, call: str, when: str
) -> None:
    services.delete_server(server=active)
    faulty.fail_next(call, Killed(), when=when)
    with pytest.raises(Killed):
        finish(active)
    let_lease_end(active)
    assert finish(active).status == ServerStatus.DELETED
    assert_nothing_left(host)


def test_a_create_that_fails_leaves_nothing_and_keeps_its_reason(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    server = order()
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    assert finish(server).status == ServerStatus.ERROR
    operation = Operation.objects.get(server=server)
    assert (operation.status, operation.error_code) == (OperationStatus.FAILED, "host_misconfigured")
    assert operation.message == HostMisconfigured.sentence
    assert "no such bridge" in operation.error_detail
    assert_nothing_left(host)


def test_the_reason_of_a_failure_survives_the_death_of_the_worker_that_undoes_it(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    server = order()
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    faulty.fail_next("delete", Killed(), when="after")
    with pytest.raises(Killed):
        finish(server)
    let_lease_end(server)
    assert finish(server).status == ServerStatus.ERROR
    assert Operation.objects.get(server=server).error_code == "host_misconfigured"
    assert_nothing_left(host)


def test_what_a_failed_create_left_on_a_host_that_went_away_is_removed_later(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    server = order()
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    faulty.fail_next("delete", HostUnreachable("gone"))
    assert finish(server).status == ServerStatus.ERROR
    assert server.home is not None
    assert_one_machine(host, server)
    reconcile(host)
    assert_nothing_left(host)


def test_what_may_pass_is_tried_again(faulty: FaultyHost, order: Callable[[], Server]) -> None:
    server = order()
    faulty.fail_next("create_disk", HostBusy("asynchronous jobs"))
    faulty.fail_next("create_disk", HostUnreachable("no answer"))
    assert finish(server).status == ServerStatus.ACTIVE
    assert faulty.calls.count("create_disk") == 3


def test_a_refusal_without_a_name_is_final_when_it_comes_twice_in_a_row(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    """Guard: _is_news in carry_out.py."""
    lucky, unlucky = order(), order()
    for words in ("cannot open a file", "cannot read a file"):
        faulty.fail_next("start", HypervisorError(words))
    assert finish(lucky).status == ServerStatus.ACTIVE
    for second in (34, 36):  # QEMU says when
        faulty.fail_next("start", HypervisorError(f"2026-03-10T12:00:{second}Z unsupported machine type"))
    assert finish(unlucky).status == ServerStatus.ERROR
    assert Operation.objects.get(server=unlucky).error_code == "hypervisor_error"
    assert_one_machine(host, lucky)


def booting(order: Callable[..., Server]) -> Server:
    """A server whose machine runs, and whose guest has not answered yet (nor ever will)."""
    server = order()
    Image.objects.update(has_agent=True)
    while open_operation(server).step != "await_guest":
        carry_out(open_operation(server).pk)
    return server


def die(server: Server) -> None:
    kill_qemu(server)
    driver = hypervisors.driver_of(server)
    assert wait_for(lambda: driver.power(server.uuid).state == PowerState.OFF, 60), "nobody noticed"


def come_by(server: Server) -> None:
    operation = open_operation(server)
    Operation.objects.filter(pk=operation.pk).update(due_at=operation.created_at)
    carry_out(operation.pk)


def test_a_machine_that_dies_while_its_guest_starts_is_started_again(
    host: Hypervisor, order: Callable[..., Server]
) -> None:
    """Its QEMU, or its host.  Guard: ``if not runs`` in await_guest."""
    server = booting(order)
    die(server)
    come_by(server)
    assert hypervisors.driver_for(host).power(server.uuid).state == PowerState.RUNNING
    assert open_operation(server).step == "await_guest"


def test_a_guest_that_never_lives_for_long_is_given_up(
    host: Hypervisor, order: Callable[..., Server], settings: Any
) -> None:
    server = booting(order)
    settings.VPS_BOOT_TIMEOUT = 0
    die(server)
    come_by(server)
    assert Operation.objects.get(server=server).error_code == "guest_timeout"
    assert_nothing_left(host)


def test_a_guest_that_is_switched_off_while_it_starts_is_not_started_again(
    host: Hypervisor, order: Callable[..., Server]
) -> None:
    """Guard: ``off_on_purpose`` in await_guest."""
    server = booting(order)
    hypervisors.driver_for(host).power_off(server.uuid)
    come_by(server)
    assert Operation.objects.get(server=server).error_code == "guest_stopped"
    assert_nothing_left(host)


def test_a_reboot_that_fails_in_the_middle_leaves_the_server_on(
    host: Hypervisor, faulty: FaultyHost, active: Server, settings: Any
) -> None:
    """Guard: REBOOT in UNDO_STEPS."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    faulty.fail_next("write_seed", HostMisconfigured("no space"))
    services.reboot_server(server=active)
    assert finish(active).status == ServerStatus.ACTIVE
    assert hypervisors.driver_for(host).power(active.uuid).state == PowerState.RUNNING
    assert Operation.objects.latest("pk").error_code == "host_misconfigured"


def test_a_bug_of_ours_fails_the_operation_and_says_internal(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    server = order()
    faulty.fail_next("define", ZeroDivisionError())
    assert finish(server).status == ServerStatus.ERROR
    assert Operation.objects.get(server=server).error_code == "internal"
    assert_nothing_left(host)


LOST = [OperationalError("away"), InterfaceError("closed"), DatabaseError("the server closed the connection")]


@pytest.mark.parametrize("lost", LOST, ids=repr)
def test_an_operation_that_loses_postgres_is_left_as_it_is(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server], lost: Exception
) -> None:
    """Guard: is_unavailable in the engine; psycopg2's plain DatabaseError is no OperationalError."""
    server = order()
    faulty.fail_next("define", lost)
    come_by(server)
    operation = open_operation(server)
    assert (operation.status, operation.step, operation.error_code) == ("running", "define", "")
    let_lease_end(server)
    assert finish(server).status == ServerStatus.ACTIVE


@pytest.mark.parametrize("lost", LOST, ids=repr)
def test_an_undo_that_loses_postgres_is_done_again(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server], lost: Exception
) -> None:
    server = order()
    faulty.fail_next("define", ZeroDivisionError())
    faulty.fail_next("delete", lost)
    come_by(server)
    assert open_operation(server).step == "undo"
    let_lease_end(server)
    assert finish(server).status == ServerStatus.ERROR
    assert_nothing_left(host)


def test_a_delete_never_gives_up(host: Hypervisor, faulty: FaultyHost, active: Server) -> None:
    for error in (HostUnreachable("down"), HostMisconfigured("no pool"), ZeroDivisionError()):
        faulty.fail_next("delete", error)
    services.delete_server(server=active)
    assert finish(active).status == ServerStatus.DELETED
    assert faulty.calls.count("delete") == 4
    assert_nothing_left(host)


def test_a_start_that_fails_leaves_what_the_host_says(
    faulty: FaultyHost, active: Server, settings: Any
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.stop_server(server=active)
    finish(active)
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    services.start_server(server=active)
    assert finish(active).status == ServerStatus.STOPPED
    services.start_server(server=active)
    assert finish(active).status == ServerStatus.ACTIVE


def test_an_operation_past_its_deadline_is_given_up(host: Hypervisor, order: Callable[[], Server]) -> None:
    server = order()
    Operation.objects.filter(server=server).update(deadline_at="2020-01-01T00:00:00Z")
    assert finish(server).status == ServerStatus.ERROR
    assert Operation.objects.get(server=server).error_code == "deadline_exceeded"
    assert_nothing_left(host)


def machine_xml(server: Server) -> ET.Element:
    connection = libvirt.open(server.claim.hypervisor.uri)
    return ET.fromstring(connection.lookupByUUIDString(str(server.uuid)).XMLDesc())


def disk_gib(server: Server) -> int:
    connection = libvirt.open(server.claim.hypervisor.uri)
    volume = connection.storagePoolLookupByName("vps").storageVolLookupByName(f"{server.uuid}.qcow2")
    return int(volume.info()[1]) // 2**30


@pytest.mark.parametrize("status", [ServerStatus.ACTIVE, ServerStatus.STOPPED])
def test_a_resize_changes_claims_cpu_memory_and_disk(
    host: Hypervisor, active: Server, bigger: Plan, settings: Any, status: ServerStatus
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    if status == ServerStatus.STOPPED:
        services.stop_server(server=active)
        finish(active)
    services.resize_server(server=active, plan=bigger)
    resized = finish(active)
    assert (resized.status, resized.plan) == (status, bigger)
    xml = machine_xml(resized)
    assert (xml.findtext("vcpu"), xml.findtext("memory")) == ("2", str(192 * 1024))
    assert disk_gib(resized) == 2
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == (2, 192, 2)
    assert_one_machine(host, resized)


def test_a_resize_is_to_the_plan_as_it_was_when_it_was_ordered(
    host: Hypervisor, active: Server, bigger: Plan, settings: Any
) -> None:
    """Guards: the sizes and the price in ``ResizeWish``; somebody changes the plan past the trigger."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.resize_server(server=active, plan=bigger)
    price = bigger.price_hourly
    with pgtrigger.ignore("servers.SoldPlan:size_of_a_sold_plan_stays"):
        Plan.objects.filter(pk=bigger.pk).update(vcpus=3, memory_mib=256, disk_gib=3, price_hourly=9)
    resized = finish(active)
    assert (resized.status, resized.plan_id, sold_at(resized)["usage"].hourly) == (
        ServerStatus.ACTIVE,
        bigger.pk,
        price,
    )
    xml = machine_xml(resized)
    assert (xml.findtext("vcpu"), xml.findtext("memory")) == ("2", str(192 * 1024))
    assert disk_gib(resized) == 2
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == (2, 192, 2)


def test_a_rebuild_is_with_the_image_that_the_system_had_when_it_was_ordered(
    active: Server, settings: Any
) -> None:
    """Guard: the image in ``RebuildWish``: a create of another image would fail here."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.rebuild_server(server=active, os_version=active.os_version)
    OsVersion.objects.update(image=ImageFactory.create(sha256="f" * 64))
    assert finish(active).operations.latest("pk").status == OperationStatus.SUCCEEDED


def test_a_resize_that_fails_gives_the_claims_back_and_the_server_runs_as_before(
    host: Hypervisor, active: Server, bigger: Plan, faulty: FaultyHost, settings: Any
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    faulty.fail_next("grow_disk", HostMisconfigured("no space"))
    services.resize_server(server=active, plan=bigger)
    after = finish(active)
    assert (after.status, after.plan) == (ServerStatus.ACTIVE, active.plan)
    assert machine_xml(after).findtext("memory") == str(128 * 1024)
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == (1, 128, 1)


def test_a_downsize_that_fails_keeps_its_room_though_the_host_is_full(
    host: Hypervisor, active: Server, faulty: FaultyHost, bigger: Plan, settings: Any
) -> None:
    """Guard: ``max`` in resize_server; without it the room is sold before the machine gave it back."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.resize_server(server=active, plan=bigger)
    big = finish(active)
    smaller = PlanFactory.create(slug="smaller", vcpus=1, memory_mib=128, disk_gib=2)
    services.resize_server(server=big, plan=smaller)
    Hypervisor.objects.update(memory_mib=F("memory_mib_used"), vcpus=F("vcpus_used"))  # sold out
    faulty.fail_next("grow_disk", HostMisconfigured("no space"))
    after = finish(big)
    assert (after.status, after.plan) == (ServerStatus.ACTIVE, bigger)
    assert machine_xml(after).findtext("memory") == str(192 * 1024)
    services.resize_server(server=after, plan=smaller)
    assert finish(after).plan == smaller
    assert machine_xml(after).findtext("memory") == str(128 * 1024)
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == (1, 128, 2)


def test_a_bug_in_the_undo_keeps_no_operation_open(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    """Guard: ``except Exception`` in _undo."""
    server = order()
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    faulty.fail_next("delete", ZeroDivisionError())
    assert finish(server).status == ServerStatus.ERROR
    reconcile(host)
    assert_nothing_left(host)


def test_a_resize_beyond_the_host_or_to_a_smaller_disk_changes_nothing(
    host: Hypervisor, active: Server, bigger: Plan
) -> None:
    Hypervisor.objects.update(memory_mib=150)
    with pytest.raises(NoCapacity):
        services.resize_server(server=active, plan=bigger)
    Placement.objects.update(disk_gib=2)
    smaller = PlanFactory.create(slug="smaller", disk_gib=1)
    with pytest.raises(Refusal, match="cannot shrink"):
        services.resize_server(server=active, plan=smaller)
    active.refresh_from_db()
    assert active.status == ServerStatus.ACTIVE
    assert Operation.objects.filter(server=active).count() == 1


@pytest.mark.parametrize(
    "call", ["has_image", "create_disk", "power_off", "define", "start", "mark_delivered"]
)
def test_a_rebuild_has_the_same_addresses_and_a_new_disk_whoever_dies(
    host: Hypervisor, active: Server, faulty: FaultyHost, call: str
) -> None:
    old_addresses = set(hypervisors.port_of(active).addresses.values_list("address", flat=True))
    debian = OsVersionFactory.create(name="Debian 12", image=active.base_image)
    services.rebuild_server(server=active, os_version=debian)
    faulty.fail_next(call, Killed(), when="after")
    with pytest.raises(Killed):
        finish(active)
    let_lease_end(active)
    rebuilt = finish(active)
    assert (rebuilt.status, rebuilt.os_version) == (ServerStatus.ACTIVE, debian)
    assert set(hypervisors.port_of(rebuilt).addresses.values_list("address", flat=True)) == old_addresses
    assert_one_machine(host, rebuilt)


def test_a_hard_stop_cuts_the_power(host: Hypervisor, active: Server) -> None:
    services.hard_stop_server(server=active)
    assert finish(active).status == ServerStatus.STOPPED
    assert hypervisors.driver_of(active).power(active.uuid).state == PowerState.OFF


def test_a_suspended_server_is_off_and_comes_back_as_it_was(
    host: Hypervisor, active: Server, settings: Any
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    for status in (ServerStatus.ACTIVE, ServerStatus.STOPPED):
        if status == ServerStatus.STOPPED:
            services.stop_server(server=active)
            finish(active)
        services.suspend_server(server=active, reason=SuspensionReason.ABUSE)
        assert finish(active).status == ServerStatus.SUSPENDED
        assert hypervisors.driver_of(active).power(active.uuid).state == PowerState.OFF
        with pytest.raises(Refusal, match="suspended"):
            services.start_server(server=active)
        services.unsuspend_server(server=active)
        assert finish(active).status == status
        power = hypervisors.driver_of(active).power(active.uuid).state
        assert power == (PowerState.RUNNING if status == ServerStatus.ACTIVE else PowerState.OFF)
        assert_one_machine(host, active)


def test_a_new_name_is_shown_on_the_host(active: Server) -> None:
    services.update_server(server=active, name="renamed")
    tasks.rename(active.pk)
    assert machine_xml(active).findtext("title") == "renamed"


def test_a_machine_that_was_changed_on_its_host_is_left_alone(
    host: Hypervisor, active: Server, qemu_uri: str
) -> None:
    """Guards: require_unchanged in define, check_machine before a reboot."""
    on_host = libvirt.open(qemu_uri)
    try:
        domain = on_host.lookupByUUIDString(str(active.uuid))
        domain.snapshotCreateXML(
            "<domainsnapshot><name>x</name><disks><disk name='vdb' snapshot='no'/></disks></domainsnapshot>",
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
        )
        overlay = f"{active.uuid}.x"
        assert overlay in domain.XMLDesc()
        services.reboot_server(server=active)
        assert finish(active).status == ServerStatus.ACTIVE, "it was not taken down"
        assert Operation.objects.latest("pk").error_code == "machine_changed"
        services.hard_stop_server(server=active)
        finish(active)
        services.start_server(server=active)
        assert finish(active).status == ServerStatus.STOPPED
        assert Operation.objects.latest("pk").error_code == "machine_changed"
        assert overlay in domain.XMLDesc(), "what was written since is still its disk"
        told = {finding.code: finding.sentence for finding in verify()}
        assert overlay in told[Code.SERVER_CHANGED]
        assert Code.VOLUME_FOREIGN in told
        services.delete_server(server=active)
        finish(active)
        pool = on_host.storagePoolLookupByName("vps")
        pool.refresh()
        pool.storageVolLookupByName(overlay).delete()
    finally:
        on_host.close()
    assert_nothing_left(host)


def test_the_addresses_of_a_server_are_ours_and_not_what_its_guest_shows(
    order: Callable[..., Server], faulty: FaultyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service address on its loopback, and one of another customer.  Guard: ``record_addresses``."""
    server = order()
    Image.objects.update(has_agent=True)
    ours = list(IpAddress.objects.filter(port=server.port).values_list("address", flat=True))
    theirs = ["192.0.2.55", "203.0.113.250", "2001:db8:113::99"]
    shown = tuple(map(ip_address, [*theirs, *ours]))
    monkeypatch.setattr(faulty, "guest", lambda uuid: Guest(hostname="web", addresses=shown), raising=False)
    finish(server)
    assert server.status == ServerStatus.ACTIVE
    assert {server.ip_address, server.ipv6_address} == set(ours)
    assert server.guest_addresses == theirs
    (finding,) = [found for found in verify() if found.code == Code.SERVER_REPORTED_ADDRESS]
    assert "192.0.2.55" not in finding.sentence
    assert "203.0.113.250" in finding.sentence
