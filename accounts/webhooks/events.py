"""What an account can be told of.  These words are part of the API."""

from enum import StrEnum


class Event(StrEnum):
    SERVER_STATUS_CHANGED = "server.status_changed"
    BALANCE_LOW = "balance.low"
    ACCOUNT_SUSPENDED = "account.suspended"
    PING = "ping"  # sent when asked for, and to that webhook only


ALL = "*"
SUBSCRIBABLE = [event for event in Event if event != Event.PING]
