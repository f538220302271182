from typing import Any

from rest_framework import serializers

from accounts import ssh_keys
from accounts.webhooks import addresses
from accounts.webhooks.events import ALL, SUBSCRIBABLE
from vpsorg.api.fields import StrictBoolean, StrictString


class NewSshKey(serializers.Serializer[Any]):
    name = StrictString(min_length=1, max_length=100)
    public_key = StrictString(min_length=1, max_length=ssh_keys.MAX_LENGTH)

    def validate_public_key(self, value: str) -> ssh_keys.PublicKey:
        try:
            return ssh_keys.parse(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None


class EventName(StrictString):
    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if name not in (ALL, *SUBSCRIBABLE):
            raise serializers.ValidationError(f"Should be {ALL} or one of {', '.join(SUBSCRIBABLE)}.")
        return name


class NewWebhook(serializers.Serializer[Any]):
    url = StrictString(min_length=1, max_length=addresses.MAX_LENGTH, trim_whitespace=False)
    events = serializers.ListField(child=EventName(), min_length=1, max_length=10, default=[ALL])

    def validate_url(self, value: str) -> str:
        try:
            addresses.parse(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None
        return value

    def validate_events(self, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))


class UpdateWebhook(NewWebhook):
    is_active = StrictBoolean()
