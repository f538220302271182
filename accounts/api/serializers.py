from typing import Any

from rest_framework import serializers

from accounts import ssh_keys
from core.api.fields import StrictString


class NewSshKey(serializers.Serializer[Any]):
    name = StrictString(min_length=1, max_length=100)
    public_key = StrictString(min_length=1, max_length=ssh_keys.MAX_LENGTH)

    def validate_public_key(self, value: str) -> ssh_keys.PublicKey:
        try:
            return ssh_keys.parse(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None
