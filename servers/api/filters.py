"""``?status=`` and ``?location=`` of a list.  An unknown word is a 400 with the field named."""

from typing import Any

import django_filters

from plans.models import Location
from servers.models import Server
from servers.states import PUBLIC_STATUSES


def _location_codes() -> list[tuple[str, str]]:
    return [(code, code) for code in Location.objects.values_list("code", flat=True)]


class ServerFilter(django_filters.FilterSet):  # type: ignore[misc]
    status = django_filters.ChoiceFilter(choices=[(word.value, word.value) for word in PUBLIC_STATUSES])
    location = django_filters.ChoiceFilter(field_name="location__code", choices=_location_codes)

    class Meta:
        model = Server
        fields: list[Any] = []
