"""A worker that was frozen for longer than its lease wakes in the middle of a call, when all is over.

What it does then is late, and changes nothing: steps may be repeated, and it cannot write.
"""

from collections.abc import Callable
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError
from django.utils import timezone

from core import leases
from deploy.local.processes import wait_for
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.drivers.base import Driver
from provisioning.engine import carry_out
from provisioning.lease import kept_lease
from servers import lifecycle, services
from servers.models import Operation, Server
from servers.states import OperationStatus, PowerState, ServerStatus, SuspensionReason
from tests.factories import OperationFactory
from tests.flows.conftest import finish, let_lease_end, open_operation
from tests.flows.test_stories import assert_nothing_left, assert_one_machine


class FrozenHost:
    """A driver whose first call of this name comes only after something else has happened."""

    def __init__(self, real: Driver, call: str, meanwhile: Callable[[], Any]) -> None:
        self._real, self._call, self._meanwhile = real, call, meanwhile

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._real, name)
        if name != self._call:
            return method

        def late(*args: Any, **kwargs: Any) -> Any:
            self._call = ""
            self._meanwhile()
            return method(*args, **kwargs)

        return late


@pytest.fixture
def freeze(host: Hypervisor, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From now on the next call of this name is late."""
    real = hypervisors.bare_driver_for(host)

    def freeze(call: str, meanwhile: Callable[[], Any]) -> None:
        frozen = FrozenHost(real, call, meanwhile)
        monkeypatch.setattr(hypervisors, "bare_driver_for", lambda hypervisor: frozen)

    return freeze


def taken_over(server: Server) -> Callable[[], Server]:
    """Its lease ends, and another worker brings the operation to its end."""

    def take_over() -> Server:
        let_lease_end(server)
        return finish(Server.objects.get(pk=server.pk))

    return take_over


def deleted(server: Server) -> Callable[[], Server]:
    """Its lease ends, and the customer deletes the server."""

    def delete() -> Server:
        services.delete_server(server=Server.objects.get(pk=server.pk))
        return taken_over(server)()

    return delete


def test_a_step_that_takes_longer_than_the_lease_keeps_its_operation(
    host: Hypervisor, order: Callable[[], Server], freeze: Callable[..., None], settings: Any
) -> None:
    """Guards: ``kept_lease`` in carry_out.py, and the thread in it: a copy of an image may take minutes."""
    settings.VPS_OPERATION_LEASE = 1
    server = order()
    operation = open_operation(server)
    taken_by_another = []

    def slowly() -> None:
        settings.VPS_OPERATION_LEASE = 600  # from the next time on that it is renewed
        in_a_minute = timezone.now() + timedelta(minutes=1)
        renewed = Operation.objects.filter(pk=operation.pk, lease_until__gt=in_a_minute)
        assert wait_for(renewed.exists, 60)
        taken_by_another.append(lifecycle.begin(operation.pk))

    freeze("create_disk", slowly)
    carry_out(operation.pk)
    operation.refresh_from_db()
    assert taken_by_another == [None]
    assert (operation.attempt, operation.retries, operation.error_detail) == (1, 0, "")
    assert finish(server).status == ServerStatus.ACTIVE
    assert_one_machine(host, server)


@pytest.mark.parametrize(
    "lost",
    [OperationalError("away"), InterfaceError("closed"), DatabaseError("the server closed it")],
    ids=repr,
)
def test_a_lease_is_renewed_although_postgres_was_lost_once(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    """Guard: is_unavailable in _renew_until; else the thread ends with the first lost connection."""
    failures, renewed, renew = [lost], Event(), leases.renew

    def once_lost(row: Any, lease: timedelta) -> None:
        if failures:
            raise failures.pop()
        renew(row, lease)
        renewed.set()

    operation = OperationFactory.create()
    taken = lifecycle.begin(operation.pk)
    assert taken
    monkeypatch.setattr(leases, "renew", once_lost)
    with kept_lease(taken, timedelta(seconds=3)):
        assert renewed.wait(20)


CREATE_CALLS = ["has_image", "create_disk", "write_seed", "define", "start", "power", "mark_delivered"]


@pytest.mark.parametrize("call", CREATE_CALLS)
def test_a_ghost_of_a_create_that_another_one_finished(
    host: Hypervisor, order: Callable[[], Server], freeze: Callable[..., None], call: str
) -> None:
    """Guard: ``attempt=operation.attempt`` in lifecycle._fenced, and each call's look at what is there."""
    server = order()
    freeze(call, taken_over(server))
    carry_out(open_operation(server).pk)
    server.refresh_from_db()
    operation = server.operations.get()
    assert (operation.status, operation.attempt) == (OperationStatus.SUCCEEDED, 2)
    assert server.status == ServerStatus.ACTIVE
    assert hypervisors.driver_of(server).power(server.uuid).state == PowerState.RUNNING
    assert_one_machine(host, server)


@pytest.mark.parametrize("call", CREATE_CALLS)
def test_a_ghost_of_a_create_whose_server_was_deleted_leaves_nothing(
    host: Hypervisor, order: Callable[[], Server], freeze: Callable[..., None], call: str
) -> None:
    """Guard: _clean_up_after_myself in carry_out.py."""
    server = order()
    freeze(call, deleted(server))
    carry_out(open_operation(server).pk)
    server.refresh_from_db()
    assert server.status == ServerStatus.DELETED
    assert_nothing_left(host)


@pytest.mark.parametrize(
    ("service", "call"),
    [
        (services.stop_server, "shut_down"),
        (services.stop_server, "power"),
        (services.hard_stop_server, "power_off"),
        (services.reboot_server, "start"),
        (services.delete_server, "delete"),
    ],
)
def test_a_ghost_of_what_another_one_finished(
    host: Hypervisor,
    active: Server,
    freeze: Callable[..., None],
    settings: Any,
    service: Callable[..., Operation],
    call: str,
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    operation = service(server=active)
    freeze(call, taken_over(active))
    while Operation.objects.get(pk=operation.pk).status == OperationStatus.QUEUED:
        Operation.objects.filter(pk=operation.pk).update(due_at=operation.created_at)
        carry_out(operation.pk)
    operation.refresh_from_db()
    assert operation.status == OperationStatus.SUCCEEDED
    active.refresh_from_db()
    if active.status == ServerStatus.DELETED:
        assert_nothing_left(host)
    else:
        running = hypervisors.driver_of(active).power(active.uuid).state == PowerState.RUNNING
        assert running == (active.status == ServerStatus.ACTIVE)
        assert_one_machine(host, active)


def test_a_ghost_that_starts_a_suspended_server_switches_it_off_again(
    host: Hypervisor, active: Server, freeze: Callable[..., None], settings: Any
) -> None:
    """Guard: ``idle_suspended_servers`` in ``_clean_up_after_myself``: nobody else switches it off."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    services.hard_stop_server(server=active)
    start = services.start_server(server=finish(active))

    def suspended_meanwhile() -> None:
        server = taken_over(active)()
        services.suspend_server(server=server, reason=SuspensionReason.ABUSE)
        assert finish(server).status == ServerStatus.SUSPENDED

    freeze("start", suspended_meanwhile)
    while Operation.objects.get(pk=start.pk).status == OperationStatus.QUEUED:
        Operation.objects.filter(pk=start.pk).update(due_at=start.created_at)
        carry_out(start.pk)

    active.refresh_from_db()
    assert active.status == ServerStatus.SUSPENDED
    assert hypervisors.driver_of(active).power(active.uuid).state == PowerState.OFF
