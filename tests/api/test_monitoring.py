"""What a load balancer, a supervisor and Prometheus are told."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Now
from django.test import Client
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from backups.models import Backup
from core import queues
from monitoring import readiness
from monitoring.metrics import GAUGES
from servers.models import Operation, Server
from tests.conftest import Customer
from tests.factories import (
    BackupFactory,
    HypervisorFactory,
    OperationFactory,
    ServerFactory,
    WebhookDeliveryFactory,
)

pytestmark = pytest.mark.django_db

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def probe(settings: Any) -> Client:
    settings.VPS_METRICS_TOKEN = TOKEN
    return Client()


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    nobody = redis.Redis.from_url(f"unix://{tmp_path}/nobody")
    monkeypatch.setattr(readiness, "broker", lambda: nobody)
    monkeypatch.setattr("monitoring.metrics.broker", lambda: nobody)


def scrape(probe: Client) -> dict[str, Metric]:
    answer = probe.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(answer.content.decode())}


def value(told: dict[str, Metric], name: str, **labels: str) -> float | None:
    """The value of the one sample with these labels; None if there is none."""
    found = [
        sample.value
        for sample in told[name].samples
        if sample.name in {name, f"{name}_total"} and labels.items() <= sample.labels.items()
    ]
    assert len(found) < 2, f"{name} has several: {found}"
    return found[0] if found else None


def test_an_api_that_answers_is_alive(probe: Client) -> None:
    answer = probe.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_probe_comes_by_an_address_and_over_plain_http(probe: Client, settings: Any, path: str) -> None:
    """Guard: the middleware's place before all others."""
    settings.ALLOWED_HOSTS = ["api.example.com"]
    settings.SECURE_SSL_REDIRECT = True
    answer = Client().get(path, headers={"Host": "10.0.0.7:8000", "Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 200


def test_it_is_ready_with_its_database_and_its_migrations(probe: Client) -> None:
    answer = probe.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "ok", "migrations": "ok", "broker": "ok"}


def test_it_is_ready_without_its_broker_and_says_so(probe: Client, no_broker: None) -> None:
    answer = probe.get("/readyz")

    assert answer.status_code == 200
    assert answer.json()["broker"].startswith("Redis does not answer")


def test_it_is_not_ready_while_a_migration_is_missing(probe: Client) -> None:
    """Guard: _migrations in readiness."""
    MigrationRecorder.Migration.objects.filter(app="servers", name="0001_initial").delete()
    answer = probe.get("/readyz")

    assert answer.status_code == 503
    assert "servers.0001_initial" in answer.json()["migrations"]


def test_it_is_not_ready_while_postgres_does_not_answer(
    probe: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> Any:
        raise OperationalError("the database system is shutting down")

    with connection.execute_wrapper(refuse):
        answer = probe.get("/readyz")
        metrics = probe.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 503
    assert answer.json()["database"].startswith("Postgres does not answer")
    assert metrics.status_code == 503


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Token {TOKEN}", f"Bearer {TOKEN}x"])
def test_without_the_token_nothing_is_told(probe: Client, given: str | None) -> None:
    """Guard: the comparison in scrape."""
    answer = probe.get("/metrics", headers={} if given is None else {"Authorization": given})

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert b"vps_servers" not in answer.content


def test_where_there_is_no_token_there_are_no_metrics(probe: Client, settings: Any) -> None:
    """Guard: the same; a token that is empty is sent easily."""
    settings.VPS_METRICS_TOKEN = ""

    assert probe.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_a_token_of_the_api_opens_no_metrics(probe: Client, alice: Customer) -> None:
    answer = probe.get("/metrics", headers={"Authorization": f"Bearer {alice.token}"})

    assert answer.status_code == 401


def test_servers_and_operations_are_counted(probe: Client) -> None:
    server = ServerFactory.create(status="active")
    location = server.location.code
    OperationFactory.create(
        server=server,
        kind="reboot",
        status="running",
        step="shut_down",
        step_since=Now() - timedelta(minutes=3),
        deadline_at=Now() - timedelta(minutes=1),
        due_at=Now() - timedelta(minutes=2),
    )
    failed = OperationFactory.create(server=server, kind="start", status="failed")
    Operation.objects.filter(pk=failed.pk).update(finished_at=Now(), error_code="host_unreachable")
    told = scrape(probe)

    assert value(told, "vps_servers", status="active", location=location) == 1
    assert value(told, "vps_operations_open", kind="reboot", status="running") == 1
    assert value(told, "vps_operation_step_seconds", kind="reboot", step="shut_down") == pytest.approx(
        180, 0.2
    )
    assert value(told, "vps_operations_oldest_due_seconds") == pytest.approx(120, 0.2)
    assert value(told, "vps_operations_overdue") == 1
    ended = {"kind": "start", "status": "failed", "code": "host_unreachable"}
    assert value(told, "vps_operations_finished_last_hour", **ended) == 1


def test_what_a_worker_holds_does_not_wait_for_one(probe: Client) -> None:
    OperationFactory.create(
        server=ServerFactory.create(),
        status="running",
        due_at=Now() - timedelta(hours=1),
        lease_until=Now() + timedelta(minutes=1),
    )

    assert value(scrape(probe), "vps_operations_oldest_due_seconds") == 0


def test_hypervisors_are_told_of(probe: Client) -> None:
    HypervisorFactory.create(
        name="kvm1", memory_mib=4096, memory_mib_used=1024, is_reachable=False, last_seen_at=Now()
    )
    HypervisorFactory.create(name="kvm2", status="disabled", is_reachable=False)
    told = scrape(probe)

    assert value(told, "vps_hypervisor_reachable", host="kvm1") == 0
    assert value(told, "vps_hypervisor_reachable", host="kvm2") is None
    assert value(told, "vps_hypervisor_status", host="kvm2", status="disabled") == 1
    room = {"host": "kvm1", "resource": "memory_mib"}
    assert value(told, "vps_hypervisor_room", kind="for_sale", **room) == 4096
    assert value(told, "vps_hypervisor_room", kind="claimed", **room) == 1024


def test_backups_are_told_of(probe: Client, alice: Customer) -> None:
    """A server that is late, one whose last automatic backup failed, and one that is as it should be."""
    late, failing, sound = (ServerFactory.create(account=alice.account, status="active") for _ in range(3))
    Server.objects.update(backup_due_at=Now() + timedelta(hours=5))
    Server.objects.filter(pk=late.pk).update(backup_due_at=Now() - timedelta(hours=4))
    old = BackupFactory.create(server=failing, kind="automatic")
    BackupFactory.create(server=failing, kind="automatic", status="failed")
    for kind in ("automatic", "snapshot"):
        BackupFactory.create(server=sound, kind=kind)
    told = scrape(probe)
    assert value(told, "vps_backups_missed", location=late.location.code) == 2
    assert value(told, "vps_backups", kind="automatic", status="completed") == 2
    assert value(told, "vps_backups_damaged") == 0
    assert value(told, "vps_backups_verified_seconds") == pytest.approx(0, abs=60)

    Backup.objects.filter(pk=old.pk).update(damage="lost", verified_at=Now() - timedelta(days=40))
    told = scrape(probe)
    assert value(told, "vps_backups_damaged") == 1
    assert value(told, "vps_backups_verified_seconds") == pytest.approx(40 * 86400, abs=60)


def test_messages_to_receivers_and_to_workers_are_counted(probe: Client, settings: Any) -> None:
    WebhookDeliveryFactory.create(due_at=Now() - timedelta(minutes=5))
    broker = redis.Redis.from_url(settings.REDIS_URL)
    broker.delete(queues.SHARED)
    broker.lpush(queues.SHARED, "one", "two")
    try:
        told = scrape(probe)
    finally:
        broker.delete(queues.SHARED)

    assert value(told, "vps_webhook_deliveries_pending") == 1
    assert value(told, "vps_webhook_deliveries_oldest_due_seconds") == pytest.approx(300, 0.2)
    assert value(told, "vps_broker_up") == 1
    assert value(told, "vps_queue_messages", queue=queues.SHARED) == 2


def test_without_a_broker_the_rest_is_told(probe: Client, no_broker: None) -> None:
    told = scrape(probe)

    assert value(told, "vps_broker_up") == 0
    assert "vps_queue_messages" not in told
    assert "vps_servers" in told


def test_requests_are_counted_by_the_name_of_their_route(probe: Client, alice: Customer) -> None:
    """Guard: a path in place of the name would be a new metric for each server."""
    labels = {"route": "server-detail", "method": "GET", "status": "404"}
    before = value(scrape(probe), "vps_http_requests", **labels) or 0
    alice.get("/servers/123456/")
    alice.get("/servers/1234567/")
    told = scrape(probe)

    assert value(told, "vps_http_requests", **labels) == before + 2
    assert not [s for s in told["vps_http_requests"].samples if "123456" in s.labels["route"]]


def test_a_method_that_nobody_knows_is_counted_as_other(probe: Client) -> None:
    probe.generic("BREW", "/api/v1/servers/")

    methods = {sample.labels["method"] for sample in scrape(probe)["vps_http_requests"].samples}
    assert "other" in methods
    assert "BREW" not in methods


@pytest.fixture
def queries(probe: Client) -> Iterator[list[str]]:
    asked: list[str] = []

    def note(execute: Any, sql: str, *args: Any) -> Any:
        asked.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(note):
        yield asked


def test_a_scrape_asks_as_much_of_many_rows_as_of_few(probe: Client, queries: list[str]) -> None:
    scrape(probe)
    few = len(queries)
    for number in range(5):
        ServerFactory.create(location__code=f"there-{number}")
    queries.clear()
    scrape(probe)

    assert few == len(queries) == len(GAUGES) + 2  # the pools of addresses, the locations
