"""Admin classes for what staff may look at and must not edit by hand."""

from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

M = TypeVar("M", bound=Model)


class ReadOnlyAdmin(admin.ModelAdmin[M]):
    """Rows that only services write: staff may look, and use the actions."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """What the list shows, then all the rest: the admin itself leaves out what no form edits."""
        names = dict.fromkeys([*map(str, self.list_display), *(field.name for field in self.opts.fields)])
        return [name for name in names if name not in (self.exclude or ())] if obj else []
