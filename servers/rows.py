"""Reading servers, which is what customers do most: SQL by hand, out of one table, into plain rows.

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
from servers.models import bandwidth_gb
from vpsorg.api.references import key_of
from vpsorg.errors import NotFound


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
COLUMNS = ", ".join(f"server.{name}" for name in ServerRow._fields)
USAGE = ", ".join(f"coalesce(usage.{name}, 0)" for name in UsageRow._fields)
# A filter that is not set is NULL, and Postgres drops its line before it plans.
LISTED = """
    FROM servers_server server
    WHERE server.account_id = %(account_id)s AND server.deleted_at IS NULL
    AND (%(status)s IS NULL OR server.status = %(status)s)
    AND (%(location)s IS NULL
        OR server.location_id = (SELECT location.id FROM plans_location location WHERE code = %(location)s))
"""
LIST = f"SELECT {COLUMNS} {LISTED} ORDER BY server.id DESC LIMIT %(limit)s OFFSET %(offset)s"
COUNT = f"SELECT count(*) {LISTED}"
ONE = f"""
    SELECT {COLUMNS}, {USAGE}
    FROM servers_server server LEFT JOIN servers_resourceusage usage ON usage.server_id = server.id
    WHERE server.account_id = %(account_id)s AND server.deleted_at IS NULL
"""  # noqa: S608
ONE_BY_ID = f"{ONE} AND server.id = %(key)s"
ONE_BY_UUID = f"{ONE} AND server.uuid = %(key)s"


@dataclass(frozen=True)
class ServerRows:
    """An account's servers, newest first, to be filtered, sliced and counted as a queryset is."""

    account_id: int
    status: str | None = None
    location: str | None = None

    def filter(self, *, status: str, location: str) -> "ServerRows":
        """Those in this status, at the location with this code; an empty word filters nothing."""
        return replace(self, status=status or None, location=location or None)

    def __getitem__(self, part: slice) -> list[ServerRow]:
        found = _ask(LIST, {**vars(self), "limit": part.stop - part.start, "offset": part.start})
        return list(map(ServerRow._make, found))

    def count(self) -> int:
        return int(_ask(COUNT, vars(self))[0][0])


def rows_of(account: Account) -> ServerRows:
    """What ``selectors.servers_of`` finds, as rows."""
    return ServerRows(account.pk)


def one_row_of(account: Account, reference: str) -> tuple[ServerRow, UsageRow]:
    """What ``selectors.one_server_of`` finds, or raises, as rows."""
    key = key_of(reference)
    sql = ONE_BY_UUID if isinstance(key, UUID) else ONE_BY_ID
    found = _ask(sql, {"account_id": account.pk, "key": key}) if key is not None else []
    if not found:
        raise NotFound("There is no such server in this account.")
    return ServerRow._make(found[0][:WIDTH]), UsageRow._make(found[0][WIDTH:])


def _ask(sql: str, values: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found: list[Any] = cursor.fetchall()
        return found
