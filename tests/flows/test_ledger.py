"""The ledger: lines are added and never changed, and the balance is their sum, whoever writes."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Sum
from django.utils import timezone

from accounts import ledger
from accounts.models import Account, CreditEntry
from tests.factories import AccountFactory
from tests.flows.test_operations import at_once
from vpsorg.errors import Refusal

Kind = CreditEntry.Kind
HOUR = datetime(2026, 2, 28, 23, 17, 5, tzinfo=UTC)
TOLD = {"reason": "invoice 17", "made_by": "a test"}


def sum_of_lines(account: Account) -> Decimal:
    total: Decimal = account.credit_entries.aggregate(sum=Sum("amount", default=Decimal(0)))["sum"]
    return total


def charge_of(account: Account, amount: str = "0.014", kind: Kind = Kind.USAGE, server_id: int = 7) -> None:
    told = ledger.Charge(server_id=server_id, hour=HOUR, kind=kind, amount=Decimal(amount), reason="an hour")
    ledger.charge(account, [told])


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
        deed(CreditEntry.objects.filter(account=account))
    assert account.credit_entries.get().amount == 10


@pytest.mark.django_db
def test_an_hour_of_a_server_is_charged_once() -> None:
    """Guard: the constraint ``one_charge_per_hour``."""
    account = AccountFactory.create(credits=10)
    charge_of(account)
    with pytest.raises(IntegrityError, match="one_charge_per_hour"), transaction.atomic():
        charge_of(account)
    charge_of(account, kind=Kind.BACKUPS)
    charge_of(account, server_id=8)
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
    charge_of(account, "0.01", server_id=8)
    account.refresh_from_db()
    assert account.below_zero_since == began
    ledger.top_up(account=account, amount=Decimal("0.02"), **TOLD)
    account.refresh_from_db()
    assert (account.balance, account.below_zero_since) == (0, None)


@pytest.mark.django_db
@pytest.mark.parametrize("give", [ledger.top_up, ledger.refund])
@pytest.mark.parametrize("amount", ["0", "-5", "0.00001", "12345678901", "NaN", "Infinity"])
def test_what_is_no_amount_to_give_is_refused_and_nothing_written(
    give: Callable[..., CreditEntry], amount: str
) -> None:
    account = AccountFactory.create(credits=10)
    with pytest.raises(Refusal) as refusal:
        give(account=account, amount=Decimal(amount), **TOLD)
    assert refusal.value.code == "invalid_amount"
    assert CreditEntry.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "amount"),
    [("top_up", "-1"), ("refund", "0"), ("signup", "-1"), ("usage", "1"), ("backups", "0"), ("usage", "-1")],
)
def test_the_database_knows_which_lines_give_and_which_take(kind: str, amount: str) -> None:
    """Guards: the two check constraints.  The last line takes, but for no hour."""
    account = AccountFactory.create()
    with pytest.raises(IntegrityError, match="charges_"), transaction.atomic():
        CreditEntry.objects.create(account=account, kind=kind, amount=amount, **TOLD)


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
    assert CreditEntry.objects.count() == 1


def test_lines_from_before_are_kept(transactional_db: None) -> None:
    """A ledger as it was written before the database kept the balance, brought up to date."""
    before, now = [("accounts", "0003_webhooks")], MigrationExecutor(connection).loader.graph
    executor = MigrationExecutor(connection)
    old = executor.migrate([("servers", "0001_initial"), *before]).apps
    try:
        account = old.get_model("accounts", "Account").objects.create(email="alice@example.com")
        poor = old.get_model("accounts", "Account").objects.create(email="bob@example.com")
        lines = old.get_model("accounts", "CreditEntry").objects
        for kind, amount in (("signup", 5), ("grant", 10), ("payment", 20), ("grant", -7), ("correction", 0)):
            lines.create(account=account, kind=kind, amount=amount, note=f"old {kind}")
        lines.create(account=poor, kind="grant", amount=-1)
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(now.leaf_nodes())
    kept = CreditEntry.objects.filter(account_id=account.pk).order_by("pk")
    assert [(line.kind, int(line.amount), line.reason) for line in kept] == [
        ("signup", 5, "old signup"),
        ("top_up", 10, "old grant"),
        ("top_up", 20, "old payment"),
        ("correction", -7, "old grant"),
        ("correction", 0, "old correction"),
    ]
    assert Account.objects.get(pk=account.pk).balance == 28
    assert Account.objects.get(pk=poor.pk).below_zero_since is not None
