"""The endpoints of backups and of snapshots."""

from functools import cached_property
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.viewsets import GenericViewSet

from accounts.access.authentication import account_of
from accounts.access.idempotency import IdempotentPosts, require_made
from backups.kinds import BackupKind
from backups.models import Backup
from core.api.fields import NoFields
from servers import backup_services
from servers.api import backup_answers as answers
from servers.api.backup_schema import of_backups, of_snapshots
from servers.api.backup_serializers import NewBackup, NewSnapshot
from servers.api.filters import BackupFilter, SnapshotFilter
from servers.selectors import BACKUPS, SNAPSHOTS, backups_of, one_backup_of


class _CopyViewSet(IdempotentPosts, GenericViewSet[Backup]):
    """What the two have in common."""

    kinds: ClassVar[frozenset[BackupKind]]
    what: ClassVar[str]
    needs_credits = ("restore",)
    names_rows = ("create",)
    lookup_value_regex = "[^/]+"

    def told(self, row: Backup) -> answers.Backup | answers.Snapshot:
        return answers.snapshot(row) if row.kind == BackupKind.SNAPSHOT else answers.backup(row)

    def get_queryset(self) -> QuerySet[Backup]:
        return backups_of(account_of(self.request), self.kinds)

    def get_object(self) -> Backup:
        reference = self.kwargs[self.lookup_url_kwarg or ""]
        found = one_backup_of(account_of(self.request), reference, self.kinds)
        self.check_object_permissions(self.request, found)
        return found

    @cached_property
    def backup(self) -> Backup:
        return self.get_object()

    def list(self, request: Request) -> Response:
        page: Any = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response([self.told(row) for row in page])

    def retrieve(self, request: Request, **kwargs: str) -> Response:
        return Response(self.told(self.backup))

    def destroy(self, request: Request, **kwargs: str) -> Response:
        backup_services.delete_backup(backup=self.backup)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"], filterset_class=None)
    def restore(self, request: Request, **kwargs: str) -> Response:
        backup = self.backup  # whether it is there comes first
        NoFields(data=request.data).is_valid(raise_exception=True)
        operation = backup_services.restore_backup(backup=backup)
        headers = {"Location": reverse("operation-detail", args=[operation.pk]), "Retry-After": "2"}
        return Response(answers.restore(backup, operation.subject_server), headers=headers)

    def require_still_true(self, answer: dict[str, Any]) -> None:
        if self.action == "create":
            require_made(self.get_queryset(), answer, self.what)


@of_backups
class BackupViewSet(_CopyViewSet):
    resource = "backups"
    kinds, what = BACKUPS, "backup"
    query_parameters = {"list": frozenset({"server_id", "backup_type"})}
    filterset_class = BackupFilter
    lookup_url_kwarg = "backup_id"

    def create(self, request: Request) -> Response:
        asked = NewBackup(data=request.data, context={"account": account_of(request)})
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        return take_backup(given["server_id"], description=given.get("description", ""))


@of_snapshots
class SnapshotViewSet(_CopyViewSet):
    resource = "snapshots"
    kinds, what = SNAPSHOTS, "snapshot"
    query_parameters = {"list": frozenset({"server_id"})}
    filterset_class = SnapshotFilter
    lookup_url_kwarg = "snapshot_id"

    def create(self, request: Request) -> Response:
        asked = NewSnapshot(data=request.data, context={"account": account_of(request)})
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        return take_snapshot(given["server_id"], given["name"], given.get("description", ""))


def take_backup(server: Any, *, description: str = "") -> Response:
    """Order a manual backup, and answer with it."""
    backup = backup_services.take_backup(server=server, kind=BackupKind.MANUAL, description=description)
    return _taken(backup, "backup-detail", answers.created_backup(backup))


def take_snapshot(server: Any, name: str, description: str = "") -> Response:
    """Order a snapshot, and answer with it."""
    backup = backup_services.take_backup(
        server=server, kind=BackupKind.SNAPSHOT, name=name, description=description
    )
    return _taken(backup, "snapshot-detail", answers.created_snapshot(backup))


def _taken(backup: Backup, route: str, answer: Any) -> Response:
    headers = {"Location": reverse(route, args=[backup.pk]), "Retry-After": "5"}
    return Response(answer, status=status.HTTP_201_CREATED, headers=headers)
