"""Fields that take JSON's types at their word: "1" is no integer, 1 is no string, "yes" is no boolean."""

from typing import Any

from rest_framework import serializers

from vpsorg.api.references import MAX_ID


class StrictInteger(serializers.IntegerField):
    """An id: a whole JSON number that fits the column."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_value": 1, "max_value": MAX_ID} | kwargs)

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return super().to_internal_value(data)


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
