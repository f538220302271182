"""How a server is told: the contract's fields, in the contract's order, and nothing that hides a query."""

from typing import Any

from plans import catalogue
from servers.models import Server
from servers.rows import ServerRow, UsageRow
from servers.states import ServerStatus
from vpsorg.api.times import utc

PROVISIONING_MESSAGE = "Server is being provisioned. This may take 2-5 minutes."


def list_item(server: ServerRow) -> dict[str, Any]:
    item = _beginning(server)
    return item | _times(server) | _for_clients(server, item)


def created(server: Server) -> dict[str, Any]:
    item = _beginning(server)
    return {
        **item,
        "backups_enabled": server.backups_enabled,
        **_times(server),
        "message": PROVISIONING_MESSAGE,
        **_for_clients(server, item),
    }


def detail(server: ServerRow, usage: UsageRow) -> dict[str, Any]:
    item = _beginning(server)
    return {
        **{field: item[field] for field in ("id", "name", "hostname", "status", "ip_address")},
        "ipv6_address": server.ipv6_address,
        "location": item["location"],
        "plan": item["plan"] | {"bandwidth": catalogue.plans[server.plan_id].bandwidth_gb},
        "os": item["os"],
        "backups_enabled": server.backups_enabled,
        "resource_usage": {
            "cpu_percent": round(usage.cpu_percent, 1),
            "memory_used": usage.memory_used_mib,
            "disk_used": usage.disk_used_gib,
            "bandwidth_used": usage.bandwidth_used_gb,
        },
        **_times(server),
        **_for_clients(server, item),
    }


def action(server: Server, status: ServerStatus) -> dict[str, Any]:
    """The answer to an order: what the server does from now on."""
    return {
        "status": "success",
        "message": f"Server is {status}",
        "server": {"id": server.pk, "name": server.name, "status": status},
    }


def _beginning(server: Server | ServerRow) -> dict[str, Any]:
    plan, version = catalogue.plans[server.plan_id], catalogue.os_versions[server.os_version_id]
    return {
        "id": server.id,
        "name": server.name,
        "hostname": server.hostname,
        "status": server.status,
        "ip_address": server.ip_address,
        "location": catalogue.locations[server.location_id].code,
        "plan": {
            "id": plan.pk,
            "name": plan.name,
            "vcpus": plan.vcpus,
            "memory": plan.memory_mib,
            "storage": plan.disk_gib,
        },
        "os": {"id": version.pk, "name": version.name},
    }


def _times(server: Server | ServerRow) -> dict[str, str]:
    return {"created_at": utc(server.created_at), "updated_at": utc(server.updated_at)}


def _for_clients(server: Server | ServerRow, item: dict[str, Any]) -> dict[str, Any]:
    """After the contract's fields, those that the provider's own clients read."""
    return {
        "uuid": str(server.uuid),
        "location_name": catalogue.locations[server.location_id].name,
        "plan_name": item["plan"]["name"],
        "os_name": item["os"]["name"],
        "ipv4_addresses": [server.ip_address] if server.ip_address else [],
        "ipv6_addresses": [server.ipv6_address] if server.ipv6_address else [],
    }
