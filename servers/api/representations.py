"""How a server is told: the contract's fields, in the contract's order, and nothing that hides a query."""

from typing import Any

from servers.models import Server
from servers.states import ServerStatus
from vpsorg.api.times import utc

PROVISIONING_MESSAGE = "Server is being provisioned. This may take 2-5 minutes."


def list_item(server: Server) -> dict[str, Any]:
    return {
        "id": server.pk,
        "name": server.name,
        "hostname": server.hostname,
        "status": server.status,
        "ip_address": server.ip_address,
        "location": server.location.code,
        "plan": _plan(server),
        "os": _os(server),
        **_times(server),
    }


def created(server: Server) -> dict[str, Any]:
    item = list_item(server)
    times = {name: item.pop(name) for name in _times(server)}
    return {**item, "backups_enabled": server.backups_enabled, **times, "message": PROVISIONING_MESSAGE}


def detail(server: Server) -> dict[str, Any]:
    usage = server.usage
    return {
        "id": server.pk,
        "name": server.name,
        "hostname": server.hostname,
        "status": server.status,
        "ip_address": server.ip_address,
        "ipv6_address": server.ipv6_address,
        "location": server.location.code,
        "plan": _plan(server) | {"bandwidth": server.plan.bandwidth_gb},
        "os": _os(server),
        "backups_enabled": server.backups_enabled,
        "resource_usage": {
            "cpu_percent": round(usage.cpu_percent, 1),
            "memory_used": usage.memory_used_mib,
            "disk_used": usage.disk_used_gib,
            "bandwidth_used": usage.bandwidth_used_gb,
        },
        **_times(server),
    }


def action(server: Server, status: ServerStatus) -> dict[str, Any]:
    """The answer to an order: what the server does from now on."""
    return {
        "status": "success",
        "message": f"Server is {status}",
        "server": {"id": server.pk, "name": server.name, "status": status},
    }


def _plan(server: Server) -> dict[str, Any]:
    plan = server.plan
    return {
        "id": plan.pk,
        "name": plan.name,
        "vcpus": plan.vcpus,
        "memory": plan.memory_mib,
        "storage": plan.disk_gib,
    }


def _os(server: Server) -> dict[str, Any]:
    return {"id": server.os_version.pk, "name": server.os_version.name}


def _times(server: Server) -> dict[str, str]:
    return {"created_at": utc(server.created_at), "updated_at": utc(server.updated_at)}
