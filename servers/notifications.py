"""Announces changes of status to the account's webhooks."""

from servers.changes import StatusChange
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
