"""What comes in: shapes and references, checked before anything is asked of a service.

A create is understood in two dialects: the documentation's (``name, plan_id,
os_id, location, ssh_key_id``) and the provider's own clients' (``hostname,
plan, os_version, location`` by integer, ``ssh_keys``).
"""

import re
from typing import Any

from django.db.models import Q
from rest_framework import serializers

from accounts.models import SshKey
from plans.models import Location, OsVersion, Plan
from plans.selectors import versions_on_offer
from vpsorg.api.fields import RowReference, StrictBoolean, StrictString
from vpsorg.api.references import MAX_ID

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"{LABEL}(?:\.{LABEL})*"
FIXED_AT_CREATION = ("plan_id", "os_id", "location")
ALIASES = {"plan_id": "plan", "os_id": "os_version"}
MAX_SSH_KEYS = 20


class PatternString(StrictString):
    """A string that matches a pattern as a whole, or the sentence that says what it should be."""

    def __init__(self, pattern: str, sentence: str, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.pattern, self.sentence = pattern, sentence

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not re.fullmatch(self.pattern, value):
            raise serializers.ValidationError(self.sentence)
        return value


class ServerName(PatternString):
    def __init__(self, **kwargs: Any) -> None:
        sentence = "Should be 1 to 63 letters, digits and hyphens, with no hyphen first or last."
        super().__init__(LABEL, sentence, max_length=63, **kwargs)


class Hostname(PatternString):
    def __init__(self, **kwargs: Any) -> None:
        sentence = "Should be a domain name such as web01.example.com."
        super().__init__(HOSTNAME, sentence, max_length=253, **kwargs)


class PlanReference(RowReference):
    def __init__(self, **kwargs: Any) -> None:
        on_sale = Plan.objects.filter(is_active=True)
        super().__init__(lambda context: on_sale.all(), "There is no such plan on sale.", **kwargs)


class OsReference(RowReference):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(lambda context: versions_on_offer(), "This system is not on offer.", **kwargs)


class SshKeyReference(RowReference):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            lambda context: SshKey.objects.filter(account=context["account"]),
            "There is no such SSH key in this account.",
            **kwargs,
        )


class LocationReference(serializers.Field[Location, Any, Any, Any]):
    """A location by its code, or by the integer that the provider's clients send."""

    def to_internal_value(self, data: Any) -> Location:
        if isinstance(data, str) and "\0" not in data and len(data) <= 32:
            named = Q(code=data)
        elif type(data) is int and 1 <= data <= MAX_ID:
            named = Q(pk=data)
        else:
            raise serializers.ValidationError("Should be a location's code, such as us-west.")
        found = Location.objects.filter(named, is_active=True).first()
        if found is None:
            raise serializers.ValidationError("There is no such location.")
        return found

    def to_representation(self, value: Location) -> str:
        return value.code


class CreateServer(serializers.Serializer[Any]):
    name = ServerName(required=False)
    plan_id = PlanReference(required=False)
    os_id = OsReference(required=False)
    location = LocationReference()
    hostname = Hostname(required=False, allow_blank=True)
    ssh_key_id = SshKeyReference(required=False, allow_null=True, default=None)
    backups_enabled = StrictBoolean(required=False, default=False)
    plan = PlanReference(required=False)
    os_version = OsReference(required=False)
    ssh_keys = serializers.ListField(child=SshKeyReference(), required=False, max_length=MAX_SSH_KEYS)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        said = set(getattr(self, "initial_data", None) or ())
        if said & {"plan", "os_version"}:
            required = {"plan", "os_version"} - {ALIASES.get(field, "") for field in said}
            required |= set() if "name" in said else {"hostname"}
        else:
            required = {"name", "plan_id", "os_id"}
        for field in required:
            fields[field].required, fields[field].default = True, serializers.empty
        if "hostname" in required:  # it becomes the name
            fields["hostname"] = Hostname()
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of ``create_server``, whichever dialect was spoken."""
        plan: Plan = attrs["plan_id"] if "plan_id" in attrs else attrs["plan"]
        version: OsVersion = attrs["os_id"] if "os_id" in attrs else attrs["os_version"]
        require_disk(plan, version, field="plan_id" if "plan_id" in attrs else "plan")
        hostname: str = attrs.get("hostname", "")
        keys = [attrs["ssh_key_id"]] if attrs["ssh_key_id"] else attrs.get("ssh_keys", [])
        return {
            # The clients send no name: the first label of the hostname is it.
            "name": attrs.get("name") or hostname.partition(".")[0],
            "plan": plan,
            "os_version": version,
            "location": attrs["location"],
            "hostname": hostname,
            "ssh_keys": list(dict.fromkeys(keys)),
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


class PowerAction(serializers.Serializer[Any]):
    action = serializers.ChoiceField(choices=["start", "stop", "restart", "hard_stop"])


class ResizeServer(serializers.Serializer[Any]):
    plan = PlanReference(required=False)
    plan_id = PlanReference(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        plan = attrs.get("plan") or attrs.get("plan_id")
        if plan is None:
            raise serializers.ValidationError({"plan": "This field is required."})
        return {"plan": plan}


class RebuildServer(serializers.Serializer[Any]):
    os_id = OsReference()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        require_disk(self.context["plan"], attrs["os_id"], field="os_id")
        return {"os_version": attrs["os_id"]}


def require_disk(plan: Plan, version: OsVersion, *, field: str) -> None:
    if plan.disk_gib < version.min_disk_gib:
        raise serializers.ValidationError({field: f"{version} needs {version.min_disk_gib} GB of storage."})
