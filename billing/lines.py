"""Reads the ledger of an account: payments and usage as one list, newest first.  SQL by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import connection

from core.api.windows import Window


class LineRow(NamedTuple):
    """A payment, or the hours of a meter on one day.  ``kind`` is the payment's, or the meter's component."""

    id: int
    kind: str
    amount: Decimal
    reason: str
    reference: str
    subject_kind: str | None
    subject_id: int | None
    hour: datetime | None
    hours: int | None
    created_at: datetime


# A filter that is not set is NULL, and Postgres drops its line before it plans.
DAYS = """
    AND (%(since)s IS NULL OR created_at >= %(since)s::date::timestamptz)
    AND (%(until)s IS NULL OR created_at < %(until)s::date::timestamptz + interval '1 day')
"""
PAYMENTS = f"""
    SELECT id, kind, amount, reason, reference, NULL::varchar, NULL::bigint, NULL::timestamptz, NULL::int,
        created_at
    FROM billing_payment WHERE account_id = %(account_id)s AND %(subjects)s IS NULL {DAYS}
"""  # noqa: S608
USAGE = f"""
    SELECT id, component, amount, reason, '', subject_kind, subject_id, hour, bit_count(hours::bit(24))::int,
        created_at
    FROM billing_usage WHERE account_id = %(account_id)s
    AND (%(subjects)s IS NULL OR subject_kind = %(kind)s AND subject_id = ANY(%(subjects)s)) {DAYS}
"""  # noqa: S608
AFTER = "AND (%(after)s IS NULL OR id < %(after)s)"
BEFORE = "AND (%(before)s IS NULL OR id > %(before)s)"
COUNT = f"SELECT (SELECT count(*) FROM ({PAYMENTS}) p) + (SELECT count(*) FROM ({USAGE}) u)"  # noqa: S608


def _part(side: str, order: str) -> str:
    """Each table gives as many rows as the window may need, by its own index."""
    end = f"{side} ORDER BY id {order} LIMIT %(enough)s"
    both = f"({PAYMENTS} {end}) UNION ALL ({USAGE} {end})"
    return f"{both} ORDER BY id {order} LIMIT %(limit)s OFFSET %(offset)s"


DOWNWARDS, UPWARDS = _part(AFTER, "DESC"), _part(BEFORE, "ASC")


@dataclass(frozen=True)
class Lines:
    """An account's lines: a list that can be filtered and paged (``core.api.windows``)."""

    account_id: int
    kind: str | None = None
    subjects: list[int] | None = None
    since: date | None = None
    until: date | None = None

    def of_subjects(self, kind: str, subjects: list[int]) -> "Lines":
        """Only what was charged for these."""
        return replace(self, kind=kind, subjects=subjects)

    def between(self, since: date | None, until: date | None) -> "Lines":
        """Only from the day ``since`` to the day ``until`` (UTC), both included."""
        return replace(self, since=since, until=until)

    def rows(self, window: Window) -> list[LineRow]:
        sql = DOWNWARDS if window.before is None else UPWARDS
        values = vars(self) | vars(window) | {"enough": window.offset + window.limit}
        return list(map(LineRow._make, _ask(sql, values)))

    def count(self) -> int:
        return int(_ask(COUNT, vars(self))[0][0])


def _ask(sql: str, values: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found: list[Any] = cursor.fetchall()
        return found
