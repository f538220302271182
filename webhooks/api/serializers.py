from typing import Any

from rest_framework import serializers

from core.api.fields import BoundedList, StrictBoolean, StrictSerializer, StrictString
from webhooks import addresses
from webhooks.events import ALL, SUBSCRIBABLE


class EventName(StrictString):
    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if name not in (ALL, *SUBSCRIBABLE):
            raise serializers.ValidationError(f"Should be {ALL} or one of {', '.join(SUBSCRIBABLE)}.")
        return name


class NewWebhook(serializers.Serializer[Any]):
    url = StrictString(min_length=1, max_length=addresses.MAX_LENGTH, trim_whitespace=False)
    events = BoundedList(child=EventName(), min_length=1, max_length=10, required=False)

    def validate_url(self, value: str) -> str:
        try:
            addresses.parse(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None
        return value

    def validate_events(self, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))


class UpdateWebhook(StrictSerializer, NewWebhook):
    is_active = StrictBoolean()
