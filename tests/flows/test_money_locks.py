"""Locks that money stands on: each of these tests fails without its lock."""

from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection, transaction

from billing import ledger, runway
from billing.costs import MOMENT
from billing.metering import meter
from billing.models import Rate
from core import clock
from servers import services
from tests.factories import AccountFactory, token_for
from tests.flows.test_metering import HOUR, active, at, audited, meter_of
from tests.flows.test_operations import at_once

__all__ = ["at"]


def test_a_rate_waits_for_the_metering_and_is_no_older_than_what_that_charges(
    transactional_db: None, at: Any, shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``select_for_update`` in ``meters.keep``.  The clock of the change is behind the metering's."""
    time = at("2026-03-10 12:00:00")
    server = active(shop)
    meter()
    charging, changed = Event(), Event()
    ask_for_reviews = runway.ask_for_reviews

    def not_yet_committed(cursor: Any, accounts: Any) -> None:
        charging.set()
        changed.wait(2)
        ask_for_reviews(cursor, accounts)

    monkeypatch.setattr(runway, "ask_for_reviews", not_yet_committed)
    time.wait(minutes=59)

    def charge() -> None:
        try:
            meter(time.now + HOUR / 30)
        finally:
            connection.close()

    other = Thread(target=charge)
    other.start()
    assert charging.wait(10)
    services.delete_server(server=server)
    changed.set()
    other.join()
    charged_until = meter_of(server).charged_until
    assert charged_until is not None
    assert Rate.objects.latest("since").since > charged_until - HOUR
    assert Rate.objects.latest("since").since >= time.now + MOMENT
    time.wait(hours=2)
    meter()
    audited()


def test_a_row_that_refers_to_an_account_does_not_wait_for_its_balance(transactional_db: None) -> None:
    """Guard: ``no_key`` in ``ledger.locked``."""
    account = AccountFactory.create()

    def issue() -> str:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '1s'")
            return token_for(account)

    with transaction.atomic():
        ledger.locked(account)
        assert str(at_once(1, issue)[0]).startswith("vps_")
    assert clock.now()
