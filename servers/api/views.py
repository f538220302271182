"""The contract's nine endpoints, and those that the provider's clients need besides.

A view fetches, calls a service and answers.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.serializers import Serializer
from rest_framework.viewsets import GenericViewSet

from accounts.access.authentication import account_of
from accounts.access.idempotency import IdempotentPosts, require_made
from accounts.access.permissions import require_permission
from backups.kinds import BackupKind
from core import clock
from core.api.fields import NoFields, ignored_fields
from servers import services
from servers.api import answers, billing
from servers.api.backup_serializers import SnapshotOfServer
from servers.api.backups import take_backup, take_snapshot
from servers.api.filters import RowFilters, ServerFilter
from servers.api.schema import of_servers
from servers.api.serializers import (
    CreateServer,
    PowerAction,
    RebuildServer,
    ResizeServer,
    UpdateServer,
)
from servers.models import Operation, Server
from servers.rows import one_row_of, rows_of
from servers.selectors import BACKUPS, SNAPSHOTS, backups_of, one_server_of, servers_of
from servers.states import RULES, OperationKind

POWER_ACTIONS = {
    "start": services.start_server,
    "stop": services.stop_server,
    "restart": services.reboot_server,
    "hard_stop": services.hard_stop_server,
}


@of_servers
class ServerViewSet(IdempotentPosts, GenericViewSet[Server]):
    resource = "servers"
    query_parameters = {"list": frozenset({"status", "location"})}
    list_actions = ("operations",)
    needs_credits = (
        "create",
        "update",
        "partial_update",
        "start",
        "reboot",
        "power",
        "resize",
        "rebuild",
    )
    names_rows = ("create",)
    makes_rows = ("backup", "snapshot")
    resources = {"backup": "backups", "snapshot": "snapshots"}
    filter_backends = [RowFilters]
    filterset_class = ServerFilter
    lookup_url_kwarg = "server_id"
    lookup_value_regex = "[^/]+"

    def get_object(self) -> Server:
        server = one_server_of(account_of(self.request), self.kwargs["server_id"])
        self.check_object_permissions(self.request, server)
        return server

    @cached_property
    def server(self) -> Server:
        return self.get_object()

    def require_still_true(self, answer: dict[str, Any]) -> None:
        account = account_of(self.request)
        if self.action == "create":
            require_made(servers_of(account), answer, "server")
        if self.action == "backup":
            require_made(backups_of(account, BACKUPS), answer, "backup")
        if self.action == "snapshot":
            require_made(backups_of(account, SNAPSHOTS), answer, "snapshot")

    def list(self, request: Request) -> Response:
        rows: Any = rows_of(account_of(request))
        page: list[Any] = self.paginate_queryset(self.filter_queryset(rows)) or []
        return self.get_paginated_response([answers.server(row) for row in page])

    def create(self, request: Request) -> Response:
        asked = CreateServer(data=request.data, context={"account": account_of(request)})
        asked.is_valid(raise_exception=True)
        if (source := asked.validated_data["backup"]) is not None:  # the new server shows what is in it
            what = "snapshots" if source.kind == BackupKind.SNAPSHOT else "backups"
            require_permission(request, f"{what}:read")
        server = services.create_server(account=account_of(request), **asked.validated_data)
        headers = {"Location": reverse("server-detail", args=[server.pk]), "Retry-After": "2"}
        headers |= ignored_fields(asked)
        row, *_ = one_row_of(account_of(request), str(server.pk))
        return Response(answers.created_server(row), status=status.HTTP_201_CREATED, headers=headers)

    def retrieve(self, request: Request, server_id: str) -> Response:
        row, guest, usage = one_row_of(account_of(request), server_id)
        self.check_object_permissions(request, row)
        return Response(answers.server_detail(row, guest, usage))

    def update(self, request: Request, server_id: str, partial: bool = False) -> Response:
        server = self.get_object()
        asked = UpdateServer(data=request.data, partial=partial)
        asked.is_valid(raise_exception=True)
        services.update_server(server=server, **asked.validated_data)
        return self.retrieve(request, server_id)

    def partial_update(self, request: Request, server_id: str) -> Response:
        return self.update(request, server_id, partial=True)

    def destroy(self, request: Request, server_id: str) -> Response:
        services.delete_server(server=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"])
    def start(self, request: Request, server_id: str) -> Response:
        return self._order(services.start_server, **self._read(NoFields))

    @action(detail=True, methods=["post"])
    def stop(self, request: Request, server_id: str) -> Response:
        return self._order(services.stop_server, **self._read(NoFields))

    @action(detail=True, methods=["post"])
    def reboot(self, request: Request, server_id: str) -> Response:
        return self._order(services.reboot_server, **self._read(NoFields))

    @action(detail=True, methods=["post"])
    def power(self, request: Request, server_id: str) -> Response:
        """The provider's clients: start, stop, restart and hard_stop by one path."""
        asked = self._read(PowerAction)
        return self._order(POWER_ACTIONS[asked["action"]])

    @action(detail=True, methods=["post"])
    def resize(self, request: Request, server_id: str) -> Response:
        return self._order(services.resize_server, **self._read(ResizeServer))

    @action(detail=True, methods=["post"])
    def rebuild(self, request: Request, server_id: str) -> Response:
        return self._order(services.rebuild_server, **self._read(RebuildServer))

    @action(detail=True, methods=["post"])
    def backup(self, request: Request, server_id: str) -> Response:
        """The provider's clients: a manual backup."""
        self._read(NoFields)
        return take_backup(self.server)

    @action(detail=True, methods=["post"])
    def snapshot(self, request: Request, server_id: str) -> Response:
        """The provider's clients: a snapshot, with a label or without."""
        asked = self._read(SnapshotOfServer)
        name = asked.get("label") or f"{clock.now():snapshot-%Y%m%d-%H%M%S}"
        return take_snapshot(self.server, name)

    @action(detail=True, methods=["get"], filterset_class=None)
    def operations(self, request: Request, server_id: str) -> Response:
        history: Any = self.server.operations.order_by("-pk")
        page: list[Any] = self.paginate_queryset(history) or []
        return self.get_paginated_response([answers.operation(operation) for operation in page])

    @action(detail=True, methods=["get"], filterset_class=None)
    def usage(self, request: Request, server_id: str) -> Response:
        return Response(billing.usage_of(self.server))

    def _read(self, serializer: type[Serializer[Any]]) -> dict[str, Any]:
        asked = serializer(data=self.request.data, context={"server": self.server})
        asked.is_valid(raise_exception=True)
        return dict(asked.validated_data)

    def _order(self, service: Callable[..., Operation], **wanted: Any) -> Response:
        """Order it.  Answers the server's new status and where to follow the operation."""
        operation = service(server=self.server, **wanted)
        shows = RULES[OperationKind(operation.kind)].shows
        return Response(answers.action_response(self.server, shows), headers=_receipt(operation))


def _receipt(operation: Operation) -> dict[str, str]:
    return {"Location": reverse("operation-detail", args=[operation.pk]), "Retry-After": "2"}
