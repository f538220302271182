"""Charges each started hour of each meter once (``billing.costs`` says what an hour is, and what it costs).

All of it follows from the rates.  The metering may run late, twice, or in several processes at once: the
charges are the same.  Each process takes accounts that no other has; one transaction is for some accounts
and their due meters, and a meter that is not due is not read.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Min

from billing import months, runway
from billing.costs import (
    HOUR,
    Stretch,
    Tariff,
    amount_of,
    days,
    hour_of,
    month_after,
    month_of,
    numbers_of,
    stretches,
)
from billing.models import Meter, Rate
from core import clock
from core.locks import metering_by, try_lock

log = logging.getLogger(__name__)

WORKERS = 4
ACCOUNTS_AT_ONCE = 50
METERS_AT_ONCE = 500
HOURS_AT_ONCE = 7 * 24  # of a meter

# A customer's request that holds the account goes first: the account is charged a minute later.
LOCK = """
    SELECT id FROM accounts_account WHERE id = ANY(%(accounts)s) ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
"""
# The last column is NULL while the meter costs something; else it says since when it does not.
DUE = """
    SELECT id, account_id, began_at, due_at,
        CASE WHEN state <> 'running' OR price_hourly * quantity = 0
        THEN (SELECT max(since) FROM billing_rate WHERE meter_id = meter.id) END
    FROM billing_meter meter
    WHERE account_id = ANY(%(accounts)s) AND due_at <= %(now)s
        AND (%(meters)s IS NULL OR id = ANY(%(meters)s))
    ORDER BY due_at, id LIMIT %(limit)s FOR NO KEY UPDATE
"""
# For each meter the rate that counted when the month began, and those until the last hour.
TARIFFS = """
    SELECT asked.id, rate.since,
        round(rate.price_hourly * rate.quantity * 10000)::bigint,
        round(rate.price_monthly * rate.quantity * 10000)::bigint
    FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[]) AS asked(id, month, last),
    LATERAL (
        (SELECT * FROM billing_rate WHERE meter_id = asked.id AND since <= asked.month
            ORDER BY since DESC LIMIT 1)
        UNION ALL
        (SELECT * FROM billing_rate WHERE meter_id = asked.id AND since > asked.month AND since <= asked.last)
    ) rate
    ORDER BY asked.id, rate.since
"""
# The WHERE is the guard: an hour whose bit is set is charged already.
CHARGE = """
    INSERT INTO billing_usage AS line (id, account_id, meter_id, day, subject_kind, subject_id, component,
        hours, amount, hour, reason, created_at)
    SELECT nextval(pg_get_serial_sequence('billing_payment', 'id')), meter.account_id, meter.id, new.day,
        meter.subject_kind, meter.subject_id, meter.component, new.hours, -new.amount / 10000.0, new.hour,
        meter.label || ': ' || meter.component, %s
    FROM unnest(%s::bigint[], %s::date[], %s::int[], %s::bigint[], %s::timestamptz[])
        AS new(meter_id, day, hours, amount, hour)
    JOIN billing_meter meter ON meter.id = new.meter_id
    ORDER BY new.meter_id, new.day
    ON CONFLICT (meter_id, day) DO UPDATE SET hours = line.hours | excluded.hours,
        amount = line.amount + excluded.amount, hour = least(line.hour, excluded.hour)
    WHERE line.hours & excluded.hours = 0
    RETURNING meter_id, day
"""
CHARGED = """
    SELECT line.meter_id, line.day, line.hours FROM billing_usage line
    JOIN unnest(%s::bigint[], %s::date[]) AS asked(meter_id, day) USING (meter_id, day)
"""
MOVE_ON = """
    UPDATE billing_meter meter SET due_at = moved.due_at,
        charged_until = greatest(meter.charged_until, moved.charged_until)
    FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[]) AS moved(id, due_at, charged_until)
    WHERE meter.id = moved.id
"""


class TickInProgress(Exception):
    """WORKERS processes are charging already, and this worker does not wait for them."""


@dataclass(frozen=True)
class DueMeter:
    """One visit of one meter: its hours ``first`` to before ``end`` are charged."""

    id: int
    account_id: int
    began_at: datetime
    first: int
    end: int
    free_since: datetime | None

    def begins(self, number: int) -> datetime:
        return self.began_at + number * HOUR

    @property
    def next_at(self) -> datetime:
        return self.begins(self.end)

    @property
    def due_at(self) -> datetime | None:
        """When the meter is due again.  None: it costs nothing any more, until a new rate makes it due."""
        return None if self.free_since is not None and self.free_since <= self.next_at else self.next_at


@dataclass(frozen=True)
class Line:
    """Hours of one day of one meter that are to be charged."""

    meter: DueMeter
    costly: Sequence[Stretch]
    day: date
    hours: int
    amount: int

    @property
    def hour(self) -> datetime:
        return self.meter.begins(numbers_of(self.meter.began_at, self.day, self.hours)[0])

    def without(self, hours: int) -> "Line | None":
        """This line without hours that are charged already."""
        left = self.hours & ~hours
        amount = amount_of(self.meter.began_at, self.costly, self.day, left)
        return Line(self.meter, self.costly, self.day, left, amount) if left else None


def meter(now: datetime | None = None, then: Callable[[], object] = lambda: None) -> Collection[int]:
    """Charge every hour that has begun and was not charged yet; ``then`` is called after each batch.

    Returns the accounts that were charged.  A meter that cannot be charged is logged, and the others are
    charged.  Raises TickInProgress and ClocksDiffer.
    """
    clock.require_agreement()
    with _one_of_the_workers():
        now = now or clock.now()
        due = Meter.objects.filter(due_at__lte=now)
        accounts = sorted(set(due.values_list("account_id", flat=True)))
        if not accounts:
            return []
        months.ensure(due.aggregate(first=Min("due_at"))["first"], now)
        charged: set[int] = set()
        for first in range(0, len(accounts), ACCOUNTS_AT_ONCE):
            charged |= _charge(accounts[first : first + ACCOUNTS_AT_ONCE], now)
            then()
        return charged


@contextmanager
def _one_of_the_workers() -> Iterator[None]:
    for number in range(WORKERS):
        with try_lock(metering_by(number)) as mine:
            if mine:
                yield
                return
    raise TickInProgress


def _charge(accounts: Sequence[int], now: datetime) -> set[int]:
    """Charge some accounts; if that fails, meter by meter, since most meters are sound."""
    charged: set[int] = set()
    try:
        while some := _charge_some(accounts, now):
            charged |= some
        return charged
    except Exception as error:
        log.warning("accounts %s to %s are charged meter by meter: %r", accounts[0], accounts[-1], error)
    due = Meter.objects.filter(account_id__in=accounts, due_at__lte=now).order_by("due_at", "pk")
    for one in list(due):
        try:
            while some := _charge_some([one.account_id], now, meters=[one.pk]):
                charged |= some
        except Exception:
            log.exception("%s could not be charged", one)
    return charged


@transaction.atomic
def _charge_some(accounts: Sequence[int], now: datetime, meters: list[int] | None = None) -> set[int]:
    """Charge a batch of due meters.  Returns their accounts: none when nothing was due.

    The order of locks is account, then meters, as everywhere: what changes a rate waits for this transaction,
    and this one for it, so that a rate is never older than an hour charged without it.
    """
    with connection.cursor() as cursor:
        cursor.execute(LOCK, {"accounts": list(accounts)})
        locked = [account_id for (account_id,) in cursor.fetchall()]
        due = _due(cursor, locked, now, meters)
        if not due:
            return set()
        lines = list(_lines(due, _tariffs(cursor, due)))
        refused = _write(cursor, lines)
        if refused:
            _write(cursor, _not_yet_charged(cursor, refused))
        cursor.execute(
            MOVE_ON,
            [[one.id for one in due], [one.due_at for one in due], [one.next_at for one in due]],
        )
        charged = {one.account_id for one in due}
        runway.ask_for_reviews(cursor, charged)
    return charged


def _due(cursor: Any, accounts: list[int], now: datetime, meters: list[int] | None) -> list[DueMeter]:
    cursor.execute(DUE, {"accounts": accounts, "now": now, "meters": meters, "limit": METERS_AT_ONCE})
    found = []
    for meter_id, account_id, began_at, due_at, free_since in cursor.fetchall():
        # An operator may have set due_at back to any moment: the hours are counted from began_at.
        first = hour_of(due_at, began_at)
        end = max(first + 1, min(hour_of(now, began_at) + 1, first + HOURS_AT_ONCE))
        found.append(DueMeter(meter_id, account_id, began_at, first, end, free_since))
    return found


def _tariffs(cursor: Any, due: Sequence[DueMeter]) -> dict[int, list[Tariff]]:
    """The rates that decide about the hours of each meter; no more than there are hours."""
    found: dict[int, list[Tariff]] = {one.id: [] for one in due}
    first = [month_of(one.begins(one.first)) for one in due]
    cursor.execute(TARIFFS, [[one.id for one in due], first, [one.next_at - HOUR for one in due]])
    for meter_id, since, hourly, monthly in cursor.fetchall():
        found[meter_id].append(Tariff(since, hourly, monthly))
    without = [meter_id for meter_id, tariffs in found.items() if not tariffs]
    rated = set(Rate.objects.filter(meter__in=without).values_list("meter_id", flat=True)) if without else ()
    for meter_id in without:
        if meter_id not in rated:
            raise LookupError(f"meter {meter_id} has no rate")
    return found


def _lines(due: Sequence[DueMeter], tariffs: dict[int, list[Tariff]]) -> Iterator[Line]:
    for one in due:
        month = month_of(one.begins(one.first))
        while month < one.next_at:
            costly = stretches(one.began_at, tariffs[one.id], month, one.end)
            for day in days(one.began_at, costly, one.first, one.end):
                yield Line(one, costly, *day)
            month = month_after(month)


def _write(cursor: Any, lines: Sequence[Line]) -> list[Line]:
    """Charge lines.  Returns those of which an hour is charged already: nothing of them was written."""
    if not lines:
        return []
    columns = zip(*((x.meter.id, x.day, x.hours, x.amount, x.hour) for x in lines), strict=True)
    cursor.execute(CHARGE, [clock.now(), *map(list, columns)])
    written = set(cursor.fetchall())
    if len(written) == len(lines):
        return []
    return [line for line in lines if (line.meter.id, line.day) not in written]


def _not_yet_charged(cursor: Any, lines: Sequence[Line]) -> list[Line]:
    """The ledger is the truth: a meter that was set back charges nothing again."""
    cursor.execute(CHARGED, [[line.meter.id for line in lines], [line.day for line in lines]])
    charged = {(meter_id, day): hours for meter_id, day, hours in cursor.fetchall()}
    left = [line.without(charged[line.meter.id, line.day]) for line in lines]
    return [line for line in left if line is not None]
