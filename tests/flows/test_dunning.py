"""When credits run out: warned, suspended, listed; and back again when they are paid."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any

import pytest
from celery import current_app
from django.db import connection
from django.utils import timezone

from accounts.actors import acting_as
from accounts.models import Account
from billing import ledger
from billing.ledger_audit import findings
from billing.metering import meter
from billing.models import Meter, Usage
from core import clock
from core.errors import InsufficientCredits, Refusal
from inventory.models import Hypervisor, IpAddress, Placement
from inventory.pools import add_ip_pool
from plans.models import Plan
from provisioning import hypervisors
from provisioning.drivers.base import HostMisconfigured
from servers import dunning, lifecycle, services, tasks
from servers.models import Operation, Server
from servers.runway import required_runway
from servers.states import OPEN_OPERATION, OperationKind, PowerState, ServerStatus, SuspensionReason
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
from tests.flows.test_metering import forge
from tests.flows.test_operations import at_once

PAID = {"reason": "invoice 17", "made_by": "a test"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURLY = Decimal("0.0140")
DAY_OF_ONE = 24 * HOURLY


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
        dunning.review(account.pk)
    assert warned() == 1
    ledger.top_up(account=account, amount=Decimal("0.0001"), **PAID)
    dunning.review(account.pk)
    account.refresh_from_db()
    assert account.warned_at is None
    ledger.correct(account=account, amount=Decimal("-0.0001"), **PAID)
    dunning.review(account.pk)
    assert warned() == 2


def test_an_account_is_warned_again_each_time_that_its_balance_falls_below_zero(
    transactional_db: None,
) -> None:
    """Guard: ``below_zero_since`` in ``_warn``."""
    account = AccountFactory.create(credits=Decimal("0.1"))
    webhook = WebhookFactory.create(account=account, events=["balance.low"])
    ServerFactory.create(account=account)

    def told(amount: str) -> list[bool]:
        """Of each message, whether it says when servers will be suspended."""
        ledger.correct(account=account, amount=Decimal(amount), **PAID)
        for _ in range(2):
            dunning.review(account.pk)
        messages = [json.loads(delivery.body)["data"] for delivery in webhook.deliveries.order_by("pk")]
        return [message["suspends_at"] is not None for message in messages]

    assert told("-0.01") == [False], "it does not last a day"
    assert told("-0.10") == [False, True], "below zero"
    assert told("-0.10") == [False, True]
    assert told("0.20") == [False, True], "it still does not last"
    assert told("-0.20") == [False, True, True], "another 72 hours have begun"
    assert told("10") == [False, True, True]
    assert told("-20") == [False, True, True, True], "at once, and once"


def test_servers_are_suspended_when_the_grace_is_over_and_not_before(poor: Account) -> None:
    """Guard: ``now < due_at`` in ``review``."""
    active, stopped = (
        ServerFactory.create(account=poor, status=s) for s in (ServerStatus.ACTIVE, ServerStatus.STOPPED)
    )
    making = ServerFactory.create(account=poor, status=ServerStatus.PROVISIONING)
    busy = ServerFactory.create(account=poor)
    OperationFactory.create(server=busy)
    others = ServerFactory.create()
    assert poor.below_zero_since is not None

    dunning.review_due(now=poor.below_zero_since + 72 * HOUR - timedelta(seconds=1))
    assert not Operation.objects.filter(kind=OperationKind.SUSPEND).exists()

    for _ in range(2):
        dunning.review_due(now=poor.below_zero_since + 72 * HOUR)
    orders = Operation.objects.filter(kind=OperationKind.SUSPEND)
    assert {order.server_id for order in orders} == {active.pk, stopped.pk}
    assert {order.actor for order in orders} == {dunning.DUNNING}
    assert (status_of(making), status_of(busy), status_of(others)) == ("provisioning", "active", "active")

    Operation.objects.filter(server=busy).update(status="succeeded")
    Server.objects.filter(pk=making.pk).update(status=ServerStatus.ACTIVE)
    dunning.review_due(now=poor.below_zero_since + 73 * HOUR)
    assert (status_of(making), status_of(busy)) == ("suspending", "suspending")


def test_a_server_that_is_kept_busy_is_suspended_all_the_same(poor: Account, settings: Any) -> None:
    """Its order under way ends, and the next one is refused.  Guard: ``require_grace`` in ``services``."""
    server = ServerFactory.create(account=poor)
    reboot = services.reboot_server(server=server)
    settings.VPS_GRACE_HOURS = 0
    dunning.review(poor.pk)
    assert status_of(server) == "rebooting"
    begun = lifecycle.begin(reboot.pk)
    assert begun is not None
    lifecycle.succeed(begun)
    with pytest.raises(InsufficientCredits):
        services.reboot_server(server=server)
    dunning.review(poor.pk)
    assert status_of(server) == "suspending"


def test_a_server_that_died_is_started_again_whatever_its_account_owes(poor: Account, settings: Any) -> None:
    """Its host's fault is no order of the customer's."""
    settings.VPS_GRACE_HOURS = 0
    server = ServerFactory.create(account=poor)
    services.follow_host(server=server, power=PowerState.OFF, start_again=True, asked_at=clock.now())
    assert status_of(server) == "starting"


def test_webhooks_are_told_that_the_balance_is_low_and_what_was_suspended(poor: Account) -> None:
    """Guard: ``announce`` in ``dunning``; what rolls back is not told."""
    webhook = WebhookFactory.create(account=poor, events=["balance.low", "account.suspended"])
    server = ServerFactory.create(account=poor)
    dunning.review(poor.pk)
    dunning.review(poor.pk, now=timezone.now() + 73 * HOUR)

    assert poor.below_zero_since is not None
    suspends_at = f"{poor.below_zero_since + 72 * HOUR:%Y-%m-%dT%H:%M:%SZ}"
    told = [json.loads(delivery.body) for delivery in webhook.deliveries.order_by("pk")]
    assert [(message["type"], message["data"]) for message in told] == [
        ("balance.low", {"balance": -1.0, "spend_per_hour": 0.014, "suspends_at": suspends_at}),
        (
            "account.suspended",
            {"balance": -1.0, "servers": [{"id": server.pk, "uuid": str(server.uuid), "name": server.name}]},
        ),
    ]


def test_that_an_account_is_suspended_is_told_once_until_it_is_paid(
    transactional_db: None, poor: Account
) -> None:
    """With the names of those that are busy, and not again for them, nor when the suspension fails.

    Guard: ``_is_told`` in ``_suspend``.
    """
    webhook = WebhookFactory.create(account=poor, events=["account.suspended"])
    idle, busy = ServerFactory.create(account=poor), ServerFactory.create(account=poor)
    reboot = OperationFactory.create(server=busy)
    suspended(poor, SuspensionReason.ABUSE)

    def told() -> list[set[int]]:
        dunning.review(poor.pk, now=timezone.now() + 73 * HOUR)
        messages = [json.loads(delivery.body)["data"] for delivery in webhook.deliveries.order_by("pk")]
        return [{server["id"] for server in message["servers"]} for message in messages]

    assert told() == [{idle.pk, busy.pk}]
    begun = lifecycle.begin(Operation.objects.get(kind=OperationKind.SUSPEND).pk)
    assert begun is not None
    lifecycle.fail(begun, PowerState.RUNNING)
    Operation.objects.filter(pk=reboot.pk).update(status="succeeded")
    assert told() == [{idle.pk, busy.pk}]
    assert Operation.objects.filter(kind=OperationKind.SUSPEND).count() == 3

    Operation.objects.update(status="succeeded")
    Server.objects.filter(suspended_for=SuspensionReason.BILLING).update(status=ServerStatus.ACTIVE)
    ledger.top_up(account=poor, amount=Decimal(1), **PAID)
    ledger.correct(account=poor, amount=Decimal(-1), **PAID)
    assert len(told()) == 2, "another time below zero"


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
    dunning.review(poor.pk)
    assert status_of(for_billing) == "suspended", "still below zero"
    ledger.top_up(account=poor, amount=Decimal("0.0001"), **PAID)
    dunning.review(poor.pk)
    assert status_of(for_billing) == "unsuspending"
    assert (status_of(for_abuse), status_of(gone)) == ("suspended", "suspended")


def test_a_top_up_does_not_bring_back_what_staff_suspend_for_abuse_meanwhile(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staff come between the look and the order.  Guard: ``reason`` in ``unsuspend_server``."""
    account = AccountFactory.create()
    server, other = (suspended(account, SuspensionReason.BILLING) for _ in range(2))
    unsuspend = services.unsuspend_server

    def staff_are_quicker(**order: Any) -> Operation:
        if order["server"] == server:
            services.suspend_server(server=server, reason=SuspensionReason.ABUSE)
        return unsuspend(**order)

    monkeypatch.setattr(services, "unsuspend_server", staff_are_quicker)
    dunning.review(account.pk)
    assert (status_of(server), status_of(other)) == ("suspended", "unsuspending")
    assert not Operation.objects.filter(server=server).exists()


def test_a_top_up_is_acted_on_by_its_message_and_without_it_by_the_next_look_at_all(
    poor: Account, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, **more: sent.append((name, args)))
    server = suspended(poor, SuspensionReason.BILLING)
    with django_capture_on_commit_callbacks(execute=True):
        ledger.top_up(account=poor, amount=Decimal(1), **PAID)
    assert sent == [("servers.review_account", [poor.pk])]
    assert tasks.review_account.name == "servers.review_account"
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

    assert list(dunning.suspended_for_long(now)) == [long_ago]
    for days in range(100):
        dunning.review_due(now=now + days * DAY)
    assert not Operation.objects.filter(kind=OperationKind.DELETE).exists()


def test_an_account_that_cannot_be_reviewed_keeps_no_other_waiting(
    poor: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = AccountFactory.create(credits=-1)
    server = ServerFactory.create(account=other)
    review = dunning.review

    def breaks(account_id: int, now: Any) -> None:
        if account_id == poor.pk:
            raise ZeroDivisionError
        review(account_id, now)

    monkeypatch.setattr(dunning, "review", breaks)
    dunning.review_due(now=timezone.now() + 100 * HOUR)
    assert status_of(server) == "suspending"
    assert f"account {poor.pk} could not be reviewed" in caplog.text


# All at once.


@pytest.fixture
def create(transactional_db: None) -> Callable[[Account], Server]:
    """How an account orders a server, where there is room for many."""
    host = HypervisorFactory.create()
    network = ip_network("203.0.113.0/24")
    add_ip_pool(
        location=host.location, network=network, gateway="203.0.113.1", nameservers=[], reserved=set()
    )
    plan, system = PlanFactory.create(), OsVersionFactory.create()
    return lambda account: services.create_server(
        account=account, name="web", plan=plan, os_version=system, location=host.location,
    )  # fmt: skip


@pytest.fixture
def ten(create: Callable[[Account], Server]) -> tuple[Account, list[Server]]:
    """An account with ten servers that run, and credits for a day of them."""
    account = AccountFactory.create(credits=10 * DAY_OF_ONE)
    servers = [create(account) for _ in range(10)]
    Operation.objects.update(status="succeeded")
    Server.objects.update(status=ServerStatus.ACTIVE)
    Meter.objects.update(state="running")
    return account, servers


def test_of_many_creates_at_once_as_many_succeed_as_there_are_credits_for(
    create: Callable[[Account], Server],
) -> None:
    """50 at once with credits for 10.  Guard: ``ledger.locked`` in ``create_server``."""
    account = AccountFactory.create(credits=10 * DAY_OF_ONE)
    results = at_once(50, lambda: create(account))

    made = [result for result in results if isinstance(result, Server)]
    refused = [result for result in results if isinstance(result, InsufficientCredits)]
    assert (len(made), len(refused)) == (10, 40)
    assert Server.objects.count() == Operation.objects.count() == Placement.objects.count() == 10
    assert IpAddress.objects.exclude(port=None).count() == 10
    account.refresh_from_db()
    assert account.balance == 10 * DAY_OF_ONE
    assert {(refusal.balance, refusal.required) for refusal in refused} == {
        (account.balance, 11 * DAY_OF_ONE)
    }


def test_of_many_resizes_at_once_as_many_succeed_as_there_are_credits_for(
    ten: tuple[Account, list[Server]], create: Callable[[Account], Server]
) -> None:
    """Ten at once with credits for two, and while they are under way for nothing else.

    Guard: ``_dearer_by_resizes`` in ``required_runway``; ``ledger.locked`` in ``resize_server``.
    """
    account, servers = ten
    ledger.top_up(account=account, amount=2 * DAY_OF_ONE, **PAID)
    twice = PlanFactory.create(slug="twice", price_hourly=2 * HOURLY)
    waiting = iter(servers)
    results = at_once(10, lambda: services.resize_server(server=next(waiting), plan=twice))

    resizes = [result for result in results if isinstance(result, Operation)]
    assert len(resizes) == 2
    with pytest.raises(InsufficientCredits) as refusal:
        create(account)
    assert refusal.value.required == 13 * DAY_OF_ONE
    with pytest.raises(InsufficientCredits) as refusal:
        services.update_server(server=resizes[0].subject_server, backups_enabled=True)
    assert refusal.value.required == 12 * DAY_OF_ONE + 2 * DAY_OF_ONE / 5, "backups of the plan to be"


def test_of_many_that_enable_backups_at_once_as_many_succeed_as_there_are_credits_for(
    ten: tuple[Account, list[Server]],
) -> None:
    """Guard: ``ledger.locked`` in ``update_server``."""
    account, servers = ten
    ledger.top_up(account=account, amount=DAY_OF_ONE / 5, **PAID)
    waiting = iter(servers)
    results = at_once(10, lambda: services.update_server(server=next(waiting), backups_enabled=True))
    assert sum(isinstance(result, Server) for result in results) == 1
    assert Server.objects.filter(backups_enabled=True).count() == 1


def test_an_adopted_resize_counts_once(ten: tuple[Account, list[Server]]) -> None:
    """Guard: ``_difference`` asks what the server costs now."""
    account, (server, *_) = ten
    ledger.top_up(account=account, amount=DAY_OF_ONE, **PAID)
    twice = PlanFactory.create(slug="twice", price_hourly=2 * HOURLY)
    resize = services.resize_server(server=server, plan=twice)
    assert required_runway(account) == 11 * DAY_OF_ONE
    begun = lifecycle.begin(resize.pk)
    assert begun is not None
    lifecycle.adopt(begun)
    assert required_runway(account) == 11 * DAY_OF_ONE


def test_a_resize_goes_by_what_the_server_is_now_and_not_by_what_was_read_before(
    ten: tuple[Account, list[Server]],
) -> None:
    """Guard: ``_locked`` in ``resize_server``."""
    account, (stale, *_) = ten
    other = PlanFactory.create(slug="other", price_hourly=HOURLY / 2, disk_gib=100)
    Server.objects.filter(pk=stale.pk).update(plan=other)
    Placement.objects.filter(server=stale).update(disk_gib=100)
    Meter.objects.filter(subject_id=stale.pk).update(price_hourly=HOURLY / 4)

    def resize(plan: Plan) -> None:
        services.resize_server(server=stale, plan=plan)

    for plan, code in ((other, "same_plan"), (stale.plan, "disk_shrinks")):
        with pytest.raises(Refusal) as refusal:
            resize(plan)
        assert refusal.value.code == code
    ledger.correct(account=account, amount=-DAY_OF_ONE, **PAID)
    half = PlanFactory.create(slug="half", price_hourly=HOURLY / 2, disk_gib=100)
    with pytest.raises(InsufficientCredits):
        resize(half)  # cheaper than it was, dearer than it is


def test_resizes_and_backups_at_once_do_not_spend_the_same_credits_twice(
    ten: tuple[Account, list[Server]],
) -> None:
    """Credits for one resize or five backups.  Guard: ``ledger.locked`` in ``resize_server``."""
    account, servers = ten
    ledger.top_up(account=account, amount=DAY_OF_ONE, **PAID)
    twice = PlanFactory.create(slug="twice", price_hourly=2 * HOURLY)
    waiting = iter(enumerate(servers))

    def ask() -> Operation | Server:
        number, server = next(waiting)
        if number % 2:
            return services.update_server(server=server, backups_enabled=True)
        return services.resize_server(server=server, plan=twice)

    results = at_once(10, ask)

    resizes = sum(isinstance(result, Operation) for result in results)
    backups = sum(isinstance(result, Server) for result in results)
    assert (resizes, backups) in {(1, 0), (0, 5)}
    account.refresh_from_db()
    assert required_runway(account) == account.balance


def test_what_comes_back_after_a_top_up_counts_before_it_is_written(
    create: Callable[[Account], Server],
) -> None:
    """Guard: ``by_billing`` in ``to_be_paid``."""
    poor = AccountFactory.create(credits=-1)
    suspended(poor, SuspensionReason.BILLING)
    suspended(poor, SuspensionReason.ABUSE)
    ledger.top_up(account=poor, amount=1 + DAY_OF_ONE, **PAID)
    with pytest.raises(InsufficientCredits) as refusal:
        create(poor)
    assert refusal.value.required == 2 * DAY_OF_ONE


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
    assert (account.balance, account.payments.count(), account.usage_lines.count()) == (100, 1, 0)
    assert not Meter.objects.exclude(began_at=None).exists()


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
    dunning.review_due(now=timezone.now() + 73 * HOUR)
    assert finish(server).status == ServerStatus.SUSPENDED
    assert hypervisors.driver_of(server).power(server.uuid).state == PowerState.OFF
    with pytest.raises(Refusal) as refusal:
        services.start_server(server=server)
    assert refusal.value.code == "suspended"
    ledger.top_up(account=account, amount=Decimal(1), **PAID)
    dunning.review(account.pk)
    assert finish(server).status == ServerStatus.ACTIVE
    assert hypervisors.driver_of(server).power(server.uuid).state == PowerState.RUNNING


def test_a_server_that_was_paid_for_comes_back_though_its_host_refused_at_first(
    host: Hypervisor, faulty: FaultyHost, order: Callable[..., Server], settings: Any
) -> None:
    """Guards: the last line of ``status_after_failure``; _failed_lately, without it again each minute."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    account = AccountFactory.create()
    server = finish(order(account=account))
    with acting_as(dunning.DUNNING):
        services.suspend_server(server=server, reason=SuspensionReason.BILLING)
    finish(server)
    faulty.fail_next("start", HostMisconfigured("no such bridge"))
    dunning.review(account.pk)
    assert finish(server).status == ServerStatus.SUSPENDED
    dunning.review(account.pk)
    assert not server.operations.filter(status__in=OPEN_OPERATION)
    dunning.review(account.pk, timezone.now() + timedelta(minutes=10))
    assert finish(server).status == ServerStatus.ACTIVE


# The audit.


def test_the_audit_says_what_does_not_add_up(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finding from damage that only a superuser of the database can do."""
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)  # the last day's last hour has not come yet
    monkeypatch.setattr("core.clock.now", lambda: noon)
    account, stranger = AccountFactory.create(credits=10), AccountFactory.create(credits=10)
    server = ServerFactory.create(account=account)
    with connection.cursor() as sql:
        sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("accounts_account", "billing_payment", "billing_usage"):
            sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    began = clock.now() - 50 * HOUR
    one = begun(server, began)
    meter()
    first, second, third = Usage.objects.order_by("day")[:3]
    hour = first.hours & -first.hours  # its first hour
    Usage.objects.filter(pk=first.pk).update(hours=first.hours & ~hour, amount=first.amount + HOURLY)
    Usage.objects.filter(pk=second.pk).update(amount=second.amount * 2)
    Usage.objects.filter(pk=third.pk).update(hours=third.hours | 1 << 23, amount=third.amount - HOURLY)
    theirs = forge(one, first.day - 40 * DAY, account_id=stranger.pk, amount=-1)
    put_right = forge(one, first.day - 80 * DAY, account_id=stranger.pk, amount=-2)
    ledger.refund(account=stranger, amount=Decimal(2), reference=f"line {put_right.pk}", **PAID)
    Meter.objects.update(due_at=began + 40 * HOUR)

    told = [(finding.code, finding.object) for finding in findings()]

    assert sorted(told) == [
        ("balance_differs", f"account {account.email}"),
        ("balance_differs", f"account {stranger.email}"),
        ("charge_differs", f"server {server.pk}"),
        ("charge_missing", f"server {server.pk}"),
        ("charge_of_stranger", f"account {stranger.email}"),
        *[("charge_unfounded", f"server {server.pk}")] * 2,
        ("metering_late", f"server {server.pk}"),
    ]
    assert theirs.pk != put_right.pk


def begun(server: Server, began: datetime) -> Meter:
    """Its meter, charging since that moment."""
    one = Meter.objects.get(subject_id=server.pk)
    Meter.objects.filter(pk=one.pk).update(began_at=began, charged_until=began, due_at=began)
    one.rates.create(since=began, price_hourly=one.price_hourly, price_monthly=one.price_monthly)
    one.refresh_from_db()
    return one
