"""Admin base classes: for rows that staff may edit, and for rows that they may only read."""

from enum import StrEnum
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import DataError, IntegrityError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property

from core.database import refusal_by_trigger

M = TypeVar("M", bound=Model)
COUNTED = 10_000


class AtLeast(int):
    """A count that was stopped early; shown with a plus: "10000+"."""

    def __str__(self) -> str:
        return f"{int(self)}+"


class CappedPaginator(Paginator[M]):
    """Counts at most COUNTED rows: counting millions takes longer than reading a page of them."""

    @cached_property
    def count(self) -> int:
        found: int = self.object_list.order_by()[: COUNTED + 1].count()  # type: ignore[attr-defined]
        return AtLeast(COUNTED) if found > COUNTED else found


class FilterByWord(admin.SimpleListFilter):
    """A filter whose choices are the members of an enum. Django would look for them in every row."""

    words: type[StrEnum]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, word) for word in self.words]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ForgivingChangeList(ChangeList):
    """A list whose address says what no row can have: the whole list is shown instead, with a warning."""

    def get_results(self, request: HttpRequest) -> None:
        try:
            super().get_results(request)
        except (ValueError, DataError) as error:  # such as a NUL, or a number that no column holds
            raise IncorrectLookupParameters(error) from error


class ListAdmin(admin.ModelAdmin[M]):
    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ForgivingChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[M], search_term: str
    ) -> tuple[QuerySet[M], bool]:
        """No row contains a NUL, and Postgres refuses it.  Fields that complete themselves ask here, too."""
        if "\0" in search_term:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)


class EditAdmin(ListAdmin[M]):
    """For rows that staff may edit.  A form writes the columns that were changed in it, and no other.

    Services write other columns of the same row at any time: claims, health, balances.  The row is locked
    while a form is judged, so what ``clean`` compares with is true when the form is saved.
    """

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> M | None:
        found = super().get_object(request, object_id, from_field)
        if found is None or request.method != "POST":
            return found
        # FOR NO KEY UPDATE does not block inserting a row that references this one.  A view is a transaction.
        return self.model._default_manager.select_for_update(no_key=True).filter(pk=found.pk).first()

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError as error:
            sentence = refusal_by_trigger(error)
            if sentence is None:
                raise
            self.message_user(request, sentence, messages.ERROR)
            return HttpResponseRedirect(request.path)

    def save_model(self, request: HttpRequest, obj: M, form: Any, change: bool) -> None:
        columns = {field.name for field in self.opts.concrete_fields}
        obj.save(update_fields=columns & set(form.changed_data) if change else None)


class ReadOnlyAdmin(ListAdmin[M]):
    """For rows that only services write: staff may read them and use the actions, not edit them."""

    paginator = CappedPaginator
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """All fields, those of the list first. Django's admin leaves out fields that no form can edit."""
        names = dict.fromkeys([*map(str, self.list_display), *(field.name for field in self.opts.fields)])
        return [name for name in names if name not in (self.exclude or ())] if obj else []
