"""Named mutexes across processes and machines, held as Postgres advisory locks.  All their keys are here.

A lock ends with the session or the transaction that holds it, so the death of its holder frees it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from django.db import InterfaceError, OperationalError, connection


def metering_by(worker: int) -> str:
    return f"metering {worker}"


def partitions_of(table: str) -> str:
    return f"partitions of {table}"


def reconcile_of_host(hypervisor_id: int) -> str:
    return f"reconcile host {hypervisor_id}"


def image_on_host(sha256: str, hypervisor_id: int) -> str:
    return f"image {sha256} on host {hypervisor_id}"


def operations_of_host(hypervisor_id: int) -> str:
    return f"operations of host {hypervisor_id}"


def backups_of_host(hypervisor_id: int) -> str:
    return f"backups of host {hypervisor_id}"


def deliveries_of_account(account_id: int) -> str:
    return f"deliveries of account {account_id}"


def pieces_of_account(account_id: int) -> str:
    return f"pieces of account {account_id}"


def idempotency_key(account_id: int, key: str) -> str:
    return f"idempotency {account_id} {key}"


def try_lock(key: str) -> AbstractContextManager[bool]:
    """Hold the lock during the block.  Yields False, and holds nothing, if another process has it."""
    return _try_in_session(key, "pg_try_advisory_lock", "pg_advisory_unlock")


def try_share(key: str) -> AbstractContextManager[bool]:
    """Hold the lock during the block together with others who share it.

    Yields False, and holds nothing, if another process has it alone.
    """
    return _try_in_session(key, "pg_try_advisory_lock_shared", "pg_advisory_unlock_shared")


@contextmanager
def _try_in_session(key: str, take: str, give_back: str) -> Iterator[bool]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {take}(hashtextextended(%s, 0))", [key])
        (mine,) = cursor.fetchone()
        try:
            yield mine
        finally:
            if mine:
                with suppress(OperationalError, InterfaceError):  # a session that has ended holds nothing
                    cursor.execute(f"SELECT {give_back}(hashtextextended(%s, 0))", [key])


def is_held(key: str) -> bool:
    """Whether this session holds the lock still: not, if the connection was lost and made anew meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
                AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = hashtextextended(%s, 0)
            )
            """,
            [key],
        )
        (held,) = cursor.fetchone()
        return bool(held)


def lock_until_commit(key: str) -> None:
    """Wait for the lock, and hold it until the caller's transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])


def try_lock_until_commit(key: str) -> bool:
    """Hold the lock until the caller's transaction ends.  False, at once, if another process has it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        (mine,) = cursor.fetchone()
        return bool(mine)
