"""Listeners hear of every write of lifecycle; webhooks hear of every change of status, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from accounts.actors import Actor, acting_as, current, operator_actor, system_actor
from billing import meters
from plans.models import Location
from servers import changes, lifecycle, services
from servers.changes import StatusChange
from servers.models import Operation, Server
from servers.services import delete_server, hard_stop_server, start_server
from servers.states import OperationKind, PowerState, ServerStatus
from tests.factories import OsVersionFactory, PlanFactory, ServerFactory, WebhookFactory
from tests.flows.conftest import finish
from webhooks.models import WebhookDelivery

pytestmark = pytest.mark.django_db


def statuses_told(server: Server) -> list[str]:
    """The chain of statuses that the messages tell; each begins where the one before ended."""
    messages = [json.loads(row.body) for row in WebhookDelivery.objects.order_by("pk")]
    names = {"id": server.pk, "uuid": str(server.uuid), "name": server.name}
    assert all(message["data"]["server"] == names for message in messages)
    chain = [message["data"]["status"] for message in messages]
    assert [message["data"]["status_before"] for message in messages] == [None, *chain][: len(chain)]
    return chain


def test_the_life_of_a_server_is_told_without_a_gap(order: Callable[..., Server]) -> None:
    """Guard: ``_announce`` in ``lifecycle._write`` and ``announce`` in ``open_create``."""
    account = WebhookFactory.create().account
    server = finish(order(account=account))
    for service in (hard_stop_server, start_server, delete_server):
        service(server=server)
        finish(server)

    assert statuses_told(server) == [
        *("provisioning", "active", "stopping", "stopped", "starting", "active", "deleting", "deleted")
    ]


@pytest.mark.parametrize(
    ("was", "power", "told"),
    [
        (ServerStatus.ACTIVE, PowerState.OFF, ["stopped"]),
        (ServerStatus.ACTIVE, PowerState.RUNNING, []),
        (ServerStatus.ACTIVE, PowerState.UNKNOWN, []),
        (ServerStatus.STOPPED, PowerState.RUNNING, ["active"]),
    ],
)
def test_what_a_host_says_is_told_where_it_changes_the_status(
    was: ServerStatus, power: PowerState, told: list[str]
) -> None:
    """Guard: ``_announce`` in ``lifecycle.observe``."""
    server = ServerFactory.create(account=WebhookFactory.create().account, status=was)

    lifecycle.observe(server, power, timezone.now())

    assert [json.loads(row.body)["data"]["status"] for row in WebhookDelivery.objects.all()] == told


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[StatusChange]:
    """What a listener hears from now on."""
    heard: list[StatusChange] = []
    monkeypatch.setattr(changes, "_listeners", [*changes._listeners])
    changes.listen(heard.append)
    changes.listen(heard.append)
    return heard


def begun(operation: Operation) -> Operation:
    taken = lifecycle.begin(operation.pk)
    assert taken is not None
    return taken


def test_a_listener_hears_the_row_before_what_was_written_and_the_operation(
    heard: list[StatusChange], shop: dict[str, Any]
) -> None:
    """Guards: what ``lifecycle._announce`` hands on; a listener that is added twice hears once."""
    account, plan = WebhookFactory.create().account, PlanFactory.create()
    bigger = PlanFactory.create(slug="bigger", memory_mib=8192, price_hourly=1, price_monthly=100)
    server = services.create_server(
        account=account,
        name="web",
        plan=plan,
        os_version=OsVersionFactory.create(),
        location=Location.objects.get(code=shop["location"]),
    )
    create = server.operations.get()
    lifecycle.succeed(begun(create))
    resize = services.resize_server(server=server, plan=bigger)
    lifecycle.adopt(begun(resize))

    born, made, ordered, adopted = heard
    assert (born.before, born.after, born.operation) == (None, "provisioning", create)
    assert (made.before, made.after, made.operation) == ("provisioning", "active", create)
    assert made.server.power_state == PowerState.UNKNOWN, "the row as it was before the write"
    assert made.written["power_state"] == PowerState.RUNNING
    assert (ordered.before, ordered.after, ordered.operation) == ("active", "resizing", resize)
    assert (adopted.before, adopted.after) == ("resizing", "resizing")
    assert (adopted.server.plan_id, adopted.written["plan_id"]) == (plan.pk, bigger.pk)
    assert meters.prices_of("server", [server.pk])[server.pk]["usage"].hourly == 1, "money has heard of it"


def test_a_listener_that_raises_takes_the_write_back(
    heard: list[StatusChange], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``announce`` runs in the transaction of the write."""
    server = ServerFactory.create(account=WebhookFactory.create().account)

    def refuses(change: StatusChange) -> None:
        raise ArithmeticError

    changes.listen(refuses)
    with pytest.raises(ArithmeticError):
        lifecycle.request(server, OperationKind.STOP)
    assert len(heard) == 1
    server.refresh_from_db()
    assert server.status == ServerStatus.ACTIVE
    assert not Operation.objects.exists()
    assert not WebhookDelivery.objects.exists()


def test_what_a_host_changed_has_no_operation(heard: list[StatusChange]) -> None:
    server = ServerFactory.create()
    lifecycle.observe(server, PowerState.OFF, timezone.now())
    (change,) = heard
    assert (change.before, change.after, change.operation) == ("active", "stopped", None)


def test_what_a_worker_writes_is_the_deed_of_the_operations_own_actor(
    active: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``acting_as`` in ``engine.carry_out``."""
    eve, seen = operator_actor("eve"), set[Actor]()
    monkeypatch.setattr(changes, "_listeners", [lambda change: seen.add(current())])
    with acting_as(eve):
        hard_stop_server(server=active)
    with acting_as(system_actor("a worker")):
        finish(active)
    assert seen == {eve}
