"""What the servers' endpoints are asked and answer, for the documentation.

Tests hold every real answer against it, and schemathesis the requests.
"""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    extend_schema,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import serializers

from servers.api.billing_schema import usage_of_server
from servers.api.serializers import CreateServer, PowerAction, RebuildServer, ResizeServer, UpdateServer
from servers.states import PUBLIC_STATUSES, OperationKind, OperationStatus
from vpsorg.api.schema import ID, INSUFFICIENT_CREDITS


class CreateServerSchema(OpenApiSerializerExtension):
    """Either dialect, or a mixture: what must be there depends on what else is."""

    target_class = CreateServer

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        documented = ["name", "plan_id", "os_id"]
        clients = [
            [name, plan, system]
            for name in ("hostname", "name")
            for plan, system in (("plan", "os_version"), ("plan", "os_id"), ("plan_id", "os_version"))
        ]
        return schema | {
            "required": ["location"],
            "anyOf": [{"required": fields} for fields in (documented, *clients)],
        }


class LocationReferenceSchema(OpenApiSerializerFieldExtension):
    target_class = "servers.api.serializers.LocationReference"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {
            "anyOf": [{"type": "string", "minLength": 1, "maxLength": 32}, ID],
            "description": "A location's code, `us-west`; or its id.",
        }


class PatternStringSchema(OpenApiSerializerFieldExtension):
    target_class = "servers.api.serializers.PatternString"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        field = self.target
        return {
            "type": "string",
            "pattern": f"^({field.pattern})$",
            "maxLength": field.max_length,
            "description": field.sentence,
        }


# The answers, in parts: the order of the fields is the contract's.


class PlanOfServer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    vcpus = serializers.IntegerField()
    memory = serializers.IntegerField(help_text="MB")
    storage = serializers.IntegerField(help_text="GB")


class PlanOfServerDetail(PlanOfServer):
    bandwidth = serializers.IntegerField(help_text="GB a month")


class OsOfServer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class ResourceUsageFields(serializers.Serializer[Any]):
    cpu_percent = serializers.FloatField()
    memory_used = serializers.IntegerField(help_text="MB")
    disk_used = serializers.IntegerField(help_text="GB")
    bandwidth_used = serializers.IntegerField(help_text="GB this month: in or out, whichever is more.")


class _Name(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    hostname = serializers.CharField()
    status = serializers.ChoiceField(choices=[str(status) for status in PUBLIC_STATUSES])
    ip_address = serializers.IPAddressField(protocol="IPv4", allow_null=True)


class _Place(serializers.Serializer[Any]):
    location = serializers.CharField(help_text="The location's code.")
    plan = PlanOfServer()
    os = OsOfServer()


class _Backups(serializers.Serializer[Any]):
    backups_enabled = serializers.BooleanField()


class _Times(serializers.Serializer[Any]):
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class _ForClients(serializers.Serializer[Any]):
    uuid = serializers.UUIDField()
    location_name = serializers.CharField()
    plan_name = serializers.CharField()
    os_name = serializers.CharField()
    ipv4_addresses = serializers.ListField(child=serializers.IPAddressField(protocol="IPv4"))
    ipv6_addresses = serializers.ListField(child=serializers.IPAddressField(protocol="IPv6"))


class _Message(serializers.Serializer[Any]):
    message = serializers.CharField()


class _Detail(serializers.Serializer[Any]):
    ipv6_address = serializers.IPAddressField(protocol="IPv6", allow_null=True)
    location = serializers.CharField(help_text="The location's code.")
    plan = PlanOfServerDetail()
    os = OsOfServer()
    backups_enabled = serializers.BooleanField()
    resource_usage = ResourceUsageFields()


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
}
ORDERED = {
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


@extend_schema_serializer(component_name="Server", examples=[OpenApiExample("A server", LIST_ITEM)])
class ServerAnswer(_Name, _Place, _Times, _ForClients):
    pass


@extend_schema_serializer(
    component_name="CreatedServer",
    examples=[OpenApiExample("A new server", CREATED, response_only=True, status_codes=["201"])],
)
class CreatedAnswer(_Name, _Place, _Backups, _Times, _Message, _ForClients):
    pass


@extend_schema_serializer(component_name="ServerDetail", examples=[OpenApiExample("A server", DETAIL)])
class DetailAnswer(_Name, _Detail, _Times, _ForClients):
    pass


class OrderedServer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=[str(status) for status in PUBLIC_STATUSES])


@extend_schema_serializer(component_name="Ordered", examples=[OpenApiExample("On its way", ORDERED)])
class OrderedAnswer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["success"])
    message = serializers.CharField()
    server = OrderedServer()


class OperationError(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField(allow_blank=True)


@extend_schema_serializer(component_name="Operation", examples=[OpenApiExample("A failure", OPERATION)])
class OperationAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    uuid = serializers.UUIDField()
    server_id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=[str(kind) for kind in OperationKind])
    status = serializers.ChoiceField(choices=[str(status) for status in OperationStatus])
    step = serializers.CharField(allow_blank=True)
    progress = serializers.IntegerField(help_text="Percent", min_value=0, max_value=100)
    message = serializers.CharField(allow_blank=True)
    error = OperationError(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


# The endpoints.


def _told(name: str, description: str, *statuses: int) -> OpenApiParameter:
    kind = OpenApiTypes.INT if name == "Retry-After" else OpenApiTypes.STR
    return OpenApiParameter(
        name, kind, OpenApiParameter.HEADER, response=list(statuses), description=description
    )


LOOK_AGAIN = "Seconds after which a look makes sense."
RECEIPT = [_told("Location", "The operation: how it goes.", 200), _told("Retry-After", LOOK_AGAIN, 200)]
DOCUMENTED = OpenApiExample(
    "As documented",
    {
        "name": "web-server-02",
        "plan_id": 1,
        "os_id": 5,
        "location": "us-west",
        "hostname": "web02.example.com",
        "backups_enabled": True,
    },
    request_only=True,
)
AS_CLIENTS_DO = OpenApiExample(
    "As the provider's clients do",
    {"hostname": "web02.example.com", "plan": 1, "os_version": 5, "location": 1, "ssh_keys": []},
    request_only=True,
)


def _body(body: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample("A request", body, request_only=True)


UPDATE = {"name": "web-server-01", "hostname": "web01.example.com", "backups_enabled": False}


def _order(summary: str, description: str, request: Any = None, example: Any = None, **about: Any) -> Any:
    """An endpoint that orders something for a server."""
    responses = {200: OrderedAnswer} | about.pop("besides", {})
    shown = [OpenApiExample("On its way", ORDERED, response_only=True)]
    examples = [_body(example), *shown] if example else shown
    about = {"parameters": RECEIPT, "examples": examples, "responses": responses} | about
    return extend_schema(summary=summary, description=description, request=request, **about)


of_servers = extend_schema_view(
    list=extend_schema(
        summary="List servers",
        description="Newest first; without paging parameters at most 100.",
        filters=False,  # said here: the filter set would want a database
        parameters=[
            OpenApiParameter(
                "status",
                {"type": "string", "enum": ["", *(str(status) for status in PUBLIC_STATUSES)]},
                description="Only servers in this status. Empty: all.",
            ),
            OpenApiParameter(
                "location",
                {"type": "string", "maxLength": 32},
                description="Only servers at this location, by its code, `us-west`. Empty: all.",
            ),
        ],
        responses=ServerAnswer(many=True),
    ),
    create=extend_schema(
        summary="Create a server",
        description="Host, memory, disk and addresses are this server's when this answers. Understands the "
        "documentation's words (`name`, `plan_id`, `os_id`) and those of the provider's clients "
        "(`hostname`, `plan`, `os_version`). Fields that it does not know are ignored.",
        request=CreateServer,
        examples=[
            DOCUMENTED,
            AS_CLIENTS_DO,
            OpenApiExample("A new server", CREATED, response_only=True, status_codes=["201"]),
        ],
        parameters=[_told("Location", "The server.", 201), _told("Retry-After", LOOK_AGAIN, 201)],
        responses={201: CreatedAnswer, 402: INSUFFICIENT_CREDITS},
    ),
    retrieve=extend_schema(summary="Read a server", responses=DetailAnswer),
    update=extend_schema(
        summary="Change a server",
        description="All three fields. A new hostname reaches the guest at its next boot.",
        request=UpdateServer,
        examples=[_body(UPDATE), OpenApiExample("A server", DETAIL, response_only=True)],
        responses={200: DetailAnswer, 402: INSUFFICIENT_CREDITS},
    ),
    partial_update=extend_schema(
        summary="Change a part of a server",
        description="Any of the three fields. A new hostname reaches the guest at its next boot.",
        request=UpdateServer,
        examples=[_body({"backups_enabled": True}), OpenApiExample("A server", DETAIL, response_only=True)],
        responses={200: DetailAnswer, 402: INSUFFICIENT_CREDITS},
    ),
    destroy=extend_schema(
        summary="Delete a server", description="For good, whatever it does now.", responses={204: None}
    ),
    start=_order("Start a server", "It must be stopped.", besides={402: INSUFFICIENT_CREDITS}),
    stop=_order("Stop a server", "Its guest shuts down; if it does not, its power is cut."),
    reboot=_order(
        "Reboot a server",
        "Its guest shuts down and is started again.",
        besides={402: INSUFFICIENT_CREDITS},
    ),
    power=_order(
        "Start, stop, restart or hard stop",
        "As the provider's clients ask for it. `hard_stop` cuts the power at once.",
        PowerAction,
        {"action": "restart"},
        besides={402: INSUFFICIENT_CREDITS},
    ),
    resize=_order(
        "Resize a server",
        "Make it one of another plan, `plan` or `plan_id`. The disk may grow and never shrink.",
        ResizeServer,
        {"plan": 2},
        besides={402: INSUFFICIENT_CREDITS},
    ),
    rebuild=_order(
        "Rebuild a server",
        "Make it anew with this system: same addresses, and everything on its disk is lost.",
        RebuildServer,
        {"os_id": 5},
        besides={402: INSUFFICIENT_CREDITS},
    ),
    operations=extend_schema(
        summary="List a server's operations",
        description="Its history, newest first.",
        filters=False,
        responses=OperationAnswer(many=True),
    ),
    usage=usage_of_server,
)
WAIT = OpenApiParameter(
    "wait",
    {"type": "integer", "minimum": 0, "maximum": 30, "default": 0},
    description="Hold the answer until the operation has ended, so many seconds at most.",
)
of_operations = extend_schema_view(
    retrieve=extend_schema(
        summary="Read an operation",
        description="How far it got, and why it failed.",
        parameters=[WAIT, _told("Retry-After", "Only while it has not ended. " + LOOK_AGAIN, 200)],
        responses=OperationAnswer,
    )
)
