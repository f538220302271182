"""Counts everything again and says what does not add up, with codes that never change.

A month of an account that is closed and in which all is right is proven: its fingerprint (of its lines, its
rates and its corrections) is kept.  While the fingerprint is the same, the charges are not derived again;
when a single value was changed since, they are.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import auto
from typing import Any

from django.db import connection, transaction
from django.db.models import Max, Min, OuterRef, Q, Subquery

from accounts.models import Account
from billing.costs import (
    HOUR,
    Stretch,
    Tariff,
    amount_of,
    days,
    first_hour_from,
    hour_of,
    month_after,
    month_of,
    numbers_of,
    start_of,
    stretches,
)
from billing.meters import cost_of
from billing.models import DetachedMonth, Meter, Payment, Proof, Rate, Usage
from billing.prices import FREE, MeterState, Price
from core import clock
from core.findings import Finding, FindingCode

LATE = timedelta(hours=2)
NUMBER = "line "  # a refund or a correction with the reference "line 1017" counts for that line
PutRight = dict[tuple[int, int], Decimal]

BALANCES = """
    WITH moved AS (
        SELECT account_id, sum(amount) AS amount FROM (
            SELECT account_id, amount FROM billing_payment
            UNION ALL SELECT account_id, amount FROM billing_archivedusage
            UNION ALL SELECT account_id, amount FROM billing_usage
        ) lines GROUP BY account_id
    )
    SELECT account.email, account.balance, coalesce(moved.amount, 0)
    FROM accounts_account account LEFT JOIN moved ON moved.account_id = account.id
    WHERE account.balance <> coalesce(moved.amount, 0) ORDER BY account.id
"""
# The fingerprint of each account that has a meter or a line in the month.  A line counts for the account of
# its meter and for the account that it charges: if the two differ, both accounts are audited.
FINGERPRINTS = """
    WITH meters AS (
        SELECT meter.account_id, meter.id, count(rate.id) AS count,
            coalesce(sum(hash_record_extended(rate.*, 0)::numeric), 0)
                + hashtextextended(concat_ws(' ', meter.id, meter.account_id, meter.subject_kind,
                    meter.subject_id, meter.component, meter.began_at), 0) AS hash
        FROM billing_meter meter LEFT JOIN billing_rate rate
            ON rate.meter_id = meter.id AND rate.since < %(end)s
        WHERE meter.began_at < %(end)s GROUP BY meter.id
    ), lines AS (
        SELECT meter.account_id, line.account_id AS charged_id, line.amount,
            hash_record_extended(line.*, 0)::numeric AS hash
        FROM billing_usage line LEFT JOIN billing_meter meter ON meter.id = line.meter_id
        WHERE line.day >= %(first)s::date AND line.day < %(end)s::date
    ), parts AS (
        SELECT account_id, 1 AS part, sum(count) AS count, sum(hash) AS hash FROM meters GROUP BY account_id
        UNION ALL SELECT account_id, 2, count(*), sum(hash) FROM lines GROUP BY account_id
        UNION ALL SELECT charged_id, 3, count(*), sum(hash) FROM lines
            WHERE charged_id IS DISTINCT FROM account_id GROUP BY charged_id
        UNION ALL SELECT account_id, 4, count(*), sum(hash_record_extended(payment.*, 0)::numeric)
            FROM billing_payment payment WHERE reference LIKE 'line %%' GROUP BY account_id
    )
    SELECT account_id, md5(string_agg(concat_ws(' ', part, count, hash), ',' ORDER BY part))
    FROM parts WHERE account_id IS NOT NULL
    GROUP BY account_id HAVING bool_or(part <= 3) ORDER BY account_id
"""


class Code(FindingCode):
    """docs/billing.md has the remedies."""

    BALANCE_DIFFERS = auto()
    CHARGE_MISSING = auto()
    CHARGE_UNFOUNDED = auto()
    CHARGE_DIFFERS = auto()
    CHARGE_OF_STRANGER = auto()
    METER_MISSING = auto()
    METER_STOPPED = auto()
    RATE_DIFFERS = auto()
    METERING_LATE = auto()


Check = Callable[[], Iterator[Finding]]
_checks: list[Check] = []


def add_check(check: Check) -> None:
    """Have an app above compare what it knows with what billing was told.  To ask twice is to ask once."""
    if check not in _checks:
        _checks.append(check)


def findings() -> Iterator[Finding]:
    """Balances against lines, lines against rates, rates against meters, and what other apps check."""
    yield from _balances()
    for check in _checks:
        yield from check()
    yield from _meters()
    yield from _rates()
    put_right = _put_right()
    for month in _months():
        yield from _month(month, put_right)
    yield from _late(clock.now())


def unproven(month: datetime) -> list[int]:
    """The accounts whose charges of a month are not known to be right as they stand."""
    proofs = _proofs(month)
    return [pk for pk, fingerprint in _fingerprints(month).items() if proofs.get(pk) != fingerprint]


def _balances() -> Iterator[Finding]:
    for email, balance, lines in _ask(BALANCES, {}):
        yield Finding(Code.BALANCE_DIFFERS, f"account {email}", f"{balance}, its lines {lines}")


def about(meter: Meter) -> str:
    return f"{meter.subject_kind} {meter.subject_id}"


def _meters() -> Iterator[Finding]:
    running = Meter.objects.filter(state=MeterState.RUNNING).order_by("pk")
    for meter in running.filter(due_at=None).iterator():
        if cost_of(meter) == FREE:
            continue
        if meter.began_at is None:
            yield Finding(
                Code.METER_MISSING, about(meter), f"its {meter.component} costs something and has no rate"
            )
        else:
            yield Finding(Code.METER_STOPPED, about(meter), f"its {meter.component} is not charged any more")


def _rates() -> Iterator[Finding]:
    """Whatever is under way: a rate is written in the transaction that changes what a meter costs."""
    newest = Rate.objects.filter(meter=OuterRef("pk")).order_by("-since")
    meters = Meter.objects.exclude(began_at=None).annotate(
        hourly=Subquery(newest.values("price_hourly")[:1]),
        monthly=Subquery(newest.values("price_monthly")[:1]),
        units=Subquery(newest.values("quantity")[:1]),
    )
    for meter in meters.order_by("pk").iterator():
        costs = cost_of(meter)
        if meter.hourly is None:
            if costs != FREE:
                yield Finding(
                    Code.METER_MISSING,
                    about(meter),
                    f"its {meter.component} costs something and has no rate",
                )
        elif costs != (meter.hourly, meter.monthly, meter.units):
            rate = Price(meter.hourly, meter.monthly, meter.units)
            what = f"{meter.component} costs {_told(costs)}, its rate says {_told(rate)}"
            yield Finding(Code.RATE_DIFFERS, about(meter), what)


def _told(price: Price) -> str:
    return f"{price.quantity.normalize():f} x {price.hourly} an hour, {price.monthly} a month"


def _months() -> list[datetime]:
    """All months that have lines or should have some, but for those that were detached."""
    began = Meter.objects.aggregate(first=Min("began_at"), last=Max("charged_until"))
    of_lines = Usage.objects.aggregate(first=Min("day"), last=Max("day"))
    moments = [moment for moment in began.values() if moment is not None]
    moments += [start_of(day) for day in of_lines.values() if day is not None]
    if not moments:
        return []
    found: list[datetime] = []
    month, until = month_of(min(moments)), max(clock.now(), *moments)
    detached = set(DetachedMonth.objects.values_list("month", flat=True))
    while month <= until:
        if month.date() not in detached:
            found.append(month)
        month = month_after(month)
    return found


def _month(month: datetime, put_right: PutRight) -> Iterator[Finding]:
    """The lines of a month that differ from what the rates say, account by account."""
    proofs, fingerprints = _proofs(month), _fingerprints(month)
    proven = []
    for account_id, fingerprint in fingerprints.items():
        if proofs.get(account_id) == fingerprint:
            continue
        found, is_closed = _account(account_id, month, put_right)
        yield from found
        if is_closed and not found:
            proven.append(account_id)
    if proven and month_after(month) <= clock.now():
        # An account is proven only if its fingerprint did not change while its charges were derived.
        now = _fingerprints(month)
        _keep_proofs(month, {pk: now[pk] for pk in proven if now.get(pk) == fingerprints[pk]})


def _keep_proofs(month: datetime, fingerprints: dict[int, str]) -> None:
    Proof.objects.bulk_create(
        (Proof(account_id=pk, month=month, fingerprint=told) for pk, told in fingerprints.items()),
        update_conflicts=True,
        unique_fields=["account", "month"],
        update_fields=["fingerprint", "proven_at"],
    )


@transaction.atomic
def _account(account_id: int, month: datetime, put_right: PutRight) -> tuple[list[Finding], bool]:
    """The findings of an account in a month, and whether nothing more is charged for it.

    The metering of this account waits meanwhile.
    """
    end = month_after(month)
    with_lines = Usage.objects.filter(day__gte=month, day__lt=end).values("meter")
    meters = list(
        Meter.objects.select_for_update(no_key=True)
        .filter(Q(began_at__lt=end) | Q(pk__in=with_lines), account=account_id)
        .exclude(began_at=None)
        .order_by("pk")
    )
    tariffs: dict[int, list[Tariff]] = {meter.pk: [] for meter in meters}
    for rate in Rate.objects.filter(meter__in=meters, since__lt=end).order_by("meter", "since"):
        tariffs[rate.meter_id].append(_tariff(rate))
    lines: dict[int, dict[date, Usage]] = {meter.pk: {} for meter in meters}
    for line in Usage.objects.filter(meter__in=meters, day__gte=month, day__lt=end):
        lines[line.meter_id][line.day] = line
    found = list(_strangers(account_id, month, end, put_right))
    for meter in meters:
        found += _of_meter(meter, tariffs[meter.pk], lines[meter.pk], month, put_right)
    is_closed = all(meter.due_at is None or meter.due_at >= end for meter in meters)
    return found, is_closed


def _tariff(rate: Rate) -> Tariff:
    return Tariff(rate.since, int(rate.price.per_hour * 10_000), int(rate.price.per_month * 10_000))


def _of_meter(
    meter: Meter, tariffs: list[Tariff], lines: dict[date, Usage], month: datetime, put_right: PutRight
) -> Iterator[Finding]:
    assert meter.began_at is not None and meter.charged_until is not None  # noqa: S101, PT018
    end = max(hour_of(clock.now(), meter.began_at) + 1, first_hour_from(meter.charged_until, meter.began_at))
    costly = stretches(meter.began_at, tariffs, month, end)
    begin = first_hour_from(month, meter.began_at)
    wanted = {day.day: day.hours for day in days(meter.began_at, costly, begin, end)}
    for day in sorted({*wanted, *lines}):
        yield from _of_day(meter, costly, day, wanted.get(day, 0), lines.get(day), put_right)


def _of_day(
    meter: Meter,
    costly: list[Stretch],
    day: date,
    wanted: int,
    line: Usage | None,
    put_right: PutRight,
) -> Iterator[Finding]:
    assert meter.began_at is not None  # noqa: S101
    charged = line.hours if line else 0
    for number in numbers_of(meter.began_at, day, wanted & ~charged):
        hour = meter.began_at + number * HOUR
        if meter.due_at is None or hour < meter.due_at:  # else the metering has yet to come to it
            amount = sum(stretch.cost(number, number + 1) for stretch in costly)
            what = f"{meter.component} of {hour.isoformat()} is 0, should be {_credits(amount)}"
            yield Finding(Code.CHARGE_MISSING, about(meter), what)
    if line is None:
        return
    corrected = put_right.get((line.account_id, line.pk), Decimal(0))
    paid, due = -(line.amount + corrected), _credits(amount_of(meter.began_at, costly, day, charged & wanted))
    unfounded = charged & ~wanted
    if paid != due or (unfounded and not corrected):
        code = Code.CHARGE_UNFOUNDED if unfounded else Code.CHARGE_DIFFERS
        what = f"{meter.component} of {day.isoformat()} is {paid}, should be {due} (line {line.pk})"
        yield Finding(code, about(meter), what)


def _credits(amount: int) -> Decimal:
    return (Decimal(amount) / 10_000).quantize(Decimal("0.0001"))


def _strangers(account_id: int, month: datetime, end: datetime, put_right: PutRight) -> Iterator[Finding]:
    """Charges of this account for what is not its own."""
    theirs = Meter.objects.filter(
        pk=OuterRef("meter_id"),
        account=OuterRef("account_id"),
        subject_kind=OuterRef("subject_kind"),
        subject_id=OuterRef("subject_id"),
        component=OuterRef("component"),
    )
    lines = Usage.objects.filter(account=account_id, day__gte=month, day__lt=end)
    for line in lines.annotate(own=Subquery(theirs.values("pk")[:1])).filter(own=None).order_by("pk"):
        paid = -(line.amount + put_right.get((line.account_id, line.pk), Decimal(0)))
        if paid:
            what = f"pays {paid} for {line.subject_kind} {line.subject_id} (line {line.pk})"
            whose = Account.objects.filter(pk=line.account_id).first() or line.account_id
            yield Finding(Code.CHARGE_OF_STRANGER, f"account {whose}", what)


def _put_right() -> PutRight:
    """The amounts of the refunds and corrections of each line: their reference is ``line <its number>``."""
    kinds = [Payment.Kind.REFUND, Payment.Kind.CORRECTION]
    found: PutRight = {}
    for payment in Payment.objects.filter(kind__in=kinds, reference__startswith=NUMBER):
        number = payment.reference.removeprefix(NUMBER)
        if number.isascii() and number.isdigit():
            key = (payment.account_id, int(number))
            found[key] = found.get(key, Decimal(0)) + payment.amount
    return found


def _late(now: datetime) -> Iterator[Finding]:
    for meter in Meter.objects.filter(due_at__lt=now - LATE).order_by("pk"):
        yield Finding(
            Code.METERING_LATE,
            about(meter),
            f"its {meter.component} is not charged since {meter.due_at:%Y-%m-%d %H:%M}",
        )


def _proofs(month: datetime) -> dict[int, str]:
    return dict(Proof.objects.filter(month=month).values_list("account_id", "fingerprint"))


def _fingerprints(month: datetime) -> dict[int, str]:
    return dict(_ask(FINGERPRINTS, {"first": month, "end": month_after(month)}))


def _ask(sql: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        rows: list[Any] = cursor.fetchall()
        return rows
