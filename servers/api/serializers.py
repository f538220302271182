"""What comes in: shapes and references, checked before anything is asked of a service."""

import re
from typing import Any, TypeVar

from rest_framework import serializers

from accounts.models import SshKey
from plans.models import Location, OsVersion, Plan
from vpsorg.api.fields import StrictBoolean, StrictInteger, StrictString

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
NAME = re.compile(rf"{LABEL}\Z", re.ASCII)
HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(?:\.{LABEL})*\Z", re.ASCII)
T = TypeVar("T")
FIXED_AT_CREATION = ("plan_id", "os_id", "location")


class PatternString(StrictString):
    """A string that matches a pattern as a whole, or the sentence that says what it should be."""

    def __init__(self, pattern: re.Pattern[str], sentence: str, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.pattern, self.sentence = pattern, sentence

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not self.pattern.match(value):
            raise serializers.ValidationError(self.sentence)
        return value


class ServerName(PatternString):
    def __init__(self, **kwargs: Any) -> None:
        sentence = "Should be 1 to 63 letters, digits and hyphens, with no hyphen first or last."
        super().__init__(NAME, sentence, **kwargs)


class Hostname(PatternString):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(HOSTNAME, "Should be a domain name such as web01.example.com.", **kwargs)


class CreateServer(serializers.Serializer[Any]):
    name = ServerName()
    plan_id = StrictInteger()
    os_id = StrictInteger()
    location = StrictString(max_length=32)
    hostname = Hostname(required=False, allow_blank=True, default="")
    ssh_key_id = StrictInteger(required=False, allow_null=True, default=None)
    backups_enabled = StrictBoolean(required=False, default=False)

    def validate_plan_id(self, value: int) -> Plan:
        plan = Plan.objects.filter(pk=value, is_active=True).first()
        return _known(plan, "There is no such plan on sale.")

    def validate_os_id(self, value: int) -> OsVersion:
        version = OsVersion.objects.filter(pk=value).first()
        return _known(version if version and version.is_on_offer else None, "This system is not on offer.")

    def validate_location(self, value: str) -> Location:
        location = Location.objects.filter(code=value, is_active=True).first()
        return _known(location, "There is no such location.")

    def validate_ssh_key_id(self, value: int | None) -> list[SshKey]:
        if value is None:
            return []
        key = SshKey.objects.filter(pk=value, account=self.context["account"]).first()
        return [_known(key, "There is no such SSH key in this account.")]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        plan, version = attrs["plan_id"], attrs["os_id"]
        if plan.disk_gib < version.min_disk_gib:
            raise serializers.ValidationError(
                {"plan_id": f"{version.name} needs {version.min_disk_gib} GB of storage."}
            )
        return {
            "name": attrs["name"],
            "plan": plan,
            "os_version": version,
            "location": attrs["location"],
            "hostname": attrs["hostname"],
            "ssh_keys": attrs["ssh_key_id"] or [],
            "backups_enabled": attrs["backups_enabled"],
        }


class UpdateServer(serializers.Serializer[Any]):
    name = ServerName()
    hostname = Hostname()
    backups_enabled = StrictBoolean()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        fixed = [field for field in FIXED_AT_CREATION if field in self.initial_data]
        if fixed:
            raise serializers.ValidationError(dict.fromkeys(fixed, "This cannot be changed here."))
        return attrs


def _known(found: T | None, sentence: str) -> T:
    if found is None:
        raise serializers.ValidationError(sentence)
    return found
