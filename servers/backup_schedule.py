"""When automatic backups are taken, and how long they are kept.

Each server has a moment of its own in the window that begins at 03:00 UTC (VPS_BACKUP_WINDOW_MINUTES), so
that not all begin at once.  All times are Postgres's.
"""

import logging
from datetime import UTC, datetime, time, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from backups.selectors import whole_automatic_backups
from core import clock
from servers.models import Server

log = logging.getLogger(__name__)

BEGINS = time(3, 0, tzinfo=UTC)
DAY = timedelta(days=1)
FURTHEST = 2 * DAY
ONCE_MORE_AFTER = timedelta(hours=1)
FAILED_IS_SHOWN_FOR = timedelta(days=30)


def set_next(server: Server) -> None:
    """Have a server backed up at its next moment, and so each day."""
    _put(server, next_moment(server.pk, clock.now()))


def end(server: Server) -> None:
    """Have a server not backed up any more.  Backups that are there stay as long as they were to be kept."""
    _put(server, None)


def next_moment(server_id: int, after: datetime) -> datetime:
    """A server's next moment after this one: the same minute every day."""
    window_s = settings.VPS_BACKUP_WINDOW_MINUTES * 60
    offset = timedelta(seconds=server_id * 7919 % window_s if window_s else 0)  # neighbours are apart
    moment = datetime.combine(after.astimezone(UTC).date(), BEGINS) + offset
    return moment if moment > after else moment + DAY


def due() -> QuerySet[Server]:
    """Servers whose moment has come, those that wait longest first.

    A moment that is further away than any can be comes from a clock that was wrong then.
    """
    come = Q(backup_due_at__lte=Now()) | Q(backup_due_at__gt=Now() + FURTHEST)
    return Server.objects.filter(come).order_by("backup_due_at")


def has_come(moment: datetime, now: datetime) -> bool:
    """As ``due``, for one moment."""
    return not now < moment <= now + FURTHEST


def catch_up(server: Server) -> None:
    """After an automatic backup failed: have it taken once more in an hour, unless it was already."""
    now = clock.now()
    tomorrow = next_moment(server.pk, now)
    failed = Backup.objects.filter(
        server_id=server.pk,
        kind=BackupKind.AUTOMATIC,
        status=BackupStatus.FAILED,
        created_at__gt=tomorrow - DAY,
    )
    if server.backup_due_at is not None and failed.count() == 1:
        _put(server, min(now + ONCE_MORE_AFTER, tomorrow))


def keep_until(server: Server, now: datetime) -> datetime:
    """When an automatic backup that begins now is removed: the first of a week is kept longer."""
    plan = server.plan
    daily = settings.VPS_BACKUPS_DAILY if plan.backups_daily is None else plan.backups_daily
    weekly = settings.VPS_BACKUPS_WEEKLY if plan.backups_weekly is None else plan.backups_weekly
    monday = datetime.combine(now.astimezone(UTC).date() - now.weekday() * DAY, time(tzinfo=UTC))
    of_this_week = whole_automatic_backups(server.pk).filter(created_at__gte=monday)
    days = daily if of_this_week.exists() else max(daily, 7 * weekly)
    return now + days * DAY


def expired() -> QuerySet[Backup]:
    """Backups that were to be kept until now.

    The last whole automatic backup of a server that is there stays, however old it is: when backups fail for
    weeks, an old one is better than none.
    """
    newer = whole_automatic_backups(OuterRef("server_id")).filter(pk__gt=OuterRef("pk"))
    there = Server.objects.filter(pk=OuterRef("server_id"), deleted_at=None)
    is_last = Q(status=BackupStatus.COMPLETED) & ~Exists(newer) & Exists(there)
    over = Backup.objects.filter(deleted_at=None, expires_at__lte=Now())
    return over.exclude(status=BackupStatus.IN_PROGRESS).exclude(is_last).order_by("expires_at")


def _put(server: Server, moment: datetime | None) -> None:
    Server.objects.filter(pk=server.pk).update(backup_due_at=moment)
    server.backup_due_at = moment
