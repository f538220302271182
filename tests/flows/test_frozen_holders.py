"""A process that is frozen while it holds a lock stops only those who need this lock, and not for long."""

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)
from django.db.backends.signals import connection_created

from accounts.models import Account
from billing import ledger, metering
from core import database
from core.database import Limits
from core.locks import metering_by, reconcile_of_host, try_lock
from provisioning import tasks
from provisioning.drivers.base import ImageInvalid
from provisioning.host_events import HostEvents
from provisioning.scheduler import Scheduler
from servers.tasks import meter
from tests.conftest import Customer
from tests.factories import AccountFactory, HypervisorFactory, OsVersionFactory, token_for
from tests.served import THREADS, served

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def frozen(account: Account) -> Iterator[None]:
    """Somebody has locked this account's credits and does nothing any more."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                ledger.locked(account)
                held.set()
                over.wait(60)
        except OperationalError:
            pass  # Postgres has ended the session
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()


def ask(port: int, token: str, method: str, path: str, body: Any = None) -> tuple[int, Any, float]:
    """The status, the headers and how long the answer took."""
    began = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        told = None if body is None else json.dumps(body)
        connection.request(method, f"/api/v1{path}", told, {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers, time.monotonic() - began


def test_a_lock_that_is_not_let_go_stops_neither_the_api_nor_other_accounts(
    shop: dict[str, Any], tmp_path: Path
) -> None:
    """Guard: lock_timeout of the API's sessions; without it each POST of that account keeps its thread.

    A row is two locks for Postgres, so an order may wait twice as long for it; and one process may get all
    orders, which is twice what it has threads.
    """
    lock_s = database.LIMITS["api"].lock
    alice, bob = AccountFactory.create(), AccountFactory.create()
    hers, his = token_for(alice), token_for(bob)
    answers: list[tuple[int, Any, float]] = []
    with served(tmp_path) as port, frozen(alice):
        ask(port, his, "GET", "/account/me/")
        orders = [
            threading.Thread(target=lambda: answers.append(ask(port, hers, "POST", "/servers/", shop)))
            for _ in range(THREADS)
        ]
        for order in orders:
            order.start()
        time.sleep(0.5)
        status, _, took_s = ask(port, his, "POST", "/servers/", shop)
        for order in orders:
            order.join()

    assert status == 201
    assert took_s < 4 * lock_s
    assert {(status, headers["Retry-After"]) for status, headers, _ in answers} == {(503, "5")}
    assert max(took_s for _, _, took_s in answers) < 5 * lock_s


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's sessions have the limits of a worker, only shorter."""
    monkeypatch.setitem(database.LIMITS, "worker", Limits(lock=1, statement=2, idle_in_transaction=1))
    connection.close()
    database.serve_as("worker")
    yield
    connection_created.disconnect(dispatch_uid=database.RECEIVER)
    connection.close()


@pytest.mark.parametrize(("command", "loop"), [("scheduler", Scheduler), ("host_events", HostEvents)])
def test_a_command_that_runs_for_ever_has_the_limits_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, command: str, loop: type
) -> None:
    """Guard: serve_as in the two commands; manage.py gives a command time for a person to think."""
    seen: list[str] = []

    def run(self: Any, over: threading.Event) -> None:
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            seen.append(cursor.fetchone()[0])

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handlers stay those of pytest
    database.serve_as("command")
    try:
        call_command(command)
    finally:
        connection_created.disconnect(dispatch_uid=database.RECEIVER)
        connection.close()
    assert seen == [f"{database.LIMITS['worker'].idle_in_transaction}s"]


def test_a_session_that_sleeps_in_a_transaction_is_ended(impatient: None) -> None:
    """Guard: idle_in_transaction_session_timeout.  The lock is free again although its holder is frozen."""
    account = AccountFactory.create()
    with frozen(account):
        time.sleep(2)
        with transaction.atomic():
            assert ledger.locked(account).pk == account.pk


def test_a_statement_that_takes_too_long_is_cancelled(impatient: None) -> None:
    """Guard: statement_timeout."""
    with pytest.raises(OperationalError) as refused, connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(30)")

    assert database.is_unavailable(refused.value)


def test_a_connection_that_breaks_in_the_middle_is_known_for_what_it_is() -> None:
    """psycopg2 raises its plain DatabaseError then, of which Django makes its own."""
    lost = [DatabaseError("server closed"), OperationalError("away"), InterfaceError("closed")]
    ours = [DataError("too long"), IntegrityError("twice"), ProgrammingError("syntax"), ValueError("x")]

    assert all(map(database.is_unavailable, lost))
    assert not any(map(database.is_unavailable, ours))


@contextmanager
def held(*keys: str) -> Iterator[None]:
    """Another process has these locks and does nothing any more."""
    got, over = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as locks:
            assert all(locks.enter_context(try_lock(key)) for key in keys)
            got.set()
            over.wait(60)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert got.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_host_that_nobody_can_reconcile_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Guard: the warning in reconcile_host."""
    host = HypervisorFactory.create()
    with held(reconcile_of_host(host.pk)):
        tasks.reconcile_host(host.pk)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"host {host.pk} is not reconciled now: another worker is still at it, or frozen"
    ]


def test_hours_that_nobody_can_charge_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Guard: the warning in servers.meter."""
    with held(*map(metering_by, range(metering.WORKERS))):
        meter()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "nothing is charged now: as many workers as there may be are still at it, or frozen"
    ]


def test_no_image_is_fetched_inside_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download takes minutes, and locks would be held meanwhile."""
    asked = []

    def fetch(*about: Any) -> None:
        asked.append(connection.in_atomic_block)
        raise ImageInvalid("this is no image")

    monkeypatch.setattr("provisioning.images._fetch", fetch)
    OsVersionFactory.create(name="Debian 12")
    with pytest.raises(CommandError, match="this is no image"):
        call_command("import_image", "https://example.com/x.qcow2", "--os=Debian 12", f"--sha256={'7' * 64}")

    assert asked == [False]


@pytest.mark.parametrize("headers", [{}, {"HTTP_IDEMPOTENCY_KEY": "hook-1"}], ids=["plain", "with a key"])
def test_no_name_server_is_asked_inside_a_transaction(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: prepare() of the view.  A name server may take seconds, and locks would be held meanwhile."""
    asked = []
    monkeypatch.setattr(
        "webhooks.services.permitted_addresses",
        lambda *about, **more: asked.append(connection.in_atomic_block),
    )
    alice = Customer(AccountFactory.create())
    body = {"url": "https://hooks.example.com/vps"}
    made = alice.post("/webhooks/", body, **headers)
    assert made.status_code == 201
    if headers:
        assert alice.post("/webhooks/", body, **headers).json()["id"] == made.json()["id"]

    assert asked == [False], "once, and a repeated request asks nobody"
