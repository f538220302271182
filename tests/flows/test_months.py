"""Usage month by month: made ahead, detached when it is closed, and proven by the ledger audit once."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from billing import ledger, ledger_audit, months
from billing.ledger_audit import findings
from billing.metering import meter
from billing.models import ArchivedUsage, Meter, Proof, Usage
from core import partitions
from servers import services
from servers.api.billing import usage_of
from tests.factories import complete_backup
from tests.flows.test_metering import active, at, audited, charged, meter_of

__all__ = ["at"]

MARCH = date(2026, 3, 1)
PAID = {"reason": "a mistake", "made_by": "a test"}


def damage(*tables: str) -> None:
    """What only a superuser can do: the triggers are off."""
    with connection.cursor() as sql:
        sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables:
            sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")


def test_months_are_made_ahead(at: Any, db: None) -> None:
    at("2026-11-26 12:00:00")
    months.make_ahead()
    months.make_ahead()
    made = partitions.months_of("billing_usage")
    assert {date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)} <= set(made)


def test_a_month_that_is_missing_does_not_stop_the_metering(at: Any, shop: dict[str, Any]) -> None:
    """Guard: ``months.ensure`` in ``meter``."""
    time = at("2031-03-31 23:00:00")
    server = active(shop)
    time.wait(hours=1)
    meter()
    assert charged(server) == (2, 2 * Decimal("0.0140"))
    assert {date(2031, 3, 1), date(2031, 4, 1)} <= set(partitions.months_of("billing_usage"))


def test_a_closed_month_is_detached_and_still_counts(at: Any, shop: dict[str, Any]) -> None:
    """Guards: ``ArchivedUsage`` in balances and totals; ``DetachedMonth`` in the metering."""
    time = at("2026-03-10 12:00:00")
    server = active(shop, backups_enabled=True)
    time.wait(days=30)
    meter()
    before = usage_of(server)
    with pytest.raises(CommandError, match="not proven"):
        call_command("detach_usage", "2026-03")
    audited()
    call_command("detach_usage", "2026-03")
    assert not Usage.objects.filter(day__lt=date(2026, 4, 1)).exists()
    assert ArchivedUsage.objects.filter(meter=meter_of(server)).get().hours == 516
    assert usage_of(server) == before
    audited()
    with connection.cursor() as sql:
        sql.execute("SELECT count(*) FROM billing_usage_2026_03")
        assert sql.fetchone()[0] == 44
    time.wait(hours=1)
    meter()
    audited()
    with pytest.raises(CommandError, match="no month"):
        call_command("detach_usage", "2026-03")


def test_a_month_in_which_something_is_still_to_be_charged_is_not_detached(
    at: Any, shop: dict[str, Any]
) -> None:
    time = at("2026-03-10 12:00:00")
    active(shop)
    meter()
    with pytest.raises(CommandError, match="not closed"):
        call_command("detach_usage", "2026-03")
    time.wait(days=30)
    with pytest.raises(CommandError, match="not closed"):
        call_command("detach_usage", "2026-03")


@pytest.mark.parametrize(
    "deed",
    [
        lambda line: Usage.objects.filter(pk=line.pk).update(amount=F("amount") - 1),
        lambda line: Usage.objects.filter(pk=line.pk).delete(),
        lambda line: Usage.objects.filter(pk=line.pk).update(hours=F("hours").bitand(~(1 << 13))),
        lambda line: Usage.objects.filter(pk=line.pk).update(account=F("account") + 1),
        lambda line: line.meter.rates.update(price_hourly=1),
        lambda line: Meter.objects.update(began_at=F("began_at") + timedelta(minutes=70)),
        lambda line: ledger.refund(
            account=line.account, amount=Decimal(1), reference=f"line {line.pk}", **PAID
        ),
    ],
    ids=["amount", "line", "hours", "account", "rate", "beginning", "refund of what was right"],
)
def test_a_proven_month_is_not_derived_again_until_something_in_it_was_changed(
    at: Any, shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch, deed: Callable[[Usage], object]
) -> None:
    """Guards: each part of FINGERPRINTS."""
    time = at("2026-03-10 12:00:00")
    server = active(shop)
    time.wait(days=5)
    complete_backup(server)
    services.update_server(server=server, backups_enabled=True)
    time.wait(days=20)
    services.delete_server(server=server)
    time.wait(days=10)
    meter()
    audited()
    assert Proof.objects.filter(month=MARCH, account=server.account_id).exists()
    derive, derived = ledger_audit._account, []

    def counts(account_id: int, month: Any, put_right: Any) -> Any:
        derived.append(month.date())
        return derive(account_id, month, put_right)

    monkeypatch.setattr(ledger_audit, "_account", counts)
    audited()
    assert MARCH not in derived
    damage("billing_usage", "billing_rate", "billing_meter")
    line = Usage.objects.filter(component="usage").order_by("day")[3]
    deed(line)
    assert [finding for finding in findings() if finding.code.startswith("charge_")]
    assert MARCH in derived
