"""Fields that take JSON's types at their word: "1" is no integer, 1 is no string, "yes" is no boolean."""

from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import Model, Q, QuerySet
from rest_framework import serializers

from vpsorg.api.references import MAX_ID, NOTHING, named_by


class StrictString(serializers.CharField):
    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictBoolean(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class RowReference(serializers.Field[Any, Any, Any, Any]):
    """A row that exists, named by its integer id (the documentation) or its uuid (the provider's clients).

    ``rows`` is told the serializer's context: an account sees its own only.
    """

    default_error_messages = {"invalid": "Should be an integer id or a uuid.", "unknown": "{sentence}"}

    def __init__(
        self, rows: Callable[[Mapping[str, Any]], QuerySet[Any]], unknown: str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rows, self.unknown = rows, unknown

    def to_internal_value(self, data: Any) -> Model:
        found = self.rows(self.context).filter(self._named(data)).first()
        if found is None:
            self.fail("unknown", sentence=self.unknown)
        return found  # type: ignore[no-any-return]

    def to_representation(self, value: Any) -> Any:
        return value.pk

    def _named(self, data: Any) -> Q:
        if type(data) is int:
            return Q(pk=data) if 1 <= data <= MAX_ID else NOTHING
        if not isinstance(data, str) or len(data) != 36:
            self.fail("invalid")
        return named_by(data)
