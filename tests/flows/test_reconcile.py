"""What we say follows what the host has; an unreachable host is unknown, not off."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import libvirt
import pytest
from django.utils import timezone

from core.errors import NoCapacity
from core.locks import reconcile_of_host, try_lock
from inventory.models import Hypervisor
from provisioning import host_facts, hypervisors
from provisioning.drivers.base import HostUnreachable, HypervisorError
from provisioning.reconcile import reconcile, sample_usage
from provisioning.tasks import reconcile_host
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import lifecycle, services
from servers.models import Operation, Server
from servers.selectors import RECONCILE, failed_creates_on, servers_that_keep_dying
from servers.states import OperationKind, PowerState, ServerStatus
from tests.flows.conftest import FaultyHost, failed, finish, open_operation
from tests.flows.test_operations import at_once


def looked_at(host: Hypervisor, server: Server) -> Server:
    reconcile(host)
    server.refresh_from_db()
    return server


def pause_is_over(host: Hypervisor) -> None:
    """What time does to an open circuit."""
    host.retry_at = timezone.now()
    host.save(update_fields=["retry_at"])


def kill_qemu(server: Server) -> None:
    """What a crash of the host's QEMU looks like."""
    os.kill(qemu_of(server), signal.SIGKILL)


def qemu_of(server: Server) -> int:
    """Its process id."""
    mine = [
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit() and f"vps-{server.uuid}".encode() in _command_line(pid)
    ]
    assert len(mine) == 1, mine
    return mine[0]


def _command_line(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
    except OSError:
        return b""
    return line if b"qemu-system" in line.split(b"\0")[0] else b""


def wait_until_off(server: Server) -> None:
    deadline = timezone.now() + timedelta(seconds=60)
    while hypervisors.driver_of(server).power(server.uuid).state != PowerState.OFF:
        assert timezone.now() < deadline


def test_a_host_that_can_start_nothing_takes_nothing_new(
    host: Hypervisor, active: Server, order: Callable[..., Server]
) -> None:
    """Guard: _fault; without it the host fails one create after the other, and so stays the emptiest."""
    Hypervisor.objects.update(network="no-such-network")
    host.refresh_from_db()
    seen = looked_at(host, active)
    assert (seen.status, seen.power_state) == (ServerStatus.ACTIVE, PowerState.RUNNING)
    assert "no-such-network" in host.last_error
    with pytest.raises(NoCapacity):
        order()

    Hypervisor.objects.update(network="vps")
    host.refresh_from_db()
    reconcile(host)
    order()


def test_what_runs_as_promised_is_seen_and_left_alone(host: Hypervisor, active: Server) -> None:
    before = active.updated_at
    seen = looked_at(host, active)
    assert (seen.status, seen.power_state) == (ServerStatus.ACTIVE, PowerState.RUNNING)
    assert seen.observed_at is not None
    assert seen.updated_at == before, "nothing changed for the customer"
    host.refresh_from_db()
    assert host.last_seen_at is not None


def test_a_server_that_was_switched_off_on_its_host_is_stopped(host: Hypervisor, active: Server) -> None:
    hypervisors.driver_of(active).power_off(active.uuid)
    assert looked_at(host, active).status == ServerStatus.STOPPED
    assert not Operation.objects.filter(kind=OperationKind.START).exists()


def test_a_server_that_was_started_on_its_host_is_active(
    host: Hypervisor, active: Server, settings: Any
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.stop_server(server=active)
    finish(active)
    hypervisors.driver_of(active).start(active.uuid)
    assert looked_at(host, active).status == ServerStatus.ACTIVE


def test_a_suspended_server_that_runs_on_its_host_is_reported_and_stays_suspended(
    host: Hypervisor, active: Server, caplog: pytest.LogCaptureFixture
) -> None:
    Server.objects.filter(pk=active.pk).update(status=ServerStatus.SUSPENDED)
    seen = looked_at(host, active)
    assert (seen.status, seen.power_state) == (ServerStatus.SUSPENDED, PowerState.RUNNING)
    assert f"server {active.uuid}: runs though suspended" in caplog.text
    assert Operation.objects.filter(server=active).count() == 1, "the create, and nothing since"


def test_a_suspended_server_is_not_brought_back_when_its_host_was_down(
    host: Hypervisor, active: Server
) -> None:
    Server.objects.filter(pk=active.pk).update(status=ServerStatus.SUSPENDED)
    kill_qemu(active)
    wait_until_off(active)
    seen = looked_at(host, active)
    assert (seen.status, seen.power_state) == (ServerStatus.SUSPENDED, PowerState.OFF)
    assert Operation.objects.filter(server=active).count() == 1, "the create, and nothing since"


def test_a_server_whose_process_died_is_started_again(host: Hypervisor, active: Server) -> None:
    kill_qemu(active)
    wait_until_off(active)
    assert looked_at(host, active).status == ServerStatus.STARTING
    assert open_operation(active).actor == RECONCILE
    assert finish(active).status == ServerStatus.ACTIVE
    assert hypervisors.driver_of(active).power(active.uuid).state == PowerState.RUNNING


def test_a_server_that_dies_after_each_start_is_left_stopped(
    host: Hypervisor, active: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Guard: servers_that_keep_dying in follow_host; without it it is started for ever."""
    for _ in range(6):
        assert Code.SERVER_KEEPS_DYING not in {finding.code for finding in verify()}
        kill_qemu(active)
        wait_until_off(active)
        looked_at(host, active)
        finish(active)
    assert active.status == ServerStatus.STOPPED
    assert Operation.objects.filter(server=active, kind=OperationKind.START).count() == 5
    assert f"server {active.uuid} dies after each start" in caplog.text
    assert Code.SERVER_KEEPS_DYING in {finding.code for finding in verify()}
    Operation.objects.filter(server=active).update(created_at=timezone.now() - timedelta(hours=1, minutes=1))
    assert not servers_that_keep_dying(), "what was long before does not count"


def test_an_unreachable_host_changes_no_status(host: Hypervisor, faulty: FaultyHost, active: Server) -> None:
    faulty.fail_next("powers", HostUnreachable("no answer"))
    seen = looked_at(host, active)
    assert (seen.status, seen.power_state) == (ServerStatus.ACTIVE, PowerState.UNKNOWN)
    host.refresh_from_db()
    assert "no answer" in host.last_error
    pause_is_over(host)
    assert looked_at(host, active).power_state == PowerState.RUNNING
    assert host.last_error == ""


def test_a_server_with_an_open_operation_is_left_alone(host: Hypervisor, active: Server) -> None:
    hypervisors.driver_of(active).power_off(active.uuid)
    services.reboot_server(server=active)
    assert looked_at(host, active).status == ServerStatus.REBOOTING


def test_old_news_is_no_news(active: Server) -> None:
    """The host was asked before the last operation ended: what it said is over."""
    asked_at = active.written_at - timedelta(seconds=1)
    assert not lifecycle.observe(active, PowerState.OFF, asked_at)
    active.refresh_from_db()
    assert active.status == ServerStatus.ACTIVE


def test_a_machine_that_is_missing_is_unknown_and_nothing_is_done(host: Hypervisor, active: Server) -> None:
    hypervisors.driver_of(active).delete(active.uuid)
    seen = looked_at(host, active)
    assert (seen.status, seen.power_state) == (ServerStatus.ACTIVE, PowerState.UNKNOWN)


def test_usage_is_what_libvirt_counts(host: Hypervisor, active: Server) -> None:
    sample_usage(host)
    sample_usage(host)
    active.usage.refresh_from_db()
    assert active.usage.sampled_at is not None
    assert active.usage.last_cpu_time_ns > 0
    assert 0 <= active.usage.cpu_percent <= 100
    assert 0 <= active.usage.memory_used_mib <= 128


def test_one_sample_that_cannot_be_recorded_concerns_one_server(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: see_to_each in sample_usage."""
    bad, good = finish(order()), finish(order())
    told = faulty.usage([bad.uuid, good.uuid])
    told = {bad.uuid: replace(told[bad.uuid], memory_used_mib=2**62), good.uuid: told[good.uuid]}
    monkeypatch.setattr(faulty, "usage", lambda machines: told)
    sample_usage(host)
    bad.usage.refresh_from_db()
    good.usage.refresh_from_db()
    assert bad.usage.sampled_at is None
    assert good.usage.sampled_at is not None


def test_one_server_that_cannot_be_reconciled_does_not_keep_the_others(
    host: Hypervisor, order: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: see_to_each in _apply_all."""
    bad, good = finish(order()), finish(order())
    for server in (bad, good):
        hypervisors.driver_of(server).power_off(server.uuid)
    follow = services.follow_host

    def follow_or_fail(*, server: Server, **told: Any) -> None:
        if server == bad:
            raise RuntimeError("a bug of ours")
        follow(server=server, **told)

    monkeypatch.setattr(services, "follow_host", follow_or_fail)
    reconcile(host)
    good.refresh_from_db()
    assert good.status == ServerStatus.STOPPED


def test_servers_whose_network_was_restarted_are_plugged_in_again(
    host: Hypervisor, order: Callable[[], Server], qemu_uri: str
) -> None:
    """Guard: _reattach in reconcile."""
    servers = [finish(order()) for _ in range(2)]
    on_host = libvirt.open(qemu_uri)
    try:
        network = on_host.networkLookupByName("vps")
        network.destroy()
        network.create()
        off = [finding.object for finding in verify() if finding.code == Code.SERVER_OFF_NETWORK]
        assert off == [f"server {server.pk}" for server in servers]
        assert "2 of its machines are off their network" in host_facts.ask(host)
        reconcile(host)
        assert len(network.listAllPorts()) == 2
    finally:
        on_host.close()
    assert Code.SERVER_OFF_NETWORK not in {finding.code for finding in verify()}
    assert "off their network" not in host_facts.ask(host)


def test_a_host_that_does_not_let_go_is_asked_once_a_round(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    """Guard: the ``return`` in _remove_leftovers; without it each machine that is stuck costs a minute."""
    holding = [failed(finish(order())) for _ in range(3)]
    failed(finish(order()), home=None)
    faulty.calls.clear()
    faulty.fail_next("delete", HypervisorError("the process does not die"))
    reconcile(host)
    assert faulty.calls.count("delete") == 1
    reconcile(host)
    assert faulty.calls.count("delete") == 1 + 4
    assert not Server.objects.filter(pk__in=[server.pk for server in holding]).exclude(home=None)
    assert hypervisors.bare_driver_for(host).powers() == {}


def test_one_machine_that_is_stuck_does_not_keep_the_others(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the shuffle in _remove_leftovers."""
    for _ in range(2):
        failed(finish(order()))
    stuck = failed_creates_on(host)[0]
    delete = faulty.delete

    def stuck_or_not(machine: UUID, **told: bool) -> None:
        if machine == stuck.uuid:
            raise HypervisorError("the process does not die")
        delete(machine, **told)

    monkeypatch.setattr(faulty, "delete", stuck_or_not)
    for _ in range(20):
        reconcile(host)
    assert Server.objects.exclude(home=None).get() == stuck


def test_a_host_is_reconciled_by_one_worker_at_a_time(host: Hypervisor, faulty: FaultyHost) -> None:
    """Guard: try_lock in tasks.py."""
    with try_lock(reconcile_of_host(host.pk)):
        at_once(1, lambda: reconcile_host(host.pk))
    assert faulty.calls == []
    reconcile_host(host.pk)
    assert faulty.calls == ["powers", "check_ready", "room", "off_network"]


@pytest.mark.parametrize("power", [PowerState.RUNNING, PowerState.OFF])
def test_a_server_that_failed_is_not_brought_back_by_reconcile(
    host: Hypervisor, active: Server, power: PowerState
) -> None:
    Server.objects.filter(pk=active.pk).update(status=ServerStatus.ERROR)
    active.refresh_from_db()
    lifecycle.observe(active, power, timezone.now())
    active.refresh_from_db()
    assert active.status == ServerStatus.ERROR
