"""How many operations a host has under way: never so many that a slow one takes all workers."""

from django.db import connection

OF_OPERATION = """
    FROM servers_operation operation
    JOIN servers_server server ON server.id = operation.server_id
    JOIN inventory_placement placement ON placement.id = server.placement_id
    JOIN inventory_hypervisor host ON host.id = placement.hypervisor_id
    WHERE operation.id = %s
"""
LOCK = f"SELECT pg_advisory_xact_lock(hashtextextended('operations of host', host.id)) {OF_OPERATION}"
IS_FULL = f"""
    WITH host AS (SELECT host.id, host.max_operations {OF_OPERATION})
    SELECT count(*) >= max(host.max_operations)
    FROM host
    JOIN inventory_placement placement ON placement.hypervisor_id = host.id
    JOIN servers_server server ON server.placement_id = placement.id
    JOIN servers_operation operation ON operation.server_id = server.id
    WHERE operation.lease_until > statement_timestamp()
"""  # noqa: S608


def host_is_full(operation_id: int) -> bool:
    """Whether the operation's host has no place for one more.

    Inside a transaction: until it ends nobody else is answered about this host.
    """
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [operation_id])
        # A statement of its own: it sees what those before us in the lock have committed.
        cursor.execute(IS_FULL, [operation_id])
        return bool(cursor.fetchone()[0])
