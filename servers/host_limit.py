"""How many operations a host has under way: never so many that a slow one takes all workers."""

from django.db import connection

LOCK = """
    SELECT host.id, host.max_operations,
        pg_advisory_xact_lock(hashtextextended('operations of host', host.id))
    FROM servers_operation operation
    JOIN servers_server server ON server.id = operation.server_id
    JOIN inventory_placement placement ON placement.id = server.placement_id
    JOIN inventory_hypervisor host ON host.id = placement.hypervisor_id
    WHERE operation.id = %s
"""
COUNT = """
    SELECT count(*)
    FROM servers_operation operation
    JOIN servers_server server ON server.id = operation.server_id
    JOIN inventory_placement placement ON placement.id = server.placement_id
    WHERE operation.lease_until > statement_timestamp() AND placement.hypervisor_id = %s
"""


def host_is_full(operation_id: int) -> bool:
    """Whether the operation's host has no place for one more.

    Inside a transaction: until it ends nobody else is answered about this host.
    """
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [operation_id])
        host = cursor.fetchone()
        if host is None:
            return False  # its server holds no place on a host any more
        # A statement of its own: it sees what those before us in the lock have committed.
        cursor.execute(COUNT, [host[0]])
        return bool(cursor.fetchone()[0] >= host[1])
