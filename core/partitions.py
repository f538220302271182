"""Tables that Postgres splits by calendar month: for rows that grow for ever.

A month is a table of its own, made ahead of time and taken out whole when it is closed.  Nothing writes a
row of a month whose table is not there: the writer calls ``make`` first.
"""

from datetime import date

from django.db import connection, transaction

from core.locks import lock_until_commit, partitions_of


class PartitionedByMonth:
    """Mixin of a model.  ``partition_by`` names the column with the date that decides about the month."""

    partition_by = "day"


MAKE = """
    CREATE TABLE {name} (LIKE {parent} INCLUDING ALL) WITH (fillfactor = 70);
    ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{end}');
"""
# Postgres gives a new partition the row triggers of its parent and not the statement triggers.  Those must
# hold for writes to the partition by its own name, too.
STATEMENT_TRIGGERS = """
    SELECT replace(pg_get_triggerdef(oid), ' ON public.' || %(parent)s || ' ', ' ON ' || %(name)s || ' ')
    FROM pg_trigger WHERE tgrelid = %(parent)s::regclass AND NOT tgisinternal AND tgtype & 1 = 0
"""
PARTITIONS = """
    SELECT partition.relname FROM pg_inherits
    JOIN pg_class partition ON partition.oid = inhrelid WHERE inhparent = %s::regclass ORDER BY 1
"""


def month_after(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def name_of(table: str, month: date) -> str:
    return f"{table}_{month:%Y_%m}"


def months_of(table: str) -> list[date]:
    """The months that are part of a table, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(PARTITIONS, [table])
        names = [name for (name,) in cursor.fetchall()]
    return [date(int(name[-7:-3]), int(name[-2:]), 1) for name in names]


@transaction.atomic
def make(table: str, month: date) -> bool:
    """Add the table of a month, which does not make writers of other months wait.  False: it is there."""
    name = name_of(table, month)
    lock_until_commit(partitions_of(table))
    if month in months_of(table):
        return False
    with connection.cursor() as cursor:
        cursor.execute(MAKE.format(name=name, parent=table, first=month, end=month_after(month)))
        cursor.execute(STATEMENT_TRIGGERS, {"parent": table, "name": name})
        for (definition,) in cursor.fetchall():
            cursor.execute(definition)
    return True


@transaction.atomic
def detach(table: str, month: date) -> str:
    """Take the table of a month out.  It stays in the database, under the name that this returns."""
    name = name_of(table, month)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")
    return name
