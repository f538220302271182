"""Tells every listener of a new account, in the transaction that opens it.

An app that follows accounts adds its listener in its ``AppConfig.ready``.  A listener that raises takes the
new account back.
"""

from collections.abc import Callable

from accounts.models import Account

Listener = Callable[[Account], None]

_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Call this function with each new account from now on.  To ask for it twice is to ask for it once."""
    if listener not in _listeners:
        _listeners.append(listener)


def announce(account: Account) -> None:
    for listener in _listeners:
        listener(account)
