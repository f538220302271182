"""Admin classes for what staff may look at and must not edit by hand."""

from enum import StrEnum
from typing import Any, TypeVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

M = TypeVar("M", bound=Model)
COUNTED = 10_000


class AtLeast(int):
    """A number that says of itself that there are more."""

    def __str__(self) -> str:
        return f"{int(self)}+"


class CappedPaginator(Paginator[M]):
    """Pages of the first COUNTED rows: to count millions takes longer than to read a page of them."""

    @cached_property
    def count(self) -> int:
        found: int = self.object_list.order_by()[: COUNTED + 1].count()  # type: ignore[attr-defined]
        return AtLeast(COUNTED) if found > COUNTED else found


class FilterByWord(admin.SimpleListFilter):
    """Offers the words that are known, where Django would look for them in every row."""

    words: type[StrEnum]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, word) for word in self.words]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ReadOnlyAdmin(admin.ModelAdmin[M]):
    """Rows that only services write, some of them for ever: staff may look, and use the actions."""

    paginator = CappedPaginator
    show_full_result_count = False

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
