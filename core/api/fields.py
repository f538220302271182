"""Fields of requests: JSON's types at their word, lengths before contents, and sentences in one voice.

"1" is no integer, 1 is no string, "yes" is no boolean.  A sentence says what the value should be.
"""

from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import Model, Q, QuerySet
from rest_framework import serializers

from core.api.references import MAX_ID, NOTHING, named_by

NOT_NULL: dict[str, Any] = {"null": "Should not be null."}


class StrictString(serializers.CharField):
    default_error_messages = NOT_NULL | {
        "invalid": "Should be a string.",
        "blank": "Should not be empty.",
        "max_length": "Should have at most {max_length} characters.",
        "min_length": "Should have at least {min_length} characters.",
    }

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictBoolean(serializers.BooleanField):
    default_error_messages = NOT_NULL | {"invalid": "Should be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Word(serializers.ChoiceField):
    """One of a few words."""

    default_error_messages = NOT_NULL | {"invalid_choice": "Should be one of: {words}."}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or data not in self.choice_strings_to_values:
            self.fail("invalid_choice", words=", ".join(map(str, self.choices)))
        return self.choice_strings_to_values[data]


class BoundedList(serializers.ListField):
    """A list whose length is judged before its items: a long list costs no look-up."""

    default_error_messages = NOT_NULL | {
        "not_a_list": "Should be a list.",
        "too_many": "Should have at most {max_length} items.",
        "too_few": "Should have at least {min_length} items.",
    }

    def __init__(self, *, max_length: int, min_length: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.longest, self.shortest = max_length, min_length

    def to_internal_value(self, data: Any) -> list[Any]:
        return super().to_internal_value(self.bounded(data))

    def bounded(self, data: Any) -> list[Any]:
        """The list, if it is one and its length is allowed."""
        if not isinstance(data, list):
            self.fail("not_a_list")
        if len(data) > self.longest:
            self.fail("too_many", max_length=self.longest)
        if len(data) < self.shortest:
            self.fail("too_few", min_length=self.shortest)
        return data


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know, and names those that it knows."""

    def to_internal_value(self, data: Any) -> Any:
        known = ", ".join(self.fields) or "none"
        unknown = [field for field in data if field not in self.fields]
        if unknown:
            sentence = f"There is no such field. The fields are: {known}."
            raise serializers.ValidationError({key: [sentence] for key in unknown})
        return super().to_internal_value(data)


class NoFields(StrictSerializer):
    """An action without fields.  A field in its body is refused: it would be ignored."""


def ignored_fields(serializer: serializers.Serializer[Any]) -> dict[str, str]:
    """The header that names the fields of a create which the API does not know and so has ignored."""
    names = [name for name in serializer.initial_data if name not in serializer.fields]
    shown = ", ".join(name for name in names if name.isascii() and name.isprintable())[:500]
    return {"Ignored-Fields": shown} if shown else {}


class RowReference(serializers.Field[Any, Any, Any, Any]):
    """A row that exists, named by its integer id (the documentation) or its uuid (the provider's clients).

    ``rows`` is told the serializer's context, so that an account sees only its own rows.  With ``show``, the
    refusal of a row that is not there lists those that are.
    """

    SHOWN = 20

    default_error_messages = NOT_NULL | {
        "invalid": "Should be an integer id or a uuid.",
        "unknown": "{sentence}",
    }

    def __init__(
        self,
        rows: Callable[[Mapping[str, Any]], QuerySet[Any]],
        unknown: str,
        show: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows, self._unknown, self._show = rows, unknown, show

    @property
    def unknown(self) -> str:
        """The sentence for a row that is not there."""
        if self._show is None:
            return self._unknown
        there = [self._show(row) for row in self.rows(self.context).order_by("pk")[: self.SHOWN]]
        return f"{self._unknown} There are: {', '.join(there) or 'none'}."

    def to_internal_value(self, data: Any) -> Model:
        found = self.rows(self.context).filter(self.named(data)).first()
        if found is None:
            self.fail("unknown", sentence=self.unknown)
        return found  # type: ignore[no-any-return]

    def to_representation(self, value: Any) -> Any:
        return value.pk

    def named(self, data: Any) -> Q:
        """The condition that a value names.  Refuses a value that is neither an integer nor a uuid."""
        if type(data) is int:
            return Q(pk=data) if 1 <= data <= MAX_ID else NOTHING
        if not isinstance(data, str) or len(data) != 36:
            self.fail("invalid")
        return named_by(data)


class RowReferences(BoundedList):
    """A list of references, looked up by one query.  A row that is named twice is there once."""

    child: RowReference

    def to_internal_value(self, data: Any) -> list[Model]:
        named, wrong = NOTHING, dict[Any, Any]()
        for number, value in enumerate(self.bounded(data)):
            try:
                named |= self.child.named(value)
            except serializers.ValidationError as error:
                wrong[number] = error.detail
        rows = self.child.rows(self.context).filter(named) if data else ()
        found = {name: row for row in rows for name in (row.pk, str(row.uuid))}
        keys = [value.lower() if isinstance(value, str) else value for value in data]
        for number, key in enumerate(keys):
            if number not in wrong and key not in found:
                wrong[number] = [self.child.unknown]
        if wrong:
            raise serializers.ValidationError(dict(sorted(wrong.items())))
        return list(dict.fromkeys(found[key] for key in keys))
