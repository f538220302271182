"""Two plain Django views, written for speed alone: the yardstick of ``bench api``.

The same token lookup, the same SQL, the same JSON; no REST framework, no rate
limit, no filters, no check of what it is asked.  ``bench`` refuses to measure when
the bytes are not the same.
"""

from base64 import urlsafe_b64encode
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any

import orjson
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone

ACCOUNT = """
    SELECT token.account_id, token.permissions, token.expires_at, token.revoked_at, account.is_active
    FROM accounts_apitoken token JOIN accounts_account account ON account.id = token.account_id
    WHERE token.digest = %s
"""
COLUMNS = """
    server.id, server.uuid, server.name, server.hostname, server.status, server.ip_address,
    server.ipv6_address, server.plan_id, server.os_version_id, server.location_id, server.backups_enabled,
    server.created_at, server.updated_at
"""
LIST = f"""
    SELECT {COLUMNS} FROM servers_server server
    WHERE server.account_id = %s AND server.deleted_at IS NULL
    ORDER BY server.id DESC LIMIT %s OFFSET %s
"""  # noqa: S608
COUNT = (
    "SELECT count(*) FROM servers_server server WHERE server.account_id = %s AND server.deleted_at IS NULL"
)
DETAIL = f"""
    SELECT {COLUMNS}, server.power_state, server.guest_addresses,
        coalesce(usage.cpu_percent, 0), coalesce(usage.memory_used_mib, 0),
        coalesce(usage.disk_used_gib, 0), coalesce(usage.received_bytes, 0), coalesce(usage.sent_bytes, 0)
    FROM servers_server server LEFT JOIN servers_resourceusage usage ON usage.server_id = server.id
    WHERE server.account_id = %s AND server.deleted_at IS NULL AND server.id = %s
"""  # noqa: S608


def servers(request: HttpRequest) -> HttpResponse:
    account = _account(request)
    page, size = request.GET.get("page"), request.GET.get("page_size")
    number, limit = int(page or 1), int(size or 100)
    rows = _ask(LIST, account, limit + 1, (number - 1) * limit)
    more, rows = len(rows) > limit, rows[:limit]
    body: dict[str, Any] = {"count": _ask(COUNT, account)[0][0] if more else len(rows)}
    if page or size:
        url = request.build_absolute_uri(request.path)
        body["next"] = f"{url}?page_size={limit}&cursor={_cursor('a', rows[-1][0])}" if more else None
        body["previous"] = (
            f"{url}?page_size={limit}&cursor={_cursor('b', rows[0][0])}" if number > 1 else None
        )
    body["results"] = [_beginning(row) | _end(row) for row in rows]
    return _json(body)


def _cursor(side: str, key: int) -> str:
    return urlsafe_b64encode(f"{side}{key}".encode()).decode().rstrip("=")


def server(request: HttpRequest, number: int) -> HttpResponse:
    row = _ask(DETAIL, _account(request), number)[0]
    body = _beginning(row)
    power_state, guest_addresses, cpu_percent, memory_used, disk_used, received, sent = row[13:]
    return _json(
        {
            **{key: body[key] for key in ("id", "name", "hostname", "status", "ip_address")},
            "ipv6_address": row[6],
            "location": body["location"],
            "plan": {**body["plan"], "bandwidth": _catalogue()["plans"][row[7]][4]},
            "os": body["os"],
            "backups_enabled": row[10],
            "resource_usage": {
                "cpu_percent": round(cpu_percent, 1),
                "memory_used": memory_used,
                "disk_used": disk_used,
                "bandwidth_used": max(received, sent) // 10**9,
            },
            **_end(row),
            "power_state": power_state,
            "guest_addresses": guest_addresses,
        }
    )


def _account(request: HttpRequest) -> int:
    secret = request.headers["Authorization"].removeprefix("Bearer ")
    account, permissions, expires_at, revoked_at, is_active = _ask(
        ACCOUNT, sha256(secret.encode()).hexdigest()
    )[0]
    now = timezone.now()
    if revoked_at or (expires_at and expires_at < now) or not is_active or permissions != '["*:*"]':
        raise PermissionError
    return int(account)


def _beginning(row: Any) -> dict[str, Any]:
    name, vcpus, memory, storage, _ = _catalogue()["plans"][row[7]]
    return {
        "id": row[0],
        "name": row[2],
        "hostname": row[3],
        "status": row[4],
        "ip_address": row[5],
        "location": _catalogue()["locations"][row[9]][0],
        "plan": {"id": row[7], "name": name, "vcpus": vcpus, "memory": memory, "storage": storage},
        "os": {"id": row[8], "name": _catalogue()["systems"][row[8]][0]},
    }


def _end(row: Any) -> dict[str, Any]:
    return {
        "created_at": _utc(row[11]),
        "updated_at": _utc(row[12]),
        "uuid": str(row[1]),
        "location_name": _catalogue()["locations"][row[9]][1],
        "plan_name": _catalogue()["plans"][row[7]][0],
        "os_name": _catalogue()["systems"][row[8]][0],
        "ipv4_addresses": [row[5]] if row[5] else [],
        "ipv6_addresses": [row[6]] if row[6] else [],
    }


@cache
def _catalogue() -> dict[str, dict[int, Any]]:
    tables = {
        "plans": "SELECT id, name, vcpus, memory_mib, disk_gib, bandwidth_gb FROM plans_plan",
        "systems": "SELECT id, name FROM plans_osversion",
        "locations": "SELECT id, code, name FROM plans_location",
    }
    return {table: {row[0]: row[1:] for row in _ask(sql)} for table, sql in tables.items()}


def _ask(sql: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found: list[Any] = cursor.fetchall()
        return found


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(body: Any) -> HttpResponse:
    return HttpResponse(orjson.dumps(body), content_type="application/json")


urlpatterns = [path("api/v1/servers/", servers), path("api/v1/servers/<int:number>/", server)]
