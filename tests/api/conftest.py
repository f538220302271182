"""The world of the contract's examples, and what the broker was sent."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery.signals import after_task_publish
from django.core.signals import request_finished, request_started
from django.db import close_old_connections

from core.outage import Outage
from servers.models import Server
from tests.api.contract import SERVER
from tests.conftest import Customer
from tests.factories import (
    LocationFactory,
    OperatingSystemFactory,
    OsVersionFactory,
    PlanFactory,
    ServerFactory,
)


@pytest.fixture
def catalogue(db: None) -> dict[str, Any]:
    """The plan and the system of the examples, by their ids."""
    return {"plan": PlanFactory.create(pk=1), "os_version": OsVersionFactory.create(pk=5)}


@pytest.fixture
def example_shop(catalogue: dict[str, Any], shop: dict[str, Any]) -> dict[str, Any]:
    """The body of the contract's create, accepted here."""
    assert (shop["plan_id"], shop["os_id"]) == (1, 5)
    return shop | {"hostname": "web02.example.com", "backups_enabled": True}


@pytest.fixture
def web_server(alice: Customer, catalogue: dict[str, Any]) -> Server:
    """12345, ``web-server-01``, as in the examples."""
    server: Server = ServerFactory.create(
        pk=SERVER,
        account=alice.account,
        **catalogue,
        ip_address="203.0.113.10",
        ipv6_address="2001:0db8::1",
        backups_enabled=True,
        created_at=_utc("2025-01-10T14:30:00"),
        updated_at=_utc("2025-01-16T15:45:00"),
        usage__cpu_percent=23.4567,
        usage__memory_used_mib=2048,
        usage__disk_used_gib=35,
        usage__received_bytes=450_999_999_999,
        usage__sent_bytes=17,
    )
    return server


@pytest.fixture
def db_server(alice: Customer) -> Server:
    """12346, ``db-server-01``, as in the examples."""
    debian = OperatingSystemFactory.create(name="Debian")
    performance = {"vcpus": 4, "memory_mib": 8192, "disk_gib": 160}
    server: Server = ServerFactory.create(
        pk=SERVER + 1,
        account=alice.account,
        name="db-server-01",
        hostname="db01.example.com",
        plan=PlanFactory.create(pk=2, slug="performance", name="Performance VPS", **performance),
        os_version=OsVersionFactory.create(pk=3, name="Debian 12", operating_system=debian),
        location=LocationFactory.create(code="us-east"),
        ip_address="203.0.113.11",
        created_at=_utc("2025-01-12T09:15:00"),
        updated_at=_utc("2025-01-16T08:45:00"),
    )
    return server


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# The names that a customer may give a webhook here; any other has no address.
ADDRESSES = {
    "hooks.example.com": ["8.8.8.8", "2606:4700::1111"],
    "other.example.com": ["1.1.1.1"],
    "private.example.com": ["10.0.0.1"],
    "both.example.com": ["8.8.8.8", "10.0.0.1"],
}
look_up = socket.getaddrinfo


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody outside is asked for names; addresses and this machine's own name are themselves."""

    def answer(host: str, *args: Any, **kwargs: Any) -> Any:
        if host in ADDRESSES:
            return [(0, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ADDRESSES[host]]
        if host != "localhost":
            kwargs["flags"] = socket.AI_NUMERICHOST
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


class Broker:
    """The messages that Redis took, as (task, arguments)."""

    def __init__(self, capture: Any) -> None:
        self.messages: list[tuple[str, list[Any]]] = []
        self.sent_to: list[tuple[str, int | None]] = []  # queue, and seconds that its worker has
        self._capture = capture

    def after_commit_of(self, deed: Callable[[], Any]) -> list[tuple[str, list[Any]]]:
        """Do something and commit.  Nothing is sent before: a worker would not find the row."""
        with self._capture(execute=True):
            deed()
            assert self.messages == []
        return self.messages

    def record(self, sender: str, body: Any, headers: Any, routing_key: str, **about: Any) -> None:
        self.messages.append((sender, list(body[0])))
        self.sent_to.append((routing_key, headers["timelimit"][0]))


@pytest.fixture
def one_connection(db: None) -> Iterator[None]:
    """The server may not close the connection that the test's transaction is in."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def broker(
    db: None, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Broker]:
    monkeypatch.setattr("core.broker.OUTAGE", Outage(lasts_s=2))  # not another test's
    broker = Broker(django_capture_on_commit_callbacks)
    after_task_publish.connect(broker.record)
    yield broker
    after_task_publish.disconnect(broker.record)
