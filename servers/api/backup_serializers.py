"""Validates requests about backups and snapshots."""

from typing import Any

from rest_framework import serializers

from accounts.models import Account
from core.api.fields import StrictSerializer, StrictString
from core.api.references import MAX_ID
from core.errors import NotFound
from servers.api.serializers import PatternString
from servers.models import Server
from servers.selectors import one_server_of

SNAPSHOT_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DESCRIPTION_LENGTH = 255


class SnapshotName(PatternString):
    def __init__(self, **kwargs: Any) -> None:
        sentence = "Should be 1 to 63 letters, digits, hyphens and underscores, with no hyphen first or last."
        super().__init__(SNAPSHOT_NAME, sentence, max_length=63, **kwargs)


class Description(StrictString):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, allow_blank=True, max_length=DESCRIPTION_LENGTH, **kwargs)


class ServerReference(serializers.Field[Server, Any, Any, Any]):
    """A server of the account, by its integer id or its uuid.

    Raises NotFound for any other: the contract answers 404, and says so of nobody's as of somebody else's.
    """

    def to_internal_value(self, data: Any) -> Server:
        account: Account = self.context["account"]
        if type(data) is int and 1 <= data <= MAX_ID:
            return one_server_of(account, str(data))
        if isinstance(data, str) and len(data) == 36:
            return one_server_of(account, data)
        if type(data) is int:
            raise NotFound("There is no such server in this account.")
        raise serializers.ValidationError("Should be an integer id or a uuid.")

    def to_representation(self, value: Server) -> int:
        return int(value.pk)


class NewBackup(StrictSerializer):
    server_id = ServerReference()
    description = Description()


class NewSnapshot(StrictSerializer):
    server_id = ServerReference()
    name = SnapshotName()
    description = Description()


class SnapshotOfServer(StrictSerializer):
    """As the provider's clients send it."""

    label = StrictString(required=False, max_length=63)  # type: ignore[assignment]
