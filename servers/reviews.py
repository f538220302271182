"""Has the credits of an account looked at when a suspension of a server is over, or could not be done."""

from billing import reviews
from core import clock
from servers.changes import StatusChange
from servers.states import ServerStatus

UNDER_WAY = {ServerStatus.SUSPENDING, ServerStatus.UNSUSPENDING}


def follow(change: StatusChange) -> None:
    if change.before in UNDER_WAY and change.after not in UNDER_WAY:
        reviews.ask_at(change.server.account_id, clock.now())
