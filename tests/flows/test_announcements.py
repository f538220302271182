"""Servers tell of themselves: every change of status, and nothing else."""

import json
from collections.abc import Callable

import pytest
from django.utils import timezone

from accounts.models import WebhookDelivery
from servers import lifecycle
from servers.models import Server
from servers.services import delete_server, hard_stop_server, start_server
from servers.states import PowerState, ServerStatus
from tests.factories import ServerFactory, WebhookFactory
from tests.flows.conftest import finish

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
    """Guard: ``_announce`` in ``_write`` and in ``open_create``."""
    account = WebhookFactory.create().account
    server = finish(order(account=account))
    for service in (hard_stop_server, start_server, delete_server):
        service(server=server, requested_by="a test")
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
    """Guard: ``_announce`` in ``observe``."""
    server = ServerFactory.create(account=WebhookFactory.create().account, status=was)

    lifecycle.observe(server, power, timezone.now())

    assert [json.loads(row.body)["data"]["status"] for row in WebhookDelivery.objects.all()] == told
