"""The lock, the lease and the fence, with real threads on real Postgres."""

from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from threading import Barrier, Thread
from time import monotonic
from typing import TypeVar

import pytest
from django.db import connection
from django.utils import timezone

from core.broker import send_on_commit
from core.errors import NotFound, OperationInProgress, Refusal
from servers import lifecycle, services
from servers.lifecycle import Failure, LeaseLost
from servers.models import Operation, Server
from servers.selectors import due_operations
from servers.states import OperationKind, OperationStatus, PowerState, ServerStatus
from tests.factories import OperationFactory, ServerFactory
from tests.private_services import REDIS

pytestmark = pytest.mark.django_db(transaction=True)
T = TypeVar("T")


def at_once(times: int, do: Callable[[], T]) -> list[T | Refusal]:
    """What each of so many threads got, all let go at the same moment."""
    gate, results = Barrier(times), list[T | Refusal]()

    def run() -> None:
        gate.wait()
        try:
            results.append(do())
        except Refusal as refusal:
            results.append(refusal)
        finally:
            connection.close()

    threads = [Thread(target=copy_context().run, args=[run]) for _ in range(times)]  # by the same actor
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def begun(**fields: object) -> Operation:
    operation = lifecycle.begin(OperationFactory.create(**fields).pk)
    assert operation is not None
    return operation


def lease_ended(operation: Operation) -> None:
    Operation.objects.filter(pk=operation.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def test_of_many_requests_at_once_exactly_one_is_taken() -> None:
    server = ServerFactory.create(status=ServerStatus.ACTIVE)
    results = at_once(8, lambda: services.reboot_server(server=server))
    assert sum(isinstance(result, Operation) for result in results) == 1
    refusals = [result for result in results if isinstance(result, Refusal)]
    assert {type(refusal) for refusal in refusals} == {OperationInProgress}
    assert Operation.objects.filter(server=server).count() == 1


def test_of_many_deletes_at_once_exactly_one_is_taken() -> None:
    server = ServerFactory.create(status=ServerStatus.ACTIVE)
    results = at_once(8, lambda: services.delete_server(server=server))
    assert sum(isinstance(result, Operation) for result in results) == 1


def test_of_many_workers_exactly_one_begins() -> None:
    operation = OperationFactory.create()
    results = at_once(8, lambda: lifecycle.begin(operation.pk))
    assert sum(result is not None for result in results) == 1


def test_an_operation_is_not_begun_before_it_is_due() -> None:
    operation = OperationFactory.create(due_at=timezone.now() + timedelta(seconds=60))
    assert lifecycle.begin(operation.pk) is None


def test_an_operation_that_is_over_is_not_begun_again() -> None:
    operation = begun()
    lifecycle.succeed(operation)
    assert lifecycle.begin(operation.pk) is None


def test_an_operation_whose_worker_died_is_taken_over_and_the_ghost_cannot_write() -> None:
    ghost = begun()
    assert lifecycle.begin(ghost.pk) is None
    lease_ended(ghost)
    heir = lifecycle.begin(ghost.pk)
    assert heir is not None
    writes: list[Callable[[], None]] = [
        lambda: lifecycle.enter(ghost, "power_on"),
        lambda: lifecycle.renew(ghost),
        lambda: lifecycle.postpone(ghost, 1),
        lambda: lifecycle.note(ghost, "boo"),
        lambda: lifecycle.give_up(ghost, Failure("internal", "boo")),
        lambda: lifecycle.succeed(ghost),
        lambda: lifecycle.fail(ghost, PowerState.OFF),
        lambda: lifecycle.record_addresses(ghost, ()),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    lifecycle.succeed(heir)


def test_a_lease_that_is_renewed_does_not_end() -> None:
    operation = begun()
    lease_ended(operation)
    lifecycle.renew(operation)
    assert lifecycle.begin(operation.pk) is None


def test_a_delete_cancels_what_is_under_way_and_waits_for_its_worker_to_let_go() -> None:
    reboot = begun()
    delete = services.delete_server(server=reboot.subject_server)
    reboot.refresh_from_db()
    assert reboot.status == OperationStatus.CANCELLED
    assert lifecycle.begin(delete.pk) is None, "the reboot's worker still holds its lease"
    with pytest.raises(LeaseLost):
        lifecycle.succeed(reboot)
    lifecycle.let_go(reboot)
    assert lifecycle.begin(delete.pk) is not None


def test_a_delete_begins_when_the_lease_of_a_dead_worker_has_ended() -> None:
    reboot = begun()
    delete = services.delete_server(server=reboot.subject_server)
    lease_ended(reboot)
    assert lifecycle.begin(delete.pk) is not None


def test_the_sweep_finds_what_was_forgotten_and_nothing_else() -> None:
    now = timezone.now()
    past, soon = now - timedelta(minutes=1), now + timedelta(minutes=1)
    running, queued = OperationStatus.RUNNING, OperationStatus.QUEUED
    forgotten = {
        OperationFactory.create(status=queued, due_at=past).pk,
        OperationFactory.create(status=running, due_at=past, lease_until=past).pk,
    }
    OperationFactory.create(status=queued, due_at=soon)
    OperationFactory.create(status=running, due_at=past, lease_until=soon)
    for over in (OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELLED):
        OperationFactory.create(status=over, due_at=past)
    assert set(due_operations(timedelta()).values_list("pk", flat=True)) == forgotten


def test_an_order_outlives_a_broker_that_is_down_and_does_not_wait_for_it() -> None:
    """Guards: a name for what is sent in vpsorg/messages.py; the two about retries in settings.py."""
    server = ServerFactory.create(status=ServerStatus.ACTIVE)
    others = [ServerFactory.create(status=ServerStatus.ACTIVE) for _ in range(2)]
    REDIS.stop()
    began = monotonic()
    try:
        for other in others:
            services.reboot_server(server=other)
        operation = services.reboot_server(server=server)
        assert monotonic() - began < 3
    finally:
        REDIS.start()
    assert operation.status == OperationStatus.QUEUED
    assert Server.objects.get(pk=server.pk).status == ServerStatus.REBOOTING


def test_two_open_operations_are_refused_by_the_database_itself() -> None:
    from django.db import IntegrityError

    operation = OperationFactory.create()
    with pytest.raises(IntegrityError, match="one_open_operation_per_server"):
        OperationFactory.create(server=operation.server, kind=OperationKind.STOP)


def test_a_server_deleted_meanwhile_is_not_changed_any_more() -> None:
    server = ServerFactory.create(status=ServerStatus.ACTIVE, name="before")
    services.delete_server(server=server)
    with pytest.raises(NotFound):
        services.update_server(server=server, name="after")
    assert Server.objects.get(pk=server.pk).name == "before"


def test_no_message_makes_an_error_while_the_broker_is_down() -> None:
    """Guard: ``send`` in core/broker.py, which catches what the broker's absence raises."""
    REDIS.stop()
    try:
        send_on_commit("webhooks.deliver", 1)
    finally:
        REDIS.start()
