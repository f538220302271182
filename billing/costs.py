"""What hours cost, by rates alone: pure arithmetic in ten-thousandths of a credit.

**What an hour is.**  The hours of a meter are counted from the moment when its subject first cost something,
not from the clock's full hours: made and deleted in the same minute is one hour, always.  An hour costs
what the rate says at its beginning, and belongs to the day and the calendar month (UTC) that it begins in.

**A month never costs more than the monthly price**; of several prices in a month, the highest.  So the
first hours of a rate cost its hourly price, one may cost the rest, and the others are free.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import zip_longest
from typing import NamedTuple

HOUR = timedelta(hours=1)
MOMENT = timedelta(microseconds=1)


class Tariff(NamedTuple):
    """A rate as this module needs it."""

    since: datetime
    hourly: int
    monthly: int


class Stretch(NamedTuple):
    """Hours ``first`` to before ``end`` of a meter: all cost ``hourly``, but the last may cost less."""

    first: int
    end: int
    hourly: int
    total: int

    def cost(self, first: int, end: int) -> int:
        """The cost of its hours from ``first`` up to, but not including, ``end``."""
        first, stop = max(first, self.first), min(end, self.end)
        if first >= stop:
            return 0
        if stop < self.end:
            return (stop - first) * self.hourly
        return self.total - (first - self.first) * self.hourly


class DayOfHours(NamedTuple):
    """Hours of one day that cost something: bit n of ``hours`` is the one that began at n o'clock."""

    day: date
    hours: int
    amount: int


def hour_of(moment: datetime, began_at: datetime) -> int:
    """The number of the hour that a moment lies in, from 0."""
    return max(0, (moment - began_at) // HOUR)


def first_hour_from(moment: datetime, began_at: datetime) -> int:
    """The number of the first hour that begins at the moment or later."""
    return max(0, -((began_at - moment) // HOUR))


def month_of(moment: datetime) -> datetime:
    """When the calendar month (UTC) began that a moment lies in."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(month: datetime) -> datetime:
    return month_of(month + timedelta(days=31))


def start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def stretches(began_at: datetime, tariffs: Sequence[Tariff], month: datetime, end: int) -> list[Stretch]:
    """The hours of a month that cost something, of those before number ``end``.

    ``tariffs``: oldest first, from the one that counts when the month begins.
    """
    found = []
    begin = first_hour_from(month, began_at)
    end = min(end, first_hour_from(month_after(month), began_at))
    most = spent = 0
    for tariff, following in zip_longest(tariffs, tariffs[1:]):
        first = max(begin, first_hour_from(tariff.since, began_at))
        stop = end if following is None else min(end, first_hour_from(following.since, began_at))
        if first >= stop or not tariff.hourly:
            continue
        most = max(most, tariff.monthly)
        room = most - spent
        costly = min(stop - first, -(-room // tariff.hourly))
        if costly > 0:
            total = min(costly * tariff.hourly, room)
            found.append(Stretch(first, first + costly, tariff.hourly, total))
            spent += total
    return found


def days(began_at: datetime, costly: Sequence[Stretch], first: int, end: int) -> Iterator[DayOfHours]:
    """The cost of the hours from ``first`` up to ``end``, by day; days that cost nothing are left out."""
    while first < end:
        day, stop = _day_of(began_at, first, end)
        hours = 0
        o_clock = (began_at + first * HOUR).hour
        for stretch in costly:
            begins, ends = max(first, stretch.first), min(stop, stretch.end)
            if begins < ends:
                hours |= ((1 << (ends - begins)) - 1) << (o_clock + begins - first)
        if hours:
            yield DayOfHours(day, hours, sum(stretch.cost(first, stop) for stretch in costly))
        first = stop


def amount_of(began_at: datetime, costly: Sequence[Stretch], day: date, hours: int) -> int:
    """What some hours of a day cost, given by their bits."""
    return sum(
        stretch.cost(number, number + 1) for number in numbers_of(began_at, day, hours) for stretch in costly
    )


def numbers_of(began_at: datetime, day: date, hours: int) -> list[int]:
    """The numbers of the hours of a day whose bits are set."""
    midnight = first_hour_from(start_of(day), began_at)
    o_clock = (began_at + midnight * HOUR).hour  # not 0 on the first day
    return [midnight + bit - o_clock for bit in range(24) if hours >> bit & 1]


def _day_of(began_at: datetime, number: int, end: int) -> tuple[date, int]:
    """The day that an hour begins in, and the number of the first hour after that day, or ``end``."""
    begins = began_at + number * HOUR
    return begins.date(), min(end, number + 24 - begins.hour)
