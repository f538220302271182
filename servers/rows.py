"""Reads servers for the API by plain SQL, out of one table, into plain rows.

The ORM would spend longer on building the query and the objects than Postgres on
the answer (``make bench-api`` measures it).  Plans, systems and locations are not
joined: ``plans.catalogue`` has them in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from accounts.models import Account
from core.api.references import key_of
from core.api.windows import Window
from core.errors import NotFound
from servers.models import bandwidth_gb


class ServerRow(NamedTuple):
    """The columns that answers are made of, by the names that a ``Server`` has for them."""

    id: int
    uuid: UUID
    name: str
    hostname: str
    status: str
    ip_address: str | None
    ipv6_address: str | None
    plan_id: int
    os_version_id: int
    location_id: int
    backups_enabled: bool
    created_at: datetime
    updated_at: datetime


class GuestRow(NamedTuple):
    """What a server's host and its guest last said."""

    power_state: str
    guest_addresses: list[str]


class UsageRow(NamedTuple):
    cpu_percent: float
    memory_used_mib: int
    disk_used_gib: int
    received_bytes: int
    sent_bytes: int

    @property
    def bandwidth_used_gb(self) -> int:
        return bandwidth_gb(self.received_bytes, self.sent_bytes)


WIDTH = len(ServerRow._fields)
USAGE_FROM = WIDTH + len(GuestRow._fields)
COLUMNS = ", ".join(f"server.{name}" for name in ServerRow._fields)
GUEST = ", ".join(f"server.{name}" for name in GuestRow._fields)
USAGE = ", ".join(f"coalesce(usage.{name}, 0)" for name in UsageRow._fields)
# A filter that is not set is NULL, and Postgres drops its line before it plans.
LISTED = """
    FROM servers_server server
    WHERE server.account_id = %(account_id)s AND server.deleted_at IS NULL
    AND (%(status)s IS NULL OR server.status = %(status)s)
    AND (%(location)s IS NULL
        OR server.location_id = (SELECT location.id FROM plans_location location WHERE code = %(location)s))
"""
AFTER = "AND (%(after)s IS NULL OR server.id < %(after)s)"
BEFORE = "AND (%(before)s IS NULL OR server.id > %(before)s)"
PART = "LIMIT %(limit)s OFFSET %(offset)s"
LIST = f"SELECT {COLUMNS} {LISTED} {AFTER} ORDER BY server.id DESC {PART}"
LIST_UPWARDS = f"SELECT {COLUMNS} {LISTED} {BEFORE} ORDER BY server.id {PART}"
COUNT = f"SELECT count(*) {LISTED}"
ONE = f"""
    SELECT {COLUMNS}, {GUEST}, {USAGE}
    FROM servers_server server LEFT JOIN servers_resourceusage usage ON usage.server_id = server.id
    WHERE server.account_id = %(account_id)s AND server.deleted_at IS NULL
"""  # noqa: S608
ONE_BY_ID = f"{ONE} AND server.id = %(key)s"
ONE_BY_UUID = f"{ONE} AND server.uuid = %(key)s"


@dataclass(frozen=True)
class ServerRows:
    """An account's servers, newest first: a list that can be filtered and paged (``core.api.windows``)."""

    account_id: int
    status: str | None = None
    location: str | None = None

    def filter(self, *, status: str, location: str) -> "ServerRows":
        """Those in this status, at the location with this code; an empty word filters nothing."""
        return replace(self, status=status or None, location=location or None)

    def rows(self, window: Window) -> list[ServerRow]:
        sql = LIST if window.before is None else LIST_UPWARDS
        return list(map(ServerRow._make, _ask(sql, vars(self) | vars(window))))

    def count(self) -> int:
        return int(_ask(COUNT, vars(self))[0][0])


def rows_of(account: Account) -> ServerRows:
    """The same servers as ``selectors.servers_of``, as rows."""
    return ServerRows(account.pk)


def one_row_of(account: Account, reference: str) -> tuple[ServerRow, GuestRow, UsageRow]:
    """The same server as ``selectors.one_server_of``, as a row; raises the same."""
    key = key_of(reference)
    sql = ONE_BY_UUID if isinstance(key, UUID) else ONE_BY_ID
    found = _ask(sql, {"account_id": account.pk, "key": key}) if key is not None else []
    if not found:
        raise NotFound("There is no such server in this account.")
    columns = found[0]
    return (
        ServerRow._make(columns[:WIDTH]),
        GuestRow._make(columns[WIDTH:USAGE_FROM]),
        UsageRow._make(columns[USAGE_FROM:]),
    )


def _ask(sql: str, values: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found: list[Any] = cursor.fetchall()
        return found
