"""The answers of the servers' endpoints: the contract's fields in its order, then the clients' fields."""

from typing import Annotated, Any, Literal

from core.api.answers import Answer, Id, IPv4, IPv6, Moment, Uuid, about, component, example, utc, utc_or_none
from plans import catalogue
from servers.models import Operation as OperationRow
from servers.models import Server as ServerModel
from servers.rows import GuestRow, ServerRow, UsageRow
from servers.states import OperationKind, OperationStatus, PowerState, ServerStatus

PROVISIONING_MESSAGE = "Server is being provisioned. This may take 2-5 minutes."

PublicStatus = Annotated[str, component("ServerStatus")]
LocationCode = Annotated[str, about("The location's code.")]
IPv4OrNone = IPv4 | None
IPv6OrNone = IPv6 | None

NAME = {"id": 12345, "name": "web-server-01", "hostname": "web01.example.com"}
PLAN = {"id": 1, "name": "Standard VPS", "vcpus": 2, "memory": 4096, "storage": 80}
PLACE = {"location": "us-west", "plan": PLAN, "os": {"id": 5, "name": "Ubuntu 22.04 LTS"}}
ACTIVE = {"status": "active", "ip_address": "203.0.113.10"}
TIMES = {"created_at": "2025-01-10T14:30:00Z", "updated_at": "2025-01-16T15:45:00Z"}
FOR_CLIENTS = {
    "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c004",
    "location_name": "US West",
    "plan_name": "Standard VPS",
    "os_name": "Ubuntu 22.04 LTS",
    "ipv4_addresses": ["203.0.113.10"],
    "ipv6_addresses": ["2001:db8::1"],
}
LIST_ITEM = NAME | ACTIVE | PLACE | TIMES | FOR_CLIENTS
CREATED = {
    **NAME,
    "status": "provisioning",
    "ip_address": None,
    **PLACE,
    "backups_enabled": True,
    **dict.fromkeys(TIMES, "2025-01-16T15:45:00Z"),
    "message": "Server is being provisioned. This may take 2-5 minutes.",
    **FOR_CLIENTS,
    "ipv4_addresses": [],
    "ipv6_addresses": [],
}
DETAIL = {
    **NAME,
    **ACTIVE,
    "ipv6_address": "2001:db8::1",
    **PLACE,
    "plan": PLAN | {"bandwidth": 2048},
    "backups_enabled": True,
    "resource_usage": {"cpu_percent": 23.5, "memory_used": 2048, "disk_used": 35, "bandwidth_used": 450},
    **TIMES,
    **FOR_CLIENTS,
    "power_state": "running",
    "guest_addresses": ["172.17.0.1"],
}
ACTION_RESPONSE = {
    "status": "success",
    "message": "Server is starting",
    "server": {"id": 12345, "name": "web-server-01", "status": "starting"},
}
OPERATION = {
    "id": 42,
    "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c005",
    "server_id": 12345,
    "kind": "create",
    "status": "failed",
    "step": "await_guest",
    "progress": 83,
    "message": "",
    "error": {"code": "guest_timeout", "message": "The guest did not answer in time."},
    "created_at": "2025-01-16T15:45:00Z",
    "started_at": "2025-01-16T15:45:01Z",
    "finished_at": "2025-01-16T15:50:01Z",
}


class PlanOfServer(Answer):
    id: Id
    name: str
    vcpus: int
    memory: Annotated[int, about("MB")]
    storage: Annotated[int, about("GB")]


class PlanOfServerDetail(PlanOfServer):
    bandwidth: Annotated[int, about("GB a month")]


class OperatingSystemOfServer(Answer):
    id: Id
    name: str


class ResourceUsage(Answer):
    cpu_percent: float
    memory_used: Annotated[int, about("MB")]
    disk_used: Annotated[int, about("GB")]
    bandwidth_used: Annotated[int, about("GB this month: in or out, whichever is more.")]


@example("A server", LIST_ITEM)
class Server(Answer):
    id: Id
    name: str
    hostname: str
    status: PublicStatus
    ip_address: IPv4OrNone
    location: LocationCode
    plan: PlanOfServer
    os: OperatingSystemOfServer
    created_at: Moment
    updated_at: Moment
    uuid: Uuid
    location_name: str
    plan_name: str
    os_name: str
    ipv4_addresses: list[IPv4]
    ipv6_addresses: list[IPv6]


@example("A new server", CREATED, status=201)
class CreatedServer(Answer):
    id: Id
    name: str
    hostname: str
    status: PublicStatus
    ip_address: IPv4OrNone
    location: LocationCode
    plan: PlanOfServer
    os: OperatingSystemOfServer
    backups_enabled: bool
    created_at: Moment
    updated_at: Moment
    message: str
    uuid: Uuid
    location_name: str
    plan_name: str
    os_name: str
    ipv4_addresses: list[IPv4]
    ipv6_addresses: list[IPv6]


@example("A server", DETAIL)
class ServerDetail(Answer):
    id: Id
    name: str
    hostname: str
    status: PublicStatus
    ip_address: IPv4OrNone
    ipv6_address: IPv6OrNone
    location: LocationCode
    plan: PlanOfServerDetail
    os: OperatingSystemOfServer
    backups_enabled: bool
    resource_usage: ResourceUsage
    created_at: Moment
    updated_at: Moment
    uuid: Uuid
    location_name: str
    plan_name: str
    os_name: str
    ipv4_addresses: list[IPv4]
    ipv6_addresses: list[IPv6]
    power_state: Annotated[PowerState, about("What the host of the server last said of its machine.")]
    guest_addresses: Annotated[
        list[str], about("What the system inside showed besides these addresses when it came up.")
    ]


class ServerOfAction(Answer):
    id: Id
    name: str
    status: PublicStatus


@example("On its way", ACTION_RESPONSE)
class ActionResponse(Answer):
    status: Literal["success"]
    message: str
    server: ServerOfAction


class OperationError(Answer):
    code: str
    message: str


@example("A failure", OPERATION)
class Operation(Answer):
    id: Id
    uuid: Uuid
    server_id: Id
    kind: OperationKind
    status: OperationStatus
    step: str
    progress: Annotated[int, about("Percent")]
    message: str
    error: OperationError | None
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None


def server(row: ServerRow) -> Server:
    return Server(**_beginning(row), plan=_plan(row), **_end(row))


def created_server(row: ServerRow) -> CreatedServer:
    return CreatedServer(
        **_beginning(row),
        plan=_plan(row),
        backups_enabled=row.backups_enabled,
        message=PROVISIONING_MESSAGE,
        **_end(row),
    )


def server_detail(row: ServerRow, guest: GuestRow, usage: UsageRow) -> ServerDetail:
    plan = catalogue.plans[row.plan_id]
    return ServerDetail(
        **_beginning(row),
        ipv6_address=row.ipv6_address,
        plan=PlanOfServerDetail(
            id=plan.pk,
            name=plan.name,
            vcpus=plan.vcpus,
            memory=plan.memory_mib,
            storage=plan.disk_gib,
            bandwidth=plan.bandwidth_gb,
        ),
        backups_enabled=row.backups_enabled,
        resource_usage=ResourceUsage(
            cpu_percent=round(usage.cpu_percent, 1),
            memory_used=usage.memory_used_mib,
            disk_used=usage.disk_used_gib,
            bandwidth_used=usage.bandwidth_used_gb,
        ),
        **_end(row),
        power_state=PowerState(guest.power_state),
        guest_addresses=guest.guest_addresses,
    )


def action_response(row: ServerModel, status: ServerStatus) -> ActionResponse:
    """The answer to an order: the status that the server shows from now on."""
    return ActionResponse(
        status="success",
        message=f"Server is {status}",
        server=ServerOfAction(id=row.pk, name=row.name, status=status),
    )


def operation(row: OperationRow) -> Operation:
    error = OperationError(code=row.error_code, message=row.message) if row.error_code else None
    return Operation(
        id=row.pk,
        uuid=str(row.uuid),
        server_id=row.subject_server_id,
        kind=OperationKind(row.kind),
        status=OperationStatus(row.status),
        step=row.step,
        progress=row.progress,
        message="" if error else row.message,
        error=error,
        created_at=utc(row.created_at),
        started_at=utc_or_none(row.started_at),
        finished_at=utc_or_none(row.finished_at),
    )


def _beginning(row: ServerRow) -> dict[str, Any]:
    version = catalogue.os_versions[row.os_version_id]
    return {
        "id": row.id,
        "name": row.name,
        "hostname": row.hostname,
        "status": row.status,
        "ip_address": row.ip_address,
        "location": catalogue.locations[row.location_id].code,
        "os": OperatingSystemOfServer(id=version.pk, name=version.name),
    }


def _plan(row: ServerRow) -> PlanOfServer:
    plan = catalogue.plans[row.plan_id]
    return PlanOfServer(
        id=plan.pk, name=plan.name, vcpus=plan.vcpus, memory=plan.memory_mib, storage=plan.disk_gib
    )


def _end(row: ServerRow) -> dict[str, Any]:
    return {
        "created_at": utc(row.created_at),
        "updated_at": utc(row.updated_at),
        "uuid": str(row.uuid),
        "location_name": catalogue.locations[row.location_id].name,
        "plan_name": catalogue.plans[row.plan_id].name,
        "os_name": catalogue.os_versions[row.os_version_id].name,
        "ipv4_addresses": [row.ip_address] if row.ip_address else [],
        "ipv6_addresses": [row.ipv6_address] if row.ipv6_address else [],
    }
