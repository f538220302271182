"""Validates requests: shapes and references, before a service is called.

A create is understood in two dialects: the documentation's (``name, plan_id,
os_id, location, ssh_key_id``) and the provider's own clients' (``hostname,
plan, os_version, location`` by integer, ``ssh_keys``).
"""

import re
from typing import Any

from django.db.models import Model, Q
from rest_framework import serializers

from accounts.models import SshKey
from backups.kinds import BackupKind
from backups.models import Backup
from core.api.fields import (
    RowReference,
    RowReferences,
    StrictBoolean,
    StrictSerializer,
    StrictString,
    Word,
)
from core.api.references import MAX_ID
from core.errors import NotFound
from inventory.offers import locations_on_offer
from plans.models import Location, OsVersion, Plan
from plans.selectors import versions_on_offer
from servers.selectors import BACKUPS, SNAPSHOTS, backups_of

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"(?!(?:.*\.)?(?:[0-9]+|[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt])$){LABEL}(?:\.{LABEL})*"
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
    """A domain name of RFC 1123: its last label is not a number, so no IPv4 address passes for a name."""

    def __init__(self, **kwargs: Any) -> None:
        sentence = "Should be a domain name such as web01.example.com, not an address and not localhost."
        super().__init__(HOSTNAME, sentence, max_length=253, **kwargs)


def _id_and_name(row: Plan | OsVersion) -> str:
    return f"{row.pk} ({row.name})"


class PlanReference(RowReference):
    def __init__(self, **kwargs: Any) -> None:
        on_sale = Plan.objects.filter(is_active=True)
        super().__init__(
            lambda context: on_sale.all(), "There is no such plan on sale.", show=_id_and_name, **kwargs
        )


class OsReference(RowReference):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            lambda context: versions_on_offer().select_related("image"),
            "This system is not on offer.",
            show=_id_and_name,
            **kwargs,
        )


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
            codes = ", ".join(locations_on_offer().values_list("code", flat=True)[:20])
            raise serializers.ValidationError(f"There is no such location. There are: {codes or 'none'}.")
        return found

    def to_representation(self, value: Location) -> str:
        return value.code


class SourceReference(RowReference):
    """A backup or a snapshot of the account.  Raises NotFound for somebody else's, as for nobody's."""

    def __init__(self, kinds: frozenset[BackupKind], **kwargs: Any) -> None:
        super().__init__(lambda context: backups_of(context["account"], kinds), "", **kwargs)
        self.what = "snapshot" if kinds == SNAPSHOTS else "backup"

    def to_internal_value(self, data: Any) -> Model:
        found: Model | None = self.rows(self.context).filter(self.named(data)).first()
        if found is None:
            raise NotFound(f"There is no such {self.what} in this account.")
        return found


class CreateServer(serializers.Serializer[Any]):
    name = ServerName(required=False)
    plan_id = PlanReference(required=False)
    os_id = OsReference(required=False)
    location = LocationReference()
    backup_id = SourceReference(BACKUPS, required=False)
    snapshot_id = SourceReference(SNAPSHOTS, required=False)
    hostname = Hostname(required=False, allow_blank=True)
    ssh_key_id = SshKeyReference(required=False, allow_null=True, default=None)
    backups_enabled = StrictBoolean(required=False, default=False)
    plan = PlanReference(required=False)
    os_version = OsReference(required=False)
    ssh_keys = RowReferences(child=SshKeyReference(), required=False, max_length=MAX_SSH_KEYS)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        said = set(getattr(self, "initial_data", None) or ())
        if said & {"plan", "os_version"}:
            required = {"plan", "os_version"} - {ALIASES.get(field, "") for field in said}
            required |= set() if "name" in said else {"hostname"}
        else:
            required = {"name", "plan_id", "os_id"}
        if said & {"backup_id", "snapshot_id"}:
            required -= {"os_id", "os_version"}
        for field in required:
            fields[field].required, fields[field].default = True, serializers.empty
        if "hostname" in required:  # it becomes the name
            fields["hostname"] = Hostname()
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of ``create_server``, whichever dialect was spoken."""
        _require_agreement(attrs, "plan_id", "plan")
        _require_agreement(attrs, "os_id", "os_version")
        plan: Plan = attrs["plan_id"] if "plan_id" in attrs else attrs["plan"]
        backup: Backup | None = attrs.get("backup_id") or attrs.get("snapshot_id")
        if "backup_id" in attrs and "snapshot_id" in attrs:
            _refuse_contradiction("backup_id", "snapshot_id")
        version: OsVersion | None = attrs.get("os_id") or attrs.get("os_version")
        if backup is not None and version not in {None, backup.os_version}:
            sentence = f"Should be left out, or be what the backup has: {backup.os_version_id}."
            raise serializers.ValidationError({"os_id" if "os_id" in attrs else "os_version": sentence})
        plan_field = "plan_id" if "plan_id" in attrs else "plan"
        if backup is None:
            assert version is not None  # noqa: S101  (one of the two is required)
            require_disk(plan.disk_gib, version, field=plan_field)
        elif plan.disk_gib < backup.disk_gib:
            raise serializers.ValidationError({plan_field: f"This needs {backup.disk_gib} GB of storage."})
        hostname: str = attrs.get("hostname", "")
        one, several = attrs["ssh_key_id"], attrs.get("ssh_keys", [])
        if one and several not in ([], [one]):
            _refuse_contradiction("ssh_key_id", "ssh_keys")
        return {
            # The clients send no name: the first label of the hostname is it.
            "name": attrs.get("name") or hostname.partition(".")[0],
            "plan": plan,
            "os_version": version if backup is None else backup.os_version,
            "location": attrs["location"],
            "hostname": hostname,
            "ssh_keys": [one] if one else several,
            "backups_enabled": attrs["backups_enabled"],
            "backup": backup,
        }


class UpdateServer(StrictSerializer):
    name = ServerName()
    hostname = Hostname()
    backups_enabled = StrictBoolean()

    def to_internal_value(self, data: Any) -> Any:
        fixed = [field for field in FIXED_AT_CREATION if field in data]
        if fixed:
            raise serializers.ValidationError({key: ["This cannot be changed here."] for key in fixed})
        return super().to_internal_value(data)


class PowerAction(StrictSerializer):
    action = Word(choices=["start", "stop", "restart", "hard_stop"])


class ResizeServer(StrictSerializer):
    plan = PlanReference(required=False)
    plan_id = PlanReference(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        _require_agreement(attrs, "plan_id", "plan")
        plan = attrs.get("plan") or attrs.get("plan_id")
        if plan is None:
            raise serializers.ValidationError({"plan": "This field is required."})
        return {"plan": plan}


class RebuildServer(StrictSerializer):
    os_id = OsReference()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        home = self.context["server"].home  # none: its status does not allow a rebuild, which is said later
        if home is not None:
            require_disk(home.disk_gib, attrs["os_id"], field="os_id")
        return {"os_version": attrs["os_id"]}


def require_disk(disk_gib: int, version: OsVersion, *, field: str) -> None:
    minimum_gib = version.image_to_start_from.minimum_disk_gib
    if disk_gib < minimum_gib:
        raise serializers.ValidationError({field: f"{version} needs {minimum_gib} GB of storage."})


def _require_agreement(attrs: dict[str, Any], ours: str, theirs: str) -> None:
    """Both dialects may name the same row; two different rows contradict each other."""
    if ours in attrs and theirs in attrs and attrs[ours] != attrs[theirs]:
        _refuse_contradiction(ours, theirs)


def _refuse_contradiction(ours: str, theirs: str) -> None:
    sentence = f"Should be the same as {theirs}, or one of the two should be left out."
    raise serializers.ValidationError({ours: sentence})
