"""The contract's nine endpoints.  A view fetches, calls a service and answers."""

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.authentication import account_of, token_of
from servers import services
from servers.api import representations
from servers.api.filters import ServerFilter
from servers.api.serializers import CreateServer, UpdateServer
from servers.models import Server
from servers.selectors import one_server_of, servers_of
from servers.states import RULES, OperationKind


class ServerViewSet(GenericViewSet[Server]):
    resource = "servers"
    filterset_class = ServerFilter
    lookup_url_kwarg = "server_id"
    lookup_value_regex = "[^/]+"

    def get_queryset(self) -> QuerySet[Server]:
        return servers_of(account_of(self.request)).select_related("plan", "os_version", "location")

    def get_object(self) -> Server:
        server = one_server_of(account_of(self.request), self.kwargs["server_id"])
        self.check_object_permissions(self.request, server)
        return server

    def list(self, request: Request) -> Response:
        servers = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response([representations.list_item(server) for server in servers])

    def create(self, request: Request) -> Response:
        asked = CreateServer(data=request.data, context={"account": account_of(request)})
        asked.is_valid(raise_exception=True)
        server = services.create_server(
            account=account_of(request), requested_by=_who(request), **asked.validated_data
        )
        return Response(representations.created(server), status=status.HTTP_201_CREATED)

    def retrieve(self, request: Request, server_id: str) -> Response:
        return Response(representations.detail(self.get_object()))

    def update(self, request: Request, server_id: str, partial: bool = False) -> Response:
        server = self.get_object()
        asked = UpdateServer(data=request.data, partial=partial)
        asked.is_valid(raise_exception=True)
        return Response(representations.detail(services.update_server(server=server, **asked.validated_data)))

    def partial_update(self, request: Request, server_id: str) -> Response:
        return self.update(request, server_id, partial=True)

    def destroy(self, request: Request, server_id: str) -> Response:
        services.delete_server(server=self.get_object(), requested_by=_who(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"])
    def start(self, request: Request, server_id: str) -> Response:
        server = self.get_object()
        services.start_server(server=server, requested_by=_who(request))
        return _ordered(server, OperationKind.START)

    @action(detail=True, methods=["post"])
    def stop(self, request: Request, server_id: str) -> Response:
        server = self.get_object()
        services.stop_server(server=server, requested_by=_who(request))
        return _ordered(server, OperationKind.STOP)

    @action(detail=True, methods=["post"])
    def reboot(self, request: Request, server_id: str) -> Response:
        server = self.get_object()
        services.reboot_server(server=server, requested_by=_who(request))
        return _ordered(server, OperationKind.REBOOT)


def _ordered(server: Server, kind: OperationKind) -> Response:
    return Response(representations.action(server, RULES[kind].shows))


def _who(request: Request) -> str:
    return f"token {token_of(request).name}"
