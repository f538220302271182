"""Publishes the servers' endpoints: their requests and answers."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view

from servers.api.answers import (
    ACTION_RESPONSE,
    CREATED,
    DETAIL,
    ActionResponse,
    CreatedServer,
    Operation,
    Server,
    ServerDetail,
)
from servers.api.backup_schema import backup_of_server, snapshot_of_server
from servers.api.billing_schema import usage_of_server
from servers.api.receipts import LOOK_AGAIN, RECEIPT, body, told
from servers.api.serializers import CreateServer, PowerAction, RebuildServer, ResizeServer, UpdateServer


class CreateServerSchema(OpenApiSerializerExtension):
    """One plain object with the contract's required fields.

    The clients' dialect (``plan``, ``os_version``, ``ssh_keys``) is taken as well and described in words: a
    schema of both gives generated clients no model at all.
    """

    target_class = CreateServer

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        properties = {
            field: described
            for field, described in schema["properties"].items()
            if field not in {"plan", "os_version", "ssh_keys"}
        }
        del properties["backups_enabled"]["default"]  # generators of clients would require it
        properties["backups_enabled"]["description"] = "Automatic backups. False if left out."
        properties["hostname"] = {
            "type": "string",
            "maxLength": 253,
            "description": "A domain name such as web01.example.com. Empty or left out: the name.",
        }
        for source in ("backup_id", "snapshot_id"):
            properties[source]["description"] = "The disk is made from it. os_id may be left out then."
        return schema | {"properties": properties, "required": ["name", "plan_id", "os_id", "location"]}


class ResizeServerSchema(OpenApiSerializerExtension):
    target_class = ResizeServer

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return schema | {"properties": {"plan_id": schema["properties"]["plan_id"]}, "required": ["plan_id"]}


class LocationReferenceSchema(OpenApiSerializerFieldExtension):
    target_class = "servers.api.serializers.LocationReference"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": 32,
            "description": "A location's code, `us-west`.",
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


NEW_SERVER = OpenApiExample(
    "A new server",
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


UPDATE = {"name": "web-server-01", "hostname": "web01.example.com", "backups_enabled": False}


def _order(summary: str, description: str, request: Any = None, example: Any = None) -> Any:
    """An endpoint that orders something for a server."""
    shown = [OpenApiExample("On its way", ACTION_RESPONSE, response_only=True)]
    return extend_schema(
        summary=summary,
        description=description,
        parameters=RECEIPT,
        request=request,
        responses=ActionResponse,
        examples=[body(example), *shown] if example else shown,
    )


of_servers = extend_schema_view(
    list=extend_schema(
        summary="List servers",
        description="Newest first; without paging parameters at most 100.",
        filters=False,  # said here: the filter set would want a database
        parameters=[
            OpenApiParameter(
                "status",
                {"$ref": "#/components/schemas/ServerStatus"},
                description="Only servers in this status. Empty: all.",
            ),
            OpenApiParameter(
                "location",
                {"type": "string", "maxLength": 32},
                description="Only servers at this location, by its code, `us-west`. Empty: all.",
            ),
        ],
        responses=Server,
    ),
    create=extend_schema(
        summary="Create a server",
        description="A 201 means that host, memory, disk and addresses are the server's. Fields that the "
        "API does not know are ignored.\n\nWith `backup_id` or `snapshot_id`, and without `os_id`, the disk "
        "is made from a backup or a snapshot of the account; the plan needs its `minimum_storage`.\n\nThe "
        "provider's clients say the same in other words, and the API takes these as well: `plan` and "
        "`os_version` for `plan_id` and `os_id`, `ssh_keys` (a list) for `ssh_key_id`, an integer for "
        "`location`, and `hostname` without `name`. Ids may be uuids.",
        request=CreateServer,
        examples=[
            NEW_SERVER,
            OpenApiExample("A new server", CREATED, response_only=True, status_codes=["201"]),
        ],
        parameters=[told("Location", "The server.", 201), told("Retry-After", LOOK_AGAIN, 201)],
        responses={201: CreatedServer},
    ),
    retrieve=extend_schema(summary="Read a server", responses=ServerDetail),
    update=extend_schema(
        summary="Change a server",
        description="All three fields. A new hostname reaches the guest at its next boot.",
        request=UpdateServer,
        examples=[body(UPDATE), OpenApiExample("A server", DETAIL, response_only=True)],
        responses=ServerDetail,
    ),
    partial_update=extend_schema(
        summary="Change a part of a server",
        description="Any of the three fields. A new hostname reaches the guest at its next boot.",
        request=UpdateServer,
        examples=[body({"backups_enabled": True}), OpenApiExample("A server", DETAIL, response_only=True)],
        responses=ServerDetail,
    ),
    destroy=extend_schema(
        summary="Delete a server",
        description="For good, with its disk.",
        responses={204: None},
    ),
    start=_order("Start a server", "It must be stopped."),
    stop=_order("Stop a server", "Its guest shuts down; if it does not, its power is cut."),
    reboot=_order(
        "Reboot a server",
        "Its guest shuts down and is started again.",
    ),
    power=_order(
        "Start, stop, restart or hard stop",
        "As the provider's clients ask for it. `hard_stop` cuts the power at once.",
        PowerAction,
        {"action": "restart"},
    ),
    resize=_order(
        "Resize a server",
        "The server gets another plan: `plan_id`, or `plan` as the provider's clients call it. "
        "The disk may grow and never shrink.",
        ResizeServer,
        {"plan_id": 2},
    ),
    rebuild=_order(
        "Rebuild a server",
        "Install this system anew. The addresses stay; everything on the disk is lost.",
        RebuildServer,
        {"os_id": 5},
    ),
    operations=extend_schema(
        summary="List a server's operations",
        description="Its history, newest first.",
        filters=False,
        responses=Operation,
    ),
    usage=usage_of_server,
    backup=backup_of_server,
    snapshot=snapshot_of_server,
)
WAIT = OpenApiParameter(
    "wait",
    {"type": "integer", "minimum": 0, "maximum": 30, "default": 0},
    description="Hold the answer until the operation has ended, so many seconds at most.",
)
of_operations = extend_schema_view(
    retrieve=extend_schema(
        summary="Read an operation",
        description="Its progress, and why it failed.",
        parameters=[WAIT, told("Retry-After", "Only while it has not ended. " + LOOK_AGAIN, 200)],
        responses=Operation,
    )
)
