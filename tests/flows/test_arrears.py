"""When credits run out: warned, suspended, listed; and back again when they are paid."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any

import pytest
from celery import current_app
from django.db import connection
from django.utils import timezone

from accounts import ledger
from accounts.models import Account, CreditEntry
from inventory.models import Hypervisor, IpAddress, Placement
from inventory.services import add_ip_pool
from provisioning import hosts
from provisioning.hypervisors.base import HostMisconfigured
from servers import arrears, services, tasks
from servers.audit import findings
from servers.metering import meter
from servers.models import Meter, Operation, Server
from servers.states import OperationKind, PowerState, ServerStatus, SuspensionReason
from tests.factories import (
    AccountFactory,
    HypervisorFactory,
    OperationFactory,
    OsVersionFactory,
    PlanFactory,
    ServerFactory,
    WebhookFactory,
)
from tests.flows.conftest import FaultyHost, finish
from tests.flows.test_operations import at_once
from vpsorg.errors import InsufficientCredits, Refusal

PAID = {"reason": "invoice 17", "made_by": "a test"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def status_of(server: Server) -> str:
    return Server.objects.get(pk=server.pk).status


@pytest.fixture
def poor(db: None) -> Account:
    account: Account = AccountFactory.create(credits=-1)
    return account


# Warned, suspended, back.


def test_an_account_is_warned_once_until_its_credits_last_again(
    db: None, caplog: pytest.LogCaptureFixture
) -> None:
    account = AccountFactory.create(credits=Decimal("0.3359"))  # a day of the server costs 0.336
    ServerFactory.create(account=account)

    def warned() -> int:
        return sum("does not last" in record.message for record in caplog.records)

    for _ in range(3):
        arrears.settle(account.pk)
    assert warned() == 1
    ledger.top_up(account=account, amount=Decimal("0.0001"), **PAID)
    arrears.settle(account.pk)
    account.refresh_from_db()
    assert account.warned_at is None
    ledger.correct(account=account, amount=Decimal("-0.0001"), **PAID)
    arrears.settle(account.pk)
    assert warned() == 2


def test_servers_are_suspended_when_the_grace_is_over_and_not_before(poor: Account) -> None:
    """Guard: ``now >= due_at`` in ``settle``."""
    active, stopped = (
        ServerFactory.create(account=poor, status=s) for s in (ServerStatus.ACTIVE, ServerStatus.STOPPED)
    )
    making = ServerFactory.create(account=poor, status=ServerStatus.PROVISIONING)
    busy = ServerFactory.create(account=poor)
    OperationFactory.create(server=busy)
    others = ServerFactory.create()
    assert poor.below_zero_since is not None

    arrears.settle_all(now=poor.below_zero_since + 72 * HOUR - timedelta(seconds=1))
    assert not Operation.objects.filter(kind=OperationKind.SUSPEND).exists()

    for _ in range(2):
        arrears.settle_all(now=poor.below_zero_since + 72 * HOUR)
    orders = Operation.objects.filter(kind=OperationKind.SUSPEND)
    assert {order.server_id for order in orders} == {active.pk, stopped.pk}
    assert {order.requested_by for order in orders} == {"billing"}
    assert (status_of(making), status_of(busy), status_of(others)) == ("provisioning", "active", "active")

    Operation.objects.filter(server=busy).update(status="succeeded")
    Server.objects.filter(pk=making.pk).update(status=ServerStatus.ACTIVE)
    arrears.settle_all(now=poor.below_zero_since + 73 * HOUR)
    assert (status_of(making), status_of(busy)) == ("suspending", "suspending")


def test_webhooks_are_told_that_the_balance_is_low_and_what_was_suspended(poor: Account) -> None:
    """Guard: ``announce`` in ``arrears``; what rolls back is not told."""
    webhook = WebhookFactory.create(account=poor, events=["balance.low", "account.suspended"])
    server = ServerFactory.create(account=poor)
    arrears.settle(poor.pk)
    arrears.settle(poor.pk, now=timezone.now() + 73 * HOUR)

    told = [json.loads(delivery.body) for delivery in webhook.deliveries.order_by("pk")]
    assert [(message["type"], message["data"]) for message in told] == [
        ("balance.low", {"balance": -1.0, "spend_per_hour": 0.014}),
        (
            "account.suspended",
            {"balance": -1.0, "servers": [{"id": server.pk, "uuid": str(server.uuid), "name": server.name}]},
        ),
    ]


def suspended(account: Account, reason: SuspensionReason, **fields: Any) -> Server:
    server: Server = ServerFactory.create(
        account=account,
        status=ServerStatus.SUSPENDED,
        suspended_for=reason,
        suspended_from=ServerStatus.ACTIVE,
        suspended_at=timezone.now(),
        power_state=PowerState.OFF,
        **fields,
    )
    return server


def test_a_top_up_brings_back_what_billing_suspended_and_not_what_staff_did(poor: Account) -> None:
    """Guard: ``suspended_for`` in ``suspended_by_billing``."""
    for_billing = suspended(poor, SuspensionReason.BILLING)
    for_abuse = suspended(poor, SuspensionReason.ABUSE)
    gone = suspended(poor, SuspensionReason.BILLING, deleted_at=timezone.now())

    ledger.top_up(account=poor, amount=Decimal("0.9999"), **PAID)
    arrears.settle(poor.pk)
    assert status_of(for_billing) == "suspended", "still below zero"
    ledger.top_up(account=poor, amount=Decimal("0.0001"), **PAID)
    arrears.settle(poor.pk)
    assert status_of(for_billing) == "unsuspending"
    assert (status_of(for_abuse), status_of(gone)) == ("suspended", "suspended")


def test_a_top_up_is_settled_by_its_message_and_without_it_by_the_next_look_at_all(
    poor: Account, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, **more: sent.append((name, args)))
    server = suspended(poor, SuspensionReason.BILLING)
    with django_capture_on_commit_callbacks(execute=True):
        ledger.top_up(account=poor, amount=Decimal(1), **PAID)
    assert sent == [("servers.settle", [poor.pk])]
    assert tasks.settle.name == "servers.settle"
    tasks.meter()
    assert status_of(server) == "unsuspending"


def test_staff_are_shown_what_has_been_suspended_for_long_and_nothing_is_deleted(poor: Account) -> None:
    long_ago, lately = (
        suspended(poor, SuspensionReason.BILLING, name=name) for name in ("long-ago", "lately")
    )
    suspended(poor, SuspensionReason.ABUSE)
    now = timezone.now()
    Server.objects.filter(pk=long_ago.pk).update(suspended_at=now - 14 * DAY)
    Server.objects.filter(pk=lately.pk).update(suspended_at=now - 14 * DAY + HOUR)

    assert list(arrears.suspended_for_long(now)) == [long_ago]
    for days in range(100):
        arrears.settle_all(now=now + days * DAY)
    assert not Operation.objects.filter(kind=OperationKind.DELETE).exists()


def test_an_account_that_cannot_be_settled_keeps_no_other_waiting(
    poor: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = AccountFactory.create(credits=-1)
    server = ServerFactory.create(account=other)
    settle = arrears.settle

    def breaks(account_id: int, now: Any) -> None:
        if account_id == poor.pk:
            raise ZeroDivisionError
        settle(account_id, now)

    monkeypatch.setattr(arrears, "settle", breaks)
    arrears.settle_all(now=timezone.now() + 100 * HOUR)
    assert status_of(server) == "suspending"
    assert f"account {poor.pk} could not be settled" in caplog.text


# All at once.


def test_of_many_creates_at_once_as_many_succeed_as_there_are_credits_for(transactional_db: None) -> None:
    """50 at once with credits for 10.  Guard: ``ledger.locked`` in ``create_server``."""
    host = HypervisorFactory.create()
    network = ip_network("203.0.113.0/24")
    add_ip_pool(
        location=host.location, network=network, gateway="203.0.113.1", nameservers=[], reserved=set()
    )
    plan, system = PlanFactory.create(), OsVersionFactory.create()
    account = AccountFactory.create(credits=10 * 24 * plan.price_hourly)

    def create() -> Server:
        return services.create_server(
            account=account, name="web", plan=plan, os_version=system, location=host.location,
            requested_by="a test",
        )  # fmt: skip

    results = at_once(50, create)

    made = [result for result in results if isinstance(result, Server)]
    refused = [result for result in results if isinstance(result, InsufficientCredits)]
    assert (len(made), len(refused)) == (10, 40)
    assert Server.objects.count() == Operation.objects.count() == Placement.objects.count() == 10
    assert IpAddress.objects.exclude(placement=None).count() == 10
    account.refresh_from_db()
    assert account.balance == 10 * 24 * plan.price_hourly
    assert {(refusal.balance, refusal.required) for refusal in refused} == {
        (account.balance, 11 * 24 * plan.price_hourly)
    }


def test_resizes_and_backups_at_once_do_not_spend_the_same_credits_twice(transactional_db: None) -> None:
    """Guard: ``ledger.locked`` in ``update_server``."""
    account = AccountFactory.create(credits=Decimal("3.36") + Decimal("0.0672"))  # ten servers, one's backups
    servers = [ServerFactory.create(account=account) for _ in range(10)]
    waiting = iter(servers)
    results = at_once(10, lambda: services.update_server(server=next(waiting), backups_enabled=True))
    assert sum(isinstance(result, Server) for result in results) == 1
    assert Server.objects.filter(backups_enabled=True).count() == 1


# On a real host.


def test_a_create_that_fails_on_its_host_costs_nothing(
    host: Hypervisor, faulty: FaultyHost, order: Callable[..., Server]
) -> None:
    account = AccountFactory.create(credits=100)
    server = order(account=account)
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    assert finish(server).status == ServerStatus.ERROR
    meter(timezone.now() + 3 * DAY)
    account.refresh_from_db()
    assert (account.balance, account.credit_entries.count()) == (100, 1)
    assert not Meter.objects.exists()


def test_credits_run_out_and_are_paid_on_a_real_host(
    host: Hypervisor, order: Callable[..., Server], settings: Any
) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    account = AccountFactory.create(credits=Decimal("0.336"))
    server = finish(order(account=account))
    later = timezone.now() + 24 * HOUR
    meter(later)
    account.refresh_from_db()
    assert account.balance == Decimal("-0.014")
    arrears.settle_all(now=timezone.now() + 73 * HOUR)
    assert finish(server).status == ServerStatus.SUSPENDED
    assert hosts.host_of(server).power(server.uuid).state == PowerState.OFF
    with pytest.raises(Refusal) as refusal:
        services.start_server(server=server, requested_by="a test")
    assert refusal.value.code == "suspended"
    ledger.top_up(account=account, amount=Decimal(1), **PAID)
    arrears.settle(account.pk)
    assert finish(server).status == ServerStatus.ACTIVE
    assert hosts.host_of(server).power(server.uuid).state == PowerState.RUNNING


# The audit.


def test_the_audit_says_what_does_not_add_up(db: None) -> None:
    """Each finding from damage that only a superuser of the database can do."""
    account, stranger = AccountFactory.create(credits=10), AccountFactory.create(credits=10)
    server = ServerFactory.create(account=account)
    with connection.cursor() as sql:
        sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("accounts_account", "accounts_creditentry"):
            sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    began = timezone.now() - 5 * HOUR
    Meter.objects.create(server=server, began_at=began, next_at=began)
    server.rates.create(since=began, price_hourly=Decimal("0.014"), price_monthly=10)
    meter()
    hours = account.credit_entries.filter(kind="usage").order_by("hour")
    first, second, third = hours[:3]
    hours.filter(pk=first.pk).delete()
    hours.filter(pk=second.pk).update(amount=Decimal("-0.028"))
    CreditEntry.objects.filter(pk=third.pk).update(hour=third.hour + timedelta(minutes=1))
    CreditEntry.objects.create(
        account=stranger, kind="usage", amount=-1, server_id=server.pk + 1, hour=began, **PAID
    )
    put_right = CreditEntry.objects.create(
        account=stranger, kind="usage", amount=-2, server_id=server.pk, hour=began + HOUR / 2, **PAID
    )
    ledger.refund(account=stranger, amount=Decimal(2), reference=f"line {put_right.pk}", **PAID)
    Meter.objects.update(next_at=began + 3 * HOUR)

    codes = sorted(finding.code for finding in findings())

    assert codes == [
        "balance_differs",
        "balance_differs",
        "charge_differs",
        *["charge_missing"] * 2,
        "charge_of_stranger",
        "charge_unfounded",
        "metering_late",
    ]
