"""What staff see of backups.  They are made, restored and removed by orders (``servers.backup_services``)."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from core.admin import FilterByWord, ReadOnlyAdmin


class FilterByKind(FilterByWord):
    title = parameter_name = "kind"
    words = BackupKind


class FilterByStatus(FilterByWord):
    title = parameter_name = "status"
    words = BackupStatus


@admin.register(Backup)
class BackupAdmin(ReadOnlyAdmin[Backup]):
    list_display = [
        "id",
        "server_name",
        "server_id",
        "account",
        "kind",
        "name",
        "status",
        "size",
        "created_at",
        "verified_at",
        "verified_by",
        "expires_at",
        "message",
    ]
    list_filter = [FilterByStatus, FilterByKind, "location", "created_at"]
    list_select_related = ["account"]
    search_fields = ["server_name", "uuid", "server_uuid", "account__email"]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        found, is_double = super().get_search_results(request, queryset, search_term)
        if search_term.isascii() and search_term.isdigit() and len(search_term) < 19:
            found |= queryset.filter(server_id=int(search_term))
        return found, is_double

    @admin.display(description="MiB", ordering="size_bytes")
    def size(self, backup: Backup) -> int | None:
        """Without what is empty, before compression."""
        return None if backup.size_bytes is None else -(-backup.size_bytes // 2**20)
