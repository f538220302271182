"""Publishes the endpoints of backups and snapshots."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view

from core.api.references import MAX_ID
from servers.api.backup_answers import (
    NEW_BACKUP,
    NEW_SNAPSHOT,
    RESTORING,
    RESTORING_BACKUP,
    Backup,
    CreatedBackup,
    CreatedSnapshot,
    RestoreOfBackup,
    RestoreOfSnapshot,
    Snapshot,
)
from servers.api.backup_serializers import NewBackup, NewSnapshot, SnapshotOfServer
from servers.api.receipts import LOOK_AGAIN, RECEIPT, body, told

WHICH_SERVER = OpenApiParameter(
    "server_id",
    {"type": "integer", "minimum": 1, "maximum": MAX_ID},
    description="Only those of this server; also of one that was deleted.",
)
WHICH_TYPE = OpenApiParameter(
    "backup_type",
    {"type": "string", "enum": ["automatic", "manual"]},
    description="Only those of this type. Empty: both.",
)
MADE = [told("Retry-After", LOOK_AGAIN, 201)]
TAKEN = (
    "The server goes on meanwhile, and orders about it are not held up. If its guest agent runs, the file "
    "systems are held still for less than a second. A backup that could not be made shows so in its status."
)
RESTORED = (
    "The disk of its server is replaced; what was written since is lost. The addresses stay. A restore that "
    "fails leaves the server as it was. Of a server that was deleted, make a new one: `POST /servers/`."
)


class ServerReferenceSchema(OpenApiSerializerFieldExtension):
    target_class = "servers.api.backup_serializers.ServerReference"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {"type": "integer", "minimum": 1, "maximum": MAX_ID, "description": "A server's id or uuid."}


of_backups = extend_schema_view(
    list=extend_schema(
        summary="List backups",
        description="Newest first; of deleted servers, too. One that failed is listed with its reason.",
        filters=False,
        parameters=[WHICH_SERVER, WHICH_TYPE],
        responses=Backup,
    ),
    create=extend_schema(
        summary="Back a server up",
        description="A manual backup, kept until it is deleted. " + TAKEN,
        request=NewBackup,
        parameters=[told("Location", "The backup.", 201), *MADE],
        responses={201: CreatedBackup},
        examples=[
            body({"server_id": 12345, "description": "before the upgrade"}),
            OpenApiExample("A new backup", NEW_BACKUP, response_only=True, status_codes=["201"]),
        ],
    ),
    retrieve=extend_schema(summary="Read a backup", responses=Backup),
    destroy=extend_schema(
        summary="Delete a backup", description="For good. No other backup needs it.", responses={204: None}
    ),
    restore=extend_schema(
        summary="Restore a backup",
        description=RESTORED,
        parameters=RECEIPT,
        request=None,
        responses=RestoreOfBackup,
        examples=[OpenApiExample("On its way", RESTORING_BACKUP, response_only=True)],
    ),
)
of_snapshots = extend_schema_view(
    list=extend_schema(
        summary="List snapshots",
        description="Newest first; of deleted servers, too.",
        filters=False,
        parameters=[WHICH_SERVER],
        responses=Snapshot,
    ),
    create=extend_schema(
        summary="Take a snapshot",
        description="A copy of the server's disk, kept until it is deleted. " + TAKEN,
        request=NewSnapshot,
        parameters=[told("Location", "The snapshot.", 201), *MADE],
        responses={201: CreatedSnapshot},
        examples=[
            body({"server_id": 12345, "name": "pre-migration-snapshot"}),
            OpenApiExample("A new snapshot", NEW_SNAPSHOT, response_only=True, status_codes=["201"]),
        ],
    ),
    retrieve=extend_schema(summary="Read a snapshot", responses=Snapshot),
    destroy=extend_schema(
        summary="Delete a snapshot", description="For good. No other one needs it.", responses={204: None}
    ),
    restore=extend_schema(
        summary="Restore a snapshot",
        description=RESTORED,
        parameters=RECEIPT,
        request=None,
        responses=RestoreOfSnapshot,
        examples=[OpenApiExample("On its way", RESTORING, response_only=True)],
    ),
)
backup_of_server = extend_schema(
    summary="Back a server up, as the provider's clients ask for it",
    description="The same as `POST /backups/`.",
    request=None,
    parameters=[told("Location", "The backup.", 201), *MADE],
    responses={201: CreatedBackup},
)
snapshot_of_server = extend_schema(
    summary="Take a snapshot, as the provider's clients ask for it",
    description="The same as `POST /snapshots/`. Without a `label` it is named after the time.",
    request=SnapshotOfServer,
    parameters=[told("Location", "The snapshot.", 201), *MADE],
    responses={201: CreatedSnapshot},
    examples=[
        body({"label": "pre-migration-snapshot"}),
        OpenApiExample("A new snapshot", NEW_SNAPSHOT, response_only=True, status_codes=["201"]),
    ],
)
