"""Named mutexes across processes and machines, held as Postgres advisory locks.  All their keys are here.

A lock ends with the session or the transaction that holds it, so the death of its holder frees it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


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


def deliveries_of_account(account_id: int) -> str:
    return f"deliveries of account {account_id}"


def idempotency_key(account_id: int, key: str) -> str:
    return f"idempotency {account_id} {key}"


@contextmanager
def try_lock(key: str) -> Iterator[bool]:
    """Hold the lock during the block.  Yields False, and holds nothing, if another process has it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [key])
        (mine,) = cursor.fetchone()
        try:
            yield mine
        finally:
            if mine:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])


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
