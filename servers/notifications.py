"""Announces changes of status to the account's webhooks."""

from backups.kinds import BackupStatus
from servers.changes import BackupChange, StatusChange
from webhooks.events import Event
from webhooks.services import announce


def tell_webhooks(change: StatusChange) -> None:
    """Announce a changed status.  A write that leaves the status unchanged announces nothing."""
    if change.after == change.before:
        return
    server = change.server
    payload = {
        "server": {"id": server.pk, "uuid": str(server.uuid), "name": server.name},
        "status_before": change.before,
        "status": change.after,
    }
    announce(account_id=server.account_id, event=Event.SERVER_STATUS_CHANGED, payload=payload)


EVENTS = {BackupStatus.COMPLETED: Event.BACKUP_COMPLETED, BackupStatus.FAILED: Event.BACKUP_FAILED}


def tell_webhooks_of_backup(change: BackupChange) -> None:
    """Announce that a backup or a snapshot is complete, or failed."""
    backup = change.backup
    if change.after not in EVENTS:
        return
    payload = {
        "server": {"id": backup.server_id, "uuid": str(backup.server_uuid), "name": backup.server_name},
        "backup": {
            "id": backup.pk,
            "uuid": str(backup.uuid),
            "backup_type": backup.kind,
            "name": backup.name,
        },
        "status": change.after,
        "message": backup.message,
    }
    announce(account_id=backup.account_id, event=EVENTS[change.after], payload=payload)
