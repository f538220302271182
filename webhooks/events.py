"""The events that a webhook can receive.  These words are part of the API."""

from enum import StrEnum


class Event(StrEnum):
    SERVER_STATUS_CHANGED = "server.status_changed"
    BACKUP_COMPLETED = "backup.completed"
    BACKUP_FAILED = "backup.failed"
    BALANCE_LOW = "balance.low"
    ACCOUNT_SUSPENDED = "account.suspended"
    PING = "ping"  # sent on request, to one webhook only


ALL = "*"
SUBSCRIBABLE = [event for event in Event if event != Event.PING]
