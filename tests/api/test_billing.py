"""What customers see of their credits, and what they are refused for want of them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from billing import ledger
from billing.metering import meter
from billing.models import Meter, Payment
from billing.prices import MeterState
from plans.models import Plan
from servers import lifecycle
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, OperationKind, ServerStatus
from tests.api.contract import is_validation_error
from tests.conftest import Customer
from tests.factories import PlanFactory, ServerFactory, complete_backup

BALANCE, LINES = "/account/balance/", "/account/transactions/"
HOURLY = Decimal("0.0140")


def create(customer: Customer, shop: dict[str, Any], **changes: Any) -> Server:
    """A server that is active, and has a backup if it is to have some."""
    answer = customer.post("/servers/", shop | changes)
    assert answer.status_code == 201, answer.json()
    server = Server.objects.get(pk=answer.json()["id"])
    operation = lifecycle.begin(Operation.objects.get(server=server, status__in=OPEN_OPERATION).pk)
    assert operation is not None
    lifecycle.succeed(operation)
    if server.backups_enabled:
        complete_backup(Server.objects.get(pk=server.pk))
    return server


# The balance.


def test_a_balance_tells_what_is_spent_and_when_it_runs_out(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    alice = customer(credits=84)
    assert alice.get(BALANCE).json() == {
        "balance": 84.0,
        "spend_per_hour": 0.0,
        "runs_out_at": None,
        "below_zero_since": None,
        "suspends_at": None,
    }
    create(alice, shop, backups_enabled=True)
    create(alice, shop)

    told = alice.get(BALANCE).json()

    assert (told["balance"], told["spend_per_hour"]) == (84.0, 0.0308)
    lasts = datetime.fromisoformat(told["runs_out_at"]) - timezone.now()
    assert abs(lasts - timedelta(hours=84 / 0.0308)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("status", "spend"),
    [
        (ServerStatus.PROVISIONING, 0.014),
        (ServerStatus.ACTIVE, 0.014),
        (ServerStatus.STOPPED, 0.014),
        (ServerStatus.UNSUSPENDING, 0.014),
        (ServerStatus.SUSPENDED, 0),
        (ServerStatus.ERROR, 0),
    ],
)
def test_what_will_not_be_charged_is_not_spent(alice: Customer, status: ServerStatus, spend: float) -> None:
    ServerFactory.create(account=alice.account, status=status)
    ServerFactory.create(account=alice.account, status=ServerStatus.DELETED, deleted_at=timezone.now())

    assert alice.get(BALANCE).json()["spend_per_hour"] == spend


def test_a_balance_below_zero_tells_when_servers_are_suspended(customer: Callable[..., Customer]) -> None:
    poor = customer(credits=-1)

    told = poor.get(BALANCE).json()

    assert (told["balance"], told["runs_out_at"]) == (-1.0, None)
    below, suspends = (datetime.fromisoformat(told[name]) for name in ("below_zero_since", "suspends_at"))
    assert suspends - below == timedelta(hours=72)


# Transactions.


def lines(customer: Customer, query: str = "") -> list[dict[str, Any]]:
    answer = customer.get(LINES + query)
    assert answer.status_code == 200, answer.json()
    return list(answer.json()["results"])


def test_transactions_are_the_ledgers_lines_newest_first(
    customer: Callable[..., Customer], shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.clock.now", lambda: datetime(2026, 2, 20, 12, 0, tzinfo=UTC))
    alice = customer(credits=0)
    ledger.top_up(
        account=alice.account, amount=Decimal(50), reason="invoice 17", reference="p9", made_by="staff eve"
    )
    server = create(alice, shop, backups_enabled=True)
    meter(datetime(2026, 2, 20, 13, 0, tzinfo=UTC))

    backups, usage, top_up = lines(alice)

    assert list(top_up) == [
        "id", "kind", "amount", "reason", "reference", "server_id", "hour", "created_at", "hours",
    ]  # fmt: skip
    assert [top_up[field] for field in ("kind", "amount", "reason", "reference")] == [
        "top_up", 50.0, "invoice 17", "p9",
    ]  # fmt: skip
    assert (top_up["server_id"], top_up["hour"], top_up["hours"]) == (None, None, None)
    assert [(line["kind"], line["amount"], line["server_id"]) for line in (usage, backups)] == [
        ("usage", -0.028, server.pk),
        ("backups", -0.0056, server.pk),
    ]
    began_at = Meter.objects.get(subject_id=server.pk, component="usage").began_at
    assert (usage["hour"], usage["hours"]) == (f"{began_at:%Y-%m-%dT%H:%M:%SZ}", 2)
    assert "staff eve" not in str(lines(alice)), "who of us did it is ours to know"


def test_transactions_are_filtered_by_server_also_by_a_deleted_one(
    alice: Customer, customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    charlie = customer()
    first, second = create(alice, shop), create(alice, shop)
    meter()
    alice.delete(f"/servers/{first.pk}/")

    for reference in (first.pk, first.uuid):
        assert [line["server_id"] for line in lines(alice, f"?server={reference}")] == [first.pk]
        assert lines(charlie, f"?server={reference}") == []
    assert len(lines(alice, "?server=")) == 3
    assert lines(alice, f"?server={second.pk + 1000}") == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c", "b", "a"]),
        ("?since=2026-02-28", ["c", "b"]),
        ("?until=2026-02-28", ["b", "a"]),
        ("?since=2026-02-28&until=2026-02-28", ["b"]),
        ("?since=2026-03-01&until=2026-02-28", []),
        ("?page_size=1&page=2", ["b"]),
    ],
)
def test_transactions_are_filtered_by_days_and_paged(
    customer: Callable[..., Customer], query: str, expected: list[str]
) -> None:
    alice = customer(credits=0)
    for reason, moment in (
        ("a", datetime(2026, 2, 27, 23, 59, 59, tzinfo=UTC)),
        ("b", datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)),
        ("c", datetime(2026, 3, 1, tzinfo=UTC)),
    ):
        Payment.objects.create(
            account=alice.account, kind="top_up", amount=1, reason=reason, made_by="a test", created_at=moment
        )

    assert [line["reason"] for line in lines(alice, query)] == expected


@pytest.mark.parametrize(
    ("field", "query"),
    [
        *[("server", word) for word in ("web", "-1", "1.5", "9" * 30, "12345%00", "💥", "1'--")],
        *[("since", word) for word in ("yesterday", "2026-02-30", "2026-13-01", "17", "%00")],
        *[("until", word) for word in ("today", "28.02.2026x", "99999-01-01")],
    ],
)
def test_strange_filters_are_refused_by_their_names(alice: Customer, field: str, query: str) -> None:
    answer = alice.get(f"{LINES}?{field}={query}")

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)


# What a server costs.


def test_the_use_of_a_server_is_told_by_months(
    alice: Customer, shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.clock.now", lambda: datetime(2026, 2, 28, 22, 30, tzinfo=UTC))
    server = create(alice, shop, backups_enabled=True)
    meter(datetime(2026, 3, 1, 1, 0, tzinfo=UTC))

    told = alice.get(f"/servers/{server.pk}/usage/").json()

    assert told == {
        "server_id": server.pk,
        "price_hourly": 0.014,
        "price_monthly": 10.0,
        "backups_hourly": 0.0028,
        "backups_monthly": 2.0,
        "charged_from": "2026-02-28T22:30:00Z",
        "charged_until": "2026-03-01T01:30:00Z",
        "total": 0.0504,
        "months": [
            {"month": "2026-03", "hours": 1, "usage": 0.014, "backups": 0.0028, "total": 0.0168},
            {"month": "2026-02", "hours": 2, "usage": 0.028, "backups": 0.0056, "total": 0.0336},
        ],
    }


def test_a_server_that_is_being_made_has_cost_nothing(alice: Customer, shop: dict[str, Any]) -> None:
    server = alice.post("/servers/", shop).json()

    told = alice.get(f"/servers/{server['id']}/usage/").json()

    assert (told["price_hourly"], told["charged_from"], told["total"], told["months"]) == (0.014, None, 0, [])


# 402.


def is_short(answer: Any, balance: Decimal, required: Decimal) -> bool:
    told = answer.json()
    return (answer.status_code, told.get("code"), told.get("balance"), told.get("required")) == (
        402,
        "insufficient_credits",
        float(balance),
        float(required),
    )


def test_a_create_with_backups_needs_credits_for_them(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    alice = customer(credits=24 * HOURLY)

    assert is_short(
        alice.post("/servers/", shop | {"backups_enabled": True}), 24 * HOURLY, 24 * HOURLY * Decimal("1.2")
    )
    assert alice.post("/servers/", shop).status_code == 201


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_enabling_backups_needs_credits_and_disabling_does_not(
    customer: Callable[..., Customer], shop: dict[str, Any], method: str
) -> None:
    """Guard: ``require_runway`` in ``update_server``."""
    alice = customer(credits=24 * HOURLY)
    path = f"/servers/{create(alice, shop).pk}/"
    body = {"name": "renamed", "hostname": "web01.example.com", "backups_enabled": True}

    assert is_short(alice.ask(method, path, body), 24 * HOURLY, 24 * HOURLY * Decimal("1.2"))
    assert alice.get(path).json()["name"] == "web-server-02", "all of it, or nothing"
    ledger.top_up(account=alice.account, amount=24 * HOURLY / 5, reason="paid", made_by="a test")
    assert alice.ask(method, path, body).status_code == 200
    ledger.correct(account=alice.account, amount=-24 * HOURLY, reason="a mistake", made_by="a test")
    assert alice.ask(method, path, body).status_code == 200, "they are enabled already"
    assert alice.ask(method, path, body | {"backups_enabled": False}).status_code == 200
    assert alice.ask(method, path, body).status_code == 402


def test_backups_of_a_server_that_costs_nothing_need_no_credits(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    """Guard: ``TO_BE_PAID`` in ``_first_backups``."""
    alice = customer(credits=48 * HOURLY)
    broken = create(alice, shop, backups_enabled=True)
    Meter.objects.filter(subject_id=broken.pk, component="backups").update(price_hourly=0)  # none yet
    Meter.objects.filter(subject_id=broken.pk).update(state=MeterState.OFF)
    assert alice.post("/servers/", shop).status_code == 201
    assert alice.post("/servers/", shop).status_code == 201


def test_a_resize_needs_credits_only_if_the_plan_is_dearer(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    """Guard: ``require_runway`` in ``resize_server``."""
    alice = customer(credits=48 * HOURLY)
    first, _other = create(alice, shop), create(alice, shop)
    bigger = PlanFactory.create(slug="bigger", price_hourly=2 * HOURLY)
    path = f"/servers/{first.pk}/resize/"

    assert is_short(alice.post(path, {"plan_id": bigger.pk}), 48 * HOURLY, 72 * HOURLY)
    assert not Operation.objects.filter(kind=OperationKind.RESIZE).exists()
    assert Server.objects.get(pk=first.pk).status == ServerStatus.ACTIVE
    ledger.correct(account=alice.account, amount=-48 * HOURLY, reason="a mistake", made_by="a test")
    cheaper = PlanFactory.create(slug="cheaper", price_hourly=HOURLY / 2)
    assert alice.post(path, {"plan_id": cheaper.pk}).status_code == 200


def test_all_that_runs_counts_at_the_price_that_it_was_sold_at(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    alice = customer(credits=48 * HOURLY)
    create(alice, shop)
    Plan.objects.update(price_hourly=3 * HOURLY)

    assert is_short(alice.post("/servers/", shop), 48 * HOURLY, 24 * 4 * HOURLY)


# When the grace is over.

ORDERS: dict[str, dict[str, Any]] = {
    "start": {},
    "reboot": {},
    "power": {"action": "restart"},
    "resize": {"plan_id": "alike"},
    "rebuild": {"os_id": "system"},
}


@pytest.mark.parametrize(("hours", "status"), [(0, 402), (1, 200)])
@pytest.mark.parametrize("action", ORDERS)
def test_whoever_owes_for_longer_than_the_grace_orders_nothing_that_runs_or_keeps_busy(
    customer: Callable[..., Customer],
    shop: dict[str, Any],
    settings: Any,
    action: str,
    hours: int,
    status: int,
) -> None:
    """Guard: ``require_grace`` in ``_order_within_grace``."""
    alice = customer()
    server = create(alice, shop)
    if action == "start":
        Server.objects.update(status=ServerStatus.STOPPED)
    alike = PlanFactory.create(slug="alike")
    ledger.correct(account=alice.account, amount=Decimal(-1001), reason="a mistake", made_by="a test")
    settings.VPS_GRACE_HOURS = hours
    rows = {"alike": alike.pk, "system": shop["os_id"]}
    body = {field: rows.get(value, value) for field, value in ORDERS[action].items()}

    answer = alice.post(f"/servers/{server.pk}/{action}/", body)

    assert answer.status_code == status
    if status == 402:
        assert is_short(answer, Decimal(-1), Decimal(0))
        assert not Operation.objects.filter(status__in=OPEN_OPERATION).exists(), "all of it, or nothing"


@pytest.mark.parametrize("action", ["stop", "hard_stop", "delete"])
def test_whoever_owes_may_always_stop_and_delete(
    customer: Callable[..., Customer], shop: dict[str, Any], settings: Any, action: str
) -> None:
    settings.VPS_GRACE_HOURS = 0
    alice = customer()
    path = f"/servers/{create(alice, shop).pk}/"
    ledger.correct(account=alice.account, amount=Decimal(-1001), reason="a mistake", made_by="a test")

    if action == "delete":
        assert alice.delete(path).status_code == 204
    else:
        assert alice.post(f"{path}power/", {"action": action}).status_code == 200
