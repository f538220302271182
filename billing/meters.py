"""What each component of a subject costs, and from when on.

Apps above tell billing the state of a subject and its prices (``keep``), in the transaction that changes
them, so that the metering may come ten days late and still charge what was true.  A rate is final once an
hour has begun with it.  What changes twice before the next hour begins leaves one row, so that a meter
has no more rates than hours, whatever a customer switches on and off.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db.models import QuerySet

from billing.costs import HOUR, MOMENT, first_hour_from
from billing.models import Meter, Rate
from billing.prices import FREE, MeterState, Price
from core import clock


class Subject(NamedTuple):
    """What is paid for: ``kind`` is the caller's word (server), ``label`` its name for the customer."""

    account_id: int
    kind: str
    id: int
    label: str


def open_meters(subject: Subject, prices: Mapping[str, Price]) -> None:
    """Begin to sell the components of a new subject.  Nothing is charged before ``keep`` says RUNNING."""
    Meter.objects.bulk_create(
        _new(subject, component, price, MeterState.EXPECTED) for component, price in prices.items()
    )


def keep(subject: Subject, state: MeterState, prices: Mapping[str, Price] | None = None) -> None:
    """Write what a subject costs from now on: its state, and the prices of some of its components.

    A component that it did not have is added.  A component at price 0 costs nothing.  May be repeated.
    The caller holds the lock of the subject's row.
    """
    prices = prices or {}
    # The metering holds this lock until it has committed: no rate is older than an hour charged without it.
    meters = list(_of(subject).select_for_update(no_key=True, of=("self",)).order_by("pk"))
    known = {meter.component for meter in meters}
    for component, price in prices.items():
        if component not in known:
            meter = _new(subject, component, price, MeterState.EXPECTED)
            meter.save(force_insert=True)
            meters.append(meter)
    began = [meter.began_at for meter in meters if meter.began_at is not None]
    now: datetime | None = None
    for meter in meters:
        price = prices.get(meter.component, meter.price)
        if (meter.state, meter.price) == (state, price) and meter.component in known:
            continue
        now = now or clock.now()
        meter.state = state
        meter.price_hourly, meter.price_monthly, meter.quantity = price
        if meter.began_at is None and cost_of(meter) != FREE:
            # One anchor for all components: the hours of a server and of its backups begin together.
            meter.began_at = min(began, default=now)
            began.append(meter.began_at)
            _begin(meter, now)
        elif meter.began_at is not None:
            _change(meter, now)
        meter.save()


def rename(subject: Subject) -> None:
    """Give a subject a new label.  Lines that were written keep the old one."""
    _of(subject).update(label=subject.label)


def cost_of(meter: Meter) -> Price:
    """What a meter charges in its present state."""
    return meter.price if meter.state == MeterState.RUNNING and meter.price.per_hour else FREE


def prices_of(kind: str, ids: Collection[int]) -> dict[int, dict[str, Price]]:
    """What subjects were sold at, component by component, whatever their state."""
    found: dict[int, dict[str, Price]] = {subject_id: {} for subject_id in ids}
    for meter in Meter.objects.filter(subject_kind=kind, subject_id__in=ids).order_by("pk"):
        found[meter.subject_id][meter.component] = meter.price
    return found


def per_hour(prices: Mapping[str, Price]) -> Decimal:
    """The cost of an hour of all components together."""
    return sum((price.per_hour for price in prices.values()), Decimal(0))


def _of(subject: Subject) -> QuerySet[Meter]:
    return Meter.objects.filter(subject_kind=subject.kind, subject_id=subject.id)


def _new(subject: Subject, component: str, price: Price, state: MeterState) -> Meter:
    return Meter(
        account_id=subject.account_id,
        subject_kind=subject.kind,
        subject_id=subject.id,
        label=subject.label,
        component=component,
        state=state,
        price_hourly=price.hourly,
        price_monthly=price.monthly,
        quantity=price.quantity,
    )


def _begin(meter: Meter, now: datetime) -> None:
    assert meter.began_at is not None  # noqa: S101
    since = max(now, meter.began_at)  # clocks jump
    meter.due_at = meter.charged_until = _hour_from(since, meter.began_at)
    _add_rate(meter, since)


def _change(meter: Meter, now: datetime) -> None:
    """Write a rate, unless the last one says the same.  A meter that costs something is due."""
    assert meter.began_at is not None and meter.charged_until is not None  # noqa: S101, PT018
    last = Rate.objects.filter(meter=meter).latest("since")
    cost = cost_of(meter)
    if last.price == cost:
        return
    # Clocks jump: no rate is older than the one before, nor than an hour that is charged already.
    since = max(now, last.since + MOMENT, meter.charged_until - HOUR + MOMENT)
    if first_hour_from(last.since, meter.began_at) == first_hour_from(since, meter.began_at):
        Rate.objects.filter(pk=last.pk).update(
            since=since, price_hourly=cost.hourly, price_monthly=cost.monthly, quantity=cost.quantity
        )
    else:
        _add_rate(meter, since)
    if cost != FREE and meter.due_at is None:
        meter.due_at = _hour_from(since, meter.began_at)


def _add_rate(meter: Meter, since: datetime) -> None:
    cost = cost_of(meter)
    Rate.objects.create(
        meter=meter,
        since=since,
        price_hourly=cost.hourly,
        price_monthly=cost.monthly,
        quantity=cost.quantity,
    )


def _hour_from(moment: datetime, began_at: datetime) -> datetime:
    return began_at + first_hour_from(moment, began_at) * HOUR
