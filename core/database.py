"""The connection to Postgres: what a lost connection looks like, and how long Postgres waits for a process.

A process that is frozen, or whose machine has lost its power, may hold a row lock.  Others would wait for
this lock for ever.  So each kind of process sets limits for its sessions: Postgres ends a session that sits
idle in a transaction, refuses a lock that is not free in time, and cancels a statement that takes too long.
"""

from typing import Any, NamedTuple

from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError
from django.db.backends.signals import connection_created


class Limits(NamedTuple):
    """In seconds; 0 means no limit."""

    lock: int
    statement: int
    idle_in_transaction: int


INTEGRITY_CONSTRAINT_VIOLATION = "23000"  # Postgres's code for it, which no constraint of its own uses
RECEIVER = "core.database"  # the dispatch_uid of the signal receiver that sets the limits
LIMITS = {
    # A customer waits for each of these.
    "api": Limits(lock=3, statement=15, idle_in_transaction=10),
    # Nothing inside a transaction waits for a host, a download or a name server.
    "worker": Limits(lock=15, statement=120, idle_in_transaction=30),
    # A migration may take its time, and a person may think in a shell.
    "command": Limits(lock=60, statement=0, idle_in_transaction=600),
}

# libpq's: a Postgres that is gone is noticed within about half a minute.
OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
SET = """
    SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),
        set_config('idle_in_transaction_session_timeout', %s, false),
        set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
        set_config('tcp_keepalives_count', '3', false)
"""


def is_unavailable(error: BaseException) -> bool:
    """Whether Postgres could not do it now: it is away, it was restarted, or a limit was reached.

    psycopg2 has a third class for a connection that breaks in the middle of an answer: its plain
    DatabaseError.  The subclasses of that class are about what was asked.
    """
    return isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError


def refusal_by_trigger(error: IntegrityError) -> str | None:
    """What one of our triggers refused, as a sentence.  None: a constraint refused."""
    cause = error.__cause__
    if getattr(cause, "pgcode", None) != INTEGRITY_CONSTRAINT_VIOLATION:
        return None
    told = str(cause.diag.message_primary)  # type: ignore[union-attr]
    return f"{told[:1].upper()}{told[1:]}."


def serve_as(kind: str) -> None:
    """Set the limits of this kind of process for every connection that this process opens from now on.

    Replaces the limits that were set before.
    """
    limits = [f"{seconds}s" for seconds in LIMITS[kind]]

    def limit(connection: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(SET, limits)

    connection_created.disconnect(dispatch_uid=RECEIVER)
    connection_created.connect(limit, weak=False, dispatch_uid=RECEIVER)
