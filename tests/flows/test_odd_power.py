"""Machines in odd states of power: the state decides what follows, not what a call to the host answers."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import libvirt
import pytest
from django.db.models import F
from django.db.models.functions import Now

from billing import ledger
from deploy.local.processes import wait_for
from inventory.models import Hypervisor
from plans.models import Plan
from provisioning import hypervisors
from provisioning.drivers.base import HostMisconfigured, HostUnreachable, HypervisorError
from servers import services
from servers.models import Operation, Server
from servers.states import OperationKind, OperationStatus, PowerState, ServerStatus, SuspensionReason
from tests.factories import PlanFactory
from tests.flows.conftest import FaultyHost, finish, open_operation
from tests.flows.test_reconcile import kill_qemu, qemu_of
from tests.flows.test_stories import assert_nothing_left, assert_one_machine, come_by

K, S, P = OperationKind, ServerStatus, PowerState


def pause(server: Server) -> None:
    libvirt.open(server.claim.hypervisor.uri).lookupByUUIDString(str(server.uuid)).suspend()
    assert power_of(server) == P.PAUSED


def hang(server: Server) -> None:
    os.kill(qemu_of(server), signal.SIGSTOP)


def die(server: Server) -> None:
    kill_qemu(server)
    assert wait_for(lambda: power_of(server) == P.OFF, 60)


def power_of(server: Server) -> PowerState:
    return hypervisors.driver_of(server).power(server.uuid).state


ODD_STATES: dict[str, Callable[[Server], None]] = {"paused": pause, "hung": hang, "dead": die}
#       the status afterwards, and what the machine then does
ENDS = {
    K.STOP: (S.STOPPED, P.OFF),
    K.HARD_STOP: (S.STOPPED, P.OFF),
    K.SUSPEND: (S.SUSPENDED, P.OFF),
    K.REBOOT: (S.ACTIVE, P.RUNNING),
    K.RESIZE: (S.ACTIVE, P.RUNNING),
    K.REBUILD: (S.ACTIVE, P.RUNNING),
    K.DELETE: (S.DELETED, None),
}


def order_of(kind: OperationKind, server: Server) -> Any:
    match kind:
        case K.RESIZE:
            wanted: dict[str, Any] = {"plan": bigger()}
        case K.REBUILD:
            wanted = {"os_version": server.os_version}
        case K.SUSPEND:
            wanted = {"reason": SuspensionReason.ABUSE}
        case _:
            wanted = {}
    return getattr(services, f"{kind}_server")(server=server, **wanted)


def bigger() -> Plan:
    plan: Plan = PlanFactory.create(slug="bigger", vcpus=2, memory_mib=192, disk_gib=2)
    return plan


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("state", ODD_STATES)
def test_an_operation_on_a_machine_in_an_odd_state_ends_as_it_should(
    host: Hypervisor, active: Server, settings: Any, state: str, kind: OperationKind
) -> None:
    """Guards: ``_press_power_button`` lets errors pass; PRESS_S; the cut after VPS_SHUTDOWN_TIMEOUT."""
    settings.VPS_SHUTDOWN_TIMEOUT = 1
    ODD_STATES[state](active)
    operation = order_of(kind, active)
    status, power = ENDS[kind]
    assert finish(active).status == status
    operation.refresh_from_db()
    assert (operation.status, operation.error_code) == (OperationStatus.SUCCEEDED, "")
    if power is None:
        assert_nothing_left(host)
    else:
        assert power_of(active) == power
        assert_one_machine(host, active)


def test_the_button_is_pressed_again_however_seldom_a_worker_comes_by(
    faulty: FaultyHost, active: Server, settings: Any
) -> None:
    """Guard: ``pressed_at``, the time of the last press: a queue of seconds is no reason to forget it."""
    settings.VPS_SHUTDOWN_TIMEOUT = 600
    services.stop_server(server=active)
    for _ in range(3):
        come_by(active)
    assert faulty.calls.count("shut_down") == 1
    for presses in (2, 3):
        long_ago = Now() - timedelta(seconds=11)
        Operation.objects.filter(pk=open_operation(active).pk).update(
            pressed_at=long_ago, step_since=F("step_since") - timedelta(seconds=14)
        )
        come_by(active)
        come_by(active)
        assert faulty.calls.count("shut_down") == presses


def test_a_guest_is_asked_once_before_its_power_is_cut(
    faulty: FaultyHost, active: Server, settings: Any
) -> None:
    """However late the worker comes that does it.  Guard: ``was_pressed`` in shut_down."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.stop_server(server=active)
    assert finish(active).status == S.STOPPED
    verbs = [call for call in faulty.calls if call in {"shut_down", "power_off"}]
    assert verbs == ["shut_down", "power_off"]


@pytest.mark.parametrize("kind", [K.STOP, K.HARD_STOP])
def test_a_cut_that_the_host_refuses_is_tried_until_the_machine_is_off(
    faulty: FaultyHost, active: Server, settings: Any, kind: OperationKind
) -> None:
    """Guard: HostBusy in cut_power; the same words twice would be final."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    for _ in range(3):
        faulty.fail_next("power_off", HypervisorError("Failed to terminate process: device busy"))
    order_of(kind, active)
    assert finish(active).status == S.STOPPED
    assert power_of(active) == P.OFF


def test_a_cut_that_says_it_failed_and_did_it_all_the_same_is_done(
    faulty: FaultyHost, active: Server
) -> None:
    """Guard: the look at the state in cut_power."""
    faulty.fail_next("power_off", HypervisorError("the monitor hung up"), when="after")
    services.hard_stop_server(server=active)
    assert finish(active).status == S.STOPPED
    assert faulty.calls.count("power_off") == 1


def test_a_host_that_is_silent_is_waited_for(faulty: FaultyHost, active: Server, settings: Any) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    faulty.fail_next("shut_down", HostUnreachable("no answer"))
    services.stop_server(server=active)
    come_by(active)
    assert open_operation(active).retries == 1
    Hypervisor.objects.update(retry_at=None, failures=0)
    assert finish(active).status == S.STOPPED


@pytest.mark.parametrize("kind", [K.REBOOT, K.RESIZE])
def test_a_failure_resumes_no_machine_that_somebody_paused(
    faulty: FaultyHost, active: Server, kind: OperationKind
) -> None:
    """Guard: ``power() == OFF`` in power_on_as_before."""
    pause(active)
    operation = order_of(kind, active)
    come_by(active)  # the button, which nobody hears
    Operation.objects.filter(pk=operation.pk).update(deadline_at="2020-01-01T00:00:00Z")
    finish(active)
    operation.refresh_from_db()
    assert operation.error_code == "deadline_exceeded"
    assert power_of(active) == P.PAUSED


@pytest.mark.parametrize("kind", [K.REBOOT, K.RESIZE])
def test_a_failure_brings_back_no_server_that_is_due_to_be_suspended(
    faulty: FaultyHost, active: Server, settings: Any, kind: OperationKind
) -> None:
    """Guard: is_due_to_be_suspended in power_on_as_before."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    faulty.fail_next("write_seed" if kind == K.REBOOT else "grow_disk", HostMisconfigured("no space"))
    order_of(kind, active)
    settings.VPS_GRACE_HOURS = 0
    debt = active.account.balance + 1
    ledger.correct(account=active.account, amount=-debt, reason="spent", made_by="a test")
    assert finish(active).status == S.STOPPED
    assert power_of(active) == P.OFF
