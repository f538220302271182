"""What was forgotten is found, whatever became of the broker."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from redis import Redis

from provisioning.sweep import Sweep
from servers.models import Operation, Server
from servers.states import OperationStatus, ServerStatus
from tests.factories import OperationFactory
from tests.flows.test_operations import at_once
from tests.private_services import REDIS

QUEUE = "provision.us-west"


@pytest.fixture
def redis() -> Redis:
    broker: Redis = Redis(unix_socket_path=str(REDIS.socket))
    broker.flushall()
    return broker


@pytest.fixture
def no_broker() -> Iterator[None]:
    REDIS.stop()
    yield
    REDIS.start()


def look(sweep: Sweep) -> None:
    sweep.once()
    sweep.finish()


def test_without_a_broker_the_sweep_does_not_wait_though_it_found_nothing_once(
    no_broker: None, order: Callable[..., Server]
) -> None:
    """Guard: ``_has_broker`` is set by a message that was sent, not by a look that found nothing."""
    forgotten = order()
    Operation.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    sweep = Sweep(patience=timedelta(seconds=15))
    look(sweep)
    assert Server.objects.get(pk=forgotten.pk).status == ServerStatus.ACTIVE
    assert sweep.once() == 0
    fresh = order(account=forgotten.account)
    look(sweep)
    assert Server.objects.get(pk=fresh.pk).status == ServerStatus.ACTIVE


@pytest.mark.django_db(transaction=True)
def test_a_worker_of_the_location_is_reminded_and_not_at_every_look(redis: Redis) -> None:
    """Guard: ``_reminded``; without it a long queue doubles with every look."""
    OperationFactory.create(due_at=timezone.now() - timedelta(minutes=1))
    OperationFactory.create(due_at=timezone.now())
    sweep = Sweep(patience=timedelta(seconds=15))
    assert [sweep.once() for _ in range(3)] == [1, 0, 0]
    assert redis.llen(QUEUE) == 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sweep's clock: its first element is the time."""
    now = [0.0]
    monkeypatch.setattr("provisioning.sweep.monotonic", lambda: now[0])
    return now


def seconds_of_reminders(sweep: Sweep, clock: list[float], until: int) -> list[int]:
    reminders = []
    for second in range(0, until, 5):
        clock[0] = float(second)
        reminders += [second] * sweep.once()
    return reminders


@pytest.mark.django_db(transaction=True)
def test_where_nobody_listens_the_pauses_between_messages_grow(redis: Redis, clock: list[float]) -> None:
    """Guard: the doubling in _next_reminder; without it a location without a worker fills the broker."""
    OperationFactory.create(due_at=timezone.now() - timedelta(minutes=1))
    sweep = Sweep(patience=timedelta(seconds=15))
    assert seconds_of_reminders(sweep, clock, 2200) == [0, 15, 45, 105, 225, 465, 945, 1545, 2145]
    assert redis.llen(QUEUE) == 9


@pytest.mark.django_db(transaction=True)
def test_what_was_taken_up_meanwhile_is_soon_missed_again(redis: Redis, clock: list[float]) -> None:
    """Guard: ``_reminded`` keeps only what is late; without it the pause of an old trouble stays."""
    OperationFactory.create(due_at=timezone.now() - timedelta(minutes=1))
    sweep = Sweep(patience=timedelta(seconds=15))
    assert len(seconds_of_reminders(sweep, clock, 1000)) == 7
    Operation.objects.update(due_at=timezone.now())
    assert sweep.once() == 0
    Operation.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    assert sweep.once() == 1
    clock[0] += 15
    assert sweep.once() == 1


def test_what_waits_for_its_next_message_is_carried_out_when_the_broker_is_gone(
    redis: Redis, clock: list[float], order: Callable[..., Server]
) -> None:
    """Guard: ``_reminded`` is cleared when there is no broker; without it a long pause is waited for."""
    waiting = order()
    Operation.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    sweep = Sweep(patience=timedelta(seconds=15))
    assert seconds_of_reminders(sweep, clock, 1000)[-1] == 945
    order(account=waiting.account)
    Operation.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    REDIS.stop()
    try:
        look(sweep)
        look(sweep)
    finally:
        REDIS.start()
    assert Server.objects.get(pk=waiting.pk).status == ServerStatus.ACTIVE


def test_without_a_broker_operations_are_carried_out_all_the_same(
    no_broker: None, order: Callable[[], Server]
) -> None:
    """Guard: the ``except`` in Sweep.once."""
    servers = [order() for _ in range(2)]
    look(Sweep(patience=timedelta()))
    assert {Server.objects.get(pk=server.pk).status for server in servers} == {ServerStatus.ACTIVE}


def test_two_sweeps_at_once_do_nothing_twice(no_broker: None, order: Callable[[], Server]) -> None:
    """Guard: the WHERE of lifecycle.begin."""
    server = order()
    for _ in range(3):
        at_once(2, lambda: look(Sweep(patience=timedelta())))
    operation = Operation.objects.get(server=server)
    assert (operation.status, operation.attempt) == (OperationStatus.SUCCEEDED, 1)
