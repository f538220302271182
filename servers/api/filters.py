"""``?status=`` and ``?location=`` of a list.  An unknown word is a 400 that lists the words there are."""

from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django_filters.fields import ChoiceField
from django_filters.rest_framework import DjangoFilterBackend
from django_filters.utils import translate_validation
from rest_framework.request import Request

from backups.models import Backup
from core.api.references import MAX_ID
from plans.models import Location
from servers.models import Server
from servers.rows import ServerRows
from servers.selectors import BACKUPS
from servers.states import PUBLIC_STATUSES


class _OneOf(ChoiceField):  # type: ignore[misc]
    def validate(self, value: Any) -> None:
        if value and not self.valid_value(value):
            words = ", ".join(word for word, _ in self.choices if word)
            raise ValidationError(f"Should be one of: {words or 'nothing, for there is none'}.")


class _IdField(forms.IntegerField):
    default_error_messages = {"invalid": "Should be a server's id, a whole number."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_ID, **kwargs)


class OneOf(django_filters.ChoiceFilter):  # type: ignore[misc]
    """Takes one of a few words; the refusal of another word lists them."""

    field_class = _OneOf


def _location_codes() -> list[tuple[str, str]]:
    return [(code, code) for code in Location.objects.values_list("code", flat=True)]


class ServerFilter(django_filters.FilterSet):  # type: ignore[misc]
    status = OneOf(choices=[(word.value, word.value) for word in PUBLIC_STATUSES])
    location = OneOf(field_name="location__code", choices=_location_codes)

    class Meta:
        model = Server
        fields: list[Any] = []


class _Id(django_filters.NumberFilter):  # type: ignore[misc]
    """A number that a column of ids can hold."""

    field_class = _IdField


class SnapshotFilter(django_filters.FilterSet):  # type: ignore[misc]
    server_id = _Id()

    class Meta:
        model = Backup
        fields: list[Any] = []


class BackupFilter(SnapshotFilter):
    backup_type = OneOf(field_name="kind", choices=[(word.value, word.value) for word in sorted(BACKUPS)])


class RowFilters(DjangoFilterBackend):  # type: ignore[misc]
    """The filter set judges the words, when there are any; the rows narrow themselves."""

    def filter_queryset(self, request: Request, queryset: ServerRows, view: Any) -> ServerRows:
        if ServerFilter.base_filters.keys().isdisjoint(request.query_params):
            return queryset
        asked = ServerFilter(request.query_params, request=request)
        if not asked.is_valid():
            raise translate_validation(asked.errors)
        return queryset.filter(**asked.form.cleaned_data)
