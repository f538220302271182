"""What other rooms ask about backups."""

from typing import Any

from django.db.models import QuerySet

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup


def whole_automatic_backups(server_id: Any) -> QuerySet[Backup]:
    """Of the server with this number; it may be an expression of the query that this one is part of.

    One that was found damaged is not whole.
    """
    return Backup.objects.filter(
        server_id=server_id, kind=BackupKind.AUTOMATIC, status=BackupStatus.COMPLETED, damage=""
    )
