"""Which copies of a server's disk may be taken, and which may be restored."""

from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from accounts.models import Account
from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from backups.selectors import whole_automatic_backups
from backups.services import is_available
from core.errors import Refusal
from plans.models import Location
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, BackupOperationKind, OperationKind

LIMITS = {BackupKind.MANUAL: "VPS_MAX_MANUAL_BACKUPS", BackupKind.SNAPSHOT: "VPS_MAX_SNAPSHOTS"}
WORDS = {BackupKind.MANUAL: "manual backups", BackupKind.SNAPSHOT: "snapshots"}


def require_available(location: Location, *, field: str | None = None) -> None:
    """Refuse what needs backups where none can be taken."""
    if not is_available():
        raise Refusal(
            f"Backups are not available in {location.code}.", code="backups_unavailable", field=field
        )


def has_automatic_backup(server: Server) -> bool:
    """Whether there is a whole one: from the first on they cost something, as long as they are enabled."""
    return whole_automatic_backups(server.pk).exists()


def unread_backups(since: timedelta) -> QuerySet[Backup]:
    """The last whole backup of each server, if it was not read for so long; longest unread first."""
    return newest_whole().filter(verified_at__lt=Now() - since).order_by("verified_at")


def sample_to_boot(location: Location) -> QuerySet[Backup]:
    """The last whole backup of each server there whose guest agent answered when it was taken, shuffled."""
    frozen = newest_whole().filter(location=location, was_running=True, is_consistent=True, damage="")
    return frozen.order_by("?")


def boots_since(location: Location, since: timedelta) -> QuerySet[Operation]:
    """The trials of backups of this location that were ordered lately."""
    boots = Operation.objects.filter(kind=BackupOperationKind.BOOT, backup__location=location)
    return boots.filter(created_at__gt=Now() - since)


def newest_whole() -> QuerySet[Backup]:
    """The last whole backup of each server, unless an operation is under way about it."""
    newer = Backup.objects.filter(
        server_id=OuterRef("server_id"), status=BackupStatus.COMPLETED, pk__gt=OuterRef("pk")
    )
    at_work = Operation.objects.filter(backup=OuterRef("pk"), status__in=OPEN_OPERATION)
    return Backup.objects.filter(~Exists(newer), ~Exists(at_work), status=BackupStatus.COMPLETED)


def readers_of(backup: Backup) -> QuerySet[Operation]:
    """The open operations that make a disk from a copy."""
    return Operation.objects.filter(
        kind__in=[OperationKind.CREATE, OperationKind.RESTORE],
        wish__backup_id=backup.pk,
        status__in=OPEN_OPERATION,
    )


def require_within_limit(server: Server, kind: BackupKind) -> None:
    if kind not in LIMITS:
        return
    most: int = getattr(settings, LIMITS[kind])
    there = Backup.objects.filter(server_id=server.pk, kind=kind, deleted_at=None)
    if there.exclude(status=BackupStatus.FAILED).count() >= most:
        raise Refusal(
            f"This server may have {most} {WORDS[kind]}. Delete one first.", code=f"{kind}_limit_reached"
        )


def require_restorable(backup: Backup, *, account: Account, disk_gib: int, field: str | None = None) -> None:
    """Refuse a copy that is not whole, or that needs a larger disk.  The caller's transaction keeps it there.

    The copy belongs to the account, or this is a bug of ours.
    """
    now_there = Backup.objects.select_for_update(no_key=True).get(pk=backup.pk, account=account)
    if now_there.status != BackupStatus.COMPLETED:
        raise Refusal(
            f"This copy cannot be restored: it is {now_there.status}.", code="not_restorable", field=field
        )
    if disk_gib < now_there.disk_gib:
        raise Refusal(
            f"This copy needs {now_there.disk_gib} GB of storage.", code="disk_too_small", field=field
        )
