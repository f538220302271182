"""The ledger: lines are added and never changed, and the balance is their sum, whoever writes."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from accounts.models import Account
from billing import ledger
from billing.models import Meter, Payment, Usage
from core.errors import Refusal
from tests.factories import AccountFactory
from tests.flows.test_metering import forge
from tests.flows.test_operations import at_once

DAY = date(2026, 2, 28)
TOLD = {"reason": "invoice 17", "made_by": "a test"}


def sum_of_lines(account: Account) -> Decimal:
    lines = account.payments, account.usage_lines
    return sum(
        (Decimal(of.aggregate(sum=Sum("amount", default=Decimal(0)))["sum"]) for of in lines), Decimal(0)
    )


def charge_of(account: Account, amount: str = "0.014", component: str = "usage", subject: int = 7) -> Usage:
    """A line for the first hour of a day."""
    one, _ = Meter.objects.get_or_create(
        account=account, subject_kind="server", subject_id=subject, component=component, state="running"
    )
    number = 10**6 + Usage.objects.count()
    return forge(one, DAY, id=number, amount=-Decimal(amount))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "deed",
    [
        lambda lines: lines.update(amount=1_000_000),
        lambda lines: lines.update(reason="something else"),
        lambda lines: lines.delete(),
        lambda lines: lines.get().delete(),
        lambda lines: lines.get().save(),
    ],
    ids=["amount", "reason", "delete", "delete one", "save again"],
)
def test_a_line_is_never_changed_or_removed(deed: Callable[[Any], None]) -> None:
    """Guard: the trigger ``ledger_is_append_only``."""
    account = AccountFactory.create(credits=10)
    with pytest.raises(IntegrityError, match="never changed or removed"), transaction.atomic():
        deed(Payment.objects.filter(account=account))
    assert account.payments.get().amount == 10


GROWN = {"hours": 3, "amount": Decimal("-0.028")}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "deed",
    [
        lambda lines: lines.update(amount=Decimal("-0.001")),
        lambda lines: lines.update(amount=Decimal("-0.028")),
        lambda lines: lines.update(hours=3),
        lambda lines: lines.update(hours=2, amount=Decimal("-0.028")),
        lambda lines: lines.update(hours=1, amount=Decimal("-0.028")),
        lambda lines: lines.update(**GROWN, reason="something else"),
        lambda lines: lines.update(**GROWN, day=DAY - timedelta(days=1)),
        lambda lines: lines.update(**GROWN, account=AccountFactory.create()),
        lambda lines: lines.update(**GROWN, subject_id=8),
        lambda lines: lines.update(**GROWN, component="backups"),
        lambda lines: lines.update(**GROWN, hour=datetime(2026, 2, 28, 1, tzinfo=UTC)),
        lambda lines: lines.delete(),
    ],
    ids=[
        *("gives back", "amount alone", "hours alone", "other hours", "the same hour", "reason", "day"),
        *("account", "subject", "component", "later", "delete"),
    ],
)
def test_a_line_of_usage_only_grows_by_hours_that_cost_something(deed: Callable[[Any], None]) -> None:
    """Guard: the trigger ``usage_only_grows``, condition by condition."""
    account = AccountFactory.create(credits=10)
    charge_of(account)
    with pytest.raises(IntegrityError, match="it grows by whole hours"), transaction.atomic():
        deed(Usage.objects.filter(account=account))
    Usage.objects.filter(account=account).update(**GROWN)
    account.refresh_from_db()
    assert account.balance == sum_of_lines(account) == Decimal("9.972")


@pytest.mark.django_db
def test_a_balance_follows_whoever_writes_to_the_table_of_a_month_by_its_name() -> None:
    """Guard: STATEMENT_TRIGGERS in ``core.partitions``."""
    account = AccountFactory.create(credits=10)
    charge_of(account)
    with connection.cursor() as sql:
        sql.execute("UPDATE billing_usage_2026_02 SET hours = 3, amount = -0.028")
    account.refresh_from_db()
    assert account.balance == sum_of_lines(account) == Decimal("9.972")
    with connection.cursor() as sql, pytest.raises(IntegrityError, match="grows"), transaction.atomic():
        sql.execute("DELETE FROM billing_usage_2026_02")


@pytest.mark.django_db
def test_a_component_has_one_line_for_a_day() -> None:
    """Guard: the constraint ``one_line_per_meter_and_day``; within it, each hour has one bit."""
    account = AccountFactory.create(credits=10)
    charge_of(account)
    with pytest.raises(IntegrityError, match="meter_id_day"), transaction.atomic():
        charge_of(account)
    charge_of(account, component="backups")
    charge_of(account, subject=8)
    account.refresh_from_db()
    assert account.balance == sum_of_lines(account) == Decimal("9.958")


@pytest.mark.django_db
def test_a_balance_that_is_not_the_sum_is_refused() -> None:
    """Guard: the trigger ``balance_is_the_sum``."""
    account = AccountFactory.create(credits=10)
    stale = Account.objects.get(pk=account.pk)
    ledger.top_up(account=account, amount=Decimal(5), **TOLD)
    deeds: list[Callable[[], object]] = [
        lambda: Account.objects.filter(pk=account.pk).update(balance=1_000_000),
        lambda: Account.objects.filter(pk=account.pk).update(below_zero_since=timezone.now()),
        lambda: stale.save(),
        lambda: Account.objects.create(email="rich@example.com", balance=1),
    ]
    for deed in deeds:
        with pytest.raises(IntegrityError, match="with the lines of its ledger only"), transaction.atomic():
            deed()
    stale.refresh_from_db()
    stale.company_name = "Acme"
    stale.save()
    assert stale.balance == 15


def test_many_lines_at_once_add_up(transactional_db: None) -> None:
    """Guard: ``account.balance + added.amount`` in the trigger, where Postgres waits for the row."""
    account = AccountFactory.create(credits=10)
    at_once(16, lambda: ledger.top_up(account=account, amount=Decimal("0.0625"), **TOLD))
    account.refresh_from_db()
    assert account.balance == sum_of_lines(account) == 11


@pytest.mark.django_db
def test_the_database_knows_since_when_a_balance_is_below_zero() -> None:
    account = AccountFactory.create(credits=0)
    charge_of(account, "0.01")
    account.refresh_from_db()
    began = account.below_zero_since
    assert began is not None
    charge_of(account, "0.01", subject=8)
    account.refresh_from_db()
    assert account.below_zero_since == began
    ledger.top_up(account=account, amount=Decimal("0.02"), **TOLD)
    account.refresh_from_db()
    assert (account.balance, account.below_zero_since) == (0, None)


@pytest.mark.django_db
@pytest.mark.parametrize("give", [ledger.top_up, ledger.refund])
@pytest.mark.parametrize("amount", ["0", "-5", "0.00001", "12345678901", "NaN", "Infinity"])
def test_what_is_no_amount_to_give_is_refused_and_nothing_written(
    give: Callable[..., Payment], amount: str
) -> None:
    account = AccountFactory.create(credits=10)
    with pytest.raises(Refusal) as refusal:
        give(account=account, amount=Decimal(amount), **TOLD)
    assert refusal.value.code == "invalid_amount"
    assert Payment.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "amount"),
    [("top_up", "-1"), ("refund", "0"), ("signup", "-1")],
)
def test_the_database_knows_which_lines_give_and_which_take(kind: str, amount: str) -> None:
    """Guard: the check constraint."""
    account = AccountFactory.create()
    with pytest.raises(IntegrityError, match="payments_give"), transaction.atomic():
        Payment.objects.create(account=account, kind=kind, amount=amount, **TOLD)


@pytest.mark.django_db
@pytest.mark.parametrize(("hours", "amount"), [(1, "1"), (1, "0"), (0, "-1"), (1 << 24, "-1")])
def test_a_line_of_usage_takes_and_is_for_hours_of_a_day(hours: int, amount: str) -> None:
    """Guards: the two check constraints."""
    account = AccountFactory.create()
    one = Meter.objects.create(account=account, subject_kind="server", subject_id=7, component="usage")
    with pytest.raises(IntegrityError, match="usage_"), transaction.atomic():
        forge(one, DAY, hours=hours, amount=Decimal(amount))


@pytest.mark.django_db
def test_a_payment_is_added_once() -> None:
    """Guard: the constraint ``one_top_up_per_reference``."""
    alice, bob = AccountFactory.create(credits=0), AccountFactory.create(credits=0)
    paid: dict[str, Any] = {"amount": Decimal(5), "reference": "payment 9", **TOLD}
    ledger.top_up(account=alice, **paid)
    with pytest.raises(Refusal) as refusal:
        ledger.top_up(account=alice, **paid)
    assert refusal.value.code == "duplicate_reference"
    ledger.top_up(account=bob, **paid)
    ledger.refund(account=alice, **paid)
    alice.refresh_from_db()
    assert alice.balance == 10


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["", "  ", "a" * 256])
def test_a_line_says_why(reason: str) -> None:
    account = AccountFactory.create(credits=10)
    with pytest.raises(Refusal):
        ledger.correct(account=account, amount=Decimal(-1), reason=reason, made_by="a test")
    assert Payment.objects.count() == 1
